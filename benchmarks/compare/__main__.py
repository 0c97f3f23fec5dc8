"""This service and its peers, in one run, on one real Kafka, with the same events and receiver.

    python -m benchmarks.compare [--quick] [--rounds N] [--only NAME …] [--apart] [--json FILE] [--pages]

Writes docs/performance.md, its pictures and docs/performance/results.json; a partial run replaces only its results.
`--quick`, `--apart` and `--json` write no page. NAME is a scenario or a program. Needs Go, java 17 and maven.
"""

import argparse
import os
import signal
import sys
import time
from dataclasses import replace
from itertools import product
from pathlib import Path

from benchmarks.compare import aims, page, tables
from benchmarks.compare.programs import PROGRAMS, Program
from benchmarks.compare.results import Report, Result, failures, merged, read, write
from benchmarks.compare.run import Places, apart, run, stage
from benchmarks.compare.scenarios import SCENARIOS, Scenario


def pairs(only: list[str], *, quick: bool) -> list[tuple[Scenario, Program]]:
    """The selected runs. Raises ValueError if a name is neither a scenario nor a program."""
    names = {*(each.name for each in SCENARIOS), *(each.name for each in PROGRAMS)}
    if unknown := set(only) - names:
        raise ValueError(
            f"no such scenario or program: {', '.join(sorted(unknown))}; there are {', '.join(sorted(names))}"
        )
    scenarios = [each for each in SCENARIOS if each.name in only] or [
        each for each in SCENARIOS if each.quick or not quick
    ]
    programs = [each for each in PROGRAMS if each.name in only] or [each for each in PROGRAMS if each.usual]
    return [
        (scenario, program)
        for scenario in scenarios
        for program in programs
        if program.fans_out or scenario.fan_out == 1
    ]


def say(text: str) -> None:
    """Reports progress."""
    print(text, file=sys.stderr, flush=True)


def shown(scenario: Scenario, program: Program, result: Result) -> str:
    """A line of progress."""
    kill = "" if result.repeated_after_kill is None else f", {result.repeated_after_kill} after kill -9"
    latency = "" if result.p99_ms is None else f", p50 {result.p50_ms:.1f} p99 {result.p99_ms:.1f} ms"
    return (
        f"{scenario.name:>13}, {program.title}: {tables.rounded(result.per_second)}/s, "
        f"{tables.rounded(result.cpu_us)} µs, {result.memory_mib:.0f} MiB, {result.lost} lost, "
        f"{result.repeated} repeated{kill}{latency}; {result.most_open} open, others {result.others:.2f} cores"
    )


def measure(
    chosen: list[tuple[Scenario, Program]], rounds: int, places: Places, kept: Path | None, *, latency: bool
) -> Report:
    """Runs all, one after the other. Each result is written at once, so that an interrupted run keeps its part."""
    report = Report(page.about(places))
    with stage(places) as shared:
        for number, (scenario, program) in product(range(1, rounds + 1), chosen):
            begin = time.monotonic()
            result = replace(run(program, scenario, shared, latency=latency), round=number)
            say(f"{shown(scenario, program, result)} ({time.monotonic() - begin:.0f} s)")
            report.results.append(result)
            if kept:
                write(kept, merged(read(kept), report))
    return report


def main(words: list[str]) -> int:
    """Returns 1 if a delivery was lost or a run did not end."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="0 and 100 ms alone, without latency, in five minutes")
    parser.add_argument("--only", metavar="NAME", nargs="+", default=[], help="these scenarios or programs")
    parser.add_argument(
        "--json", metavar="FILE", type=Path, help="write or replace these results in a file, and no page"
    )
    parser.add_argument("--rounds", metavar="N", type=int, default=1, help="measure all so often; 3 for the page")
    parser.add_argument(
        "--apart", action="store_true", help="processors of their own for program, Kafka and receiver; write no page"
    )
    parser.add_argument("--pages", action="store_true", help="measure nothing: write the page from stored results")
    given = parser.parse_args(words)
    if given.pages:
        page.publish(read(page.STORED))
        return 0
    try:
        chosen = pairs(given.only, quick=given.quick)
        places = apart(sorted(os.sched_getaffinity(0))) if given.apart else Places()
    except ValueError as error:
        parser.error(str(error))
    for build in {program.build for _, program in chosen}:
        build()
    begin = time.monotonic()
    kept = given.json or (None if given.quick or given.apart else page.STORED)
    report = measure(chosen, given.rounds, places, kept, latency=not given.quick)
    say(f"{len(report.results)} runs in {(time.monotonic() - begin) / 60:.1f} minutes")
    print(tables.tables(report), aims.table(report), sep="\n\n")
    if kept == page.STORED:
        page.publish(read(kept))
    for failure in failures(report.results):
        say(failure)
    return 1 if failures(report.results) else 0


def stop(_number: int, _frame: object) -> None:
    """Ends the run like Ctrl-C. `timeout` sends the signal twice; the second one is ignored."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, stop)
    sys.exit(main(sys.argv[1:]))
