"""Planted secrets, of which any part can be recognised, and the search for them in the output of processes."""

import json
import re
import secrets
from base64 import b64decode, b64encode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Iterable, Mapping
from html import escape
from typing import NamedTuple
from urllib.parse import quote, quote_plus, unquote, urlsplit

LEAST = 8  # bytes of the shortest text to search for: a shorter one may occur by chance
SHOWN = 60  # characters around a match
_NAMES = re.compile("SECRET|PASSWORD|TOKEN$|ENCRYPTION_KEY")
_PLANTED = re.compile("cn[0-9a-f]{14}")


class Found(NamedTuple):
    """A match: the secret's name, the place, and the text around it."""

    secret: str
    place: str
    around: str


def planted(between: str = '/+"%\\') -> str:
    """A new secret: two random words around characters that JSON, URLs and HTML each write differently."""
    return f"cn{secrets.token_hex(7)}{between}cn{secrets.token_hex(7)}"


def search(secrets_by_name: Mapping[str, str], texts: Mapping[str, bytes | str]) -> list[Found]:
    """All places that contain a part of a secret, in any of its forms."""
    sought = {name: forms_of(secret) for name, secret in secrets_by_name.items()}
    found = []
    for place, text in texts.items():
        content = (text.encode() if isinstance(text, str) else text).lower()
        for name, forms in sought.items():
            at = max(map(content.find, forms))
            if at >= 0:
                around = content[max(0, at - SHOWN) : at + SHOWN].decode("utf-8", "replace")
                found.append(Found(name, place, around))
    return found


def forms_of(secret: str) -> set[bytes]:
    """The forms to search for, in lower case.

    They are each word of a planted secret, or the text of another one as JSON, HTML and URLs write it; in hex, and in
    base64 at any position within a longer text. If the secret is base64, the same forms of its decoded bytes are added.
    """
    parts = {word.encode() for word in _PLANTED.findall(secret)} or {
        form(secret).encode() for form in (str, quote, quote_plus, escape, lambda text: json.dumps(text)[1:-1])
    }
    for text in {secret, secret.removeprefix("whsec_")}:
        try:
            decoded = b64decode(text.translate({45: 43, 95: 47}), validate=True)
        except (Base64Error, ValueError):
            continue
        parts |= {decoded} if len(decoded) >= LEAST else set()
    return {form.lower() for part in parts if len(part) >= LEAST for form in _written(part)}


def _written(part: bytes) -> Iterable[bytes]:
    yield part
    yield part.hex().encode()
    for before in range(3):
        for encode in (b64encode, urlsafe_b64encode):
            text = encode(b"\0" * before + part + b"\0" * (-(before + len(part)) % 3))
            # Only the characters that do not depend on neighbouring bytes.
            yield text[(before * 8 + 5) // 6 : (before + len(part)) * 8 // 6]


def secrets_of(settings: Mapping[str, str]) -> dict[str, str]:
    """The secrets in a process's settings, by the setting's name, including passwords of URLs."""
    found: dict[str, str] = {}
    for name, value in settings.items():
        if _NAMES.search(name) and not name.endswith("_FILE"):
            found |= {f"{name} {place}".removesuffix(" 0"): each for place, each in enumerate(value.split())}
        elif "://" in value and (password := urlsplit(value).password):
            found[name] = unquote(password)
    return {name: value for name, value in found.items() if len(value) >= LEAST}
