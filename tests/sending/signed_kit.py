"""Signed requests of an endpoint, built like those of deliveries."""

import json
from datetime import UTC, datetime
from typing import Any

from consumer.events.event import Event, RecordId
from consumer.sending.exchange import SignedRequest
from consumer.sending.request import build
from consumer.sending.signing import prepare
from consumer.subscriptions.endpoint import Endpoint

NOW_UTC = datetime(2026, 1, 1, tzinfo=UTC)
EVENT = Event(RecordId("orders", 0, 0, 0), "order.created", "msg_1", b'{"id": 1}', "application/json", None, None)


def signed(url: str, body: bytes = EVENT.body, **fields: Any) -> SignedRequest:
    """The request for an endpoint with these fields."""
    endpoint = Endpoint(1, url, (b"secret",), **fields)
    return build(prepare(endpoint), endpoint, EVENT._replace(body=body), 1_700_000_000)


def headers_of(request: bytes) -> dict[str, str]:
    """The headers of a received request, by their names in lower case."""
    lines = request.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}


def respond(status: int, body: object) -> bytes:
    """An answer with this body, as JSON if it is not bytes."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(content), content)


def grant(token: str) -> bytes:
    """The answer of a token server."""
    return respond(200, {"access_token": token, "token_type": "Bearer", "expires_in": 3600})
