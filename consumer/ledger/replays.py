"""Replays: the spans of the log left to read, updated in one transaction with the rows that a replay stores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import orjson
from sqlalchemy import ColumnElement, Connection, Engine, insert, or_, select, update

from consumer.database.engine import reading, writing
from consumer.database.statements import AnyRow
from consumer.errors import ReplayEnded, WebhooksError
from consumer.events.event import TopicPartition
from consumer.ledger import marks
from consumer.ledger.rows import NewDelivery, cut, due_key_of, in_transaction, time_of, time_or_none, unix
from consumer.ledger.store import in_order, insert_new
from models import StoredReplay, Subscription
from models.delivery import ERROR_LENGTH
from models.job import ACTOR_LENGTH

_LARGEST = 2**63 - 1  # a column's maximum
_CANDIDATES = 20  # replays without a lease that `claim` tries


class Span(NamedTuple):
    """A part of a partition: the offsets from `begin` to before `end`."""

    topic: str
    number: int
    begin: int
    end: int


class Lease(NamedTuple):
    """A process's lease of a replay, which ends at `held`, and its renewal, until `until` (unix seconds).

    `problem`: why the replay makes no progress now; None if it does.
    """

    held: float
    until: float
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Replay:
    """A replay as it stands. Times are unix seconds; `rate` is deliveries per second.

    `spans` are left to read, of `record_count` records (None: created by a release that did not store it); `matched`
    deliveries are stored. `event_type` None: the subscription's own. A `background` replay is run by API processes, of
    which one holds it until `lease_until`; `last_error` is the reason why it makes no progress or was cancelled.
    `damage`: why its positions cannot be read, as after an edit by hand; it has no spans then, and is not to be run.
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
    background: bool = False
    lease_until: float | None = None
    last_error: str | None = None
    created_by: str | None = None
    damage: str | None = None

    @property
    def left(self) -> int:
        """Records left to read, including the ones that compaction has removed."""
        return sum(span.end - span.begin for span in self.spans)

    @property
    def ended(self) -> bool:
        """Whether nothing more of it will be stored."""
        return self.finished_at is not None or self.cancelled_at is not None

    def state(self, now: float) -> str:
        """`cancelled`, or `finished`: all is read and stored.

        Else `running` or `waiting` (for an API process, or for the end of its `last_error`). A replay begun by a
        command is `unfinished`: a process reads it now, or it can be resumed.
        """
        if self.ended:
            return "finished" if self.cancelled_at is None else "cancelled"
        if not self.background:
            return "unfinished"
        return "running" if self.last_error is None and (self.lease_until or 0) > now else "waiting"


def create(
    bind: Engine | Connection,
    group: str,
    subscription_id: int,
    since: float,
    until: float,
    event_type: str | None,
    rate: float,
    spans: Sequence[Span],
    *,
    background: bool = False,
    created_by: str | None = None,
) -> int:
    """Store a replay that has read nothing yet, and return its id. `background`: the API's processes run it."""
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
            background=int(background),
            created_by=cut(created_by, ACTOR_LENGTH),
        )
        .returning(StoredReplay.id)
    )
    with writing(bind) as connection:
        return connection.execute(statement).scalar_one()


def load(bind: Engine | Connection, replay_id: int) -> Replay | None:
    """A replay; None if no replay has this id."""
    statement = select(StoredReplay.__table__).where(StoredReplay.id == replay_id)
    with reading(bind) as connection:
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


def claim(engine: Engine, group: str, now: float, until: float) -> Replay | None:
    """Lease a background replay of the group that has no lease at `now`, until `until`; None if there is none.

    The replay that has waited longest comes first, so that failing replays do not keep others waiting.
    """
    open_ones = (
        select(StoredReplay.id)
        .where(StoredReplay.group_id == group, StoredReplay.background == 1, *_OPEN, _free(now))
        .order_by(StoredReplay.lease_until.nulls_first(), StoredReplay.id)
        .limit(_CANDIDATES)
    )
    with reading(engine) as connection:
        candidates = connection.execute(open_ones).scalars().all()
    for candidate in candidates:
        statement = update(StoredReplay).where(StoredReplay.id == candidate, *_OPEN, _free(now))
        with engine.begin() as connection:
            taken = connection.execute(statement.values(lease_until=time_of(until))).rowcount == 1
        if taken:
            return load(engine, candidate)
    return None


def release(engine: Engine, replay_id: int, held: float, until: float | None, problem: str | None) -> None:
    """Give up the lease that ends at `held`. No process takes the replay before `until`; None: one may at once.

    `problem`: why it makes no progress. Nothing changes if another process has the lease, or the replay has ended.
    """
    statement = update(StoredReplay).where(StoredReplay.id == replay_id, *_OPEN, _held(held))
    with engine.begin() as connection:
        connection.execute(statement.values(lease_until=time_or_none(until), last_error=cut(problem, ERROR_LENGTH)))


def cancel(bind: Engine | Connection, replay_id: int, now: float, reason: str | None = None) -> bool:
    """Stop reading a replay's records; its stored deliveries are sent. False if it has ended, or none has this id.

    The process that runs it stops with its next transaction, and `replay --resume` refuses it. A repetition after a
    lost answer returns False; the time and the `reason` of the first call stand.
    """
    statement = update(StoredReplay).where(StoredReplay.id == replay_id, *_OPEN)
    ended = statement.values(cancelled_at=time_of(now), lease_until=None, last_error=cut(reason, ERROR_LENGTH))
    with writing(bind) as connection:
        return connection.execute(ended).rowcount == 1


def _replay(row: AnyRow) -> Replay:
    spans, damage = _spans(row.positions)
    return Replay(
        row.id,
        row.group_id,
        row.subscription_id,
        unix(row.since_at),
        unix(row.until_at),
        row.event_type,
        row.rate,
        spans,
        row.matched,
        unix(row.created_at),
        unix(row.finished_at),
        unix(row.cancelled_at),
        row.record_count,
        bool(row.background),
        unix(row.lease_until),
        row.last_error or damage,
        row.created_by,
        damage,
    )


def _spans(positions: str) -> tuple[tuple[Span, ...], str | None]:
    """The spans of a replay's row; none, and the reason, if they cannot be read: one bad row must not hide others."""
    try:
        found = orjson.loads(positions)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, list) or not all(_is_span(each) for each in found):
        return (), "its positions are not a JSON array of [topic, partition, first offset, end offset]"
    return tuple([Span(*each) for each in found]), None


def _is_span(found: object) -> bool:
    return isinstance(found, list) and [type(each) for each in found] == [str, int, int, int] and min(found[1:]) >= 0


def advance(
    engine: Engine,
    replay_id: int,
    group: str,
    rows: Sequence[NewDelivery],
    positions: Mapping[TopicPartition, int],
    now: float,
    lease: Lease | None = None,
) -> None:
    """Store the deliveries of the records read, and the new positions, in one transaction.

    `positions` are the next offsets to read, by partition. A repetition after a lost answer changes nothing: rows of
    records before the stored positions are left out. A background replay's `lease` is renewed. ReplayEnded if the
    replay was deleted, cancelled or finished, or another process has the lease or has read further; WebhooksError if
    its subscription was disabled or removed: no worker would send the stored rows.
    """

    def work(connection: Connection) -> None:
        stored = connection.execute(_POSITIONS.where(StoredReplay.id == replay_id)).first()
        if stored is None:
            raise ReplayEnded(f"replay {replay_id} was deleted meanwhile")
        if stored.cancelled_at is not None:
            raise ReplayEnded(f"replay {replay_id} was cancelled; its stored deliveries are sent")
        if stored.finished_at is not None:
            raise ReplayEnded(f"another process has finished replay {replay_id}")
        if not stored.enabled:
            how = f"`replay --resume {replay_id}`" if lease is None else "the replay"
            raise WebhooksError(
                f"subscription {stored.subscription_id} was disabled or removed meanwhile; "
                f"once it is enabled, {how} goes on with the rest"
            )
        spans, damage = _spans(stored.positions)
        if damage is not None:
            raise WebhooksError(f"replay {replay_id} cannot go on: {damage}")
        read = {(span.topic, span.number): span.begin for span in spans}
        if any(position < read.get(partition, 0) for partition, position in positions.items()):
            raise ReplayEnded(f"another process runs replay {replay_id} by now")
        # The rows of records before the stored positions are stored, or even sent and deleted.
        new = in_order([row for row in rows if row.event.record.offset >= read.get(row.event.record[:2], 0)])
        insert_new(connection, group, new, now)
        # `matched` has grown if another process has stored rows meanwhile.
        statement = update(StoredReplay).where(StoredReplay.id == replay_id, StoredReplay.matched == stored.matched)
        moved = [_read_to(span, positions) for span in spans]
        values: dict[str, object] = {"matched": stored.matched + len(new), "positions": _text(moved)}
        if lease is not None:
            # Else a process that was stopped for a while would store deliveries again that were sent meanwhile.
            statement = statement.where(or_(_held(lease.held), _held(lease.until)))  # the second: after a lost answer
            values |= {"lease_until": time_of(lease.until), "last_error": cut(lease.problem, ERROR_LENGTH)}
        if connection.execute(statement.values(values)).rowcount != 1:
            raise ReplayEnded(f"another process runs replay {replay_id} by now")
        marks.look(connection, group, {due_key_of(row.event, row.subscription_id) for row in new})

    in_transaction(engine, work)


def finish(engine: Engine, replay_id: int, now: float) -> None:
    """Note that a replay has read and stored everything; the time of the first call stands, and a cancellation too."""
    statement = update(StoredReplay).where(StoredReplay.id == replay_id, *_OPEN)
    with engine.begin() as connection:
        connection.execute(statement.values(finished_at=time_of(now), lease_until=None, last_error=None))


_OPEN = (StoredReplay.finished_at.is_(None), StoredReplay.cancelled_at.is_(None))
_POSITIONS = select(
    StoredReplay.positions,
    StoredReplay.matched,
    StoredReplay.subscription_id,
    StoredReplay.cancelled_at,
    StoredReplay.finished_at,
    Subscription.enabled,
).outerjoin(Subscription, Subscription.id == StoredReplay.subscription_id)


def _free(now: float) -> ColumnElement[bool]:
    return or_(StoredReplay.lease_until.is_(None), StoredReplay.lease_until <= time_of(now))


def _held(until: float) -> ColumnElement[bool]:
    return StoredReplay.lease_until == time_of(until)


def _read_to(span: Span, positions: Mapping[TopicPartition, int]) -> Span:
    return span._replace(begin=positions.get((span.topic, span.number), span.begin))


def _text(spans: Sequence[Span]) -> str:
    return orjson.dumps([list(span) for span in spans]).decode()
