"""Renders pages: the templates, the formats of numbers, shares and times, and what several pages show alike."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from jinja2.runtime import Context

from consumer.console.charts import Bar
from consumer.events.attempt import DELIVERED, Attempt
from consumer.events.event import utc
from consumer.http.urls import redact_url, without_addresses
from consumer.ledger.admin import StoredDelivery
from consumer.ops.attempts import Minute, Tried
from consumer.subscriptions.repository import Subscribed

HERE = Path(__file__).parent
STATIC = HERE / "static"
MINUTE, HOUR, DAY = 60, 3600, 86400
_FEW = 0.01  # a share so near to 0 or 1 is written to a hundredth of a percent


LATELY = 10  # minutes whose attempts determine a subscription's state
SOME, HALF = 0.05, 0.5  # shares of failed attempts from which a subscription's state is a warning, or bad
_WHOLE = re.compile(r"[0-9]{1,18}")  # below 2^63, the limit of every database
_OF_STATUS = {"parked": "warn", "held": "warn", "exhausted": "bad", "delivered": "good"}


class Badge(NamedTuple):
    """A state in one word; `kind` (good, warn, bad, or empty) selects the colour."""

    word: str
    kind: str = ""


def number(value: float) -> str:
    """An integer with thousands separated."""
    return f"{value:,.0f}"


def percent(share: float) -> str:
    """A share of 0 to 1. 100 % and 0 % stand for exactly all and none."""
    if share in {0, 1}:
        return f"{share:.0%}".replace("%", " %")
    digits = 1 if min(share, 1 - share) >= _FEW else 2
    return f"{min(max(share * 100, 0.01), 99.99):.{digits}f} %"


def seconds(value: float) -> str:
    """A length of time, to two figures or more."""
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < MINUTE:
        return f"{value:.1f} s"
    return span(value)


def span(value: float) -> str:
    """A length of time in its largest unit."""
    for unit, length in (("d", DAY), ("h", HOUR), ("min", MINUTE)):
        if value >= length:
            return f"{value / length:.0f} {unit}"
    return f"{value:.0f} s"


def ago(at: float, now: float) -> str:
    """A moment (unix seconds) relative to now: "5 min ago", "in 2 h", or "now" within a second."""
    if abs(now - at) < 1:
        return "now"
    return f"{span(now - at)} ago" if at < now else f"in {span(at - now)}"


def iso(at: float) -> str:
    """A moment (unix seconds) as RFC 3339 in UTC."""
    return utc(at).strftime("%Y-%m-%dT%H:%M:%SZ")


def static_names() -> dict[str, str]:
    """The static files, each with its name in a page: a digest in it lets browsers keep it for good."""
    return {
        path.name: f"{path.stem}-{sha256(path.read_bytes()).hexdigest()[:12]}{path.suffix}"
        for path in sorted(STATIC.iterdir())
        if path.suffix in {".css", ".js", ".svg"}
    }


@pass_context
def _for_visitor(context: Context, text: str | None) -> str | None:
    """A text about a connection, without addresses for a visitor of a tenant."""
    return without_addresses(text) if text and context["session"].tenant is not None else text


def environment(base: str, clock: Callable[[], float] = time.time, **names: object) -> Environment:
    """The templates. `base` is the path under which the console is served, without a slash at its end."""
    files = static_names()
    found = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: Mapping[str, Callable[..., str]] = {
        "number": number,
        "percent": percent,
        "seconds": seconds,
        "span": span,
        "iso": iso,
        "ago": lambda at: ago(at, clock()),
    }
    found.filters.update(filters, for_visitor=_for_visitor, state=state_of, reason=reason_of)
    found.globals.update(names, base=base, static=lambda name: f"{base}/static/{files[name]}")
    return found


class DeliveryRow(NamedTuple):
    """A stored delivery in a table."""

    id: int
    event_type: str
    place: str
    subscription_id: int
    url: str
    state: Badge
    attempts: int
    next_at: float | None
    error: str | None


class AttemptRow(NamedTuple):
    """An attempt in a table."""

    at: float
    state: Badge
    subscription_id: int
    event_type: str
    event_path: str
    webhook_id: str
    attempt: int
    took: float
    status: str
    error: str | None
    response: str | None


def state_of(item: Subscribed, tried: Tried | None = None) -> Badge:
    """A subscription's state in one word; `tried` are its attempts of the last minutes."""
    if not item.enabled:
        return Badge("disabled", "warn")
    if item.broken:
        return Badge("broken", "bad")
    if item.failing_since is not None:
        return Badge("failing", "bad")
    if tried is not None and share_failed(tried) >= SOME:
        return state_of_attempts(tried)
    return Badge("warning", "warn") if item.problems else Badge("well", "good")


def state_of_attempts(tried: Tried) -> Badge:
    """The share of these attempts that failed, as a state."""
    return Badge(f"{percent(share_failed(tried))} fail", "bad" if share_failed(tried) >= HALF else "warn")


def share_failed(tried: Tried) -> float:
    """The share of these attempts that failed; 0 if there were none."""
    return tried.failed / max(1, tried.ok + tried.failed)


def tried_lately(minutes: Sequence[Minute], subscription_id: int) -> Tried:
    """A subscription's attempts of the last minutes, from its summary."""
    last = minutes[-LATELY:]
    return Tried(subscription_id, sum(each.ok for each in last), sum(each.failed for each in last))


def reason_of(item: Subscribed) -> str | None:
    """The reason for a subscription's bad state, in a sentence; its problems have lines of their own."""
    if not item.enabled:
        return item.disabled_reason or "It was disabled. Its stored deliveries are held until it is enabled."
    if item.failing_since is not None:
        return f"No attempt has succeeded since {iso(item.failing_since.timestamp())}."
    return None


def whole(text: str) -> int | None:
    """The whole number that a field or a query holds; None for other text, and for numbers that none can have."""
    return int(text) if _WHOLE.fullmatch(text) else None


def stored_state(status: str) -> Badge:
    """The state of a stored delivery."""
    return Badge(status, _OF_STATUS.get(status, ""))


def row_of(item: StoredDelivery) -> DeliveryRow:
    """A stored delivery for a table."""
    topic, partition, offset, _ = item.record
    return DeliveryRow(
        item.id,
        item.event_type,
        f"{topic}[{partition}] @ {offset}",
        item.subscription_id,
        redact_url(item.url),
        stored_state(item.status),
        item.attempt,
        item.next_attempt_at if item.status == "parked" else None,
        item.last.error if item.last else None,
    )


def event_path(topic: str, partition: int, offset: int) -> str:
    """The path of an event's page below the console."""
    return f"/events/{quote(topic, safe='')}/{partition}/{offset}"


def attempt_row(item: Attempt) -> AttemptRow:
    """An attempt for a table."""
    kind = "good" if item.outcome == DELIVERED else "bad" if item.outcome == "exhausted" else "warn"
    status = "no answer" if item.status is None else f"status {item.status}"
    return AttemptRow(
        item.at,
        Badge(item.outcome, kind),
        item.subscription_id,
        item.event_type,
        event_path(item.topic, item.partition, item.offset),
        item.webhook_id,
        item.attempt,
        item.seconds,
        status,
        item.error,
        item.response,
    )


def by_minute(minutes: Sequence[Minute]) -> list[Bar]:
    """The columns of a chart of an hour."""
    return [Bar(each.ok, each.failed, iso(each.at)) for each in minutes]
