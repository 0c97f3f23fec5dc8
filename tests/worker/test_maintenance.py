"""Maintenance: which worker tidies which rows, and jumps of the system clock, apart from drift and passing time."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine

from consumer.intake.topics import GONE_AFTER
from consumer.ledger import cursors, store
from consumer.ledger.cursors import NewCursor
from consumer.worker.maintenance import JUMP, TIDY_EVERY, ClockWatch
from models import CursorReason
from tests.ledger.rows_kit import make_event, parked, query, run
from tests.simulation.deployment import URLS, Deployment, result
from tests.simulation.world import TOPIC

GONE = "gone"  # a topic


@pytest.fixture
def deployment(engine: Engine) -> Deployment:
    """Two partitions, and no worker yet."""
    return Deployment(engine)


def minutes(deployment: Deployment, number: int) -> Iterator[None]:
    """Time for this many rounds of housekeeping. Kafka's list of topics comes every half a minute."""
    world = deployment.world
    for _ in range(number):
        world.worker.parts.topics.learn({TOPIC: len(world.log)}, world.now)
        world.now += TIDY_EVERY
        world.settle_down()
        yield


def pass_by(deployment: Deployment, number: int) -> None:
    """Let minutes pass."""
    for _ in minutes(deployment, number):
        continue


def left(deployment: Deployment) -> list[tuple[str, int, str]]:
    """Topic, offset and status of the stored rows."""
    sql = "SELECT topic, record_offset, status FROM webhook_deliveries ORDER BY topic, record_offset"
    return [tuple(row) for row in query(deployment.engine, sql)]


def keep_delivered(deployment: Deployment, offset: int) -> None:
    """A row of partition 0 that a worker has delivered."""
    store.park(deployment.engine, "g", [parked(make_event(offset), 1)], 1.0)
    run(deployment.engine, "UPDATE webhook_deliveries SET status = 'delivered'")


def test_delivered_rows_of_a_deleted_topic_are_pruned(deployment: Deployment) -> None:
    """No committed offset will ever pass them. Another worker, or this one before its update, delivered them."""
    world = deployment.world
    store.park(deployment.engine, "g", [parked(make_event(9, topic=GONE, partition=3), 1)], 1.0)
    run(deployment.engine, "UPDATE webhook_deliveries SET status = 'delivered'")
    store.park(deployment.engine, "g", [parked(make_event(offset, topic=GONE), 1) for offset in (1, 2)], 1.0)
    world.start(0, 1)
    world.settle_down()
    sent = False
    for _ in minutes(deployment, int(GONE_AFTER // TIDY_EVERY) + 4):
        while world.transport.open:
            world.transport.answer(0, result("taken"))
            sent = True
        world.settle_down()
    assert sent
    assert left(deployment) == []
    assert query(deployment.engine, "SELECT count(*) FROM webhook_payloads") == [(0,)]
    pass_by(deployment, 1)
    assert world.worker.parts.ownership.adopted == {}


def test_cursors_of_a_deleted_topic_are_given_up(deployment: Deployment) -> None:
    """Nobody can read their events any more: that is told, and their rows are deleted."""
    world = deployment.world
    owed = [NewCursor((GONE, 3, 1), 5, CursorReason.PAUSED), NewCursor((GONE, 3, 2), 5, CursorReason.BEHIND, 9)]
    cursors.begin(deployment.engine, "g", owed, 1.0)
    world.start(0, 1)
    pass_by(deployment, int(GONE_AFTER // TIDY_EVERY) + 4)
    assert cursors.of_partition(deployment.engine, "g", (GONE, 3)) == []
    told = [dict(each.data) for each in world.announced if each.type == "subscription.events_lost"]
    assert [(each["subscription_id"], each["first_offset"], each["end_offset"]) for each in told] == [
        (1, 5, 6),  # how many it was owed is not known
        (2, 5, 9),
    ]
    pass_by(deployment, 1)
    assert world.worker.parts.ownership.adopted == {}


def test_a_worker_that_no_longer_leads_gives_up_rows_of_deleted_topics(deployment: Deployment) -> None:
    """The new leader sends them. The request that is open counts as an attempt of unknown outcome."""
    world = deployment.world
    store.park(deployment.engine, "g", [parked(make_event(1, topic=GONE), 1)], 1.0)
    world.start(0, 1)
    world.settle_down()
    for _ in minutes(deployment, int(GONE_AFTER // TIDY_EVERY) + 4):
        if world.transport.open:
            break
    assert len(world.transport.open) == 1
    world.on_wait = world.run_jobs
    world.source.revoke(0)
    assert world.transport.open == []
    assert world.worker.parts.ownership.adopted == {}
    sql = "SELECT status, attempt, last_error FROM webhook_deliveries"
    ((status, attempts, error),) = query(deployment.engine, sql)
    assert (status, attempts) == ("parked", 2)
    assert "its outcome is unknown" in error


def test_a_recreated_topic_keeps_rows_that_a_restart_would_read(deployment: Deployment) -> None:
    """Its partition is assigned here before the next answer ends the adoption."""
    world = deployment.world
    deployment.write(0, "nobody")
    keep_delivered(deployment, 5)
    world.start(0, 1)
    world.settle_down()
    world.worker.parts.ownership.adopted = {(TOPIC, 0): None}
    pass_by(deployment, 2)
    assert left(deployment) == [(TOPIC, 5, "delivered")]


def test_a_topic_that_cannot_be_read_does_not_prevent_tidying_others(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """KAFKA_TOPICS names a topic that does not exist. The worker reports it meanwhile, and makes its commits."""
    world = deployment.world
    for _ in range(3):
        deployment.write(0, "nobody")
    keep_delivered(deployment, 1)
    world.start(0, 1)
    monkeypatch.setattr(world.source, "fault", "another: Broker: Unknown topic or partition")
    pass_by(deployment, 3)
    assert world.committed[TOPIC, 0] == (3, "")
    assert left(deployment) == []


def test_rows_of_uncommitted_records_are_kept(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit round is unanswered, so a restart would read the records above the committed offset."""
    world = deployment.world
    for _ in range(3):
        deployment.write(0, "nobody")
    keep_delivered(deployment, 1)
    world.start(0, 1)
    with monkeypatch.context() as patch:
        patch.setattr(world.source, "commit", lambda: 0.5)
        pass_by(deployment, 3)
        assert left(deployment) == [(TOPIC, 1, "delivered")]
    pass_by(deployment, 2)
    assert left(deployment) == []


def test_a_finished_cursor_leaves_memory_and_database(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stays until the offsets that it has covered are committed: until then a restart would send them again."""
    world = deployment.world
    (url,) = URLS["b"]
    deployment.pause(url)
    world.start(0, 1)
    with monkeypatch.context() as patch:
        patch.setattr(world.source, "commit", lambda: 0.5)
        deployment.write(0, "b")
        world.settle_down()
        deployment.resume_all()
        world.now += 6.0
        world.settle_down()
        deployment.answer("taken", turns=20)
        pass_by(deployment, 3)
        assert [(each.next, each.end) for each in deployment.cursors()] == [(1, 1)]
    pass_by(deployment, 3)
    assert deployment.cursors() == []
    assert world.worker.parts.backlog.of((TOPIC, 0)) == {}


def test_one_worker_follows_subscriptions_and_counts_rows(deployment: Deployment) -> None:
    """It is the owner of the lowest partition. The others report no count, also after they have led."""
    world = deployment.world
    deployment.disable(deployment.subscriptions[1])
    far = [parked(make_event(offset, partition=1), 2, 9e9) for offset in (4, 5)]
    store.park(deployment.engine, "g", [parked(make_event(3, partition=1), 1, 9e9), *far], 1.0)
    world.start(1)
    pass_by(deployment, 2)
    assert {status for _, _, status in left(deployment)} == {"parked"}
    assert world.worker.readings().parked == 0
    world.source.assign([0])
    pass_by(deployment, 2)
    assert [status for _, _, status in left(deployment)] == ["held", "parked", "parked"]
    assert world.worker.readings().parked == 2
    world.source.revoke(0)
    world.settle_down()
    assert world.worker.readings().parked == 0


# The system clock.

DURATIONS = st.floats(0, 86400)


class Clocks:
    """Both clocks of a machine."""

    def __init__(self) -> None:
        self.wall, self.monotonic = 1_700_000_000.0, 50.0
        self.watch = ClockWatch(lambda: self.wall, lambda: self.monotonic)

    def pass_by(self, seconds: float, *, set_by: float = 0.0) -> float | None:
        """Let time pass, set the clock meanwhile, and check it."""
        self.wall += seconds + set_by
        self.monotonic += seconds
        return self.watch.jump()


@pytest.mark.parametrize(
    ("by", "text"),
    [(-3600.0, "went back by 3600 s: stored deliveries"), (7.5, "went forward by 8 s: stored deliveries")],
)
def test_a_jump_is_reported_once_and_is_a_fault_for_a_minute(by: float, text: str) -> None:
    """The next check reports it with its sign. The fault says what it means and what to do, and ends by itself."""
    clocks = Clocks()
    assert (clocks.pass_by(1.0), clocks.watch.fault) == (None, None)
    assert clocks.pass_by(1.0, set_by=by) == pytest.approx(by)
    assert text in (clocks.watch.fault or "")
    assert "check NTP" in (clocks.watch.fault or "")
    assert clocks.pass_by(59.0) is None
    assert clocks.watch.fault is not None
    assert clocks.pass_by(1.1) is None
    assert clocks.watch.fault is None


@given(st.lists(st.tuples(DURATIONS, st.floats(-JUMP + 0.01, JUMP - 0.01))))
def test_slewing_is_no_jump(looks: list[tuple[float, float]]) -> None:
    """However long the time between two checks is, and however large the sum of small steps."""
    clocks = Clocks()
    assert all(clocks.pass_by(seconds, set_by=by) is None for seconds, by in looks)
    assert clocks.watch.fault is None
