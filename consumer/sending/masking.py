"""Masks secrets in an answer, since a receiver may echo the request. Pure."""

import json
from collections.abc import Iterator, Sequence
from html import escape
from itertools import chain
from urllib.parse import quote, quote_plus

from requests import PreparedRequest
from requests.auth import HTTPBasicAuth

from consumer.crypto.credentials import OAuth2, PluginAuth
from consumer.subscriptions.endpoint import Endpoint

MASK = "(not shown)"
SHORTEST = 6  # characters; a shorter value is not a secret and occurs in many texts by chance


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
    values += [form(value) for value in values for form in (_mistaken, _latin)]
    values += [form(value) for value in values for form in (_json, _json_ascii, escape, quote, quote_plus)]
    return sorted({value for value in values if len(value) >= SHORTEST}, key=len, reverse=True)


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
