"""A signing secret as people write it, turned into key bytes. Pure."""

import binascii
from base64 import b64decode

PREFIX = "whsec_"  # Standard Webhooks, "Signature scheme": symmetric secrets are base64 behind this prefix


def parse_secret(text: str) -> bytes:
    """The key: `whsec_` + base64 is decoded, any other string gives its UTF-8 bytes.

    ValueError for an empty key or base64 that is none; its text names neither the secret nor a part of it.
    """
    if not text:
        raise ValueError("the secret is empty")
    if not text.startswith(PREFIX):
        try:
            return text.encode()
        except UnicodeEncodeError:  # a lone surrogate: how Python hands over an environment that is not UTF-8
            raise ValueError("the secret is not valid UTF-8") from None
    try:
        key = b64decode(text.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"what follows {PREFIX} is not base64 (alphabet A-Z a-z 0-9 + /, padded with =)") from None
    if not key:
        raise ValueError(f"nothing follows {PREFIX}")
    return key
