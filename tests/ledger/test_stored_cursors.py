"""Cursors in the database: begun once, moved by their owner alone, removed with their subscription."""

import pytest
from sqlalchemy import Engine, update

from consumer.ledger import backlogs, cursors, marks, replays
from consumer.ledger.backlogs import OwedPart
from consumer.ledger.cursors import CursorMove, KeptCursor, NewCursor
from consumer.ledger.replays import Span
from consumer.ledger.rows import time_of
from consumer.subscriptions import repository
from models import CursorReason, StoredCursor
from tests.ledger.rows_kit import GROUP, URL, losing_the_answer, make_event, park, parked, run

RUNS = "w2::7:" + "A" * 3000


def begin(engine: Engine, subscription: int, first: int = 5, partition: int = 0, **more: object) -> None:
    cursor = NewCursor(("t", partition, subscription), first, CursorReason.PAUSED)
    cursors.begin(engine, GROUP, [cursor._replace(**more)], 100.0)  # type: ignore[arg-type]  # a test's shorthand


def of(engine: Engine, group: str, partition: int) -> list[KeptCursor]:
    return cursors.of_partition(engine, group, ("t", partition))


def here(engine: Engine) -> list[KeptCursor]:
    return of(engine, GROUP, 0)


def test_a_cursor_is_read_as_it_was_begun(engine: Engine, sub: int) -> None:
    """A cursor has settled nothing when it begins; those of other partitions and groups are not read."""
    begin(engine, sub, timestamp=1_700, identity="topic")
    begin(engine, sub, partition=1)
    cursors.begin(engine, "other", [NewCursor(("t", 0, sub), 9, CursorReason.START)], 100.0)
    (kept,) = here(engine)
    assert kept == KeptCursor(kept.id, ("t", 0, sub), 0, CursorReason.PAUSED, 5, 5, None, "", 1_700, "topic", 0)
    assert cursors.of_due_keys(engine, GROUP, {("t", 0, sub), ("t", 9, sub)}) == [kept]


def test_a_repeated_beginning_changes_nothing(engine: Engine, sub: int) -> None:
    """After a lost answer the cursor is begun again: it keeps the position that it has reached meanwhile."""
    new = [NewCursor(("t", 0, sub), 5, CursorReason.BEHIND)]
    losing_the_answer(engine, lambda: cursors.begin(engine, GROUP, new, 100.0))
    (kept,) = here(engine)
    assert not cursors.save(engine, [CursorMove(kept.id, 0, 8, None, "", None)], 101.0)
    cursors.begin(engine, GROUP, new, 102.0)
    assert [(each.first, each.next) for each in here(engine)] == [(5, 8)]


def test_a_beginning_names_the_cursors_that_another_owner_has_changed(engine: Engine, sub: int) -> None:
    """One that was moved or ended, or has another end; not one that stands as it would begin, nor a replay's."""
    new = [NewCursor(("t", 0, sub), first, CursorReason.BEHIND) for first in (5, 50, 60, 70, 80)]
    assert cursors.begin(engine, GROUP, new[1:4], 100.0) == frozenset()
    begin(engine, sub, first=70, replay=1, end=75)
    begin(engine, sub, first=80, end=90)
    ended, moved, _ = (each for each in here(engine) if not each.replay and each.first < 80)
    moves = [CursorMove(ended.id, 0, 50, 55, "", None), CursorMove(moved.id, 0, 62, None, "", None)]
    assert not cursors.save(engine, moves, 101.0)
    assert cursors.begin(engine, GROUP, new, 102.0) == {(("t", 0, sub), first) for first in (50, 60, 80)}
    replays_own = [each._replace(replay=1) for each in new]
    assert cursors.begin(engine, GROUP, replays_own, 103.0) == frozenset()
    found = [(each.first, each.next, each.end) for each in here(engine) if not each.replay]
    assert found == [(5, 5, None), (50, 50, 55), (60, 62, None), (70, 70, None), (80, 80, 90)]


@pytest.mark.parametrize("runs", ["", RUNS])
def test_an_owner_moves_its_cursors(engine: Engine, sub: int, runs: str) -> None:
    """A save stores position, end, settled runs and the next record's time, of several cursors at once."""
    begin(engine, sub)
    begin(engine, sub, first=50)
    first, second = here(engine)
    moves = [CursorMove(first.id, 0, 7, 50, runs, 1_800, 90.5), CursorMove(second.id, 0, 60, None, "", None)]
    assert not cursors.save(engine, moves, 101.0)
    assert here(engine) == [
        first._replace(next=7, end=50, runs=runs, timestamp=1_800, version=1, expires=90.5),
        second._replace(next=60, version=1),
    ]


def test_a_save_names_the_topic_of_a_cursor_that_does_not_know_it(engine: Engine, sub: int) -> None:
    """Another process has begun it without Kafka; a topic that is made anew under this name then drops it."""
    begin(engine, sub)
    begin(engine, sub, first=50, identity="old")
    moves = [CursorMove(each.id, 0, 50, 50, "", None, identity="topic") for each in here(engine)]
    assert not cursors.save(engine, moves, 101.0)
    moves = [each._replace(version=1, next=51, end=51, identity=None) for each in moves]
    assert not cursors.save(engine, moves, 102.0)
    assert [each.identity for each in here(engine)] == ["topic", "old"]


def test_a_zombie_moves_nothing(engine: Engine, sub: int) -> None:
    """A worker that lost the partition names an old version: the new owner's row stays, and the save names it."""
    begin(engine, sub)
    begin(engine, sub, first=50)
    mine, other = here(engine)
    move = CursorMove(mine.id, 0, 20, None, "", None)
    assert not cursors.save(engine, [move], 101.0)
    stale = [move._replace(next=9, end=9), CursorMove(other.id, 0, 51, None, "", None)]
    assert cursors.save(engine, stale, 102.0) == {mine.id}
    assert [(each.next, each.end, each.version) for each in here(engine)] == [(20, None, 1), (51, None, 1)]
    cursors.remove(engine, [other.id])
    assert cursors.save(engine, [stale[1]._replace(version=1)], 103.0) == {other.id}


def test_two_owners_do_not_both_store_a_position(engine: Engine, sub: int) -> None:
    """The same position and end are another owner's all the same: only the one that wrote them goes on from there."""
    begin(engine, sub)
    (kept,) = here(engine)
    mine, others = (CursorMove(kept.id, 0, 20, 30, "", None, assignment=number) for number in (7, 8))
    assert not cursors.save(engine, [mine], 101.0)
    assert cursors.save(engine, [others], 102.0) == {kept.id}
    assert not cursors.save(engine, [mine], 103.0)
    assert [each.version for each in here(engine)] == [7]


def test_a_repeated_save_is_no_zombies(engine: Engine, sub: int) -> None:
    """After a lost answer the same save finds what it has written itself."""
    begin(engine, sub)
    (kept,) = here(engine)
    move = [CursorMove(kept.id, 0, 20, 30, "", None)]
    losing_the_answer(engine, lambda: cursors.save(engine, move, 101.0))
    assert not cursors.save(engine, move, 102.0)
    assert here(engine) == [kept._replace(next=20, end=30, version=1)]


def test_a_cursor_that_covers_nothing_makes_way(engine: Engine, sub: int) -> None:
    """It ended where it began, and a new one begins there. Any other one at that place stays as it is."""
    begin(engine, sub)
    begin(engine, sub, first=50)
    empty, other = here(engine)
    cursors.save(engine, [CursorMove(empty.id, 0, 5, 5, "", None), CursorMove(other.id, 0, 50, 51, "", None)], 101.0)
    begin(engine, sub, reason=CursorReason.BEHIND)
    begin(engine, sub, first=50, reason=CursorReason.BEHIND)
    found = [(each.first, each.end, each.reason, each.version) for each in here(engine)]
    assert found == [(5, None, CursorReason.BEHIND, 0), (50, 51, CursorReason.PAUSED, 1)]
    assert empty.id not in {each.id for each in here(engine)}


def test_a_cursor_of_an_earlier_topic_makes_way(engine: Engine, sub: int) -> None:
    """A topic that was made anew has other records at these offsets. One that does not know its topic stays."""
    begin(engine, sub, identity="old")
    begin(engine, sub, first=50)
    for first in (5, 50):
        begin(engine, sub, first=first, identity="new", timestamp=9)
    begin(engine, sub, timestamp=10)
    assert [(each.first, each.identity, each.timestamp) for each in here(engine)] == [(5, "new", 9), (50, None, None)]


def test_the_stored_deliveries_of_due_keys_are_found(engine: Engine, sub: int) -> None:
    """Rows in any state, from the lowest position on: after a crash, it does not know of them. Also behind an end."""
    begin(engine, sub, first=7)
    cursors.begin(engine, GROUP, [NewCursor(("t", 0, sub), 8, CursorReason.REPLAY, 9, replay=4)], 100.0)
    park(engine, parked(make_event(6), sub), parked(make_event(9), sub, replay=4))
    park(engine, parked(make_event(7), sub), parked(make_event(8), sub, replay=4))
    park(engine, parked(make_event(9, partition=1), sub))
    park(engine, parked(make_event(6), sub), group="other")
    run(engine, "UPDATE webhook_deliveries SET status = 'delivered' WHERE record_offset = 7")
    due_keys = [("t", 0, sub), ("t", 2, sub)]
    assert cursors.stored(engine, GROUP, due_keys) == {
        due_keys[0]: {(0, 7, 1_700_000_000_007), (4, 8, 1_700_000_000_008), (4, 9, 1_700_000_000_009)},
        due_keys[1]: set(),
    }
    assert cursors.stored(engine, GROUP, []) == {}


def test_finished_cursors_below_the_committed_offset_are_pruned(engine: Engine, sub: int) -> None:
    """Before that a restart reads what they have covered. Unfinished ones, others' and those of replays stay."""
    for first in (10, 20, 30, 40):
        begin(engine, sub, first=first, end=first + 5)
    begin(engine, sub, first=50)
    begin(engine, sub, first=10, end=15, replay=7, reason=CursorReason.REPLAY)
    begin(engine, sub, first=10, end=15, partition=1)
    cursors.begin(engine, "other", [NewCursor(("t", 0, sub), 10, CursorReason.PAUSED, 15)], 100.0)
    ended = [each for group in (GROUP, "other") for place in (0, 1) for each in of(engine, group, place)]
    moves = [CursorMove(each.id, 0, each.end, each.end, "", None) for each in ended if each.end and each.first != 30]
    assert not cursors.save(engine, moves, 101.0)
    assert [cursors.prune(engine, GROUP, ("t", 0), committed) for committed in (14, 44, 44, 45)] == [0, 2, 0, 1]
    assert [(each.first, each.replay) for each in here(engine)] == [(10, 7), (30, 0), (50, 0)]
    assert [len(of(engine, *place)) for place in ((GROUP, 1), ("other", 0))] == [1, 1]


def test_cursors_end_with_their_subscription(engine: Engine, sub: int) -> None:
    """Cursors are removed one by one, or by plain SQL with their subscription."""
    begin(engine, sub)
    begin(engine, sub, first=50)
    assert cursors.remove(engine, [here(engine)[0].id]) == 1
    assert [each.first for each in here(engine)] == [50]
    run(engine, "DELETE FROM webhook_subscriptions WHERE id = :id", id=sub)
    assert not here(engine)


def test_a_subscription_is_owed_what_its_unfinished_cursors_cover(engine: Engine, sub: int) -> None:
    """They are listed by place, of all groups and within a limit; other subscriptions' and finished ones are not."""
    begin(engine, sub, partition=1, timestamp=1_700_500)
    with engine.begin() as connection:
        connection.execute(update(StoredCursor).values(expires_at=time_of(9000.0)))
    begin(engine, sub, end=9, replay=3, reason=CursorReason.REPLAY)
    (paused,) = of(engine, GROUP, 1)
    assert not cursors.save(engine, [CursorMove(paused.id, 0, 5, None, "", 1_700_500, 2000.25)], 101.0)
    begin(engine, sub, first=40, end=40)
    begin(engine, repository.add(engine, URL, "a"))
    cursors.begin(engine, "other", [NewCursor(("u", 0, sub), 9, CursorReason.START)], 100.0)
    owed = [
        OwedPart(GROUP, "t", 0, CursorReason.REPLAY, 3, 5, 9, None, None),
        OwedPart(GROUP, "t", 1, CursorReason.PAUSED, 0, 5, None, 1700.5, 2000.25),
        OwedPart("other", "u", 0, CursorReason.START, 0, 9, None, None, None),
    ]
    assert backlogs.of_subscription(engine, sub, 9) == owed
    assert backlogs.of_subscription(engine, sub, 2) == owed[:2]


def test_a_cancelled_replay_owes_nothing(engine: Engine, sub: int) -> None:
    """Its cursors stay, for a resumption; then the subscription is owed their events again."""
    replay = replays.create(engine, GROUP, sub, 0.0, 1.0, None, 1.0, [Span("t", 0, 3, 9)], 100.0)
    assert [each.replay for each in backlogs.of_subscription(engine, sub)] == [replay]
    replays.cancel(engine, replay, 101.0)
    assert backlogs.of_subscription(engine, sub) == []
    replays.resume(engine, replay)
    assert [each.replay for each in backlogs.of_subscription(engine, sub)] == [replay]


def test_a_cursor_covers_the_offsets_that_it_owes(engine: Engine, sub: int) -> None:
    """Not those below its position or from its end on; a replay's cursor covers none."""
    begin(engine, sub, end=9)
    begin(engine, sub, first=20, reason=CursorReason.BEHIND)
    begin(engine, sub, first=9, end=20, replay=3, reason=CursorReason.REPLAY)
    run(engine, "UPDATE webhook_cursors SET next_offset = 6 WHERE first_offset = 5")

    def covered(*offsets: int, group: str = GROUP, partition: int = 0) -> list[dict[int, CursorReason]]:
        return [backlogs.covering(engine, group, ("t", partition), offset, [sub, 99]) for offset in offsets]

    assert covered(5, 6, 8, 9, 19) == [{}, {sub: CursorReason.PAUSED}, {sub: CursorReason.PAUSED}, {}, {}]
    assert covered(20, 10**9) == [{sub: CursorReason.BEHIND}] * 2
    assert covered(20, group="other") == covered(20, partition=1) == [{}]


def test_another_group_takes_cursors_over(engine: Engine, sub: int) -> None:
    """They keep their positions, get a new version, and are to be looked at; one that the group has too is deleted."""
    begin(engine, sub)
    begin(engine, sub, first=50)
    cursors.begin(engine, "new", [NewCursor(("t", 0, sub), 50, CursorReason.BEHIND)], 100.0)
    assert (backlogs.count(engine, GROUP), backlogs.count(engine, "new")) == (2, 1)
    assert backlogs.adopt(engine, GROUP, "new") == 1
    found = [(each.first, each.reason, each.version) for each in cursors.of_partition(engine, "new", ("t", 0))]
    assert found == [(5, CursorReason.PAUSED, 1), (50, CursorReason.BEHIND, 0)]
    assert here(engine) == []
    assert list(marks.recent(engine, "new", None).due_keys) == [("t", 0, sub)]
