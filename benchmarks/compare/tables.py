"""Results as Markdown tables."""

from collections.abc import Callable, Sequence

from benchmarks.compare.programs import PROGRAMS
from benchmarks.compare.results import DISTURBED, Report, Result
from benchmarks.compare.scenarios import SCENARIOS

TITLES = {program.name: program.title for program in PROGRAMS}
SLOW = {
    scenario.name for scenario in SCENARIOS if scenario.delay_ms
}  # otherwise open requests end before they are counted
ORDER = {program.name: position for position, program in enumerate(PROGRAMS)}


def rounded(value: float) -> str:
    """Three significant digits with thousands separators: 16,500; 54.3; 0.12."""
    if not value:
        return "0"
    magnitude = len(str(int(abs(value))))
    return f"{round(value, 3 - magnitude):,.0f}" if magnitude >= 3 else f"{value:.{3 - magnitude}f}"  # noqa: PLR2004


def title(result: Result) -> str:
    """The program's title, marked if something else used the machine during the run."""
    return TITLES.get(result.program, result.program) + (" †" if result.others > DISTURBED else "")


def concurrency(result: Result) -> str:
    """The configured open requests of each process."""
    number = f"{result.concurrency:,}"
    return number if result.processes == 1 else f"{result.processes} times {number}"


def _lost(result: Result) -> str:
    lost = f"**{result.lost:,}**" if result.lost else "0"
    if result.forged:
        lost += f", **{result.forged} signatures wrong**"
    return lost if result.finished else lost + ", **given up**"


def _optional(value: float | None) -> str:
    return "" if value is None else rounded(value)


COLUMNS: dict[str, Callable[[Result], str]] = {
    "": title,
    "may have open": concurrency,
    "had open": lambda each: f"{each.most_open:,}" if each.scenario in SLOW else "",
    "deliveries/s": lambda each: rounded(each.per_second),
    "CPU, µs": lambda each: rounded(each.cpu_us),
    "memory, MiB": lambda each: f"{each.memory_mib:,.0f}",
    "lost": _lost,
    "repeated": lambda each: f"{each.repeated:,}",
    "after kill -9": lambda each: "" if each.repeated_after_kill is None else f"{each.repeated_after_kill:,}",
    "p50, ms": lambda each: _optional(each.p50_ms),
    "p99, ms": lambda each: _optional(each.p99_ms),
    "at, deliveries/s": lambda each: _optional(each.offered),
}


def ordered(results: Sequence[Result]) -> list[Result]:
    """The results in the order of the list of programs."""
    return sorted(results, key=lambda each: ORDER.get(each.program, len(ORDER)))


def table(results: Sequence[Result]) -> str:
    """The table of one scenario, without columns that have no value."""
    lines = [[cell(each) for cell in COLUMNS.values()] for each in ordered(results)]
    kept = [place for place in range(len(COLUMNS)) if any(line[place] for line in lines)]
    names = list(COLUMNS)
    head = [[names[place] for place in kept], ["---" if place == 0 else "---:" for place in kept]]
    return "\n".join(
        "| " + " | ".join(cells) + " |" for cells in [*head, *([line[place] for place in kept] for line in lines)]
    )


def tables(report: Report) -> str:
    """All measured scenarios, each under its title."""
    return "\n\n".join(
        f"### {scenario.title}\n\n{table(results)}" for scenario in SCENARIOS if (results := report.of(scenario.name))
    )


def about(report: Report) -> str:
    """Machine, versions and date."""
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in report.about.items())])
