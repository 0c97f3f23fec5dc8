"""Stores deliveries that leave memory, and records the attempts of stored ones.

Each function may be repeated after any failure, even a commit whose answer was lost: a row is stored under its unique
key, and a result names the number of attempts before it.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby

from sqlalchemy import Connection, Engine, bindparam, case, exists, insert, or_, select, update

from consumer.database.charset import refuse, shortcoming
from consumer.database.statements import AnyRow, any_of, pieces, pieces_of
from consumer.events.event import Event, RecordId
from consumer.http.urls import redact_url
from consumer.ledger import outbox
from consumer.ledger.ordering import normalise, open_ones
from consumer.ledger.rows import (
    ATTEMPTS,
    BATCH,
    OPEN,
    PAYLOAD,
    RECORD,
    AttemptFailure,
    AttemptResult,
    NewDelivery,
    OperationalEvent,
    OrderingKey,
    bind,
    cut,
    escaped,
    in_transaction,
    is_bound,
    record_binds,
    record_of,
    stored_headers,
    time_of,
    time_or_none,
)
from models import ParkedDelivery, Payload, Status
from models.delivery import CONTENT_TYPE_LENGTH, ERROR_LENGTH, RESPONSE_LENGTH, TRACEPARENT_LENGTH
from models.subscription import TENANT_LENGTH, URL_LENGTH

DeliveryKey = tuple[RecordId, int, int]  # record, subscription, replay: what identifies a delivery

BATCH_BYTES = 16 * 2**20
UNWANTED = "not sent: the filter does not want it"

_DELIVERY = (
    *RECORD,
    ParkedDelivery.subscription_id,
    ParkedDelivery.replay,
    ParkedDelivery.url,
    ParkedDelivery.status,
    ParkedDelivery.next_attempt_at,
    ParkedDelivery.order_key,
    ParkedDelivery.filter_pending,
    ParkedDelivery.created_at,
    ParkedDelivery.updated_at,
    ParkedDelivery.unpublished_by,
    *ATTEMPTS,
)
# VALUES, not SELECT: a body over 4,000 bytes is bound as LONG, which Oracle takes in VALUES only (ORA-01461).
_INSERT_PAYLOAD = insert(Payload).values({column.key: bind(column) for column in PAYLOAD})
_URL = pieces_of("b_url", URL_LENGTH)
_RESPONSE = pieces_of("b_last_response", RESPONSE_LENGTH)
_LONG = {"url": _URL, "last_response": _RESPONSE}
_INSERT_DELIVERY = insert(ParkedDelivery).from_select(
    [column.key for column in _DELIVERY],
    select(*(_LONG.get(column.key, bind(column)) for column in _DELIVERY)).where(
        ~exists().where(is_bound(*RECORD, ParkedDelivery.subscription_id, ParkedDelivery.replay))
    ),
    include_defaults=False,
)
_SEEN = (ParkedDelivery.id == bindparam("b_id"), ParkedDelivery.attempt == bindparam("b_attempt"))
_UNTRIED = ParkedDelivery.attempt == 0
_MADE = {
    "attempt": bindparam("b_made", type_=ParkedDelivery.attempt.type),
    "next_attempt_at": bind(ParkedDelivery.next_attempt_at),
    "last_attempt_at": bind(ParkedDelivery.last_attempt_at),
    "last_error": bind(ParkedDelivery.last_error),
    "last_status": bind(ParkedDelivery.last_status),
    "last_response": _RESPONSE,
    "updated_at": bindparam("b_at", type_=ParkedDelivery.updated_at.type),
    # Column and bind have one type, null or not: Oracle refuses CASE of two (ORA-00932).
    **{
        first.key: case((_UNTRIED, bind(last)), else_=first)
        for first, last in (
            (ParkedDelivery.first_attempt_at, ParkedDelivery.last_attempt_at),
            (ParkedDelivery.first_error, ParkedDelivery.last_error),
            (ParkedDelivery.first_status, ParkedDelivery.last_status),
        )
    },
}
_SCHEDULE = bindparam("b_schedule_start", type_=ParkedDelivery.schedule_start.type)
_SAME = (*_SEEN, ParkedDelivery.schedule_start == _SCHEDULE)
_RESCHEDULE = update(ParkedDelivery).where(*_SAME).values(_MADE)
_GIVE_UP = (
    update(ParkedDelivery)
    .where(*_SAME)
    .values(_MADE | {"status": bind(ParkedDelivery.status), "unpublished_by": ParkedDelivery.group_id})
)
_DELIVERED = update(ParkedDelivery).where(*_SEEN).values(_MADE | {"status": bind(ParkedDelivery.status)})
_UNWANTED = (  # counts no attempt, so the attempt count does not reveal a repetition
    update(ParkedDelivery)
    .where(*_SEEN, or_(*(ParkedDelivery.status == state for state in OPEN)))  # executemany cannot bind IN
    .values(
        status=Status.DELIVERED,
        next_attempt_at=None,
        last_error=UNWANTED,
        updated_at=bindparam("b_at", type_=ParkedDelivery.updated_at.type),
    )
)
# A redelivery was requested during this attempt: the attempt counts, but neither ends nor delays the redelivery.
_LATE = (
    update(ParkedDelivery)
    .where(*_SEEN, ParkedDelivery.schedule_start != _SCHEDULE)
    .values({name: value for name, value in _MADE.items() if name != "next_attempt_at"})
    .values(schedule_start=ParkedDelivery.schedule_start + 1)
)


def park(engine: Engine, group: str, rows: Sequence[NewDelivery], now: float) -> None:
    """Store deliveries. A delivery that is already stored, in any state, stays as it is.

    When this returns, all of `rows` are committed; when it raises, some may be. A delivery behind an open one of its
    ordering key is blocked. The operational event of an exhausted delivery is written with it, also if the same row was
    stored before.
    """
    for batch in _batches(in_order(rows)):
        in_transaction(engine, partial(insert_new, group=group, rows=batch, now=now))


def record(engine: Engine, group: str, results: Sequence[AttemptResult]) -> frozenset[OrderingKey]:
    """Write the results of attempts. A row whose attempt count a later owner has changed is left alone.

    `parked` reschedules and leaves the state alone: a row that was held or exhausted meanwhile stays so. A failure on a
    schedule that a redelivery has replaced meanwhile only counts as an attempt. The operational event is written only
    if the row is exhausted after exactly this many attempts. Returns the ordering keys in `results` that have no open
    rows any more.
    """
    return in_transaction(engine, partial(_record, group=group, results=results))


def check(engine: Engine, event: Event) -> None:
    """Raise Unstorable if the database's character set lacks a character of the event."""
    if shortcoming(engine) is not None:
        refuse(engine, _payload_binds("", event))


def in_order(rows: Sequence[NewDelivery]) -> list[NewDelivery]:
    """Each delivery once, in an order common to all processes: two of them with the same rows do not deadlock."""
    unique = {key_of(row): row for row in reversed(rows)}
    return [unique[key] for key in sorted(unique)]


def key_of(row: NewDelivery) -> DeliveryKey:
    """What identifies a delivery within its group."""
    return row.event.record, row.subscription_id, row.replay


def insert_new(connection: Connection, group: str, rows: Sequence[NewDelivery], now: float) -> None:
    """Store the deliveries that are not stored yet, in the transaction of `connection`.

    1. Find the stored payloads. 2. Insert the missing ones. 3. Insert the missing rows. 4. Put their ordering keys in
    order. 5. Write the operational events of exhausted rows. Between 1 and the commit another process may insert the
    same payload or row (unique key) or delete a payload (foreign key): the database then refuses a statement, and
    `in_transaction` begins again.
    """
    events = {row.event.record: row.event for row in rows}
    missing = events.keys() - _stored_records(connection, group, events)
    if missing:
        connection.execute(_INSERT_PAYLOAD, [_payload_binds(group, events[record]) for record in sorted(missing)])
    if rows:
        connection.execute(_INSERT_DELIVERY, [_delivery_binds(group, row, now) for row in rows])
    normalise(connection, group, {row.ordering_key for row in rows if row.ordering_key is not None}, now)
    outbox.add(connection, group, _announced(connection, group, [row for row in rows if row.operation]))


def _record(connection: Connection, group: str, results: Sequence[AttemptResult]) -> frozenset[OrderingKey]:
    ordered = sorted(results, key=lambda result: result.id)
    unwanted = [_result_binds(result) for result in ordered if result.status == "unwanted"]
    again = [_result_binds(result) for result in ordered if result.status == "parked"]
    given_up = [_result_binds(result) for result in ordered if result.status == "exhausted"]
    delivered = [_result_binds(result) for result in ordered if result.status == "delivered"]
    if len({result.status for result in ordered}) > 1:  # each status has a statement: lock all rows by id before
        mine = any_of(ParkedDelivery.id.expression, [result.id for result in ordered])
        connection.execute(select(ParkedDelivery.id).where(mine).order_by(ParkedDelivery.id).with_for_update()).all()
    for statement, binds in ((_DELIVERED, delivered), (_UNWANTED, unwanted)):
        if binds:
            connection.execute(statement, binds)
    for statement, binds in ((_RESCHEDULE, again), (_GIVE_UP, given_up)):
        if binds and connection.execute(statement, binds).rowcount < len(binds):
            connection.execute(_LATE, binds)
    announced = {result.id: result for result in ordered if result.operation is not None}
    if announced:
        exhausted = _exhausted_after(connection, sorted(announced))
        outbox.add(
            connection,
            group,
            [
                result.operation
                for result in announced.values()
                if result.operation and (result.id, result.attempt_before + 1) in exhausted
            ],
        )
    ordering_keys = {result.ordering_key for result in results if result.ordering_key is not None}
    if not ordering_keys:
        return frozenset()
    normalise(connection, group, ordering_keys, max(result.at for result in results))
    return frozenset(ordering_keys) - open_ones(connection, group, ordering_keys)


def _exhausted_after(connection: Connection, ids: Sequence[int]) -> set[tuple[int, int]]:
    """Id and attempt count of the exhausted rows among `ids`."""
    statement = select(ParkedDelivery.id, ParkedDelivery.attempt).where(
        any_of(ParkedDelivery.id.expression, ids), ParkedDelivery.status == Status.EXHAUSTED
    )
    return {(row.id, row.attempt) for row in connection.execute(statement)}


def _announced(connection: Connection, group: str, rows: Sequence[NewDelivery]) -> list[OperationalEvent]:
    """The operational events of rows that are stored as exhausted with the same number of attempts."""
    stored = {(*key, row.attempt) for key, row in exhausted(connection, group, rows).items()}
    return [row.operation for row in rows if row.operation and (*key_of(row), row.attempt) in stored]


def exhausted(connection: Connection, group: str, rows: Sequence[NewDelivery]) -> dict[DeliveryKey, AnyRow]:
    """The rows (id, attempt) of those deliveries, which are `in_order`, that are stored as exhausted."""
    wanted = set(map(key_of, rows))
    stored: dict[DeliveryKey, AnyRow] = {}
    for (topic, partition), here in groupby(rows, lambda row: row.event.record.topic_partition):
        statement = select(
            ParkedDelivery.id,
            *RECORD,
            ParkedDelivery.subscription_id,
            ParkedDelivery.replay,
            ParkedDelivery.attempt,
        ).where(
            ParkedDelivery.group_id == group,
            ParkedDelivery.topic == topic,
            ParkedDelivery.partition_no == partition,
            any_of(ParkedDelivery.record_offset.expression, sorted({row.event.record.offset for row in here})),
            ParkedDelivery.status == Status.EXHAUSTED,
        )
        stored |= {(record_of(row), row.subscription_id, row.replay): row for row in connection.execute(statement)}
    return {key: row for key, row in stored.items() if key in wanted}


def _batches(rows: Sequence[NewDelivery]) -> Iterator[Sequence[NewDelivery]]:
    start, size, last = 0, 0, None
    for position, row in enumerate(rows):
        if row.event.record != last:
            last, size = row.event.record, size + row.event.size
        if position > start and (position - start == BATCH or size > BATCH_BYTES):
            yield rows[start:position]
            start, size = position, row.event.size
    if rows:
        yield rows[start:]


def _stored_records(connection: Connection, group: str, records: Collection[RecordId]) -> set[RecordId]:
    stored = set()
    for (topic, partition), ids in groupby(sorted(records), lambda record: record.topic_partition):
        offsets = sorted({record.offset for record in ids})
        statement = select(Payload.record_offset, Payload.record_ts).where(
            Payload.group_id == group,
            Payload.topic == topic,
            Payload.partition_no == partition,
            any_of(Payload.record_offset.expression, offsets),
        )
        for row in connection.execute(statement):
            stored.add(RecordId(topic, partition, row.record_offset, row.record_ts))
    return stored


def _payload_binds(group: str, event: Event) -> dict[str, object]:
    return record_binds(group, event.record) | {
        "b_event_type": event.type,
        "b_webhook_id": event.webhook_id,
        # A header longer than its column would hold up its partition for ever: the delivery is sent without the header.
        "b_content_type": event.content_type if len(event.content_type) <= CONTENT_TYPE_LENGTH else None,
        "b_traceparent": event.traceparent if len(event.traceparent or "") <= TRACEPARENT_LENGTH else None,
        "b_has_key": int(event.key is not None),
        "b_body_size": len(event.body),
        "b_tenant": event.tenant if len(event.tenant or "") <= TENANT_LENGTH else None,
        "b_record_key": event.key,
        "b_record_headers": stored_headers(event.headers) if event.headers else None,
        "b_body": event.body,
    }


def _delivery_binds(group: str, row: NewDelivery, now: float) -> dict[str, object]:
    first, last = row.first, row.last
    return (
        record_binds(group, row.event.record)
        | {
            "b_subscription_id": row.subscription_id,
            "b_replay": row.replay,
            "b_status": row.status,
            "b_next_attempt_at": time_or_none(row.next_attempt_at),
            "b_order_key": row.ordering_key.key if row.ordering_key else None,
            "b_filter_pending": int(row.filter_pending),
            "b_created_at": time_of(now),
            "b_updated_at": time_of(now),
            "b_unpublished_by": group if row.status == "exhausted" else None,
            "b_attempt": row.attempt,
            "b_schedule_start": row.schedule_start,
            "b_first_attempt_at": time_of(first.at) if first else None,
            "b_first_error": cut(first.error, ERROR_LENGTH) if first else None,
            "b_first_status": first.status if first else None,
        }
        | pieces("b_url", URL_LENGTH, cut(redact_url(row.url), URL_LENGTH))
        | _failure_binds(last)
    )


def _result_binds(result: AttemptResult) -> Mapping[str, object]:
    return _failure_binds(result.failure) | {
        "b_id": result.id,
        "b_attempt": result.attempt_before,
        "b_made": result.attempt_before + 1,
        "b_schedule_start": result.schedule_start,
        "b_status": result.status,
        "b_next_attempt_at": time_or_none(result.next_attempt_at),
        "b_last_attempt_at": time_of(result.failure.at if result.failure else result.at),
        "b_last_status": result.status_code,
        "b_at": time_of(result.at),
    }


def _failure_binds(failure: AttemptFailure | None) -> dict[str, object]:
    binds: dict[str, object] = {
        "b_last_attempt_at": time_of(failure.at) if failure else None,
        "b_last_error": cut(failure.error, ERROR_LENGTH) if failure else None,
        "b_last_status": failure.status if failure else None,
    }
    response = escaped(failure.response, RESPONSE_LENGTH) if failure else None
    return binds | pieces("b_last_response", RESPONSE_LENGTH, response)
