"""TLS to receivers: verification, the offered versions and protocols, resumed sessions, and broken connections."""

import socket
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trustme
from requests import exceptions as errors

from consumer.sending.tls import KeptSession, Tls
from consumer.sending.transfer import Result
from tests.sending.conftest import (
    NO_CONTENT,
    MakeSender,
    Receive,
    Receiver,
    Sender,
    reset,
    server_tls,
)

NOW = datetime.now(UTC)
PRIVATE = "; if its authority is a private one: subscriptions set-tls --ca"


@pytest.fixture
def sender(trusted: trustme.CA, make_sender: MakeSender) -> Sender:
    """A sender that trusts `authority`."""
    assert trusted
    return make_sender()


@pytest.fixture(scope="module")
def certificate(authority: trustme.CA) -> trustme.LeafCert:
    """The certificate of most receivers in this module."""
    return authority.issue_cert("127.0.0.1", "receiver.test", "xn--bcher-kva.test")


def told(result: object) -> str:
    """The text of a TLS error."""
    assert type(result) is errors.SSLError
    return str(result)


def url(receiver: Receiver, host: str) -> str:
    return f"https://{host}:{receiver.port}/"


# Verification of certificates.


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("name", "the certificate is refused: Hostname mismatch, certificate is not valid for 'receiver.test'."),
        ("address", "the certificate is refused: IP address mismatch, certificate is not valid for '127.0.0.1'."),
        ("expired", "the certificate is refused: certificate has expired"),
        ("early", "the certificate is refused: certificate is not yet valid"),
        ("unknown", f"the certificate is refused: unable to get local issuer certificate{PRIVATE}"),
        ("self-signed", f"the certificate is refused: self-signed certificate in certificate chain{PRIVATE}"),
    ],
)
def test_an_invalid_certificate_is_refused(
    authority: trustme.CA, sender: Sender, receive: Receive, fault: str, text: str
) -> None:
    """The reason is stored in `last_error`. No byte of the request is sent."""
    names, stranger = ("127.0.0.1", "receiver.test"), trustme.CA()
    if fault in ("name", "address"):
        shown = authority.issue_cert("other.test", "127.0.0.2")
    elif fault == "expired":
        shown = authority.issue_cert(*names, not_before=NOW - timedelta(9), not_after=NOW - timedelta(1))
    elif fault == "early":
        shown = authority.issue_cert(*names, not_before=NOW + timedelta(1), not_after=NOW + timedelta(9))
    else:
        shown = stranger.issue_cert(*names)
    context = server_tls(shown)
    if fault == "self-signed":
        context.load_verify_locations(cadata=stranger.cert_pem.bytes().decode())  # it is sent as a part of the chain
    receiver = receive(NO_CONTENT, tls=context)
    sender.know("receiver.test", "127.0.0.1")
    result = sender.result(url(receiver, "127.0.0.1" if fault == "address" else "receiver.test"))
    assert told(result) == text
    assert receiver.requests == []
    assert sender.adapter.connections_opened == 0


@pytest.mark.parametrize(
    "host", ["receiver.test", "RECEIVER.test", "receiver.test.", "xn--bcher-kva.test", "127.0.0.1"]
)
def test_each_spelling_of_a_name_is_verified(
    sender: Sender, receive: Receive, certificate: trustme.LeafCert, host: str
) -> None:
    """SNI has the name in the form of RFC 6066: lower case, no final dot, and no address."""
    seen: list[str | None] = []
    context = server_tls(certificate)
    context.sni_callback = lambda _socket, name, _context: seen.append(name)
    sender.know(host.lower(), "127.0.0.1")
    assert sender.response(url(receive(NO_CONTENT, tls=context), host)).status_code == 204
    assert seen == [None if host == "127.0.0.1" else host.lower().removesuffix(".")]


@pytest.mark.parametrize("host", ["x" * 64 + ".test", "a..test"])
def test_a_name_that_no_certificate_can_contain(
    sender: Sender, receive: Receive, certificate: trustme.LeafCert, host: str
) -> None:
    """Only that request fails, and no descriptor stays open."""
    receiver = receive(NO_CONTENT, tls=server_tls(certificate))
    sender.know(host, "127.0.0.1")
    result = sender.result(url(receiver, host))
    assert told(result) == "a label of the host's name is empty or longer than 63 characters"
    assert len(sender.poller._handlers) == 1
    assert sender.response(receiver.url).status_code == 204


# The offer of the handshake.


@pytest.mark.parametrize(
    ("newest", "ciphers", "text"),
    [
        (ssl.TLSVersion.TLSv1_1, "ALL:@SECLEVEL=0", "it does not support TLS 1.2 or newer"),
        (ssl.TLSVersion.TLSv1_2, "AES128-GCM-SHA256", "it has no cipher with forward secrecy (ECDHE)"),
        (ssl.TLSVersion.TLSv1_2, "ECDHE-RSA-AES128-SHA256", "it has no cipher with forward secrecy (ECDHE)"),
    ],
    ids=["TLS 1.1", "RSA key exchange", "CBC"],
)
@pytest.mark.filterwarnings("ignore:.*TLSv1_1.*:DeprecationWarning")
def test_an_outdated_receiver_is_refused(
    authority: trustme.CA, sender: Sender, receive: Receive, newest: ssl.TLSVersion, ciphers: str, text: str
) -> None:
    """The error says what is outdated, in helpful words."""
    context = server_tls(authority.issue_cert("127.0.0.1", key_type=trustme.KeyType.RSA))
    context.set_ciphers(ciphers)
    context.minimum_version = min(newest, ssl.TLSVersion.TLSv1_2)
    context.maximum_version = newest
    assert told(sender.result(receive(NO_CONTENT, tls=context).url)).startswith(text)


def test_a_receiver_without_tls_is_named_as_such(sender: Sender, receive: Receive) -> None:
    """The start of its answer is not a TLS record."""

    def speak_first(connection: socket.socket) -> None:
        connection.sendall(b"SSH-2.0-OpenSSH_9.9\r\n")
        connection.recv(1000)

    receiver = receive(NO_CONTENT, greet=speak_first)
    assert told(sender.result(url(receiver, "127.0.0.1"))).startswith("it does not speak TLS at this port")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_receiver_that_requires_a_client_certificate(
    authority: trustme.CA,
    sender: Sender,
    receive: Receive,
    certificate: trustme.LeafCert,
    version: ssl.TLSVersion,
) -> None:
    """With TLS 1.3 its alert comes after our handshake has ended, and the request may be on its way."""
    context = server_tls(certificate)
    context.minimum_version = context.maximum_version = version
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    receiver = receive(NO_CONTENT, tls=context)
    for _ in range(5):
        assert "wants a client certificate" in told(sender.result(receiver.url))
    assert receiver.requests == []


# The cost of a connection.


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("then", ["reset", "Connection: close"])
def test_a_new_connection_resumes_the_last_session(
    sender: Sender, receive: Receive, certificate: trustme.LeafCert, version: ssl.TLSVersion, then: str
) -> None:
    """It takes both sides a third of the work. Receivers that close after each answer benefit most."""
    context = server_tls(certificate)
    context.minimum_version = context.maximum_version = version
    resumed: list[bool] = []

    def behave(connection: Any, _request: bytes) -> bool:
        resumed.append(connection.session_reused)
        connection.sendall(NO_CONTENT if then == "reset" else NO_CONTENT[:-2] + b"Connection: close\r\n\r\n")
        return False

    receiver = receive(behave, tls=context)
    sender.know("receiver.test", "127.0.0.1")
    for _ in range(4):
        assert sender.response(receiver.url).status_code == 204
        sender.turn_until(lambda: not len(sender.adapter._pool))
    assert resumed == [False, True, True, True]
    assert sender.response(url(receiver, "receiver.test")).status_code == 204
    assert resumed[-1] is False, "a session is for one name"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_ends_with_the_certificate_and_after_a_day(
    authority: trustme.CA, sender: Sender, receive: Receive, version: ssl.TLSVersion
) -> None:
    """Resuming verifies no certificate, and a resumed session gives another one, so it could go on for ever."""
    now = time.time()
    sender.adapter._connector.tls._clock = lambda: now
    ends = datetime.now(UTC) + timedelta(hours=30)
    context = server_tls(authority.issue_cert("127.0.0.1", not_after=ends))
    context.minimum_version = context.maximum_version = version
    resumed: list[bool] = []

    def behave(connection: Any, _request: bytes) -> bool:
        resumed.append(connection.session_reused)
        connection.sendall(NO_CONTENT)
        return False

    receiver = receive(behave, tls=context)
    for hours in (0, 20, 23, 25, 29, 31, 32):
        now = time.time() + hours * 3600
        assert sender.response(receiver.url).status_code == 204
        sender.turn_until(lambda: not len(sender.adapter._pool))
    assert resumed == [False, True, True, False, True, False, False]


def test_a_transfer_reports_that_it_needed_a_handshake(
    authority: trustme.CA, sender: Sender, receive: Receive, certificate: trustme.LeafCert
) -> None:
    """A failed handshake counts too: it has taken its millisecond, and handshakes in a turn are bounded."""
    good = receive(NO_CONTENT, tls=server_tls(certificate))
    bad = receive(NO_CONTENT, tls=server_tls(authority.issue_cert("other.test")))
    for receiver, told_so in ((good, True), (good, False), (bad, True), (bad, True), (receive(NO_CONTENT), False)):
        results: list[Result] = []
        transfer = sender.submit(receiver.url, results)
        sender.turn_until(lambda results=results: results)  # type: ignore[misc]
        assert transfer.connected is told_so


def test_a_session_is_dropped_when_a_handshake_fails(
    sender: Sender, receive: Receive, certificate: trustme.LeafCert
) -> None:
    """Otherwise a receiver that breaks off instead of resuming it would stay unreachable."""
    refuse = [False]

    def greet(connection: socket.socket) -> None:
        if refuse[0]:
            refuse[0] = False
            connection.recv(10_000)
            reset(connection)
            raise OSError

    resumed: list[bool] = []

    def behave(connection: Any, _request: bytes) -> bool:
        resumed.append(connection.session_reused)
        connection.sendall(NO_CONTENT)
        return False

    receiver = receive(behave, tls=server_tls(certificate), greet=greet)
    sender.response(receiver.url)
    sender.turn_until(lambda: not len(sender.adapter._pool))
    refuse[0] = True
    told(sender.result(receiver.url))
    sender.response(receiver.url)
    assert resumed == [False, False]


def test_sessions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes some KB. The session of the least recently connected receiver is dropped."""
    monkeypatch.setattr("consumer.sending.tls._SESSIONS", 3)
    tls = Tls()

    def remember(port: int, *, ticket: bool = True) -> None:
        session: Any = type("Session", (), {"has_ticket": ticket})()
        ended: Any = type("Ended", (), {"session": session, "session_reused": True})()
        tls.remember(("x.test", port), ended, KeptSession(session, 2e9))

    for port in (1, 2, 3, 1, 4):
        remember(port)
    remember(5, ticket=False)
    assert [port for _, port in tls._sessions] == [3, 1, 4]


# Ends of a connection.


@pytest.mark.parametrize("text", [NO_CONTENT, b"HTTP/1.1 200 OK\r\n\r\nuntil the end"])
def test_an_end_without_close_notify_is_no_failure(
    sender: Sender, receive: Receive, certificate: trustme.LeafCert, text: bytes
) -> None:
    """The answer has been read, and many servers close like this."""
    receiver = receive(text, "close", tls=server_tls(certificate))
    for _ in range(3):
        response = sender.response(receiver.url)
        assert response.ok
        assert response.content == text.partition(b"\r\n\r\n")[2]
        sender.turn_until(lambda: not len(sender.adapter._pool))


def test_a_kept_connection_that_ended_is_replaced(
    sender: Sender, receive: Receive, certificate: trustme.LeafCert
) -> None:
    """This holds with close_notify and without. The request had no answer."""
    ends: Iterator[str] = iter(("keep", "unwrap", "keep", "close", "keep", "reset", "keep"))

    def behave(connection: Any, _request: bytes) -> bool:
        end = next(ends)
        if end == "keep":
            connection.sendall(NO_CONTENT)
        elif end == "unwrap":
            connection.unwrap()
        elif end == "reset":
            reset(connection)
        return end == "keep"

    receiver = receive(behave, tls=server_tls(certificate))
    for number in range(1, 5):
        assert sender.response(receiver.url).status_code == 204
        assert receiver.connections == number


@pytest.mark.parametrize("size", [100, 60_000, 3_000_000])
def test_bodies_of_any_size_arrive_complete(
    sender: Sender, receive: Receive, certificate: trustme.LeafCert, size: int
) -> None:
    """After a partial write, OpenSSL requires the same bytes again."""

    def behave(connection: Any, request: bytes) -> bool:
        body = request.partition(b"\r\n\r\n")[2]
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % min(size, 65536) + body[-65536:])
        return True

    receiver = receive(behave, tls=server_tls(certificate))
    body = (bytes(range(251)) * (size // 251 + 1))[:size]
    for _ in range(2):
        response = sender.adapter.send(sender.prepare(receiver.url, body))
        assert response.content == body[-65536:]
        assert receiver.requests[-1].endswith(b"\r\n\r\n" + body)
    assert receiver.connections == 1
