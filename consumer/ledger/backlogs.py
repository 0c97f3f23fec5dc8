"""Backlogs: what cursors owe subscriptions, for the commands, the API and the console."""

from collections.abc import Collection
from typing import NamedTuple

from sqlalchemy import Connection, Engine, delete, exists, func, literal, or_, select, update
from sqlalchemy.orm import aliased

from consumer.database.engine import reading
from consumer.database.statements import AnyRow, any_of
from consumer.events.cloud_event import rfc3339
from consumer.events.event import TopicPartition
from consumer.ledger.cursors import KEY, PLACE
from consumer.ledger.marks import look_for
from consumer.ledger.rows import in_transaction, unix
from models import CursorReason, StoredCursor, StoredReplay
from models.cursor import UNFINISHED

MOST_SHOWN = 1_000  # cursors of one subscription


class OwedPart(NamedTuple):
    """A part of a partition that a subscription is owed, from `next` to before `end` (None: as far as events come).

    `replay` 0: of none. `record_at`: the timestamp (unix seconds) of the record at `next`, as far as known. `expires`:
    when retention removes that record; None: not known, or never. `for_tenant` hides the group and the offsets.
    """

    group: str | None
    topic: str
    partition: int
    reason: CursorReason
    replay: int
    next: int | None
    end: int | None
    record_at: float | None
    expires: float | None

    def for_tenant(self) -> "OwedPart":
        """The part as a tenant may see it: offsets show how many events all tenants have."""
        return self._replace(group=None, next=None, end=None)

    def as_json(self, now: float) -> dict[str, object]:
        """The part for people, at `now` (unix seconds): how old its next record is, and how long Kafka keeps it."""
        return {
            "group": self.group,
            "topic": self.topic,
            "partition": self.partition,
            "reason": str(self.reason),
            "replay_id": self.replay or None,
            "position": self.next,
            "end": self.end,
            "record_at": None if self.record_at is None else rfc3339(self.record_at),
            "seconds_behind": None if self.record_at is None else max(0, round(now - self.record_at)),
            "expires_at": None if self.expires is None else rfc3339(self.expires),
            "seconds_left": None if self.expires is None else max(0, round(self.expires - now)),
        }


def of_subscription(bind: Engine | Connection, subscription_id: int, most: int = MOST_SHOWN) -> list[OwedPart]:
    """What a subscription is owed by its cursors in all groups, by place; at most `most` of them.

    Cancelled replays owe nothing.
    """
    cursor = StoredCursor
    cancelled = exists().where(StoredReplay.id == cursor.replay, StoredReplay.cancelled_at.is_not(None))
    shown = cursor.reason, cursor.replay, cursor.next_offset, cursor.end_offset, cursor.record_ts, cursor.expires_at
    place = cursor.topic, cursor.partition_no
    mine = select(cursor.group_id, *place, *shown).where(
        cursor.subscription_id == subscription_id, UNFINISHED, ~cancelled
    )
    with reading(bind) as connection:
        rows = connection.execute(mine.order_by(*place, cursor.group_id, cursor.first_offset).limit(most))
        return [_owed(row) for row in rows]


def covering(
    engine: Engine, group: str, partition: TopicPartition, offset: int, ids: Collection[int]
) -> dict[int, CursorReason]:
    """Which of these subscriptions are owed an offset by a cursor that covers it, and the cursor's reason."""
    if not ids:
        return {}
    here = (
        StoredCursor.group_id == group,
        StoredCursor.topic == partition[0],
        StoredCursor.partition_no == partition[1],
        StoredCursor.replay == 0,
        StoredCursor.next_offset <= offset,
        or_(StoredCursor.end_offset.is_(None), StoredCursor.end_offset > offset),
    )
    wanted = select(StoredCursor.subscription_id, StoredCursor.reason).where(
        *here, any_of(StoredCursor.subscription_id.expression, sorted(ids))
    )
    with reading(engine) as connection:
        return {row.subscription_id: CursorReason(row.reason) for row in connection.execute(wanted)}


def look_at(connection: Connection, subscription_id: int) -> None:
    """Ask the owners of a subscription's cursors to look at them, in all groups: it may get its events now.

    Call it last in a transaction, as `marks.look`.
    """
    mine = StoredCursor.subscription_id == subscription_id, UNFINISHED
    places = select(*PLACE).where(*mine).distinct()
    look_for(connection, connection.execute(places).all())


def count(engine: Engine, group: str) -> int:
    """How many cursors a group has."""
    with reading(engine) as connection:
        mine = select(func.count()).select_from(StoredCursor).where(StoredCursor.group_id == group)
        return connection.execute(mine).scalar_one()


def topics(engine: Engine) -> list[tuple[str, str]]:
    """The groups whose cursors owe events, each with the topics of these."""
    places = StoredCursor.group_id, StoredCursor.topic
    with reading(engine) as connection:
        owing = connection.execute(select(*places).where(UNFINISHED).distinct().order_by(*places))
        return [(row.group_id, row.topic) for row in owing]


def adopt(engine: Engine, from_group: str, to_group: str) -> int:
    """Give a group's cursors, and the replays that they belong to, to another group. Returns how many cursors moved.

    A cursor that the other group has begun at the same place itself is deleted: that group owes all events from there
    on. No worker of `from_group` may be running.
    """
    here, there = StoredCursor, aliased(StoredCursor)
    same = (getattr(there, column.key) == column for column in KEY[1:])

    def move(connection: Connection) -> int:
        owed = here.group_id == from_group
        known = exists().where(there.group_id == to_group, *same).correlate(here)
        connection.execute(delete(here).where(owed, known))
        places = connection.execute(select(literal(to_group).label("group_id"), *PLACE[1:]).where(owed).distinct())
        found = places.all()
        moved = connection.execute(update(here).where(owed).values(group_id=to_group, version=here.version + 1))
        replays = update(StoredReplay).where(StoredReplay.group_id == from_group, StoredReplay.finished_at.is_(None))
        connection.execute(replays.values(group_id=to_group))
        look_for(connection, found)
        return moved.rowcount

    return in_transaction(engine, move)


def _owed(row: AnyRow) -> OwedPart:
    return OwedPart(
        row.group_id,
        row.topic,
        row.partition_no,
        CursorReason(row.reason),
        row.replay,
        row.next_offset,
        row.end_offset,
        row.record_ts / 1000 if (row.record_ts or 0) > 0 else None,
        unix(row.expires_at),
    )
