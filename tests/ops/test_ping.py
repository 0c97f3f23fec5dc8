"""Test events, with receivers that answer and addresses that do not: what is sent, and what is shown of it."""

import gzip
import json
import socket
import ssl
import time
from base64 import b64encode
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.fernet import Fernet
from requests import PreparedRequest, Response
from requests import exceptions as errors
from requests.auth import AuthBase
from sqlalchemy import Engine

from consumer.config.settings import DeliverySettings
from consumer.crypto.vault import Vault
from consumer.ledger import outbox
from consumer.matching.destinations import rules_of
from consumer.ops.changes import Changes, Deployment
from consumer.ops.ping import SHOWN, ping, ping_event, ping_subscription, sending_by, verdict_on
from consumer.ops.receiver import verify
from consumer.sending.trace import ExchangeTrace
from consumer.sending.transfer import Result
from consumer.subscriptions import repository
from consumer.subscriptions.endpoint import Endpoint
from tests.sending.conftest import Receive

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine"
KEY = b"the-default-secret"
VAULT = Vault(Fernet.generate_key().decode())
DATA = {"amount": 5, "more": "x" * 200}
Pinged = Callable[..., dict[str, Any]]


@pytest.fixture
def pinged(engine: Engine) -> Pinged:
    """Sends a subscription an event, as a process with these settings does; returns the exchange for display."""

    def send(number: int, data: str | None = None, vault: Vault = VAULT, **settings: str) -> dict[str, Any]:
        given = {"WEBHOOK_SECRET": KEY.decode(), "WEBHOOK_ALLOW_NETWORKS": "127.0.0.0/8", "WEBHOOK_TIMEOUT": "5s"}
        delivery = DeliverySettings.model_validate(given | settings)
        where = Deployment(engine, "webhooks", vault, rules_of(delivery), delivery.secrets)
        event = ping_event(number, time.time(), "order.paid", data)
        _, told = ping_subscription(Changes(where, "cli:anna"), number, event, partial(ping, send=sending_by(delivery)))
        return told

    return send


def parts_of(request: bytes) -> tuple[dict[str, str], bytes]:
    """The request's headers, by lower-case name, and its body, whose signature a receiver can verify."""
    head, _, body = request.partition(b"\r\n\r\n")
    lines = (line.decode().partition(": ") for line in head.split(b"\r\n")[1:])
    headers = {name.lower(): value for name, _, value in lines}
    plain = gzip.decompress(body) if "content-encoding" in headers else body
    assert verify(headers, plain, [KEY], float(headers["webhook-timestamp"])) is None
    return headers, plain


def echo(connection: socket.socket, request: bytes) -> bool:
    """Sends the request back, as public test receivers do."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(request), request))
    return True


def test_the_exchange_is_shown(engine: Engine, pinged: Pinged, receive: Receive) -> None:
    """It has the address, the sent request, times and answer; no delivery is stored, and an event names the actor.

    A paused subscription gets a test event as well: a person asks for it.
    """
    receiver = receive(OK)
    one = repository.add(engine, receiver.url, "a")
    told = pinged(one, '{"amount": 5}')
    repository.pause(engine, one)
    again = pinged(one, '{"amount": 5}')
    headers, body = parts_of(receiver.requests[0])
    assert (body, headers["x-webhook-event"], told["event_type"]) == (b'{"amount": 5}', "order.paid", "order.paid")
    assert told["headers"] == {name: headers[name] for name in told["headers"]}
    assert {"webhook-id", "webhook-timestamp", "webhook-signature", "x-webhook-signature"} < told["headers"].keys()
    assert again["headers"]["webhook-id"] != headers["webhook-id"]  # a receiver takes it for no repetition
    assert (told["addresses"], told["connected"]) == (["127.0.0.1"], f"127.0.0.1:{receiver.port}")
    assert (told["status"], told["response"], told["ok"], told["advice"]) == (200, "fine", True, None)
    assert (told["tls"], told["certificate"], told["body"]) == (None, None, body.decode())
    assert list(told["seconds"]) == ["connect", "answer", "total"]
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM webhook_deliveries").scalar_one() == 0
    events = [event for _, event, _ in outbox.pending(engine, "webhooks", 9)]
    assert [(event.type, event.data["subscription_id"]) for event in events] == [("subscription.pinged", one)] * 2
    assert {event.data["actor"] for event in events} == {"cli:anna"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"payload_format": "cloudevents", "batch_size": 10}, [DATA]),
        ({"projection": "[type, data.amount]"}, ["order.paid", 5]),
        ({"gzip_above": 0}, DATA),
    ],
)
def test_the_format_is_the_subscriptions(
    engine: Engine, pinged: Pinged, receive: Receive, options: dict[str, Any], expected: object
) -> None:
    """The event has the subscription's format, projection and batch, and is shown as it was signed.

    The advice after a 415 to a compressed body names that option.
    """
    receiver = receive(b"HTTP/1.1 415 No\r\nContent-Length: 0\r\n\r\n")
    told = pinged(repository.add(engine, receiver.url, "a", **options), json.dumps(DATA))
    _, body = parts_of(receiver.requests[0])
    value = json.loads(body)
    assert ([each["data"] for each in value] if options.get("batch_size") else value) == expected
    assert told["body"] == body.decode()
    assert ("unset gzip_above" in str(told["advice"])) == ("gzip_above" in options)


def answered(status: int, **headers: str) -> Response:
    found = Response()
    found.status_code, found.request = status, PreparedRequest()
    found.headers.update(headers)
    return found


@pytest.mark.parametrize(
    ("result", "verdict", "advice"),
    [
        (answered(201), "delivered: the receiver took it with status 201", None),
        (answered(302, location="https://x/"), "failed: status 302; a worker would try again", "should be https://x/"),
        (answered(401), "failed: status 401", "secret"),
        (answered(404), "failed: status 404", "path"),
        (answered(422), "refused: status 422 is final", "--data"),
        (answered(410), "refused: after a 410 a worker disables the subscription", "url"),
        (answered(503), "failed: status 503", "log says why"),
        (errors.ConnectTimeout("x"), "failed: ", "WEBHOOK_CONNECT_TIMEOUT"),
        (errors.ProxyError("x"), "failed: ", "WEBHOOK_PROXY"),
        (errors.ReadTimeout("x"), "failed: ", "WEBHOOK_TIMEOUT"),
        (errors.ConnectionError("x"), "failed: ", "listen"),
        (errors.InvalidHeader("x"), "", None),
    ],
)
def test_a_verdict_says_what_a_worker_would_do(result: Result, verdict: str, advice: str | None) -> None:
    """Each kind of failure has its own advice, unless the error says everything."""
    endpoint = Endpoint(1, "https://x", (b"k",), final_statuses=frozenset({422}))
    found = verdict_on(endpoint, result, ExchangeTrace(started=True), 0.0)
    assert (found.ok, found.text.startswith(verdict)) == (verdict.startswith("delivered"), True)
    assert (found.advice is None) if advice is None else (advice in (found.advice or ""))


@pytest.mark.parametrize("known", [True, False])
def test_tls_is_shown(
    engine: Engine, pinged: Pinged, receive: Receive, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, known: bool
) -> None:
    """The exchange has version, cipher, the certificate's subject, issuer and expiry, also of an untrusted one."""
    authority = trustme.CA(organization_name="The authority")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", organization_name="The receiver").configure_cert(context)
    if known:
        authority.cert_pem.write_to_path(tmp_path / "authority.pem")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    receiver = receive(OK, tls=context)
    told = pinged(repository.add(engine, receiver.url, "a"))
    assert told["tls"].startswith("TLSv1.3 / TLS_")
    assert "O=The receiver" in told["certificate"]["subject"]
    assert "O=The authority" in told["certificate"]["issuer"]
    assert told["certificate"]["expires_at"] == "3000-01-01T00:00:00Z"
    assert (told["ok"], len(receiver.requests)) == (known, known)
    assert list(told["seconds"]) == (["connect", "tls", "answer", "total"] if known else ["connect", "total"])
    assert told["verdict"].startswith("delivered" if known else "failed: TLS: ")
    assert known or "SSL_CERT_FILE" in told["advice"]


def test_no_answer_in_time(engine: Engine, pinged: Pinged, receive: Receive) -> None:
    """The subscription's own time-out applies, and the exchange shows that the connection was made."""
    receiver = receive(b"", "hang")
    told = pinged(repository.add(engine, receiver.url, "a", timeout_seconds=0.3))
    assert told["verdict"].startswith("failed: time-out")
    assert (told["ok"], told["connected"]) == (False, f"127.0.0.1:{receiver.port}")
    assert list(told["seconds"]) == ["connect", "total"]
    assert 0.25 < told["seconds"]["total"] < 4


@pytest.mark.parametrize(
    ("url", "options", "said"),
    [
        ("http://127.0.0.2:{}/", {}, "add its network to WEBHOOK_ALLOW_NETWORKS"),
        ("http://localhost:{}/", {}, "add its network to WEBHOOK_ALLOW_NETWORKS"),
        ("https://nowhere.invalid/", {}, "'nowhere.invalid' does not resolve"),
        ("https://example.com/", {"secrets": [("bearer", "t")], "vault": VAULT}, "WEBHOOK_ENCRYPTION_KEY is not set"),
        ("http://10.0.0.1:{}/", {"projection": "data.amount"}, "--data"),
    ],
)
def test_an_event_that_cannot_be_sent_says_why(
    engine: Engine, pinged: Pinged, receive: Receive, url: str, options: dict[str, Any], said: str
) -> None:
    """Nothing is sent for a refused or unknown address, a broken subscription, or a projection that fails on it."""
    receiver = receive(OK)
    one = repository.add(engine, url.format(receiver.port), "a", **options)
    told = pinged(one, vault=Vault(), WEBHOOK_ALLOW_NETWORKS="10.0.0.0/8")
    assert (told["ok"], told["connected"], said in f"{told['verdict']} {told['advice']}") == (False, None, True), told
    assert receiver.connections == 0


class KeyAuth(AuthBase):
    """A plug-in that sends its key, the key reversed, and a short value, in headers of its own and in one of ours."""

    def __init__(self, key: str) -> None:
        self.key = key

    def __call__(self, r: PreparedRequest) -> PreparedRequest:
        r.headers["X-Plugged"] = self.key
        r.headers["X-Plugged-Reversed"] = self.key[::-1]
        r.headers["X-Short"] = "7"
        r.headers["User-Agent"] = f"with {self.key}"
        return r


SECRETS = [("header", "x-api-key: key-of-theirs"), ("basic", "user:pass-word")]
PLUGIN = [("plugin", '{"name": "key", "args": ["key-of-theirs"]}')]


@pytest.mark.parametrize(
    ("secrets", "names"),
    [
        (SECRETS, {"x-team", "x-api-key", "authorization"}),
        (PLUGIN, {"x-team", "x-plugged", "x-plugged-reversed", "x-short", "user-agent"}),
    ],
)
def test_secrets_are_sent_and_not_shown(
    engine: Engine, pinged: Pinged, receive: Receive, secrets: list[tuple[str, str]], names: set[str]
) -> None:
    """The exchange, also the answer that echoes it, masks credentials, custom headers and a plug-in's headers."""
    receiver = receive(echo)
    one = repository.add(
        engine, receiver.url, "a", secrets=secrets, vault=VAULT, custom_headers='{"X-Team": "team-blue"}'
    )
    told = pinged(one, WEBHOOK_AUTH_PLUGINS=f"key={__name__}:KeyAuth")
    sent, _ = parts_of(receiver.requests[0])
    assert sent["x-team"] == "team-blue"
    assert {"key-of-theirs", f"Basic {b64encode(b'user:pass-word').decode()}"} & {*sent.values()}
    shown = {name.lower(): value for name, value in told["headers"].items()}
    assert {name for name, value in shown.items() if value == "(not shown)"} == names
    assert shown["user-agent"] == ("(not shown)" if secrets is PLUGIN else sent["user-agent"])
    for secret in ("key-of-theirs", "key-of-theirs"[::-1], "pass-word", sent.get("authorization", KEY.decode())):
        assert secret not in str(told)
    assert "team-blue" not in str(told)


def test_answers_stay_readable(engine: Engine, pinged: Pinged, receive: Receive) -> None:
    """A custom header of one character is not masked in them, and of a long one only the start is shown."""
    receiver = receive(b"HTTP/1.1 200 OK\r\nContent-Length: 50012\r\n\r\nv1 is v1 now" + b"x" * 50_000)
    told = pinged(repository.add(engine, receiver.url, "a", custom_headers='{"X-Version": "1"}'))
    assert (told["response"][:13], len(told["response"])) == ("v1 is v1 nowx", SHOWN)


@pytest.mark.parametrize("event", [("a", "{"), ("a b", None), ("", None), ("é", None), ("a", '"' + "x" * 2**20 + '"')])
def test_an_invalid_event_is_refused(event: tuple[str, str | None]) -> None:
    """A type or data that no event can have is a ValueError."""
    with pytest.raises(ValueError, match=r"an event type is|it is not JSON|at most"):
        ping_event(7, 0.0, *event)
