"""Parses signing secrets into keys. Pure.

Standard Webhooks, "Signature scheme": secrets are base64 after a prefix, which is `whsec_` for symmetric secrets,
`whsk_` for private ed25519 keys and `whpk_` for public ones.
"""

import binascii
import secrets
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PREFIX = "whsec_"
NEW_SECRET = f'use one such as "{PREFIX}$(openssl rand -base64 32)"'
PRIVATE_PREFIX, PUBLIC_PREFIX = "whsk_", "whpk_"
MOST_SIGNING = 5  # secrets: each signs each request, and ed25519 takes 4 ms of the loop for a body of 1 MiB
_QUOTES, _BYTE_ORDER_MARK = ('"', "'"), "\ufeff"
_RANDOM = 32  # bytes of a new symmetric secret
_LENGTHS = range(24, 65)  # bytes of a symmetric secret that the specification allows
_SEED, _PAIR = 32, 64  # bytes of a private key (RFC 8032, 5.1.5), and of a private key followed by its public key


@dataclass(frozen=True, slots=True)
class Ed25519Key:
    """A private key, given by its 32 bytes."""

    seed: bytes = field(repr=False)
    _private: Ed25519PrivateKey = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_private", Ed25519PrivateKey.from_private_bytes(self.seed))

    def sign(self, message: bytes) -> bytes:
        """The signature (RFC 8032), 64 bytes."""
        return self._private.sign(message)

    @property
    def public(self) -> str:
        """The public key, `whpk_` and base64, with which receivers verify."""
        return PUBLIC_PREFIX + b64encode(self._private.public_key().public_bytes_raw()).decode()


Algorithm = Literal["hmac", "ed25519"]
SigningKey = bytes | Ed25519Key  # bytes: the key of an HMAC
VerifyingKey = bytes | Ed25519PublicKey


def generate(algorithm: Algorithm) -> str:
    """A new secret: `whsec_` and 32 random bytes, or `whsk_` and a private key followed by its public key."""
    if algorithm == "hmac":
        return PREFIX + b64encode(secrets.token_bytes(_RANDOM)).decode()
    key = Ed25519Key(secrets.token_bytes(_SEED))
    return PRIVATE_PREFIX + b64encode(key.seed + b64decode(key.public.removeprefix(PUBLIC_PREFIX))).decode()


def algorithm_of(text: str) -> Algorithm:
    """The algorithm of a signing secret."""
    return "ed25519" if text.startswith(PRIVATE_PREFIX) else "hmac"


def receiver_key(text: str) -> str:
    """The key that a receiver needs to verify signatures: `whpk_…` for a private key, else the secret itself."""
    key = parse_signing_key(text)
    return key.public if isinstance(key, Ed25519Key) else text


def weakness(text: str) -> str | None:
    """Why a signing secret violates Standard Webhooks, or None. Raises ValueError as `parse_signing_key` does."""
    key = parse_signing_key(text)
    if isinstance(key, Ed25519Key) or len(key) in _LENGTHS:
        return None
    return f"has {len(key)} bytes; Standard Webhooks wants {_LENGTHS.start} to {_LENGTHS.stop - 1}"


def parse_verifying_key(text: str) -> VerifyingKey:
    """Parse a key to verify with: a receiver's key, or a private key, which gives its public key.

    Raises ValueError as `parse_signing_key` does, and for an invalid public key.
    """
    if text.startswith(PRIVATE_PREFIX):
        text = receiver_key(text)
    if not text.startswith(PUBLIC_PREFIX):
        return parse_secret(text)
    public = _decoded(text, PUBLIC_PREFIX)
    if len(public) != _SEED:
        raise ValueError(f"{PUBLIC_PREFIX} is followed by {len(public)} bytes; a public key has {_SEED}")
    return Ed25519PublicKey.from_public_bytes(public)


def parse_signing_key(text: str) -> SigningKey:
    """Parse a key to sign with: the private key in `whsk_` + base64, or the key of `parse_secret`.

    Raises ValueError as `parse_secret` does, and for a public key.
    """
    if text.startswith(PRIVATE_PREFIX):
        return _private(_decoded(text, PRIVATE_PREFIX))
    if text.startswith(PUBLIC_PREFIX):
        raise ValueError(f"{PUBLIC_PREFIX}… is a public key, which verifies and cannot sign; {PRIVATE_PREFIX}… signs")
    return parse_secret(text)


def parse_secret(text: str) -> bytes:
    """Parse a symmetric key: `whsec_` + base64 is decoded, any other string gives its UTF-8 bytes.

    Raises ValueError for an empty key, invalid base64, and text around a secret that would silently become part of the
    key (a quotation mark, a byte order mark, anything before a prefix); its text quotes no part of the secret.
    """
    if not text:
        raise ValueError("the secret is empty")
    if text.startswith(PREFIX):
        return _decoded(text, PREFIX)
    if text.startswith(_QUOTES):  # docker's --env-file keeps them
        raise ValueError("the secret begins with a quotation mark, which would belong to the key: write it without")
    if text.startswith(_BYTE_ORDER_MARK):
        raise ValueError("the secret begins with a byte order mark (U+FEFF), which would belong to the key: remove it")
    for prefix in (PREFIX, PRIVATE_PREFIX):
        if prefix in text:
            raise ValueError(f"{prefix} does not stand at the start of the secret: remove the text before it")
    try:
        return text.encode()
    except UnicodeEncodeError:  # a lone surrogate: Python's form of an environment that is not UTF-8
        raise ValueError("the secret is not valid UTF-8") from None


def _decoded(text: str, prefix: str) -> bytes:
    try:
        key = b64decode(text.removeprefix(prefix), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"the text after {prefix} is not base64 (alphabet A-Z a-z 0-9 + /, padded with =)") from None
    if not key:
        raise ValueError(f"nothing follows {prefix}")
    return key


def _private(key: bytes) -> Ed25519Key:
    if len(key) not in (_SEED, _PAIR):
        raise ValueError(f"{PRIVATE_PREFIX} is followed by {len(key)} bytes; a private key has {_SEED} or {_PAIR}")
    private = Ed25519Key(key[:_SEED])
    if len(key) == _PAIR and b64encode(key[_SEED:]).decode() != private.public.removeprefix(PUBLIC_PREFIX):
        raise ValueError("the second half of the private key is not its public key")
    return private
