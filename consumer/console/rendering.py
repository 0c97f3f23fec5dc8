"""Renders pages: the templates, and the formats of numbers, shares and times."""

import time
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from jinja2.runtime import Context

from consumer.events.times import utc
from consumer.http.urls import without_addresses

HERE = Path(__file__).parent
STATIC = HERE / "static"
MINUTE, HOUR, DAY = 60, 3600, 86400
_FEW = 0.01  # a share so near to 0 or 1 is written to a hundredth of a percent


class State(NamedTuple):
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
    found.filters.update(filters, for_visitor=_for_visitor)
    found.globals.update(names, base=base, static=lambda name: f"{base}/static/{files[name]}")
    return found
