"""Deliveries are stored once, results are written once, and a former owner overwrites nothing."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine, func, select, update
from sqlalchemy.exc import IntegrityError

from consumer.ledger import admin, assigned, outbox, store, upkeep
from consumer.ledger.assigned import Settled
from consumer.ledger.rows import AttemptFailure, AttemptResult
from consumer.subscriptions import repository
from models import ParkedDelivery, Payload
from tests.faults import refusing
from tests.ledger.rows_kit import (
    BOOM,
    DEFAULT,
    GROUP,
    URL,
    counts,
    find,
    losing_the_answer,
    make_event,
    offsets,
    operation,
    park,
    parked,
    query,
    result,
    run,
    states,
)
from tests.oracle_emulator import OracleEmulator


def test_a_delivery_is_read_back_unchanged(engine: Engine, sub: int) -> None:
    """Every field of event, endpoint and attempts survives, and the row's own columns state the last result."""
    event = make_event(7, body=bytes(range(256)) * 100, key=b"user-1", traceparent="00-abc-def-01")
    first, last = AttemptFailure("time-out", None, None, 90.125), AttemptFailure("status 503", 503, "busy", 95.5)
    park(engine, parked(event, sub, 100.25, attempt=5, first=first, last=last, schedule_start=3))
    (row,) = find(engine)
    assert row.event == event
    assert (row.endpoint.subscription_id, row.endpoint.url, row.endpoint.secrets) == (sub, URL, DEFAULT)
    assert (row.attempt, row.schedule_start, row.first, row.last) == (5, 3, first, last)
    assert (row.ordering_key, row.replay) == (None, 0)
    assert query(engine, "SELECT url, last_error, last_status FROM webhook_deliveries") == [(URL, "status 503", 503)]


def test_a_due_time_is_kept_to_the_microsecond(engine: Engine, sub: int) -> None:
    """A driver binds a datetime as Oracle's DATE, with whole seconds, unless its type is declared."""
    at = 1000.000_001
    park(engine, parked(make_event(1), sub, at))
    with engine.connect() as connection:
        assert connection.scalar(select(ParkedDelivery.next_attempt_at)) == datetime.fromtimestamp(at, UTC)
    assert find(engine, 1000.0) == []
    (row,) = find(engine, at)
    store.record(engine, GROUP, [result(row, "parked", 2000.000_003)])
    assert find(engine, 2000.000_002) == []
    assert len(find(engine, 2000.000_003)) == 1


@pytest.mark.parametrize("key", [None, b"", b"\x00", b"k" * 5000])
@pytest.mark.parametrize("body", [b"", b"\x00\xff", b"x" * 1_100_000])
def test_empty_bytes_stay_empty_bytes(engine: Engine, sub: int, key: bytes | None, body: bytes) -> None:
    """An empty key differs from no key, also if the database keeps an empty string as NULL."""
    event = make_event(1, body=body, key=key, content_type="")
    park(engine, parked(event, sub))
    with engine.begin() as connection:  # as Oracle stores them
        connection.execute(update(Payload).where(func.length(Payload.body) == 0).values(body=None))
        connection.execute(update(Payload).where(func.length(Payload.record_key) == 0).values(record_key=None))
        connection.execute(update(Payload).where(Payload.content_type == "").values(content_type=None))
    assert find(engine)[0].event == event


def test_values_too_long_for_a_column_are_cut(engine: Engine, sub: int) -> None:
    """Errors are cut and made ASCII, and headers that are too long are dropped, so the delivery is stored."""
    event = make_event(1, content_type="x" * 1001, traceparent="y" * 256)
    park(engine, parked(event, sub, last=BOOM._replace(error="é" * 2000, response="é" * 3000)))
    (row,) = find(engine)
    assert row.event == event._replace(content_type="", traceparent=None)
    assert row.last == BOOM._replace(error="\\xe9" * 250, response="\\xe9" * 500)


@pytest.mark.parametrize("text", ["\x1b[31mred\r\n", "\udcff", "a\x00b", "\\", "plain"])
def test_an_answer_is_stored_escaped(engine: Engine, sub: int, text: str) -> None:
    """Control characters, lone surrogates and NUL are stored as visible ASCII, which is harmless on a terminal."""
    park(engine, parked(make_event(1), sub, last=BOOM._replace(response=text)))
    assert [row.last for row in find(engine)] == [BOOM._replace(response=text.encode("unicode_escape").decode())]


def test_parking_again_changes_nothing(engine: Engine, sub: int) -> None:
    """Rows that are parked again after a crash keep their state and attempts."""
    first, second = make_event(1), make_event(2)
    park(engine, parked(first, sub, attempt=3), parked(first, sub))
    assert [row.attempt for row in find(engine)] == [3]
    store.record(engine, GROUP, [result(find(engine)[0], "exhausted")])
    park(engine, parked(second, sub), parked(first, sub))
    assert states(engine) == {1: "exhausted", 2: "parked"}


def test_a_replay_is_another_delivery(engine: Engine, sub: int) -> None:
    """A replay stores a record's delivery again, once, and shares its payload. An assignment ignores it."""
    event = make_event(1)
    for _ in range(2):
        park(engine, parked(event, sub), parked(event, sub, 101.0, replay=4))
    assert [row.replay for row in find(engine)] == [0, 4]
    assert query(engine, "SELECT count(*) FROM webhook_payloads") == [(1,)]
    park(engine, parked(make_event(2), sub, replay=4))
    assert assigned.settled_keys(engine, GROUP, "t", 0, 0).keys == {(1, 1_700_000_000_001, sub)}


def test_settled_keys_come_in_pages_of_whole_records(engine: Engine, sub: int) -> None:
    """Rows of any state are read once each.

    A page holds whole records, so it may exceed its limit by one record's rows.
    """
    subs = [sub, *(repository.add(engine, URL, "user.created") for _ in range(6))]
    of_record = {3: 1, 4: 3, 5: 1, 8: 7, 9: 2, 11: 1}
    rows = [parked(make_event(offset), each) for offset, number in of_record.items() for each in subs[:number]]
    park(engine, *rows, *(parked(make_event(offset), sub, replay=1) for offset in range(12)))
    store.record(engine, GROUP, [result(row, "exhausted") for row in find(engine)[:4]])
    keys = {(row.event.record.offset, row.event.record.timestamp, row.subscription_id) for row in rows}
    assert assigned.settled_keys(engine, GROUP, "t", 0, 0) == Settled(keys, None)
    pages = [assigned.settled_keys(engine, GROUP, "t", 0, 4, 3)]
    while (end := pages[-1].end) is not None:
        pages.append(assigned.settled_keys(engine, GROUP, "t", 0, end, 3))
    assert [sorted({key[0] for key in page.keys}) for page in pages] == [[4], [5], [8], [9, 11]]
    assert [page.end for page in pages] == [5, 8, 9, None]
    assert set().union(*(page.keys for page in pages)) == {key for key in keys if key[0] >= 4}
    assert assigned.settled_keys(engine, GROUP, "t", 0, 12, 3) == Settled(set(), None)


def test_a_payload_is_stored_once_for_each_record(engine: Engine) -> None:
    """All subscriptions share a record's payload, also those parked later, and also in memory."""
    ids = [repository.add(engine, URL, "user.created") for _ in range(20)]
    for some in (ids[:10], ids[10:]):
        park(engine, *(parked(make_event(1, body=b"x" * 100_000), number) for number in some))
    rows = find(engine)
    assert [row.endpoint.subscription_id for row in rows] == ids
    assert len({id(row.event) for row in rows}) == 1
    assert query(engine, "SELECT count(*) FROM webhook_payloads") == [(1,)]


def test_a_record_of_a_re_created_topic_is_another_delivery(engine: Engine, sub: int) -> None:
    """The same offset with another timestamp is another delivery, with its own payload."""
    old = make_event(1, body=b"old")
    new = old._replace(record=old.record._replace(timestamp=5), body=b"new")
    park(engine, parked(old, sub), parked(new, sub, 101.0))
    assert [row.event.body for row in find(engine)] == [b"old", b"new"]


def test_results_are_written(engine: Engine, sub: int) -> None:
    """Delivered and exhausted rows are not due again; a rescheduled one is due later, with one attempt more."""
    park(engine, *(parked(make_event(offset), sub, attempt=offset) for offset in range(3)))
    done, again, dead = find(engine)
    results = [result(dead, "exhausted", error="gone"), result(again, "parked", 3000.0), result(done, "delivered")]
    assert store.record(engine, GROUP, results) == frozenset()
    assert find(engine) == []
    first, last = BOOM._replace(response=None), AttemptFailure("boom", 500, "sorry", 1999.0)
    assert [(row.id, row.attempt, row.first, row.last) for row in find(engine, 3000.0)] == [(again.id, 2, first, last)]
    ended = admin.find(engine, admin.DeliveryQuery(("delivered", "exhausted")), limit=9)
    assert [(row.attempt, row.next_attempt_at, row.first, row.last) for row in ended] == [
        (1, None, None, None),
        (3, None, first, last._replace(error="gone")),
    ]
    assert query(engine, "SELECT last_status FROM webhook_deliveries WHERE status = 'delivered'") == [(200,)]


def test_the_first_failure_is_kept(engine: Engine, sub: int) -> None:
    """Of a row parked without an attempt, the first failed attempt is kept as its first failure."""
    park(engine, parked(make_event(1), sub, attempt=0))
    for error in ("one", "two", "three"):
        store.record(engine, GROUP, [result(find(engine)[0], "parked", 100.0, error=error)])
    (row,) = find(engine)
    assert row.first == AttemptFailure("one", 500, None, 1999.0)
    assert row.last == AttemptFailure("three", 500, "sorry", 1999.0)


def test_a_zombie_overwrites_nothing(engine: Engine, sub: int) -> None:
    """A late result from a worker that has lost the partition is ignored: the new owner's result stands."""
    park(engine, parked(make_event(1), sub))
    (stale,) = find(engine)
    store.record(engine, GROUP, [result(stale, "delivered")])
    late = result(stale, "exhausted")._replace(operation=operation())
    store.record(engine, GROUP, [result(stale, "parked", 1.0), late])
    assert states(engine) == {1: "delivered"}
    assert outbox.pending(engine, GROUP, 10) == []


def test_a_result_is_written_once(engine: Engine, sub: int) -> None:
    """A result written again after a lost answer counts as one attempt."""
    park(engine, parked(make_event(1), sub))
    again = result(find(engine)[0], "parked", 500.0)
    losing_the_answer(engine, lambda: store.record(engine, GROUP, [again]))
    store.record(engine, GROUP, [again])
    assert [row.attempt for row in find(engine)] == [2]


def test_a_late_failure_does_not_resume_a_held_row(engine: Engine, sub: int) -> None:
    """A failure reported after the row was held or exhausted leaves its state; a success counts."""
    park(engine, *(parked(make_event(offset), sub) for offset in range(2)))
    failed, succeeded = find(engine)
    upkeep.disable(engine, GROUP, sub, "410")
    store.record(engine, GROUP, [result(failed, "parked", 1.0), result(succeeded, "delivered")])
    assert states(engine) == {0: "held", 1: "delivered"}
    repository.remove(engine, sub)
    upkeep.reconcile(engine, 3000.0)
    store.record(engine, GROUP, [result(failed, "parked", 1.0)._replace(attempt_before=2)])
    assert states(engine)[0] == "exhausted"


def test_an_exhausted_delivery_is_announced_with_its_row(engine: Engine, sub: int) -> None:
    """The operational event is stored once, in the row's transaction, for a row parked as exhausted or reported so."""
    lost = parked(make_event(1), sub, attempt=2, status="exhausted", operation=operation(1))
    losing_the_answer(engine, lambda: park(engine, lost))
    park(engine, lost, parked(make_event(2), sub))
    ended = result(find(engine)[0], "exhausted")._replace(operation=operation(2))
    losing_the_answer(engine, lambda: store.record(engine, GROUP, [ended]))
    store.record(engine, GROUP, [ended])
    assert [event for _, event, _ in outbox.pending(engine, GROUP, 10)] == [operation(1), operation(2)]


def test_a_stale_result_announces_nothing(engine: Engine, sub: int) -> None:
    """If another owner has parked the row with other attempts, it is not exhausted, and no event is stored."""
    park(engine, parked(make_event(1), sub))
    park(engine, parked(make_event(1), sub, attempt=9, status="exhausted", operation=operation()))
    assert outbox.pending(engine, GROUP, 10) == []


def test_a_conflict_with_another_writer_is_retried(engine: Engine, emulator: OracleEmulator | None, sub: int) -> None:
    """If the unique key refuses a row (ORA-00001), the batch rolls back and is repeated, ten times at most."""
    with refusing(engine, emulator, "INSERT INTO webhook_deliveries", times=3) as refused:
        park(engine, parked(make_event(1), sub))
    assert len(refused) == 3
    assert offsets(find(engine)) == [1]
    with refusing(engine, emulator, "INSERT INTO webhook_deliveries") as refused, pytest.raises(IntegrityError):
        park(engine, parked(make_event(2), sub))
    assert len(refused) == 10
    assert query(engine, "SELECT count(*) FROM webhook_payloads") == [(1,)], "the batch is rolled back"


def test_two_writers_store_a_row_once(engine: Engine, sub: int) -> None:
    """Neither sees the other's row before its commit: the unique key makes the second wait, and it starts again."""
    row = parked(make_event(1), sub)
    park(engine, parked(make_event(1), 999))  # with the payload stored, only the row's unique key is left
    late = threading.Thread(target=park, args=(engine, row))
    with engine.begin() as rival:
        store.insert_new(rival, GROUP, [row], 96.0)
        late.start()
        late.join(0.3)
        assert late.is_alive()
    late.join(60)
    assert not late.is_alive()
    assert query(engine, "SELECT subscription_id FROM webhook_deliveries ORDER BY id") == [(999,), (sub,)]


def test_threads_that_park_record_and_prune_lose_nothing(engine: Engine, sub: int) -> None:
    """With owners and zombies at once, in four threads, each row is in one state and none is missing."""
    rows = [parked(make_event(offset), sub) for offset in range(60)]
    jobs: list[Callable[[], object]] = [
        lambda: park(engine, *rows),
        lambda: park(engine, *rows[::-1]),
        lambda: store.record(engine, GROUP, [result(row, "delivered") for row in find(engine)[::2]]),
        lambda: upkeep.prune(engine, "another", "t", 0, 1000),
    ]
    with ThreadPoolExecutor(len(jobs)) as threads:
        for done in [threads.submit(lambda job=job: [job() for _ in range(5)]) for job in jobs]:  # type: ignore[misc]
            done.result()
    assert sum(counts(engine).values()) == 60


def test_a_subscription_without_a_url_has_its_deliveries_stored(sqlite_engine: Engine) -> None:
    """SQLite accepts an empty url, which Oracle reads as NULL and refuses."""
    park(sqlite_engine, parked(make_event(1), repository.add(sqlite_engine, URL, "user.created"), url=""))
    assert query(sqlite_engine, "SELECT url FROM webhook_deliveries") == [("",)]


def test_unwanted_rows_end_without_an_attempt(engine: Engine, sub: int) -> None:
    """Rows that were held meanwhile do so too. Rows that have ended, perhaps by the same result, stay as they are."""
    park(engine, *(parked(make_event(offset), sub, attempt=0) for offset in range(5)))
    for offset, status in ((1, "held"), (2, "delivered"), (3, "exhausted")):
        run(engine, "UPDATE webhook_deliveries SET status = :s WHERE record_offset = :o", s=status, o=offset)
    ids = [row.id for row in query(engine, "SELECT id FROM webhook_deliveries ORDER BY id")]
    store.record(engine, GROUP, [AttemptResult(each, 0, "unwanted", None, None, None, 2.0) for each in ids[:4]])
    assert query(engine, "SELECT status, attempt, last_error FROM webhook_deliveries ORDER BY id") == [
        *[("delivered", 0, store.UNWANTED)] * 2,
        ("delivered", 0, None),
        ("exhausted", 0, None),
        ("parked", 0, None),
    ]


@pytest.mark.parametrize("body", [b"{}", b"x" * 33_000], ids=["small", "large"])
def test_headers_and_tenant_come_back(engine: Engine, sub: int, body: bytes) -> None:
    """Text of any script, empty values and headers too long for a text column survive, beside a body of either kind."""
    headers = {"ce_type": b"a", "empty": b"", "text": 'Zoë 漢字 \U0001f600 \0 "quoted"'.encode(), "long": b"x" * 20_000}
    events = [
        make_event(0, body=body, headers=headers, tenant="Zoë & Söhne"),
        make_event(1, body=body, headers={"short": b"1"}, tenant="t" * 255, key=b"k"),
        make_event(2, body=body, headers={f"header-{number}": b"v" * 100 for number in range(50)}),
        make_event(3, body=body),
    ]
    park(engine, *(parked(each, sub) for each in events))
    assert [row.event for row in find(engine)] == events


def test_headers_that_are_not_text_are_stored_too(engine: Engine, sub: int) -> None:
    """Null values too, so that they go on with each attempt; expressions see texts alone."""
    headers: list[dict[str, bytes | None]] = [{"a": b"1", "binary": b"\xff", "null": None}, {}, {"binary": b"\xff"}]
    park(engine, *(parked(make_event(offset, headers=each), sub) for offset, each in enumerate(headers)))
    assert [row.event.headers or {} for row in find(engine)] == headers


@pytest.mark.parametrize("edited", ['{"h": 1}', "[1]", '"text"', '{"h": {"base64": "?"}}', '{"h": {"base64": 1}}'])
def test_invalid_stored_headers_are_left_out(engine: Engine, sub: int, edited: str) -> None:
    """Headers broken by plain SQL do not keep the other rows of a fetch from being read."""
    park(engine, parked(make_event(0, headers={"h": b"1"}), sub))
    run(engine, "UPDATE webhook_payloads SET record_headers = :edited", edited=edited)
    assert not find(engine)[0].event.headers
