"""Half a minute of everything at once, for each of Kafka's group protocols; `make chaos` runs for longer."""

from random import Random

import pytest

from tests.chaos import faults
from tests.chaos.conductor import conduct
from tests.chaos.conftest import NewWorld, Say
from tests.chaos.faults import Fault
from tests.chaos.report import report
from tests.chaos.world import Shape
from tests.kafka_broker import KafkaBroker

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]

PAUSES = (0.2, 1.0)  # seconds between the beginnings of two faults


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_nothing_is_lost_and_little_repeated(
    protocol: str, seed: int, new_world: NewWorld, kafka_bootstrap: str, kafka_cluster: KafkaBroker | None, say: Say
) -> None:
    """First a rolling restart, which must repeat nothing, then faults over one another; all rules of the book hold."""
    world = new_world(Shape(seed, protocol, workers=2, in_memory=seed % 2 == 0), kafka_bootstrap, kafka_cluster)
    world.begin()
    conduct(world, faults.GRACEFUL[:1], seed, PAUSES)
    rough = [fault for fault in _some_of_each_kind(seed) if kafka_cluster is not None or fault not in faults.BROKERS]
    conduct(world, rough, seed, PAUSES)
    world.end()
    result = report(f"short, {protocol}", world)
    say(result.text())
    assert not result.violations, result.text()


def _some_of_each_kind(seed: int) -> list[Fault]:
    random = Random(seed)
    others = [
        faults.KILL,
        faults.STORM,
        faults.LETTERS,
        random.choice(faults.BROKERS),
        *random.sample(faults.DATABASE, 2),
    ]
    random.shuffle(others)
    return [faults.FREEZE, *others]  # it takes longest
