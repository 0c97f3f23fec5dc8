"""The account of memory: bytes held are counted once, and there is always room for one record."""

from hypothesis import given
from hypothesis import strategies as st

from consumer.delivery.known_rows import TakenUp
from consumer.delivery.limits import LARGEST, Memory
from tests.ledger.rows_kit import make_event

MOST = 8 * LARGEST
HEAD = ("t", 0, 1)

Step = tuple[str, int]


@given(st.lists(st.tuples(st.sampled_from(("hold", "release", "leave", "keep", "drop")), st.integers(0, 3))))
def test_held_bytes_add_up(steps: list[Step]) -> None:
    """A record counts until it is released or its assignment leaves. A shared body counts while it has a holder."""
    memory = Memory(MOST)
    partitions = [object() for _ in range(4)]
    things = [bytes(size) for size in (1, 20, 300, 4000)]
    records: dict[int, list[int]] = {}
    holders = [0] * 4
    for what, which in steps:
        if what == "hold":
            records.setdefault(which, []).append(which + 1)
            memory.hold(partitions[which], which + 1)
        elif what == "release":
            if records.get(which):
                records[which].pop()
            elif which in records:
                continue
            memory.release(partitions[which], which + 1)
        elif what == "leave":
            records.pop(which, None)
            memory.leave(partitions[which])
        elif what == "keep":
            holders[which] += 1
            memory.keep(things[which], len(things[which]))
        elif holders[which]:
            holders[which] -= 1
            memory.drop(things[which])
        shared = sum(len(thing) for thing, number in zip(things, holders, strict=True) if number)
        assert memory.held == sum(map(sum, records.values())) + shared


@given(st.integers(0, 20 * LARGEST))
def test_room(held: int) -> None:
    """Room is the number of largest records in three quarters of the limit, at least one; the rest is for requests."""
    memory = Memory(MOST)
    memory.hold("t[0]", held)
    left = 6 * LARGEST - held
    assert memory.room == (max(1, left // LARGEST) if left > 0 else 0)
    assert memory.full == (held >= MOST)
    memory.leave("t[0]")
    assert memory.room


def test_an_event_of_several_rows_counts_once() -> None:
    """Rows that were read together share their record's event. The last row to go frees it."""
    memory = Memory()
    rows, event = TakenUp(memory), make_event(body=bytes(1000))
    for row in (1, 2):
        rows.add(row, HEAD, event)
    rows.add(3, HEAD, make_event(body=bytes(1000)))
    assert (memory.held, set(rows)) == (2000, {1, 2, 3})
    assert [rows.remove(row) for row in (1, 3, 3)] == [HEAD, HEAD, None]
    assert memory.held == 1000
    assert rows.remove(2) == HEAD
    assert (memory.held, len(rows)) == (0, 0)
