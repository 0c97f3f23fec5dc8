"""`subscriptions ping`, with receivers that answer and addresses that do not."""

import gzip
import json
import socket
import ssl
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trustme
from cryptography.fernet import Fernet
from requests import PreparedRequest
from requests import exceptions as errors
from requests.auth import AuthBase
from sqlalchemy import Engine, text

from consumer.cli.app import main
from consumer.crypto.vault import Vault
from consumer.ledger import outbox
from consumer.ops.ping import SHOWN, verdict_on
from consumer.ops.receiver import verify
from consumer.sending.trace import ExchangeTrace
from consumer.subscriptions import repository
from consumer.subscriptions.endpoint import Endpoint
from tests.databases import url_of
from tests.sending.conftest import Behaviour, Receiver, answer

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine"
KEY = b"the-default-secret"


class Ended(NamedTuple):
    status: int
    out: str
    err: str


Ping = Callable[..., Ended]
Receive = Callable[..., Receiver]


@pytest.fixture
def receive() -> Iterator[Receive]:
    made: list[Receiver] = []

    def make(behaviour: Behaviour | bytes, then: str = "keep", tls: ssl.SSLContext | None = None) -> Receiver:
        made.append(Receiver(answer(behaviour, then) if isinstance(behaviour, bytes) else behaviour, tls))
        return made[-1]

    yield make
    for receiver in made:
        receiver.close()


@pytest.fixture
def ping(engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Ping:
    """Runs the command in this process; keywords are settings."""
    monkeypatch.chdir(tmp_path)

    def run(subscription_id: int, *words: str, **settings: str) -> Ended:
        given = {"DATABASE_URL": url_of(engine), "WEBHOOK_SECRET": KEY.decode(), "WEBHOOK_TIMEOUT": "5s"}
        for name, value in (given | {"WEBHOOK_ALLOW_NETWORKS": "127.0.0.0/8"} | settings).items():
            monkeypatch.setenv(name, value)
        status = main(["subscriptions", "ping", str(subscription_id), *words])
        return Ended(status, *capsys.readouterr())

    return run


def parts_of(request: bytes) -> tuple[dict[str, str], bytes]:
    """The request's headers, by lower-case name, and its body."""
    head, _, body = request.partition(b"\r\n\r\n")
    lines = (line.decode().partition(": ") for line in head.split(b"\r\n")[1:])
    return {name.lower(): value for name, _, value in lines}, body


def echo(connection: socket.socket, request: bytes) -> bool:
    """Sends the request back, as public test receivers do."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(request), request))
    return True


def test_the_exchange_is_shown(engine: Engine, ping: Ping, receive: Receive) -> None:
    """The output has the address, the sent headers, status, times and answer; the receiver can verify the signature."""
    receiver = receive(b"HTTP/1.1 201 Created\r\nContent-Length: 8\r\n\r\nok\x1b[31m!")
    done = ping(repository.add(engine, receiver.url, "a"))
    assert (done.status, done.err) == (0, "")
    headers, body = parts_of(receiver.requests[0])
    assert verify(headers, body, [KEY], float(headers["webhook-timestamp"])) is None
    assert headers["webhook-id"].startswith("msg_")
    assert headers["x-webhook-event"] == "webhooks.ping"
    shown = dict(line.split(maxsplit=1) for line in done.out.splitlines() if line and not line.startswith(" "))
    for name in ("webhook-id", "webhook-timestamp", "webhook-signature", "x-webhook-signature", "x-webhook-event"):
        assert shown[name] == headers[name]
    assert shown["address"] == f"127.0.0.1:{receiver.port}"
    assert shown["status"] == "201"
    assert shown["answer"] == "ok\\x1b[31m!"
    assert shown["verdict"] == "delivered: the receiver took it with status 201"
    assert [step.split()[:-2] for step in shown["time"].split(", ")] == [["connect"], ["answer"], ["total"]]
    assert body.decode() in done.out


def test_a_compressed_body_is_shown_as_it_was_signed(engine: Engine, ping: Ping, receive: Receive) -> None:
    """If the receiver cannot decompress it, the advice names the option."""
    receiver = receive(b"HTTP/1.1 415 No\r\nContent-Length: 0\r\n\r\n")
    done = ping(repository.add(engine, receiver.url, "a", gzip_above=0), "--data", '{"a": "%s"}' % ("b" * 200))
    headers, body = parts_of(receiver.requests[0])
    assert headers["content-encoding"] == "gzip"
    assert verify(headers, gzip.decompress(body), [KEY], float(headers["webhook-timestamp"])) is None
    assert gzip.decompress(body).decode() in done.out
    assert "perhaps it does not understand compressed bodies: unset gzip_above, and try again" in done.out


def test_no_delivery_is_stored(engine: Engine, ping: Ping, receive: Receive) -> None:
    """Its id is new, so receivers do not take it for a repetition. An operational event names the user."""
    receiver = receive(b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n")
    one = repository.add(engine, receiver.url, "a")
    assert [ping(one).status, ping(one).status] == [1, 1]
    assert len({parts_of(request)[0]["webhook-id"] for request in receiver.requests}) == 2
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM webhook_deliveries")).scalar_one() == 0
    told = [event for _, event, _ in outbox.pending(engine, "webhooks", 9)]
    assert [(event.type, event.data["subscription_id"]) for event in told] == [("subscription.pinged", one)] * 2
    assert {str(event.data["actor"]).partition(":")[0] for event in told} == {"cli"}


def test_a_given_event_is_sent(engine: Engine, ping: Ping, receive: Receive) -> None:
    """The exchange is also printed as JSON."""
    receiver = receive(OK)
    one = repository.add(engine, receiver.url, "a")
    words = "--event-type", "order.paid", "--data", '{"amount": 5}', "--json"
    done = ping(one, *words)
    assert (done.status, done.err) == (0, "")
    told = json.loads(done.out)
    headers, body = parts_of(receiver.requests[0])
    assert (body, headers["x-webhook-event"]) == (b'{"amount": 5}', "order.paid")
    assert {name: told[name] for name in ("subscription_id", "state", "url", "event_type")} == {
        "subscription_id": one,
        "state": "enabled",
        "url": receiver.url,
        "event_type": "order.paid",
    }
    assert told["headers"] == {name: headers[name] for name in told["headers"]}
    assert (told["addresses"], told["connected"]) == (["127.0.0.1"], f"127.0.0.1:{receiver.port}")
    assert (told["status"], told["answer"], told["ok"], told["advice"]) == (200, "fine", True, None)
    assert (told["tls"], told["certificate"], told["body"]) == (None, None, body.decode())
    assert list(told["seconds"]) == ["connect", "answer", "total"]


@pytest.mark.parametrize(
    ("line", "verdict", "advice"),
    [
        (
            b"302 Found\r\nLocation: https://x/",
            "failed: status 302; a worker would try again",
            "url should be https://x/",
        ),
        (b"401 X", "failed: status 401", "secret"),
        (b"404 X", "failed: status 404", "path"),
        (b"422 X", "refused: status 422 is final", "--data"),
        (b"410 X", "refused: after a 410 a worker disables the subscription", "url"),
        (b"503 X", "failed: status 503", "log says why"),
    ],
)
def test_other_answers(engine: Engine, ping: Ping, receive: Receive, line: bytes, verdict: str, advice: str) -> None:
    """An answer other than 2xx fails, and the output says how a worker would treat it and what to check."""
    receiver = receive(b"HTTP/1.1 " + line + b"\r\nContent-Length: 0\r\n\r\n")
    done = ping(repository.add(engine, receiver.url, "a", final_statuses="422"))
    shown = dict(line.split("  ", maxsplit=1) for line in done.out.splitlines() if "  " in line)
    assert done.status == 1
    assert shown["verdict"].startswith(verdict)
    assert advice in shown["look at"]
    assert len(receiver.requests) == 1


def test_tls_is_shown(
    engine: Engine, ping: Ping, receive: Receive, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The output has version, cipher, the certificate's subject, issuer and expiry, also of an untrusted one."""
    authority = trustme.CA(organization_name="The authority")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", organization_name="The receiver").configure_cert(context)
    receiver = receive(OK, tls=context)
    one = repository.add(engine, receiver.url, "a")
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    for trusted in (True, False):
        if trusted:
            monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
        else:
            monkeypatch.delenv("SSL_CERT_FILE")
        done = ping(one, "--json")
        told = json.loads(done.out)
        assert told["tls"].startswith("TLSv1.3 / TLS_")
        assert "O=The receiver" in told["certificate"]["subject"]
        assert "O=The authority" in told["certificate"]["issuer"]
        assert told["certificate"]["expires"] == "3000-01-01 00:00:00 UTC"
        assert (done.status, told["ok"]) == ((0, True) if trusted else (1, False))
        if trusted:
            assert list(told["seconds"]) == ["connect", "tls", "answer", "total"]
        else:
            assert list(told["seconds"]) == ["connect", "total"]
            assert told["verdict"].startswith("failed: TLS: ")
            assert "SSL_CERT_FILE" in told["advice"]
    assert len(receiver.requests) == 1


def test_no_answer_in_time(engine: Engine, ping: Ping, receive: Receive) -> None:
    """The subscription's own time-out applies, and the output shows that the connection was made."""
    receiver = receive(b"", "hang")
    done = ping(repository.add(engine, receiver.url, "a", timeout_seconds=0.3), "--json")
    told = json.loads(done.out)
    assert done.status == 1
    assert told["verdict"].startswith("failed: time-out")
    assert "timeout_seconds" in told["advice"]
    assert told["connected"] == f"127.0.0.1:{receiver.port}"
    assert list(told["seconds"]) == ["connect", "total"]
    assert 0.25 < told["seconds"]["total"] < 4


def test_an_address_that_is_not_allowed(engine: Engine, ping: Ping, receive: Receive) -> None:
    """The egress rule applies: the error names the setting, and no connection is made."""
    receiver = receive(OK)
    for url in (receiver.url, receiver.url.replace("127.0.0.1", "localhost")):
        done = ping(repository.add(engine, url, "a"), WEBHOOK_ALLOW_NETWORKS="10.0.0.0/8")
        assert done.status == 1
        assert "not sent: " in done.out
        assert "add its network to WEBHOOK_ALLOW_NETWORKS" in done.out
    assert receiver.connections == 0


def test_a_name_that_does_not_resolve(engine: Engine, ping: Ping) -> None:
    """A name without an address is reported, and no connection is shown."""
    done = ping(repository.add(engine, "https://nowhere.invalid/", "a"), "--json")
    told = json.loads(done.out)
    assert (done.status, told["addresses"], told["connected"]) == (1, [], None)
    assert "'nowhere.invalid' does not resolve" in told["verdict"]
    assert "resolve" in told["advice"]


def test_a_broken_subscription_says_so(engine: Engine, ping: Ping, receive: Receive) -> None:
    """A subscription whose events workers would only store is not pinged, for the same reason."""
    receiver = receive(OK)
    vault = Vault(Fernet.generate_key().decode())
    one = repository.add(engine, receiver.url, "a", "own secret", vault=vault)
    done = ping(one)
    assert done.status == 1
    assert "not sent: the subscription is broken" in done.out
    assert "WEBHOOK_ENCRYPTION_KEY is not set" in done.out
    assert receiver.requests == []


def test_a_disabled_subscription_can_be_pinged(engine: Engine, ping: Ping, receive: Receive) -> None:
    """The output says that it is disabled, and the event is sent all the same."""
    receiver = receive(OK)
    one = repository.add(engine, receiver.url, "a")
    repository.set_enabled(engine, one, enabled=False, reason="until Monday")
    done = ping(one)
    assert done.status == 0
    assert "disabled: until Monday" in done.out
    assert len(receiver.requests) == 1


@pytest.mark.parametrize("words", [["--json"], []])
def test_secrets_are_sent_and_not_shown(engine: Engine, ping: Ping, receive: Receive, words: list[str]) -> None:
    """The output, also of the receiver's answer, masks credentials, custom header values and the signing secret."""
    receiver = receive(echo)
    credentials = [
        ("signing", "own-signing-secret"),
        ("header", "x-api-key: key-of-theirs"),
        ("basic", "user:pass-word"),
    ]
    encryption = Fernet.generate_key().decode()
    one = repository.add(
        engine,
        receiver.url,
        "a",
        secrets=credentials,
        vault=Vault(encryption),
        custom_headers='{"X-Team": "team-blue"}',
    )
    done = ping(one, *words, WEBHOOK_ENCRYPTION_KEY=encryption)
    assert done.status == 0
    headers, _ = parts_of(receiver.requests[0])
    basic = b64encode(b"user:pass-word").decode()
    assert (headers["x-team"], headers["x-api-key"], headers["authorization"]) == (
        "team-blue",
        "key-of-theirs",
        f"Basic {basic}",
    )
    assert done.out.count("(not shown)") == 6  # once as a header, once in the answer
    for secret in ("own-signing-secret", "key-of-theirs", "pass-word", basic, "team-blue", encryption, KEY.decode()):
        assert secret not in done.out + done.err


class KeyAuth(AuthBase):
    """A plug-in that sends its key, the key reversed, and a short value, in headers of its own and in one of ours."""

    def __init__(self, key: str) -> None:
        self.key = key

    def __call__(self, r: PreparedRequest) -> PreparedRequest:
        r.headers["X-Api-Key"] = self.key
        r.headers["X-Api-Key-Reversed"] = self.key[::-1]
        r.headers["X-Short"] = "7"
        r.headers["User-Agent"] = f"with {self.key}"
        return r


def test_the_headers_of_a_plug_in_are_not_shown(engine: Engine, ping: Ping, receive: Receive) -> None:
    """Any of them may be a secret. The request's other headers are shown."""
    receiver = receive(echo)
    plugin = '{"name": "key", "args": ["key-of-theirs"]}'
    one = repository.add(engine, receiver.url, "a", secrets=[("plugin", plugin)])
    done = ping(one, "--json", WEBHOOK_AUTH_PLUGINS=f"key={__name__}:KeyAuth")
    assert b"X-Api-Key: key-of-theirs" in receiver.requests[0]
    shown = {name.lower(): value for name, value in json.loads(done.out)["headers"].items()}
    hidden = {name for name, value in shown.items() if value == "(not shown)"}
    assert hidden == {"x-api-key", "x-api-key-reversed", "x-short"}
    assert shown["user-agent"] == "with (not shown)"
    for secret in ("key-of-theirs", "key-of-theirs"[::-1]):
        assert secret not in done.out + done.err


def test_answers_stay_readable(engine: Engine, ping: Ping, receive: Receive) -> None:
    """A custom header of one character is not masked in them, and of a long one only the start is shown."""
    receiver = receive(b"HTTP/1.1 200 OK\r\nContent-Length: 50012\r\n\r\nv1 is v1 now" + b"x" * 50_000)
    one = repository.add(engine, receiver.url, "a", custom_headers='{"X-Version": "1"}')
    answer = json.loads(ping(one, "--json").out)["answer"]
    assert (answer[:13], len(answer)) == ("v1 is v1 nowx", SHOWN)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"payload_format": "cloudevents", "batch_size": 10}, [{"amount": 5}]),
        ({"projection": "[type, data.amount]"}, ["order.paid", 5]),
    ],
)
def test_the_format_is_the_subscriptions(
    engine: Engine, ping: Ping, receive: Receive, options: dict[str, Any], expected: object
) -> None:
    """The event has the subscription's format, projection and batch, and is signed accordingly."""
    receiver = receive(OK)
    one = repository.add(engine, receiver.url, "a", **options)
    assert ping(one, "--event-type", "order.paid", "--data", '{"amount":5}').status == 0
    headers, body = parts_of(receiver.requests[0])
    assert verify(headers, body, [KEY], float(headers["webhook-timestamp"])) is None
    value = json.loads(body)
    if "payload_format" in options:
        value = [each["data"] for each in value] if isinstance(value, list) else value["data"]
    assert value == expected


def test_a_projection_that_fails_for_the_test_event(engine: Engine, ping: Ping, receive: Receive) -> None:
    """The error says so, and how to send another event."""
    receiver = receive(OK)
    done = ping(repository.add(engine, receiver.url, "a", projection="data.amount"))
    assert done.status == 1
    assert "not sent: projection: " in done.out
    assert "--data" in done.out
    assert receiver.requests == []


@pytest.mark.parametrize(
    "words", [["--data", "{"], ["--event-type", "a b"], ["--event-type", ""], ["--event-type", "é"]]
)
def test_invalid_arguments(ping: Ping, words: list[str]) -> None:
    """An invalid event is wrong usage, before any connection is made."""
    done = ping(7, *words)
    assert (done.status, done.out) == (2, "")


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (errors.ConnectTimeout("x"), "WEBHOOK_CONNECT_TIMEOUT"),
        (errors.ProxyError("x"), "WEBHOOK_PROXY"),
        (errors.ReadTimeout("x"), "WEBHOOK_TIMEOUT"),
        (errors.ConnectionError("x"), "listen"),
        (errors.InvalidHeader("x"), None),
    ],
)
def test_advice(error: errors.RequestException, advice: str | None) -> None:
    """Each kind of failure has its own advice, unless the error says everything."""
    verdict = verdict_on(Endpoint(1, "https://x", (b"k",)), error, ExchangeTrace(started=True), 0.0)
    assert not verdict.ok
    assert (verdict.advice is None) if advice is None else (advice in (verdict.advice or ""))
