"""The HTTP request of a delivery, or of a batch of them, as a `requests.PreparedRequest`."""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

from requests import PreparedRequest, Request
from requests.exceptions import InvalidHeader, InvalidURL
from requests.structures import CaseInsensitiveDict

from consumer import __version__
from consumer.endpoint import Endpoint
from consumer.event import Event
from consumer.sending.payloads import Payload, body_of, render_batch
from consumer.sending.signing import hex_signature, standard_signature
from consumer.target import check_target


def prepare(endpoint: Endpoint) -> PreparedRequest:
    """What all requests to an endpoint share; prepared once (37 µs), since `requests` takes its time to check a url.

    The endpoint's own headers and what its `auth` adds are in it; an `auth` that needs the body or an answer has no
    place here. Raises requests.exceptions.InvalidURL for a url that is none, and InvalidHeader; their texts hold
    nothing of either: it may be a password.
    """
    try:
        check_target(endpoint.url)
    except ValueError as error:
        raise InvalidURL(str(error)) from None
    given = CaseInsensitiveDict({"user-agent": f"kafka-webhooks/{__version__}"})
    given.update(endpoint.headers)
    try:
        prepared = Request("POST", endpoint.url, headers=given, auth=endpoint.auth).prepare()
    except InvalidHeader:  # its text repeats the value, that of InvalidURL the whole url
        raise InvalidHeader("a header of the subscription cannot be sent") from None
    except InvalidURL:
        raise InvalidURL("the URL is malformed: its host can be none") from None
    headers: Any = prepared.headers
    headers._store = dict(headers._store)  # noqa: SLF001 (as in _signed, which copies a plain dict in half the time)
    return prepared


def build(prepared: PreparedRequest, endpoint: Endpoint, event: Event, timestamp: int) -> PreparedRequest:
    """The signed request of one attempt, made at `timestamp` (unix seconds). Unrenderable, as `body_of` raises it."""
    body, content_type = body_of(endpoint, event)
    request = _signed(prepared, endpoint, event.webhook_id, event.type, body, content_type, timestamp)
    if event.traceparent is not None:
        request.headers["traceparent"] = event.traceparent
    return request


def build_batch(
    prepared: PreparedRequest, endpoint: Endpoint, payloads: Sequence[Payload], timestamp: int
) -> PreparedRequest:
    """The signed request of one attempt at all `payloads`, which `render` gave for this endpoint."""
    body, content_type = render_batch(endpoint, payloads)
    types = {payload.event.type for payload in payloads}
    only = types.pop() if len(types) == 1 else None
    return _signed(prepared, endpoint, batch_id(payloads), only, body, content_type, timestamp)


def batch_id(payloads: Sequence[Payload]) -> str:
    """The `webhook-id` of a batch: the same for the same events in the same order."""
    digest = blake2b(digest_size=16)
    for payload in payloads:
        digest.update(b"%d:%b" % (len(payload.event.webhook_id), payload.event.webhook_id.encode("ascii")))
    return "msg_" + digest.hexdigest()


def _signed(
    prepared: PreparedRequest,
    endpoint: Endpoint,
    webhook_id: str,
    event_type: str | None,
    body: bytes,
    content_type: str,
    timestamp: int,
) -> PreparedRequest:
    headers: Any = CaseInsensitiveDict.__new__(CaseInsensitiveDict)
    # Its store, name in lower case to name and value, filled at once: 4 µs less than `copy()` and ten assignments.
    store = headers._store = {  # noqa: SLF001 (the same in requests since 2013)
        **prepared.headers._store,  # type: ignore[attr-defined]  # noqa: SLF001
        "content-length": ("content-length", str(len(body))),
        "content-type": ("content-type", content_type),
        "webhook-id": ("webhook-id", webhook_id),
        "webhook-timestamp": ("webhook-timestamp", str(timestamp)),
        "webhook-signature": (
            "webhook-signature",
            standard_signature(endpoint.secrets, endpoint.private_keys, webhook_id, timestamp, body),
        ),
    }
    if event_type is not None:
        store["x-webhook-event"] = ("x-webhook-event", event_type)
    name = endpoint.hex_header
    if name is not None and endpoint.secrets:
        # It has room for one secret. By the oldest that still signs, a rotation's overlap covers its receivers too.
        store[name.lower()] = (name, endpoint.hex_prefix + hex_signature(endpoint.secrets[-1], body))
    request = PreparedRequest.__new__(PreparedRequest)
    request.__dict__ |= prepared.__dict__  # a copy without the constructor's, which makes what is replaced at once
    request.headers = headers
    request.body = body
    return request
