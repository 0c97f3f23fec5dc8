"""Certificates and keys in PEM: a subscription's client certificate, and the authorities to trust."""

import os
import ssl
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple

import certifi
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from consumer.events.cloud_event import rfc3339

LARGEST_PEM = 65_536  # characters of each of the three texts
# The loop computes with these keys in each handshake: beyond the limits that takes 10 ms to 0.5 s for one key.
LONGEST_CHAIN = 10  # certificates that are shown to a receiver
_RSA_BITS, _EXPONENT_BITS, _CURVE_BITS = range(2048, 4097), 32, 384
_PUBLIC = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@dataclass(frozen=True, slots=True)
class TlsIdentity:
    """The TLS of a subscription: a client `certificate` (PEM, the leaf first) with its key, and `authorities` (PEM).

    With authorities, only their certificates are trusted; None: the deployment's. Equal identities share connections
    and contexts: `usable` makes them equal, however their PEM is laid out.
    """

    certificate: str | None = None
    private_key: str | None = field(default=None, repr=False)
    authorities: str | None = None


class CertificateInfo(NamedTuple):
    """A certificate; names as RFC 4514 writes them, the fingerprint as SHA-256 in hex."""

    subject: str
    issuer: str
    not_before: datetime
    not_after: datetime
    fingerprint: str

    def as_json(self) -> dict[str, str]:
        """The certificate as JSON."""
        return {
            "subject": self.subject,
            "issuer": self.issuer,
            "expires_at": rfc3339(self.not_after.timestamp()),
            "fingerprint": self.fingerprint,
        }


def ca_file(environment: Mapping[str, str] = os.environ) -> str:
    """The authorities that this process trusts: SSL_CERT_FILE or REQUESTS_CA_BUNDLE if set, else certifi's.

    Brokers of Kafka have settings of their own.
    """
    return environment.get("SSL_CERT_FILE") or environment.get("REQUESTS_CA_BUNDLE") or certifi.where()


def usable(identity: TlsIdentity) -> TlsIdentity:
    """The identity without the text and white space around its certificates, and with its key as PKCS #8.

    Raises ValueError if it cannot be used, or takes too long to use; its text names the part at fault and quotes none.
    """
    found = _found(identity)
    if isinstance(found, str):
        raise ValueError(found)  # noqa: TRY004 (the reason, not a wrong type)
    return found


def install(context: ssl.SSLContext, identity: TlsIdentity) -> None:
    """Let OpenSSL use the identity, which `usable` has returned. Raises OSError."""
    if identity.authorities is not None:
        context.load_verify_locations(cadata=identity.authorities)
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # an intermediate may be the authority
    if identity.certificate is not None and identity.private_key is not None:
        with _named(f"{identity.certificate}\n{identity.private_key}") as path:
            # OpenSSL would ask the terminal for a pass phrase; `usable` has refused keys with one.
            context.load_cert_chain(path, password="")


def excess(shown: Iterable[bytes]) -> str | None:
    """Why certificates (DER) that a receiver shows must not be verified on the loop, or None."""
    for place, der in enumerate(shown, 1):
        if place > LONGEST_CHAIN:
            return f"it shows more than {LONGEST_CHAIN} certificates"
        try:
            why = _excess(x509.load_der_x509_certificate(der).public_key())
        except (ValueError, UnsupportedAlgorithm):
            why = "it cannot be read"
        if why is not None:
            return f"certificate {place} that it shows: {why}"
    return None


def validity(identity: TlsIdentity, now: datetime) -> str | None:
    """Why the client certificate is not valid at `now`, or None. `usable` has returned the identity."""
    if identity.certificate is None:
        return None
    leaf = certificate_infos(identity.certificate)[0]
    if leaf.not_after <= now:
        return f"the client certificate has expired ({leaf.not_after:%Y-%m-%d})"
    return f"the client certificate is not valid before {leaf.not_before:%Y-%m-%d}" if leaf.not_before > now else None


@lru_cache(1000)
def certificate_infos(pem: str) -> tuple[CertificateInfo, ...]:
    """The certificates of a text, in its order. ValueError if there is none, or one that cannot be read."""
    return _infos("certificate", _chain("certificate", pem))


@lru_cache(1000)  # a key takes milliseconds to check, and each look-up of subscriptions needs its identity
def _found(identity: TlsIdentity) -> TlsIdentity | str:
    """The usable identity, or why there is none. Raises OSError without a verdict, if no file can be opened."""
    try:
        return _usable(identity)
    except ValueError as error:
        return str(error)


def _usable(identity: TlsIdentity) -> TlsIdentity:
    certificate, private_key, authorities = identity.certificate, identity.private_key, identity.authorities
    if (certificate is None) != (private_key is None):
        raise ValueError("a client certificate and its key belong together; one of them is missing")
    if certificate is not None and private_key is not None:
        chain = _chain("certificate", certificate)
        if len(chain) > LONGEST_CHAIN:
            raise ValueError(f"certificate: has {len(chain)} certificates; at most {LONGEST_CHAIN} are allowed")
        certificate = _rewritten("certificate", chain)
        private_key = _key_of(chain[0], private_key)
        _check_use("certificate", TlsIdentity(certificate, private_key))
    if authorities is not None:
        authorities = _rewritten("authorities", _chain("authorities", authorities))
        _check_use("authorities", TlsIdentity(authorities=authorities))
    return TlsIdentity(certificate, private_key, authorities)


def _rewritten(part: str, chain: Sequence[x509.Certificate]) -> str:
    _infos(part, chain)
    for each in chain:
        try:
            key = each.public_key()
        except (ValueError, UnsupportedAlgorithm):  # a curve that is not supported
            raise ValueError(f"{part}: cannot be read") from None
        if (why := _excess(key)) is not None:
            raise ValueError(f"{part}: {why}")
    return "".join(each.public_bytes(Encoding.PEM).decode() for each in chain)


def _excess(key: object) -> str | None:
    """Why a public key, or the private key that belongs to it, is not allowed; None if it is."""
    match key:
        case RSAPublicKey(key_size=bits) if bits not in _RSA_BITS:
            return f"it has an RSA key of {bits} bits; {_RSA_BITS.start} to {_RSA_BITS.stop - 1} are allowed"
        case RSAPublicKey() if (bits := key.public_numbers().e.bit_length()) > _EXPONENT_BITS:
            return f"it has an RSA key whose public exponent has {bits} bits; at most {_EXPONENT_BITS} are allowed"
        case EllipticCurvePublicKey(key_size=bits) if bits > _CURVE_BITS:
            return f"it has a key on a curve of {bits} bits; at most {_CURVE_BITS} are allowed (P-384)"
        case RSAPublicKey() | EllipticCurvePublicKey() | Ed25519PublicKey():
            return None
    return "it has a key of a kind that is not allowed; use RSA, a curve up to P-384, or Ed25519"


def _check_use(part: str, identity: TlsIdentity) -> None:
    """OpenSSL refuses some identities that can be read, such as one with an RSA key of 1024 bits."""
    try:
        install(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), identity)
    except ssl.SSLError as error:
        reason = (error.reason or "no reason given").lower().replace("_", " ")
        raise ValueError(f"{part}: OpenSSL refuses it ({reason})") from None


def _infos(part: str, chain: Sequence[x509.Certificate]) -> tuple[CertificateInfo, ...]:
    try:
        return tuple(
            CertificateInfo(
                each.subject.rfc4514_string(),
                each.issuer.rfc4514_string(),
                each.not_valid_before_utc,
                each.not_valid_after_utc,
                each.fingerprint(SHA256()).hex(),
            )
            for each in chain
        )
    except (ValueError, UnsupportedAlgorithm):  # a certificate is parsed when it is read
        raise ValueError(f"{part}: cannot be read") from None


def _chain(part: str, pem: str) -> Sequence[x509.Certificate]:
    if len(pem) > LARGEST_PEM:
        raise ValueError(f"{part}: has {len(pem)} characters; at most {LARGEST_PEM} are kept")
    try:
        return x509.load_pem_x509_certificates(pem.encode())
    except ValueError:
        raise ValueError(f"{part}: is not PEM; it begins with -----BEGIN CERTIFICATE-----") from None


def _key_of(leaf: x509.Certificate, private_key: str) -> str:
    """The key of the certificate, which `_excess` allows."""
    if len(private_key) > LARGEST_PEM:
        raise ValueError(f"private_key: has {len(private_key)} characters; at most {LARGEST_PEM} are kept")
    try:
        # OpenSSL checks the key again on use. The skipped check, whether the factors are prime, takes 100 ms.
        key = load_pem_private_key(private_key.encode(), None, unsafe_skip_rsa_key_validation=True)
    except TypeError:
        raise ValueError("private_key: has a pass phrase; store it without (openssl pkey -in key.pem)") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("private_key: is not a private key in PEM") from None
    if key.public_key().public_bytes(*_PUBLIC) != leaf.public_key().public_bytes(*_PUBLIC):
        raise ValueError("private_key: belongs to another certificate; the subscription's own comes first in its text")
    if isinstance(key, RSAPrivateKey):
        its, modulus = key.private_numbers(), key.public_key().public_numbers().n
        if its.p * its.q != modulus or max(its.d, its.dmp1, its.dmq1, its.iqmp) >= modulus:  # an exponent may be huge
            raise ValueError("private_key: its numbers do not fit together")
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@contextmanager
def _named(text: str) -> Iterator[str]:
    """A path that holds the text, on Linux without a disk: the module takes a key from a file alone."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("identity")
        try:
            os.write(descriptor, text.encode())
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
        return
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(text)
        file.flush()
        yield file.name
