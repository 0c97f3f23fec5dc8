"""The admin HTTP API, over real connections and with fuzzing."""

import json
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
import requests
from cryptography.fernet import Fernet
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, select
from structlog.testing import capture_logs

from consumer.api.app import create_app
from consumer.api.backing import Backing
from consumer.api.guard import REQUEST_BYTES
from consumer.api.tokens import TokenFile
from consumer.config.settings import DatabaseSettings, RuleSettings
from consumer.crypto.keys import parse_secret
from consumer.crypto.vault import Vault
from consumer.database.engine import create_engine
from consumer.http.server import BackgroundServer, listen
from consumer.ledger import outbox
from consumer.matching.catalog import find_endpoints
from consumer.matching.destinations import resolving_rules_of
from consumer.ops.changes import Deployment
from consumer.subscriptions import repository
from consumer.subscriptions.endpoint_row import Rules
from models import SubscriptionSecret
from tests.api.v1_kit import GROUP
from tests.databases import on_oracle
from tests.oracle_emulator import OracleEmulator, OracleError

GOOD: dict[str, Any] = {"url": "https://example.com/hooks", "eventType": "user.created"}
OPEN = Rules()


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    servers: dict[tuple[object, ...], BackgroundServer] = {}

    def start(engine: Engine, token: str | None = None, *, vault: Vault | None = None, rules: Rules = OPEN) -> str:
        key = engine, token, vault, rules
        if key not in servers:
            backing = Backing(Deployment(engine, GROUP, vault or Vault(), rules))
            app = create_app(backing, TokenFile(None, token))
            servers[key] = BackgroundServer(app, listen("127.0.0.1", 0), "api")
        return f"http://127.0.0.1:{servers[key].port}"

    yield start
    for server in servers.values():
        server.close()


def register(url: str, body: Any = None, **options: Any) -> tuple[int, dict[str, str]]:
    answer = requests.post(f"{url}/register-webhook", json=GOOD if body is None else body, timeout=60, **options)
    return answer.status_code, answer.json()


def test_a_registration_as_in_the_tutorial(serve: Callable[..., str], engine: Engine) -> None:
    """A url and an event type or pattern make a subscription, to which `Location` leads, as in the tutorial."""
    asked = (GOOD, {**GOOD, "eventType": "order.*", "ownSecret": False})
    for body in asked:
        answer = requests.post(f"{serve(engine)}/register-webhook", json=body, timeout=60)
        assert (answer.status_code, answer.text) == (201, '{"message":"Webhook registered successfully"}')
        assert requests.get(urljoin(answer.url, answer.headers["location"]), timeout=60).json()["url"] == body["url"]
    for row, body in zip(repository.walk(engine), asked, strict=True):
        assert (row.url, row.event_type, row.secrets, row.state) == (body["url"], body["eventType"], 0, "enabled")
    told = [event for _, event, _ in outbox.pending(engine, GROUP, 10)]
    assert [(event.type, event.data["actor"]) for event in told] == [("subscription.created", "api:local")] * 2


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "url: Field required; eventType: Field required"),
        ({"url": "https://example.com"}, "eventType: Field required"),
        ({"url": 1, "eventType": "a"}, "url: Input should be a valid string"),
        ({"url": "https://example.com", "eventType": None}, "eventType: Input should be a valid string"),
        ({"url": "https://example.com", "eventType": ""}, "event_type: is empty"),
        ({"url": "https://example.com", "eventType": "order.*.paid"}, "write order.* (one segment below order)"),
        ({"url": "ftp://example.com", "eventType": "a"}, "https://"),
        ({"url": "https://example.com", "eventType": "a", "tenant": "acme"}, "tenant: Extra inputs"),
        ({**GOOD, "ownSecret": "true"}, "ownSecret: Input should be a valid boolean"),
        ({**GOOD, "own_secret": True}, "own_secret: Extra inputs"),
        ([], "JSON object"),
        ("text", "JSON object"),
    ],
)
def test_bad_input_is_explained(serve: Callable[..., str], engine: Engine, body: Any, said: str) -> None:
    """Invalid input is a 400 with the reason, and nothing is stored."""
    status, answer = register(serve(engine), body)
    assert status == 400
    assert said in answer["error"]
    assert tuple(repository.walk(engine)) == ()


@pytest.mark.parametrize(
    ("target", "setting"),
    [
        ("http://example.com/h", "WEBHOOK_ALLOW_HTTP"),
        ("https://localhost/h", "WEBHOOK_ALLOW_NETWORKS"),  # by its address
        ("https://nowhere.invalid/h", None),
    ],
)
def test_the_settings_rules_refuse(serve: Callable[..., str], engine: Engine, target: str, setting: str | None) -> None:
    """The answer is a 400 that names the setting.

    A name that does not resolve is accepted: the receiver may come later.
    """
    rules = resolving_rules_of(RuleSettings())
    with capture_logs():
        status, answer = register(serve(engine, rules=rules), {**GOOD, "url": target})
    assert status == (201 if setting is None else 400)
    assert setting is None or (answer["error"].startswith("url: ") and setting in answer["error"])
    assert len(tuple(repository.walk(engine))) == (setting is None)


@pytest.mark.parametrize("encrypted", [False, True])
def test_an_own_secret_is_shown_once(serve: Callable[..., str], engine: Engine, *, encrypted: bool) -> None:
    """It is in the answer only, not in the log and, with an encryption key, not in the table."""
    vault = Vault(Fernet.generate_key().decode() if encrypted else "")
    url = serve(engine, vault=vault, rules=Rules(own_secret=True))
    with capture_logs() as logs:
        answers = [
            requests.post(f"{url}/register-webhook", json={**GOOD, "ownSecret": True}, timeout=60) for _ in range(2)
        ]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert {answer.headers["cache-control"] for answer in answers} == {"no-store"}
    told = [answer.json() for answer in answers]
    assert [each.keys() for each in told] == [{"message", "secret"}] * 2
    assert {each["message"] for each in told} == {"Webhook registered successfully"}
    keys = [parse_secret(each["secret"]) for each in told]
    assert len({*keys}) == 2
    assert [len(key) for key in keys] == [32, 32]
    found = find_endpoints(engine, [("user.created", None)], (b"shared",), vault.decrypt)["user.created", None]
    assert [endpoint.secrets for endpoint in found] == [(key,) for key in keys]
    with engine.connect() as connection:
        stored = connection.execute(select(SubscriptionSecret.secret)).scalars().all()
    assert all(each.startswith("fernet:" if encrypted else "whsec_") for each in stored)
    assert not any(each["secret"] in str(logs) for each in told)


def test_an_own_secret_can_be_required(serve: Callable[..., str], engine: Engine) -> None:
    """A request without `ownSecret` gets a 400 that says what to send."""
    status, answer = register(serve(engine, rules=Rules(own_secret=True)), GOOD)
    assert (status, answer["error"]) == (
        400,
        "ownSecret must be true: each subscription needs a secret of its own (WEBHOOK_REQUIRE_OWN_SECRET)",
    )
    assert tuple(repository.walk(engine)) == ()


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", None])
def test_only_json_is_read(serve: Callable[..., str], engine: Engine, kind: str | None) -> None:
    """Another content type is refused: a web page could send it to a local port without a preflight request."""
    headers = {"content-type": kind} if kind else {}
    answer = requests.post(f"{serve(engine)}/register-webhook", json.dumps(GOOD), headers=headers, timeout=60)
    assert answer.status_code == 400
    assert "application/json" in answer.json()["error"]


@pytest.mark.parametrize("token", [None, "secret-token"])
@pytest.mark.parametrize(
    ("origin", "status"), [("http://evil.example", 403), ("null", 403), ("http://127.0.0.1:1", 403), ("http://{}", 201)]
)
def test_a_page_of_another_site_registers_nothing(
    serve: Callable[..., str], engine: Engine, token: str | None, origin: str, status: int
) -> None:
    """This holds for any content type, by the browser's Origin header."""
    url = serve(engine, token)
    headers = {"origin": origin.format(url.removeprefix("http://"))} | (
        {"authorization": f"Bearer {token}"} if token else {}
    )
    answer = requests.post(f"{url}/register-webhook", json=GOOD, headers=headers, timeout=60)
    assert answer.status_code == status


def test_malformed_json(serve: Callable[..., str], engine: Engine) -> None:
    """A body that is not JSON is a 400."""
    answer = requests.post(
        f"{serve(engine)}/register-webhook", b"{", headers={"content-type": "application/json"}, timeout=60
    )
    assert (answer.status_code, answer.json()) == (400, {"error": "the body is not JSON"})


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(("more", "status"), [(0, 400), (1, 413)])
def test_the_body_is_bounded(
    serve: Callable[..., str], engine: Engine, more: int, status: int, *, chunked: bool
) -> None:
    """More than 64 KiB is a 413, with a length or without. Up to then the body is read."""
    body = b" " * (REQUEST_BYTES + more)
    answer = requests.post(
        f"{serve(engine)}/register-webhook",
        iter([body]) if chunked else body,
        headers={"content-type": "application/json"},
        timeout=60,
    )
    assert answer.status_code == status


def test_a_token_is_required(serve: Callable[..., str], engine: Engine) -> None:
    """A request without the token is a 401 before anything else is checked; /healthz needs none."""
    url = serve(engine, "secret-token")
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "secret-token"}, {"authorization": "é"}):
        encoded = {name: value.encode("latin-1") for name, value in headers.items()}
        answer = requests.post(f"{url}/register-webhook", b"{", headers=encoded, timeout=60)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "authorization" in answer.json()["error"]
    for scheme in ("Bearer", "bearer", "BEARER"):
        assert register(url, headers={"authorization": f"{scheme} secret-token"})[0] == 201
    assert requests.get(f"{url}/healthz", timeout=60).status_code == 200
    assert requests.get(f"{url}/nothing", timeout=60).status_code == 401


def test_two_tokens_are_none(serve: Callable[..., str], engine: Engine) -> None:
    """A proxy in front may have checked the other one."""
    client = HTTPConnection(serve(engine, "secret-token").removeprefix("http://"), timeout=60)
    client.putrequest("GET", "/v1/subscriptions/1")
    for token in ("secret-token", "another"):
        client.putheader("authorization", f"Bearer {token}")
    client.endheaders()
    assert client.getresponse().status == 401
    client.close()


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[", "10.0.0.1"])
def test_without_a_token_only_localhost_is_served(serve: Callable[..., str], engine: Engine, host: str) -> None:
    """A web page whose name resolves to 127.0.0.1 cannot register webhooks (DNS rebinding)."""
    url = serve(engine)
    assert register(url, headers={"host": host})[0] == 403
    assert tuple(repository.walk(engine)) == ()
    assert register(url, headers={"host": "localhost:8080"})[0] == 201


def test_a_failing_database_is_the_tutorials_500(serve: Callable[..., str], tmp_path: Path) -> None:
    """Without its tables or its file, the answer is a 500 without internal details."""
    empty = create_engine(DatabaseSettings.model_validate({"DATABASE_URL": f"sqlite:///{tmp_path}/empty.db"}))
    absent = create_engine(DatabaseSettings.model_validate({"DATABASE_URL": f"sqlite:///{tmp_path}/no/such.db"}))
    for engine in (empty, absent):
        with capture_logs():
            assert register(serve(engine)) == (500, {"error": "Failed to register webhook"})
        engine.dispose()


@on_oracle
@pytest.mark.parametrize(
    "fault", [{"drop": "before"}, {"error": OracleError(1012, "not logged on")}, {"error": OracleError(60, "deadlock")}]
)
def test_a_lost_session_is_a_500_and_then_works(
    serve: Callable[..., str], engine: Engine, emulator: OracleEmulator, fault: dict[str, Any]
) -> None:
    """Only one request fails: other connections of the pool and the next request work."""
    url = serve(engine)
    assert register(url)[0] == 201
    emulator.inject("INSERT INTO webhook_subscriptions", **fault)
    with capture_logs():  # formatting a traceback through the driver for the terminal takes seconds
        assert register(url)[0] == 500
    assert register(url)[0] == 201
    assert len(tuple(repository.walk(engine))) == 2


def test_errors_are_json(serve: Callable[..., str], engine: Engine) -> None:
    """Unknown paths and methods are answered in JSON too."""
    url = serve(engine)
    for answer, status in (
        (requests.get(f"{url}/nothing", timeout=60), 404),
        (requests.get(f"{url}/docs", timeout=60), 404),  # FastAPI's page loads scripts from a foreign host
        (requests.get(f"{url}/register-webhook", timeout=60), 405),
    ):
        assert answer.status_code == status
        assert set(answer.json()) == {"error"}


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
registrations = st.fixed_dictionaries(
    {},
    optional={
        "url": anything | st.from_regex(r"https?://[^\s]{0,40}"),
        "eventType": anything | st.just("a"),
        "ownSecret": anything,
    },
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(
    body=st.binary(max_size=200) | (registrations | anything).map(lambda value: json.dumps(value).encode()),
    kind=st.sampled_from(["application/json", "application/json; charset=utf-16", "application/problem+json", "x", ""]),
)
def test_no_input_breaks_it(serve: Callable[..., str], engine: Engine, body: bytes, kind: str) -> None:
    """Any request gets a 201 or a 4xx with a text, never a 500."""
    url = serve(engine)
    answer = requests.post(f"{url}/register-webhook", body, headers={"content-type": kind}, timeout=60)
    assert answer.status_code in {201, 400}
    assert answer.json()[("message" if answer.status_code == 201 else "error")]
