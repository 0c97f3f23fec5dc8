"""Partitions leave: what is waited for is theirs, so that their last commit names it; what others have goes on."""

from collections.abc import Callable

import pytest
from sqlalchemy import Engine

from consumer.delivery.delivery import Lane
from consumer.delivery.lanes import Admission
from consumer.delivery.set_aside import LATELY
from consumer.worker.handover import REVOKE_DRAIN, STORE_DRAIN, WRITE_LIMIT
from consumer.worker.worker import REVOKE_PART
from tests.simulation.deployment import OBSTACLES, URLS, Deployment, result
from tests.simulation.world import TOPIC


@pytest.fixture
def deployment(engine: Engine) -> Deployment:
    """Two partitions and seven subscriptions, and a worker that owns both partitions."""
    result = Deployment(engine)
    result.world.start(0, 1)
    return result


def waited(deployment: Deployment, number: int) -> float:
    """Seconds for which the whole group waits while this worker gives a partition up."""
    begin = deployment.world.now
    deployment.world.source.revoke(number)
    return deployment.world.now - begin


def after(seconds: float, deployment: Deployment, then: Callable[[], None]) -> None:
    """Once the worker has waited so long, `then` happens, each time it waits on."""
    at = deployment.world.now + seconds
    deployment.world.on_wait = lambda: then() if deployment.world.now >= at else None


def give_up(deployment: Deployment, number: int) -> None:
    """Of two deliveries of a partition that are given up, one is being written and the other waits for that."""
    world = deployment.world
    for _ in range(2):
        deployment.write(number, "b")
    world.settle_down()
    for _ in range(2):
        world.transport.answer(0, result("hopeless"))
        world.turn()
    assert world.worker.parts.parking.backlog == 2


def test_dead_letters_of_what_stays_are_not_waited_for(deployment: Deployment) -> None:
    """Their topic may be down for long: each rebalance would take all of the group seconds more."""
    world = deployment.world
    world.dead_letters.door_open = False
    deployment.write(1, "bad")
    deployment.write(0, "nobody")
    world.settle_down()
    assert waited(deployment, 0) == 0
    assert world.committed[TOPIC, 0] == (1, "")


def test_a_dead_letter_of_what_leaves_is_waited_for(deployment: Deployment) -> None:
    """Acknowledged in time, the last commit names it; else its next owner sends it again."""
    world = deployment.world
    world.dead_letters.door_open = False
    for number in (0, 1):
        deployment.write(number, "bad")
    world.settle_down()
    assert waited(deployment, 0) == pytest.approx(STORE_DRAIN, abs=0.1)
    assert (TOPIC, 0) not in world.committed
    after(1.0, deployment, lambda: setattr(world.dead_letters, "door_open", True))
    assert waited(deployment, 1) == pytest.approx(1.0, abs=0.1)
    assert world.committed[TOPIC, 1] == (1, "")


def test_what_is_stored_of_a_partition_that_stays_is_not_waited_for(deployment: Deployment) -> None:
    """Neither what is being written nor what waits for it; it is written all the same."""
    world = deployment.world
    give_up(deployment, 1)
    assert waited(deployment, 0) == 0
    world.settle_down()
    assert world.committed[TOPIC, 1] == (2, "")


def test_what_is_stored_of_a_partition_that_leaves_is_waited_for(deployment: Deployment) -> None:
    """What is being written and what waits for it: the last commit names it."""
    world = deployment.world
    give_up(deployment, 1)
    after(1.0, deployment, world.run_jobs)
    assert waited(deployment, 1) == pytest.approx(1.0, abs=0.1)
    assert world.committed[TOPIC, 1] == (2, "")


def test_what_is_being_written_when_its_time_is_over_is_waited_for(deployment: Deployment) -> None:
    """The next owner asks what is stored as soon as it has the partition: what came later it would send once more.

    What waits behind it is not written any more, and left to that owner.
    """
    world = deployment.world
    give_up(deployment, 1)
    after(STORE_DRAIN + 10, deployment, world.run_jobs)
    assert waited(deployment, 1) == pytest.approx(STORE_DRAIN + 10, abs=0.1)
    assert world.committed[TOPIC, 1] == (1, "")
    world.settle_down()
    assert [(row.place, row.offset) for row in deployment.rows().values()] == [((TOPIC, 1), 0)]


def test_a_statement_that_never_ends_is_not_waited_for_for_ever(deployment: Deployment) -> None:
    """The database cuts it off before; a group that waits for one worker reads nothing of the partition."""
    give_up(deployment, 1)
    assert waited(deployment, 1) == pytest.approx(STORE_DRAIN + WRITE_LIMIT, abs=0.1)


def test_no_hand_over_takes_longer_than_the_group_waits(deployment: Deployment) -> None:
    """Who is thrown out meanwhile can commit nothing."""
    deployment.world.source.rebalance_timeout = 7.0
    give_up(deployment, 1)
    assert waited(deployment, 1) == pytest.approx(REVOKE_PART * 7.0, abs=0.1)


@pytest.mark.parametrize("how", OBSTACLES)
def test_a_row_that_is_set_aside_is_waited_for_a_moment_once(deployment: Deployment, how: str) -> None:
    """Somebody may lock it for an hour: the group does not wait for that in each rebalance, and its result is kept."""
    world = deployment.world
    deployment.write(1, "b")
    world.settle_down()
    for seconds in (1.0, 31.0):
        world.transport.answer(0, result("fails"))
        world.settle_down(3)
        world.now += seconds
        world.settle_down()
    deployment.obstruct(how, "{0}.record_offset = 0")
    world.transport.answer(0, result("taken"))
    world.settle_down()
    assert world.worker.parts.parking.set_aside == 1
    world.on_wait = world.run_jobs
    assert 1.0 < waited(deployment, 1) < LATELY
    world.source.assign([1])
    world.turn()
    assert waited(deployment, 1) < 0.1
    deployment.obstruct(None)
    world.now += 60
    world.settle_down()
    assert deployment.statuses() == ["delivered"]


def test_what_the_database_refuses_is_waited_for_until_it_takes_it(deployment: Deployment) -> None:
    """Between two tries nothing is being written, and it is not stored either."""
    world = deployment.world
    deployment.database_fails("takes no rows")
    give_up(deployment, 1)

    def repaired() -> None:
        deployment.database_fails(None if world.now >= begin + 2.0 else "takes no rows")
        world.run_jobs()

    begin = world.now
    world.on_wait = repaired
    assert 2.0 <= waited(deployment, 1) < STORE_DRAIN
    assert world.committed[TOPIC, 1] == (2, "")


def test_the_result_of_a_stored_delivery_is_waited_for_with_its_partition(deployment: Deployment) -> None:
    """It settles no record, but until it is written the next owner would send the row again."""
    world = deployment.world
    deployment.write(0, "b")
    for seconds in (20, 300):
        world.settle_down()
        world.transport.answer(0, result("fails"))
        world.settle_down(seconds)
    world.settle_down(50)
    world.transport.answer(0, result("taken"))
    world.turn()
    assert world.worker.parts.parking.backlog == 1
    assert waited(deployment, 1) == 0
    after(1.0, deployment, world.run_jobs)
    assert waited(deployment, 0) == pytest.approx(1.0, abs=0.1)
    assert deployment.statuses() == ["delivered"]


def test_at_a_stop_what_belongs_to_no_partition_is_waited_for(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written after it: a receiver that wants no more would be asked again."""
    monkeypatch.setattr("consumer.delivery.parking.STORE_BATCH", 1)
    world = deployment.world
    world.worker.parts.parking._batch = 1
    deployment.write(0, "b")
    world.settle_down()
    world.transport.answer(0, result("gone"))
    world.turn()
    world.on_wait = world.run_jobs
    world.stop()
    assert deployment.look_at_subscriptions() == set(URLS["b"])


def test_of_a_lost_partition_nothing_more_is_written(deployment: Deployment) -> None:
    """What waits to be written is forgotten: its next owner reads the record, and sends it."""
    world = deployment.world
    give_up(deployment, 1)
    world.source.lose(1)
    world.run_jobs()  # what was being written
    world.settle_down()
    assert [(row.place, row.offset) for row in deployment.rows().values()] == [((TOPIC, 1), 0)]
    assert (TOPIC, 1) not in world.committed


def test_the_rest_of_a_fan_out_is_stored_with_its_partition(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of two receivers has seen the event, the other's lane is waited for: the record is not sent twice."""
    world = deployment.world
    lanes = world.worker.parts.lanes
    admit = lanes.admit

    def hold(lane: Lane, size: int, now: float) -> Admission:
        return Admission.BACKPRESSURE if lane.endpoint.url == URLS["a"][1] else admit(lane, size, now)

    monkeypatch.setattr(lanes, "admit", hold)
    deployment.write(0, "a")
    world.settle_down()
    assert [url for _, url in world.sent] == [URLS["a"][0]]
    world.transport.answer(0, result("taken"))
    world.on_wait = world.run_jobs
    world.source.revoke(0)
    assert world.committed[TOPIC, 0] == (1, "")
    assert [(url, row.status, row.attempt) for (_, url), row in deployment.rows().items()] == [
        (URLS["a"][1], "parked", 0)
    ]


def test_a_rebalance_waits_less_for_requests_than_a_stop(engine: Engine) -> None:
    """All members of the group wait with it, however long WEBHOOK_DRAIN is."""
    deployment = Deployment(engine, drain=20.0)
    deployment.world.start(0, 1)
    deployment.write(0, "b")
    deployment.world.settle_down()
    deployment.world.on_wait = deployment.world.run_jobs
    assert REVOKE_DRAIN <= waited(deployment, 0) < REVOKE_DRAIN + 1


def test_what_stays_goes_on_while_a_partition_leaves(deployment: Deployment) -> None:
    """The receiver of what leaves hangs for all of the drain: what the other partition has read or stored is sent."""
    world = deployment.world
    deployment.write(1, "b")
    for seconds in (20, 280):
        world.settle_down()
        world.transport.answer(0, result("fails"))
        world.settle_down(seconds)
    deployment.write(0, "b")
    world.settle_down(3)
    assert len(world.transport.open) == 1
    world.now += 1.5  # what was looked up is too old
    deployment.write(1, "b")
    world.turn()  # its look-up is under way; the row of the first is due within a second
    before = len(world.sent)
    world.on_wait = world.run_jobs
    assert waited(deployment, 0) == pytest.approx(world.delivery.drain, abs=0.1)
    sent = [deployment.offsets[identity] for identity, _ in world.sent[before:]]
    assert sorted(sent) == [((TOPIC, 1), 0), ((TOPIC, 1), 1)]
    assert world.worker.parts.lanes.slots.in_flight == 2
