"""Results as bar charts: SVG, readable on light and dark backgrounds, each figure beside its bar."""

from collections.abc import Callable, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

from benchmarks.compare.results import Report, Result
from benchmarks.compare.scenarios import SCENARIOS
from benchmarks.compare.tables import concurrency, ordered, rounded, title
from benchmarks.svg import document

WIDTH, LABELS, BARS = 900, 250, 430  # widths: of the picture, left of the bars, of the longest bar
LINE, BAR, HEADING = 20, 13, 34
CUT = 4  # times as long as the next: such a bar would make the others look alike
STYLE = (
    """    .label { fill: #444c56; font-size: 12px; text-anchor: end; }
    .figure { fill: #444c56; font-size: 12px; }
    .ours { fill: #1f6feb; }
    .peer { fill: #8a96a3; }
    .gap { stroke: #ffffff; stroke-width: 5; }
    .limit { fill: none; stroke: #8a96a3; stroke-dasharray: 3 2; }
""",
    """    .label, .figure { fill: #c4ccd4; }
    .ours { fill: #58a6ff; }
    .peer { fill: #6e7a87; }
    .gap { stroke: #0d1117; }
    .limit { stroke: #9198a1; }
""",
)


class Bar(NamedTuple):
    """One bar; `kind` is ours, peer or limit."""

    label: str
    value: float
    figure: str
    kind: str


class Group(NamedTuple):
    """Bars with one scale."""

    title: str
    bars: Sequence[Bar]


class Picture(NamedTuple):
    """A figure for all programs in the named scenarios; `value` is None where it does not exist."""

    title: str
    scenarios: Sequence[str]
    value: Callable[[Result], float | None]


PLAIN = ("0ms", "20ms", "100ms", "1000ms", "tail")
PICTURES = {
    "rate": Picture("Deliveries a second (more is better)", PLAIN, lambda each: each.per_second),
    "cpu": Picture("CPU for each delivery, µs (less is better)", PLAIN, lambda each: each.cpu_us),
    "memory": Picture("Peak memory, MiB (less is better)", PLAIN, lambda each: each.memory_mib),
    "repeated": Picture(
        "Deliveries repeated after kill -9 (less is better)", PLAIN, lambda each: each.repeated_after_kill
    ),
    "latency": Picture(
        "p99 of the latency, ms, at half of the program's own rate (less is better)",
        PLAIN,
        lambda each: each.p99_ms,
    ),
    "bodies-tls": Picture(
        "CPU for each delivery, µs: bodies and TLS (less is better)",
        ("0ms", "4KB", "64KB", "tls", "tls-100ms"),
        lambda each: each.cpu_us,
    ),
}


def scale(values: Sequence[float]) -> float:
    """The value of the longest bar: the highest, or the second highest if one is far above all others."""
    first, second, *_ = [*sorted(values, reverse=True), 0.0, 0.0]
    return (second if first > CUT * second > 0 else first) or 1.0


def draw(heading: str, groups: Sequence[Group]) -> str:
    """Draws the picture. The bars of a group share a scale, and one far beyond it is cut."""
    parts, y = [], 34
    for group in groups:
        most = scale([bar.value for bar in group.bars])
        y += HEADING - LINE // 2
        parts.append(f'<text class="group" x="20" y="{y}">{escape(group.title)}</text>')
        y += 10
        for bar in group.bars:
            length = min(BARS, max(1.0, bar.value / most * BARS))
            text = y + BAR - 2
            parts += [
                f'<text class="label" x="{LABELS - 8}" y="{text}">{escape(bar.label)}</text>',
                f'<rect class="{bar.kind}" x="{LABELS}" y="{y}" width="{length:.1f}" height="{BAR}"/>',
                f'<text class="figure" x="{LABELS + length + 6:.1f}" y="{text}">{escape(bar.figure)}</text>',
            ]
            if bar.value > most:
                parts.append(f'<path class="gap" d="M {LABELS + BARS - 24} {y + BAR + 2} l 8 -{BAR + 4}"/>')
            y += LINE
    said = "; ".join(
        f"{group.title}: " + ", ".join(f"{bar.label} {bar.figure}" for bar in group.bars) for group in groups
    )
    return document((WIDTH, y + 12), heading, said, STYLE, parts)


def kind(program: str) -> str:
    """The style of its bar."""
    if program.startswith(("worker", "compiled")):
        return "ours"
    return "limit" if program == "bare" else "peer"


def pictures(report: Report) -> dict[str, str]:
    """Each picture by its name; those without a measured figure are left out."""
    drawn = {}
    for name, picture in PICTURES.items():
        groups = []
        for scenario in SCENARIOS:
            bars = [
                Bar(title(each), value, _figure(each, value), kind(each.program))
                for each in ordered(report.of(scenario.name))
                if (value := picture.value(each)) is not None
            ]
            if bars and scenario.name in picture.scenarios:
                groups.append(Group(scenario.title, bars))
        if groups:
            drawn[name] = draw(picture.title, groups)
    return drawn


def _figure(result: Result, value: float) -> str:
    lost = f", {result.lost:,} LOST" if result.lost else ""
    return f"{rounded(value)}  ({concurrency(result)} open{lost})"
