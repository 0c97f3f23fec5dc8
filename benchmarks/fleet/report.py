"""The results for one deployment, and the tables that show them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil, inf
from random import Random
from typing import Any

from benchmarks.fleet.capacity import CONTAINER_MIB, PLANNED, SLOTS, Load, Needed, fastest, load, needed
from benchmarks.fleet.costs import MEASURED, Costs
from benchmarks.fleet.deploy import DRAIN, Deploy, rolling
from benchmarks.fleet.failing import Story, suffer
from benchmarks.fleet.killed import killed
from benchmarks.fleet.statements import KINDS, MINUTE, core, of_all
from benchmarks.fleet.world import Outage, World, at_once, background

HOUR = 3600.0
PODS = 3  # pods simulated through an outage, request by request; the others are like them
KILLED, REQUESTS = 20, 2_000_000  # limits of simulated killed pods, and of the requests of all of them
PARTS = {"half": 0.5, "90 %": 0.9, "99 %": 0.99, "all": 1.0}


@dataclass(frozen=True, slots=True)
class Statements:
    """Statements a second of all pods by purpose, and their share of a pod's core, without look-ups."""

    each: Mapping[str, float]
    core: float

    @property
    def all(self) -> float:
        """The sum of all purposes."""
        return sum(self.each.values())


@dataclass(frozen=True, slots=True)
class Drained:
    """How an hour's outage is worked off."""

    log_seconds: float  # from the start of all pods, with an hour's records in the log; inf: never
    fastest: float  # deliveries a second of a pod meanwhile
    rows: int  # stored during the outage of receivers
    cursors: int  # begun during it and after it
    owed: int  # deliveries open when these were back
    seconds: Mapping[str, float]  # until these shares of them were made


@dataclass(frozen=True, slots=True)
class Report:
    """The result of the simulation of one deployment."""

    world: World
    seed: int
    down: float
    needed: Needed
    pod: Load
    calm: Statements
    outage: Statements  # in its second half
    after: Statements  # in the busiest minute after it
    deploy: Deploy
    killed: int
    repeated: float  # average of each killed pod
    repeated_most: int
    drained: Drained

    def as_json(self) -> dict[str, Any]:
        """Plain values; None for a duration without end."""
        return dict(_plain(asdict(self) | {"pods_needed": self.needed.pods, "binds": self.needed.binds}))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return None if value == inf else value


def drain_log(world: World, outage: float, costs: Costs = MEASURED) -> float:
    """Seconds in which the pod with the most partitions works off the log of an outage, while new records arrive."""
    comes = world.rate / world.partitions * ceil(world.partitions / world.pods)
    spare = fastest(world, costs).rate - comes
    return comes * outage / spare if spare > 0 else inf


def _statements(world: World, minutes: Sequence[Counter[str]], outages: Iterable[tuple[int, Outage]]) -> Statements:
    """The statements in some minutes of the simulated pods."""
    with_rows = len({rank for rank, each in outages if each.end >= HOUR})
    return Statements(of_all(MEASURED, world, minutes, with_rows), core(MEASURED, minutes))


def _second_half(stories: Iterable[Story]) -> list[Counter[str]]:
    end = int(HOUR / MINUTE)
    return [minute for story in stories for minute in story.minutes[end // 2 : end]]


def _busiest_after(stories: Iterable[Story]) -> list[Counter[str]]:
    """For each pod the minute with the most statements after the outage."""
    rest = (story.minutes[int(HOUR / MINUTE) :] or [Counter[str]()] for story in stories)
    return [max(minutes, key=lambda minute: sum(minute[kind] for kind in KINDS)) for minutes in rest]


def simulate(world: World, seed: int, down: float, pods_killed: int) -> Report:
    """Runs all parts. The same arguments give the same report."""
    random = Random(f"{seed} receivers")  # noqa: S311 (a simulation)
    usual: list[tuple[int, Outage]] = list(background(world.receivers, HOUR, random))
    broken = [*usual, *at_once(world.receivers, down, HOUR, random)]
    pods = range(min(PODS, world.pods))
    calm = [suffer(world, usual, HOUR, f"{seed} calm {each}", until=HOUR) for each in pods]
    outage = [suffer(world, broken, HOUR, f"{seed} outage {each}") for each in pods]
    late = sorted(each for story in outage for each in story.waits)
    scale = world.pods / len(pods)
    sampled = max(1, min(KILLED, int(REQUESTS / 50 / max(1.0, world.of_a_pod))))
    runs = killed(world, pods_killed, sampled, seed)
    return Report(
        world,
        seed,
        down,
        needed(world),
        load(world, world.of_a_pod),
        _statements(world, _second_half(calm), usual),
        _statements(world, _second_half(outage), broken),
        _statements(world, _busiest_after(outage), broken),
        rolling(world, seed),
        pods_killed,
        sum(each.repeated for each in runs) / max(1, len(runs)),
        max((each.repeated for each in runs), default=0),
        Drained(
            drain_log(world, HOUR),
            fastest(world).rate,
            round(sum(story.stored for story in outage) * scale),
            round(sum(story.cursors for story in outage) * scale),
            round(len(late) * scale),
            {name: late[ceil(part * len(late)) - 1] if late else 0.0 for name, part in PARTS.items()},
        ),
    )


def shown(seconds: float) -> str:
    """A duration for people: 42 s, 12 min, 2.3 h."""
    if seconds == inf:
        return "never"
    if seconds < 2 * MINUTE:
        return f"{seconds:.0f} s"
    return f"{seconds / MINUTE:.0f} min" if seconds < 2 * HOUR else f"{seconds / HOUR:.1f} h"


def table(report: Report) -> str:
    """The report as Markdown."""
    world, pod, bounds, drained = report.world, report.pod, report.needed, report.drained
    parts = report.calm, report.outage, report.after
    catching_up = f"{drained.fastest:,.0f} deliveries a second of a pod"
    load_of_all = f"partitions: {world.partitions:,}; deliveries a second: {world.rate:,.0f}; seed: {report.seed}."
    lines = [
        f"Pods: {world.pods:,}; receivers: {world.receivers:,}; {load_of_all}",
        "",
        "| pods needed | |",
        "| --- | ---: |",
        f"| by CPU, {PLANNED:.0%} of a core | {bounds.by_cpu:,} |".replace("%", " %"),
        f"| by open requests, {PLANNED:.0%} of {SLOTS:,} slots | {bounds.by_slots:,} |".replace("%", " %"),
        f"| by memory, {CONTAINER_MIB:.0f} MiB | {bounds.by_memory:,} |",
        f"| **in all: {bounds.binds} binds** | **{bounds.pods:,}** |",
        "",
        "| a pod of these | |",
        "| --- | ---: |",
        f"| deliveries a second | {pod.rate:,.0f} |",
        f"| of a core | {100 * pod.cpu:.0f} % |",
        f"| requests that find a connection | {100 * pod.reused:.0f} % |",
        f"| open requests | {pod.open:.0f} |",
        f"| memory, MiB | {pod.memory_mib:.0f} |",
        "",
        f"| statements a second | calm | {100 * report.down:g} % of receivers down | busiest minute after |",
        "| --- | ---: | ---: | ---: |",
        *(_row(kind, [part.each[kind] for part in parts]) for kind in KINDS),
        _row("**all**", [part.all for part in parts]),
        _row("of each pod's core, %; look-ups are above", [100 * part.core for part in parts]),
        "",
        "| deliveries repeated | |",
        "| --- | ---: |",
        f"| rolling deploy of all pods, WEBHOOK_DRAIN {DRAIN:.0f} s | {report.deploy.repeated:,} |",
        f"| partitions that it moves | {report.deploy.moved:,} |",
        f"| of these from remaining pods | {report.deploy.revoked:,} |",
        f"| statements that read their stored deliveries | {report.deploy.statements:,} |",
        f"| kill -9 of so many pods: {report.killed:,} | {_rounded(report.killed * report.repeated)} |",
        f"| each of them, on average | {report.repeated:.0f} |",
        f"| each of them, at most | {report.repeated_most:,} |",
        "",
        "| an hour's outage is worked off | |",
        "| --- | ---: |",
        f"| of all pods: the log, at {catching_up} | {shown(drained.log_seconds)} |",
        f"| of {100 * report.down:g} % of receivers: rows that were stored | {_rounded(drained.rows)} |",
        f"| cursors that were begun | {_rounded(drained.cursors)} |",
        f"| deliveries owed when these were back | {_rounded(drained.owed)} |",
        *(f"| {name} of them delivered after | {shown(seconds)} |" for name, seconds in drained.seconds.items()),
    ]
    return "\n".join(lines)


def _row(name: str, values: Iterable[float]) -> str:
    return " | ".join([f"| {name}", *map(_rounded, values)]) + " |"


def _rounded(value: float) -> str:
    """Three significant digits."""
    number = round(value)
    return f"{round(number, 3 - len(str(number))):,}"
