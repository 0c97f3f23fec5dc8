"""Adoption: moves a group's stored deliveries to another group, when a group is renamed."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

from sqlalchemy import Connection, Engine, and_, bindparam, exists, insert, select, update
from sqlalchemy.orm import aliased

from consumer.database.engine import any_of
from consumer.ledger import marks
from consumer.ledger.admin import DeliveryQuery, steps
from consumer.ledger.columns import (
    PAYLOAD,
    PAYLOAD_RECORD,
    RECORD,
    bind,
    in_transaction,
    is_bound,
    pair_of,
    record_binds,
    record_of,
    time_of,
)
from consumer.ledger.ordering import normalise
from consumer.ledger.upkeep import by_no_index, drop_payloads
from models import ParkedDelivery, Payload

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
    .values(group_id=_TO, updated_at=bindparam("b_now", type_=ParkedDelivery.updated_at.type))
)


class Adopted(NamedTuple):
    """How many rows of a batch have moved, and how many were skipped: the other group has stored the same delivery."""

    moved: int
    skipped: int


def adopt(engine: Engine, from_group: str, to_group: str, now: float) -> Iterator[Adopted]:
    """Give a group's deliveries to another group, whose workers send them. Yields after each step, empty ones too.

    A delivery that the other group has stored itself stays where it is, and is counted as skipped. No worker of
    `from_group` may be running: deliveries that it sends meanwhile are sent twice. A step is a transaction; after an
    interruption, another call moves the rest.
    """
    for part in steps(engine, DeliveryQuery(group=from_group)):
        move = partial(_adopt, ids=part, from_group=from_group, to_group=to_group, now=now)
        yield in_transaction(engine, move) if part else Adopted(0, 0)


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
