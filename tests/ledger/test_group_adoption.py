"""Moving a group's stored deliveries to another group."""

import pytest
from sqlalchemy import Engine

from consumer.ledger import admin, assigned, store, upkeep
from consumer.ledger.admin import Adopted
from tests.ledger.rows_kit import (
    GROUP,
    counts,
    find,
    losing_the_answer,
    make_event,
    offsets,
    ordered,
    parked,
    query,
    run,
    states,
)


def test_a_group_adopts_the_deliveries_of_another(engine: Engine, sub: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of all states and their payloads move in batches.

    A row that the new group already has stays with the old one.
    """
    monkeypatch.setattr(upkeep, "BATCH", 10)
    store.park(engine, "old", [parked(make_event(offset), sub) for offset in range(25)], 96.0)
    store.park(engine, "old", [parked(make_event(3), sub, replay=1)], 96.0)
    store.park(engine, GROUP, [parked(make_event(3, body=b"mine"), sub, 300.0)], 96.0)
    run(engine, "UPDATE webhook_deliveries SET status = 'exhausted' WHERE record_offset = 4")
    adopted = list(admin.adopt(engine, "old", GROUP, 200.0))
    assert adopted == [Adopted(9, 1), Adopted(10, 0), Adopted(6, 0)]
    assert sorted(offsets(find(engine))) == sorted([*(n for n in range(25) if n != 4), 3])
    assert counts(engine, "old") == {"parked": 1}
    assert query(engine, "SELECT group_id, count(*) FROM webhook_payloads GROUP BY group_id ORDER BY 1") == [
        ("old", 1),
        (GROUP, 25),
    ]
    assert [each for each in admin.adopt(engine, "old", GROUP, 200.0) if any(each)] == [Adopted(0, 1)]
    assert len(assigned.settled_keys(engine, GROUP, "t", 0, 0).keys) == 25


def test_an_adoption_moves_existing_rows(engine: Engine, sub: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """An adoption ends even if workers of the old group go on storing; rows stored meanwhile stay there."""
    monkeypatch.setattr(upkeep, "BATCH", 10)
    store.park(engine, "old", [parked(make_event(offset), sub) for offset in range(25)], 96.0)
    moved = []
    for batch in admin.adopt(engine, "old", GROUP, 200.0):
        moved.append(batch.moved)
        store.park(engine, "old", [parked(make_event(100 + len(moved) * 10 + n), sub) for n in range(10)], 96.0)
    assert moved == [10, 10, 5]
    assert counts(engine, "old") == {"parked": 30}


def test_adoption_keeps_the_order_of_keys(engine: Engine, sub: int) -> None:
    """Adopted rows and the group's own rows of a key are put in order together."""
    store.park(engine, "old", [ordered(offset, sub) for offset in (1, 2, 6)], 96.0)
    store.park(engine, GROUP, [ordered(5, sub)], 96.0)
    losing_the_answer(engine, lambda: list(admin.adopt(engine, "old", GROUP, 200.0)))
    list(admin.adopt(engine, "old", GROUP, 200.0))
    assert states(engine) == {1: "parked", 2: "blocked", 5: "blocked", 6: "blocked"}
    assert query(engine, "SELECT DISTINCT group_id FROM webhook_payloads") == [(GROUP,)]
