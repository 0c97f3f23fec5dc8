"""Purging old ended deliveries and the payloads that only they needed, on each database."""

from collections.abc import Iterable
from threading import Thread

import pytest
from sqlalchemy import Engine, event

from consumer.ledger import admin, replays, store, upkeep
from consumer.ledger.admin import DeliveryQuery
from consumer.ledger.replays import Span
from consumer.ledger.upkeep import Purged
from consumer.subscriptions import repository
from models import Status
from tests.ledger.rows_kit import (
    GROUP,
    URL,
    losing_the_answer,
    make_event,
    park,
    parked,
    query,
    run,
    states,
)

OLD, CUT, NEW = 1000.0, 2000.0, 3000.0
ENDED = [Status.EXHAUSTED]


def keep(
    engine: Engine, sub: int, offsets: range, status: str = "exhausted", at: float = OLD, group: str = GROUP
) -> None:
    """Stores rows in a state, last changed at a given time."""
    park(engine, *(parked(make_event(offset), sub) for offset in offsets), group=group, now=at)
    changed = (
        "UPDATE webhook_deliveries SET status = :status WHERE record_offset BETWEEN :first AND :last AND group_id = :g"
    )
    run(engine, changed, status=status, first=offsets.start, last=offsets.stop - 1, g=group)


def total(steps: Iterable[Purged]) -> tuple[int, int]:
    """The deliveries and payloads of all steps."""
    done = list(steps)
    return sum(step.deliveries for step in done), sum(step.payloads for step in done)


def payloads(engine: Engine) -> list[int]:
    return [row[0] for row in query(engine, "SELECT record_offset FROM webhook_payloads ORDER BY record_offset")]


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes steps so small that few rows take several."""
    monkeypatch.setattr(upkeep, "BATCH", 4)


def test_only_rows_that_ended_long_ago_are_purged(engine: Engine, sub: int) -> None:
    """Open rows stay, however old, and so do those that ended lately. Delivered rows are purged only on request."""
    for number, status in enumerate(Status):
        keep(engine, sub, range(number * 10, number * 10 + 3), status)
    keep(engine, sub, range(90, 93), at=NEW)
    assert sum(len(rows) for rows in upkeep.ended_before(engine, ENDED, CUT)) == 3
    assert len(states(engine)) == 18
    assert total(upkeep.purge(engine, ENDED, CUT)) == (3, 3)
    left = states(engine)
    assert {status for offset, status in left.items() if offset < 90} == {"parked", "blocked", "held", "delivered"}
    assert [left[offset] for offset in range(90, 93)] == ["exhausted"] * 3
    assert payloads(engine) == sorted(left)
    assert total(upkeep.purge(engine, [Status.EXHAUSTED, Status.DELIVERED], CUT)) == (3, 3)
    assert {status for offset, status in states(engine).items() if offset < 90} == {"parked", "blocked", "held"}


@pytest.mark.parametrize("status", ["parked", "blocked", "held"])
def test_purging_open_states_is_refused(engine: Engine, status: str) -> None:
    """The function itself refuses, whoever calls it."""
    with pytest.raises(ValueError, match=status):
        list(upkeep.purge(engine, [Status.EXHAUSTED, Status(status)], CUT))


def test_a_payload_that_another_row_needs_stays(engine: Engine, sub: int) -> None:
    """A payload is deleted with its last row; another group has its own payload."""
    other = repository.add(engine, URL, "user.created")
    keep(engine, sub, range(2))
    store.park(engine, GROUP, [parked(make_event(0), other)], OLD)
    keep(engine, sub, range(2), group="another")
    assert total(upkeep.purge(engine, ENDED, CUT)) == (4, 3)
    assert query(engine, "SELECT group_id, record_offset FROM webhook_payloads") == [(GROUP, 0)]
    run(engine, "UPDATE webhook_deliveries SET status = 'exhausted'")
    assert total(upkeep.purge(engine, ENDED, CUT)) == (1, 1)
    assert payloads(engine) == []


def test_an_interrupted_purge_can_be_continued(engine: Engine, sub: int) -> None:
    """After an interruption, also by a lost answer, each remaining row has its payload, and another run goes on."""
    keep(engine, sub, range(10))
    keep(engine, sub, range(10, 12), at=NEW)
    losing_the_answer(engine, lambda: list(upkeep.purge(engine, ENDED, CUT)))
    assert sorted(states(engine)) == payloads(engine) == list(range(4, 12))
    assert total(upkeep.purge(engine, ENDED, CUT)) == (6, 6)
    assert sorted(states(engine)) == payloads(engine) == [10, 11]
    assert total(upkeep.purge(engine, ENDED, CUT)) == (0, 0)


def test_a_row_redelivered_meanwhile_stays(engine: Engine, sub: int) -> None:
    """A row redelivered between a step's read and its deletion is kept."""
    keep(engine, sub, range(3))
    (rows,) = upkeep.ended_before(engine, ENDED, CUT)
    assert [each.ids for each in admin.redeliver(engine, DeliveryQuery(ids=[rows[1].id]), NEW)]
    with engine.begin() as connection:
        assert upkeep._purge(connection, rows=rows, before=CUT) == (2, 2)
    assert states(engine) == {1: "parked"}
    assert payloads(engine) == [1]


def test_gaps_between_ids_are_jumped_over(engine: Engine, sub: int) -> None:
    """Ids are never reused, so a gap of millions costs no steps."""
    keep(engine, sub, range(2))
    run(engine, "UPDATE webhook_deliveries SET id = id + 1000000 WHERE record_offset = 1")
    assert [len(rows) for rows in upkeep.ended_before(engine, ENDED, CUT)] == [1, 1]


def test_old_replays_are_deleted(engine: Engine, sub: int) -> None:
    """Those that finished or were cancelled before the cut are deleted, with the cursors of cancelled ones."""

    def begin(at: float, *spans: Span) -> int:
        return replays.create(engine, GROUP, sub, 0.0, 1.0, None, 1.0, spans, at)

    span = Span("t", 0, 0, 9)
    old = begin(OLD), begin(OLD, span)
    new = begin(NEW), begin(OLD, span), begin(OLD, span)
    for number, at in ((old[1], OLD), (new[1], NEW)):
        replays.cancel(engine, number, at)
    assert upkeep.replays_ended_before(engine, CUT) == 2
    assert upkeep.purge_replays(engine, CUT) == 2
    left = [row[0] for row in query(engine, "SELECT id FROM webhook_replays ORDER BY id")]
    assert left == sorted(new)
    assert query(engine, "SELECT replay FROM webhook_cursors ORDER BY replay") == [(new[1],), (new[2],)]


def test_a_replay_that_is_resumed_during_a_purge_keeps_its_cursors(engine: Engine, sub: int) -> None:
    """Or it is deleted with them, and is not resumed: no replay is left that waits for cursors forever."""
    span = Span("t", 0, 0, 9)
    number = replays.create(engine, GROUP, sub, 0.0, 1.0, None, 1.0, [span], OLD)
    replays.cancel(engine, number, OLD)
    resumed: list[bool] = []
    resuming = Thread(target=lambda: resumed.append(replays.resume(engine, number)))

    @event.listens_for(engine, "after_cursor_execute")
    def deleted(_connection: object, _cursor: object, statement: str, *_more: object) -> None:
        if statement.startswith("DELETE") and resuming.ident is None:
            resuming.start()
            resuming.join(0.5)

    assert upkeep.purge_replays(engine, CUT) == 1
    resuming.join()
    assert resumed == [False]
    assert query(engine, "SELECT count(*) FROM webhook_replays") == [(0,)]
