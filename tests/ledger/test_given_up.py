"""Deliveries that were given up: which wait for the exhausted topic, and storing them again from there."""

import pytest
from sqlalchemy import Engine

from consumer.ledger import admin, given_up, rows, store, upkeep
from consumer.ledger.admin import DeliveryQuery
from consumer.subscriptions import repository
from models import Status
from tests.ledger.rows_kit import (
    GROUP,
    URL,
    counts,
    find,
    make_event,
    ordered,
    park,
    parked,
    query,
    result,
    run,
    states,
)


def waiting(engine: Engine, group: str = GROUP) -> list[int]:
    """The offsets of what the topic lacks."""
    return sorted(event.record.offset for _, event in given_up.unpublished(engine, group, 100))


def test_whatever_gives_a_delivery_up_lets_it_wait_for_the_topic(engine: Engine, sub: int) -> None:
    """From memory, from a row, and with its subscription. Adopted, it waits for the other group's workers."""
    gone = repository.add(engine, URL, "user.created")
    park(engine, *(parked(make_event(offset), sub) for offset in (1, 2)), parked(make_event(3), gone))
    park(engine, parked(make_event(4), sub, status="exhausted", next_attempt_at=None))
    (row, *_) = find(engine)
    store.record(engine, GROUP, [result(row, "exhausted")])
    repository.remove(engine, gone)
    upkeep.reconcile(engine, 1000.0)
    assert waiting(engine) == [1, 3, 4]
    list(admin.adopt(engine, GROUP, "another", 1000.0))
    assert (waiting(engine), waiting(engine, "another")) == ([], [1, 3, 4])


def test_one_that_was_sent_again_meanwhile_goes_on_waiting_once_it_is_given_up_again(engine: Engine, sub: int) -> None:
    """An acknowledgement counts for the attempts that the record had; a row that is due does not wait."""
    park(engine, parked(make_event(1), sub, status="exhausted", next_attempt_at=None))
    before = given_up.unpublished(engine, GROUP, 1)
    list(admin.redeliver(engine, DeliveryQuery(ids=[1]), 500.0))
    assert query(engine, "SELECT unpublished_by FROM webhook_deliveries") == [(None,)]
    (row,) = find(engine)
    store.record(engine, GROUP, [result(row, "exhausted")._replace(schedule_start=1)])
    given_up.note_published(engine, before)
    assert waiting(engine) == [1]
    given_up.note_published(engine, given_up.unpublished(engine, GROUP, 1))
    assert waiting(engine) == []


def test_only_what_the_topic_has_is_purged(engine: Engine, sub: int) -> None:
    """Old exhausted rows of the group, with payloads that nothing else needs."""
    for group, offsets in ((GROUP, (1, 2)), ("another", (3,))):
        park(engine, *(parked(make_event(each), sub, status="exhausted") for each in offsets), group=group)
        given_up.note_published(engine, given_up.unpublished(engine, group, 1))
    park(engine, parked(make_event(4), sub))
    assert upkeep.next_exhausted(engine, 1) == (2, 1001)
    assert upkeep.next_exhausted(engine, 3) is None, "the row that waits is passed"
    assert [given_up.purge(engine, GROUP, before, 1, 99) for before in (50.0, 5000.0)] == [0, 1]
    assert len(states(engine)) == 3
    assert query(engine, "SELECT COUNT(*) FROM webhook_payloads") == [(3,)]
    assert len(waiting(engine)) == 1


def test_a_row_that_an_older_release_gave_up_is_published_before_it_is_purged(engine: Engine, sub: int) -> None:
    """Nothing but the topic's answer lets a row be deleted: not that it names no group, nor an earlier record of it."""
    by_it = "SET status = 'exhausted', attempt = attempt + 1, unpublished_by = NULL WHERE id < 3"
    park(engine, *(parked(make_event(offset), sub) for offset in (1, 2)), parked(make_event(3), sub))
    for _ in range(2):  # it sends them again, and gives them up again
        run(engine, "UPDATE webhook_deliveries " + by_it)
        assert given_up.purge(engine, GROUP, 5000.0, 1, 99) == 0
        assert [given_up.owe(engine, GROUP, 1, 99) for _ in range(2)] == [2, 0]
        assert waiting(engine) == [1, 2]
        given_up.note_published(engine, given_up.unpublished(engine, GROUP, 9))
    assert given_up.purge(engine, GROUP, 5000.0, 1, 99) == 2
    assert states(engine) == {3: "parked"}


def test_a_row_that_cannot_be_read_does_not_stop_the_others(
    engine: Engine, sub: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the driver raises for it, the others are found, also if one look takes no more than it."""
    park(engine, *(parked(make_event(offset), sub, status="exhausted") for offset in (1, 2)))
    monkeypatch.setattr(admin, "event_of", lambda row: 1 // (row.record_offset - 1) and rows.event_of(row))
    assert waiting(engine) == [2]
    failed: set[int] = set()
    looks = [given_up.unpublished(engine, GROUP, 1, failed) for _ in range(2)]
    assert 2 in [event.record.offset for found in looks for _, event in found]
    run(engine, "UPDATE webhook_deliveries SET unpublished_by = NULL WHERE record_offset = 2")
    failed = {1}
    for left in (set(), {1}):
        assert not given_up.unpublished(engine, GROUP, 1, failed)
        assert failed == left


@pytest.mark.parametrize("state", [None, *Status])
def test_a_delivery_of_the_topic_is_stored_again_unless_it_has_a_row(engine: Engine, state: Status | None) -> None:
    """As exhausted, in its place among those of its key; none of a removed subscription. Repeated, it changes nothing.

    What waits or was delivered is left alone.
    """
    sub = repository.add(engine, URL, "user.created", ordering="key")
    row = ordered(1, sub, status="exhausted", next_attempt_at=None, attempt=4)
    if state is not None:
        park(engine, row)
        run(engine, "UPDATE webhook_deliveries SET next_attempt_at = created_at, status = :state", state=state.value)
    both = [row._replace(ordering_key=None), ordered(2, 999, status="exhausted")]
    wanted = [1] if state in {None, Status.EXHAUSTED} else []
    for _ in range(2):
        assert list(given_up.restore(engine, GROUP, both, 900.0).values()) == wanted
    assert given_up.purge(engine, GROUP, 899.0, 1, 99) == 0, "it is not old any more"
    assert waiting(engine) == [], "the topic has it"
    assert counts(engine) == {"parked" if state == Status.BLOCKED else state or "exhausted": 1}
    assert query(engine, "SELECT attempt, order_key FROM webhook_deliveries") == [
        (4, row.ordering_key and row.ordering_key.key)
    ]
