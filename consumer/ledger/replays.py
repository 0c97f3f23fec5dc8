"""Replays: events of the log that a subscription gets once more.

A replay is a request and a cursor for each partition, from the first record that it reads to its end. The partitions'
owners run the cursors, and delete those that have ended.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from sqlalchemy import ColumnElement, Connection, Engine, and_, delete, exists, func, insert, or_, select, update

from consumer.database.engine import reading, writing
from consumer.database.statements import AnyRow, AnySelect, any_of
from consumer.ledger import cursors, marks
from consumer.ledger.cursors import NewCursor
from consumer.ledger.rows import cut, time_of, unix
from models import CursorReason, StoredCursor, StoredReplay, Subscription
from models.job import ACTOR_LENGTH

_CURSORS = (StoredCursor.subscription_id == StoredReplay.subscription_id, StoredCursor.replay == StoredReplay.id)
_LEFT = StoredCursor.next_offset < StoredCursor.end_offset
_RECEIVER = exists().where(Subscription.id == StoredReplay.subscription_id)
_OPEN = StoredReplay.finished_at.is_(None), StoredReplay.cancelled_at.is_(None)


State = Literal["running", "waiting", "finished", "cancelled"]


class Span(NamedTuple):
    """A part of a partition: the offsets from `begin` to before `end`."""

    topic: str
    number: int
    begin: int
    end: int


class Request(NamedTuple):
    """The deliveries that a replay asks for; `since` in unix seconds, `rate` in deliveries a second.

    `cursors` have not ended: they share the rate. `event_type` None: that of the subscription. `ordered`: in the order
    of each record key.
    """

    since: float
    event_type: str | None
    rate: float
    ordered: bool
    cursors: int


@dataclass(frozen=True, slots=True)
class Replay:
    """A replay as it stands. Times are unix seconds; `rate` is deliveries per second.

    `records_left` of `records` are still to be read and settled, including the ones that compaction has removed. If its
    subscription was removed before it finished, they are all of them: nobody knows any more how far it came.
    `event_type` None: the subscription's own. `last_error` is the reason why it makes no progress.
    """

    id: int
    group: str
    subscription_id: int
    since: float
    until: float
    event_type: str | None
    rate: float
    ordered: bool
    records: int
    records_left: int
    created_at: float
    created_by: str | None
    finished_at: float | None
    cancelled_at: float | None
    last_error: str | None

    @property
    def ended(self) -> bool:
        """Whether it reads nothing more, unless it is resumed."""
        return self.finished_at is not None or self.cancelled_at is not None

    @property
    def state(self) -> State:
        """`cancelled`; `finished`: all is read, and delivered or stored; `waiting`, as `last_error` says; `running`."""
        if self.ended:
            return "finished" if self.cancelled_at is None else "cancelled"
        return "running" if self.last_error is None else "waiting"


def create(
    bind: Engine | Connection,
    group: str,
    subscription_id: int,
    since: float,
    until: float,
    event_type: str | None,
    rate: float,
    spans: Sequence[Span],
    now: float,
    *,
    ordered: bool = False,
    created_by: str | None = None,
) -> int:
    """Store a replay that has read nothing yet, and return its id. One without records has finished."""
    statement = (
        insert(StoredReplay)
        .values(
            group_id=group,
            subscription_id=subscription_id,
            since_at=time_of(since),
            until_at=time_of(until),
            event_type=event_type,
            rate=rate,
            ordered=int(ordered),
            record_count=sum(span.end - span.begin for span in spans),
            created_at=time_of(now),
            created_by=cut(created_by, ACTOR_LENGTH),
            finished_at=None if spans else time_of(now),
        )
        .returning(StoredReplay.id)
    )
    places = {(span.topic, span.number, subscription_id): span for span in spans}
    with writing(bind) as connection:
        number: int = connection.execute(statement).scalar_one()
        new = [
            NewCursor(due_key, span.begin, CursorReason.REPLAY, span.end, replay=number)
            for due_key, span in places.items()
        ]
        cursors.begin(connection, group, new, now)
        marks.look(connection, group, places)
    return number


def load(bind: Engine | Connection, replay_id: int, tenant: str | None = None) -> Replay | None:
    """A replay; None if no replay has this id, or its subscription is not of the `tenant` (None: any)."""
    with reading(bind) as connection:
        row = connection.execute(_replays(tenant).where(StoredReplay.id == replay_id)).first()
    return None if row is None else _replay(row)


def find(
    engine: Engine,
    *,
    limit: int,
    group: str | None = None,
    subscription: int | None = None,
    before: int | None = None,
    tenant: str | None = None,
    state: State | None = None,
    is_open: bool = False,
) -> list[Replay]:
    """At most `limit` replays, the newest first, with ids below `before`; `is_open`: only those that go on."""
    chosen = [*(_in_state(state) if state else ()), *(_OPEN if is_open else ())]
    statement = _replays(tenant).where(*chosen).order_by(StoredReplay.id.desc()).limit(limit)
    for column, value in ((StoredReplay.group_id, group), (StoredReplay.subscription_id, subscription)):
        if value is not None:
            statement = statement.where(column == value)
    if before is not None:
        statement = statement.where(StoredReplay.id < before)
    with reading(engine) as connection:
        return [_replay(row) for row in connection.execute(statement)]


def _in_state(state: State) -> tuple[ColumnElement[bool], ...]:
    """As `Replay.state` and `_obstacle` say."""
    if state == "cancelled":
        return (StoredReplay.cancelled_at.is_not(None),)
    if state == "finished":
        return StoredReplay.finished_at.is_not(None), StoredReplay.cancelled_at.is_(None)
    if state == "running":
        return *_OPEN, Subscription.enabled == 1, Subscription.paused_at.is_(None)
    return *_OPEN, or_(Subscription.enabled.is_(None), Subscription.enabled == 0, Subscription.paused_at.is_not(None))


def requests(engine: Engine, replay_ids: Collection[int]) -> dict[int, Request]:
    """The requests of those of the replays that have not ended, by id."""
    if not replay_ids:
        return {}
    left = select(func.count()).select_from(StoredCursor).where(*_CURSORS, _LEFT)
    statement = select(
        StoredReplay.id,
        StoredReplay.since_at,
        StoredReplay.event_type,
        StoredReplay.rate,
        StoredReplay.ordered,
        left.scalar_subquery().label("cursors"),
    ).where(any_of(StoredReplay.id.expression, sorted(replay_ids)), *_OPEN)
    with reading(engine) as connection:
        return {
            row.id: Request(unix(row.since_at), row.event_type, row.rate, row.ordered == 1, row.cursors)
            for row in connection.execute(statement)
        }


def cancel(bind: Engine | Connection, replay_id: int, now: float) -> bool:
    """Read no more of a replay; what was read is sent. False if it has ended, or none has this id.

    Its cursors stay where they are, for `resume`. A repetition after a lost answer returns False; the time of the first
    call stands.
    """
    return _set(bind, replay_id, _OPEN, time_of(now))


def resume(bind: Engine | Connection, replay_id: int) -> bool:
    """Go on with a cancelled replay where it stopped.

    False if it is not cancelled, its subscription was removed, or none has this id.
    """
    cancelled = StoredReplay.cancelled_at.is_not(None), StoredReplay.finished_at.is_(None), _RECEIVER
    return _set(bind, replay_id, cancelled, None)


def _set(bind: Engine | Connection, replay_id: int, state: Sequence[ColumnElement[bool]], at: object) -> bool:
    """Set when a replay in this state was cancelled, and have the owners of its partitions look."""
    places = select(StoredReplay.group_id, StoredCursor.topic, StoredCursor.partition_no, StoredCursor.subscription_id)
    with writing(bind) as connection:
        changed = update(StoredReplay).where(StoredReplay.id == replay_id, *state).values(cancelled_at=at)
        if connection.execute(changed).rowcount != 1:
            return False
        here = places.join(StoredReplay, and_(*_CURSORS)).where(StoredReplay.id == replay_id, _LEFT)
        marks.look_for(connection, connection.execute(here))
    return True


def finish(engine: Engine, now: float, replay_ids: Collection[int] | None = None) -> None:
    """Delete the cursors of replays that have ended, and finish the replays that have no others. None: of all replays.

    A replay whose subscription is gone is cancelled. May be repeated.
    """
    which = [] if replay_ids is None else [any_of(StoredReplay.id.expression, sorted(replay_ids))]
    with reading(engine) as connection:  # a write would block other writers; usually there is nothing to do
        found = connection.execute(select(StoredReplay.id, StoredReplay.subscription_id).where(*which, *_OPEN))
        receivers = {row.id: row.subscription_id for row in found}
    if not receivers:
        return
    mine = (
        any_of(StoredCursor.subscription_id.expression, sorted(set(receivers.values()))),
        any_of(StoredCursor.replay.expression, sorted(receivers)),
    )
    with engine.begin() as connection:
        connection.execute(delete(StoredCursor).where(*mine, StoredCursor.next_offset == StoredCursor.end_offset))
    # In a transaction of its own: two owners whose last cursors end at once each see that the other's is gone.
    at = time_of(now)
    replays = update(StoredReplay).where(any_of(StoredReplay.id.expression, sorted(receivers)), *_OPEN)
    with engine.begin() as connection:
        connection.execute(replays.where(~_RECEIVER).values(cancelled_at=at))
        connection.execute(replays.where(_RECEIVER, ~exists().where(*_CURSORS)).values(finished_at=at))


def _replays(tenant: str | None = None) -> AnySelect:
    owed = select(func.sum(StoredCursor.end_offset - StoredCursor.next_offset)).where(*_CURSORS).scalar_subquery()
    found = select(
        StoredReplay.__table__,
        owed.label("records_left"),
        Subscription.enabled,
        Subscription.paused_at,
    ).outerjoin(Subscription, Subscription.id == StoredReplay.subscription_id)
    return found if tenant is None else found.where(Subscription.tenant == tenant)


def _replay(row: AnyRow) -> Replay:
    return Replay(
        row.id,
        row.group_id,
        row.subscription_id,
        unix(row.since_at),
        unix(row.until_at),
        row.event_type,
        row.rate,
        row.ordered == 1,
        row.record_count,
        row.record_count if row.enabled is None and row.finished_at is None else row.records_left or 0,
        unix(row.created_at),
        row.created_by,
        unix(row.finished_at),
        unix(row.cancelled_at),
        _obstacle(row) if row.finished_at is None else None,
    )


def _obstacle(row: AnyRow) -> str | None:
    """Why nothing is sent for the replay, if its subscription is the reason."""
    if row.enabled is None:
        return f"subscription {row.subscription_id} was removed"
    if not row.enabled:
        return f"subscription {row.subscription_id} is disabled; once it is enabled, the replay goes on"
    if row.paused_at is not None:
        return f"subscription {row.subscription_id} is paused; once it is resumed, the replay goes on"
    return None
