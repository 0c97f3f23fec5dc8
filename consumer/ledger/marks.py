"""Marks: what the workers of a group and the commands tell each other about the rows of a partition.

look       another process has made stored deliveries due: the partition's owner looks for them
refused    the database refuses to store a delivery; since when, whichever worker was its owner
published  a person has published a dead letter again; the mark is at its place in that topic, which no worker owns
owned      a worker has taken a partition over; `asked` counts these assignments, and the last one owns the partition
"""

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, Engine, Insert, bindparam, delete, exists, insert, select, update
from sqlalchemy.exc import IntegrityError

from consumer.database.engine import reading
from consumer.database.statements import AnyRow
from consumer.events.event import RecordId, TopicPartition
from consumer.ledger.rows import DueKey, bind, in_transaction, is_bound, time_of, unix
from models import Mark, MarkKind
from models.base import utc_now
from models.mark import ALL_SUBSCRIPTIONS, NO_OFFSET, OWNER_OFFSET

KEPT = 7 * 86400.0  # seconds after which a mark is deleted, whatever it says
OVERLAP = timedelta(minutes=1)  # a mark becomes visible when its transaction commits, perhaps after later marks

_KEY = (Mark.group_id, Mark.topic, Mark.partition_no, Mark.record_offset, Mark.subscription_id)


def _insert(marked_at: ColumnElement[datetime]) -> Insert:
    """Insert marks that are not there yet."""
    return insert(Mark).from_select(
        [*(column.key for column in _KEY), "kind", "marked_at"],
        select(*map(bind, _KEY), bind(Mark.kind), marked_at).where(~exists().where(is_bound(*_KEY))),
        include_defaults=False,
    )


# The database's own time, so that the clocks of those who ask for a look need not agree.
_AGAIN = update(Mark).where(is_bound(*_KEY)).values(asked=Mark.asked + 1, marked_at=utc_now())
_STILL = update(Mark).where(is_bound(*_KEY), Mark.asked == bindparam("b_asked")).values(asked=Mark.asked)
_NEW, _NEW_AT = _insert(utc_now()), _insert(bind(Mark.marked_at))


class RecentMarks(NamedTuple):
    """Due keys to look for, each with its number of requests; and the time of the last mark."""

    due_keys: dict[DueKey, int]
    until: datetime | None


def look(connection: Connection, group: str, due_keys: Collection[DueKey]) -> None:
    """Request a search for due rows of these due keys. Call it last in a transaction: others wait for its locks."""
    if due_keys:
        places = ((*due_key[:2], NO_OFFSET, due_key[2]) for due_key in sorted(due_keys))
        _mark(connection, [_binds(group, place, MarkKind.LOOK) for place in places])


def look_for(connection: Connection, rows: Iterable[AnyRow]) -> None:
    """The same for rows that have just become due, of any groups."""
    by_group: dict[str, set[DueKey]] = {}
    for row in rows:
        by_group.setdefault(row.group_id, set()).add((row.topic, row.partition_no, row.subscription_id))
    for group, due_keys in sorted(by_group.items()):
        look(connection, group, due_keys)


def own(engine: Engine, group: str, partition: TopicPartition) -> int:
    """Note that a partition was assigned to this worker. Returns the number of the assignment.

    It waits for writes of earlier owners that have begun; later ones are refused (`is_owned`).
    """
    binds = _binds(group, (*partition, OWNER_OFFSET, ALL_SUBSCRIPTIONS), MarkKind.OWNED)

    def work(connection: Connection) -> int:
        _mark(connection, [binds])
        return connection.scalars(select(Mark.asked).where(is_bound(*_KEY)), binds).one()

    return in_transaction(engine, work)


def is_owned(connection: Connection, group: str, partition: TopicPartition, assignment: int) -> bool:
    """Whether nobody has taken the partition over since this assignment; nobody does until the transaction ends."""
    binds = _binds(group, (*partition, OWNER_OFFSET, ALL_SUBSCRIPTIONS), MarkKind.OWNED)
    return connection.execute(_STILL, binds | {"b_asked": assignment}).rowcount == 1


def refused_since(engine: Engine, group: str, record: RecordId, subscription_id: int, now: float) -> float:
    """Since when (unix seconds) the database has refused this delivery: `now`, unless an owner noted it before.

    A note that is older than the record is of another record, whose topic was deleted.
    """
    place = (record.topic, record.partition, record.offset, subscription_id)
    binds = _binds(group, place, MarkKind.REFUSED)

    def note(connection: Connection) -> datetime:
        if record.timestamp / 1000 <= now:
            older = Mark.marked_at < time_of(record.timestamp / 1000)
            connection.execute(delete(Mark).where(is_bound(*_KEY), older), binds)
        connection.execute(_NEW_AT, binds | {"b_marked_at": time_of(now)})
        return connection.scalars(select(Mark.marked_at).where(is_bound(*_KEY)), binds).one()

    return unix(in_transaction(engine, note))


def note_published(connection: Connection, group: str, topic: str, places: Iterable[tuple[int, int]]) -> None:
    """Note that the dead letters at these partitions and offsets of the dead-letter topic were published again."""
    _mark(connection, [_binds(group, (topic, *place, ALL_SUBSCRIPTIONS), MarkKind.PUBLISHED) for place in places])


def published(engine: Engine, group: str, topic: str, first: int) -> dict[tuple[int, int], float]:
    """Dead letters from the offset `first` on that were published again in the last KEPT seconds.

    By partition and offset of the dead-letter topic: when, in unix seconds.
    """
    here = (Mark.group_id == group, Mark.topic == topic, Mark.record_offset >= first)
    with reading(engine) as connection:
        rows = connection.execute(select(Mark.partition_no, Mark.record_offset, Mark.marked_at).where(*here))
        return {(row.partition_no, row.record_offset): unix(row.marked_at) for row in rows}


def recent(engine: Engine, group: str, since: datetime | None) -> RecentMarks:
    """A group's requests to look since a time, with an overlap: known ones may be returned again.

    None, for the first call: since the group's latest mark.
    """
    due_keys: dict[DueKey, int] = {}
    until = since
    with reading(engine) as connection:
        if since is None:
            looks = Mark.group_id == group, Mark.kind == MarkKind.LOOK
            since = connection.scalar(select(Mark.marked_at).where(*looks).order_by(Mark.marked_at.desc()).limit(1))
            if since is None:
                return RecentMarks({}, None)
        statement = select(Mark.topic, Mark.partition_no, Mark.subscription_id, Mark.asked, Mark.marked_at).where(
            Mark.group_id == group, Mark.marked_at >= since - OVERLAP, Mark.kind == MarkKind.LOOK
        )
        for row in connection.execute(statement):
            due_keys[row.topic, row.partition_no, row.subscription_id] = row.asked
            until = row.marked_at if until is None else max(until, row.marked_at)
    return RecentMarks(due_keys, until)


def prune(engine: Engine, group: str, topic: str, partition: int, committed: int) -> int:
    """Delete marks of refused deliveries below the committed offset, which no restart reads again.

    Returns their number.
    """
    here = (
        Mark.group_id == group,
        Mark.topic == topic,
        Mark.partition_no == partition,
        Mark.record_offset > NO_OFFSET,
        Mark.record_offset < committed,
    )
    return _delete(engine, *here)


def expire(engine: Engine, group: str, before: float) -> int:
    """Delete marks from before a time (unix seconds), except of owners. Returns their number."""
    return _delete(engine, Mark.group_id == group, Mark.marked_at < time_of(before), Mark.kind != MarkKind.OWNED)


def _binds(group: str, place: tuple[str, int, int, int], kind: MarkKind) -> dict[str, object]:
    return {f"b_{column.key}": value for column, value in zip(_KEY, (group, *place), strict=True)} | {"b_kind": kind}


def _mark(connection: Connection, binds: list[dict[str, object]]) -> None:
    """Write marks, and once more if a rival's transaction has just made one of them.

    Both databases undo the refused statement alone, and the transaction goes on.
    """
    for is_last in (False, True):
        if connection.execute(_AGAIN, binds).rowcount == len(binds):
            return
        try:
            connection.execute(_NEW, binds)
        except IntegrityError:
            if is_last:
                raise
        else:
            return


def _delete(engine: Engine, *which: ColumnElement[bool]) -> int:
    with reading(engine) as connection:  # a write would block other writers; usually there is nothing to delete
        if connection.scalar(select(Mark.topic).where(*which).limit(1)) is None:
            return 0
    with engine.begin() as connection:
        return connection.execute(delete(Mark).where(*which)).rowcount
