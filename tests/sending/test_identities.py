"""Client certificates and authorities of subscriptions: which are used, and that no connection is shared."""

import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from queue import SimpleQueue

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from requests import exceptions as errors

from consumer.crypto.certificates import LONGEST_CHAIN, TlsIdentity, install
from consumer.sending import tls
from consumer.sending.tls import Tls, TlsContexts
from consumer.sending.transfer import Result
from tests.sending.conftest import NO_CONTENT, Net, Receiver, server_tls, statuses
from tests.sending.signed_kit import signed

NOW = datetime.now(UTC)


def identity(client: trustme.LeafCert | None, authority: trustme.CA | None) -> TlsIdentity:
    """The stored identity of a subscription with this certificate and these authorities."""
    return TlsIdentity(
        None if client is None else "".join(each.bytes().decode() for each in client.cert_chain_pems),
        None if client is None else client.private_key_pem.bytes().decode(),
        None if authority is None else authority.cert_pem.bytes().decode(),
    )


def refusal(result: Result) -> str:
    """The text of a TLS error."""
    assert type(result) is errors.SSLError
    return str(result)


@pytest.fixture
def clients() -> trustme.CA:
    """The authority that signs client certificates."""
    return trustme.CA()


@pytest.fixture
def guarded(net: Net, clients: trustme.CA) -> Receiver:
    """A receiver that requires a certificate of `clients`."""
    context = net.tls()
    context.verify_mode = ssl.CERT_REQUIRED
    clients.configure_trust(context)
    return net.receive(tls=context)


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        ("none", "it wants a client certificate: subscriptions set-tls"),
        ("stranger", "it does not trust the authority of the client certificate"),
        ("expired", "it refuses the client certificate as expired"),
        ("right", None),
    ],
)
def test_a_client_certificate_is_shown(
    net: Net, clients: trustme.CA, guarded: Receiver, shown: str, text: str | None
) -> None:
    """If it is refused, the error has the receiver's reason, so that an operator sees what is wrong with it."""
    expired = clients.issue_cert("a.test", not_before=NOW - timedelta(9), not_after=NOW - timedelta(1))
    stranger, right = trustme.CA().issue_cert("a.test"), clients.issue_cert("a.test")
    client = {"none": None, "stranger": stranger, "expired": expired, "right": right}[shown]
    result = net.sender().result(signed(guarded.url, tls=identity(client, net.authority)))
    if text is None:
        assert statuses([result]) == {204: 1}
    else:
        assert text in refusal(result)
        assert guarded.requests == []


def test_own_authorities_replace_the_deployments(net: Net) -> None:
    """A subscription with authorities does not trust those of the deployment, and vice versa.

    An intermediate can be the authority: its root need not be trusted.
    """
    sender, root = net.sender(), trustme.CA()
    intermediate = root.create_child_ca()
    public_one = net.receive(tls=net.tls())
    private_one = net.receive(tls=server_tls(intermediate.issue_cert("127.0.0.1")))
    own = identity(None, intermediate)
    assert statuses(sender.results(signed(private_one.url, tls=own), signed(public_one.url))) == {204: 2}
    for refused in sender.results(signed(public_one.url, tls=own), signed(private_one.url)):
        assert "the certificate is refused" in refusal(refused)


def test_connections_are_not_shared_between_identities(net: Net, clients: trustme.CA) -> None:
    """Nor are TLS sessions: each connection shows its own certificate, even where a session could be resumed."""
    context = net.tls()
    context.verify_mode = ssl.CERT_OPTIONAL
    clients.configure_trust(context)
    shown: list[str | None] = []

    def behave(connection: ssl.SSLSocket, _request: bytes) -> bool:
        names = dict(connection.getpeercert() or {}).get("subjectAltName", ())
        shown.append(str(names[0][1]) if names else None)
        connection.sendall(NO_CONTENT)
        return True

    receiver, sender = net.receive(behave, tls=context), net.sender()
    first, second = (identity(clients.issue_cert(name), None) for name in ("first.test", "second.test"))
    for of in (first, second, None, first, second, None):
        assert sender.response(signed(receiver.url, tls=of)).status_code == 204
    assert shown == ["first.test", "second.test", None] * 2
    assert receiver.connections == 3


@pytest.mark.usefixtures("net")  # an authority is trusted
def test_equal_identities_share_a_context_and_old_contexts_are_dropped(
    clients: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A context with the public authorities takes most of a megabyte."""
    monkeypatch.setattr(tls, "_IDENTITIES", 2)
    posted = SimpleQueue[Callable[[], None]]()
    contexts = TlsContexts(posted.put)

    def made_of(of: TlsIdentity) -> Tls:
        found: list[Future[Tls]] = []
        contexts.of(of, found.append)
        if not found:  # the thread has not made it at once
            posted.get(timeout=60)()
        return found[0].result()

    first, second, third = (identity(clients.issue_cert(f"{name}.test"), None) for name in "abc")
    made = made_of(first)
    assert made_of(TlsIdentity(first.certificate, first.private_key, first.authorities)) is made
    other = made_of(second)
    assert made_of(second) is other  # used again, it drops no other
    assert made_of(first) is made  # the most recently used
    made_of(third)
    assert made_of(first) is made
    assert len(contexts._own) == 2
    contexts.close()


def test_contexts_are_made_in_a_thread(
    net: Net, guarded: Receiver, clients: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred new identities at once would stop the loop for seconds; each is made once, however many requests wait.

    Meanwhile other requests go on, and those that wait may time out.
    """
    makers: list[int] = []
    held = threading.Event()

    def hold(context: ssl.SSLContext, of: TlsIdentity) -> None:
        makers.append(threading.get_ident())
        held.wait(60)
        install(context, of)

    monkeypatch.setattr(tls, "install", hold)
    now, late = [time.monotonic()], list[Result]()
    sender = net.sender(clock=lambda: now[0])
    of = [identity(clients.issue_cert(f"{name}.test"), net.authority) for name in "ab"]
    results = sender.start(*(signed(guarded.url, tls=each) for each in (*of, *of)))
    sender.adapter.submit(signed(guarded.url, tls=of[1]), late.append, timeout=1)
    refusal(sender.result(guarded.url))  # the receiver wants a certificate
    for _ in range(2):  # after a late turn, each request has its time once more
        now[0] += 1.1
        sender.poller.turn(0)
    sender.turn_until(lambda: late)
    assert str(late[0]) == "the subscription's certificates were not read within 1 s"
    held.set()
    sender.turn_until(lambda: len(results) == len(of) * 2)
    assert statuses(results) == {204: 4}
    assert len(makers) == len(of)
    assert threading.get_ident() not in makers


def test_an_identity_that_openssl_refuses_is_a_clear_error(
    net: Net, guarded: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request is not sent, and others are not affected."""
    made: list[object] = []
    sender = net.sender()
    monkeypatch.setattr(tls, "_trust_file", lambda *about: made.append(about))
    broken = TlsIdentity("-----BEGIN CERTIFICATE-----", "-----BEGIN PRIVATE KEY-----")
    refused = sender.result(signed(guarded.url, tls=broken))
    assert "the subscription's certificates cannot be used" in refusal(refused)
    assert (guarded.requests, len(made)) == ([], 1)


def costly() -> str:
    """A certificate of a key that takes 9 ms to verify a signature, instead of 0.1 ms: its exponent has 3071 bits."""
    modulus = rsa.generate_private_key(65537, 3072).public_key().public_numbers().n
    key, nobody = rsa.RSAPublicNumbers(2**3070 + 1, modulus).public_key(), x509.Name([])
    made = x509.CertificateBuilder(nobody, nobody, key, 1, NOW, NOW).sign(
        ec.generate_private_key(ec.SECP256R1()), SHA256()
    )
    return made.public_bytes(Encoding.PEM).decode()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_chain_that_costs_too_much_is_not_verified(net: Net, version: ssl.TLSVersion) -> None:
    """The subscription's owner may be the authority: 76 certificates took 0.5 s of the loop in each handshake."""
    sender = net.sender()

    def send_to(length: int, more: str = "") -> Result:
        by = root = trustme.CA(path_length=20)
        for _ in range(length - 1):
            by = by.create_child_ca()
        shown, context = identity(by.issue_cert("127.0.0.1"), None), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.maximum_version = version
        install(context, replace(shown, certificate=f"{shown.certificate}{more}"))
        return sender.result(signed(net.receive(tls=context).url, tls=identity(None, root)))

    assert statuses([send_to(LONGEST_CHAIN)]) == {204: 1}
    for refused, text in (
        (send_to(LONGEST_CHAIN + 1), "it shows more than 10 certificates"),
        (send_to(1, costly()), "certificate 2 that it shows: it has an RSA key whose public exponent"),
    ):
        assert refusal(refused).startswith(f"the certificate is refused: {text}")
