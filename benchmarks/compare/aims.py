"""Bounds that this service aims at, and whether it reaches them: by ratios within one round of measurement."""

from collections.abc import Callable, Mapping, Sequence
from math import inf
from statistics import median
from typing import NamedTuple

from benchmarks.compare.results import Report, Result
from benchmarks.compare.scenarios import SCENARIOS
from benchmarks.compare.tables import TITLES, rounded

PEER = "vertx"
Round = Mapping[tuple[str, str], Result]
Figure = Callable[[Result], float | None]


class Aim(NamedTuple):
    """A bound of a figure: of ours alone, or divided by that of the program `against`."""

    text: str
    ours: Sequence[str]
    figure: Figure
    against: str | None
    scenarios: Sequence[str]
    at_least: float = 0
    at_most: float = inf


def _rate(result: Result) -> float:
    return result.per_second


def _cpu(result: Result) -> float:
    return result.cpu_us


ONE, QUICK = ("worker", "compiled"), ("0ms", "20ms", "100ms")
AIMS = (
    Aim("at most 0.40 of Parallel Consumer's CPU", ONE, _cpu, PEER, QUICK, at_most=0.40),
    Aim("at least 1.4 times its rate", ONE, _rate, PEER, QUICK, at_least=1.4),
    Aim("at least its rate", ONE, _rate, PEER, ("1000ms",), at_least=1),
    Aim("at most 3.5 times the CPU of bare sockets", ("worker",), _cpu, "bare", ("0ms",), at_most=3.5),
    Aim("at most 2.4 times", ("compiled",), _cpu, "bare", ("0ms",), at_most=2.4),
    Aim("p99 at most 10 ms at half load", ONE, lambda each: each.p99_ms, None, ("0ms", "100ms"), at_most=10),
    Aim("at least 1.3 times the rate of one worker", ("workers-2",), _rate, "worker", (*QUICK, "1000ms"), at_least=1.3),
    Aim("the same, compiled", ("compiled-2",), _rate, "compiled", (*QUICK, "1000ms"), at_least=1.3),
)


def values(aim: Aim, ours: str, scenario: str, rounds: Sequence[Round]) -> list[float]:
    """The figure of each round that has it."""
    found = []
    for one in rounds:
        mine, peer = one.get((scenario, ours)), one.get((scenario, aim.against or ours))
        figure, divisor = mine and aim.figure(mine), peer and aim.figure(peer)
        if figure and divisor:
            found.append(figure / divisor if aim.against else figure)
    return found


def _cell(aim: Aim, found: Sequence[float]) -> str:
    if not found:
        return ""
    middle = median(found)
    text = rounded(middle) if len(found) == 1 else f"{rounded(middle)} ({rounded(min(found))} to {rounded(max(found))})"
    return f"{text}, reached" if aim.at_least <= middle <= aim.at_most else f"**{text}, missed**"


def table(report: Report) -> str:
    """A row for each aim and program: median (lowest to highest) of the rounds, and whether the median reaches it."""
    titles = {each.name: each.title for each in SCENARIOS if any(each.name in aim.scenarios for aim in AIMS)}
    rows = [["aim", "of", *titles.values()], ["---"] * (len(titles) + 2)]
    rounds = report.rounds
    for aim in AIMS:
        for ours in aim.ours:
            cells = [_cell(aim, values(aim, ours, name, rounds) if name in aim.scenarios else ()) for name in titles]
            if any(cells):
                rows.append([aim.text, TITLES[ours].removeprefix("this service, "), *cells])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)
