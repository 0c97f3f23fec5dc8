"""The cost of a delivery as events, subscriptions, partitions, stored deliveries or open requests grow.

    python -m benchmarks.growth [--quick] [--only AXIS …] [--pages]

Writes a part of docs/performance.md, its picture and docs/performance/growth.json; an axis replaces its part. With
`--quick` few small sizes are measured, and nothing is written. Needs Linux, Go, java 17 and maven.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks import rig
from benchmarks.compare.page import FOLDER, PAGE, filled
from benchmarks.compare.tables import rounded
from benchmarks.growth.curves import AXES, Axis, Point
from benchmarks.growth.picture import draw

STORED = FOLDER / "growth.json"


def read(path: Path) -> list[Point]:
    """The points written by `write`; none if there is no file."""
    return [Point(**each) for each in json.loads(path.read_text())] if path.exists() else []


def write(path: Path, points: Sequence[Point]) -> None:
    """Writes JSON with one point a line, so that a diff shows each change."""
    lines = ",\n".join("  " + json.dumps(asdict(each)) for each in points)
    path.write_text(f"[\n{lines}\n]\n")


def curves(points: Sequence[Point]) -> list[tuple[Axis, list[Point]]]:
    """The measured points of each axis, by size."""
    found = [(axis, sorted((p for p in points if p.axis == axis.name), key=lambda p: p.size)) for axis in AXES]
    return [(axis, its) for axis, its in found if its]


def table(axis: Axis, points: Sequence[Point]) -> str:
    """Markdown; the ratio is relative to the first size."""
    head = [f"| {axis.title} | CPU, µs | against the first | memory, MiB |", "| ---: " * 4 + "|"]
    return "\n".join(
        head
        + [
            f"| {point.size:,} | {rounded(point.cpu_us)} | {point.cpu_us / points[0].cpu_us:.2f} | "
            f"{point.memory_mib:,.0f} |"
            for point in points
        ]
    )


def tables(points: Sequence[Point]) -> str:
    """The tables of all axes."""
    return "\n\n".join(table(axis, its) for axis, its in curves(points))


def publish(points: Sequence[Point]) -> None:
    """Writes the picture and the part of the page."""
    (FOLDER / "growth.svg").write_text(draw(curves(points)))
    PAGE.write_text(filled(PAGE.read_text(), {"growth": tables(points)}))


def merged(old: Sequence[Point], new: Sequence[Point]) -> list[Point]:
    """The old points with the new ones in their places."""
    measured = {(each.axis, each.size): each for each in [*old, *new]}
    return list(measured.values())


def measure(axes: Sequence[Axis], *, quick: bool) -> list[Point]:
    """Measures each axis, with a line for each point. Each is written at once, unless the run is quick."""
    points = []
    with rig.kafka() as bootstrap:
        for axis in axes:
            print(axis.title, file=sys.stderr, flush=True)
            for point in axis.points(bootstrap, axis.quick if quick else axis.sizes):
                told = f"{point.size:>11,}  {rounded(point.cpu_us):>6} µs  {rounded(point.per_second):>7}/s"
                print(f"{told}  {point.memory_mib:>6,.0f} MiB", file=sys.stderr, flush=True)
                points.append(point)
                if not quick:
                    write(STORED, merged(read(STORED), [point]))
    return points


def main(words: Sequence[str]) -> None:
    """Measures the selected axes and publishes them."""
    names = [axis.name for axis in AXES]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.growth", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few small sizes, in five minutes")
    parser.add_argument("--only", metavar="AXIS", nargs="+", choices=names, default=names, help=", ".join(names))
    parser.add_argument("--pages", action="store_true", help="measure nothing: write the page from stored results")
    given = parser.parse_args(words)
    if given.pages:
        publish(read(STORED))
        return
    points = measure([axis for axis in AXES if axis.name in given.only], quick=given.quick)
    print(tables(points))
    if not given.quick:
        publish(read(STORED))


if __name__ == "__main__":
    main(sys.argv[1:])
