"""Client certificates and authorities of subscriptions: which are used, and that no connection is shared."""

import ssl
import threading
from datetime import UTC, datetime, timedelta

import pytest
import trustme
from requests import exceptions as errors

from consumer.crypto.certificates import TlsIdentity
from consumer.sending import tls
from consumer.sending.adapter import Result
from consumer.sending.tls import TlsContexts
from tests.sending.conftest import NO_CONTENT, MakeSender, Receive, Receiver, Sender, server_tls
from tests.sending.signed_kit import signed

NOW = datetime.now(UTC)


def pem(blobs: list[trustme.Blob]) -> str:
    return "".join(blob.bytes().decode() for blob in blobs)


def identity(client: trustme.LeafCert | None, authority: trustme.CA | None) -> TlsIdentity:
    """The stored identity of a subscription with this certificate and these authorities."""
    return TlsIdentity(
        None if client is None else pem(client.cert_chain_pems),
        None if client is None else client.private_key_pem.bytes().decode(),
        None if authority is None else authority.cert_pem.bytes().decode(),
    )


def result_of(sender: Sender, url: str, of: TlsIdentity | None) -> Result:
    results: list[Result] = []
    sender.adapter.submit(signed(url, tls=of), results.append)
    sender.turn_until(lambda: results)
    return results[0]


@pytest.fixture
def clients() -> trustme.CA:
    """The authority that signs client certificates."""
    return trustme.CA()


def wants_client(receiver: trustme.LeafCert, clients: trustme.CA) -> ssl.SSLContext:
    context = server_tls(receiver)
    context.verify_mode = ssl.CERT_REQUIRED
    clients.configure_trust(context)
    return context


@pytest.fixture
def guarded(authority: trustme.CA, clients: trustme.CA, receive: Receive) -> Receiver:
    """A receiver that requires a certificate of `clients`."""
    return receive(NO_CONTENT, tls=wants_client(authority.issue_cert("127.0.0.1"), clients))


def test_a_client_certificate_is_accepted(
    authority: trustme.CA, clients: trustme.CA, guarded: Receiver, make_sender: MakeSender
) -> None:
    """With its own authorities, the deployment's are not needed. Without a certificate the error has a clear reason."""
    sender = make_sender()
    mine = identity(clients.issue_cert("sender.test"), authority)
    assert result_of(sender, guarded.url, mine).status_code == 204  # type: ignore[union-attr]
    without = result_of(sender, guarded.url, identity(None, authority))
    assert type(without) is errors.SSLError
    assert "it wants a client certificate: subscriptions set-tls" in str(without)
    assert len(guarded.requests) == 1


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("stranger", "it does not trust the authority of the client certificate"),
        ("expired", "it refuses the client certificate as expired"),
    ],
)
def test_a_refused_client_certificate_has_a_reason(
    authority: trustme.CA, clients: trustme.CA, guarded: Receiver, make_sender: MakeSender, fault: str, text: str
) -> None:
    """The error has the receiver's reason, so that an operator sees what is wrong with the certificate."""
    if fault == "expired":
        shown = clients.issue_cert("a.test", not_before=NOW - timedelta(9), not_after=NOW - timedelta(1))
    else:
        shown = trustme.CA().issue_cert("a.test")
    refused = result_of(make_sender(), guarded.url, identity(shown, authority))
    assert type(refused) is errors.SSLError
    assert text in str(refused)
    assert guarded.requests == []


def test_own_authorities_replace_the_deployments(
    authority: trustme.CA, trusted: trustme.CA, receive: Receive, make_sender: MakeSender
) -> None:
    """A subscription with authorities does not trust those of the deployment, and vice versa."""
    assert trusted is authority
    sender, private = make_sender(), trustme.CA()
    public_one = receive(NO_CONTENT, tls=server_tls(authority.issue_cert("127.0.0.1")))
    private_one = receive(NO_CONTENT, tls=server_tls(private.issue_cert("127.0.0.1")))
    own = identity(None, private)
    assert result_of(sender, private_one.url, own).status_code == 204  # type: ignore[union-attr]
    assert result_of(sender, public_one.url, None).status_code == 204  # type: ignore[union-attr]
    for receiver, of in ((public_one, own), (private_one, None)):
        refused = result_of(sender, receiver.url, of)
        assert type(refused) is errors.SSLError
        assert "the certificate is refused" in str(refused)


def test_an_intermediate_can_be_the_authority(receive: Receive, make_sender: MakeSender) -> None:
    """Its root need not be trusted."""
    root = trustme.CA()
    intermediate = root.create_child_ca()
    receiver = receive(NO_CONTENT, tls=server_tls(intermediate.issue_cert("127.0.0.1")))
    of = identity(None, intermediate)
    assert result_of(make_sender(), receiver.url, of).status_code == 204  # type: ignore[union-attr]


def test_connections_are_not_shared_between_identities(
    authority: trustme.CA, clients: trustme.CA, trusted: trustme.CA, receive: Receive, make_sender: MakeSender
) -> None:
    """Nor are TLS sessions: each connection shows its own certificate, even where a session could be resumed."""
    assert trusted is authority
    context = server_tls(authority.issue_cert("127.0.0.1"))
    context.verify_mode = ssl.CERT_OPTIONAL
    clients.configure_trust(context)
    shown: list[str | None] = []

    def behave(connection: ssl.SSLSocket, _request: bytes) -> bool:
        names = dict(connection.getpeercert() or {}).get("subjectAltName", ())
        shown.append(str(names[0][1]) if names else None)
        connection.sendall(NO_CONTENT)
        return True

    receiver, sender = receive(behave, tls=context), make_sender()
    first, second = (identity(clients.issue_cert(name), None) for name in ("first.test", "second.test"))
    for of in (first, second, None, first, second, None):
        assert result_of(sender, receiver.url, of).status_code == 204  # type: ignore[union-attr]
    assert shown == ["first.test", "second.test", None] * 2
    assert receiver.connections == 3


def test_a_context_that_is_used_again_drops_no_other(
    authority: trustme.CA,
    clients: trustme.CA,
    receive: Receive,
    make_sender: MakeSender,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two subscriptions that take turns, of two contexts that are kept, need no third one."""
    monkeypatch.setattr(tls, "_IDENTITIES", 2)
    made: list[TlsIdentity] = []
    real = vars(tls)["install"]

    def install(context: ssl.SSLContext, of: TlsIdentity) -> None:
        made.append(of)
        real(context, of)

    monkeypatch.setattr(tls, "install", install)
    context = server_tls(authority.issue_cert("127.0.0.1"))
    receiver = receive(b"HTTP/1.1 204 X\r\nConnection: close\r\n\r\n", tls=context)
    first, second = (identity(clients.issue_cert(name), authority) for name in ("first.test", "second.test"))
    sender = make_sender()
    for of in (first, second, second, first):
        assert result_of(sender, receiver.url, of).status_code == 204  # type: ignore[union-attr]
    assert (made, receiver.connections) == ([first, second], 4)


def test_equal_identities_share_a_context_and_old_contexts_are_dropped(
    clients: trustme.CA, trusted: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A context with the public authorities takes most of a megabyte."""
    assert trusted
    monkeypatch.setattr(tls, "_IDENTITIES", 2)
    contexts = TlsContexts()
    first, second, third = (identity(clients.issue_cert(f"{name}.test"), None) for name in "abc")
    made = contexts.of(first)
    again = TlsIdentity(first.certificate, first.private_key, first.authorities)
    assert contexts.of(again) is made
    contexts.of(second)
    assert contexts.of(first) is made  # the most recently used
    contexts.of(third)
    assert contexts.of(first) is made
    assert len(contexts._own) == 2


def test_a_session_of_a_dropped_context_is_not_resumed(
    authority: trustme.CA, receive: Receive, make_sender: MakeSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With more identities than are kept, a context may be made anew before the first one's answer arrives."""
    monkeypatch.setattr(tls, "_IDENTITIES", 1)
    answers = [threading.Event() for _ in range(4)]
    turns = iter(answers)

    def behave(connection: ssl.SSLSocket, _request: bytes) -> bool:
        next(turns).wait(20)
        connection.sendall(b"HTTP/1.1 204 X\r\nConnection: close\r\n\r\n")
        return False

    receiver, sender = receive(behave, tls=server_tls(authority.issue_cert("127.0.0.1"))), make_sender()
    one, other = identity(None, authority), identity(trustme.CA().issue_cert("a.test"), authority)
    results: list[Result] = []
    for number, of in enumerate((one, other, one), 1):
        sender.adapter.submit(signed(receiver.url, tls=of), results.append)
        sender.turn_until(lambda number=number: len(receiver.requests) == number)  # type: ignore[misc]
    for number, place in enumerate((1, 2, 0), 1):
        answers[place].set()
        sender.turn_until(lambda number=number: len(results) == number)  # type: ignore[misc]
    answers[3].set()
    assert result_of(sender, receiver.url, one).status_code == 204  # type: ignore[union-attr]


def test_an_identity_that_openssl_refuses_is_a_clear_error(
    sender: Sender, guarded: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request is not sent, and others are not affected. One context is made, since it takes 20 ms of the loop."""
    made: list[object] = []
    monkeypatch.setattr(tls, "_trust_file", lambda *about: made.append(about))
    broken = TlsIdentity("-----BEGIN CERTIFICATE-----", "-----BEGIN PRIVATE KEY-----")
    refused = result_of(sender, guarded.url, broken)
    assert type(refused) is errors.SSLError
    assert "the subscription's certificates cannot be used" in str(refused)
    assert (guarded.requests, len(made)) == ([], 1)
