"""The result of a run, and the storage of results between runs."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from statistics import median
from typing import Any

DISTURBED = 0.2  # cores used by something else above which a run is marked


@dataclass(frozen=True)
class Result:
    """One program in one scenario and one round. A value that the scenario or the program lacks is None."""

    scenario: str
    program: str
    concurrency: int  # open requests allowed, of each worker
    workers: int
    most_open: int  # as counted by the receiver
    deliveries: int
    per_second: float
    cpu_us: float  # for each delivery, of all processes of the program
    memory_mib: float
    lost: int
    repeated: int  # before the kill
    repeated_after_kill: int | None = None
    offered: float | None = None  # deliveries a second at which latency was measured
    p50_ms: float | None = None
    p99_ms: float | None = None
    forged: int = 0  # among the checked signatures
    others: float = 0.0  # cores used by something else meanwhile
    finished: bool = True
    round: int = 1


@dataclass(frozen=True)
class Report:
    """All results of a page; `about` has machine, versions and date, in the order of display.

    The programs are measured one after the other, then again: a machine whose speed varies does so within a round too,
    but less.
    """

    about: dict[str, str]
    results: list[Result] = field(default_factory=list)

    def of(self, scenario: str) -> list[Result]:
        """The results of a scenario, one for each program: the medians of its rounds."""
        found = [result for result in self.results if result.scenario == scenario]
        programs = dict.fromkeys(result.program for result in found)
        return [medians([each for each in found if each.program == name]) for name in programs]

    @property
    def rounds(self) -> list[dict[tuple[str, str], Result]]:
        """The results of each round, by scenario and program."""
        by_round = sorted(self.results, key=attrgetter("round"))
        return [
            {(each.scenario, each.program): each for each in found}
            for _, found in groupby(by_round, attrgetter("round"))
        ]


def medians(rounds: Sequence[Result]) -> Result:
    """The median of each measured value, rounded if it is a count, and the worst of what must not happen."""
    together: dict[str, Any] = {
        each.name: type(values[0])(median(values))
        for each in fields(Result)
        if (values := [value for one in rounds if isinstance(value := getattr(one, each.name), int | float)])
    }
    together |= {name: max(getattr(one, name) for one in rounds) for name in ("lost", "repeated", "forged")}
    return replace(rounds[0], **together | {"finished": all(one.finished for one in rounds)})


def merged(old: Report, new: Report) -> Report:
    """The old results with new ones in their places; further new ones are at the end."""
    measured = {(each.scenario, each.program, each.round): each for each in [*old.results, *new.results]}
    return Report(new.about, list(measured.values()))


def read(path: Path) -> Report:
    """The results written by `write`; empty if the file does not exist."""
    if not path.exists():
        return Report({})
    found = json.loads(path.read_text())
    return Report(found["about"], [Result(**each) for each in found["results"]])


def write(path: Path, report: Report) -> None:
    """Writes JSON with one result a line, so that a diff shows each change."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join("    " + json.dumps(asdict(each)) for each in report.results)
    path.write_text(f'{{\n  "about": {json.dumps(report.about)},\n  "results": [\n{lines}\n  ]\n}}\n')


def failures(results: Sequence[Result]) -> list[str]:
    """The faults: lost deliveries, wrong signatures, runs that did not end."""
    return [
        f"{each.scenario}, {each.program}: {each.lost} lost, {each.forged} signatures wrong"
        + ("" if each.finished else ", given up")
        for each in results
        if each.lost or each.forged or not each.finished
    ]
