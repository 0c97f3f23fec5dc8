"""Runs of any length: `make chaos`, with CHAOS_SECONDS, CHAOS_RUNS, CHAOS_SEED and CHAOS_PROCESSES."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from tests.chaos import database_faults, faults
from tests.chaos.conductor import conduct
from tests.chaos.conftest import NewWorld, Say
from tests.chaos.faults import Fault, Waits
from tests.chaos.report import HEADER, full, text
from tests.chaos.world import Shape, World, on_oracle, with_lost_answers
from tests.kafka_broker import KafkaBroker
from tests.processes import ROOT

SECONDS = float(os.environ.get("CHAOS_SECONDS", "120"))
RUNS = int(os.environ.get("CHAOS_RUNS", "1"))
PROCESSES = int(os.environ.get("CHAOS_PROCESSES", "1"))  # workers of each command
SUMMARY = Path(os.environ.get("CHAOS_SUMMARY", ROOT / ".cache" / "chaos.md"))
ORACLE_RATE = 20.0  # events a second: the slow emulator must absorb the events of a two-minute failover
PAUSES = (0.2, 2.5)  # seconds between the starts of two faults
RESTS = (5.0, 15.0)  # seconds before the next fault of brokers: without one, fewer rules can be judged

DATABASES: dict[str, Callable[[Shape], Shape]] = {
    "sound": lambda shape: shape,
    "answers lost": with_lost_answers,
    "Oracle 19c": lambda shape: on_oracle(replace(shape, per_second=ORACLE_RATE), "19c"),
    "Oracle 23ai": lambda shape: on_oracle(replace(shape, per_second=ORACLE_RATE), "23ai"),
}

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(3 * SECONDS + 500)]


@pytest.mark.parametrize("run", range(RUNS))
@pytest.mark.parametrize("database", DATABASES)
@pytest.mark.parametrize("nodes", [1, 3], ids=["1 node", "3 nodes"])
@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_the_guarantee_holds_for_as_long_as_it_is_hurt(
    protocol: str, nodes: int, database: str, run: int, seed: int, new_world: NewWorld, say: Say, tmp_path: Path
) -> None:
    """All faults occur at random, overlapping. Every rule of the book holds."""
    seed += run
    shape = Shape(seed, protocol, in_memory=seed % 2 == 0, audited=seed % 3 != 0, processes=PROCESSES)
    shape = DATABASES[database](shape)
    with KafkaBroker(nodes) as brokers:
        world = new_world(shape, brokers.bootstrap, brokers)
        world.begin()
        conduct(world, _at_random(shape), seed, PAUSES, SECONDS)
        if shape.profile:
            conduct(world, [database_faults.FAIL_OVER], seed, PAUSES)
        world.end()
    name = f"{protocol}, {nodes} node{'s' * (nodes > 1)}, {SECONDS:.0f} s, database {database}"
    told = text(name, world)
    say(told)
    _append(told)
    (tmp_path / "run.md").write_text(full(name, world))
    assert not world.book.violations, told


def _at_random(shape: Shape) -> Iterator[Fault]:
    random = Random(f"{shape.seed} long")
    every = [*faults.ALL, *(database_faults.ORACLE if shape.profile else database_faults.SQLITE)]
    if shape.processes > 1:
        every.append(faults.KILL_ONE)
    while True:
        fault = random.choice(every)
        yield _with_rest(fault) if fault in faults.BROKERS else fault


def _with_rest(fault: Fault) -> Fault:
    def play(world: World, random: Random) -> Waits:
        yield from fault.play(world, random)
        yield random.uniform(*RESTS)

    return fault._replace(play=play)


def _append(lines: str) -> None:
    new = not SUMMARY.exists()
    SUMMARY.parent.mkdir(parents=True, exist_ok=True)
    with SUMMARY.open("a") as summary:
        summary.write((HEADER + "\n" if new else "") + lines + "\n")
