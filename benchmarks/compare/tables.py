"""Results as Markdown tables."""

from collections.abc import Callable, Iterable, Sequence

from benchmarks.compare.programs import PROGRAMS
from benchmarks.compare.results import DISTURBED, Report, Result
from benchmarks.compare.scenarios import SCENARIOS
from benchmarks.events import PAD

TITLES = {program.name: program.title for program in PROGRAMS}
SLOW = {
    scenario.name for scenario in SCENARIOS if scenario.delay_ms
}  # otherwise open requests end before they are counted
DETAILED = [scenario for scenario in SCENARIOS if scenario.pad == PAD and scenario.fan_out == 1 and not scenario.tls]
OTHERS = [scenario for scenario in SCENARIOS if scenario not in DETAILED]
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
    """The configured open requests of each worker."""
    number = f"{result.concurrency:,}"
    return number if result.workers == 1 else f"{result.workers} times {number}"


def _lost(result: Result) -> str:
    """Everything that makes the run a failure; empty if it was none."""
    faults = {f"**{result.lost:,}**": result.lost, f"**{result.forged} signatures wrong**": result.forged}
    return ", ".join(
        [*(text for text, number in faults.items() if number), *([] if result.finished else ["**given up**"])]
    )


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
    "repeated": lambda each: f"{each.repeated:,}" if each.repeated else "",
    "after kill -9": lambda each: "" if each.repeated_after_kill is None else f"{each.repeated_after_kill:,}",
    "p50, ms": lambda each: _optional(each.p50_ms),
    "p99, ms": lambda each: _optional(each.p99_ms),
}


def ordered(results: Iterable[Result]) -> list[Result]:
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


def overview(report: Report) -> str:
    """One table of the other scenarios: deliveries a second and, in brackets, the CPU of each in µs."""
    found = {scenario.title: {each.program: each for each in report.of(scenario.name)} for scenario in OTHERS}
    found = {title: results for title, results in found.items() if results}
    programs = ordered({each.program: each for results in found.values() for each in results.values()}.values())
    rows = [["", *found], ["---", *("---:" for _ in found)]]
    for program in programs:
        cells = [_brief(results.get(program.program)) for results in found.values()]
        rows.append([TITLES.get(program.program, program.program), *cells])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows) if found else ""


def _brief(result: Result | None) -> str:
    if result is None:
        return ""
    lost = _lost(result)
    return f"{rounded(result.per_second)} ({rounded(result.cpu_us)})" + (f", lost {lost}" if lost else "")


def tables(report: Report) -> str:
    """The measured scenarios: a table for each receiver, and one for bodies, subscriptions and TLS."""
    parts = [
        f"### {scenario.title}\n\n{table(results)}" for scenario in DETAILED if (results := report.of(scenario.name))
    ]
    others = overview(report)
    return "\n\n".join([*parts, *([f"### Bodies, subscriptions, TLS\n\n{others}"] if others else [])])


def about(report: Report) -> str:
    """Machine, versions and date."""
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in report.about.items())])
