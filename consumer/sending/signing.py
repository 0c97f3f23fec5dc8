"""Signatures over the exact bytes that are sent. Pure.

Standard Webhooks (https://www.standardwebhooks.com, "Signature scheme"): `v1,` + base64 of HMAC-SHA256 over
`id.timestamp.body`, one for each valid secret, separated by spaces. Beside it the plain hex HMAC-SHA256 of the body.
"""

from base64 import b64encode
from collections.abc import Sequence
from hmac import digest


def standard_signature(secrets: Sequence[bytes], webhook_id: str, timestamp: int, body: bytes) -> str:
    """The `webhook-signature` header. `timestamp` is the attempt's, in unix seconds; `webhook_id` holds no dot."""
    message = b"%s.%d.%s" % (webhook_id.encode("ascii"), timestamp, body)
    return " ".join(["v1," + b64encode(digest(secret, message, "sha256")).decode("ascii") for secret in secrets])


def hex_signature(secret: bytes, body: bytes) -> str:
    """The `x-webhook-signature` header: what `hmac.new(secret, body, sha256).hexdigest()` gives the receiver."""
    return digest(secret, body, "sha256").hex()
