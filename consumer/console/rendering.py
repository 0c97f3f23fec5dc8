"""Renders pages: the templates, the formats of numbers, shares and times, and what several pages show alike."""

import json
import re
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup

from consumer.events.attempt import DELIVERED, Attempt
from consumer.events.event import utc
from consumer.http.urls import redact_url, without_addresses
from consumer.ops.attempts import Minute, Tried
from consumer.ops.story import Receiver, ReceiverState
from consumer.subscriptions.health import EXPIRES_SOON, time_left
from consumer.subscriptions.subscribed import Subscribed

HERE = Path(__file__).parent
STATIC = HERE / "static"
MINUTE, HOUR, DAY = 60, 3600, 86400
_FEW = 0.01  # a share so near to 0 or 1 is written to a hundredth of a percent


GROWN = 512 * 1024  # characters of JSON that is written over several lines
LATELY = 10  # minutes whose attempts determine a subscription's state
SOME, HALF = 0.05, 0.5  # shares of failed attempts from which a subscription's state is a warning, or bad
_DIRECTIONS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")  # Unicode's Bidi_Control
_WHOLE = re.compile(r"[0-9]{1,18}")  # below 2^63, the limit of every database
_OF_STATUS = {"parked": "warn", "held": "warn", "exhausted": "bad", "delivered": "good"}
_WORDS = {"parked": "waiting", "exhausted": "given up"}  # of states, for people
_OF_RECEIVER = {ReceiverState.DELIVERED: "good", ReceiverState.WAITING: "warn", ReceiverState.GIVEN_UP: "bad"}


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


def kept_for(left: float) -> Badge:
    """For how many seconds Kafka keeps an event: a warning if an operator has to hurry, and bad if it may be gone."""
    return Badge(time_left(left), "" if left >= EXPIRES_SOON else "warn" if left > 0 else "bad")


def iso(at: float) -> str:
    """A moment (unix seconds) as RFC 3339 in UTC."""
    return utc(at).strftime("%Y-%m-%dT%H:%M:%SZ")


def text(value: bytes | None) -> str:
    """Bytes of a producer; those that are not UTF-8 are escaped."""
    return "none" if value is None else value.decode(errors="backslashreplace")


def short(text: str, most: int = 72) -> str:
    """A long text without its middle: its beginning and its end tell texts apart."""
    return text if len(text) <= most else f"{text[: most * 2 // 3]}…{text[-(most // 3) :]}"


def pretty(value: bytes) -> str | None:
    """JSON with each member in a line of its own; None for other bytes, and if it would grow beyond GROWN."""
    parts: list[str] = []
    size = 0
    try:
        for part in json.JSONEncoder(indent=2, ensure_ascii=False).iterencode(json.loads(value)):
            parts.append(part)
            size += len(part)
            if size > GROWN:  # deep levels multiply their spaces
                return None
    except (ValueError, RecursionError):
        return None
    return "".join(parts).encode(errors="backslashreplace").decode()  # a lone surrogate is no text


@cache
def static_names() -> dict[str, str]:
    """The static files, each with its name in a page: a digest in it lets browsers keep it for good."""
    return {
        path.name: f"{path.name}?{sha256(path.read_bytes()).hexdigest()[:12]}"
        for path in sorted(STATIC.iterdir())
        if path.suffix in {".css", ".js", ".svg"}
    }


@pass_context
def for_visitor(context: Context, error: str | None) -> str | None:
    """A text about a connection, without addresses for a visitor of a tenant."""
    return without_addresses(error) if error and context["session"].tenant is not None else error


def shown(value: object) -> object:
    """What a page writes: a text, in which controls of its direction are escaped, since they reorder what is around it.

    Markup, such as that of a form which is saved as it came, is not changed.
    """
    if not isinstance(value, str) or isinstance(value, Markup) or value.isascii():
        return value
    return _DIRECTIONS.sub(lambda found: f"\\u{ord(found[0]):04x}", value)


def environment(base: str, clock: Callable[[], float] = time.time) -> Environment:
    """The templates. `base` is the path under which the console is served, without a slash at its end."""
    files = static_names()
    found = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        finalize=shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    formats = (text, short, pretty, number, percent, seconds, span, iso, for_visitor, redact_url)
    times = {"ago": lambda at: ago(at, clock()), "left": lambda at: kept_for(at - clock())}
    parts = (state_of, reason_of, stored_state, outcome_of, state_of_receiver, place_of)
    found.filters.update({each.__name__: each for each in (*formats, *parts)}, **times)
    found.globals.update(base=base, static=lambda name: f"{base}/static/{files[name]}")
    return found


def state_of(item: Subscribed, tried: Tried | None = None) -> Badge:
    """A subscription's state in one word; `tried` are its attempts of the last minutes."""
    if item.mode != "enabled":
        return Badge(item.mode, "warn")
    if item.broken:
        return Badge("broken", "bad")
    if item.failing_since is not None:
        return Badge("failing", "bad")
    if tried is not None and share_failed(tried) >= SOME:
        return state_of_attempts(tried)
    return Badge("warning", "warn") if item.warned else Badge("well", "good")


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
    if item.paused_at is not None:
        why = item.paused_reason or "its events wait in Kafka until it is resumed."
        probed = ", and probed until it answers" if item.probed else ""
        return f"Since {iso(item.paused_at.timestamp())}{probed}: {why}"
    if item.failing_since is not None:
        return f"No attempt has succeeded since {iso(item.failing_since.timestamp())}."
    return None


def whole(text: str) -> int | None:
    """The whole number that a field or a query holds; None for other text, and for numbers that none can have."""
    return int(text) if _WHOLE.fullmatch(text) else None


def numbered(text: str) -> int | None:
    """The subscription that a filter names; None: any. ValueError, with a sentence, for a text that is no number."""
    if text and whole(text) is None:
        raise ValueError("A subscription is named by its number.")
    return whole(text)


def moment(text: str) -> float | None:
    """Unix seconds of a form's time without a zone, which is UTC, as the times on the page are."""
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
    except (ValueError, OverflowError):
        raise ValueError(f"{text} is not a time; write it as 2026-01-31T13:00.") from None


def stored_state(status: str) -> Badge:
    """The state of a stored delivery."""
    return Badge(_WORDS.get(status, status), _OF_STATUS.get(status, ""))


def place_of(record: Any) -> str:
    """The place of a record, or of what has its place, in Kafka."""
    return f"{record.topic}[{record.partition}] @ {record.offset}"


def outcome_of(item: Attempt) -> Badge:
    """The outcome of an attempt."""
    kind = "good" if item.outcome == DELIVERED else "bad" if item.outcome == "exhausted" else "warn"
    return Badge({DELIVERED: DELIVERED, "exhausted": "given up"}.get(item.outcome, "failed"), kind)


def state_of_receiver(item: Receiver) -> Badge:
    """What has become of an event at a receiver."""
    return Badge(item.state.replace("_", " "), _OF_RECEIVER.get(item.state, ""))
