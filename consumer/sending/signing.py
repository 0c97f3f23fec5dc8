"""Signatures over the exact bytes that are sent. Pure.

Standard Webhooks (https://www.standardwebhooks.com, "Signature scheme"): of `id.timestamp.body`, in base64, `v1,` and
its HMAC-SHA256 for each valid secret, `v1a,` and its ed25519 signature for each private key, separated by spaces.
Beside it the plain hex HMAC-SHA256 of the body.
"""

from base64 import b64encode
from collections.abc import Sequence
from hmac import digest

from consumer.secret import Ed25519Key


def standard_signature(
    secrets: Sequence[bytes], private_keys: Sequence[Ed25519Key], webhook_id: str, timestamp: int, body: bytes
) -> str:
    """The `webhook-signature` header. `timestamp` is the attempt's, in unix seconds; `webhook_id` holds no dot."""
    message = b"%s.%d.%s" % (webhook_id.encode("ascii"), timestamp, body)
    words = ["v1," + b64encode(digest(secret, message, "sha256")).decode("ascii") for secret in secrets]
    if private_keys:
        words += ["v1a," + b64encode(key.sign(message)).decode("ascii") for key in private_keys]
    return " ".join(words)


def hex_signature(secret: bytes, body: bytes) -> str:
    """The hex header's digits: what `hmac.new(secret, body, sha256).hexdigest()` gives the receiver."""
    return digest(secret, body, "sha256").hex()
