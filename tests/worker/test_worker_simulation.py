"""The worker in a simulated world: specific orders of records, answers and rebalances."""

from itertools import count
from typing import Any

import orjson
import pytest
from sqlalchemy import Engine
from structlog.testing import capture_logs

from consumer.crypto.vault import Vault
from consumer.intake.offsets import decode as settled_above
from consumer.matching.inbox import MOST_EVENTS
from consumer.ops.changes import Changes
from consumer.ops.changes import Deployment as ChangedDeployment
from consumer.worker.ownership import STORED_ALONE
from consumer.worker.polling import PAUSE_AFTER
from tests.ledger.rows_kit import query, run
from tests.simulation.deployment import ORDERED, URLS, Deployment, result
from tests.simulation.watch import Watch
from tests.simulation.world import TOPIC


def fail_until_due(deployment: Deployment) -> None:
    """A delivery fails twice and is stored. Half a minute later it is sent again."""
    world = deployment.world
    deployment.write(0, "b")
    world.settle_down()
    deployment.answer("fails", "fails", turns=20)
    world.now += 30
    world.settle_down()
    assert len(world.transport.open) == 1


def test_without_room_partitions_are_paused_and_still_polled(deployment: Deployment) -> None:
    """After being full for a second, they are paused once. With room they are resumed, and no record is lost."""
    world = deployment.world
    world.settle_down(2)
    for _ in range(MOST_EVENTS + 10):
        deployment.write(0, "nobody")
    for _ in range(8):  # no look-up is answered, so the inbox fills
        world.turn()
    assert world.worker.parts.inbox.room == 0
    assert world.source.pauses == 0
    world.now += PAUSE_AFTER
    for _ in range(3):
        world.turn()
    assert (world.source.paused, world.source.pauses) == (True, 1)
    world.settle_down()
    assert not world.source.paused
    assert world.committed[TOPIC, 0] == (MOST_EVENTS + 10, "")


def test_a_record_is_held_until_its_dead_letter_is_acknowledged(deployment: Deployment) -> None:
    """Later records are settled above the mark. With the acknowledgement, the mark passes all of them."""
    world = deployment.world
    world.dead_letters.door_open = False
    for kind in ("nobody", "bad", "nobody"):
        deployment.write(0, kind)
    world.settle_down()
    mark, metadata = world.committed[TOPIC, 0]
    assert (mark, settled_above(mark, metadata)) == (1, [(2, 3)])
    world.dead_letters.door_open = True
    world.settle_down()
    assert world.committed[TOPIC, 0] == (3, "")


def test_a_bug_of_a_decoder_makes_a_dead_letter_of_its_record(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a record would end one worker after the other. The log shows the place in the code, and no payload."""
    loads, calls = orjson.loads, count()

    def failing(text: bytes) -> Any:
        if next(calls) == 1:
            raise RuntimeError(f"{text!r}gy payload")
        return loads(text)

    monkeypatch.setattr(orjson, "loads", failing)
    with capture_logs() as logs:
        for _ in range(3):
            deployment.write(0, "nobody")
        deployment.world.settle_down()
    assert deployment.world.buried == {((TOPIC, 0), 1)}
    assert deployment.world.committed[TOPIC, 0] == (3, "")
    failed, undecodable = (entry for entry in logs if "decod" in entry["event"])
    assert (undecodable["reason"], undecodable["record"]) == ("error", failed["record"])
    assert "in failing" in failed["exception"]
    assert "payload" not in str((failed["error"], undecodable["error"]))


def test_answers_of_a_lost_assignment_settle_nothing_in_the_next(deployment: Deployment) -> None:
    """The earlier assignment's deliveries do not count in the later one."""
    world = deployment.world
    deployment.write(0, "b")
    world.settle_down()
    world.transport.answer(0, result("taken"))
    world.source.lose(0)
    world.source.assign([0])
    world.settle_down()
    assert (TOPIC, 0) not in world.committed
    assert len(world.transport.open) == 1
    deployment.answer("taken")
    assert world.committed[TOPIC, 0] == (1, "")


def test_the_rest_of_a_partly_sent_record_is_stored(deployment: Deployment) -> None:
    """One of two receivers has it when the partition leaves. The other delivery is stored and the record committed."""
    world = deployment.world
    deployment.write(0, "a")
    world.settle_down()
    world.transport.answer(0, result("taken"))
    world.transport.answer(0, result("fails"))
    world.turn()
    assert (TOPIC, 0) not in world.committed
    world.on_wait = world.run_jobs
    world.source.revoke(0)
    assert world.committed[TOPIC, 0] == (1, "")
    assert [(url, row.status) for (_, url), row in deployment.rows().items()] == [(URLS["a"][1], "parked")]


def test_a_row_whose_result_is_not_written_yet_is_not_sent_again(deployment: Deployment) -> None:
    """Its partition leaves and returns while the database answers reads but not writes. The attempt counts."""
    world = deployment.world
    fail_until_due(deployment)
    deployment.database_fails("takes no results")
    world.on_wait = world.run_jobs
    world.source.revoke(0)
    world.on_wait = lambda: None
    world.source.assign([0])
    world.settle_down()
    assert world.transport.open == []
    deployment.database_fails(None)
    for _ in range(5):
        world.now += 10
        world.settle_down()
    assert len(world.transport.open) == 1
    deployment.answer("taken")
    assert deployment.statuses() == ["delivered"]
    assert len(world.sent) == 4


@pytest.mark.parametrize("restart", [False, True])
def test_events_for_a_forbidden_address_are_sent_once_the_address_changes(
    deployment: Deployment, *, restart: bool
) -> None:
    """Offsets move on. About one request a minute tests the address, and is no attempt, also after a crash."""
    world = deployment.world
    for number in (0, 1, 1):
        deployment.write(number, "b")
    looks = 0
    for second in range(900):
        world.settle_down(2)
        while world.transport.open:
            looks += 1
            deployment.answer("refused", turns=2)
        world.now += 1.0
        if restart and second == 450:
            world.start(0, 1)
    assert 15 <= looks <= 40
    assert world.committed == {(TOPIC, 0): (1, ""), (TOPIC, 1): (2, "")}
    assert [(row.status, row.attempt) for row in deployment.rows().values()] == [("parked", 0)] * 3
    world.now += 61.0
    for _ in range(30):
        world.settle_down(4)
        while world.transport.open:
            world.transport.answer(0, result("taken"))
        world.now += 1.0
    assert len(world.taken) == len(set(world.taken)) == 3
    assert {(row.status, row.attempt) for row in deployment.rows().values()} <= {("delivered", 1)}


def open_batch(deployment: Deployment) -> None:
    """Two events of partition 0 and one of partition 1 are in one open request."""
    world = deployment.world
    for number in (0, 1, 0):
        deployment.write(number, "c")
    world.settle_down()
    assert len(world.transport.open) == 1
    assert len(world.sent) == 3


@pytest.mark.parametrize(("leaving", "staying"), [(0, 1), (1, 0)])
def test_a_batch_goes_on_when_some_of_its_deliveries_leave(deployment: Deployment, leaving: int, staying: int) -> None:
    """These are stored as attempted and sent from the database. The others are sent once, whichever is the first."""
    world = deployment.world
    open_batch(deployment)
    number = {0: 2, 1: 1}  # number of events by partition
    world.on_wait = world.run_jobs
    world.source.revoke(leaving)
    assert len(world.transport.open) == world.worker.parts.lanes.slots.in_flight == 1
    rows = deployment.rows().values()
    assert [(row.place, row.attempt, row.status) for row in rows] == [((TOPIC, leaving), 1, "parked")] * number[leaving]
    assert world.committed == {(TOPIC, leaving): (number[leaving], "")}
    deployment.answer("taken", turns=20)
    assert world.committed[TOPIC, staying] == (number[staying], "")
    assert len(world.sent) == 3
    world.source.assign([leaving])
    world.settle_down(20)
    assert len(world.sent) == 3 + number[leaving]
    deployment.answer("taken", turns=5)
    assert set(deployment.statuses()) == {"delivered"}


def test_no_attempt_of_a_lost_partition_is_written(deployment: Deployment) -> None:
    """Stored deliveries are in one open batch. Only the results of the remaining partition are written."""
    world = deployment.world
    open_batch(deployment)
    for seconds in (1.0, 31.0):
        deployment.answer("fails", turns=3)
        world.now += seconds
        world.settle_down()
    assert (len(world.transport.open), len(world.sent)) == (1, 9)
    world.source.lose(0)
    deployment.answer("taken", turns=5)
    assert sorted((row.place, row.attempt, row.status) for row in deployment.rows().values()) == [
        ((TOPIC, 0), 2, "parked"),
        ((TOPIC, 0), 2, "parked"),
        ((TOPIC, 1), 3, "delivered"),
    ]


def test_stored_deliveries_wait_briefly_for_their_partitions_records(deployment: Deployment) -> None:
    """Sent alone, repeated failures would make the receiver look dead. But Kafka may be silent for hours."""
    world = deployment.world
    deployment.write(0, "b")
    for seconds in (20, 40):
        world.settle_down()
        deployment.answer("fails", turns=seconds)
    world.stop()
    world.now += 60
    world.silent = True
    world.start(0)
    world.settle_down(int(STORED_ALONE * 10) - 2)
    assert world.transport.open == []
    world.settle_down(6)
    assert len(world.transport.open) == 1


def test_a_partition_that_is_not_open_does_not_hold_others_up(deployment: Deployment) -> None:
    """Its position or its stored rows are unknown for now. Events of other partitions are sent meanwhile."""
    world = deployment.world
    world.settle_down(2)
    world.source.revoke(1)
    world.silent = True
    world.source.assign([1])
    for number in (1, 0):
        deployment.write(number, "a")
    world.settle_down()
    assert [place for place, _ in map(deployment.offsets.__getitem__, dict(world.sent))] == [(TOPIC, 0)]
    world.silent = False
    world.source.tell(world.source.partitions[TOPIC, 1])
    for _ in range(5):  # the database does not answer
        world.turn()
        world.now += 1.1
    deployment.write(0, "a")
    for thread in ("lookups",) * 3:
        world.turn()
        world.run_job(thread)
    world.turn()
    assert len({deployment.offsets[each] for each, _ in world.sent}) == 2
    assert any("no answer for" in reason for reason in world.worker.reasons())
    world.settle_down()
    assert world.worker.reasons() == []
    assert (TOPIC, 1) in {deployment.offsets[each][0] for each, _ in world.sent}


def test_answers_for_a_leaving_partition_do_not_open_it(deployment: Deployment) -> None:
    """Neither Kafka's answer nor the database's does. When it is assigned again, both are requested anew."""
    world = deployment.world
    world.settle_down(2)
    world.source.revoke(1)
    world.source.assign([1])
    partition = world.source.partitions[TOPIC, 1]
    world.turn()  # handles Kafka's answer
    world.on_wait = world.run_jobs  # the database's answer comes during the drain
    world.source.revoke(1)
    world.settle_down(2)
    assert not partition.opened
    assert (TOPIC, 1) not in world.worker.parts.inbox._stored


@pytest.mark.parametrize("stopping", [False, True])
def test_a_bug_leaves_the_group(deployment: Deployment, monkeypatch: pytest.MonkeyPatch, *, stopping: bool) -> None:
    """A bug in the loop or in the drain: other members get the partitions at once, and send the open events."""
    world = deployment.world
    deployment.write(0, "b")
    world.settle_down()
    if stopping:
        world.worker.stop()
    monkeypatch.setattr(world.dead_letters, "poll", lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        world.worker.run()
    assert world.source.partitions == {}
    assert world.committed == {}


def test_an_event_too_large_for_a_filter_is_given_up_visibly(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it was wanted is unknown. It does not disappear, and can be sent again."""
    world = deployment.world
    run(deployment.engine, "UPDATE webhook_subscriptions SET event_filter = 'data == 1' WHERE event_type = 'b'")
    monkeypatch.setattr("consumer.expressions.expression.MOST_READ", 0)
    deployment.write(0, "b")
    deployment.write(0, "nobody")
    world.settle_down()
    assert world.sent == []
    (row,) = query(deployment.engine, "SELECT status, attempt, last_error FROM webhook_deliveries")
    assert tuple(row) == ("exhausted", 1, "filter: the event is too large for this expression")
    assert world.committed[TOPIC, 0] == (2, "")
    assert [each.type for each in world.announced] == ["delivery.exhausted"]
    assert world.metrics.events == {"matched": 1, "unmatched": 1}


def test_a_row_read_before_an_earlier_one_of_its_key_was_stored_waits_for_that(engine: Engine) -> None:
    """The read of due rows was under way, and its answer, which lacks the earlier row, comes after the write's."""
    deployment = Deployment(engine, (ORDERED,))
    world = deployment.world
    Watch(deployment)
    world.start(0)
    deployment.write(0, "x")
    world.settle_down()
    deployment.answer("fails", "fails", turns=20)
    deployment.obstruct("locked", "{0}.record_offset = 1")
    for _ in range(2):
        deployment.write(0, "x")
    world.settle_down()
    world.now += 30
    world.settle_down()
    deployment.answer("taken", turns=2)
    assert [(row.offset, row.status) for row in deployment.rows().values()] == [(0, "delivered"), (2, "parked")]
    deployment.obstruct(None)
    world.now += 60
    world.turn()
    assert world.jobs["storing"]
    while world.worker.parts.parking.due_keys:  # until the row behind it is being read
        world.run_job("taking-up")
        world.now += 0.1
        world.turn()
    while len(world.jobs["taking-up"]) > 1:
        world.run_job("taking-up")
    world.run_job_slowly("taking-up", ["storing"])
    for offset in (1, 2):
        world.settle_down(20)
        assert deployment.offsets[world.sent[-1][0]] == ((TOPIC, 0), offset)
        world.transport.answer(0, result("taken"))
    world.settle_down(20)
    assert set(deployment.statuses()) == {"delivered"}


def test_a_partition_assigned_during_a_stop_starts_nothing(deployment: Deployment) -> None:
    """Its requests would be cancelled at the close and not be counted. They are the next owner's."""
    world = deployment.world
    deployment.write(0, "b")
    deployment.write(1, "b")
    world.settle_down()
    for _ in range(2):
        world.transport.answer(1, result("fails"))
        world.settle_down(20)
    world.now += 29
    asked = [lambda: world.source.assign([1]), lambda: world.source.revoke(1)]

    def serve() -> None:
        if asked:
            asked.pop()()
        world.now += 0.1
        world.run_jobs()

    world.on_serve = serve
    before = len(world.sent)
    world.stop()
    assert not asked
    assert world.sent[before:] == []
    world.on_serve = lambda: None
    world.start(0, 1)
    world.settle_down()
    assert [deployment.offsets[each][0] for each, _ in world.sent[before:]].count((TOPIC, 1)) == 1


def test_more_connections_are_kept_than_there_are_slots(deployment: Deployment) -> None:
    """Otherwise, with more receivers than slots, each request would open a connection."""
    world = deployment.world
    assert world.transport.max_connections > world.delivery.max_in_flight


def test_offsets_are_committed_four_times_a_second(deployment: Deployment) -> None:
    """Each commit costs a request to Kafka; the deliveries since the last one come again after a crash."""
    world = deployment.world
    world.settle_down()
    begin, before = world.now, world.source.commits.total
    while world.now < begin + 1.0:
        deployment.write(0, "nobody")
        world.turn()
        world.run_jobs()
        world.now += 0.02
    assert 2 < world.source.commits.total - before <= 5


def test_a_resumed_subscription_need_not_wait_for_its_turn(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever resumes it asks the owner of its cursors to look: with thousands of idle cursors, a turn takes long."""
    world = deployment.world
    (number,) = (number for number, url in deployment.subscriptions.items() if url in URLS["b"])
    by_user = Changes(ChangedDeployment(deployment.engine, "g", Vault()), "cli:someone")
    by_user.pause(number)
    world.settle_down()
    deployment.write(0, "b")
    world.settle_down()
    monkeypatch.setattr("consumer.worker.cursor_looks.EVERY", 1e9)
    assert [(each.next, each.end) for each in deployment.cursors()] == [(0, None)]
    assert not world.transport.open
    by_user.resume(number)
    world.settle_down(80)
    deployment.answer("taken")
    assert [(each.next, each.end) for each in deployment.cursors()] == [(1, 1)]
