"""Lists, counts, redelivers and adopts stored deliveries, for the command line and the API.

These functions only make rows due; the owner of a row's partition sends it. They work in batches, one transaction each.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Select,
    and_,
    bindparam,
    case,
    exists,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.orm import InstrumentedAttribute, aliased

from consumer.database.engine import reading
from consumer.database.statements import AnyRow, AnySelect, any_of
from consumer.events.event import Event, RecordId
from consumer.ledger import marks
from consumer.ledger.ordering import normalise, put_in_order
from consumer.ledger.rows import (
    ATTEMPTS,
    OF_PAYLOAD,
    PAYLOAD,
    PAYLOAD_RECORD,
    RECORD,
    AttemptFailure,
    bind,
    event_of,
    first_of,
    in_batches,
    in_transaction,
    is_bound,
    last_of,
    pair_of,
    record_binds,
    record_of,
    time_of,
    unix,
)
from consumer.ledger.upkeep import by_id, by_no_index, counted, drop_payloads
from models import ParkedDelivery, Payload, Status, Subscription
from models.subscription import EVERY_TENANT

Note = Callable[[Connection, Sequence[AnyRow]], None]  # of rows with an id and a subscription_id
_REDELIVERED = (Status.EXHAUSTED, Status.PARKED, Status.HELD)


@dataclass(frozen=True, slots=True)
class StoredDelivery:
    """A stored delivery; times are unix seconds. Of `attempt` attempts, `schedule_start` were on an older schedule."""

    id: int
    group: str
    record: RecordId
    subscription_id: int
    url: str
    event_type: str
    webhook_id: str
    status: str
    attempt: int
    schedule_start: int
    next_attempt_at: float | None
    first: AttemptFailure | None
    last: AttemptFailure | None
    replay: int
    created_at: float
    updated_at: float


class StoredDetail(NamedTuple):
    """A stored delivery, and the event it carries."""

    delivery: StoredDelivery
    event: Event


class DeliveryQuery(NamedTuple):
    """Conditions that deliveries must all meet; None or empty: any.

    `since` (inclusive) and `until`, in unix seconds, limit the time of the last change, in a search that of storing.
    `tenant` is as in `of_tenant`: a removed subscription has none.
    """

    statuses: Collection[str] = ()
    subscription: int | None = None
    tenant: str | None = None
    event_type: str | None = None
    topic: str | None = None
    since: float | None = None
    until: float | None = None
    group: str | None = None
    ids: Collection[int] | None = None
    webhook_id: str | None = None


class RedeliveryStep(NamedTuple):
    """The rows to send again, and how many rows of the batch were skipped because their subscriptions are removed.

    `held`: how many of the rows to send wait until their subscriptions are enabled, or resumed.
    """

    ids: tuple[int, ...]
    skipped: int
    held: int = 0


class Adopted(NamedTuple):
    """How many rows of a batch have moved, and how many were skipped: the other group has stored the same delivery."""

    moved: int
    skipped: int


STORED = (
    ParkedDelivery.id,
    *RECORD,
    ParkedDelivery.subscription_id,
    ParkedDelivery.replay,
    ParkedDelivery.url,
    ParkedDelivery.status,
    ParkedDelivery.next_attempt_at,
    ParkedDelivery.order_key,
    ParkedDelivery.created_at,
    ParkedDelivery.updated_at,
    *ATTEMPTS,
    Payload.event_type,
    Payload.webhook_id,
)
_NOW = bindparam("b_now", type_=ParkedDelivery.updated_at.type)
_MAKE_DUE = (
    update(ParkedDelivery)
    .where(
        ParkedDelivery.id == bindparam("b_id"),
        ParkedDelivery.attempt == bindparam("b_attempt"),
        or_(*(ParkedDelivery.status == status for status in _REDELIVERED)),  # executemany cannot bind IN
    )
    .values(
        status=bind(ParkedDelivery.status),
        next_attempt_at=_NOW,
        schedule_start=ParkedDelivery.attempt,
        updated_at=_NOW,
        unpublished_by=None,
    )
)
_theirs, _copy = aliased(ParkedDelivery), aliased(Payload)
_TO = bindparam("b_to", type_=Payload.group_id.type)
_COPY_PAYLOAD = insert(Payload).from_select(
    [column.key for column in PAYLOAD],
    select(_TO, *PAYLOAD[1:]).where(
        is_bound(*PAYLOAD_RECORD),
        ~exists().where(
            _copy.group_id == _TO,
            *(getattr(_copy, column.key) == bind(column) for column in PAYLOAD_RECORD[1:]),
        ),
    ),
    include_defaults=False,
)
_MOVE = (
    update(ParkedDelivery)
    .where(ParkedDelivery.id == bindparam("b_id"), ParkedDelivery.group_id == bind(ParkedDelivery.group_id))
    .values(
        group_id=_TO,
        updated_at=bindparam("b_now", type_=ParkedDelivery.updated_at.type),
        unpublished_by=case((ParkedDelivery.unpublished_by.is_not(None), _TO)),
        published_attempt=None,  # its record names the other group
    )
)
_owner = aliased(Subscription)


def find(engine: Engine, selection: DeliveryQuery, *, limit: int, after_id: int | None = None) -> list[StoredDelivery]:
    """At most `limit` deliveries, by id, from above `after_id`."""
    chosen = _ids(selection).where(*_conditions(selection))
    if after_id is not None:
        chosen = chosen.where(ParkedDelivery.id > after_id)
    # Select the ids first, from an index alone: otherwise the whole rows of all matches would be sorted.
    page = chosen.order_by(ParkedDelivery.id).limit(limit).subquery("page")
    statement = select(*STORED).join(Payload, OF_PAYLOAD).join(page, page.c.id == ParkedDelivery.id)
    with reading(engine) as connection:
        return [delivery_of(row) for row in connection.execute(statement.order_by(ParkedDelivery.id))]


def count(engine: Engine, selection: DeliveryQuery, most: int) -> int:
    """How many deliveries match, as `upkeep.counted` counts."""
    return counted(steps(engine, selection), most)


def detail(engine: Engine, delivery_id: int) -> StoredDetail | None:
    """A delivery with its event; None if no delivery has this id."""
    stored = select(*STORED).join(Payload, OF_PAYLOAD).where(ParkedDelivery.id == delivery_id)
    carried = select(*PAYLOAD[1:]).join(ParkedDelivery, OF_PAYLOAD).where(ParkedDelivery.id == delivery_id)
    with reading(engine) as connection:
        row, event = connection.execute(stored).first(), connection.execute(carried).first()
    return StoredDetail(delivery_of(row), event_of(event)) if row and event else None


def of_record(engine: Engine, group: str, place: RecordId, most: int) -> list[StoredDelivery]:
    """At most `most` stored deliveries of a record, by subscription; those of replays come behind the others."""
    statement = (
        select(*STORED)
        .join(Payload, OF_PAYLOAD)
        .where(
            ParkedDelivery.group_id == group,
            ParkedDelivery.topic == place.topic,
            ParkedDelivery.partition_no == place.partition,
            ParkedDelivery.record_offset == place.offset,
            ParkedDelivery.record_ts == place.timestamp,
        )
        .order_by(ParkedDelivery.subscription_id, ParkedDelivery.replay)
        .limit(most)
    )
    with reading(engine) as connection:
        return [delivery_of(row) for row in connection.execute(statement)]


def of_tenant(tenant: str) -> Iterator[ColumnElement[bool]]:
    """The conditions that a delivery's subscription and its event, joined as Payload, have this tenant.

    A subscription may have been of another tenant, or of all, when the delivery was stored. With EVERY_TENANT, the
    event may be of any tenant.
    """
    yield exists().where(_owner.id == ParkedDelivery.subscription_id, _owner.tenant == tenant)
    if tenant != EVERY_TENANT:
        yield Payload.tenant == tenant


def redeliver(
    engine: Engine, selection: DeliveryQuery, now: float, note: Note = lambda *_: None
) -> Iterator[RedeliveryStep]:
    """Redeliver: make deliveries due now, on a new retry schedule. Yields after each step, empty ones too.

    `note` gets the rows of a step, in its transaction.

    Exhausted, parked and held rows are sent again; those of a disabled or paused subscription are held until then.
    Blocked rows keep their turn. Delivered rows are left alone, and so are rows stored after the call. A step is a
    transaction, and each row is in one step only.
    """
    for part in steps(engine, selection) if selection.ids is None else in_batches(selection.ids):
        redo = partial(_redeliver, ids=part, selection=selection, now=now, note=note)
        yield in_transaction(engine, redo) if part else RedeliveryStep((), 0)


def adopt(engine: Engine, from_group: str, to_group: str, now: float) -> Iterator[Adopted]:
    """Give a group's deliveries to another group, whose workers send them. Yields after each step, empty ones too.

    A delivery that the other group has stored itself stays where it is, and is counted as skipped. No worker of
    `from_group` may be running: deliveries that it sends meanwhile are sent twice. A step is a transaction; after an
    interruption, another call moves the rest.
    """
    for part in steps(engine, DeliveryQuery(group=from_group)):
        move = partial(_adopt, ids=part, from_group=from_group, to_group=to_group, now=now)
        yield in_transaction(engine, move) if part else Adopted(0, 0)


def _redeliver(
    connection: Connection, *, ids: Sequence[int], selection: DeliveryQuery, now: float, note: Note
) -> RedeliveryStep:
    rows = connection.execute(_redeliverable(ids, selection)).all()
    chosen = [row for row in rows if row.enabled is not None]
    held = {row.id for row in chosen if not row.enabled or row.paused_at is not None}
    if chosen:
        note(connection, chosen)
        binds = [
            {
                "b_id": row.id,
                "b_attempt": row.attempt,
                "b_status": Status.HELD if row.id in held else Status.PARKED,
                "b_now": time_of(now),
            }
            for row in chosen
        ]
        connection.execute(_MAKE_DUE, binds)
        put_in_order(connection, chosen, now)
        marks.look_for(connection, chosen)
    return RedeliveryStep(tuple(row.id for row in chosen), len(rows) - len(chosen), len(held))


def _ids(selection: DeliveryQuery) -> Select[int]:
    """Select all ids, with the join that the selection's conditions need."""
    statement = select(ParkedDelivery.id)
    plain = selection.event_type is None and selection.tenant is None
    return statement if plain else statement.join(Payload, OF_PAYLOAD)


def _conditions(selection: DeliveryQuery) -> Iterator[ColumnElement[bool]]:
    """The selection's conditions other than its ids."""
    if selection.group is not None:
        yield ParkedDelivery.group_id == selection.group
    if selection.statuses:
        yield ParkedDelivery.status.in_(sorted(selection.statuses))
    if selection.subscription is not None:
        yield ParkedDelivery.subscription_id == selection.subscription
    yield from unindexed(selection, ParkedDelivery.updated_at)


def unindexed(selection: DeliveryQuery, moment: InstrumentedAttribute[datetime]) -> Iterator[ColumnElement[bool]]:
    """The conditions that no index serves; `moment` is the column that `since` and `until` limit."""
    if selection.tenant is not None:
        yield from of_tenant(selection.tenant)
    if selection.event_type is not None:
        yield Payload.event_type == selection.event_type
    if selection.webhook_id is not None:
        yield Payload.webhook_id == selection.webhook_id
    if selection.topic is not None:
        yield ParkedDelivery.topic == selection.topic
    if selection.since is not None:
        yield moment >= time_of(selection.since)
    if selection.until is not None:
        yield moment < time_of(selection.until)


def steps(engine: Engine, selection: DeliveryQuery) -> Iterator[Sequence[int]]:
    """The ids of a selection's current rows, in steps of `by_id`."""
    for rows in by_id(engine, _ids(selection).order_by(ParkedDelivery.id), *_conditions(selection)):
        yield [row.id for row in rows]


def _redeliverable(ids: Collection[int], selection: DeliveryQuery) -> AnySelect:
    """Select a selection's rows that can be sent again, and their subscriptions' states (enabled null: removed)."""
    statement = (
        _ids(selection)
        .add_columns(
            ParkedDelivery.attempt,
            *RECORD[:3],
            ParkedDelivery.subscription_id,
            ParkedDelivery.order_key,
            Subscription.enabled,
            Subscription.paused_at,
        )
        .outerjoin(Subscription, Subscription.id == ParkedDelivery.subscription_id)
    )
    conditions = (*_conditions(selection), ParkedDelivery.status.in_(_REDELIVERED))
    return statement.where(any_of(ParkedDelivery.id.expression, sorted(ids)), *map(by_no_index, conditions)).order_by(
        ParkedDelivery.id
    )


def _adopt(connection: Connection, *, ids: Sequence[int], from_group: str, to_group: str, now: float) -> Adopted:
    """Move one batch: payloads are copied, rows re-keyed, payloads left unused deleted."""
    key = (*RECORD[1:], ParkedDelivery.subscription_id, ParkedDelivery.replay)
    statement = (
        select(ParkedDelivery.id, *key, ParkedDelivery.order_key, _theirs.id.label("theirs"))
        .outerjoin(
            _theirs,
            and_(_theirs.group_id == to_group, *(getattr(_theirs, column.key) == column for column in key)),
        )
        .where(by_no_index(ParkedDelivery.group_id == from_group), any_of(ParkedDelivery.id.expression, ids))
    )
    rows = connection.execute(statement).all()
    moving = [row for row in rows if row.theirs is None]
    if moving:
        records = {record_of(row) for row in moving}
        binds = {"b_to": to_group, "b_now": time_of(now), "b_group_id": from_group}
        connection.execute(
            _COPY_PAYLOAD, [record_binds(from_group, record) | {"b_to": to_group} for record in sorted(records)]
        )
        connection.execute(_MOVE, [binds | {"b_id": row.id} for row in moving])
        drop_payloads(connection, from_group, records)
        normalise(
            connection,
            to_group,
            {ordering_key for ordering_key in map(pair_of, moving) if ordering_key is not None},
            now,
        )
        marks.look(connection, to_group, {(row.topic, row.partition_no, row.subscription_id) for row in moving})
    return Adopted(len(moving), len(rows) - len(moving))


def delivery_of(row: AnyRow) -> StoredDelivery:
    """The delivery of a row of STORED."""
    return StoredDelivery(
        row.id,
        row.group_id,
        record_of(row),
        row.subscription_id,
        row.url,
        row.event_type,
        row.webhook_id,
        row.status,
        row.attempt,
        row.schedule_start,
        unix(row.next_attempt_at),
        first_of(row),
        last_of(row),
        row.replay,
        unix(row.created_at),
        unix(row.updated_at),
    )
