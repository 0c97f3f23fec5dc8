"""Replays: the spans of the log that one has left to read, updated in one transaction with the rows that it stores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import orjson
from sqlalchemy import Connection, Engine, insert, select, update

from consumer.database.engine import reading
from consumer.errors import WebhooksError
from consumer.events.event import TopicPartition
from consumer.ledger import marks
from consumer.ledger.columns import AnyRow, in_transaction, time_of, unix
from consumer.ledger.rows import NewDelivery, due_key_of
from consumer.ledger.store import in_order, insert_new
from models import StoredReplay, Subscription

_LARGEST = 2**63 - 1  # that a column holds


class Span(NamedTuple):
    """A part of a partition: the offsets from `begin` to before `end`."""

    topic: str
    number: int
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Replay:
    """A replay as it stands. Times are unix seconds; `rate` is deliveries per second.

    `spans` are left to read, of `record_count` records (None: begun by a release that did not note it); `matched`
    deliveries are stored. `event_type` None: the subscription's own.
    """

    id: int
    group: str
    subscription_id: int
    since: float
    until: float
    event_type: str | None
    rate: float
    spans: tuple[Span, ...]
    matched: int
    created_at: float
    finished_at: float | None
    cancelled_at: float | None = None
    record_count: int | None = None

    @property
    def left(self) -> int:
        """Records left to read, those included that compaction has removed."""
        return sum(span.end - span.begin for span in self.spans)

    @property
    def state(self) -> str:
        """`cancelled`, `finished` (all is read and stored), or `unfinished`: it is read now, or can be resumed."""
        if self.cancelled_at is not None:
            return "cancelled"
        return "unfinished" if self.finished_at is None else "finished"


def create(
    engine: Engine,
    group: str,
    subscription_id: int,
    since: float,
    until: float,
    event_type: str | None,
    rate: float,
    spans: Sequence[Span],
) -> int:
    """Store a replay that has read nothing yet, and return its id."""
    statement = (
        insert(StoredReplay)
        .values(
            group_id=group,
            subscription_id=subscription_id,
            since_at=time_of(since),
            until_at=time_of(until),
            event_type=event_type,
            rate=rate,
            positions=_text(spans),
            record_count=min(sum(span.end - span.begin for span in spans), _LARGEST),
        )
        .returning(StoredReplay.id)
    )
    with engine.begin() as connection:
        return connection.execute(statement).scalar_one()


def load(engine: Engine, replay_id: int) -> Replay | None:
    """A replay; None if no replay has this id."""
    statement = select(StoredReplay.__table__).where(StoredReplay.id == replay_id)
    with reading(engine) as connection:
        row = connection.execute(statement).first()
    return None if row is None else _replay(row)


def find(
    engine: Engine, *, limit: int, group: str | None = None, subscription: int | None = None, before: int | None = None
) -> list[Replay]:
    """At most `limit` replays, the newest first, with ids below `before`."""
    statement = select(StoredReplay.__table__).order_by(StoredReplay.id.desc()).limit(limit)
    for column, value in ((StoredReplay.group_id, group), (StoredReplay.subscription_id, subscription)):
        if value is not None:
            statement = statement.where(column == value)
    if before is not None:
        statement = statement.where(StoredReplay.id < before)
    with reading(engine) as connection:
        return [_replay(row) for row in connection.execute(statement)]


def cancel(engine: Engine, replay_id: int, now: float) -> bool:
    """Have a replay read no more; what it has stored is sent. False if it has ended, or none has this id.

    The command that runs it stops with its next transaction, and `replay --resume` refuses it. A repetition after a
    lost answer returns False; the time of the first call stands.
    """
    statement = update(StoredReplay).where(
        StoredReplay.id == replay_id, StoredReplay.finished_at.is_(None), StoredReplay.cancelled_at.is_(None)
    )
    with engine.begin() as connection:
        return connection.execute(statement.values(cancelled_at=time_of(now))).rowcount == 1


def _replay(row: AnyRow) -> Replay:
    return Replay(
        row.id,
        row.group_id,
        row.subscription_id,
        row.since_at.timestamp(),
        row.until_at.timestamp(),
        row.event_type,
        row.rate,
        tuple(Span(*span) for span in orjson.loads(row.positions)),
        row.matched,
        row.created_at.timestamp(),
        unix(row.finished_at),
        unix(row.cancelled_at),
        row.record_count,
    )


def advance(
    engine: Engine,
    replay_id: int,
    group: str,
    rows: Sequence[NewDelivery],
    positions: Mapping[TopicPartition, int],
    matched: int,
    now: float,
) -> None:
    """Store the deliveries of the records read, and the new positions, in one transaction.

    `positions` are the next offsets to read, by partition, and `matched` is the replay's new total: a repetition after
    a lost answer changes nothing. A position only moves forward. WebhooksError if the replay was deleted or
    cancelled, or its subscription disabled or removed: no worker would send the stored rows.
    """

    def work(connection: Connection) -> None:
        stored = connection.execute(_POSITIONS.where(StoredReplay.id == replay_id)).first()
        if stored is None:
            raise WebhooksError(f"replay {replay_id} was deleted meanwhile")
        if stored.cancelled_at is not None:
            raise WebhooksError(f"replay {replay_id} was cancelled; what it had stored is sent")
        if not stored.enabled:
            raise WebhooksError(
                f"subscription {stored.subscription_id} was disabled or removed meanwhile; "
                f"once it is enabled, `replay --resume {replay_id}` goes on with the rest"
            )
        spans = [_read_to(Span(*span), positions) for span in orjson.loads(stored.positions)]
        insert_new(connection, group, in_order(rows), now)
        connection.execute(
            update(StoredReplay).where(StoredReplay.id == replay_id).values(matched=matched, positions=_text(spans))
        )
        marks.look(connection, group, {due_key_of(row.event, row.subscription_id) for row in rows})

    in_transaction(engine, work)


def finish(engine: Engine, replay_id: int, now: float) -> None:
    """Note that a replay has read and stored everything; the time of the first call stands, and a cancellation too."""
    statement = update(StoredReplay).where(
        StoredReplay.id == replay_id, StoredReplay.finished_at.is_(None), StoredReplay.cancelled_at.is_(None)
    )
    with engine.begin() as connection:
        connection.execute(statement.values(finished_at=time_of(now)))


_POSITIONS = select(
    StoredReplay.positions, StoredReplay.subscription_id, StoredReplay.cancelled_at, Subscription.enabled
).outerjoin(Subscription, Subscription.id == StoredReplay.subscription_id)


def _read_to(span: Span, positions: Mapping[TopicPartition, int]) -> Span:
    return span._replace(begin=max(span.begin, positions.get((span.topic, span.number), span.begin)))


def _text(spans: Sequence[Span]) -> str:
    return orjson.dumps([list(span) for span in spans]).decode()
