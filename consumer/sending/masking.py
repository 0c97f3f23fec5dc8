"""Masks secrets in an answer, since a receiver may echo the request. Pure."""

import json
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from html import escape
from itertools import chain
from urllib.parse import quote, quote_plus

from requests import PreparedRequest
from requests.auth import HTTPBasicAuth

from consumer.crypto.credentials import OAuth2, PluginAuth
from consumer.sending.request import SignedRequest
from consumer.subscriptions.endpoint import Endpoint

MASK = "(not shown)"
SHORTEST = 6  # characters; a shorter value is not a secret and occurs in many texts by chance
_HIDDEN = "\ud800"  # stands for a character of a secret: decoded text has no lone surrogate
_RUNS = re.compile(f"{_HIDDEN}+")


def secrets_in(endpoint: Endpoint, request: PreparedRequest) -> list[str]:
    """The request's possibly secret header values, plain and as JSON, HTML and URLs write them, longest first.

    Each also as UTF-8 bytes read as Latin-1, and as Latin-1 bytes read as UTF-8.
    """
    values = [value for _, value in endpoint.headers]
    if endpoint.auth is not None:
        authorization = request.headers.get("authorization", "")
        values.append((authorization.decode() if isinstance(authorization, bytes) else authorization).split(" ")[-1])
    match endpoint.auth:
        case HTTPBasicAuth(username=user, password=password):
            values += [part if isinstance(part, str) else part.decode() for part in (user, password)]
        case OAuth2(client_secret=secret):
            values.append(secret)
        case PluginAuth(arguments=arguments):
            values += _texts(json.loads(arguments))
            values += plugin_headers(request).values()
    found = frozenset[str]().union(*map(_forms, values))
    return sorted((text for text in found if len(text) >= SHORTEST), key=len, reverse=True)


def plugin_headers(request: PreparedRequest) -> dict[str, str]:
    """The headers that a plug-in has added to the request: each may be a secret, or made of one."""
    found = request.added if isinstance(request, SignedRequest) else {}
    return {name: value if isinstance(value, str) else value.decode("latin-1") for name, value in found.items()}


@lru_cache(100)  # up to a millisecond, and 0.1 MB of memory, for the longest token
def _forms(value: str) -> frozenset[str]:
    plain = {value, _mistaken(value), _latin(value)}
    written = [form(text) for text in plain for form in (_json, _json_ascii, escape, quote, quote_plus)]
    return frozenset((*plain, *written))


def _texts(found: object) -> Iterator[str]:
    """All texts in a JSON value but the names of members."""
    match found:
        case str():
            yield found
        case list():
            yield from chain.from_iterable(map(_texts, found))
        case dict():
            yield from chain.from_iterable(map(_texts, found.values()))


def _json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _json_ascii(text: str) -> str:
    return json.dumps(text)[1:-1]


def _mistaken(text: str) -> str:
    return text.encode("utf-8", "replace").decode("latin-1")


def _latin(text: str) -> str:
    return text.encode("latin-1", "replace").decode("utf-8", "replace")


def masked(text: str, secrets: Sequence[str]) -> str:
    """The text with each secret replaced by MASK."""
    for secret in secrets:
        text = text.replace(secret, MASK)
    return text


def masked_start(text: str, secrets: Sequence[str], most: int) -> str:
    """The first `most` characters of the text, with each secret in it replaced by MASK; cut to `most` once more.

    No more is searched than these, and what a secret that begins in them may take beyond.
    """
    text = text[: most + max(map(len, secrets), default=0)]
    for secret in secrets:
        text = text.replace(secret, _HIDDEN * len(secret))  # as long, so that the end of the start stays in place
    return _RUNS.sub(MASK, text[:most])[:most]
