"""Deliveries that were given up, on their way to the exhausted topic, and back from it.

A row that becomes exhausted names its group in `unpublished_by`, in the same statement, until the topic has its event.
So a crash repeats a record of the topic and loses none, and what waits for the topic costs no memory. That the topic
has it is told by `published_attempt` alone: an older release, or plain SQL, gives rows up without naming the group.
"""

from collections.abc import Sequence
from functools import partial
from operator import itemgetter

import structlog
from sqlalchemy import ColumnElement, Connection, Engine, Select, bindparam, delete, or_, select, update

from consumer.database.engine import reading
from consumer.database.errors import is_outage, translated
from consumer.database.statements import any_of
from consumer.ledger import admin, store, upkeep
from consumer.ledger.admin import StoredDetail
from consumer.ledger.rows import RECORD, NewDelivery, OrderingKey, in_transaction, order_key, record_of, time_of
from consumer.ledger.store import DeliveryKey
from consumer.ledger.upkeep import by_no_index
from models import ParkedDelivery, Status, Subscription

log = structlog.get_logger(__name__)

BATCH_BYTES = 16 * 2**20
_PUBLISHED = (
    update(ParkedDelivery)
    .where(ParkedDelivery.id == bindparam("b_id"), ParkedDelivery.attempt == bindparam("b_attempt"))
    .values(unpublished_by=None, published_attempt=ParkedDelivery.attempt)
)
_RENEWED = _PUBLISHED.values(updated_at=bindparam("b_now", type_=ParkedDelivery.updated_at.type))
_LACKED = (  # by the topic, and no leader knows
    ParkedDelivery.status == Status.EXHAUSTED,
    ParkedDelivery.unpublished_by.is_(None),
    or_(ParkedDelivery.published_attempt.is_(None), ParkedDelivery.published_attempt != ParkedDelivery.attempt),
)
_OLD = (
    ParkedDelivery.status == Status.EXHAUSTED,
    ParkedDelivery.unpublished_by.is_(None),
    ParkedDelivery.published_attempt == ParkedDelivery.attempt,
)
_BEFORE = bindparam("b_before", type_=ParkedDelivery.updated_at.type)
_OWE = update(ParkedDelivery).where(ParkedDelivery.id == bindparam("b_id"), *_LACKED)
_DELETE_OLD = delete(ParkedDelivery).where(
    ParkedDelivery.id == bindparam("b_id"), ParkedDelivery.updated_at < _BEFORE, *_OLD
)


def unpublished(engine: Engine, group: str, most: int, failed: set[int] | None = None) -> list[StoredDetail]:
    """Some deliveries of a group that were given up and that the topic lacks: `most` rows, or BATCH_BYTES of them.

    Each is read alone, so that one that cannot be read, which is logged, does not stop the others. Those in `failed`
    are left out, and such rows are added to it; once no others are left it is emptied, and the next call begins anew.
    """
    failed = set() if failed is None else failed
    exhausted = by_no_index(ParkedDelivery.status == Status.EXHAUSTED)
    with reading(engine) as connection:
        waiting = select(ParkedDelivery.id).where(ParkedDelivery.unpublished_by == group, exhausted)
        there = connection.scalars(waiting.limit(most + len(failed))).all()
    ids = [each for each in there if each not in failed][:most]
    if not ids:
        failed.clear()
    found: list[StoredDetail] = []
    size = 0
    for each in ids:
        try:
            detail = admin.detail(engine, each)
        except Exception as error:
            if is_outage(translated(error)):
                raise
            log.exception("a delivery that was given up cannot be read, nor published", row=each)
            failed.add(each)
            continue
        if detail is not None:  # else it was purged meanwhile
            found.append(detail)
            size += detail.event.size
        if size >= BATCH_BYTES:
            break
    return found


def note_published(engine: Engine, details: Sequence[StoredDetail]) -> None:
    """The topic has these; a row that has been tried again since, and given up again, goes on waiting."""
    with engine.begin() as connection:
        binds = [{"b_id": each.id, "b_attempt": each.attempt} for each, _ in details]
        connection.execute(_PUBLISHED, sorted(binds, key=lambda each: each["b_id"]))


def owe(engine: Engine, group: str, begin: int, end: int) -> int:
    """Let rows of a group among these ids wait for the topic if it lacks them and they do not. Returns their number."""
    with reading(engine) as connection:  # a write would block other writers; usually there is nothing to change
        found = connection.scalars(_of(group, begin, end, *_LACKED)).all()
    if found:
        with engine.begin() as connection:
            connection.execute(_OWE.values(unpublished_by=group), [{"b_id": each} for each in found])
    return len(found)


def purge(engine: Engine, group: str, before: float, begin: int, end: int) -> int:
    """Delete those of a group's rows that were given up before a time and that the topic has, of these ids.

    Deletes payloads left unused too. Returns the number of rows.
    """
    old = ParkedDelivery.updated_at < time_of(before)

    def work(connection: Connection) -> int:
        rows = connection.execute(_of(group, begin, end, old, *_OLD).add_columns(*RECORD)).all()
        if not rows:
            return 0
        # All conditions again: a row that was restored or made due after it was read stays.
        binds = [{"b_id": row.id, "b_before": time_of(before)} for row in rows]
        deleted = connection.execute(_DELETE_OLD, binds).rowcount
        upkeep.drop_payloads(connection, group, {record_of(row) for row in rows})
        return deleted

    return in_transaction(engine, work)


def _of(group: str, begin: int, end: int, *which: ColumnElement[bool]) -> Select[int]:
    theirs = map(by_no_index, (ParkedDelivery.group_id == group, *which))
    return select(ParkedDelivery.id).where(ParkedDelivery.id.between(begin, end), *theirs).order_by(ParkedDelivery.id)


def restore(engine: Engine, group: str, rows: Sequence[NewDelivery], now: float) -> dict[DeliveryKey, int]:
    """The ids of those of the topic's deliveries that are stored as exhausted, once the missing ones are stored again.

    One that has a row in any state is left as it is, and so is one of a removed subscription. The purge leaves these.
    """
    return in_transaction(engine, partial(_restore, group=group, rows=store.in_order(rows), now=now))


def _restore(connection: Connection, *, group: str, rows: Sequence[NewDelivery], now: float) -> dict[DeliveryKey, int]:
    _renew(connection, group, rows, now)  # locks them first: else the purge may delete one that is not inserted then
    theirs = any_of(Subscription.id.expression, sorted({row.subscription_id for row in rows}))
    there = connection.execute(select(Subscription.id, Subscription.ordering).where(theirs))
    ordering = {row.id: row.ordering for row in there}
    missing = [_with_key(row, ordering[row.subscription_id]) for row in rows if row.subscription_id in ordering]
    store.insert_new(connection, group, missing, now)
    return _renew(connection, group, rows, now)


def _renew(connection: Connection, group: str, rows: Sequence[NewDelivery], now: float) -> dict[DeliveryKey, int]:
    """Note that the topic has those that are exhausted, and that they were changed now: they are not old."""
    found = store.exhausted(connection, group, rows)
    if found:
        binds = [{"b_id": row.id, "b_attempt": row.attempt, "b_now": time_of(now)} for row in found.values()]
        connection.execute(_RENEWED, sorted(binds, key=itemgetter("b_id")))
    return {key: row.id for key, row in found.items()}


def _with_key(row: NewDelivery, ordering: str) -> NewDelivery:
    key, place = row.event.key, (row.subscription_id, *row.event.record.topic_partition)
    if ordering != "key" or key is None:
        return row
    return row._replace(ordering_key=OrderingKey(*place, order_key(key, row.replay)))
