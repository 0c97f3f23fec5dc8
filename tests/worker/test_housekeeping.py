"""Periodic housekeeping of the database, in slices."""

from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trustme
from sqlalchemy import Engine, update

from consumer.crypto.certificates import TlsIdentity
from consumer.crypto.vault import Vault
from consumer.database.job import BACK_OFF
from consumer.errors import DatabaseTooSlow
from consumer.ledger import ordering, outbox, store, upkeep
from consumer.ledger.rows import AttemptResult, OperationalEvent, in_transaction
from consumer.subscriptions import repository, tls
from consumer.worker import housekeeping
from consumer.worker.housekeeping import Housekeeping
from models import StoredOperation
from tests.delivery.store_kit import Store
from tests.ledger.rows_kit import GROUP, URL, make_event, ordered, parked, run, states

HERE = ("t", 0)


class House:
    """Housekeeping on a real database. Answers are handled when the test says so."""

    def __init__(self, engine: Engine) -> None:
        self.store = Store(engine)
        self.keeping = Housekeeping(engine, self.store.thread, GROUP, self.store.clock, self.store.monotonic)
        self.counted: list[int] = []
        self.stored: list[tuple[str, int]] = []

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
    engine = house.store.engine
    live, off = (repository.add(engine, URL, "user.created") for _ in range(2))
    by_key = repository.add(engine, URL, "user.created", ordering="key")
    repository.set_enabled(engine, off, enabled=False)
    rows = [parked(make_event(offset), to) for offset, to in enumerate((live, off, 999, live, live), 1)]
    store.park(engine, GROUP, [*rows, ordered(6, by_key), ordered(7, by_key)], 500.0)
    store.record(engine, GROUP, [AttemptResult(row, 1, "delivered", None, 200, None, 600.0) for row in (4, 5)])
    run(engine, "UPDATE webhook_deliveries SET status = 'blocked' WHERE record_offset = 6")
    with engine.begin() as connection:
        outbox.add(connection, GROUP, [OperationalEvent("delivery.exhausted", name, {}) for name in ("old", "new")])
    with engine.begin() as connection:
        old = update(StoredOperation).where(StoredOperation.event_id == "old")
        connection.execute(old.values(created_at=datetime(2020, 1, 1, tzinfo=UTC)))

    house.keeping.begin([HERE], {HERE: 5}, house.tell, leads=True)
    house.slices()

    assert states(engine) == {1: "parked", 2: "held", 3: "exhausted", 5: "delivered", 6: "parked", 7: "blocked"}
    assert house.counted == [3], "rows that are not due, and a blocked one"
    assert house.stored == [("t", 0)]
    assert [event.event_id for _, event, _ in outbox.pending(engine, GROUP, 9)] == ["new"]
    house.keeping.poll(0.0)
    assert house.store.posted.empty()


def test_each_step_is_a_slice_if_time_is_short(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Completed subscriptions and partitions are not repeated, and a step that fails is not skipped."""
    monkeypatch.setattr("consumer.worker.housekeeping.SLICE", 0.0)
    monkeypatch.setattr(upkeep, "SEEKS", 1)
    engine = house.store.engine
    subs = [repository.add(engine, URL, "user.created") for _ in range(3)]
    rows = [parked(make_event(offset, partition=offset), to) for offset, to in enumerate(subs)]
    store.park(engine, GROUP, rows, 500.0)
    for sub in subs[1:]:
        repository.set_enabled(engine, sub, enabled=False)
    house.keeping.begin([], {}, house.tell, leads=True)
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


def test_a_failed_job_is_retried_soon(house: House) -> None:
    """It does not wait for the next round a minute later. Until then the worker is not ready."""
    house.keeping.begin([HERE], {HERE: 5}, house.tell, leads=True)
    with house.store.without():
        house.slice()
        house.keeping.poll(0.0)
        assert house.store.posted.empty()
    assert "the tables are missing or old" in str(house.keeping.fault)
    house.store.monotonic.now += BACK_OFF[0]
    house.slices()
    assert house.counted == [0]
    assert house.keeping.fault is None


def test_more_rows_than_one_transaction_prunes_are_all_pruned(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are pruned in one round, not a thousand rows a minute."""
    monkeypatch.setattr("consumer.worker.housekeeping.PRUNED", 2)
    engine = house.store.engine
    live = repository.add(engine, URL, "user.created")
    store.park(engine, GROUP, [parked(make_event(offset), live) for offset in range(5)], 500.0)
    run(engine, "UPDATE webhook_deliveries SET status = 'delivered'")
    house.keeping.begin([HERE], {HERE: 5}, house.tell, leads=True)
    house.slices()
    assert states(engine) == {}


def test_a_failing_job_does_not_prevent_the_others(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row of one partition is locked. All other jobs run every minute, and /readyz names the one that fails."""
    engine = house.store.engine
    repair = ordering.repair

    def locked(engine: Engine, group: str, topic: str, partition: int, *rest: Any) -> object:
        if partition == 3:
            raise DatabaseTooSlow("DPY-4024: call timeout of 30000 ms exceeded")
        return repair(engine, group, topic, partition, *rest)

    monkeypatch.setattr(ordering, "repair", locked)
    places = [("t", number) for number in range(6)]
    sub = repository.add(engine, URL, "user.created")
    store.park(engine, GROUP, [parked(make_event(1, partition=number), sub) for _, number in places], 500.0)

    def minute() -> None:
        house.keeping.begin(places, dict.fromkeys(places, 10), house.tell, leads=True)
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
    engine = house.store.engine
    locked, off, on = (repository.add(engine, URL, "user.created") for _ in range(3))
    for sub in (locked, off, on):
        store.park(engine, GROUP, [parked(make_event(offset), sub) for offset in range(3)], 500.0)
    run(engine, f"UPDATE webhook_deliveries SET status = 'held' WHERE subscription_id = {on}")  # noqa: S608 (a number)
    for sub in (locked, off):
        repository.set_enabled(engine, sub, enabled=False)
    tries: list[int] = []

    def refuse(engine: Engine, work: Any) -> Any:
        if any(row.subscription_id == locked for row in work.keywords["rows"]):
            tries.append(locked)
            raise DatabaseTooSlow("DPY-4024: timed out")
        return in_transaction(engine, work)

    def minute() -> None:
        house.keeping.begin([], {}, house.tell, leads=True)
        house.slices()

    monkeypatch.setattr("consumer.ledger.upkeep.in_transaction", refuse)
    for passes in (1, 2):
        minute()
        assert [set(states(engine, sub).values()) for sub in (locked, off, on)] == [{"parked"}, {"held"}, {"parked"}]
        assert len(tries) == passes
        assert house.keeping.fault == f"database: DPY-4024: timed out (rows of changed subscriptions: {locked})"
    monkeypatch.undo()
    minute()
    assert (set(states(engine, locked).values()), house.keeping.fault) == ({"held"}, None)


def test_partitions_without_rows_are_skipped(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a thousand partitions few have stored rows. Each of the others would take half a dozen statements."""
    looked_at: list[int] = []

    def spy(*arguments: Any) -> ordering.Mended:
        looked_at.append(arguments[3])
        return ordering.Mended(0, None)

    monkeypatch.setattr(ordering, "repair", spy)
    sub = repository.add(house.store.engine, URL, "user.created")
    store.park(house.store.engine, GROUP, [parked(make_event(1, partition=3), sub)], 500.0)
    places = [("t", number) for number in range(6)]
    house.keeping.begin(places, dict.fromkeys(places, 10), house.tell, leads=False)
    house.slices()
    assert looked_at == [3]


def test_the_count_visits_only_partitions_with_rows(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row with an absurd partition number costs the leader no memory and no statements for the numbers below it."""
    seen: list[tuple[str, int]] = []
    plain = upkeep.waiting

    def spy(engine: Engine, group: str, topic: str, partition: int) -> int:
        seen.append((topic, partition))
        return plain(engine, group, topic, partition)

    monkeypatch.setattr(upkeep, "waiting", spy)
    sub = repository.add(house.store.engine, URL, "user.created")
    places = [("t", 3), ("t", 1_000_000), ("u", 0), ("u", 2)]
    rows = [parked(make_event(1, topic=topic, partition=number), sub) for topic, number in places]
    store.park(house.store.engine, GROUP, rows, 500.0)
    run(house.store.engine, "UPDATE webhook_deliveries SET status = 'delivered' WHERE topic = 'u' AND partition_no = 2")
    house.keeping.begin([], {}, house.tell, leads=True)
    house.slices()
    assert (house.counted, house.stored, seen) == ([3], places, places)


def test_a_round_begun_during_a_slice_starts_after_it(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Newly assigned partitions, or a new leader, must not wait for the next minute because of a long job."""
    monkeypatch.setattr("consumer.worker.housekeeping.SLICE", 0.0)
    sub = repository.add(house.store.engine, URL, "user.created")
    store.park(house.store.engine, GROUP, [parked(make_event(offset), sub) for offset in (1, 2)], 500.0)
    run(house.store.engine, "UPDATE webhook_deliveries SET status = 'delivered'")
    house.keeping.begin([HERE], {}, house.tell, leads=False)
    house.keeping.poll(0.0)
    house.keeping.begin([HERE], {HERE: 3}, house.tell, leads=True)
    house.store.answer()
    house.slices()
    assert (states(house.store.engine), house.counted) == ({}, [0])


def test_unfinished_jobs_take_turns(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pruning a million rows in one partition does not delay the count of all rows."""
    monkeypatch.setattr("consumer.worker.housekeeping.SLICE", 0.0)
    monkeypatch.setattr("consumer.worker.housekeeping.PRUNED", 1)
    sub = repository.add(house.store.engine, URL, "user.created")
    store.park(house.store.engine, GROUP, [parked(make_event(offset), sub) for offset in range(15)], 500.0)
    run(house.store.engine, "UPDATE webhook_deliveries SET status = 'delivered'")
    house.keeping.begin([HERE], {HERE: 20}, house.tell, leads=True)
    while not house.counted:
        house.slice()
    assert house.keeping.pending
    while house.keeping.pending:
        house.slice()
    assert states(house.store.engine) == {}


def test_in_an_outage_one_job_at_a_time_is_retried(house: House) -> None:
    """The database's back-off applies, so a thousand partitions do not cause a thousand errors in a row."""
    places = [("t", number) for number in range(50)]
    house.keeping.begin(places, {}, house.tell, leads=True)
    tried = 0
    with house.store.without():
        for _ in range(1000):
            house.keeping.poll(0.0)
            if house.keeping._slices.busy:
                house.store.answer()
                tried += 1
            house.store.monotonic.now += 0.01
    assert tried < 10


def test_the_leader_reads_certificates_each_hour(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first ones to expire are shown, from all pages. A worker that no longer leads shows none."""
    engine = house.store.engine
    monkeypatch.setattr(tls, "_BATCH", 2)
    monkeypatch.setattr(housekeeping, "MOST_CERTIFICATES", 3)
    authority, now = trustme.CA(), datetime.now(UTC)
    for days in (5, 1, 4, 2, 3):
        subscription = repository.add(engine, URL, "user.created")
        issued = authority.issue_cert("a.test", not_before=now - timedelta(1), not_after=now + timedelta(days))
        key, chain = issued.private_key_pem.bytes().decode(), issued.cert_chain_pems[0].bytes().decode()
        tls.set_tls(engine, subscription, TlsIdentity(chain, key), Vault(), now)

    def shown() -> list[int]:
        house.keeping.begin([], {}, house.tell, leads=True)
        house.slices()
        return [expiry.subscription_id for expiry in house.keeping.expiring]

    assert shown() == [2, 4, 5]
    assert tls.remove_tls(engine, 2)
    assert shown() == [2, 4, 5], "the hour is not over"
    house.store.monotonic.now += housekeeping.LOOK_AT_CERTIFICATES
    assert shown() == [4, 5, 3]
    house.keeping.begin([], {}, house.tell, leads=False)
    house.keeping.poll(0.0)
    assert house.keeping.expiring == ()


def test_an_unfinished_job_continues_with_the_partitions_and_marks_of_now(house: House) -> None:
    """After an outage it neither prunes with an old mark nor looks for partitions that have left."""
    engine = house.store.engine
    to = repository.add(engine, URL, "user.created")
    places = ((0, 1), (0, 9), (1, 2), (1, 8))
    rows = [parked(make_event(offset, partition=number), to) for number, offset in places]
    store.park(engine, GROUP, rows, 500.0)
    store.record(engine, GROUP, [AttemptResult(row, 1, "delivered", None, 200, None, 600.0) for row in range(1, 5)])
    house.keeping.begin([], {HERE: 100}, house.tell, leads=False)
    with house.store.without():
        house.slice()
    house.store.monotonic.now += BACK_OFF[0]
    house.keeping.begin([], {("t", 1): 5}, house.tell, leads=False)
    house.slices()
    assert sorted(states(engine)) == [1, 8, 9]
