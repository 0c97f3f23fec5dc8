"""A cursor's position: contiguous, the same after a restart, and never past an event that is not settled."""

from hypothesis import given
from hypothesis import strategies as st

from consumer.delivery.cursors import Cursor
from consumer.intake.offsets import decode
from consumer.ledger.cursors import KeptCursor
from models import CursorReason

KEPT = KeptCursor(7, ("t", 0, 1), 0, CursorReason.BEHIND, 10, 10, None, "", None, None)


def test_the_live_stream_leaves_what_a_cursor_covers() -> None:
    """From its first offset on, and below its end once that is known; a replay takes nothing from the live stream."""
    cursor = Cursor(KEPT)
    assert [cursor.covers(offset) for offset in (9, 10, 10**9)] == [False, True, True]
    cursor.meet(20)
    assert [cursor.covers(offset) for offset in (19, 20)] == [True, False]
    assert not Cursor(KEPT._replace(replay=3)).covers(10)


def test_deliveries_wait_for_their_cursor_to_be_stored() -> None:
    """Nothing that is left to a cursor is settled before the database has it."""
    settled: list[int] = []
    cursor = Cursor(KEPT, stored=False)
    cursor.leave(lambda: settled.append(10))
    assert not settled
    cursor.is_stored()
    cursor.leave(lambda: settled.append(11))
    assert settled == [10, 11]


def test_a_position_is_saved_once() -> None:
    """A save names the position that it replaces; the next one begins when it is stored, and tells the end too."""
    cursor = Cursor(KEPT)
    assert cursor.begin_save() is None
    cursor.passed(15)
    first = cursor.begin_save()
    assert first is not None
    assert (first.before, first.next, first.end) == (10, 15, None)
    cursor.meet(15)
    assert cursor.begin_save() is None
    cursor.end_save()
    assert cursor.ending
    end = cursor.begin_save()
    assert end is not None
    assert (end.before, end.next, end.end) == (15, 15, 15)
    cursor.end_save()
    assert not cursor.ending
    assert cursor.finished


steps = st.lists(st.tuples(st.integers(1, 30), st.booleans(), st.booleans()), max_size=60)


@given(steps)
def test_a_restart_takes_what_was_not_settled_and_nothing_else(steps: list[tuple[int, bool, bool]]) -> None:
    """Whatever was taken, skipped and settled: the saved position claims the settled events, and only these."""
    cursor = Cursor(KEPT)
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
    again = Cursor(KEPT._replace(next=move.next, runs=move.runs))
    assert again.read_to == move.next <= min(owed - settled, default=offset + 1)
    taken = {each for each in sorted(owed) if each >= move.next and again.take(each, 0)}
    assert taken == owed - settled
    assert all(stop <= cursor.read_to for _, stop in decode(move.next, move.runs))
