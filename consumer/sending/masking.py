"""Masks secrets in an answer: a receiver may send back the request that it got. Pure."""

import json
from collections.abc import Sequence
from urllib.parse import quote, quote_plus

from requests import PreparedRequest
from requests.auth import HTTPBasicAuth

from consumer.subscriptions.endpoint import Endpoint

MASK = "(not shown)"
SHORTEST = 6  # characters; what is shorter is no secret, and stands in many a text


def secrets_in(endpoint: Endpoint, request: PreparedRequest) -> list[str]:
    """The values of its headers that may be secret, as they are and as JSON and URLs write them, the longest first."""
    values = [value for _, value in endpoint.headers]
    if endpoint.auth is not None:
        authorization = request.headers.get("authorization", "")
        values.append((authorization.decode() if isinstance(authorization, bytes) else authorization).split(" ")[-1])
    if isinstance(endpoint.auth, HTTPBasicAuth):
        parts = (endpoint.auth.username, endpoint.auth.password)
        values += [part if isinstance(part, str) else part.decode() for part in parts]
    values += [form(value) for value in values for form in (lambda text: json.dumps(text)[1:-1], quote, quote_plus)]
    return sorted({value for value in values if len(value) >= SHORTEST}, key=len, reverse=True)


def masked(text: str, secrets: Sequence[str]) -> str:
    """The text without them."""
    for secret in secrets:
        text = text.replace(secret, MASK)
    return text
