"""Pauses by failure in the database: who probes what and when, and what a successful probe changes."""

from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import Engine, select, update

from consumer.ledger import cursors, due, marks, outbox, pauses, store, upkeep
from consumer.ledger.cursors import NewCursor
from consumer.ledger.pauses import Probe
from consumer.ledger.rows import DueKey, time_of
from consumer.subscriptions import repository
from models import CursorReason, Subscription
from tests.crypto.vaults import in_the_clear
from tests.ledger.rows_kit import (
    DEFAULT,
    GROUP,
    URL,
    counts,
    losing_the_answer,
    make_event,
    operation,
    ordered,
    park,
    parked,
    query,
    result,
    run,
    statements,
)

HERE = frozenset({("t", 0), ("t", 1)})
PAUSED, HOUR = 5000.25, 3600.0


def pause(engine: Engine, sub: int) -> datetime:
    upkeep.failing(engine, sub, 1000.0)
    assert pauses.pause(engine, GROUP, sub, "it fails", PAUSED, failing_before=2000.0, url=URL)
    with engine.connect() as connection:
        paused_at = connection.scalar(select(Subscription.paused_at).where(Subscription.id == sub))
    assert paused_at is not None
    return paused_at


def claim(engine: Engine, now: float = PAUSED + HOUR, partitions: frozenset[tuple[str, int]] = HERE) -> list[Probe]:
    found = pauses.claim(engine, GROUP, partitions, now, HOUR)
    assert found.end is None
    return list(found.probes)


def places(engine: Engine, probes: list[Probe]) -> list[tuple[DueKey, int | None]]:
    """Each probe's due key, and the offset of its row."""
    offsets = dict(tuple(row) for row in query(engine, "SELECT id, record_offset FROM webhook_deliveries"))
    return [(each.due_key, None if each.row is None else offsets[each.row]) for each in probes]


def begin(engine: Engine, sub: int, first: int, partition: int = 0, replay: int = 0) -> None:
    reason = CursorReason.REPLAY if replay else CursorReason.PAUSED
    new = NewCursor(("t", partition, sub), first, reason, first + 1 if replay else None, replay)
    cursors.begin(engine, GROUP, [new], 100.0)


def test_one_probe_in_each_interval_and_group(engine: Engine, sub: int) -> None:
    """It is of a held row, an hour after the pause or the last probe; whoever comes second gets none."""
    park(engine, parked(make_event(3), sub))
    paused_at = pause(engine, sub)
    assert counts(engine) == {"held": 1}
    assert not claim(engine, PAUSED + HOUR - 1)
    (probe,) = claim(engine)
    assert probe == Probe(paused_at, ("t", 0, sub), probe.row)
    assert places(engine, [probe]) == [(("t", 0, sub), 3)]
    assert not claim(engine, PAUSED + 2 * HOUR - 1)
    assert len(claim(engine, PAUSED + 2 * HOUR)) == 1


def test_one_of_two_workers_that_look_at_once_claims(engine: Engine, sub: int) -> None:
    """The other one has looked before, and is late."""
    park(engine, parked(make_event(3), sub))
    pause(engine, sub)
    owed = pauses._owed
    with pytest.MonkeyPatch.context() as patch:

        def slowly(*call: Any) -> Any:
            found = owed(*call)
            patch.undo()
            assert len(claim(engine)) == 1
            return found

        patch.setattr(pauses, "_owed", slowly)
        assert not claim(engine, PAUSED + HOUR + 1)


def test_only_what_is_owed_here_is_probed(engine: Engine, sub: int) -> None:
    """A worker with none of its partitions, or of another group, leaves the probe to others."""
    park(engine, parked(make_event(3), sub))
    begin(engine, sub, 9)
    pause(engine, sub)
    at = PAUSED + HOUR
    assert not pauses.claim(engine, "other", HERE, at, HOUR).probes
    assert not claim(engine, at, frozenset({("t", 1)}))
    assert not claim(engine, at, frozenset({("u", 0)}))
    assert claim(engine, at)


def test_failures_of_another_url_do_not_pause(engine: Engine, sub: int) -> None:
    """It was changed meanwhile, perhaps because it failed."""
    upkeep.failing(engine, sub, 1000.0)
    args = (engine, GROUP, sub, "it fails", PAUSED, operation(1))
    assert not pauses.pause(*args, failing_before=2000.0, url=f"{URL}/old")
    assert not outbox.pending(engine, GROUP, 9)
    assert pauses.pause(*args, failing_before=2000.0, url=URL)


def test_a_person_s_pause_is_not_probed(engine: Engine, sub: int) -> None:
    """Nor is one by plain SQL after failures had paused it, nor a disabled subscription; nothing but a look is done."""
    park(engine, parked(make_event(3), sub))
    pause(engine, sub)
    assert pauses.count(engine) == 1
    run(engine, "UPDATE webhook_subscriptions SET enabled = 0")
    assert not claim(engine)
    assert pauses.count(engine) == 0
    run(engine, "UPDATE webhook_subscriptions SET enabled = 1, paused_at = NULL")
    assert not claim(engine)
    with engine.begin() as connection:
        connection.execute(update(Subscription).values(paused_at=time_of(PAUSED + 1)))
    assert not claim(engine)
    looks = [sql for sql in statements(engine, lambda: claim(engine)) if "webhook" in sql]
    assert len(looks) == 1
    assert pauses.count(engine) == 0


def test_the_first_owed_event_is_the_probe(engine: Engine) -> None:
    """That is the first row of a key, or a cursor's event if that comes before all rows, or if no row is left."""
    sub = repository.add(engine, URL, "user.created", ordering="key")
    park(engine, ordered(4, sub), ordered(5, sub), ordered(7, sub, b"other"))
    begin(engine, sub, 6)
    pause(engine, sub)
    assert places(engine, claim(engine)) == [(("t", 0, sub), 4)]
    run(engine, "UPDATE webhook_deliveries SET status = 'exhausted' WHERE record_offset = 4")
    run(engine, "UPDATE webhook_deliveries SET status = 'held' WHERE record_offset = 5")
    park(engine, ordered(3, sub))  # redelivered: it goes before the held one
    for hour in (2, 3):  # whosever turn it is
        assert places(engine, claim(engine, PAUSED + hour * HOUR)) == [(("t", 0, sub), 3)]
    run(engine, "UPDATE webhook_deliveries SET status = 'exhausted' WHERE record_offset < 6")
    assert places(engine, claim(engine, PAUSED + 4 * HOUR)) == [(("t", 0, sub), None)]
    run(engine, "UPDATE webhook_cursors SET end_offset = next_offset")
    assert places(engine, claim(engine, PAUSED + 5 * HOUR)) == [(("t", 0, sub), 7)]


def test_a_look_seeks_rows_only_where_there_are_any(engine: Engine) -> None:
    """However many partitions the worker owns: two statements say that nothing is owed, though a replay has cursors."""
    subs = [repository.add(engine, URL, "user.created") for _ in range(3)]
    for sub in subs:
        begin(engine, sub, 5, replay=7)
        pause(engine, sub)
    many = frozenset(("t", number) for number in range(100))
    looks = [sql for sql in statements(engine, lambda: claim(engine, partitions=many)) if "webhook" in sql]
    assert len(looks) == 3, looks
    park(engine, parked(make_event(3), subs[1]))
    assert [each.due_key[2] for each in claim(engine, partitions=many)] == [subs[1]]


def test_due_keys_take_turns(engine: Engine, sub: int) -> None:
    """One whose row or event cannot be sent does not prevent all probes. Rows go before the events of cursors."""
    for number in (0, 1):
        begin(engine, sub, 9, number)
    pause(engine, sub)
    probed = [claim(engine, PAUSED + hour * HOUR)[0] for hour in range(1, 4)]
    assert [each.due_key[1] for each in probed] in ([0, 1, 0], [1, 0, 1])
    park(engine, *(parked(make_event(3, partition=number), sub) for number in (0, 1)))
    rows = [claim(engine, PAUSED + hour * HOUR)[0] for hour in range(4, 7)]
    assert [each.due_key[1] for each in rows] in ([0, 1, 0], [1, 0, 1])
    assert all(each.row for each in rows)


def test_many_subscriptions_take_several_steps(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """One with nothing owed does not keep the others from their probes, nor is its turn used up."""
    monkeypatch.setattr(pauses, "LOOKED_AT", 2)
    subs = [repository.add(engine, URL, "user.created") for _ in range(5)]
    park(engine, *(parked(make_event(3), sub) for sub in subs[2:]))
    for sub in subs:
        pause(engine, sub)
    assert pauses.count(engine) == 5
    probed, after = [], pauses.FIRST
    while True:
        found = pauses.claim(engine, GROUP, HERE, PAUSED + HOUR, HOUR, after)
        probed += [each.due_key[2] for each in found.probes]
        if found.end is None:
            break
        after = found.end
    assert probed == subs[2:]
    park(engine, parked(make_event(3), subs[0]))
    assert [each.due_key[2] for each in pauses.claim(engine, GROUP, HERE, PAUSED + HOUR, HOUR).probes] == subs[:1]


def test_a_held_row_is_read_for_its_probe(engine: Engine, sub: int) -> None:
    """Though the subscription is paused; a failed probe counts as an attempt, and the row stays held."""
    park(engine, parked(make_event(3), sub))
    pause(engine, sub)
    (probe,) = claim(engine)
    assert probe.row is not None
    rows = {probe.row: probe.due_key}
    (row,) = due.fetch_to_probe(engine, GROUP, rows, 1.0, default_secrets=DEFAULT, decrypt=in_the_clear)
    assert (row.event.record.offset, row.attempt, row.endpoint.paused) == (3, 1, True)
    store.record(engine, GROUP, [result(row, "parked", 9000.0)])
    assert [tuple(each) for each in query(engine, "SELECT status, attempt FROM webhook_deliveries")] == [("held", 2)]
    run(engine, "UPDATE webhook_subscriptions SET enabled = 0")
    assert not due.fetch_to_probe(engine, GROUP, rows, 1.0, default_secrets=DEFAULT, decrypt=in_the_clear)


def test_a_successful_probe_resumes(engine: Engine, sub: int) -> None:
    """Rows are due, owners look at its cursors, and nothing of the failure is left; it is told once."""
    park(engine, parked(make_event(3), sub))
    begin(engine, sub, 9, partition=1)
    paused_at = pause(engine, sub)

    def resume(number: int) -> bool:
        return pauses.resume(engine, GROUP, sub, paused_at, 6000.0, operation(number))

    losing_the_answer(engine, lambda: resume(1))
    assert not resume(2)
    assert [event.event_id for _, event, _ in outbox.pending(engine, GROUP, 9)] == ["op_1"]
    state = "SELECT paused_at, paused_reason, probed_at, failing_since FROM webhook_subscriptions"
    assert [tuple(row) for row in query(engine, state)] == [(None,) * 4]
    assert counts(engine) == {"parked": 1}
    assert set(marks.recent(engine, GROUP, time_of(0.0)).due_keys) == {("t", 0, sub), ("t", 1, sub)}


def test_a_pause_that_a_person_began_meanwhile_stands(engine: Engine, sub: int) -> None:
    """The probe was of the pause before it."""
    paused_at = pause(engine, sub)
    with engine.begin() as connection:
        connection.execute(update(Subscription).values(paused_at=time_of(PAUSED + 1), probed_at=None))
    assert not pauses.resume(engine, GROUP, sub, paused_at, 6000.0, operation(1))
    with engine.begin() as connection:
        connection.execute(update(Subscription).values(paused_at=paused_at))
    assert not pauses.resume(engine, GROUP, sub, paused_at, 6000.0, operation(1))
    assert not outbox.pending(engine, GROUP, 9)
