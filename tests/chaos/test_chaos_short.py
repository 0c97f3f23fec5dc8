"""Half a minute of overlapping faults, with each of Kafka's group protocols. `make chaos` runs for longer."""

from dataclasses import replace
from random import Random

import pytest

from tests.chaos import database_faults, faults
from tests.chaos.conductor import conduct
from tests.chaos.conftest import NewWorld, Say
from tests.chaos.faults import Fault
from tests.chaos.report import text
from tests.chaos.world import STOPS_WITHIN, Shape, on_oracle, with_lost_answers
from tests.kafka_broker import KafkaBroker

pytestmark = pytest.mark.timeout(600)  # `World.end` says what stays owed, as long as it becomes less

PAUSES = (0.2, 1.0)  # seconds between the starts of two faults

SHAPES = {
    "classic": Shape(seed=0, protocol="classic", workers=2, audited=True),
    "consumer, answers lost": with_lost_answers(Shape(seed=0, protocol="consumer", workers=2, audited=True)),
    "consumer, two workers in each command": Shape(seed=0, protocol="consumer", workers=2, processes=2),
    "classic, Oracle 19c": on_oracle(Shape(seed=0, protocol="classic", workers=2), "19c"),
}


@pytest.mark.parametrize("name", SHAPES)
def test_nothing_is_lost_and_little_repeated(
    name: str,
    seed: int,
    new_world: NewWorld,
    kafka_bootstrap: str,
    kafka_cluster: KafkaBroker | None,
    say: Say,
) -> None:
    """First a rolling restart, which repeats no delivery, then overlapping faults. All rules of the book hold."""
    shape = replace(SHAPES[name], seed=seed, in_memory=seed % 2 == 0)
    world = new_world(shape, kafka_bootstrap, kafka_cluster)
    world.begin()
    conduct(world, faults.GRACEFUL[:1], seed, PAUSES)
    world.wait(world.at_rest, STOPS_WITHIN)
    rough = _some_of_each_kind(seed, oracle=bool(shape.profile))
    if shape.processes > 1:
        rough += [faults.KILL_ONE] * 2
    if kafka_cluster is None:
        rough = [fault for fault in rough if fault not in faults.BROKERS]
    conduct(world, rough, seed, PAUSES)
    world.end()
    told = text(f"short, {name}", world)
    say(told)
    assert not world.book.violations, told


def _some_of_each_kind(seed: int, *, oracle: bool) -> list[Fault]:
    random = Random(seed)
    others = [
        faults.KILL,
        faults.STORM,
        faults.BOMBS,
        faults.LETTERS,
        faults.GONE,
        *faults.OPERATORS,
        random.choice(faults.BROKERS),
        *(random.sample(database_faults.ORACLE[:-1], 3) if oracle else [random.choice(database_faults.SQLITE[:-1])]),
        database_faults.ROW_LOCKED if oracle else database_faults.ROW_REFUSED,
    ]
    random.shuffle(others)
    return [faults.FREEZE, *others]  # it takes the longest
