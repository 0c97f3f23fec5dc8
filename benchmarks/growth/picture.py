"""The curves as small pictures side by side: SVG, readable on light and dark backgrounds, each figure at its dot."""

import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

from benchmarks.compare.tables import rounded
from benchmarks.growth.curves import Axis, Point
from benchmarks.svg import document

COLUMNS, WIDTH, HEIGHT = 3, 300, 200  # sizes: of the picture; of one of its parts
LEFT, RIGHT, TOP, BOTTOM = 24, 28, 44, 30  # margins around the curve of a part
FLAT = 0.1  # half width of the band around the first point
OVER = 1.25  # the height, relative to the highest value
STYLE = (
    """    .figure { fill: #444c56; font-size: 11px; text-anchor: middle; }
    .ground { stroke: #8a96a3; }
    .band { fill: #1f6feb; opacity: 0.12; }
    .curve { fill: none; stroke: #1f6feb; stroke-width: 2; }
    .dot { fill: #1f6feb; }
""",
    """    .figure { fill: #c4ccd4; }
    .band, .dot { fill: #58a6ff; }
    .curve { stroke: #58a6ff; }
""",
)


def short(size: int) -> str:
    """A size under its dot: 0, 10, 1k, 10M."""
    for unit, letter in ((10**6, "M"), (1000, "k")):
        if size >= unit:
            return f"{size / unit:g}{letter}"
    return str(size)


def places(points: Sequence[Point]) -> list[tuple[float, float]]:
    """The positions of a part's dots: logarithmic from left to right (0 at the left edge), linear upwards from 0."""
    powers = [math.log10(max(1, point.size)) for point in points]
    low, high = min(powers), max(powers)
    most = OVER * max(point.cpu_us for point in points)
    wide, high_up = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    return [
        (LEFT + wide * ((power - low) / (high - low) if high > low else 0.5), TOP + high_up * (1 - point.cpu_us / most))
        for power, point in zip(powers, points, strict=True)
    ]


def part(axis: Axis, points: Sequence[Point], left: float, top: float) -> list[str]:
    """One curve with the band around its first point."""
    dots = places(points)
    ground, wide = HEIGHT - BOTTOM, WIDTH - LEFT - RIGHT
    per_us = (ground - dots[0][1]) / points[0].cpu_us
    band = 2 * FLAT * points[0].cpu_us * per_us
    lines = [
        f'<g transform="translate({left:g} {top:g})">',
        f'  <text class="group" x="{LEFT - 4}" y="20">{escape(axis.title)}</text>',
        f'  <rect class="band" x="{LEFT}" y="{dots[0][1] - band / 2:.1f}" width="{wide}" height="{band:.1f}"/>',
        f'  <path class="ground" d="M {LEFT - 6} {ground} H {WIDTH - RIGHT + 6}"/>',
        f'  <polyline class="curve" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in dots)}"/>',
    ]
    for (x, y), point in zip(dots, points, strict=True):
        lines += [
            f'  <circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="3"/>',
            f'  <text class="figure" x="{x:.1f}" y="{y - 9:.1f}">{rounded(point.cpu_us)}</text>',
            f'  <text class="figure" x="{x:.1f}" y="{ground + 16}">{short(point.size)}</text>',
        ]
    return [*lines, "</g>"]


def draw(curves: Sequence[tuple[Axis, Sequence[Point]]]) -> str:
    """Draws all curves."""
    heading = "CPU for each delivery, µs; the band is a tenth about the first size"
    said = "; ".join(
        f"{axis.title}: " + ", ".join(f"{point.size:,}: {rounded(point.cpu_us)}" for point in points)
        for axis, points in curves
    )
    lines: list[str] = []
    for number, (axis, points) in enumerate(curves):
        row, column = divmod(number, COLUMNS)
        lines += part(axis, points, column * WIDTH, 40 + row * HEIGHT)
    size = COLUMNS * WIDTH, 44 + math.ceil(len(curves) / COLUMNS) * HEIGHT
    return document(size, heading, said, STYLE, lines)
