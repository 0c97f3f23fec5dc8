"""Runs for as long as one likes: `make chaos`, with CHAOS_SECONDS, CHAOS_RUNS and CHAOS_SEED."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.chaos import altered_worker, faults
from tests.chaos.conductor import conduct
from tests.chaos.conftest import NewWorld, Say
from tests.chaos.faults import Fault
from tests.chaos.report import HEADER, report
from tests.chaos.world import Shape
from tests.kafka_broker import KafkaBroker
from tests.processes import ROOT

SECONDS = float(os.environ.get("CHAOS_SECONDS", "120"))
RUNS = int(os.environ.get("CHAOS_RUNS", "1"))
SUMMARY = Path(os.environ.get("CHAOS_SUMMARY", ROOT / ".cache" / "chaos.md"))
PAUSES = (0.2, 2.5)  # seconds between the beginnings of two faults

pytestmark = [pytest.mark.kafka, pytest.mark.chaos, pytest.mark.timeout(SECONDS + 300)]


@pytest.mark.parametrize("run", range(RUNS))
@pytest.mark.parametrize("database", ["sound", "answers lost"])
@pytest.mark.parametrize("nodes", [1, 3], ids=["1 node", "3 nodes"])
@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_the_guarantee_holds_for_as_long_as_it_is_hurt(
    protocol: str, nodes: int, database: str, run: int, seed: int, new_world: NewWorld, say: Say
) -> None:
    """All faults at random, one upon the other; every rule of the book holds."""
    seed += run
    program = () if database == "sound" else (sys.executable, "-m", altered_worker.__name__, "lost_answers")
    shape = Shape(seed, protocol, program=program, slow=0.0 if database == "sound" else 1.0, in_memory=seed % 2 == 0)
    with KafkaBroker(nodes) as brokers:
        world = new_world(shape, brokers.bootstrap, brokers)
        world.begin()
        conduct(world, _at_random(seed), seed, PAUSES, SECONDS)
        world.end()
    result = report(f"{protocol}, {nodes} node{'s' * (nodes > 1)}, {SECONDS:.0f} s, database {database}", world)
    say(result.text())
    _append(result.text())
    assert not result.violations, result.text()


def _at_random(seed: int) -> Iterator[Fault]:
    random = Random(f"{seed} long")
    while True:
        yield random.choice(faults.ALL)


def _append(lines: str) -> None:
    new = not SUMMARY.exists()
    SUMMARY.parent.mkdir(parents=True, exist_ok=True)
    with SUMMARY.open("a") as summary:
        summary.write((HEADER + "\n" if new else "") + lines + "\n")
