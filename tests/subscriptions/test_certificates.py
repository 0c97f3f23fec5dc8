"""Rows of `webhook_tls`: storing, reading back, problems in rows of plain SQL, and encrypting keys anew."""

from base64 import b64encode
from datetime import UTC, datetime, timedelta
from typing import NoReturn

import pytest
import trustme
from cryptography import x509
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from sqlalchemy import Engine, event, insert, select, update

from consumer.crypto.certificates import LONGEST_CHAIN, TlsIdentity, usable
from consumer.crypto.vault import Vault
from consumer.errors import InvalidSubscription, WebhooksError
from consumer.matching.catalog import EndpointCache, find_endpoints
from consumer.ops.check import _certificates
from consumer.sending.tls import Tls
from consumer.subscriptions import repository, secrets, tls
from consumer.subscriptions.endpoint import Endpoint
from models import SubscriptionTls
from tests.databases import each_new_engine as new_engine  # noqa: F401 (a fixture)

NOW = datetime.now(UTC)
AUTHORITY = trustme.CA(organization_name="Private")
CA = AUTHORITY.cert_pem.bytes().decode()
OLD, NEW = Fernet.generate_key().decode(), Fernet.generate_key().decode()
VAULT = Vault(NEW)


def client(
    name: str = "sender.test", not_before: datetime | None = None, not_after: datetime | None = None
) -> TlsIdentity:
    """A certificate with its key."""
    issued = AUTHORITY.issue_cert(name, not_before=not_before, not_after=not_after)
    chain = "".join(blob.bytes().decode() for blob in issued.cert_chain_pems)
    return TlsIdentity(chain, issued.private_key_pem.bytes().decode())


def endpoint(engine: Engine, vault: Vault = VAULT) -> Endpoint:
    (found,) = find_endpoints(engine, [("a", None)], (b"key",), vault.decrypt)["a", None]
    return found


@pytest.fixture
def subscription(engine: Engine) -> int:
    return repository.add(engine, "https://example.com/hook", "a")


def test_stored_certificates_reach_the_endpoint(engine: Engine, subscription: int) -> None:
    """Look-ups and listings show them for their own subscription only, and the key is stored encrypted."""
    other = repository.add(engine, "https://example.com/other", "a")
    mine = client()
    tls.set_tls(engine, subscription, mine, VAULT, NOW)
    tls.set_tls(engine, subscription, TlsIdentity(authorities=CA), VAULT, NOW)  # the certificate stays
    found = {each.subscription_id: each for each in find_endpoints(engine, [("a", None)], (), VAULT.decrypt)["a", None]}
    assert found[subscription].tls == usable(TlsIdentity(mine.certificate, mine.private_key, CA))
    assert found[other].tls is None
    shown = repository.get(engine, subscription, VAULT)
    assert shown is not None
    assert shown.tls is not None
    assert (shown.problems, [each.subject for each in shown.tls.authorities]) == ((), [AUTHORITY_NAME])
    with engine.connect() as connection:
        stored = connection.execute(select(SubscriptionTls.private_key)).scalar_one()
    assert stored is not None
    assert stored.startswith("fernet:")
    renewed = client("renewed.test")
    tls.set_tls(engine, subscription, renewed, VAULT, NOW)
    assert endpoint_of(engine, subscription).tls == usable(TlsIdentity(renewed.certificate, renewed.private_key, CA))
    assert tls.remove_tls(engine, subscription)
    assert endpoint_of(engine, subscription).tls is None
    assert not tls.remove_tls(engine, subscription)


AUTHORITY_NAME = tls.summary_of(tls.StoredTls(1, None, None, CA)).authorities[0].subject


def endpoint_of(engine: Engine, subscription: int) -> Endpoint:
    found = find_endpoints(engine, [("a", None)], (), VAULT.decrypt)["a", None]
    return next(each for each in found if each.subscription_id == subscription)


def test_only_subscriptions_with_certificates_cost_a_second_statement(engine: Engine, subscription: int) -> None:
    """The next look-up sees a change made by plain SQL, though the subscription's own row is unchanged."""
    statements: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *about: statements.append(about[2]))
    cache, used = EndpointCache(), list[Endpoint]()  # the cache holds only what is in use

    def look() -> TlsIdentity | None:
        statements.clear()
        used[:] = find_endpoints(engine, [("a", None)], (b"key",), VAULT.decrypt, known=cache)["a", None]
        return used[0].tls

    def selects() -> int:
        return sum(statement.startswith("SELECT") for statement in statements)

    assert (look(), selects()) == (None, 1)
    with engine.begin() as connection:
        connection.execute(insert(SubscriptionTls), [{"subscription_id": subscription, "authorities": CA}])
    assert (look(), selects()) == (TlsIdentity(authorities=CA), 2)
    tls.set_tls(engine, subscription, TlsIdentity(authorities=CA + CA), VAULT, NOW)
    assert look() == TlsIdentity(authorities=CA + CA)


Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed448.Ed448PrivateKey | ed25519.Ed25519PrivateKey


def self_signed(key: Key, edit: tuple[bytes, bytes] = (b"", b"")) -> TlsIdentity:
    """A certificate that names AAAAAAAA, with its key. In its DER, `edit` replaces some bytes by as many others."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "AAAAAAAA")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(NOW - timedelta(1)).not_valid_after(NOW + timedelta(9))
    der = (
        builder.sign(key, SHA256() if isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) else None)
        .public_bytes(Encoding.DER)
        .replace(*edit)
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return TlsIdentity(f"-----BEGIN CERTIFICATE-----\n{b64encode(der).decode()}\n-----END CERTIFICATE-----\n", private)


P256, OTHER_CURVE = bytes.fromhex("2a8648ce3d030107"), bytes.fromhex("2a8648ce3d030106")
CURVE_KEY = ec.generate_private_key(ec.SECP256R1())
UNKNOWN_CURVE = self_signed(CURVE_KEY, (P256, OTHER_CURVE))
BAD_NAME = self_signed(CURVE_KEY, (b"AAAAAAAA", b"\xff" * 8))
WEAK = self_signed(ec.generate_private_key(ec.SECP192R1()))


def rsa_key(p: int, q: int, e: int = 65537) -> rsa.RSAPrivateKey:
    """A key of these primes."""
    d = pow(e, -1, (p - 1) * (q - 1))
    public = rsa.RSAPublicNumbers(e, p * q)
    numbers = rsa.RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), public)
    return numbers.private_key(unsafe_skip_rsa_key_validation=True)


def slow(key: rsa.RSAPrivateKey) -> TlsIdentity:
    """A certificate whose key works, with a private exponent of 100,000 bits (RFC 8017, A.1.2)."""

    def der(tag: int, content: bytes) -> bytes:
        size = len(content)
        length = size.to_bytes(-(-size.bit_length() // 8))
        return bytes((tag, *([] if size < 128 else [0x80 + len(length)]))) + length + content

    its = key.private_numbers()
    d = its.d + (its.p - 1) * (its.q - 1) * 2**98_000
    numbers = (0, its.public_numbers.n, its.public_numbers.e, d, its.p, its.q, its.dmp1, its.dmq1, its.iqmp)
    text = b64encode(der(0x30, b"".join(der(2, each.to_bytes(each.bit_length() // 8 + 1)) for each in numbers)))
    private = f"-----BEGIN RSA PRIVATE KEY-----\n{text.decode()}\n-----END RSA PRIVATE KEY-----\n"
    return TlsIdentity(self_signed(key).certificate, private)


SHORT = self_signed(rsa.generate_private_key(65537, 1024))  # noqa: S505 (too short on purpose)
LONG = self_signed(rsa_key(2**4253 - 1, 2**4423 - 1))  # Mersenne primes
RSA = rsa.generate_private_key(65537, 2048)
EXPONENT = self_signed(rsa_key(RSA.private_numbers().p, RSA.private_numbers().q, 2**32 + 15))
SLOW = slow(RSA)
P521, ED448 = self_signed(ec.generate_private_key(ec.SECP521R1())), self_signed(ed448.Ed448PrivateKey.generate())
KEY = client().private_key or ""
LOCKED = (
    load_pem_private_key(KEY.encode(), None)
    .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"pass"))
    .decode()
)
CLIENT = client()
CHAIN = CLIENT.certificate or ""


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (TlsIdentity(CHAIN), "a client certificate and its key belong together; one of them is missing"),
        (TlsIdentity(CHAIN, KEY), "private_key: belongs to another certificate"),
        (TlsIdentity(CHAIN, LOCKED), "private_key: has a pass phrase; store it without"),
        (TlsIdentity(CHAIN, "h1dden"), "private_key: is not a private key in PEM"),
        (TlsIdentity("h1dden", KEY), "certificate: is not PEM"),
        (TlsIdentity(authorities="h1dden"), "authorities: is not PEM"),
        (TlsIdentity(authorities="x" * 70_000), "authorities: has 70000 characters"),
        (UNKNOWN_CURVE, "certificate: cannot be read"),
        (BAD_NAME, "certificate: cannot be read"),
        (TlsIdentity(authorities=BAD_NAME.certificate), "authorities: cannot be read"),
        (WEAK, "certificate: OpenSSL refuses it (ee key too small)"),
        (LONG, "certificate: it has an RSA key of 8676 bits; 2048 to 4096 are allowed"),
    ],
)
def test_unusable_certificates_are_refused(engine: Engine, subscription: int, given: TlsIdentity, text: str) -> None:
    """`set_tls` refuses them.

    In a row of plain SQL they are a problem: its subscription is listed as broken, and events are stored. Others are
    sent. The error quotes nothing.
    """
    with pytest.raises(ValueError, match=r".") as error:
        usable(given)
    assert text in str(error.value)
    assert "h1dden" not in str(error.value)
    with pytest.raises(InvalidSubscription) as refused:
        tls.set_tls(engine, subscription, given, VAULT, NOW)
    assert text in str(refused.value)
    if given.private_key is None and given.certificate is not None:
        return  # the database refuses it
    row = {"certificate": given.certificate, "private_key": given.private_key, "authorities": given.authorities}
    with engine.begin() as connection:
        connection.execute(insert(SubscriptionTls), [{"subscription_id": subscription, **row}])
    other = repository.add(engine, "https://example.com/other", "a")
    assert text in (endpoint_of(engine, subscription).fault or "")
    assert endpoint_of(engine, other).fault is None
    assert [(each.id, each.broken) for each in repository.walk(engine, VAULT)] == [(subscription, True), (other, False)]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (SHORT, "certificate: it has an RSA key of 1024 bits; 2048 to 4096 are allowed"),
        (TlsIdentity(authorities=CA + (LONG.certificate or "")), "authorities: it has an RSA key of 8676 bits"),
        (EXPONENT, "certificate: it has an RSA key whose public exponent has 33 bits; at most 32 are allowed"),
        (TlsIdentity(authorities=EXPONENT.certificate), "authorities: it has an RSA key whose public exponent"),
        (SLOW, "private_key: its numbers do not fit together"),
        (P521, "certificate: it has a key on a curve of 521 bits; at most 384 are allowed (P-384)"),
        (ED448, "certificate: it has a key of a kind that is not allowed; use RSA, a curve up to P-384, or Ed25519"),
        (TlsIdentity(CHAIN + CA * LONGEST_CHAIN, CLIENT.private_key), "certificate: has 11 certificates; at most 10"),
    ],
)
def test_keys_that_cost_the_loop_too_much_are_refused(given: TlsIdentity, text: str) -> None:
    """A handshake takes 0.5 s of the loop with a key of 16,000 bits, and some seconds with a huge private exponent."""
    with pytest.raises(ValueError, match=r".") as error:
        usable(given)
    assert text in str(error.value)


def test_the_largest_keys_are_usable() -> None:
    """P-384, Ed25519, and a chain of ten."""
    for key in (ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate()):
        usable(self_signed(key))
    usable(TlsIdentity(CHAIN + CA * (LONGEST_CHAIN - 1), CLIENT.private_key))


def test_the_layout_of_pem_makes_no_other_identity(engine: Engine, subscription: int) -> None:
    """White space, the form of a key, and the names that bundles have between certificates, in any language."""
    mine = client()
    key = load_pem_private_key((mine.private_key or "").encode(), None)
    other_form = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    certificate = "\r\n".join(("", *(mine.certificate or "").splitlines(), "", ""))
    given = TlsIdentity(certificate, f"\n{other_form} \n", f"Főtanúsítvány\n{CA}\n\n")
    tls.set_tls(engine, subscription, given, VAULT, NOW)
    assert endpoint(engine).tls == usable(TlsIdentity(mine.certificate, mine.private_key, CA))
    Tls(endpoint(engine).tls)


def test_a_bug_in_reading_a_row_is_a_problem_of_its_subscription(
    engine: Engine, subscription: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its events are stored, it is listed as broken, and the others are looked up. Secrets are not quoted."""
    other = repository.add(engine, "https://example.com/other", "a")
    tls.set_tls(engine, subscription, client(), VAULT, NOW)
    secrets.set_credential(engine, subscription, "bearer", "h1dden", VAULT, NOW)

    def fail(text: object, *_: object) -> NoReturn:
        raise KeyError(text)

    monkeypatch.setattr("consumer.subscriptions.endpoint_row.identity_of", fail)
    monkeypatch.setattr("consumer.subscriptions.endpoint_row.credentials_of", fail)
    fault = endpoint_of(engine, subscription).fault
    assert fault == (
        "secret: cannot be read (KeyError); its events are stored, not sent; "
        "tls: cannot be read (KeyError); its events are stored, not sent"
    )
    assert endpoint_of(engine, other).fault is None
    assert [each.broken for each in repository.walk(engine, VAULT)] == [True, False]


def test_unusable_certificates_can_be_replaced(engine: Engine, subscription: int) -> None:
    """A key that the vault cannot decrypt and authorities that are not PEM can be replaced."""
    mine = client()
    tls.set_tls(engine, subscription, mine, Vault(OLD), NOW)
    with pytest.raises(InvalidSubscription, match="WEBHOOK_ENCRYPTION_KEY"):
        tls.set_tls(engine, subscription, TlsIdentity(authorities=CA), VAULT, NOW)
    tls.set_tls(engine, subscription, client(), VAULT, NOW)
    with engine.begin() as connection:
        connection.execute(update(SubscriptionTls).values(authorities="none"))
    tls.set_tls(engine, subscription, TlsIdentity(authorities=CA), VAULT, NOW)
    assert endpoint(engine).fault is None


def test_an_expired_certificate_is_sent_and_shown(engine: Engine, subscription: int) -> None:
    """The receiver decides on it. A certificate that has expired or is not valid yet cannot be set."""
    expired = client(not_before=NOW - timedelta(9), not_after=NOW - timedelta(1))
    early = client(not_before=NOW + timedelta(2), not_after=NOW + timedelta(9))
    for given, text in ((expired, "has expired"), (early, "is not valid before")):
        with pytest.raises(InvalidSubscription, match=text):
            tls.set_tls(engine, subscription, given, VAULT, NOW)
    tls.set_tls(engine, subscription, expired, VAULT, NOW - timedelta(5))
    assert endpoint(engine).fault is None
    shown = repository.get(engine, subscription, VAULT)
    assert shown is not None
    assert not shown.broken
    assert "tls: the client certificate has expired" in shown.state


def test_keys_are_encrypted_anew(engine: Engine, subscription: int) -> None:
    """They get the newest key. A token copied from another subscription is not decrypted for this one."""
    mine = client()
    tls.set_tls(engine, subscription, mine, Vault(), NOW)
    assert tls.in_the_clear(engine) == [subscription]
    (batch,) = tls.reencrypt(engine, Vault(OLD))
    assert (batch.looked_at, batch.encrypted, batch.unopened, tls.in_the_clear(engine)) == (1, 1, (), [])
    assert endpoint(engine, Vault(OLD)).tls == usable(mine)
    (batch,) = tls.reencrypt(engine, Vault(f"{NEW} {OLD}"))
    assert batch.encrypted == 1
    assert endpoint(engine).tls == usable(mine)
    (batch,) = tls.reencrypt(engine, VAULT)
    assert batch.encrypted == 0
    other = repository.add(engine, "https://example.com/other", "b")
    with engine.begin() as connection:
        row = connection.execute(select(SubscriptionTls.certificate, SubscriptionTls.private_key)).one()
        connection.execute(insert(SubscriptionTls), [{"subscription_id": other, **row._mapping}])
    (found,) = find_endpoints(engine, [("b", None)], (), VAULT.decrypt)["b", None]
    assert "encrypted for another subscription" in (found.fault or "")
    (batch,) = tls.reencrypt(engine, VAULT)
    assert [(each.what, each.subscription_id) for each in batch.unopened] == [("private key", other)]


def test_expiries_are_sorted(engine: Engine) -> None:
    """The certificate that expires first comes first, over several pages of rows; unreadable rows are left out."""
    days = {}
    for number in range(tls._BATCH + 2):
        each = repository.add(engine, f"https://example.com/{number}", "a")
        days[each] = 100 - number % 50
        if number % 20 == 0:
            given = client(not_before=NOW - timedelta(1), not_after=NOW + timedelta(days[each]))
            tls.set_tls(engine, each, given, Vault(), NOW)
        else:
            tls.set_tls(engine, each, TlsIdentity(authorities=CA), Vault(), NOW)
    with engine.begin() as connection:
        broken = repository.add(connection, "https://example.com/broken", "a")
        connection.execute(insert(SubscriptionTls), [{"subscription_id": broken, "authorities": "?"}])
    found = tls.expiries(engine)
    assert len(found) == tls._BATCH + 2
    own = [expiry for expiry in found if expiry.part == "certificate"]
    assert [days[expiry.subscription_id] for expiry in own] == sorted(days[expiry.subscription_id] for expiry in own)
    assert found[0] == own[0]
    at = found[0].not_after
    assert _certificates(found, at - timedelta(31)).endswith(f"the first expires on {at:%Y-%m-%d}")
    with pytest.raises(
        WebhooksError, match=f"certificate of subscription {found[0].subscription_id} .* has expired on"
    ):
        _certificates(found, at)
