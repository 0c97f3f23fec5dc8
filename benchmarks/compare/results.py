"""The result of a run, and the storage of results between runs."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

DISTURBED = 0.2  # cores used by something else above which a run is marked


@dataclass(frozen=True)
class Result:
    """One program in one scenario. A value that the scenario or the program lacks is None."""

    scenario: str
    program: str
    concurrency: int  # open requests allowed, in each process
    processes: int
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


@dataclass(frozen=True)
class Report:
    """All results of a page; `about` has machine, versions and date, in the order of display."""

    about: dict[str, str]
    results: list[Result] = field(default_factory=list)

    def of(self, scenario: str) -> list[Result]:
        """The results of a scenario, in the order of measurement."""
        return [result for result in self.results if result.scenario == scenario]


def merged(old: Report, new: Report) -> Report:
    """The old results with new ones in their places; further new ones are at the end."""
    measured = {(each.scenario, each.program): each for each in [*old.results, *new.results]}
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
