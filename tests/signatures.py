"""Signatures as text, made from secrets, to compare headers with."""

from collections.abc import Sequence

from consumer.crypto.keys import Ed25519Key
from consumer.sending.signing import hex_signature, hmac_key, standard_signature


def standard(
    secrets: Sequence[bytes], private_keys: Sequence[Ed25519Key], webhook_id: str, timestamp: int, body: bytes
) -> str:
    """The `webhook-signature` header."""
    start = f"{webhook_id}.{timestamp}.".encode()
    return standard_signature([*map(hmac_key, secrets)], private_keys, start, body).decode()


def hexed(secret: bytes, body: bytes) -> str:
    """The hex header's digits."""
    return hex_signature(hmac_key(secret), body).decode()
