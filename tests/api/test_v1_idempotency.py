"""Idempotency-Key: a repeated creation creates nothing twice, whatever happens in between."""

from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import orjson
import pytest
from cryptography.fernet import Fernet
from fastapi.responses import Response as HttpResponse
from requests import Response
from sqlalchemy import Connection, Engine, event

from consumer.api.context import once
from consumer.api.problems import RequestRefused
from consumer.api.tokens import TokenFile
from consumer.crypto.vault import Vault
from consumer.errors import KeyTaken
from consumer.ledger.request_keys import note, request_key
from consumer.subscriptions import repository
from tests.api.v1_kit import NEW, Api, make_api
from tests.databases import each_new_engine as new_engine  # noqa: F401 (a fixture)
from tests.ledger.rows_kit import query

S = "/subscriptions"
KEY = "8e03978e-40d5-43dd-bc93-6894a57f9324"
SECRETS = {
    "generate_secret": "hmac",
    "secrets": [{"kind": "signing", "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}],
}


def create(api: Api, body: Any = NEW, key: str = KEY, **more: Any) -> Response:
    """Sends a creation with a key."""
    return api.call("POST", S, body, headers={"idempotency-key": key}, **more)


def replayed(answer: Response) -> bool:
    """Whether the answer is that of an earlier request."""
    return answer.headers.get("idempotency-replayed") == "true"


def ids(api: Api) -> list[int]:
    """The ids of all subscriptions."""
    return [each.id for each in repository.walk(api.engine)]


def refusal(answer: Response) -> tuple[int, str]:
    """The status and the type of a problem."""
    return answer.status_code, answer.json()["type"].rpartition(":")[2]


def test_a_repeated_creation_creates_nothing(api: Api) -> None:
    """The answer is the same, with Location, ETag and the generated key; there is one subscription and one event.

    The subscription is shown as it is now, and without its key if that cannot be decrypted any more.
    """
    backing = api.app.state.backing
    vault = Vault(Fernet.generate_key().decode())
    api.app.state.backing = backing._replace(deployment=backing.deployment._replace(vault=vault))
    first = create(api, NEW | SECRETS)
    assert (first.status_code, replayed(first)) == (201, False)
    again = create(api, NEW | SECRETS)
    assert (again.status_code, replayed(again)) == (201, True)
    assert again.json() == first.json()
    assert first.json()["receiver_key"].startswith("whsec_")
    for header in ("location", "etag", "cache-control"):
        assert again.headers[header] == first.headers[header]
    assert (ids(api), len(api.events())) == ([first.json()["id"]], 1)
    without = api.call("POST", S, NEW | SECRETS)
    assert (replayed(without), len(ids(api))) == (False, 2)
    changed = api.call("PATCH", first.headers["location"].removeprefix("/v1"), {"rate_limit": 5})
    later = create(api, NEW | SECRETS)
    assert (later.json()["rate_limit"], later.headers["etag"]) == (5.0, changed.headers["etag"])
    api.app.state.backing = backing
    assert "receiver_key" not in create(api, NEW | SECRETS).json()


def test_a_later_secret_is_not_shown(api: Api) -> None:
    """It is not shown during the overlap, when the first one still signs, nor after its removal."""
    created = create(api, NEW | {"generate_secret": "ed25519"}, token="writer").json()
    assert created["receiver_key"].startswith("whpk_")
    path = f"{S}/{created['id']}/secrets"
    assert api.call("POST", f"{path}/rotate", {}).status_code == 200
    overlapping = create(api, NEW | {"generate_secret": "ed25519"}, token="writer")
    first = min(each["id"] for each in api.call("GET", path).json()["items"])
    assert api.call("DELETE", f"{path}/{first}").status_code == 204
    alone = create(api, NEW | {"generate_secret": "ed25519"}, token="writer")
    for again in (overlapping, alone):
        assert (again.status_code, replayed(again), "receiver_key" in again.json()) == (201, True, False)


def test_another_body_is_refused(api: Api) -> None:
    """It is a 422 of its own type that names the header.

    Nothing is created, and the first body still gets its answer.
    """
    create(api)
    refused = create(api, NEW | {"rate_limit": 1})
    assert refusal(refused) == (422, "key_reused")
    assert refused.json()["errors"][0]["header"] == "idempotency-key"
    assert replayed(create(api))
    assert len(ids(api)) == 1


def test_a_removed_creation_is_not_repeated(api: Api) -> None:
    """It is a 409, also if the subscription now belongs to another tenant. Another key creates."""
    removed = create(api, token="acme").json()
    api.call("DELETE", f"{S}/{removed['id']}")
    assert refusal(create(api, token="acme")) == (409, "conflict")
    moved = create(api, key="k2", token="acme").json()
    api.call("PATCH", f"{S}/{moved['id']}", {"tenant": "other"})
    foreign = create(api, key="k2", token="acme")
    assert foreign.json() == create(api, token="acme").json()
    assert create(api, key="k3", token="acme").status_code == 201


def test_tokens_do_not_share_keys(api: Api, engine: Engine, tmp_path: Path) -> None:
    """Each token creates its own subscription with the same key. So does a token that was given to another tenant."""
    made = [create(api, token=token).json() for token in ("all", "writer", "acme", "other")]
    assert len({each["id"] for each in made}) == 4
    assert refusal(create(api, token="reader")) == (403, "scope")
    text = (tmp_path / "tokens.toml").read_text()
    given_away = tmp_path / "given_away.toml"
    given_away.write_text(text.replace('tenant = "acme"', 'tenant = "new"'))
    later = make_api(engine, TokenFile(str(given_away)))
    theirs = create(later, token="acme")
    assert (theirs.status_code, replayed(theirs), theirs.json()["tenant"]) == (201, False, "new")


@pytest.mark.parametrize(
    ("sent", "detail"),
    [("", "at least 1 character"), ("a b", "should match pattern"), ("x" * 256, "at most 255 characters")],
)
def test_an_invalid_key_is_refused(api: Api, sent: str, detail: str) -> None:
    """The answer is a 422 that names the header, and nothing is created."""
    answer = create(api, key=sent)
    (mistake,) = answer.json()["errors"]
    assert (answer.status_code, mistake["header"], detail in mistake["detail"]) == (422, "idempotency-key", True)
    assert ids(api) == []


def test_two_keys_are_none(api: Api) -> None:
    """Another process may have taken the other one."""
    client = HTTPConnection(api.url.removeprefix("http://"), timeout=60)
    body = orjson.dumps(NEW)
    client.putrequest("POST", f"/v1{S}")
    headers = {"authorization": "Bearer all", "content-type": "application/json", "content-length": str(len(body))}
    for name, value in (*headers.items(), ("idempotency-key", "k"), ("idempotency-key", "k")):
        client.putheader(name, value)
    client.endheaders(body)
    assert client.getresponse().status == 422
    client.close()


def test_a_crash_leaves_neither_key_nor_subscription(api: Api) -> None:
    """After a crash between the last insert and the commit, the same request creates."""

    def crash(_: Connection, __: object, statement: str, *___: object) -> None:
        if statement.startswith("INSERT INTO webhook_request_keys"):
            raise RuntimeError("the process ends here")

    event.listen(api.engine, "after_cursor_execute", crash)
    assert create(api, NEW | SECRETS).status_code == 500
    event.remove(api.engine, "after_cursor_execute", crash)
    for table in ("request_keys", "subscriptions", "secrets", "operations"):
        assert query(api.engine, f"SELECT count(*) FROM webhook_{table}") == [(0,)]  # noqa: S608 (names of ours)
    again = create(api, NEW | SECRETS)
    assert (again.status_code, replayed(again)) == (201, False)


def test_the_loser_of_a_race_gets_the_winners_answer(engine: Engine) -> None:
    """Of two requests that found the key new, one creates."""
    key = request_key(KEY, (), b"", 1_790_000_000.0)

    def lose() -> Any:
        with engine.begin() as connection:
            note(connection, key, 7)
        raise KeyTaken

    answer = once(engine, key, lose, lambda found: HttpResponse(str(found.resource_id)))
    assert (answer.body, answer.headers["idempotency-replayed"]) == (b"7", "true")


def test_a_key_whose_row_was_removed_is_a_503(engine: Engine) -> None:
    """If a process whose clock is ahead removed the winner's row, the client retries as after any 503."""

    def lose() -> Any:
        raise KeyTaken

    with pytest.raises(RequestRefused) as refused:
        once(engine, request_key(KEY, (), b"", 1_790_000_000.0), lose, lambda _: pytest.fail("nothing is there"))
    assert (refused.value.status, refused.value.headers) == (503, {"retry-after": "5"})
