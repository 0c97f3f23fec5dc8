"""Finding, redelivering and adopting stored deliveries."""

from collections import Counter
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event

from consumer.ledger import admin, assigned, store, upkeep
from consumer.ledger.admin import Adopted, DeliveryQuery, RedeliveryStep
from consumer.ledger.rows import AttemptFailure, AttemptResult
from consumer.ledger.search import progress
from consumer.subscriptions import repository
from tests.ledger.rows_kit import (
    BOOM,
    GROUP,
    URL,
    counts,
    find,
    losing_the_answer,
    make_event,
    offsets,
    ordered,
    park,
    parked,
    query,
    result,
    run,
    states,
)

NOW = 5000.0


def exhaust_all(engine: Engine) -> None:
    store.record(engine, GROUP, [result(row, "exhausted") for row in find(engine)])


def marked(engine: Engine, selection: DeliveryQuery, now: float = 5000.0) -> list[RedeliveryStep]:
    return list(admin.redeliver(engine, selection, now))


def test_stored_deliveries_are_found(engine: Engine, sub: int) -> None:
    """Deliveries are found by group, state, subscription, type and last change, a page at a time, ordered by id."""
    other = repository.add(engine, URL, "t")
    park(engine, *(parked(make_event(offset), sub) for offset in range(4)))
    park(engine, parked(make_event(9, type="t"), other), group="another")
    store.record(engine, GROUP, [result(find(engine)[2], "exhausted")])
    park(engine, parked(make_event(9), sub), now=60.0)
    for asked, expected in (
        (DeliveryQuery(), [1, 2, 3, 4, 5, 6]),
        (DeliveryQuery(group="another"), [5]),
        (DeliveryQuery(statuses=("exhausted", "held")), [3]),
        (DeliveryQuery(subscription=other), [5]),
        (DeliveryQuery(event_type="t"), [5]),
        (DeliveryQuery(group=GROUP, since=60.5), [1, 2, 3, 4]),
        (DeliveryQuery(since=60.0, until=96.0), [6]),
        (DeliveryQuery(since=2000.0), [3]),
        (DeliveryQuery(group=GROUP, until=2000.0), [1, 2, 4, 6]),
        (DeliveryQuery(group=GROUP, event_type="t"), []),
    ):
        assert [row.id for row in admin.find(engine, asked, limit=10)] == expected, asked
    assert [row.id for row in admin.find(engine, DeliveryQuery(), limit=2, after_id=1)] == [2, 3]


def test_a_delivery_is_shown_in_full(engine: Engine, sub: int) -> None:
    """A delivery is shown with its event, first and last failure and last answer; an unknown id gives None."""
    event = make_event(7, key=b"\x00k", body=b"\xff")
    store.park(engine, GROUP, [parked(event, sub, attempt=3)], 96.0)
    exhaust_all(engine)
    found = admin.detail(engine, 1)
    assert found is not None
    assert found.event == event
    shown = found.delivery
    assert (shown.group, shown.record, shown.subscription_id, shown.url) == (GROUP, event.record, sub, URL)
    assert (shown.status, shown.attempt, shown.next_attempt_at, shown.replay) == ("exhausted", 4, None, 0)
    assert (shown.first, shown.last) == (BOOM._replace(response=None), AttemptFailure("boom", 500, "sorry", 1999.0))
    assert (shown.event_type, shown.webhook_id, shown.updated_at) == ("user.created", "msg_7", 2000.0)
    assert admin.detail(engine, 2) is None


def test_redelivery_starts_a_new_schedule(engine: Engine, sub: int) -> None:
    """A redelivered row is due now. Its attempt number goes on, so that results of a zombie are recognised."""
    park(engine, *(parked(make_event(offset), sub, attempt=9) for offset in range(2)))
    (stale, _) = find(engine)
    exhaust_all(engine)
    assert marked(engine, DeliveryQuery(ids=[1, 77])) == [RedeliveryStep((1,), 0)]
    assert find(engine, 4999.0) == []
    (row,) = find(engine, 5000.0)
    assert (row.id, row.attempt, row.schedule_start) == (1, 10, 10)
    store.record(engine, GROUP, [result(stale, "delivered")])
    assert states(engine) == {0: "parked", 1: "exhausted"}
    losing_the_answer(engine, lambda: marked(engine, DeliveryQuery(ids=[1, 2])))
    assert marked(engine, DeliveryQuery(ids=[2, 1, 1])) == [RedeliveryStep((1, 2), 0)]


def test_a_row_attempted_meanwhile_is_not_marked(engine: Engine, sub: int) -> None:
    """A result that the owner writes between the read and the mark stands (SQLite excludes this case by its lock)."""
    store.park(engine, GROUP, [parked(make_event(0), sub, attempt=3)], 96.0)

    def attempt(connection: Connection, _: object, statement: str, *__: object) -> None:
        if statement.startswith("UPDATE webhook_deliveries"):
            cursor = connection.connection.cursor()
            cursor.execute("UPDATE webhook_deliveries SET attempt = 4")
            cursor.close()

    event.listen(engine, "before_cursor_execute", attempt)
    marked(engine, DeliveryQuery(ids=[1]))
    event.remove(engine, "before_cursor_execute", attempt)
    assert query(engine, "SELECT attempt, schedule_start FROM webhook_deliveries") == [(4, 0)]
    assert [row.attempt for row in find(engine, 200.0)] == [4]


def test_redelivery_marks_existing_rows_once(engine: Engine, sub: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes several transactions. Rows that are exhausted meanwhile, or again, are left to the next redelivery."""
    monkeypatch.setattr(upkeep, "BATCH", 10)
    park(engine, *(parked(make_event(offset), sub) for offset in range(25)))
    park(engine, parked(make_event(1), sub), group="another")
    exhaust_all(engine)
    steps: list[tuple[int, ...]] = []
    chosen = DeliveryQuery(group=GROUP, statuses=("exhausted",), event_type="user.created")
    for step in admin.redeliver(engine, chosen, 5000.0):
        steps.append(step.ids)
        run(engine, "UPDATE webhook_deliveries SET status = 'exhausted' WHERE group_id = :g", g=GROUP)
        later = (make_event(100 * len(steps) + number) for number in range(10))
        park(engine, *(parked(each, sub, status="exhausted") for each in later))
    assert [len(ids) for ids in steps] == [10, 10, 5]
    assert [row for ids in steps for row in ids] == list(range(1, 26))
    assert counts(engine, "another") == {"parked": 1}


def test_unsendable_rows_are_not_marked(engine: Engine) -> None:
    """Rows of removed subscriptions are only counted; those of disabled or paused ones are held, on a new schedule."""
    gone, off, paused, on = (repository.add(engine, URL, "user.created") for _ in range(4))
    park(engine, *(parked(make_event(number), number) for number in (gone, off, paused, on)))
    for row in find(engine):
        store.record(engine, GROUP, [result(row, "delivered" if row.endpoint.subscription_id == on else "exhausted")])
    repository.remove(engine, gone)
    repository.set_enabled(engine, off, enabled=False)
    repository.pause(engine, paused)
    assert marked(engine, DeliveryQuery()) == [RedeliveryStep((2, 3), 1, held=2)]
    assert states(engine) == {gone: "exhausted", off: "held", paused: "held", on: "delivered"}
    repository.set_enabled(engine, off, enabled=True)
    repository.resume(engine, paused)
    upkeep.reconcile(engine, 6000.0)
    assert [(row.attempt, row.schedule_start) for row in find(engine, 6000.0)] == [(2, 2)] * 2


def test_redelivery_keeps_the_order_of_keys(engine: Engine, sub: int) -> None:
    """A redelivered row goes before the later open rows of its key, and blocked rows keep their turn."""
    store.park(engine, GROUP, [ordered(offset, sub) for offset in range(4)], 96.0)
    for _ in range(2):
        store.record(engine, GROUP, [result(find(engine, 3000.0)[0], "exhausted")])
    assert states(engine) == {0: "exhausted", 1: "exhausted", 2: "parked", 3: "blocked"}
    assert marked(engine, DeliveryQuery()) == [RedeliveryStep((1, 2, 3), 0)]
    assert states(engine) == {0: "parked", 1: "blocked", 2: "blocked", 3: "blocked"}


def test_progress_counts_states(engine: Engine, sub: int) -> None:
    """Progress counts rows by state, and a pruned row counts as delivered."""
    park(engine, *(parked(make_event(offset), sub) for offset in range(4)))
    one, two, three, _ = find(engine)
    store.record(engine, GROUP, [result(one, "delivered"), result(two, "exhausted"), result(three, "delivered")])
    expected = Counter({"parked": 1, "exhausted": 1, "delivered": 2})
    assert progress(engine, [1, 2, 3, 4]) == expected
    upkeep.prune(engine, GROUP, "t", 0, 100)
    assert progress(engine, [1, 2, 3, 4]) == expected
    assert progress(engine, []) == Counter()


@pytest.mark.parametrize(
    ("status", "next_at", "after"),
    [
        ("exhausted", None, ("parked", 4, 4, NOW)),
        ("parked", NOW + 300.0, ("parked", 4, 4, NOW)),
        ("delivered", None, ("delivered", 4, 3, None)),
    ],
)
def test_an_attempt_under_way_does_not_swallow_a_redelivery(
    engine: Engine, status: Any, next_at: float | None, after: tuple[object, ...]
) -> None:
    """An attempt under way counts, and the new schedule starts behind it. If it succeeds, nothing is sent again."""
    sub = repository.add(engine, URL, "user.created")
    store.park(engine, GROUP, [parked(make_event(1), sub)._replace(attempt=3)], 500.0)
    assert [each.ids for each in marked(engine, DeliveryQuery(ids=[1]), NOW)] == [(1,)]
    failure = None if status == "delivered" else AttemptFailure("status 503", 503, None, NOW + 1)
    code = 200 if status == "delivered" else 503
    for _ in range(2):  # the first answer may be lost
        store.record(engine, GROUP, [AttemptResult(1, 3, status, next_at, code, failure, NOW + 1)])
        (row,) = admin.find(engine, DeliveryQuery(), limit=1)
        assert (row.status, row.attempt, row.schedule_start, row.next_attempt_at) == after


def test_a_group_adopts_the_deliveries_of_another(engine: Engine, sub: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of all states and their payloads move, in steps. A row that the new group already has stays."""
    monkeypatch.setattr(upkeep, "BATCH", 10)
    park(engine, *(parked(make_event(offset), sub) for offset in range(25)), group="old")
    park(engine, parked(make_event(3), sub, replay=1), group="old")
    park(engine, parked(make_event(3, body=b"mine"), sub, 300.0))
    run(engine, "UPDATE webhook_deliveries SET status = 'exhausted' WHERE record_offset = 4")
    assert list(admin.adopt(engine, "old", GROUP, 200.0)) == [Adopted(9, 1), Adopted(10, 0), Adopted(6, 0)]
    assert sorted(offsets(find(engine))) == sorted([*(n for n in range(25) if n != 4), 3])
    assert counts(engine, "old") == {"parked": 1}
    payloads = query(engine, "SELECT group_id, count(*) FROM webhook_payloads GROUP BY group_id ORDER BY 1")
    assert payloads == [("old", 1), (GROUP, 25)]
    assert [each for each in admin.adopt(engine, "old", GROUP, 200.0) if any(each)] == [Adopted(0, 1)]
    assert len(assigned.settled_keys(engine, GROUP, "t", 0, 0).keys) == 25


def test_adoption_keeps_the_order_of_keys(engine: Engine, sub: int) -> None:
    """Adopted rows and the group's own rows of a key are put in order together."""
    store.park(engine, "old", [ordered(offset, sub) for offset in (1, 2, 6)], 96.0)
    store.park(engine, GROUP, [ordered(5, sub)], 96.0)
    losing_the_answer(engine, lambda: list(admin.adopt(engine, "old", GROUP, 200.0)))
    list(admin.adopt(engine, "old", GROUP, 200.0))
    assert states(engine) == {1: "parked", 2: "blocked", 5: "blocked", 6: "blocked"}
    assert query(engine, "SELECT DISTINCT group_id FROM webhook_payloads") == [(GROUP,)]
