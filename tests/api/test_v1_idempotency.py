"""Idempotency-Key: a repeated creation creates nothing twice, whatever happens in between."""

from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from itertools import count
from pathlib import Path
from threading import Barrier
from typing import Any

import orjson
import pytest
from cryptography.fernet import Fernet
from requests import Response
from sqlalchemy import Connection, Engine, event

from consumer.api.context import once
from consumer.api.problems import RequestRefused
from consumer.api.tokens import TokenFile
from consumer.crypto.vault import Vault
from consumer.errors import KeyTaken
from consumer.ledger.request_keys import KEPT, request_key
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

    The subscription is shown as it is now.
    """
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


def test_the_key_comes_from_an_encrypted_secret(engine: Engine) -> None:
    """If the secret cannot be decrypted, the answer leaves it out."""
    api = make_api(engine, TokenFile(None))
    backing = api.app.state.backing
    api.app.state.backing = backing._replace(
        deployment=backing.deployment._replace(vault=Vault(Fernet.generate_key().decode()))
    )
    first = create(api, NEW | SECRETS, token=None).json()
    assert create(api, NEW | SECRETS, token=None).json()["receiver_key"] == first["receiver_key"]
    api.app.state.backing = backing
    again = create(api, NEW | SECRETS, token=None)
    assert (again.status_code, "receiver_key" in again.json()) == (201, False)


def test_another_body_is_refused(api: Api) -> None:
    """It is a 422 of its own type that names the header.

    Nothing is created, and the first body still gets its answer.
    """
    create(api)
    refused = create(api, NEW | {"rate_limit": 1})
    assert refusal(refused) == (422, "key-reused")
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


def test_a_day_later_a_key_is_new(engine: Engine) -> None:
    """The process's clock decides; before that the same subscription is returned."""
    now = [1_790_000_000.0]
    api = make_api(engine, TokenFile(None), clock=lambda: now[0])
    first = create(api, token=None).json()
    now[0] += KEPT - 1
    assert create(api, token=None).json() == first
    now[0] += 1
    later = create(api, NEW | {"rate_limit": 1}, token=None)
    assert (later.status_code, replayed(later)) == (201, False)
    assert len(ids(api)) == 2


@pytest.mark.parametrize(
    ("sent", "detail"),
    [
        ([""], "at least 1 character"),
        (["a b"], "should match pattern"),
        (["\xe9"], "should match pattern"),
        (["x" * 256], "at most 255 characters"),
        (["k", "k"], "more than once"),
    ],
)
def test_an_invalid_key_is_refused(api: Api, sent: list[str], detail: str) -> None:
    """The answer is a 422 that names the header, and nothing is created."""
    client = HTTPConnection(api.url.removeprefix("http://"), timeout=60)
    client.putrequest("POST", f"/v1{S}")
    body = orjson.dumps(NEW)
    headers = {"authorization": "Bearer all", "content-type": "application/json", "content-length": str(len(body))}
    for name, value in [*headers.items(), *(("idempotency-key", each) for each in sent)]:
        client.putheader(name, value)
    client.endheaders(body)
    answer = client.getresponse()
    problem = orjson.loads(answer.read())
    client.close()
    assert (answer.status, problem["errors"][0]["header"]) == (422, "idempotency-key")
    assert detail in problem["errors"][0]["detail"]
    assert ids(api) == []


def test_a_key_is_any_visible_text(api: Api) -> None:
    """It may have 255 characters. The quotes of the IETF draft are ordinary characters."""
    keys = ["x", "x" * 255, f'"{KEY}"', KEY, "".join(map(chr, range(0x21, 0x7F)))]
    assert len({create(api, key=key).json()["id"] for key in keys * 2}) == len(keys)


def test_one_of_concurrent_requests_creates(api: Api) -> None:
    """All have found the key new. One creates, and the others get its answer with the generated key."""
    rivals = 3
    begin, looks = Barrier(rivals), count()

    def wait(_: Connection, __: object, statement: str, *___: object) -> None:
        if statement.startswith("SELECT webhook_request_keys.resource_id") and next(looks) < rivals:
            begin.wait(60)

    event.listen(api.engine, "after_cursor_execute", wait)
    with ThreadPoolExecutor(rivals) as pool:
        answers = list(pool.map(lambda _: create(api, NEW | SECRETS), range(rivals)))
    event.remove(api.engine, "after_cursor_execute", wait)
    assert [answer.status_code for answer in answers] == [201] * rivals
    assert sorted(map(replayed, answers)) == [False, True, True]
    assert answers[0].json() == answers[1].json() == answers[2].json()
    assert (len(ids(api)), len(api.events())) == (1, 1)


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


def test_a_key_whose_row_was_removed_is_a_503(engine: Engine) -> None:
    """If a process whose clock is ahead removed the winner's row, the client retries as after any 503."""

    def lose() -> Any:
        raise KeyTaken

    with pytest.raises(RequestRefused) as refused:
        once(engine, request_key(KEY, (), b"", 1_790_000_000.0), lose, lambda _: pytest.fail("nothing is there"))
    assert (refused.value.status, refused.value.headers) == (503, {"retry-after": "5"})
