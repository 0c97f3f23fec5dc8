"""Marks: requests of the command line, the API and other workers, which a partition's owner carries out.

A mark (its `wish`) either requests a search for stored deliveries that were made due, or decides on a delivery that the
database refuses: write its record to the dead-letter topic, or give it up. Dead letters that people have published
again are noted here too, at their place in that topic, which no worker owns. The times are the database's own, so that
the writers' clocks need not agree.
"""

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, Engine, delete, exists, insert, or_, select, update

from consumer.database.engine import reading
from consumer.ledger.columns import AnyRow, bind, in_transaction, is_bound, time_of, unix
from consumer.ledger.rows import DueKey
from models import Mark, Wish
from models.base import utc_now
from models.mark import ALL_SUBSCRIPTIONS, NO_OFFSET

KEPT = 7 * 86400.0  # seconds after which a decision that no worker could carry out is deleted
OVERLAP = timedelta(minutes=1)  # a mark becomes visible when its transaction commits, perhaps after later marks
DECISIONS = (Wish.DEAD_LETTER, Wish.GIVE_UP)

_KEY = (Mark.group_id, Mark.topic, Mark.partition_no, Mark.record_offset, Mark.subscription_id)
_AGAIN = (
    update(Mark)
    .where(is_bound(*_KEY))
    .values(wish=bind(Mark.wish), asked=Mark.asked + 1, marked_at=utc_now(), done_at=None)
)
_NEW = insert(Mark).from_select(
    [*(column.key for column in _KEY), "wish"],
    select(*map(bind, _KEY), bind(Mark.wish)).where(~exists().where(is_bound(*_KEY))),
    include_defaults=False,
)


class Subject(NamedTuple):
    """The subject of a decision: a record's delivery to a subscription, or to all of them (ALL_SUBSCRIPTIONS)."""

    topic: str
    partition: int
    offset: int
    subscription_id: int


class RecentMarks(NamedTuple):
    """Recent due keys to search and decisions, each with its number of requests; and the time of the last mark."""

    due_keys: dict[DueKey, int]
    decisions: dict[Subject, int]
    until: datetime | None


class Decision(NamedTuple):
    """A decision as it stands; times are unix seconds."""

    wish: Wish
    marked_at: float
    done_at: float | None


def look(connection: Connection, group: str, due_keys: Collection[DueKey]) -> None:
    """Request a search for due rows of these due keys. Call it last in a transaction: others wait for its locks."""
    if due_keys:
        _mark(connection, group, ((*due_key[:2], NO_OFFSET, due_key[2]) for due_key in sorted(due_keys)), Wish.LOOK)


def look_for(connection: Connection, rows: Iterable[AnyRow]) -> None:
    """The same for rows that have just become due, of any groups."""
    by_group: dict[str, set[DueKey]] = {}
    for row in rows:
        by_group.setdefault(row.group_id, set()).add((row.topic, row.partition_no, row.subscription_id))
    for group, due_keys in sorted(by_group.items()):
        look(connection, group, due_keys)


def decide(engine: Engine, group: str, subject: Subject, wish: Wish) -> None:
    """Record a decision on a delivery that the database refuses. The last decision counts."""
    in_transaction(engine, lambda connection: _mark(connection, group, [subject], wish))


def decision(engine: Engine, group: str, subject: Subject) -> Decision | None:
    """The decision on a delivery, made for it alone or for all deliveries of its record."""
    statement = select(Mark.subscription_id, Mark.wish, Mark.marked_at, Mark.done_at).where(*_of(group, subject))
    with reading(engine) as connection:
        rows = {row.subscription_id: row for row in connection.execute(statement)}
    row = rows.get(subject.subscription_id) or rows.get(ALL_SUBSCRIPTIONS)
    return Decision(Wish(row.wish), unix(row.marked_at), unix(row.done_at)) if row else None


def acted(engine: Engine, group: str, subject: Subject) -> None:
    """Note that a worker has carried out a decision."""
    with engine.begin() as connection:
        connection.execute(update(Mark).where(*_of(group, subject)).values(done_at=utc_now()))


def note_published(connection: Connection, group: str, topic: str, places: Iterable[tuple[int, int]]) -> None:
    """Note that the dead letters at these partitions and offsets of the dead-letter topic were published again."""
    _mark(connection, group, ((topic, *place, ALL_SUBSCRIPTIONS) for place in places), Wish.DEAD_LETTER)


def published(engine: Engine, group: str, topic: str, first: int) -> dict[tuple[int, int], float]:
    """Dead letters from the offset `first` on that were published again in the last KEPT seconds.

    By partition and offset of the dead-letter topic: when, in unix seconds.
    """
    here = (Mark.group_id == group, Mark.topic == topic, Mark.record_offset >= first)
    with reading(engine) as connection:
        rows = connection.execute(select(Mark.partition_no, Mark.record_offset, Mark.marked_at).where(*here))
        return {(row.partition_no, row.record_offset): unix(row.marked_at) for row in rows}


def recent(engine: Engine, group: str, since: datetime | None) -> RecentMarks:
    """A group's marks since a time, with an overlap: known marks may be returned again.

    None, for the first call: since the group's latest mark.
    """
    seen = RecentMarks({}, {}, since)
    with reading(engine) as connection:
        if since is None:
            last = select(Mark.marked_at).where(Mark.group_id == group).order_by(Mark.marked_at.desc()).limit(1)
            since = connection.scalar(last)
            if since is None:
                return seen
        statement = select(*_KEY[1:], Mark.wish, Mark.asked, Mark.marked_at)
        for row in connection.execute(statement.where(Mark.group_id == group, Mark.marked_at >= since - OVERLAP)):
            if row.wish == Wish.LOOK:
                seen.due_keys[row.topic, row.partition_no, row.subscription_id] = row.asked
            else:
                subject = Subject(row.topic, row.partition_no, row.record_offset, row.subscription_id)
                seen.decisions[subject] = row.asked
            seen = seen._replace(until=row.marked_at if seen.until is None else max(seen.until, row.marked_at))
    return seen


def prune(engine: Engine, group: str, topic: str, partition: int, committed: int) -> int:
    """Delete decisions on records below the committed offset, which no restart reads again. Returns their number."""
    here = (
        Mark.group_id == group,
        Mark.topic == topic,
        Mark.partition_no == partition,
        Mark.record_offset > NO_OFFSET,
        Mark.record_offset < committed,
    )
    return _delete(engine, *here)


def expire(engine: Engine, group: str, before: float) -> int:
    """Delete marks from before a time (unix seconds). Returns their number."""
    return _delete(engine, Mark.group_id == group, Mark.marked_at < time_of(before))


def _mark(connection: Connection, group: str, subjects: Iterable[tuple[str, int, int, int]], wish: Wish) -> None:
    binds = [
        {
            "b_group_id": group,
            "b_topic": topic,
            "b_partition_no": partition,
            "b_record_offset": offset,
            "b_subscription_id": subscription,
            "b_wish": wish.value,
        }
        for topic, partition, offset, subscription in subjects
    ]
    if connection.execute(_AGAIN, binds).rowcount < len(binds):
        connection.execute(_NEW, binds)


def _of(group: str, subject: Subject) -> tuple[ColumnElement[bool], ...]:
    return (
        Mark.group_id == group,
        Mark.topic == subject.topic,
        Mark.partition_no == subject.partition,
        Mark.record_offset == subject.offset,
        or_(Mark.subscription_id == subject.subscription_id, Mark.subscription_id == ALL_SUBSCRIPTIONS),
    )


def _delete(engine: Engine, *which: ColumnElement[bool]) -> int:
    with reading(engine) as connection:  # a write would block other writers; usually there is nothing to delete
        if connection.scalar(select(Mark.topic).where(*which).limit(1)) is None:
            return 0
    with engine.begin() as connection:
        return connection.execute(delete(Mark).where(*which)).rowcount
