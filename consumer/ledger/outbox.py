"""The outbox of operational events: written in the transaction that they report, deleted once published."""

import json
from collections.abc import Mapping, Sequence
from uuid import uuid4

import orjson
from sqlalchemy import Connection, Engine, bindparam, delete, insert, select

from consumer.database.engine import reading
from consumer.database.statements import any_of
from consumer.ledger.rows import BATCH, OperationalEvent, in_batches, unix
from models import StoredOperation

KEPT = 7 * 86400.0  # seconds that an event waits to be published: Kafka's default retention

_DELETE = delete(StoredOperation).where(StoredOperation.id == bindparam("b_id"))


def add(connection: Connection, group: str, operations: Sequence[OperationalEvent]) -> None:
    """Write events in the transaction of `connection`. An unpublished event with the same id stays as it is."""
    by_id = {operation.event_id: operation for operation in operations}
    if not by_id:
        return
    waiting = select(StoredOperation.event_id).where(
        StoredOperation.group_id == group, any_of(StoredOperation.event_id.expression, sorted(by_id))
    )
    present = set(connection.execute(waiting).scalars())
    rows = [
        {
            "group_id": group,
            "event_id": operation.event_id,
            "event_type": operation.type,
            "data": json.dumps(operation.data),
        }
        for operation in by_id.values()
        if operation.event_id not in present
    ]
    if rows:
        connection.execute(insert(StoredOperation), rows)


def tell(connection: Connection, group: str, kind: str, data: Mapping[str, object]) -> None:
    """Write one event, with a new id, in the transaction of `connection`."""
    add(connection, group, [OperationalEvent(kind, f"{kind}-{uuid4().hex}", data)])


def pending(engine: Engine, group: str, limit: int) -> list[tuple[int, OperationalEvent, float]]:
    """Unpublished events, oldest first: row id, event and the time it was written (unix seconds)."""
    statement = (
        select(
            StoredOperation.id,
            StoredOperation.event_id,
            StoredOperation.event_type,
            StoredOperation.created_at,
            StoredOperation.data,
        )
        .where(StoredOperation.group_id == group)
        .order_by(StoredOperation.id)
        .limit(limit)
    )
    with reading(engine) as connection:
        return [
            (row.id, OperationalEvent(row.event_type, row.event_id, _data(row.data)), unix(row.created_at))
            for row in connection.execute(statement)
        ]


def _data(text: str) -> dict[str, object]:
    """The data, or a text that a person's SQL has put in its place."""
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        found = None
    return found if isinstance(found, dict) else {"unreadable": text}


def forget(engine: Engine, ids: Sequence[int]) -> None:
    """Delete events by row id, once they are published."""
    for some in in_batches(ids):
        with engine.begin() as connection:
            connection.execute(_DELETE, [{"b_id": row} for row in some])


def expire(engine: Engine, group: str, before: float) -> int:
    """Delete unpublished events written before a time (unix seconds), at most BATCH. Returns their number."""
    oldest = (
        select(StoredOperation.id, StoredOperation.created_at)
        .where(StoredOperation.group_id == group)
        .order_by(StoredOperation.id)
        .limit(BATCH)
    )
    with reading(engine) as connection:
        expired = [row.id for row in connection.execute(oldest) if unix(row.created_at) < before]
    forget(engine, expired)
    return len(expired)
