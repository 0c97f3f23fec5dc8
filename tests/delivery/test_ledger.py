"""Stored deliveries: nothing lost, nothing twice, nothing overwritten by who no longer owns it."""

import multiprocessing
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from cryptography.fernet import Fernet
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, event, func, select, update
from sqlalchemy.exc import IntegrityError
from structlog.testing import capture_logs

from consumer.delivery import ledger
from consumer.delivery.ledger import AttemptResult, DueDelivery, NewDelivery
from consumer.event import Event, RecordId
from consumer.matching import subscriptions
from consumer.vault import Vault
from models import ParkedDelivery, Payload, Subscription
from tests.databases import database

GROUP = "webhooks"
URL = "https://example.com/hook"
DEFAULT = (b"default",)
ALL = {"t": (0, 1, 2, 3), "u": (0,)}
Result = Literal["delivered", "parked", "exhausted"]


def make_event(offset: int, *, topic: str = "t", partition: int = 0, body: bytes = b"{}", **more: object) -> Event:
    record = RecordId(topic, partition, offset, 1_700_000_000_000 + offset)
    plain = Event(record, "user.created", f"msg_{offset}", body, "application/json", None, None)
    return plain._replace(**more)  # type: ignore[arg-type]  # a test's shorthand


def parked(event: Event, subscription: int, at: float = 100.0, *, attempt: int = 1) -> NewDelivery:
    return NewDelivery(event, subscription, URL, attempt, "parked", at, 90.0 if attempt else None, "boom", 503)


def find(
    engine: Engine,
    now: float = 1000.0,
    *,
    owned: Mapping[str, Sequence[int]] = ALL,
    limit: int = 1000,
    full: Collection[int] = (),
    taken: Collection[int] = (),
    most_bytes: int = ledger.BATCH_BYTES,
    vault: Vault | None = None,
) -> list[DueDelivery]:
    decrypt = (vault or Vault()).decrypt
    return ledger.due(engine, GROUP, owned, now, limit, full, DEFAULT, decrypt, taken=taken, most_bytes=most_bytes)


def result(row: DueDelivery, status: Result, at: float | None = None, error: str | None = None) -> AttemptResult:
    return AttemptResult(row.id, row.attempt, status, at, error, 200 if status == "delivered" else 500, 2000.0)


def offsets(rows: Iterable[DueDelivery]) -> list[int]:
    return [row.event.record.offset for row in rows]


@pytest.fixture
def sub(engine: Engine) -> int:
    return subscriptions.add(engine, URL, "user.created")


def test_a_delivery_comes_back_as_it_went(engine: Engine, sub: int) -> None:
    """Every field of event, endpoint and attempt survives, and the row's own columns say what happened."""
    event = make_event(7, body=bytes(range(256)) * 100, key=b"user-1", traceparent="00-abc-def-01")
    ledger.park(engine, GROUP, [NewDelivery(event, sub, URL, 2, "parked", 100.25, 90.125, "503 Unavailable", 503)])
    (row,) = find(engine)
    assert row.event == event
    assert (row.endpoint.subscription_id, row.endpoint.url, row.endpoint.secrets) == (sub, URL, DEFAULT)
    assert (row.attempt, row.first_attempt_at) == (2, 90.125)
    with engine.connect() as connection:
        stored = connection.execute(select(ParkedDelivery.__table__)).one()
    assert (stored.url, stored.last_error, stored.last_status, stored.replay) == (URL, "503 Unavailable", 503, 0)


@pytest.mark.parametrize("key", [None, b"", b"\x00", b"k" * 5000])
@pytest.mark.parametrize("body", [b"", b"\x00\xff", b"x" * 1_100_000])
def test_empty_bytes_stay_empty_bytes(engine: Engine, sub: int, key: bytes | None, body: bytes) -> None:
    """An empty key is not no key, also where the database keeps an empty string as NULL."""
    event = make_event(1, body=body, key=key, content_type="")
    ledger.park(engine, GROUP, [parked(event, sub)])
    with engine.begin() as connection:  # what Oracle makes of them
        connection.execute(update(Payload).where(Payload.body == b"").values(body=None))
        connection.execute(update(Payload).where(Payload.record_key == b"").values(record_key=None))
        connection.execute(update(Payload).where(Payload.content_type == "").values(content_type=None))
    assert find(engine)[0].event == event


def test_what_does_not_fit_a_column_does_not_hold_a_partition(engine: Engine, sub: int) -> None:
    """Errors are cut and made ASCII; headers too long to keep are dropped; the delivery is stored."""
    event = make_event(1, content_type="x" * 1001, traceparent="y" * 256)
    ledger.park(engine, GROUP, [parked(event, sub)._replace(last_error="é" * 2000)])
    assert find(engine)[0].event == event._replace(content_type="", traceparent=None)
    with engine.connect() as connection:
        error = connection.execute(select(ParkedDelivery.last_error)).scalar_one()
    assert error == ("\\xe9" * 250)


def test_parking_again_changes_nothing(engine: Engine, sub: int) -> None:
    """After a crash the same rows are parked again: those that are there keep their state and their attempts."""
    first, second = make_event(1), make_event(2)
    ledger.park(engine, GROUP, [parked(first, sub, attempt=3), parked(first, sub)])
    assert [row.attempt for row in find(engine)] == [3]
    ledger.record(engine, [result(find(engine)[0], "exhausted")])
    ledger.park(engine, GROUP, [parked(second, sub), parked(first, sub)])
    assert offsets(find(engine)) == [2]
    assert ledger.counts(engine, GROUP) == {"parked": 1, "held": 0, "exhausted": 1, "delivered": 0}


def test_a_payload_is_stored_once_for_each_record(engine: Engine) -> None:
    """All subscriptions share the bytes of a record, those that are parked later too, and in memory as well."""
    event = make_event(1, body=b"x" * 100_000)
    ids = [subscriptions.add(engine, URL, "user.created") for _ in range(20)]
    ledger.park(engine, GROUP, [parked(event, number) for number in ids[:10]])
    ledger.park(engine, GROUP, [parked(event, number) for number in ids[10:]])
    rows = find(engine, most_bytes=100_000)
    assert [row.endpoint.subscription_id for row in rows] == ids
    assert len({id(row.event) for row in rows}) == 1
    with engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(Payload)).scalar_one() == 1


def test_a_re_created_topic_is_another_record(engine: Engine, sub: int) -> None:
    """The same offset with another timestamp is another delivery, with its own bytes."""
    old = make_event(1, body=b"old")
    new = old._replace(record=old.record._replace(timestamp=5), body=b"new")
    ledger.park(engine, GROUP, [parked(old, sub), parked(new, sub, 101.0)])
    assert [row.event.body for row in find(engine)] == [b"old", b"new"]


def test_due_are_the_owned_ones_oldest_first(engine: Engine, sub: int) -> None:
    """By due time, not by offset; not before their time; of the given group and partitions only."""
    ledger.park(engine, GROUP, [parked(make_event(offset), sub, at) for offset, at in ((1, 300), (2, 200), (3, 2000))])
    ledger.park(
        engine, GROUP, [parked(make_event(4, partition=1), sub, 250), parked(make_event(5, topic="u"), sub, 10)]
    )
    ledger.park(engine, "another", [parked(make_event(6), sub, 1)])
    assert offsets(find(engine)) == [5, 2, 4, 1]
    assert offsets(find(engine, owned={"t": (0,)})) == [2, 1]
    assert offsets(find(engine, owned={"t": (1, 2), "u": ()})) == [4]
    assert offsets(find(engine, owned={"t": ()})) == offsets(find(engine, owned={})) == []
    assert offsets(find(engine, 250.0)) == [5, 2, 4]
    assert offsets(find(engine, limit=2)) == [5, 2]


def test_the_next_one_due(engine: Engine, sub: int) -> None:
    """The loop sleeps until then: owned partitions, enabled subscriptions, later than what was just looked for."""
    disabled = subscriptions.add(engine, URL, "t")
    assert ledger.next_due_at(engine, GROUP, ALL) is None
    ledger.park(engine, GROUP, [parked(make_event(offset), sub, at) for offset, at in ((1, 300.5), (2, 200.25))])
    ledger.park(engine, GROUP, [parked(make_event(3), disabled, 1.0), parked(make_event(4, partition=9), sub, 2.0)])
    ledger.disable_subscription(engine, disabled, "410")
    assert ledger.next_due_at(engine, GROUP, ALL) == 200.25
    assert ledger.next_due_at(engine, GROUP, ALL, after=200.25) == 300.5
    assert ledger.next_due_at(engine, GROUP, {"t": (1,)}) is None
    assert ledger.next_due_at(engine, GROUP, {}) is None


def test_full_lanes_and_taken_rows_are_left_out(engine: Engine, sub: int) -> None:
    """A dead receiver with a thousand due rows does not hide the others, nor do rows that are in hand already."""
    other = subscriptions.add(engine, URL, "user.created")
    ledger.park(engine, GROUP, [parked(make_event(offset), sub, 10.0) for offset in range(50)])
    ledger.park(engine, GROUP, [parked(make_event(offset), other, 20.0) for offset in range(3)])
    assert {row.endpoint.subscription_id for row in find(engine, limit=10)} == {sub}
    assert {row.endpoint.subscription_id for row in find(engine, limit=10, full=[sub])} == {other}
    in_hand = find(engine, limit=20)
    assert offsets(find(engine, limit=20, taken={row.id for row in in_hand})) == list(range(20, 40))
    assert find(engine, full=range(1, 3000)) == []


def test_large_bodies_come_a_few_at_a_time(engine: Engine, sub: int) -> None:
    """A thousand due rows of a megabyte each are not read into memory at once; one always comes."""
    ledger.park(engine, GROUP, [parked(make_event(offset, body=b"x" * 1000), sub) for offset in range(10)])
    assert offsets(find(engine, most_bytes=3500)) == [0, 1, 2]
    assert offsets(find(engine, most_bytes=10)) == [0]


def test_results_are_written(engine: Engine, sub: int) -> None:
    """Delivered and exhausted rows are not due again; a rescheduled one is, later, with one attempt more."""
    ledger.park(engine, GROUP, [parked(make_event(offset), sub, attempt=offset) for offset in range(3)])
    done, again, dead = find(engine)
    ledger.record(
        engine, [result(dead, "exhausted", error="gone"), result(again, "parked", 3000.0), result(done, "delivered")]
    )
    assert find(engine) == []
    (row,) = find(engine, 3000.0)
    assert (row.id, row.attempt, row.first_attempt_at) == (again.id, 2, 90.0)
    assert ledger.counts(engine, GROUP) == {"parked": 1, "held": 0, "exhausted": 1, "delivered": 1}
    with engine.connect() as connection:
        rows = {row.id: row for row in connection.execute(select(ParkedDelivery.__table__))}
    assert (rows[dead.id].last_error, rows[dead.id].last_status, rows[dead.id].next_attempt_at) == ("gone", 500, None)
    assert rows[done.id].first_attempt_at.timestamp() == 2000.0  # parked without an attempt: this was the first


def test_a_zombie_overwrites_nothing(engine: Engine, sub: int) -> None:
    """A worker that has lost the partition reports an attempt of long ago: the new owner's result stands."""
    ledger.park(engine, GROUP, [parked(make_event(1), sub)])
    (stale,) = find(engine)
    ledger.record(engine, [result(stale, "delivered")])
    ledger.record(engine, [result(stale, "parked", 1.0), result(stale, "exhausted")])
    assert find(engine) == []
    assert ledger.counts(engine, GROUP)["delivered"] == 1


def test_a_result_is_written_once(engine: Engine, sub: int) -> None:
    """A record() whose answer was lost is repeated: the attempt counts once."""
    ledger.park(engine, GROUP, [parked(make_event(1), sub)])
    (row,) = find(engine)
    for _ in range(2):
        ledger.record(engine, [result(row, "parked", 500.0)])
    assert [row.attempt for row in find(engine)] == [2]


def test_settled_keys_are_all_states_from_the_offset_on(engine: Engine, sub: int) -> None:
    """On assignment these deliveries are skipped: parked, exhausted, delivered or held alike, replays not."""
    ledger.park(engine, GROUP, [parked(make_event(offset), sub) for offset in range(5)])
    ledger.park(engine, GROUP, [parked(make_event(9, partition=1), sub)])
    rows = find(engine)
    ledger.record(engine, [result(rows[2], "delivered"), result(rows[3], "exhausted")])
    with engine.begin() as connection:
        connection.execute(update(ParkedDelivery).where(ParkedDelivery.id == rows[4].id).values(replay=1))
    assert ledger.settled_keys(engine, GROUP, "t", 0, 2) == {
        (offset, 1_700_000_000_000 + offset, sub) for offset in (2, 3)
    }
    assert ledger.settled_keys(engine, "another", "t", 0, 0) == set()


def test_a_disabled_subscription_holds_its_rows_and_enabling_resumes_them(engine: Engine, sub: int) -> None:
    """410: nothing more is sent; enabling by plain SQL makes all of it due; the first reason stays."""
    other = subscriptions.add(engine, URL, "user.created")
    ledger.park(engine, GROUP, [parked(make_event(offset), sub, 5000.0) for offset in range(3)])
    ledger.park(engine, GROUP, [parked(make_event(9), other)])
    ledger.disable_subscription(engine, sub, "410 Gone")
    ledger.disable_subscription(engine, sub, "again")
    assert ledger.counts(engine, GROUP) == {"parked": 1, "held": 3, "exhausted": 0, "delivered": 0}
    assert [(row.enabled, row.disabled_reason) for row in subscriptions.list_all(engine)] == [
        (False, "410 Gone"),
        (True, None),
    ]
    assert ledger.reconcile(engine, 500.0) == (0, 0, 0)
    with engine.begin() as connection:
        connection.execute(update(Subscription).values(enabled=1))
    assert ledger.reconcile(engine, 500.0) == (0, 3, 0)
    assert offsets(find(engine, 500.0)) == [9, 0, 1, 2]


def test_disabled_by_sql_is_not_sent_even_before_the_rows_follow(engine: Engine, sub: int) -> None:
    """`due` looks at the subscription itself; the rows become held with the next reconciliation."""
    ledger.park(engine, GROUP, [parked(make_event(1), sub)])
    with engine.begin() as connection:
        connection.execute(update(Subscription).values(enabled=0))
    assert find(engine) == []
    assert ledger.next_due_at(engine, GROUP, ALL) is None
    assert ledger.reconcile(engine, 1.0) == (1, 0, 0)


def test_a_removed_subscription_exhausts_its_rows(engine: Engine, sub: int) -> None:
    """Parked and held rows are given up with that reason; delivered ones stay what they are."""
    held = subscriptions.add(engine, URL, "user.created")
    ledger.park(engine, GROUP, [parked(make_event(offset), sub) for offset in range(2)])
    ledger.park(engine, GROUP, [parked(make_event(2), held, 200.0)])
    ledger.record(engine, [result(find(engine)[0], "delivered")])
    ledger.disable_subscription(engine, held, "410")
    subscriptions.remove(engine, sub)
    subscriptions.remove(engine, held)
    assert ledger.exhaust_for_removed(engine) == 2
    assert ledger.counts(engine, GROUP) == {"parked": 0, "held": 0, "exhausted": 2, "delivered": 1}
    with engine.connect() as connection:
        errors = connection.execute(select(ParkedDelivery.last_error).where(ParkedDelivery.status == "exhausted"))
        assert set(errors.scalars()) == {"the subscription was removed"}


def test_an_attempt_that_ends_after_its_row_was_held_does_not_wake_it(engine: Engine, sub: int) -> None:
    """A failure reported then reschedules but stays held, or given up; a success counts."""
    ledger.park(engine, GROUP, [parked(make_event(offset), sub) for offset in range(2)])
    failed, succeeded = find(engine)
    ledger.disable_subscription(engine, sub, "410")
    ledger.record(engine, [result(failed, "parked", 1.0), result(succeeded, "delivered")])
    assert ledger.counts(engine, GROUP) == {"parked": 0, "held": 1, "exhausted": 0, "delivered": 1}
    subscriptions.remove(engine, sub)
    ledger.exhaust_for_removed(engine)
    ledger.record(engine, [result(failed, "parked", 1.0)._replace(attempt_before=2)])
    assert ledger.counts(engine, GROUP)["exhausted"] == 1


def test_a_row_without_a_usable_secret_waits(engine: Engine, sub: int) -> None:
    """It is never signed with another secret; it is tried again in a minute, others are not held up."""
    broken = subscriptions.add(engine, URL, "t", "own", vault=Vault(Fernet.generate_key().decode()))
    ledger.park(engine, GROUP, [parked(make_event(1), broken, 10.0), parked(make_event(2), sub, 20.0)])
    with capture_logs() as logs:
        assert offsets(find(engine)) == [2]
    assert "WEBHOOK_ENCRYPTION_KEY is not set" in str(logs)
    assert ledger.next_due_at(engine, GROUP, ALL, after=1000.0) == 1060.0


def test_delivered_rows_go_once_the_committed_offset_has_passed(engine: Engine) -> None:
    """Below it nobody asks for them; their payloads go with the last row that needs them; failures stay."""
    one, two = (subscriptions.add(engine, URL, "user.created") for _ in range(2))
    ledger.park(engine, GROUP, [parked(make_event(offset), number) for offset in range(3) for number in (one, two)])
    rows = {(row.event.record.offset, row.endpoint.subscription_id): row for row in find(engine)}
    delivered = [(0, one), (0, two), (1, one), (2, one)]
    ledger.record(engine, [result(rows[key], "delivered") for key in delivered])
    assert ledger.prune(engine, GROUP, "t", 0, 2) == 3
    assert ledger.prune(engine, GROUP, "t", 0, 2) == 0
    assert {key[0] for key in ledger.settled_keys(engine, GROUP, "t", 0, 0)} == {1, 2}
    with engine.connect() as connection:
        assert connection.execute(select(Payload.record_offset).order_by(Payload.record_offset)).scalars().all() == [
            1,
            2,
        ]
    assert offsets(find(engine)) == [1, 2]


def test_a_batch_that_fails_in_the_middle_is_repeated_whole(engine: Engine, sub: int) -> None:
    """A crash between the payloads and the rows leaves neither; parking again stores all."""
    rows = [parked(make_event(offset), sub) for offset in range(10)]

    def crash(_: Connection, __: object, statement: str, *___: object) -> None:
        if statement.startswith("INSERT INTO webhook_deliveries"):
            raise KeyboardInterrupt

    event.listen(engine, "before_cursor_execute", crash)
    with pytest.raises(KeyboardInterrupt):
        ledger.park(engine, GROUP, rows)
    event.remove(engine, "before_cursor_execute", crash)
    with engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(Payload)).scalar_one() == 0
    ledger.park(engine, GROUP, rows)
    assert offsets(find(engine)) == list(range(10))


def test_a_rival_in_the_middle_is_waited_out(engine: Engine, sub: int) -> None:
    """The unique key refuses (as Oracle does when a rival has committed first): roll back and repeat, ten times."""
    rows = [parked(make_event(1), sub)]
    refusals = [3]

    def refuse(_: Connection, __: object, statement: str, *___: object) -> None:
        if statement.startswith("INSERT INTO webhook_deliveries") and refusals[0]:
            refusals[0] -= 1
            raise IntegrityError(statement, {}, sqlite3.IntegrityError("UNIQUE"))

    event.listen(engine, "before_cursor_execute", refuse)
    ledger.park(engine, GROUP, rows)
    assert refusals == [0]
    assert offsets(find(engine)) == [1]
    refusals[0] = 100
    with pytest.raises(IntegrityError):
        ledger.park(engine, GROUP, [parked(make_event(2), sub)])
    assert refusals == [90]


def _park_all(path: str, start: float, seed: int) -> None:
    engine = database(Path(path))
    time.sleep(max(0.0, start - time.time()))
    rows = [parked(make_event(offset), number) for offset in range(300) for number in (1, 2)]
    for batch in range(seed, seed + 6):
        chunk = rows[batch % 6 * 100 : (batch % 6 + 1) * 100]
        ledger.park(engine, GROUP, chunk)
    engine.dispose()


def test_two_processes_with_the_same_rows_leave_each_once(engine: Engine) -> None:
    """A partition that is parked by its old and its new owner at once: every row is there, none twice."""
    for _ in range(2):
        subscriptions.add(engine, URL, "user.created")
    context = multiprocessing.get_context("spawn")
    start = time.time() + 2
    path = str(engine.url.database)
    workers = [context.Process(target=_park_all, args=(path, start, seed)) for seed in (0, 3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    with engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(ParkedDelivery)).scalar_one() == 600
        assert connection.execute(select(func.count()).select_from(Payload)).scalar_one() == 300


def test_threads_that_park_record_and_prune_lose_nothing(engine: Engine, sub: int) -> None:
    """Owners and zombies at once: after four threads each row is in one state, and none is missing."""
    rows = [parked(make_event(offset), sub) for offset in range(200)]
    failures: list[BaseException] = []

    def work(job: Callable[[], object]) -> None:
        try:
            for _ in range(5):
                job()
        except BaseException as error:  # noqa: BLE001 (shown by the assertion below)
            failures.append(error)

    jobs: list[Callable[[], object]] = [
        lambda: ledger.park(engine, GROUP, rows),
        lambda: ledger.park(engine, GROUP, rows[::-1]),
        lambda: ledger.record(engine, [result(row, "delivered") for row in find(engine)[::2]]),
        lambda: ledger.prune(engine, "another", "t", 0, 1000),
    ]
    threads = [threading.Thread(target=work, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sum(ledger.counts(engine, GROUP).values()) == 200


def test_rows_are_parked_at_speed(engine: Engine, sub: int) -> None:
    """A thousand rows of 500 bytes are one batch of some 40 ms: parking must keep up with a failing receiver."""
    best = 0.0
    for batch in range(3):
        rows = [parked(make_event(batch * 1000 + number, body=b"x" * 500), sub) for number in range(1000)]
        start = time.perf_counter()
        ledger.park(engine, GROUP, rows)
        best = max(best, 1000 / (time.perf_counter() - start))
    assert best > 3000, best


def test_looking_for_due_rows_uses_the_index(engine: Engine, sub: int) -> None:
    """The order comes from the index: no sort of everything that is due."""
    plans: list[str] = []

    def explain(connection: Connection, _: object, statement: str, parameters: Sequence[Any], *__: object) -> None:
        if statement.startswith("SELECT webhook_deliveries.id") and "ORDER BY" in statement:
            raw = connection.connection.cursor()
            plans.extend(row[3] for row in raw.execute("EXPLAIN QUERY PLAN " + statement, parameters))
            raw.close()

    ledger.park(engine, GROUP, [parked(make_event(offset), sub) for offset in range(100)])
    event.listen(engine, "before_cursor_execute", explain)
    find(engine)
    assert any("ix_webhook_deliveries_due" in step for step in plans), plans
    assert not any("TEMP B-TREE" in step for step in plans), plans


@dataclass
class Row:
    """The model of a stored delivery."""

    status: str
    attempt: int
    at: float


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["park", "exhaust", "delivered", "parked", "exhausted", "zombie", "disable", "enable", "remove"]
        ),
        st.integers(0, 5),
        st.integers(0, 1),
        st.integers(1, 30),
    ),
    max_size=25,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS)
def test_the_ledger_behaves_like_a_dictionary(
    new_engine: Callable[[], Engine], steps: Sequence[tuple[str, int, int, int]]
) -> None:
    """Whatever is parked, reported, disabled and removed in whatever order: what is due is what a dictionary says."""
    engine = new_engine()
    ids = [subscriptions.add(engine, URL, "user.created") for _ in range(2)]
    enabled = dict.fromkeys(ids, True)
    model: dict[tuple[int, int], Row] = {}
    for step, offset, which, at in steps:
        number = ids[which]
        if step in ("disable", "enable", "remove"):
            _change(engine, enabled, step, number)
        else:
            _write(engine, model, step, (offset, number), float(at))
        _follow(model, enabled)
        ledger.reconcile(engine, 12.0)
        due = [key for key, row in model.items() if row.status == "parked" and row.at <= 15.0]
        found = [(row.event.record.offset, row.endpoint.subscription_id) for row in find(engine, 15.0)]
        assert sorted(found) == sorted(due)
        assert [model[key].at for key in found] == sorted(model[key].at for key in found)
        settled = {(offset, number) for offset, _, number in ledger.settled_keys(engine, GROUP, "t", 0, 0)}
        assert settled == set(model)
        counted = {status: count for status, count in ledger.counts(engine, GROUP).items() if count}
        assert counted == Counter(row.status for row in model.values())
    engine.dispose()
    Path(str(engine.url.database)).unlink()


def _write(engine: Engine, model: dict[tuple[int, int], Row], step: str, key: tuple[int, int], at: float) -> None:
    """Park, or report an attempt, in the database and in the model."""
    offset, number = key
    if step in ("park", "exhaust"):
        status: Literal["parked", "exhausted"] = "parked" if step == "park" else "exhausted"
        ledger.park(engine, GROUP, [parked(make_event(offset), number, at)._replace(status=status)])
        model.setdefault(key, Row(status, 1, at))
        return
    for row in find(engine, 15.0):
        if step == "zombie":
            ledger.record(engine, [result(row, "exhausted")._replace(attempt_before=row.attempt - 1)])
        elif (row.event.record.offset, row.endpoint.subscription_id) == key:
            assert row.attempt == model[key].attempt
            outcome: Result = step  # type: ignore[assignment]  # one of the three, as the line above says
            ledger.record(engine, [result(row, outcome, at if outcome == "parked" else None)])
            model[key] = Row(step, row.attempt + 1, at)


def _change(engine: Engine, enabled: dict[int, bool], step: str, number: int) -> None:
    """Disable, enable or remove a subscription, in the database and in the model."""
    if step == "remove":
        subscriptions.remove(engine, number)
        enabled.pop(number, None)
    elif number in enabled:
        enabled[number] = step == "enable"
        if step == "disable":
            ledger.disable_subscription(engine, number, "410")
            return
        with engine.begin() as connection:
            connection.execute(update(Subscription).where(Subscription.id == number).values(enabled=1))


def _follow(model: Mapping[tuple[int, int], Row], enabled: Mapping[int, bool]) -> None:
    for (_, number), row in model.items():
        if number not in enabled and row.status in ("parked", "held"):
            row.status = "exhausted"
        elif number in enabled and not enabled[number] and row.status == "parked":
            row.status = "held"
        elif enabled.get(number) and row.status == "held":
            row.status, row.at = "parked", 12.0
