"""Periodic housekeeping of the database, in slices."""

from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trustme
from sqlalchemy import Engine, update

from consumer.crypto.certificates import TlsIdentity
from consumer.crypto.vault import Vault
from consumer.database.job import BACK_OFF
from consumer.errors import DatabaseTooSlow
from consumer.ledger import cursors, given_up, ordering, outbox, store, upkeep
from consumer.ledger.cursors import CursorMove, NewCursor
from consumer.ledger.rows import AttemptResult, NewDelivery, OperationalEvent, in_transaction
from consumer.subscriptions import repository, tls
from consumer.worker import housekeeping
from consumer.worker.housekeeping import PURGE_EVERY, Housekeeping
from models import CursorReason, StoredOperation
from tests.delivery.store_kit import Store
from tests.ledger.rows_kit import GROUP, URL, make_event, ordered, parked, run, states

HERE = ("t", 0)
Place = tuple[str, int]


class House:
    """Housekeeping on a real database. Answers are handled when the test says so."""

    def __init__(self, engine: Engine, keep: float | None = None) -> None:
        self.engine, self.store = engine, Store(engine)
        self.given_up: list[int] = []  # the subscriptions of cursors
        self.keeping = Housekeeping(
            engine,
            self.store.thread,
            GROUP,
            lambda lost, _reason: self.given_up.extend(each.due_key[2] for each in lost),
            self.store.clock,
            self.store.monotonic,
            publishes=True,
            keep=keep,
        )
        self.counted: list[int] = []
        self.stored: list[tuple[str, int]] = []

    def subscribe(self, number: int = 1) -> list[int]:
        """Add so many subscriptions."""
        return [repository.add(self.engine, URL, "user.created") for _ in range(number)]

    def park(self, *rows: NewDelivery, delivered: str = "1 = 0") -> None:
        """Store rows, those of this condition as delivered."""
        store.park(self.engine, GROUP, rows, 500.0)
        run(self.engine, f"UPDATE webhook_deliveries SET status = 'delivered' WHERE {delivered}")  # noqa: S608 (constants)

    def begin(
        self, places: Sequence[Place] = (), mark: int | None = None, *, leads: bool = True, slices: bool = True
    ) -> None:
        """Begin a round for these partitions, all committed to the mark, and run all of its jobs unless told not to."""
        marks = {} if mark is None else dict.fromkeys(places, mark)
        self.keeping.begin(places, marks, self.tell, leads=leads)
        if slices:
            self.slices()

    def tell(self, waiting: int, stored: Collection[tuple[str, int]]) -> None:
        """Receive housekeeping's counts."""
        self.counted.append(waiting)
        self.stored = list(stored)

    def slice(self) -> None:
        """Run one job and handle its answer."""
        self.keeping.poll(0.0)
        self.store.answer()

    def slices(self) -> None:
        """Run all pending jobs."""
        for _ in range(20):
            if not self.keeping.pending:
                break
            self.slice()


@pytest.fixture
def house(engine: Engine) -> Iterator[House]:
    """A house on an empty database."""
    result = House(engine)
    yield result
    assert result.store.thread.close(20)


def test_everything_is_done_once(house: House) -> None:
    """Rows of disabled subscriptions are held, of removed ones given up. Old rows and old events are deleted."""
    engine = house.engine
    live, off = house.subscribe(2)
    by_key = repository.add(engine, URL, "user.created", ordering="key")
    repository.set_enabled(engine, off, enabled=False)
    rows = [parked(make_event(offset), to) for offset, to in enumerate((live, off, 999, live, live), 1)]
    house.park(*rows, ordered(6, by_key), ordered(7, by_key))
    store.record(engine, GROUP, [AttemptResult(row, 1, "delivered", None, 200, None, 600.0) for row in (4, 5)])
    run(engine, "UPDATE webhook_deliveries SET status = 'blocked' WHERE record_offset = 6")
    with engine.begin() as connection:
        outbox.add(connection, GROUP, [OperationalEvent("delivery.exhausted", name, {}) for name in ("old", "new")])
    with engine.begin() as connection:
        old = update(StoredOperation).where(StoredOperation.event_id == "old")
        connection.execute(old.values(created_at=datetime(2020, 1, 1, tzinfo=UTC)))

    house.begin([HERE], 5)
    assert states(engine) == {1: "parked", 2: "held", 3: "exhausted", 5: "delivered", 6: "parked", 7: "blocked"}
    assert house.counted == [3], "rows that are not due, and a blocked one"
    assert house.stored == [("t", 0)]
    assert [event.event_id for _, event, _ in outbox.pending(engine, GROUP, 9)] == ["new"]
    house.keeping.poll(0.0)
    assert house.store.posted.empty()


def test_old_exhausted_rows_are_deleted_once_the_topic_has_them(engine: Engine) -> None:
    """Once an hour; without WEBHOOK_KEEP_EXHAUSTED none is."""
    house, forever = House(engine, keep=100.0), House(engine)
    given_up_at = house.store.clock() - 101.0
    rows = [parked(make_event(offset), 1, status="exhausted", next_attempt_at=None) for offset in range(3)]
    store.park(engine, GROUP, rows, given_up_at)
    given_up.note_published(engine, given_up.unpublished(engine, GROUP, 2))
    forever.begin()
    assert len(states(engine)) == 3
    house.begin()
    assert states(engine) == {2: "exhausted"}, "the topic lacks one"
    given_up.note_published(engine, given_up.unpublished(engine, GROUP, 1))
    house.begin()
    assert states(engine) == {2: "exhausted"}, "within the hour"
    house.store.monotonic.now += PURGE_EVERY
    house.begin()
    assert states(engine) == {}
    for each in (house, forever):
        assert each.store.thread.close(20)


def test_rows_that_cannot_be_purged_do_not_keep_those_behind_them(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass goes on behind them, and another one tries again."""
    house.keeping._keep = 100.0
    house.park(*(parked(make_event(offset), 1, status="exhausted", next_attempt_at=None) for offset in range(2)))
    run(house.engine, "UPDATE webhook_deliveries SET unpublished_by = NULL, published_attempt = attempt")
    monkeypatch.setattr(upkeep, "BATCH", 1)
    owe = given_up.owe
    monkeypatch.setattr(given_up, "owe", lambda *args: 1 // (args[2] - 1) and owe(*args))
    house.store.clock.now += 1e9
    house.begin()
    assert states(house.engine) == {0: "exhausted"}


def test_finished_cursors_are_deleted_once_their_offsets_are_committed(house: House) -> None:
    """Their partition has no other rows. A new assignment would read the others, and leave live events to them."""
    (sub,) = house.subscribe()
    due_key = (*HERE, sub)
    new = [NewCursor(due_key, first, CursorReason.PAUSED, first + 1) for first in (5, 9)]
    cursors.begin(house.engine, GROUP, new, 1.0)
    begun = cursors.of_partition(house.engine, GROUP, HERE)
    cursors.save(house.engine, [CursorMove(each.id, 0, each.first + 1, each.end, "", None) for each in begun], 1.0)
    for mark, left in ((5, [5, 9]), (8, [9])):
        house.begin([HERE], mark)
        assert [each.first for each in cursors.of_partition(house.engine, GROUP, HERE)] == left


def test_each_step_is_a_slice_if_time_is_short(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Completed subscriptions and partitions are not repeated, and a step that fails is not skipped."""
    monkeypatch.setattr("consumer.worker.housekeeping.SLICE", 0.0)
    monkeypatch.setattr(upkeep, "SEEKS", 1)
    engine = house.engine
    subs = house.subscribe(3)
    house.park(*(parked(make_event(offset, partition=offset), to) for offset, to in enumerate(subs)))
    for sub in subs[1:]:
        repository.set_enabled(engine, sub, enabled=False)
    house.begin(slices=False)
    house.slice()
    assert list(states(engine).values()) == ["parked"] * 3
    with house.store.without():
        house.slice()
    house.store.monotonic.now += BACK_OFF[0]
    for _ in range(10):
        house.slice()
        if list(states(engine).values()) != ["parked"] * 3:
            break
    assert list(states(engine).values()) == ["parked", "held", "parked"]
    house.slices()
    assert list(states(engine).values()) == ["parked", "held", "held"]


def test_a_failing_job_does_not_prevent_the_others(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row of one partition is locked. All other jobs run every minute, and /readyz names the one that fails."""
    engine = house.engine
    repair = ordering.repair

    def locked(engine: Engine, group: str, topic: str, partition: int, *rest: Any) -> object:
        if partition == 3:
            raise DatabaseTooSlow("DPY-4024: call timeout of 30000 ms exceeded")
        return repair(engine, group, topic, partition, *rest)

    monkeypatch.setattr(ordering, "repair", locked)
    places = [("t", number) for number in range(6)]
    (sub,) = house.subscribe()
    house.park(*(parked(make_event(1, partition=number), sub) for _, number in places))

    def minute() -> None:
        house.begin(places, 10, slices=False)
        for _ in range(12):
            house.keeping.poll(0.0)
            if house.keeping._slices.busy:
                house.store.answer()
            house.store.monotonic.now += 5.0

    minute()
    assert house.counted == [6]
    repository.set_enabled(engine, sub, enabled=False)
    minute()
    assert set(states(engine).values()) == {"held"}
    fault = "database: DPY-4024: call timeout of 30000 ms exceeded (order of keys in t[3])"
    assert (house.keeping.fault, house.keeping.pending) == (fault, True)
    monkeypatch.setattr(ordering, "repair", repair)
    minute()
    minute()
    assert (house.keeping.fault, house.keeping.pending) == (None, False)


def test_rows_that_cannot_be_changed_stop_no_other_subscription(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another session has locked one: each try takes half a minute. There is one in each pass, and it stays visible."""
    monkeypatch.setattr(upkeep, "CHANGED_AT_ONCE", 2)
    monkeypatch.setattr("consumer.worker.housekeeping.SLICE", 0.0)
    engine = house.engine
    locked, off, on = house.subscribe(3)
    house.park(*(parked(make_event(offset), sub) for sub in (locked, off, on) for offset in range(3)))
    run(engine, f"UPDATE webhook_deliveries SET status = 'held' WHERE subscription_id = {on}")  # noqa: S608 (a number)
    for sub in (locked, off):
        repository.set_enabled(engine, sub, enabled=False)
    tries: list[int] = []

    def refuse(engine: Engine, work: Any) -> Any:
        if any(row.subscription_id == locked for row in work.keywords["rows"]):
            tries.append(locked)
            raise DatabaseTooSlow("DPY-4024: timed out")
        return in_transaction(engine, work)

    monkeypatch.setattr("consumer.ledger.upkeep.in_transaction", refuse)
    for passes in (1, 2):
        house.begin()
        assert [set(states(engine, sub).values()) for sub in (locked, off, on)] == [{"parked"}, {"held"}, {"parked"}]
        assert len(tries) == passes
        assert house.keeping.fault == f"database: DPY-4024: timed out (rows of changed subscriptions: {locked})"
    monkeypatch.undo()
    house.begin()
    assert (set(states(engine, locked).values()), house.keeping.fault) == ({"held"}, None)


def test_only_partitions_with_rows_are_visited(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a thousand partitions few have stored rows. A row with an absurd partition number costs no more."""
    seen: list[tuple[str, int]] = []
    mended: list[int] = []
    plain = upkeep.waiting

    def spy(engine: Engine, group: str, topic: str, partition: int) -> int:
        seen.append((topic, partition))
        return plain(engine, group, topic, partition)

    def repair(*arguments: Any) -> ordering.Mended:
        mended.append(arguments[3])
        return ordering.Mended(0, None)

    monkeypatch.setattr(upkeep, "waiting", spy)
    monkeypatch.setattr(ordering, "repair", repair)
    (sub,) = house.subscribe()
    places = [("t", 3), ("t", 1_000_000), ("u", 0), ("u", 2)]
    rows = [parked(make_event(1, topic=topic, partition=number), sub) for topic, number in places]
    house.park(*rows, delivered="topic = 'u' AND partition_no = 2")
    house.begin([("t", number) for number in range(6)])
    assert (house.counted, house.stored, seen, mended) == ([3], places, places, [3])


def test_a_round_begun_during_a_slice_starts_after_it(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Newly assigned partitions, or a new leader, must not wait for the next minute because of a long job."""
    monkeypatch.setattr("consumer.worker.housekeeping.SLICE", 0.0)
    (sub,) = house.subscribe()
    house.park(*(parked(make_event(offset), sub) for offset in (1, 2)), delivered="1 = 1")
    house.begin([HERE], leads=False, slices=False)
    house.keeping.poll(0.0)
    house.begin([HERE], 3, slices=False)
    house.store.answer()
    house.slices()
    assert (states(house.engine), house.counted) == ({}, [0])


def test_unfinished_jobs_take_turns(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pruning a million rows in one partition does not delay the count of all rows. All are pruned in one round."""
    monkeypatch.setattr("consumer.worker.housekeeping.SLICE", 0.0)
    monkeypatch.setattr("consumer.worker.housekeeping.PRUNED", 1)
    (sub,) = house.subscribe()
    house.park(*(parked(make_event(offset), sub) for offset in range(15)), delivered="1 = 1")
    house.begin([HERE], 20, slices=False)
    while not house.counted:
        house.slice()
    assert house.keeping.pending
    while house.keeping.pending:
        house.slice()
    assert states(house.engine) == {}


def test_in_an_outage_one_job_at_a_time_is_retried(house: House) -> None:
    """The database's back-off applies, so a thousand partitions do not cause a thousand errors in a row.

    Until then the worker is not ready. The jobs do not wait for the next round a minute later.
    """
    places = [("t", number) for number in range(50)]
    house.begin(places, slices=False)
    tried = 0
    with house.store.without():
        for _ in range(1000):
            house.keeping.poll(0.0)
            if house.keeping._slices.busy:
                house.store.answer()
                tried += 1
            house.store.monotonic.now += 0.01
    assert tried < 10
    assert "the tables are missing or old" in str(house.keeping.fault)
    house.store.monotonic.now += BACK_OFF[1]
    house.slices()
    assert (house.counted, house.keeping.fault) == ([0], None)


def test_the_leader_reads_certificates_each_hour(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first ones to expire are shown, from all pages. A worker that no longer leads shows none."""
    engine = house.engine
    monkeypatch.setattr(tls, "_BATCH", 2)
    monkeypatch.setattr(housekeeping, "MOST_CERTIFICATES", 3)
    authority, now = trustme.CA(), datetime.now(UTC)
    for days in (5, 1, 4, 2, 3):
        (subscription,) = house.subscribe()
        issued = authority.issue_cert("a.test", not_before=now - timedelta(1), not_after=now + timedelta(days))
        key, chain = issued.private_key_pem.bytes().decode(), issued.cert_chain_pems[0].bytes().decode()
        tls.set_tls(engine, subscription, TlsIdentity(chain, key), Vault(), now)

    def shown() -> list[int]:
        house.begin()
        return [expiry.subscription_id for expiry in house.keeping.expiring]

    assert shown() == [2, 4, 5]
    assert tls.remove_tls(engine, 2)
    assert shown() == [2, 4, 5], "the hour is not over"
    house.store.monotonic.now += housekeeping.LOOK_AT_CERTIFICATES
    assert shown() == [4, 5, 3]
    house.begin(leads=False, slices=False)
    house.keeping.poll(0.0)
    assert house.keeping.expiring == ()


def test_an_unfinished_job_continues_with_the_partitions_and_marks_of_now(house: House) -> None:
    """After an outage it neither prunes with an old mark nor looks for partitions that have left."""
    engine = house.engine
    (to,) = house.subscribe()
    places = ((0, 1), (0, 9), (1, 2), (1, 8))
    house.park(*(parked(make_event(offset, partition=number), to) for number, offset in places), delivered="1 = 1")
    house.keeping.begin([], {HERE: 100}, house.tell, leads=False)
    with house.store.without():
        house.slice()
    house.store.monotonic.now += BACK_OFF[0]
    house.keeping.begin([], {("t", 1): 5}, house.tell, leads=False)
    house.slices()
    assert sorted(states(engine)) == [1, 8, 9]
