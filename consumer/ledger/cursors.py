"""Cursors: positions in the log from which subscriptions that are behind get their events, apart from the live stream.

A cursor is written before the first record that it covers may settle. Its position moves like a committed offset:
below `next`, and in `runs`, everything is settled. Each function may be repeated after any failure.
"""

from collections.abc import Collection, Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    bindparam,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)

from consumer.database.engine import reading, writing
from consumer.database.statements import AnyRow, AnySelect, any_of, any_tuple_of, lists_of, pieces, pieces_of
from consumer.errors import PartitionTaken
from consumer.events.event import TopicPartition
from consumer.ledger import marks
from consumer.ledger.rows import (
    OPEN,
    DueKey,
    bind,
    in_transaction,
    is_bound,
    time_of,
    time_or_none,
    unix,
)
from models import CursorReason, ParkedDelivery, Status, StoredCursor, Subscription
from models.cursor import RUNS_LENGTH

PLACE = (StoredCursor.group_id, StoredCursor.topic, StoredCursor.partition_no, StoredCursor.subscription_id)
KEY = (*PLACE, StoredCursor.replay, StoredCursor.first_offset)
_NEW = (
    *KEY,
    StoredCursor.next_offset,
    StoredCursor.end_offset,
    StoredCursor.reason,
    StoredCursor.record_ts,
    StoredCursor.topic_identity,
    StoredCursor.created_at,
    StoredCursor.updated_at,
)
_INSERT = insert(StoredCursor).from_select(
    [*(column.key for column in _NEW), "settled_runs"],
    select(*map(bind, _NEW), pieces_of("b_runs", RUNS_LENGTH)).where(
        ~exists().where(is_bound(*KEY)),
        exists().where(Subscription.id == bind(StoredCursor.subscription_id)),
    ),
    include_defaults=False,
)
# A cursor that covers nothing, or of an earlier topic of this name.
_CLEAR = delete(StoredCursor).where(
    is_bound(*KEY),
    or_(
        StoredCursor.end_offset == StoredCursor.first_offset,
        StoredCursor.topic_identity != bind(StoredCursor.topic_identity),
    ),
)
_SAVE = (
    update(StoredCursor)
    .where(StoredCursor.id == bindparam("b_id"), StoredCursor.version == bindparam("b_version"))
    .values(
        version=StoredCursor.version + bindparam("b_assignment"),
        next_offset=bind(StoredCursor.next_offset),
        end_offset=bind(StoredCursor.end_offset),
        settled_runs=pieces_of("b_runs", RUNS_LENGTH),
        record_ts=bind(StoredCursor.record_ts),
        expires_at=bind(StoredCursor.expires_at),
        topic_identity=func.coalesce(StoredCursor.topic_identity, bind(StoredCursor.topic_identity)),
        updated_at=bind(StoredCursor.updated_at),
    )
)


class NewCursor(NamedTuple):
    """A cursor that begins at `first`, whose record has a timestamp (milliseconds) if that is known.

    `end` None: it ends where it meets the live stream. `identity`: that of the topic, as commits name it. `runs`: what
    is settled above `first`, as in a commit's metadata. `assignment`: the worker's, as `marks.own`; None: of no worker.
    """

    due_key: DueKey
    first: int
    reason: CursorReason
    end: int | None = None
    replay: int = 0
    timestamp: int | None = None
    identity: str | None = None
    runs: str = ""
    assignment: int | None = None


class KeptCursor(NamedTuple):
    """A cursor as it stands in the database; `runs` are encoded as in a commit's metadata.

    `expires`: when (unix seconds) retention removes its next record; None: not known, or never.
    """

    id: int
    due_key: DueKey
    replay: int
    reason: CursorReason
    first: int
    next: int
    end: int | None
    runs: str
    timestamp: int | None
    identity: str | None
    version: int
    expires: float | None = None


class CursorMove(NamedTuple):
    """A new position of the cursor `id`, whose owner last read or wrote this `version`; `identity` is the topic's.

    The new version is higher by the number of the owner's `assignment`: so two owners never write the same one.
    """

    id: int
    version: int
    next: int
    end: int | None
    runs: str
    timestamp: int | None
    expires: float | None = None
    identity: str | None = None
    assignment: int = 1


def begin(
    bind: Engine | Connection, group: str, cursors: Sequence[NewCursor], now: float
) -> frozenset[tuple[DueKey, int]]:
    """Store cursors that begin. One that exists stays as it is.

    Unless it covers nothing, or belongs to an earlier topic of this name. A subscription that was removed gets none.
    Returns due keys and first offsets of the ones that another owner has moved or ended meanwhile. PartitionTaken:
    another worker has taken a partition over since the assignment of its cursors; none is stored.
    """
    binds = [
        {
            "b_group_id": group,
            "b_topic": each.due_key[0],
            "b_partition_no": each.due_key[1],
            "b_subscription_id": each.due_key[2],
            "b_replay": each.replay,
            "b_first_offset": each.first,
            "b_next_offset": each.first,
            "b_end_offset": each.end,
            "b_reason": each.reason,
            "b_record_ts": each.timestamp,
            "b_topic_identity": each.identity,
            "b_created_at": time_of(now),
            "b_updated_at": time_of(now),
            **pieces("b_runs", RUNS_LENGTH, each.runs or None),
        }
        for each in sorted(cursors, key=lambda cursor: (cursor.due_key, cursor.first))
    ]
    if not binds:
        return frozenset()
    owned = sorted({(each.due_key[:2], each.assignment) for each in cursors if each.assignment is not None})

    def work(connection: Connection) -> frozenset[tuple[DueKey, int]]:
        for partition, assignment in owned:
            if not marks.is_owned(connection, group, partition, assignment):
                raise PartitionTaken(partition)
        connection.execute(_CLEAR, binds)
        if connection.execute(_INSERT, binds).rowcount == len(binds):
            return frozenset()
        wanted = {(each.due_key, each.first): each.end for each in cursors if not each.replay}
        due_keys = sorted({each.due_key for each in cursors})
        there = [_kept(row) for row in connection.execute(_cursors().where(*_of(group, due_keys)))]
        changed = (each for each in there if (each.due_key, each.first) in wanted and not each.replay)
        return frozenset(
            (each.due_key, each.first)
            for each in changed
            if each.version or each.end != wanted[each.due_key, each.first]
        )

    return work(bind) if isinstance(bind, Connection) else in_transaction(bind, work)


def of_partition(engine: Engine, group: str, partition: TopicPartition) -> list[KeptCursor]:
    """The cursors of a partition, by subscription and place."""
    here = (
        StoredCursor.group_id == group,
        StoredCursor.topic == partition[0],
        StoredCursor.partition_no == partition[1],
    )
    with reading(engine) as connection:
        return [_kept(row) for row in connection.execute(_cursors().where(*here))]


def of_due_keys(engine: Engine, group: str, due_keys: Collection[DueKey]) -> list[KeptCursor]:
    """The cursors of these due keys, by subscription and place."""
    if not due_keys:
        return []
    with reading(engine) as connection:
        return [_kept(row) for row in connection.execute(_cursors().where(*_of(group, due_keys)))]


def stored(engine: Engine, group: str, due_keys: Collection[DueKey]) -> dict[DueKey, set[tuple[int, int, int]]]:
    """The stored deliveries, in any state, of these due keys, at or after the lowest of their cursors' positions.

    By replay, offset and record timestamp. A crash may have hidden them from the position. One statement for each
    partition, which reads the rows of these subscriptions there.
    """
    found: dict[DueKey, set[tuple[int, int, int]]] = {due_key: set() for due_key in due_keys}
    row, cursor = ParkedDelivery, StoredCursor
    with reading(engine) as connection:
        for (topic, partition), here in groupby(sorted(due_keys), itemgetter(0, 1)):
            ids = [due_key[2] for due_key in here]
            there = cursor.group_id == group, cursor.topic == topic, cursor.partition_no == partition
            lowest = select(func.min(cursor.next_offset)).where(*there, any_of(cursor.subscription_id.expression, ids))
            rows = select(row.subscription_id, row.replay, row.record_offset, row.record_ts).where(
                row.group_id == group,
                row.topic == topic,
                row.partition_no == partition,
                row.status.in_(list(Status)),
                any_of(row.subscription_id.expression, ids),
                row.record_offset + 0 >= lowest.scalar_subquery(),  # by the index of due keys, not by that of offsets
            )
            for each in connection.execute(rows):
                key = (topic, partition, each.subscription_id)
                found[key].add((each.replay, each.record_offset, each.record_ts))
    return found


def open_rows(engine: Engine, group: str, partition: TopicPartition) -> dict[DueKey, int]:
    """How many open rows each due key of a partition has."""
    row = ParkedDelivery
    here = row.group_id == group, row.topic == partition[0], row.partition_no == partition[1], row.status.in_(OPEN)
    counted = select(row.subscription_id, func.count().label("open_rows")).where(*here).group_by(row.subscription_id)
    with reading(engine) as connection:
        return {(*partition, each.subscription_id): each.open_rows for each in connection.execute(counted)}


def save(engine: Engine, moves: Sequence[CursorMove], now: float) -> frozenset[int]:
    """Store new positions. Returns the ids of those that are not stored: another owner has moved them, or they ended.

    A process that has lost the partition therefore overwrites nothing.
    """
    binds = [
        {
            "b_id": move.id,
            "b_version": move.version,
            "b_assignment": move.assignment,
            "b_next_offset": move.next,
            "b_end_offset": move.end,
            "b_record_ts": move.timestamp,
            "b_expires_at": time_or_none(move.expires),
            "b_topic_identity": move.identity,
            "b_updated_at": time_of(now),
            **pieces("b_runs", RUNS_LENGTH, move.runs or None),
        }
        for move in sorted(moves)
    ]
    with engine.begin() as connection:
        if connection.execute(_SAVE, binds).rowcount == len(binds):
            return frozenset()
        there = select(StoredCursor.id, StoredCursor.version, StoredCursor.next_offset, StoredCursor.end_offset).where(
            any_of(StoredCursor.id.expression, [move.id for move in moves])
        )
        kept = {row.id: (row.version, row.next_offset, row.end_offset) for row in connection.execute(there)}
    return frozenset(
        move.id for move in moves if kept.get(move.id) != (move.version + move.assignment, move.next, move.end)
    )


def remove(bind: Engine | Connection, ids: Iterable[int]) -> int:
    """Delete cursors; returns how many there were."""
    rows = sorted(ids)
    if not rows:
        return 0
    with writing(bind) as connection:
        return connection.execute(delete(StoredCursor).where(any_of(StoredCursor.id.expression, rows))).rowcount


def prune(engine: Engine, group: str, partition: TopicPartition, committed: int) -> int:
    """Delete finished cursors of a partition that end at or below the committed offset, or cover nothing.

    Returns their number.

    Before that a restart would read again what they have covered, and send it. Those of replays show their progress.
    """
    over = (
        StoredCursor.group_id == group,
        StoredCursor.topic == partition[0],
        StoredCursor.partition_no == partition[1],
        StoredCursor.replay == 0,
        StoredCursor.end_offset == StoredCursor.next_offset,
        or_(StoredCursor.end_offset <= committed, StoredCursor.end_offset == StoredCursor.first_offset),
    )
    with reading(engine) as connection:  # a write would block other writers; usually there is nothing to delete
        if connection.scalar(select(StoredCursor.id).where(*over).limit(1)) is None:
            return 0
    with reading(engine) as connection:
        starts = select(StoredCursor.subscription_id).where(*over, StoredCursor.reason == CursorReason.START)
        begun = sorted(set(connection.scalars(starts)))
    with engine.begin() as connection:
        pruned = connection.execute(delete(StoredCursor).where(*over)).rowcount
    if begun:  # in a transaction of its own: owners of other partitions may have deleted theirs meanwhile
        mine = StoredCursor.subscription_id == Subscription.id
        left = exists().where(mine, StoredCursor.reason == CursorReason.START)
        ended = update(Subscription).where(any_of(Subscription.id.expression, begun), Subscription.starts == 1, ~left)
        with engine.begin() as connection:
            connection.execute(ended.values(starts=0))
    return pruned


def _of(group: str, due_keys: Collection[DueKey]) -> tuple[ColumnElement[bool], ...]:
    place = StoredCursor.topic.expression, StoredCursor.partition_no.expression, StoredCursor.subscription_id.expression
    return StoredCursor.group_id == group, any_tuple_of(place, lists_of(sorted(due_keys)))


def _cursors() -> AnySelect:
    return select(StoredCursor.__table__).order_by(
        StoredCursor.topic, StoredCursor.partition_no, StoredCursor.subscription_id, StoredCursor.first_offset
    )


def _kept(row: AnyRow) -> KeptCursor:
    return KeptCursor(
        row.id,
        (row.topic, row.partition_no, row.subscription_id),
        row.replay,
        CursorReason(row.reason),
        row.first_offset,
        row.next_offset,
        row.end_offset,
        row.settled_runs or "",
        row.record_ts,
        row.topic_identity,
        row.version,
        unix(row.expires_at),
    )
