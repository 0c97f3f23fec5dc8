"""Marks: rows made due are looked for, and a refusal is remembered until its offset is committed."""

from datetime import datetime

import pytest
from sqlalchemy import Engine

from consumer.events.event import RecordId
from consumer.ledger import admin, assigned, marks, ordering, replays, upkeep
from consumer.ledger.replays import Span
from consumer.ledger.rows import DueKey
from consumer.subscriptions import repository
from tests.faults import refusing
from tests.ledger.rows_kit import GROUP, URL, find, make_event, ordered, park, parked, query, run
from tests.oracle_emulator import OracleEmulator

REFUSED = RecordId("t", 0, 5, 1_700_000_000_000)


@pytest.fixture
def sub(engine: Engine) -> int:
    """A subscription with a stored delivery, whose due key is not marked."""
    number = repository.add(engine, URL, "user.created", ordering="key")
    park(engine, parked(make_event(1), number))
    assert marks.recent(engine, GROUP, None) == ({}, None)
    return number


def look(engine: Engine, *due_keys: tuple[str, int, int], group: str = GROUP) -> None:
    with engine.begin() as connection:
        marks.look(connection, group, due_keys)


def age(engine: Engine) -> None:
    """Sets the time of all marks far into the past."""
    text = "'2020-01-01 00:00:00.000000'" if engine.dialect.name == "sqlite" else "TIMESTAMP '2020-01-01 00:00:00'"
    run(engine, f"UPDATE webhook_marks SET marked_at = {text}")  # noqa: S608 (constants)


def since(engine: Engine) -> datetime | None:
    return marks.recent(engine, GROUP, None).until


def test_marks_are_read_with_their_counts(engine: Engine) -> None:
    """Marks are those of one group, and a repeated mark counts up."""
    look(engine, ("t", 0, 1), ("t", 0, 2))
    look(engine, ("t", 0, 1), ("u", 3, 1))
    look(engine, ("t", 0, 9), group="another")
    look(engine)
    marks.refused_since(engine, GROUP, REFUSED, 2, 1_700_000_000.0)
    seen = marks.recent(engine, GROUP, None)
    assert seen.due_keys == {("t", 0, 1): 2, ("t", 0, 2): 1, ("u", 3, 1): 1}
    assert seen.until is not None


def test_a_rivals_first_mark_is_counted_up(engine: Engine, emulator: OracleEmulator | None) -> None:
    """Neither sees the other's mark before its commit: the later one is refused (ORA-00001), and marks again.

    Its transaction goes on: the caller's changes before it stay.
    """
    with refusing(engine, emulator, "INSERT INTO webhook_marks", times=1) as refused, engine.begin() as connection:
        repository.add(connection, URL, "another")
        marks.look(connection, GROUP, [("t", 0, 1)])
    assert len(refused) == 1
    assert marks.recent(engine, GROUP, None).due_keys == {("t", 0, 1): 1}
    assert repository.find(engine, URL, ["another"]) is not None


def test_the_last_one_that_was_assigned_a_partition_owns_it(engine: Engine) -> None:
    """Each assignment counts up, in its group and partition, and however old the mark is."""
    here, there = ("t", 0), ("t", 1)
    assert [marks.own(engine, group, place) for group, place in ((GROUP, here), ("g", here), (GROUP, there))] == [1] * 3
    assert marks.own(engine, GROUP, here) == 2
    age(engine)
    marks.expire(engine, GROUP, 1_700_000_000.0)
    with engine.begin() as connection:
        owned = [(place, number) for place in (here, there) for number in range(4)]
        assert [each for each in owned if marks.is_owned(connection, GROUP, *each)] == [(here, 2), (there, 1)]
    assert assigned.with_rows(engine, GROUP, [here, there]) == set()
    assert marks.recent(engine, GROUP, None) == ({}, None)


def test_old_marks_are_not_read_again(engine: Engine) -> None:
    """A read returns marks since the last one, and of a minute before: a transaction may commit after a later one."""
    look(engine, ("t", 0, 1))
    age(engine)
    before = since(engine)
    assert marks.recent(engine, GROUP, before).due_keys == {("t", 0, 1): 1}
    look(engine, ("t", 0, 2))
    assert set(marks.recent(engine, GROUP, before).due_keys) == {("t", 0, 1), ("t", 0, 2)}
    assert set(marks.recent(engine, GROUP, since(engine)).due_keys) == {("t", 0, 2)}
    assert set(marks.recent(engine, GROUP, None).due_keys) == {("t", 0, 2)}, "a first read starts at the newest mark"


def test_rows_made_due_are_marked(engine: Engine, sub: int) -> None:
    """Redelivery, adoption, a replay, an enabled subscription and a repaired key mark what becomes due."""
    (row,) = find(engine)
    here, there = ("t", 0, sub), ("t", 1, sub)

    def marked(group: str = GROUP) -> dict[DueKey, int]:
        return marks.recent(engine, group, None).due_keys

    list(admin.redeliver(engine, admin.DeliveryQuery(ids=[row.id]), 100.0))
    assert marked() == {here: 1}
    for enabled in (False, True):  # held rows are not due
        repository.set_enabled(engine, sub, enabled=enabled)
        upkeep.reconcile(engine, 100.0)
        assert marked() == {here: 1 + enabled}
    replays.create(engine, GROUP, sub, 0.0, 9.0, None, 1.0, [Span("t", 1, 0, 9)], 100.0)
    assert marked() == {here: 2, there: 1}
    park(engine, ordered(5, sub), ordered(6, sub))
    run(engine, "UPDATE webhook_deliveries SET status = 'exhausted' WHERE record_offset = 5")
    ordering.repair(engine, GROUP, "t", 0, 100.0)
    assert marked() == {here: 3, there: 1}
    list(admin.adopt(engine, GROUP, "another", 100.0))
    assert marked("another") == {here: 1}


def test_since_when_a_delivery_is_refused_is_noted_once(engine: Engine) -> None:
    """The first time stays, whichever owner asks later. Another delivery, record or group has its own."""
    assert [marks.refused_since(engine, GROUP, REFUSED, 2, now) for now in (500.0, 900.0)] == [500.0, 500.0]
    others = [REFUSED._replace(offset=6), REFUSED._replace(partition=1), REFUSED._replace(topic="u")]
    assert [marks.refused_since(engine, GROUP, other, 2, 900.0) for other in others] == [900.0] * 3
    assert marks.refused_since(engine, GROUP, REFUSED, 3, 900.0) == 900.0
    assert marks.refused_since(engine, "another", REFUSED, 2, 900.0) == 900.0


def test_a_refusal_of_an_earlier_topics_record_is_another_ones(engine: Engine) -> None:
    """A topic that was deleted and made anew has other records at the same offsets."""
    assert marks.refused_since(engine, GROUP, REFUSED._replace(timestamp=400_000), 2, 500.0) == 500.0
    again = REFUSED._replace(timestamp=800_000)
    assert [marks.refused_since(engine, GROUP, again, 2, now) for now in (900.0, 950.0)] == [900.0, 900.0]


def test_a_refusal_is_forgotten_once_its_offset_is_committed(engine: Engine) -> None:
    """Before that, a restart would meet the delivery again. Other marks stay until they expire."""
    look(engine, ("t", 0, 2))
    for offset in (4, 5):
        marks.refused_since(engine, GROUP, REFUSED._replace(offset=offset), 2, 1_700_000_000.0)
    assert [marks.prune(engine, GROUP, *place, 5) for place in (("t", 1), ("u", 0), ("t", 0), ("t", 0))] == [0, 0, 1, 0]
    assert query(engine, "SELECT record_offset FROM webhook_marks ORDER BY record_offset") == [(-1,), (5,)]
    assert marks.expire(engine, GROUP, 1_600_000_000.0) == 0
    age(engine)
    assert marks.expire(engine, "another", 1_600_000_000.0) == 0
    assert marks.expire(engine, GROUP, 1_600_000_000.0) == 2
