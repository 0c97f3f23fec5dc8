"""The admin HTTP API, over real connections and with fuzzing."""

import json
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
import requests
from sqlalchemy import Engine
from structlog.testing import capture_logs

from consumer.api.guard import REQUEST_BYTES
from consumer.api.tokens import TokenFile
from consumer.config.settings import DatabaseSettings
from consumer.crypto.keys import parse_secret
from consumer.crypto.vault import Vault
from consumer.database.engine import create_engine
from consumer.ledger import outbox
from consumer.matching.catalog import find_endpoints
from consumer.subscriptions import repository
from consumer.subscriptions.endpoint_row import Rules
from tests.api.v1_kit import GROUP, make_api

GOOD: dict[str, Any] = {"url": "https://example.com/hooks", "eventType": "user.created"}
OPEN = Rules()


@pytest.fixture
def serve() -> Callable[..., str]:
    """Starts the API on a database, with a token if one is given, and returns its URL."""

    def start(engine: Engine, token: str | None = None, rules: Rules = OPEN, **more: Any) -> str:
        return make_api(engine, TokenFile(None, token), rules, **more).url

    return start


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
        ({"url": 1, "eventType": "a"}, "url: Input should be a valid string"),
        ({"url": "https://example.com", "eventType": ""}, "event_type: is empty"),
        ({"url": "ftp://example.com", "eventType": "a"}, "https://"),
        ({"url": "https://example.com", "eventType": "a", "tenant": "acme"}, "tenant: Extra inputs"),
        ({**GOOD, "own_secret": True}, "own_secret: Extra inputs"),
        ([], "JSON object"),
    ],
)
def test_bad_input_is_explained(serve: Callable[..., str], engine: Engine, body: Any, said: str) -> None:
    """Invalid input is a 400 with the reason, and nothing is stored."""
    status, answer = register(serve(engine), body)
    assert status == 400
    assert said in answer["error"]
    assert tuple(repository.walk(engine)) == ()


def test_an_own_secret_is_shown_once(serve: Callable[..., str], engine: Engine) -> None:
    """It is in the answer only, not in the log, and signs."""
    with capture_logs() as logs:
        answer = requests.post(
            f"{serve(engine, rules=Rules(own_secret=True))}/register-webhook",
            json=GOOD | {"ownSecret": True},
            timeout=60,
        )
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    secret = answer.json()["secret"]
    (endpoint,) = find_endpoints(engine, [("user.created", None)], (b"shared",), Vault().decrypt)["user.created", None]
    assert endpoint.secrets == (parse_secret(secret),)
    assert secret not in str(logs)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"refusal": lambda _: "its address is not allowed"}, "url: its address is not allowed"),
        (
            {"rules": Rules(own_secret=True)},
            "ownSecret must be true: each subscription needs a secret of its own (WEBHOOK_REQUIRE_OWN_SECRET)",
        ),
    ],
)
def test_the_settings_rules_refuse(serve: Callable[..., str], engine: Engine, more: Any, said: str) -> None:
    """The answer is a 400 with the rule's reason."""
    assert register(serve(engine, **more)) == (400, {"error": said})
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


@pytest.mark.parametrize(("path", "status"), [("/nothing", 404), ("/docs", 404), ("/register-webhook", 405)])
def test_errors_are_json(serve: Callable[..., str], engine: Engine, path: str, status: int) -> None:
    """Unknown paths and methods are answered in JSON too. FastAPI's page, which loads foreign scripts, is unknown."""
    answer = requests.get(f"{serve(engine)}{path}", timeout=60)
    assert (answer.status_code, set(answer.json())) == (status, {"error"})
