"""Small charts as SVG, drawn on the server. Pure: numbers in, markup out. Colours come from the style sheet."""

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

WIDTH, HEIGHT = 240, 48  # units of the drawing; the style sheet scales it
_GAP = 0.25  # of the width of a bar


class Bar(NamedTuple):
    """One interval: attempts that succeeded and failed in it. `label` says which interval it is."""

    succeeded: int
    failed: int
    label: str


def bars(values: Sequence[Bar], title: str) -> Markup:
    """A column for each interval, with failures at the bottom, so that few failures are visible beside many successes.

    A failure is never less than one unit high. Screen readers read `title` instead of the drawing.
    """
    highest = max((each.succeeded + each.failed for each in values), default=0)
    step = WIDTH / max(1, len(values))
    columns = []
    for place, each in enumerate(values):
        failed = _height(each.failed, highest)
        succeeded = min(_height(each.succeeded, highest), HEIGHT - failed)
        x, wide = place * step, step * (1 - _GAP)
        columns.append(
            Markup("<g><title>{}: {} succeeded, {} failed</title>{}{}{}</g>").format(
                each.label,
                f"{each.succeeded:,}",
                f"{each.failed:,}",
                _column("chart-blank", x, 0, step, HEIGHT),
                _column("chart-succeeded", x, HEIGHT - failed - succeeded, wide, succeeded),
                _column("chart-failed", x, HEIGHT - failed, wide, failed),
            )
        )
    return _drawing("chart chart-bars", title, _base() + Markup("").join(columns))


def line(values: Sequence[float], title: str) -> Markup:
    """A line over equal intervals, from zero up. Flat at the bottom if all values are zero."""
    highest = max(values, default=0.0) or 1.0
    step = WIDTH / max(1, len(values) - 1)
    points = [
        f"{place * step:.1f},{HEIGHT - 1 - value / highest * (HEIGHT - 2):.1f}" for place, value in enumerate(values)
    ]
    if not points:
        return _drawing("chart chart-line", title, _base())
    area = Markup('<polygon class="chart-area" points="0,{0} {1} {2},{0}"/>').format(HEIGHT, " ".join(points), WIDTH)
    return _drawing(
        "chart chart-line", title, _base() + area + Markup('<polyline points="{}"/>').format(" ".join(points))
    )


def share(part: float, title: str) -> Markup:
    """A bar, filled to `part` (0 to 1)."""
    filled = min(max(part, 0.0), 1.0) * WIDTH
    content = _column("chart-track", 0, 0, WIDTH, HEIGHT) + _column("chart-filled", 0, 0, filled, HEIGHT)
    return _drawing("chart chart-share", title, content)


def _height(number: int, highest: int) -> float:
    return max(1.0, number / highest * HEIGHT) if number else 0.0


def _column(name: str, x: float, y: float, width: float, height: float) -> Markup:
    return (
        Markup('<rect class="{}" x="{:.2f}" y="{:.2f}" width="{:.2f}" height="{:.2f}"/>').format(
            name, x, y, width, height
        )
        if height > 0
        else Markup("")
    )


def _base() -> Markup:
    """The base line, which shows the whole hour even if few columns are filled."""
    return _column("chart-base", 0, HEIGHT - 0.5, WIDTH, 0.5)


def _drawing(name: str, title: str, content: Markup) -> Markup:
    return Markup(
        '<svg class="{}" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>'
    ).format(name, WIDTH, HEIGHT, title, content)
