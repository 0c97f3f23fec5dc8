"""`subscriptions ping`: makes and sends a test event as a worker would, and judges the answer. Pure but for `send`."""

import re
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from secrets import token_hex
from typing import NamedTuple

import orjson
from requests import PreparedRequest, RequestException, Response
from requests import exceptions as errors

from consumer.config.settings import DeliverySettings
from consumer.delivery.outcome import (
    COMPRESSION_STATUSES,
    Delivered,
    Failed,
    Gone,
    Rejected,
    Unsendable,
    is_compressed,
    judge,
)
from consumer.errors import EgressRefused, NotAuthorized
from consumer.events.cloud_event import rfc3339
from consumer.events.event import Event, RecordId
from consumer.intake.decode import MAX_TYPE_LENGTH, MAX_VALUE_BYTES
from consumer.loop.poller import Poller
from consumer.ops.changes import Changes
from consumer.sending.adapter import LoopAdapter
from consumer.sending.egress import EgressPolicy
from consumer.sending.exchange import SignedRequest
from consumer.sending.payloads import JSON, Unrenderable, render
from consumer.sending.request import build, build_batch
from consumer.sending.signing import prepare
from consumer.sending.trace import MASK, ExchangeTrace, masked, plugin_headers, secrets_in
from consumer.sending.transfer import Result
from consumer.subscriptions.endpoint import Endpoint
from consumer.subscriptions.subscribed import Subscribed

Send = Callable[[PreparedRequest, float | None], tuple[Result, ExchangeTrace]]  # a request, and its time limit

EVENT_TYPE = "webhooks.ping"  # also the topic, which need not exist
SHOWN = 1000  # characters of a body that are shown
_TYPE = re.compile(rf"[!-~]{{1,{MAX_TYPE_LENGTH}}}")
_SECRET = frozenset(("authorization", "cookie"))


class Verdict(NamedTuple):
    """`ok`: the answer is a 2xx. `text` says what a worker would do after it, `advice` what to check."""

    ok: bool
    text: str
    advice: str | None = None


class Ping(NamedTuple):
    """An exchange. If no request could be made, `request` is None and `result` is the reason."""

    event: Event
    request: PreparedRequest | None
    result: Result | ValueError
    seen: ExchangeTrace
    verdict: Verdict


def ping_event(subscription_id: int, now: float, event_type: str = EVENT_TYPE, data: str | None = None) -> Event:
    """The event to send at `now` (unix seconds), with a new id. `data`: its JSON body; None makes a default one.

    ValueError for a type or data that no event can have.
    """
    if not _TYPE.fullmatch(event_type):
        raise ValueError(f"an event type is 1 to {MAX_TYPE_LENGTH} visible ASCII characters without spaces")
    if data is None:
        body = orjson.dumps({"type": event_type, "subscription_id": subscription_id, "sent_at": rfc3339(now)})
    else:
        body = data.encode()
        if len(body) > MAX_VALUE_BYTES:
            raise ValueError(f"an event has at most {MAX_VALUE_BYTES} bytes")
        try:
            orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise ValueError(f"it is not JSON: {error.msg} at character {error.pos}") from None
    record = RecordId(EVENT_TYPE, 0, 0, int(now * 1000))
    return Event(record, event_type, f"msg_{token_hex(16)}", body, JSON, None, None)


def ping(
    endpoint: Endpoint,
    event: Event,
    send: Send,
    clock: Callable[[], float] = time.time,
) -> Ping:
    """Make the request that a worker would make, `send` it and judge the answer. Sends nothing if there is a fault."""
    if endpoint.fault is not None:
        verdict = Verdict(False, "not sent: the subscription is broken", endpoint.fault)
        return Ping(event, None, ValueError(endpoint.fault), ExchangeTrace(), verdict)
    try:
        prepared, timestamp = prepare(endpoint), int(clock())
        if endpoint.batch is None:
            request = build(prepared, endpoint, event, timestamp)
        else:
            request = build_batch(prepared, endpoint, [render(endpoint, event)], timestamp)
    except (ValueError, NotAuthorized) as error:
        advice = "set --event-type and --data to an event that it expects" if isinstance(error, Unrenderable) else None
        return Ping(event, None, error, ExchangeTrace(), Verdict(False, f"not sent: {error}", advice))
    result, seen = send(request, endpoint.timeout)
    return Ping(event, request, result, seen, verdict_on(endpoint, result, seen, clock()))


def ping_subscription(
    changes: Changes, subscription_id: int, event: Event, exchange: Callable[[Endpoint, Event], Ping]
) -> tuple[Subscribed, dict[str, object]]:
    """Send an event to a subscription's receiver by `exchange`: `ping`, with a `Send`. An event names the actor.

    Returns the subscription, and the exchange for display. Raises NotFound.
    """
    item, endpoint = changes.deployment.endpoint(subscription_id, changes.tenant)
    changes.note_ping(item, event.type)
    return item, describe(endpoint, exchange(endpoint, event))


def advice_on(error: RequestException, seen: ExchangeTrace) -> str | None:  # noqa: PLR0911 (one for each cause)
    """Advice after an exchange without an answer; None if the error says it."""
    match error:
        case EgressRefused() | NotAuthorized() | errors.InvalidURL() | errors.InvalidHeader():
            return None
        case errors.SSLError():
            return (
                "the certificate must be for this host, in date, and of a trusted authority; SSL_CERT_FILE names others"
            )
        case errors.ProxyError():
            return "WEBHOOK_PROXY names the proxy"
        case errors.ReadTimeout():
            return "a receiver should answer first and work later; timeout_seconds or WEBHOOK_TIMEOUT give it longer"
    if not seen.started:
        return "does the host name resolve here? Workers may use another DNS"
    if isinstance(error, errors.ConnectTimeout):
        return "nothing answers there: a firewall on the way? WEBHOOK_CONNECT_TIMEOUT limits the wait"
    return "check that a server listens there, and that no firewall is in the way"


def sending_by(settings: DeliverySettings) -> Send:
    """Sends a request on a connection of its own, by the rules of workers with these settings."""

    def send(request: PreparedRequest, timeout: float | None) -> tuple[Result, ExchangeTrace]:
        with closing(Poller()) as poller:
            adapter = LoopAdapter(
                poller,
                egress=EgressPolicy(settings.allow_networks, settings.allow_http),
                timeout=settings.timeout,
                connect_timeout=settings.connect_timeout,
                max_connections=1,
                proxy=settings.proxy,
            )
            with closing(adapter):
                return adapter.exchange(request, timeout)

    return send


def verdict_on(endpoint: Endpoint, result: Result, seen: ExchangeTrace, now: float) -> Verdict:
    """The step that a worker would take after the answer, and advice if the answer is not a 2xx."""
    advice = _of_status(result) if isinstance(result, Response) else advice_on(result, seen)
    match judge(result, now, endpoint.final_statuses):
        case Delivered(status):
            return Verdict(True, f"delivered: the receiver took it with status {status}")
        case Gone():
            text = "refused: after a 410 a worker disables the subscription"
        case Rejected(error):
            text = f"refused: {error} is final for this subscription, a worker gives up"
        case Failed(error):
            text = f"failed: {error}; a worker would try again"
        case Unsendable(error):
            text = f"not sent: {error}"
    return Verdict(False, text, advice)


def describe(endpoint: Endpoint, done: Ping) -> dict[str, object]:
    """The exchange for display: secrets are masked, and bodies cut to their start."""
    request, seen = done.request, done.seen
    answer = done.result if isinstance(done.result, Response) else None
    secrets = secrets_in(endpoint, request, (value for _, value in endpoint.headers)) if request else []
    return {
        "event_type": done.event.type,
        "addresses": list(seen.addresses),
        "connected": seen.connected,
        "tls": seen.tls,
        "certificate": seen.certificate and seen.certificate._asdict(),
        "request": f"{request.method} {request.url}" if request else None,
        "headers": _headers(endpoint, request, secrets) if request else {},
        "body": _start_of(request.payload if isinstance(request, SignedRequest) else request.body) if request else None,
        "status": None if answer is None else answer.status_code,
        "response": None if answer is None else _start_of(answer.content, secrets),
        "seconds": {step: round(seconds, 6) for step, seconds in seen.seconds.items()},
        "ok": done.verdict.ok,
        "verdict": done.verdict.text,
        "advice": done.verdict.advice and masked(done.verdict.advice, secrets),
    }


def _headers(endpoint: Endpoint, request: PreparedRequest, secrets: Sequence[str]) -> dict[str, str]:
    """Values by name; possibly secret values are masked, also within others."""
    names = (*(name for name, _ in endpoint.headers), *plugin_headers(request))
    hidden = _SECRET.union(map(str.lower, names))
    return {
        name: MASK if name.lower() in hidden else masked(str(value), secrets) for name, value in request.headers.items()
    }


def _start_of(body: bytes | str | None, secrets: Sequence[str] = ()) -> str | None:
    """The body's start as text, with `secrets` masked: a receiver may echo the request."""
    if not isinstance(body, bytes):
        return None
    text = masked(body.decode("utf-8", "replace"), secrets)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def _of_status(response: Response) -> str | None:  # noqa: PLR0911 (one for each cause)
    match response.status_code:
        case status if response.ok and status < 300:  # noqa: PLR2004 (RFC 9110, section 15.3)
            return None
        case status if status < 400:  # noqa: PLR2004 (RFC 9110, section 15.4)
            to = response.headers.get("location")
            return f"redirects are never followed: the url should be {to}" if to else "redirects are never followed"
        case status if status in COMPRESSION_STATUSES and is_compressed(response.request):
            return "perhaps it does not understand compressed bodies: unset gzip_above, and try again"
        case 401 | 403:
            return "check the receiver's signing secret (docs/receiving.md), and the credentials that it expects"
        case 404 | 405:
            return f"does the receiver take a {response.request.method} on this path?"
        case 400 | 415 | 422:
            return "perhaps it does not know such an event: set --event-type and --data to one that it expects"
        case 410:
            return "the receiver wants no more events; is the url right?"
    return "the receiver's log says why"
