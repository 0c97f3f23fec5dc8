"""A cursor's position: contiguous, the same after a restart, and never past an event that is not settled."""

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from consumer.delivery.cursors import Cursor, Left
from consumer.delivery.delivery import OpenRecord
from consumer.intake.offsets import decode
from consumer.ledger.cursors import CursorMove, KeptCursor, NewCursor
from consumer.ledger.rows import OrderingKey
from consumer.subscriptions.endpoint import Endpoint
from models import CursorReason
from tests.ledger.rows_kit import URL, make_event

KEPT = KeptCursor(7, ("t", 0, 1), 0, CursorReason.BEHIND, 10, 10, None, "", None, None, 3)


def uncounted(_deliveries: int) -> None:
    """How many deliveries wait does not matter here."""


def test_the_live_stream_leaves_what_a_cursor_covers() -> None:
    """From its first offset on, and below its end once that is known; a replay takes nothing from the live stream."""
    cursor = Cursor(KEPT, uncounted)
    assert [cursor.covers(offset) for offset in (9, 10, 10**9)] == [False, True, True]
    cursor.meet(20)
    assert [cursor.covers(offset) for offset in (19, 20)] == [True, False]
    assert not Cursor(KEPT._replace(replay=3), uncounted).covers(10)


def left(settled: list[int], offset: int) -> Left:
    """A delivery of this offset, of a record without others."""
    return Left(make_event(offset), Endpoint(1, URL, (b"key",)), OpenRecord(settled.append, offset, 1))


def test_deliveries_wait_for_a_new_cursor_to_be_stored() -> None:
    """Nothing that is left to a cursor is settled before the database has it."""
    settled: list[int] = []
    cursor = Cursor.new(NewCursor(("t", 0, 1), 10, CursorReason.BEHIND), uncounted)
    cursor.leave(left(settled, 10))
    assert (settled, cursor.stored, cursor.begin_save()) == ([], False, None)
    cursor.confirm()
    cursor.leave(left(settled, 11))
    assert settled == [10, 11]


def test_a_loaded_cursor_is_confirmed_by_its_next_owner() -> None:
    """An earlier owner may still be about to end it: nothing that is left to it settles before a save of this one."""
    settled: list[int] = []
    cursor = Cursor(KEPT, uncounted)
    cursor.leave(left(settled, 10))
    assert (settled, cursor.begin_save()) == ([], CursorMove(7, 3, 10, None, "", 1_700_000_000_010))
    cursor.end_save()
    cursor.leave(left(settled, 11))
    assert settled == [10, 11]
    assert cursor.begin_save() is None


def test_a_position_is_saved_once() -> None:
    """A save names the version that it replaces; the next one begins when it is stored, and tells the end too."""
    cursor = Cursor(KEPT, uncounted)
    assert cursor.begin_save() is None
    cursor.passed(15)
    assert cursor.begin_save() == CursorMove(7, 3, 15, None, "", None)
    cursor.meet(15)
    assert cursor.begin_save() is None
    cursor.end_save()
    assert cursor.ending
    assert not cursor.finished
    assert cursor.begin_save() == CursorMove(7, 4, 15, 15, "", None)
    cursor.end_save()
    assert not cursor.ending
    assert cursor.finished


def test_a_cursor_that_went_astray_does_not_move() -> None:
    """Another owner has moved it: no save overwrites that before its row is read again."""
    cursor = Cursor(KEPT, uncounted)
    cursor.passed(15)
    cursor.astray = True
    assert cursor.begin_save() is None


def test_a_stored_delivery_is_not_sent_again() -> None:
    """After a crash its row is there, but not in the position: it is skipped; another record of that offset is not."""
    cursor = Cursor(KEPT, uncounted)
    assert not cursor.knows_rows
    cursor.has_rows({(10, 500), (11, 500)})
    assert cursor.knows_rows
    assert [cursor.take(offset, timestamp) for offset, timestamp in ((10, 500), (11, 999), (12, 500))] == [
        False,
        True,
        True,
    ]
    assert (cursor.next, cursor.open) == (11, 2)


def test_a_position_says_when_its_next_event_expires() -> None:
    """It is saved once that is known, or has changed, though the cursor rests; while it is not known, it stays.

    It is rounded down to ten minutes, so that the index on it changes with few positions.
    """
    cursor = Cursor(KEPT._replace(timestamp=5_000, expires=30.0), uncounted)
    assert cursor.begin_save() is None
    cursor._expires = 0.0
    assert cursor.begin_save(25.0) is None
    for retention, expires in ((6000.0, 6000.0), (inf, None)):
        move = cursor.begin_save(retention)
        assert move is not None
        assert (move.timestamp, move.expires) == (5_000, expires)
        cursor.end_save()
    cursor.take(10, 7_000)
    move = cursor.begin_save(7000.0)
    assert move is not None
    assert (move.timestamp, move.expires) == (7_000, 6600.0)


steps = st.lists(st.tuples(st.integers(1, 30), st.booleans(), st.booleans()), max_size=60)


@given(steps)
def test_a_restart_takes_what_was_not_settled_and_nothing_else(steps: list[tuple[int, bool, bool]]) -> None:
    """Whatever was taken, skipped and settled: the saved position claims the settled events, and only these."""
    cursor = Cursor(KEPT, uncounted)
    offset, owed, settled = 10, set[int](), set[int]()
    for gap, wanted, ends in steps:
        offset += gap
        if wanted:
            assert cursor.take(offset, 1_000 + offset)
            owed.add(offset)
            if ends:
                cursor.settle(offset)
                settled.add(offset)
        else:
            cursor.passed(offset)
    move = cursor.begin_save()
    if move is None:
        assert not settled
        return
    again = Cursor(KEPT._replace(next=move.next, runs=move.runs), uncounted)
    assert again.read_to == move.next <= min(owed - settled, default=offset + 1)
    taken = {each for each in sorted(owed) if each >= move.next and again.take(each, 0)}
    assert taken == owed - settled
    assert all(stop <= cursor.read_to for _, stop in decode(move.next, move.runs))


@given(st.lists(st.tuples(st.sampled_from(["take", "hold", "skip", "settle", "back"]), st.integers(0, 9))))
def test_what_is_passed_by_comes_again_and_nothing_else(steps: list[tuple[str, int]]) -> None:
    """Whatever is on its way or settles meanwhile: each event is taken once, and a restart takes what has not settled.

    What a cursor holds is no sign of progress: others are settled above it.
    """
    cursor = Cursor(KEPT, uncounted)
    key = OrderingKey(1, "t", 0, "k")
    seen, skipped, on_their_way, settled = set[int](), set[int](), list[int](), set[int]()
    for what, number in [*steps, ("back", 0), *[("take", 0)] * len(steps), *[("settle", 0)] * 2 * len(steps)]:
        offset = cursor.read_to
        if what == "settle" and on_their_way:
            cursor.settle(chosen := on_their_way.pop(number % len(on_their_way)))
            settled.add(chosen)
        elif what == "back" and cursor.held:
            first = min(cursor.held.values())
            cursor.go_back()
            assert (cursor.read_to, cursor.held) == (first, {})
        elif (what == "skip" and offset not in seen) or offset in skipped:
            skipped.add(offset)
            cursor.passed(offset + 1)
        elif what == "hold":
            seen.add(offset)
            cursor.hold(offset, offset, key)
        elif what == "take":
            taken = cursor.take(offset, offset)
            assert taken == (offset not in settled and offset not in on_their_way)
            seen.add(offset)
            on_their_way += [offset] * taken
        owed = seen - settled
        kept = cursor.kept()
        assert cursor.open == len(on_their_way)
        assert kept.next <= min(owed, default=inf)
        runs = decode(kept.next, kept.runs)
        claimed = {each for each in seen if each < kept.next or any(start <= each < stop for start, stop in runs)}
        assert claimed == settled
    assert seen == settled
