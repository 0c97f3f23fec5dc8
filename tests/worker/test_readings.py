"""The gauges that a scrape reads from a worker: ages, waits, failures, the database and the loop."""

from dataclasses import replace

import pytest
from sqlalchemy import Engine
from structlog.testing import capture_logs

from consumer.delivery.breaker import MEMORY
from consumer.delivery.failing import NOTE_AFTER, SHOWN
from consumer.intake.record import AssignedPartition, Record
from consumer.telemetry.metrics import Readings
from consumer.worker.worker import MOST_SHOWN
from tests.simulation.deployment import Deployment, result
from tests.simulation.world import BORN, TOPIC


def readings(deployment: Deployment) -> Readings:
    """The readings of a scrape now."""
    return deployment.world.worker.readings()


def test_the_age_of_the_first_unsettled_record_is_that_of_its_timestamp(deployment: Deployment) -> None:
    """It grows until that record is settled, whatever is settled above it. A partition without open records shows 0."""
    world = deployment.world
    for kind in ("b", "b", "nobody"):
        deployment.write(0, kind)
    world.settle_down()
    world.now = 40.0
    assert readings(deployment).oldest_unsettled == {(TOPIC, 0): pytest.approx(40.0), (TOPIC, 1): 0.0}
    deployment.answer("taken", turns=1)
    second = BORN + 0.001  # timestamp of offset 1
    assert readings(deployment).oldest_unsettled[TOPIC, 0] == pytest.approx(BORN + world.now - second)
    deployment.answer("taken")
    assert readings(deployment).oldest_unsettled == {(TOPIC, 0): 0.0, (TOPIC, 1): 0.0}
    partition: AssignedPartition = world.source.partitions[TOPIC, 0]
    partition.tracker.track(3)  # without a timestamp, its age would be half a century
    assert readings(deployment).oldest_unsettled == {(TOPIC, 1): 0.0}


def test_the_next_stored_attempt_is_shown(deployment: Deployment) -> None:
    """Its seconds fall to 0 and not below. Without stored deliveries there is no value."""
    world = deployment.world
    deployment.write(0, "b")
    world.settle_down()
    assert readings(deployment).next_attempt is None
    deployment.answer("fails", "fails", turns=20)
    first = readings(deployment).next_attempt
    assert first is not None
    assert 25 < first < 30
    world.now += 10
    assert readings(deployment).next_attempt == pytest.approx(first - 10)
    world.now += 100
    assert readings(deployment).next_attempt == 0
    world.settle_down()
    deployment.answer("taken")
    assert readings(deployment).next_attempt is None


def test_a_failing_subscription_is_shown_until_it_succeeds(deployment: Deployment) -> None:
    """The value has its id and the time since its first failure, also once the database has its mark."""
    world = deployment.world
    number = next(key for key, url in deployment.subscriptions.items() if url == "https://one.example/b")
    begin = world.now
    while world.now < begin + 2 * NOTE_AFTER:
        deployment.write(0, "b")
        world.settle_down(50)
        if world.transport.open:
            world.transport.answer(0, result("fails"))
    world.settle_down()
    now = readings(deployment)
    assert now.failing == 1
    assert now.failing_longest == {number: pytest.approx(world.now - begin, abs=7.0)}
    for _ in range(30):
        if not world.transport.open:
            world.now += 5
            world.settle_down()
    deployment.answer("taken")
    assert (readings(deployment).failing, readings(deployment).failing_longest) == (0, {})


def test_a_disabled_subscription_waits_for_nothing(deployment: Deployment) -> None:
    """It wants no events: no alert may say that retention will take some. One that is paused waits."""
    world = deployment.world
    deployment.pause("https://one.example/b")
    world.settle_down()
    world.now += 6.0
    deployment.write(0, "b")
    world.settle_down()
    assert readings(deployment).behind == 1
    deployment.disable("https://one.example/b")
    world.now += 6.0
    world.settle_down()
    assert readings(deployment).behind == 0


def test_an_open_breaker_counts_until_it_could_long_have_been_probed(deployment: Deployment) -> None:
    """A subscription that was disabled or removed gets no probe, so that no result closes its breaker."""
    world = deployment.world
    deployment.write(0, "b")
    world.settle_down()
    (lane,) = world.worker.parts.lanes
    lane.breaker.trip(world.now, 60.0)
    world.settle_down()
    assert readings(deployment).breaker_open == 1
    world.now += 60.0 + MEMORY / 2
    world.settle_down()
    assert readings(deployment).breaker_open == 1
    world.now += MEMORY / 2
    world.settle_down()
    assert readings(deployment).breaker_open == 0


def test_only_the_longest_failing_subscriptions_are_shown(deployment: Deployment) -> None:
    """Twenty have a value each. The others are counted."""
    world, failing = deployment.world, deployment.world.worker.parts.failing
    world.settle_down()
    deployment.write(0, "b")
    world.settle_down()
    endpoint = next(iter(world.worker.parts.lanes)).endpoint
    for number in range(MOST_SHOWN + 5):
        failing.failed(replace(endpoint, subscription_id=number), world.worker.parts.clock() - 30 - number, ("msg_1",))
    now = readings(deployment)
    assert now.failing == MOST_SHOWN + 5
    assert list(now.failing_longest) == list(range(MOST_SHOWN + 4, 4, -1))
    world.now += SHOWN
    assert readings(deployment).failing == 0


def test_a_mark_that_another_worker_removes_begins_anew(deployment: Deployment) -> None:
    """The receiver has answered there, so it has not failed since the first mark."""
    world, failing = deployment.world, deployment.world.worker.parts.failing
    deployment.write(0, "b")
    world.settle_down()
    endpoint = next(iter(world.worker.parts.lanes)).endpoint
    failing.failed(replace(endpoint, failing_since=1000.0), 1100.0, ("msg_1",))
    assert failing.failing_since(1101.0) == {endpoint.subscription_id: 1000.0}
    assert failing.remembers(replace(endpoint, failing_since=None)), "so that its success removes the mark"
    failing.failed(replace(endpoint, failing_since=None), 1102.0, ("msg_1",))
    assert failing.failing_since(1103.0) == {endpoint.subscription_id: 1102.0}


def test_queues_show_the_wait_of_their_first_entry(engine: Engine) -> None:
    """Events wait for subscriptions, deliveries for a slot or for the database. An empty queue shows 0."""
    deployment = Deployment(engine, max_in_flight=1)
    world = deployment.world
    world.start(0)
    world.settle_down()
    assert readings(deployment).queue_ages == {"inbox": 0.0, "lanes": 0.0, "storing": 0.0}
    deployment.write(0, "b")
    deployment.write(0, "b")
    world.turn()
    world.now += 3
    assert readings(deployment).queue_ages["inbox"] == pytest.approx(3, abs=0.1)
    world.settle_down()
    world.now += 5
    ages = readings(deployment).queue_ages
    assert ages["inbox"] == 0
    assert ages["lanes"] > 5
    for _ in range(4):
        world.transport.answer(0, result("fails"))
        for _ in range(20):  # the database does not answer
            world.turn()
            world.now += 0.1
    assert readings(deployment).queue_ages["storing"] > 1
    world.settle_down()
    assert readings(deployment).queue_ages["storing"] == 0


def test_refused_rows_do_not_count_as_waiting_to_be_stored(deployment: Deployment) -> None:
    """`webhooks_set_aside` counts them. Otherwise one locked row would hide the wait of the others."""
    world = deployment.world
    deployment.database_fails("takes no rows")
    deployment.write(0, "b")
    world.settle_down()
    for _ in range(2):
        world.transport.answer(0, result("fails"))
        with capture_logs():
            world.settle_down(20)
    assert readings(deployment).set_aside == 1
    for _ in range(100):
        world.turn()
        world.now += 1
        assert readings(deployment).queue_ages["storing"] == 0


def test_the_database_shows_its_durations_errors_and_back_off(deployment: Deployment) -> None:
    """Each thread counts its jobs, and its failures by kind. The back-off grows, and a success ends it."""
    world = deployment.world
    world.settle_down()
    before = readings(deployment)
    assert set(before.database_backoff.values()) == {0.0}
    assert before.database_errors["storing"] == {}
    deployment.database_fails("no deliveries")
    deployment.write(0, "b")
    with capture_logs():
        world.settle_down()
        deployment.answer("fails", "fails", turns=20)
        world.settle_down(30)
    during = readings(deployment)
    assert during.database_errors["storing"]["unavailable"] > 1
    assert during.database_backoff["storing"] > 0.1
    assert during.database_backoff["lookups"] == 0
    assert not during.ready
    deployment.database_fails(None)
    with capture_logs():
        world.settle_down(60)
    after = readings(deployment)
    assert after.database_backoff["storing"] == 0
    assert after.database_errors["storing"] == during.database_errors["storing"]
    assert sum(after.database_seconds["storing"].counts) > after.database_errors["storing"]["unavailable"]
    assert after.ready


def test_a_long_turn_is_the_loops_lag(deployment: Deployment) -> None:
    """The work between two waits counts, not the waits."""
    world = deployment.world
    for _ in range(10):
        world.turn()
    lag = readings(deployment).loop_lag
    assert lag is not None
    assert lag.longest < 0.01
    world.now += 3  # as if a part took that long
    assert readings(deployment).turn_age == pytest.approx(3, abs=0.01)
    world.turn()
    assert lag.longest == pytest.approx(3, abs=0.01)
    assert readings(deployment).turn_age < 0.01


def test_an_idle_loops_wait_for_records_is_no_lag(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle loop delays no work."""
    world = deployment.world
    world.settle_down()
    lag, poll = readings(deployment).loop_lag, world.source.poll
    assert lag is not None
    before = lag.histogram.total
    asked: list[float] = []

    def patient(limit: int, timeout: float) -> list[Record]:
        asked.append(timeout)
        world.now += timeout
        return poll(limit, timeout)

    monkeypatch.setattr(world.source, "poll", patient)
    for _ in range(10):
        world.turn()
    assert sum(asked) > 0.5
    assert lag.histogram.total - before < 0.2  # the last step of `settle_down`
