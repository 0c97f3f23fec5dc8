"""Deliveries that left memory: the only writer of `webhook_deliveries` and `webhook_payloads`.

Functions over an engine, for the database thread. Times are unix seconds. Each may be repeated after any failure: a
row is parked under its unique key, an update names the attempt it has seen, the rest says what is to be, not what to
add.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, Literal, NamedTuple

import structlog
from sqlalchemy import Connection, Engine, Row
from sqlalchemy.exc import IntegrityError

from consumer.database import padded, reading
from consumer.delivery import statements as sql
from consumer.endpoint import Endpoint
from consumer.event import Event, RecordId
from consumer.vault import signing_keys
from models import Status
from models.delivery import CONTENT_TYPE_LENGTH, ERROR_LENGTH, TRACEPARENT_LENGTH
from models.subscription import REASON_LENGTH, URL_LENGTH

log = structlog.get_logger(__name__)

BATCH = 1000  # rows of a transaction: an array bind of this size takes some 30 ms
BATCH_BYTES = 16 * 2**20
RIVALS = 10  # times that another process may park one of our rows in the middle of our transaction
POSTPONED = 60.0  # seconds that a row waits whose subscription's secrets cannot be used
REMOVED = "the subscription was removed"


class NewDelivery(NamedTuple):
    """A delivery to store. `attempt` counts those made; `next_attempt_at` is for `parked`."""

    event: Event
    subscription_id: int
    url: str
    attempt: int
    status: Literal["parked", "exhausted"]
    next_attempt_at: float | None
    first_attempt_at: float | None
    last_error: str | None
    last_status: int | None


@dataclass(frozen=True, slots=True)
class DueDelivery:
    """A stored delivery to send now: `attempt` attempts have been made."""

    id: int
    event: Event
    endpoint: Endpoint
    attempt: int
    first_attempt_at: float | None


class AttemptResult(NamedTuple):
    """What came of one more attempt, made at `at`, of the row `id` after `attempt_before` others."""

    id: int
    attempt_before: int
    status: Literal["delivered", "parked", "exhausted"]
    next_attempt_at: float | None
    last_error: str | None
    last_status: int | None
    at: float


class Reconciled(NamedTuple):
    """How many rows followed their subscriptions."""

    held: int
    resumed: int
    exhausted: int


def park(engine: Engine, group: str, rows: Sequence[NewDelivery]) -> None:
    """Store deliveries. One that is stored already, in whatever state, stays as it is.

    When this returns, all of `rows` are committed; when it raises, some may be.
    """
    unique = {(row.event.record, row.subscription_id): row for row in reversed(rows)}
    # In one order everywhere: two processes with the same rows wait for each other and do not deadlock.
    for batch in _batches([unique[key] for key in sorted(unique)]):
        _park(engine, group, batch)


def due(
    engine: Engine,
    group: str,
    owned: Mapping[str, Sequence[int]],
    now: float,
    limit: int,
    full: Collection[int],
    default_secrets: tuple[bytes, ...],
    decrypt: Callable[[str], bytes],
    *,
    taken: Collection[int] = (),
    most_bytes: int = BATCH_BYTES,
) -> list[DueDelivery]:
    """Rows of the owned partitions (topic to numbers) that are due at `now`, oldest due first, at most `limit`.

    Left out: subscriptions in `full`, row ids in `taken`, disabled and removed subscriptions. Fewer rows come where
    their bodies together pass `most_bytes` (a record's body counts once and is shared). A row whose subscription has no
    usable secret is postponed by a minute.
    """
    if not any(owned.values()):
        return []
    with reading(engine) as connection:
        found = connection.execute(sql.due(group, owned, _time(now), padded(limit + len(taken)), full)).all()
        skip = frozenset(taken)
        rows = _within([row for row in found if row.id not in skip][:limit], most_bytes)
        if not rows:
            return []
        secrets = _stored_secrets(connection, sorted({row.subscription_id for row in rows}))
        events = _events(connection, {_record(row): row.id for row in rows})
    endpoints: dict[int, Endpoint] = {}
    unusable: dict[int, str] = {}
    for row in rows:
        if row.subscription_id not in endpoints and row.subscription_id not in unusable:
            stored = secrets.get(row.subscription_id, [])
            try:
                keys = signing_keys(stored, default_secrets, decrypt, _time(now))
            except ValueError as error:
                unusable[row.subscription_id] = str(error)
            else:
                endpoints[row.subscription_id] = Endpoint(row.subscription_id, row.url, keys)
    if unusable:
        _postpone(engine, [row.id for row in rows if row.subscription_id in unusable], now + POSTPONED)
        log.error("stored deliveries postponed", reasons=unusable)
    return [
        DueDelivery(
            row.id, events[_record(row)], endpoints[row.subscription_id], row.attempt, _unix(row.first_attempt_at)
        )
        for row in rows
        if row.subscription_id in endpoints
    ]


def next_due_at(
    engine: Engine, group: str, owned: Mapping[str, Sequence[int]], after: float | None = None
) -> float | None:
    """When the first row of the owned partitions is due (later than `after`, if given), or None if none waits."""
    if not any(owned.values()):
        return None
    with reading(engine) as connection:
        return _unix(connection.scalar(sql.next_due(group, owned, _time_or_none(after))))


def record(engine: Engine, results: Sequence[AttemptResult]) -> None:
    """Write what came of attempts. A row whose attempt count a later owner has moved stays as that owner left it.

    `parked` reschedules and leaves the state alone: a row that was held or exhausted meanwhile stays so.
    """
    rows = [
        {
            "b_id": result.id,
            "b_attempt": result.attempt_before,
            "b_made": result.attempt_before + 1,
            "b_status": result.status,
            "b_next_attempt_at": _time_or_none(result.next_attempt_at),
            "b_last_error": _cut(result.last_error, ERROR_LENGTH),
            "b_last_status": result.last_status,
            "b_at": _time(result.at),
        }
        for result in sorted(results, key=lambda result: result.id)
    ]
    first = [row for row in rows if row["b_attempt"] == 0]
    again = [row for row in rows if row["b_status"] == "parked"]
    ended = [row for row in rows if row["b_status"] != "parked"]
    with engine.begin() as connection:
        for statement, parameters in ((sql.FIRST, first), (sql.RESCHEDULE, again), (sql.END, ended)):
            if parameters:
                connection.execute(statement, parameters)


def settled_keys(engine: Engine, group: str, topic: str, partition: int, from_offset: int) -> set[tuple[int, int, int]]:
    """(offset, record timestamp, subscription) of every row at or above an offset, in any state; replays are not."""
    with reading(engine) as connection:
        rows = connection.execute(sql.settled(group, topic, partition, from_offset))
        return {(row.record_offset, row.record_ts, row.subscription_id) for row in rows}


def disable_subscription(engine: Engine, subscription_id: int, reason: str) -> None:
    """Disable a subscription (its receiver answered 410); its parked deliveries are held."""
    with engine.begin() as connection:
        connection.execute(sql.disable(subscription_id, _cut(reason, REASON_LENGTH)))
    _in_batches(engine, sql.hold(subscription_id))


def exhaust_for_removed(engine: Engine) -> int:
    """Give up what is parked or held for subscriptions that are no more. The number of rows."""
    return _in_batches(engine, sql.exhaust_removed(REMOVED))


def reconcile(engine: Engine, now: float) -> Reconciled:
    """Let rows follow their subscriptions, however changed: disabled holds, enabled resumes, removed exhausts.

    Sending does not depend on it (`due` looks at the subscription itself); call it every minute or so.
    """
    return Reconciled(
        held=_in_batches(engine, sql.hold(None)),
        resumed=_in_batches(engine, sql.resume(_time(now))),
        exhausted=exhaust_for_removed(engine),
    )


def prune(engine: Engine, group: str, topic: str, partition: int, committed: int, limit: int = BATCH) -> int:
    """Delete delivered rows below the committed offset, and the payloads they leave unused. The number of rows.

    They were kept so that a restart finds them settled; below the committed offset nobody asks any more.
    """
    with engine.begin() as connection:
        rows = connection.execute(sql.prunable(group, topic, partition, committed, limit)).all()
        if rows:
            connection.execute(sql.DELETE_DELIVERED, [{"b_id": row.id} for row in rows])
            records = {_record(row) for row in rows}
            connection.execute(sql.DELETE_PAYLOAD, [_record_binds(group, record) for record in sorted(records)])
    return len(rows)


def counts(engine: Engine, group: str) -> dict[str, int]:
    """Rows of the group by status; every status is a key."""
    with reading(engine) as connection:
        found = Counter({row.status: row.number for row in connection.execute(sql.counts(group))})
    return {status.value: found[status.value] for status in Status}


def _park(engine: Engine, group: str, rows: Sequence[NewDelivery]) -> None:
    """1. Which payloads are there? 2. Insert the others. 3. Insert the rows that are not there. 4. Commit.

    Between 1 and 4 another process may insert the same payload or row (unique key) or delete a payload (foreign key):
    the database refuses, and we begin again.
    """
    deliveries = [_delivery_binds(group, row) for row in rows]
    events = {row.event.record: row.event for row in rows}
    for rival in range(RIVALS):
        try:
            with engine.begin() as connection:
                missing = events.keys() - _stored_records(connection, group, events)
                if missing:
                    payloads = [_payload_binds(group, events[record]) for record in sorted(missing)]
                    connection.execute(sql.INSERT_PAYLOAD, payloads)
                connection.execute(sql.INSERT_DELIVERY, deliveries)
        except IntegrityError:
            if rival == RIVALS - 1:
                raise
        else:
            return


def _batches(rows: Sequence[NewDelivery]) -> Iterator[Sequence[NewDelivery]]:
    start, size, last = 0, 0, None
    for position, row in enumerate(rows):
        if row.event.record != last:
            last, size = row.event.record, size + len(row.event.body)
        if position > start and (position - start == BATCH or size > BATCH_BYTES):
            yield rows[start:position]
            start, size = position, len(row.event.body)
    if rows:
        yield rows[start:]


def _stored_records(connection: Connection, group: str, records: Collection[RecordId]) -> set[RecordId]:
    stored = set()
    for (topic, partition), ids in groupby(sorted(records), lambda record: (record.topic, record.partition)):
        offsets = sorted({record.offset for record in ids})
        for row in connection.execute(sql.payload_keys(group, topic, partition, offsets)):
            stored.add(RecordId(topic, partition, row.record_offset, row.record_ts))
    return stored


def _stored_secrets(connection: Connection, ids: Sequence[int]) -> dict[int, list[tuple[str, datetime | None]]]:
    found: dict[int, list[tuple[str, datetime | None]]] = {}
    for row in connection.execute(sql.secrets(ids)):
        found.setdefault(row.subscription_id, []).append((row.secret, row.expires_at))
    return found


def _events(connection: Connection, deliveries: Mapping[RecordId, int]) -> dict[RecordId, Event]:
    """The events of records, each named by one of its deliveries."""
    events = {}
    for row in connection.execute(sql.payloads(sorted(deliveries.values()))):
        key = (row.record_key or b"") if row.has_key else None
        content_type = row.content_type or ""
        events[_record(row)] = Event(
            _record(row), row.event_type, row.webhook_id, row.body or b"", content_type, key, row.traceparent
        )
    return events


def _within(rows: Sequence[Row[Any]], most_bytes: int) -> Sequence[Row[Any]]:
    """As many rows from the front as have bodies of `most_bytes` together; at least one."""
    total, counted = 0, set()
    for position, row in enumerate(rows):
        if _record(row) not in counted:
            counted.add(_record(row))
            total += row.body_size
            if position and total > most_bytes:
                return rows[:position]
    return rows


def _postpone(engine: Engine, ids: Sequence[int], until: float) -> None:
    with engine.begin() as connection:
        connection.execute(sql.POSTPONE, [{"b_id": row, "b_next_attempt_at": _time(until)} for row in ids])


def _in_batches(engine: Engine, change: sql.Change) -> int:
    """Apply a change to all rows that call for it, some thousand in each transaction."""
    changed = 0
    while True:
        with engine.begin() as connection:
            ids = connection.execute(change.rows).scalars().all()
            if ids:
                connection.execute(change.update, [{"b_id": row} for row in ids])
        changed += len(ids)
        if len(ids) < sql.CHANGED_AT_ONCE:
            return changed


def _record(row: Row[Any]) -> RecordId:
    return RecordId(row.topic, row.partition_no, row.record_offset, row.record_ts)


def _record_binds(group: str, record: RecordId) -> dict[str, object]:
    return {
        "b_group_id": group,
        "b_topic": record.topic,
        "b_partition_no": record.partition,
        "b_record_offset": record.offset,
        "b_record_ts": record.timestamp,
    }


def _payload_binds(group: str, event: Event) -> dict[str, object]:
    return _record_binds(group, event.record) | {
        "b_event_type": event.type,
        "b_webhook_id": event.webhook_id,
        # A header that is longer than its column would hold its partition for ever: the delivery goes without it.
        "b_content_type": event.content_type if len(event.content_type) <= CONTENT_TYPE_LENGTH else None,
        "b_traceparent": event.traceparent if len(event.traceparent or "") <= TRACEPARENT_LENGTH else None,
        "b_has_key": int(event.key is not None),
        "b_body_size": len(event.body),
        "b_record_key": event.key,
        "b_body": event.body,
    }


def _delivery_binds(group: str, row: NewDelivery) -> dict[str, object]:
    return _record_binds(group, row.event.record) | {
        "b_subscription_id": row.subscription_id,
        "b_url": _cut(row.url, URL_LENGTH),
        "b_status": row.status,
        "b_attempt": row.attempt,
        "b_next_attempt_at": _time_or_none(row.next_attempt_at),
        "b_first_attempt_at": _time_or_none(row.first_attempt_at),
        "b_last_error": _cut(row.last_error, ERROR_LENGTH),
        "b_last_status": row.last_status,
    }


def _cut(text: str | None, length: int) -> str | None:
    """Text that fits its column whatever the database's character set."""
    return text.encode("ascii", "backslashreplace").decode()[:length] if text else None


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _time_or_none(seconds: float | None) -> datetime | None:
    return None if seconds is None else _time(seconds)


def _unix(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()
