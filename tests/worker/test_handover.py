"""Giving partitions up: the worker waits for their own writes, so that the last commit covers them. Others go on."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import pytest
from sqlalchemy import Engine

from consumer.config.settings import KafkaSettings
from consumer.database.job import Batch
from consumer.delivery.delivery import Lane
from consumer.delivery.lanes import Admission
from consumer.delivery.set_aside import LATELY
from consumer.ledger.admin import StoredDetail
from consumer.worker.exhausted_relay import ExhaustedRelay, exhausted_topic
from consumer.worker.ownership import REVOKE_DRAIN, REVOKE_PART, STORE_DRAIN, WRITE_LIMIT
from tests.simulation.deployment import OBSTACLES, URLS, Deployment, result
from tests.simulation.world import GROUP, TOPIC


def waited(deployment: Deployment, number: int) -> float:
    """Seconds for which the whole group waits while this worker gives up a partition."""
    begin = deployment.world.now
    deployment.world.source.revoke(number)
    return deployment.world.now - begin


def after(seconds: float, deployment: Deployment, then: Callable[[], None]) -> None:
    """Call `then` at each wait of the worker, once it has waited this long."""
    at = deployment.world.now + seconds
    deployment.world.on_wait = lambda: then() if deployment.world.now >= at else None


def give_up(deployment: Deployment, number: int) -> None:
    """Exhaust two deliveries of a partition. One is being written, and the other waits for that write."""
    world = deployment.world
    for _ in range(2):
        deployment.write(number, "b")
    world.settle_down()
    for _ in range(2):
        world.transport.answer(0, result("hopeless"))
        world.turn()
    assert world.worker.parts.parking.backlog == 2


@pytest.mark.parametrize(("fault", "seconds"), [(None, 2.0), ("exhausted topic: it is down", 0.0)])
def test_a_stop_waits_for_the_exhausted_topic_unless_it_is_down(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, fault: str | None, seconds: float
) -> None:
    """So no restart in a calm time writes a record twice. In an outage the record stays owed."""
    world, seconds_of = deployment.world, deployment.world.worker.parts.monotonic
    monkeypatch.setattr("consumer.intake.dead_letters.AcknowledgedTopic", lambda *_: SimpleNamespace(fault=fault))
    letters = exhausted_topic(KafkaSettings(bootstrap_servers="none", exhausted_topic="exhausted"), seconds_of)
    assert letters is not None
    thread = world.worker.parts.threads[0]
    relay = ExhaustedRelay(world.engine, thread, GROUP, letters, lambda: True, seconds_of)
    relay._acknowledged = [cast("StoredDetail", None)]
    monkeypatch.setattr(world.worker.parts, "exhausted_relay", relay)
    begin = world.now
    after(2.0, deployment, relay._acknowledged.clear)
    world.stop()
    assert world.now - begin == pytest.approx(seconds, abs=0.1)


def test_a_revoke_does_not_wait_for_dead_letters_of_other_partitions(deployment: Deployment) -> None:
    """Their topic may be down for long, and each rebalance would take the whole group seconds longer."""
    world = deployment.world
    world.dead_letters.door_open = False
    deployment.write(1, "bad")
    deployment.write(0, "nobody")
    world.settle_down()
    assert waited(deployment, 0) == 0
    assert world.committed[TOPIC, 0] == (1, "")


def test_a_revoke_waits_for_dead_letters_of_its_partition(deployment: Deployment) -> None:
    """If the letter is acknowledged in time, the last commit covers it. Otherwise the next owner sends it again."""
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


def test_a_revoke_waits_for_attempts_to_be_on_record(deployment: Deployment) -> None:
    """What has succeeded is settled then, and the last commit covers it. If it takes too long, it is sent again."""
    world, waiting = deployment.world, list[Callable[[], object]]()

    def run() -> None:
        while waiting:
            waiting.pop(0)()

    world.worker.parts.settling.once_reported = waiting.append
    for number in (0, 1):
        deployment.write(number, "b")
        world.settle_down()
        world.transport.answer(0, result("taken"))
        world.turn()
    assert waited(deployment, 0) == pytest.approx(STORE_DRAIN, abs=0.1)
    assert (TOPIC, 0) not in world.committed
    after(1.0, deployment, run)
    assert waited(deployment, 1) == pytest.approx(1.0, abs=0.1)
    assert world.committed[TOPIC, 1] == (1, "")


def test_a_revoke_waits_for_writes_of_its_partition(deployment: Deployment) -> None:
    """It waits for the write under way and for waiting ones. The last commit covers both."""
    world = deployment.world
    give_up(deployment, 1)
    after(1.0, deployment, world.run_jobs)
    assert waited(deployment, 1) == pytest.approx(1.0, abs=0.1)
    assert world.committed[TOPIC, 1] == (2, "")


def test_a_revoke_waits_for_a_write_under_way_even_after_its_time_limit(deployment: Deployment) -> None:
    """The next owner reads the stored rows as soon as it has the partition, and would send a later row again.

    Waiting rows are not written any more, and are left to that owner.
    """
    world = deployment.world
    give_up(deployment, 1)
    after(STORE_DRAIN + 10, deployment, world.run_jobs)
    assert waited(deployment, 1) == pytest.approx(STORE_DRAIN + 10, abs=0.1)
    assert world.committed[TOPIC, 1] == (1, "")
    world.settle_down()
    assert [(row.place, row.offset) for row in deployment.rows().values()] == [((TOPIC, 1), 0)]


@pytest.mark.parametrize(
    ("group_waits", "seconds"),
    [(300.0, STORE_DRAIN + WRITE_LIMIT), (7.0, REVOKE_PART * 7.0)],
    ids=["patient", "impatient"],
)
def test_a_revoke_does_not_wait_for_ever(deployment: Deployment, group_waits: float, seconds: float) -> None:
    """The database's time limit ends a statement. A member that is expelled meanwhile cannot commit."""
    deployment.world.source.rebalance_timeout = group_waits
    give_up(deployment, 1)
    assert waited(deployment, 1) == pytest.approx(seconds, abs=0.1)


def test_a_stop_does_not_wait_for_ever_for_the_database(deployment: Deployment) -> None:
    """Deliveries that it does not store stay unsettled, and come again."""
    world = deployment.world
    give_up(deployment, 1)
    begin = world.now
    world.stop()
    assert world.now - begin == pytest.approx(STORE_DRAIN, abs=0.1)
    assert (deployment.rows(), world.committed) == ({}, {})


@pytest.mark.parametrize("how", OBSTACLES)
def test_a_revoke_waits_for_a_refused_row_briefly_and_once(deployment: Deployment, how: str) -> None:
    """The row may be locked for an hour. Later rebalances do not wait for it, and its result is kept."""
    world = deployment.world
    deployment.write(1, "b")
    world.settle_down()
    for seconds in (1.0, 31.0):
        deployment.answer("fails", turns=3)
        world.now += seconds
        world.settle_down()
    deployment.obstruct(how, "{0}.record_offset = 0")
    deployment.answer("taken")
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


def test_a_revoke_waits_for_rows_that_the_database_refuses_for_now(deployment: Deployment) -> None:
    """Between two attempts no write is under way, but the rows are not stored either."""
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


def test_a_revoke_waits_for_the_result_of_a_stored_delivery(deployment: Deployment) -> None:
    """It settles no record, but until it is written, the next owner would send the row again."""
    world = deployment.world
    deployment.write(0, "b")
    for seconds in (20, 300):
        world.settle_down()
        deployment.answer("fails", turns=seconds)
    world.settle_down(50)
    world.transport.answer(0, result("taken"))
    world.turn()
    assert world.worker.parts.parking.backlog == 1
    assert waited(deployment, 1) == 0
    after(1.0, deployment, world.run_jobs)
    assert waited(deployment, 0) == pytest.approx(1.0, abs=0.1)
    assert deployment.statuses() == ["delivered"]


def test_a_stop_waits_for_writes_that_belong_to_no_partition(deployment: Deployment) -> None:
    """No write follows a stop. A receiver that answered 410 would get further requests."""
    world = deployment.world
    world.worker.parts.parking._batch = Batch(1)
    deployment.write(0, "b")
    world.settle_down()
    world.transport.answer(0, result("gone"))
    world.turn()
    world.on_wait = world.run_jobs
    world.stop()
    assert deployment.look_at_subscriptions() == set(URLS["b"])


@pytest.mark.parametrize("answers", [True, False])
def test_a_large_rest_of_a_fan_out_is_stored_as_the_database_takes_it(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, *, answers: bool
) -> None:
    """The backlog's bound holds meanwhile. If the database does not answer, the record stays unsettled."""
    world = deployment.world
    lanes, parking = world.worker.parts.lanes, world.worker.parts.parking
    first = "https://one.example/keyed"
    admit, most = lanes.admit, 0

    def hold(lane: Lane, size: int, now: float) -> Admission:
        return admit(lane, size, now) if lane.endpoint.url == first else Admission.BACKPRESSURE

    def run_jobs() -> None:
        nonlocal most
        most = max(most, parking.backlog)
        if answers:
            world.run_jobs()

    monkeypatch.setattr("consumer.delivery.parking.BACKLOG", 1)
    monkeypatch.setattr(lanes, "admit", hold)
    deployment.write(0, "keyless")
    world.settle_down()
    assert [url for _, url in world.sent] == [first]
    world.transport.answer(0, result("taken"))
    world.on_wait = run_jobs
    world.source.revoke(0)
    assert most == 1
    assert world.committed.get((TOPIC, 0)) == ((1, "") if answers else None)
    assert len(deployment.rows()) == (2 if answers else 0)


def test_a_revoke_waits_less_for_requests_than_a_stop(engine: Engine) -> None:
    """All members of the group wait with it, however long WEBHOOK_DRAIN is."""
    deployment = Deployment(engine, drain=20.0)
    deployment.world.start(0, 1)
    deployment.write(0, "b")
    deployment.world.settle_down()
    deployment.world.on_wait = deployment.world.run_jobs
    assert REVOKE_DRAIN <= waited(deployment, 0) < REVOKE_DRAIN + 1


def test_other_partitions_go_on_while_one_leaves(deployment: Deployment) -> None:
    """A receiver hangs for the whole drain. Events and stored deliveries of the other partition are sent meanwhile."""
    world = deployment.world
    deployment.write(1, "b")
    for seconds in (20, 280):
        world.settle_down()
        deployment.answer("fails", turns=seconds)
    deployment.write(0, "b")
    world.settle_down(3)
    assert len(world.transport.open) == 1
    world.now += 1.5  # the cached subscriptions are now too old
    deployment.write(1, "b")
    world.turn()  # its look-up is under way; the first record's row is due within a second
    before = len(world.sent)
    world.on_wait = world.run_jobs
    assert waited(deployment, 0) == pytest.approx(world.delivery.drain, abs=0.1)
    sent = [deployment.offsets[identity] for identity, _ in world.sent[before:]]
    assert sorted(sent) == [((TOPIC, 1), 0), ((TOPIC, 1), 1)]
    assert world.worker.parts.lanes.slots.in_flight == 2
