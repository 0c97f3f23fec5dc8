"""TLS to receivers: verification, the offered versions and protocols, resumed sessions, and broken connections."""

import socket
import ssl
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import trustme
from requests import exceptions as errors

from consumer.sending.tls import KeptSession, Tls
from tests.sending.conftest import NO_CONTENT, Net, answer, in_turn, reset, server_tls

NOW = datetime.now(UTC)
PRIVATE = "; if its authority is a private one: subscriptions set-tls --ca"
MISMATCH = "Hostname mismatch, certificate is not valid for 'receiver.test'."
NAMES = " Names count in its subjectAltName only"
CLOSING = answer(NO_CONTENT, "close")
VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])


def told(result: object) -> str:
    """The text of a TLS error."""
    assert type(result) is errors.SSLError
    return str(result)


def only(context: ssl.SSLContext, version: ssl.TLSVersion) -> ssl.SSLContext:
    """The context of a receiver that has this version alone."""
    context.minimum_version = context.maximum_version = version
    return context


# Verification of certificates.


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("name", f"the certificate is refused: {MISMATCH}{NAMES}"),
        ("subject", f"the certificate is refused: {MISMATCH}{NAMES}"),
        ("address", "the certificate is refused: IP address mismatch, certificate is not valid for '127.0.0.1'."),
        ("expired", "the certificate is refused: certificate has expired"),
        ("early", "the certificate is refused: certificate is not yet valid"),
        ("unknown", f"the certificate is refused: unable to get local issuer certificate{PRIVATE}"),
        ("self-signed", f"the certificate is refused: self-signed certificate in certificate chain{PRIVATE}"),
    ],
)
def test_an_invalid_certificate_is_refused(net: Net, fault: str, text: str) -> None:
    """The reason is stored in `last_error`. No byte of the request is sent."""
    names, stranger, sender = ("127.0.0.1", "receiver.test"), trustme.CA(), net.sender()
    if fault in ("name", "address"):
        shown = net.authority.issue_cert("other.test", "127.0.0.2")
    elif fault == "subject":  # RFC 9525, section 2: a common name is none
        shown = net.authority.issue_cert("127.0.0.1", common_name="receiver.test")
    elif fault == "expired":
        shown = net.authority.issue_cert(*names, not_before=NOW - timedelta(9), not_after=NOW - timedelta(1))
    elif fault == "early":
        shown = net.authority.issue_cert(*names, not_before=NOW + timedelta(1), not_after=NOW + timedelta(9))
    else:
        shown = stranger.issue_cert(*names)
    context = server_tls(shown)
    if fault == "self-signed":
        context.load_verify_locations(cadata=stranger.cert_pem.bytes().decode())  # it is sent as a part of the chain
    receiver = net.receive(tls=context)
    sender.know("receiver.test", "127.0.0.1")
    reason = told(sender.result(receiver.at("127.0.0.1" if fault == "address" else "receiver.test")))
    assert reason.removesuffix(" or the system clock is incorrect") == text  # which OpenSSL 3.6 adds to "not yet valid"
    assert receiver.requests == []
    assert sender.adapter.connections_opened == 0


@pytest.mark.parametrize(
    "host", ["receiver.test", "RECEIVER.test", "receiver.test.", "xn--bcher-kva.test", "127.0.0.1"]
)
def test_each_spelling_of_a_name_is_verified(net: Net, host: str) -> None:
    """SNI has the name in the form of RFC 6066: lower case, no final dot, and no address."""
    seen: list[str | None] = []
    context, sender = net.tls("receiver.test", "xn--bcher-kva.test"), net.sender()
    context.sni_callback = lambda _socket, name, _context: seen.append(name)
    sender.know(host.lower(), "127.0.0.1")
    assert sender.response(net.receive(tls=context).at(host)).status_code == 204
    assert seen == [None if host == "127.0.0.1" else host.lower().removesuffix(".")]


@pytest.mark.parametrize("host", ["x" * 64 + ".test", "a..test"])
def test_a_name_that_no_certificate_can_contain(net: Net, host: str) -> None:
    """Only that request fails, and no descriptor stays open."""
    receiver, sender = net.receive(tls=net.tls()), net.sender()
    sender.know(host, "127.0.0.1")
    result = sender.result(receiver.at(host))
    assert told(result) == "a label of the host's name is empty or longer than 63 characters"
    assert sender.open_sockets() == 0
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
def test_an_outdated_receiver_is_refused(net: Net, newest: ssl.TLSVersion, ciphers: str, text: str) -> None:
    """The error says what is outdated, in helpful words."""
    context = server_tls(net.authority.issue_cert("127.0.0.1", key_type=trustme.KeyType.RSA))
    context.set_ciphers(ciphers)
    context.minimum_version = min(newest, ssl.TLSVersion.TLSv1_2)
    context.maximum_version = newest
    assert told(net.sender().result(net.receive(tls=context).url)).startswith(text)


def test_a_receiver_without_tls_is_named_as_such(net: Net) -> None:
    """The start of its answer is not a TLS record."""

    def speak_first(connection: socket.socket) -> None:
        connection.sendall(b"SSH-2.0-OpenSSH_9.9\r\n")
        connection.recv(1000)

    url = net.receive(greet=speak_first).url.replace("http:", "https:")
    assert told(net.sender().result(url)).startswith("it does not speak TLS at this port")


@VERSIONS
def test_a_receiver_that_requires_a_client_certificate(net: Net, version: ssl.TLSVersion) -> None:
    """With TLS 1.3 its alert comes after our handshake has ended, and the request may be on its way."""
    context, sender = only(net.tls(), version), net.sender()
    context.verify_mode = ssl.CERT_REQUIRED
    net.authority.configure_trust(context)
    receiver = net.receive(tls=context)
    for _ in range(5):
        assert "wants a client certificate" in told(sender.result(receiver.url))
    assert receiver.requests == []


# The cost of a connection.


@VERSIONS
@pytest.mark.parametrize("text", [NO_CONTENT, NO_CONTENT[:-2] + b"Connection: close\r\n\r\n"])
def test_a_new_connection_resumes_the_last_session(net: Net, version: ssl.TLSVersion, text: bytes) -> None:
    """It takes both sides a third of the work. Receivers that close after each answer benefit most."""
    sender, receiver = net.sender(), net.receive(text, "close", tls=only(net.tls("receiver.test"), version))
    sender.know("receiver.test", "127.0.0.1")
    for _ in range(4):
        assert sender.response(receiver.url).status_code == 204
        sender.turn_until(lambda: not sender.idle)
    assert receiver.resumed == [False, True, True, True]
    assert sender.response(receiver.at("receiver.test")).status_code == 204
    assert receiver.resumed[-1] is False, "a session is for one name"


@VERSIONS
def test_a_session_ends_with_the_certificate_and_after_a_day(net: Net, version: ssl.TLSVersion) -> None:
    """Resuming verifies no certificate, and a resumed session gives another one, so it could go on for ever."""
    sender, now, begun = net.sender(), 0.0, time.time()
    sender.adapter._connector.tls._clock = lambda: now
    shown = net.authority.issue_cert("127.0.0.1", not_after=datetime.now(UTC) + timedelta(hours=30))
    receiver = net.receive(CLOSING, tls=only(server_tls(shown), version))
    for hours in (0, 20, 23, 25, 29, 31, 32):
        now = begun + hours * 3600
        assert sender.response(receiver.url).status_code == 204
        sender.turn_until(lambda: not sender.idle)
    assert receiver.resumed == [False, True, True, False, True, False, False]


def test_a_transfer_reports_that_it_needed_a_handshake(net: Net) -> None:
    """A failed handshake counts too: it has taken its millisecond, and handshakes in a turn are bounded."""
    good, sender = net.receive(tls=net.tls()), net.sender()
    bad = net.receive(tls=server_tls(net.authority.issue_cert("other.test")))
    for receiver, told_so in ((good, True), (good, False), (bad, True), (bad, True), (net.receive(), False)):
        transfer = sender.submit(receiver.url, [])
        sender.turn_until(lambda: not sender.adapter.in_flight)
        assert transfer.connected is told_so


def test_a_session_is_dropped_when_a_handshake_fails(net: Net) -> None:
    """Otherwise a receiver that breaks off instead of resuming it would stay unreachable."""
    sender = net.sender()

    def greet(connection: socket.socket) -> None:
        if receiver.connections == 2:
            connection.recv(10_000)
            reset(connection)
            raise OSError

    receiver = net.receive(CLOSING, tls=net.tls(), greet=greet)
    sender.response(receiver.url)
    sender.turn_until(lambda: not sender.idle)
    told(sender.result(receiver.url))
    sender.response(receiver.url)
    assert receiver.resumed == [False, False]


def test_sessions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes some KB. The session of the least recently connected receiver is dropped."""
    monkeypatch.setattr("consumer.sending.tls._SESSIONS", 3)
    tls = Tls()

    def remember(port: int, *, ticket: bool = True) -> None:
        session: Any = SimpleNamespace(has_ticket=ticket)
        ended: Any = SimpleNamespace(session=session, session_reused=True)
        tls.remember(("x.test", port), ended, KeptSession(session, 2e9))

    for port in (1, 2, 3, 1, 4):
        remember(port)
    remember(5, ticket=False)
    assert [port for _, port in tls._sessions] == [3, 1, 4]


# Ends of a connection.


@pytest.mark.parametrize("text", [NO_CONTENT, b"HTTP/1.1 200 OK\r\n\r\nuntil the end"])
def test_an_end_without_close_notify_is_no_failure(net: Net, text: bytes) -> None:
    """The answer has been read, and many servers close like this."""
    sender, receiver = net.sender(), net.receive(text, "close", tls=net.tls())
    for _ in range(3):
        assert sender.response(receiver.url).content == text.partition(b"\r\n\r\n")[2]
        sender.turn_until(lambda: not sender.idle)


def test_a_kept_connection_that_ended_is_replaced(net: Net) -> None:
    """This holds with close_notify and without. The request had no answer."""

    def unwrap(connection: ssl.SSLSocket, _request: bytes) -> bool:
        connection.unwrap()
        return False

    ends = (unwrap, answer(b"", "close"), answer(b"", "reset"))
    behave = in_turn(NO_CONTENT, *(each for end in ends for each in (end, NO_CONTENT)))
    sender, receiver = net.sender(), net.receive(behave, tls=net.tls())
    for number in range(1, 5):
        assert sender.response(receiver.url).status_code == 204
        assert receiver.connections == number
