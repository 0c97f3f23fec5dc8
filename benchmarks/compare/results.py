"""The result of a run, and how results are kept between runs."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

DISTURBED = 0.2  # cores that something else used: such a run is marked


@dataclass(frozen=True)
class Result:
    """One program in one scenario. None is what this scenario, or this program, does not have."""

    scenario: str
    program: str
    concurrency: int  # open requests allowed, in each process
    processes: int
    most_open: int  # as the receiver saw it
    deliveries: int
    per_second: float
    cpu_us: float  # for each delivery, of all its processes
    memory_mib: float
    lost: int
    repeated: int  # in the calm part
    repeated_after_kill: int | None = None
    offered: float | None = None  # deliveries a second at which the latency was taken
    p50_ms: float | None = None
    p99_ms: float | None = None
    forged: int = 0  # of the signatures that were checked
    others: float = 0.0  # cores that something else used meanwhile
    finished: bool = True


@dataclass(frozen=True)
class Report:
    """All results that a page is made of; `about` is machine, versions and date, in the order to show."""

    about: dict[str, str]
    results: list[Result] = field(default_factory=list)

    def of(self, scenario: str) -> list[Result]:
        """Those of a scenario, in the order in which they were measured."""
        return [result for result in self.results if result.scenario == scenario]


def merged(old: Report, new: Report) -> Report:
    """The old results with the new ones in their places; what is new is at the end."""
    measured = {(each.scenario, each.program): each for each in [*old.results, *new.results]}
    return Report(new.about, list(measured.values()))


def read(path: Path) -> Report:
    """What `write` wrote; nothing of a file that is not there."""
    if not path.exists():
        return Report({})
    found = json.loads(path.read_text())
    return Report(found["about"], [Result(**each) for each in found["results"]])


def write(path: Path, report: Report) -> None:
    """As JSON, a result a line, so that a change is seen in a diff."""
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
