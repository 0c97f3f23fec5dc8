"""Finds the rows of a partition for its owner: settled deliveries, open ordering keys, and due keys with rows.

A *due key* is the partition and the subscription that rows belong to: a range of the index
ix_webhook_deliveries_head, in the order of due times. `scan` leaps from due key to due key, with a seek for each; one
statement makes many seeks. `due` reads the rows.
"""

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Engine, Select, func, select

from consumer.database.engine import reading
from consumer.database.statements import AnySelect, leaps, of_each
from consumer.events.event import TopicPartition
from consumer.ledger.cursors import KeptCursor
from consumer.ledger.ordering import standing
from consumer.ledger.rows import DUE_KEY, OPEN, DueKey, OrderingKey, due_key_of_row
from models import Mark, ParkedDelivery, Status, StoredCursor
from models.base import BEFORE_IDS
from models.mark import OWNER_OFFSET

SEEKS = 256  # in one `scan`
PAGE = 1000  # rows; a partition keeps one page in memory, some 0.25 MB

Key = tuple[int, int, int]  # offset, record timestamp, subscription


class Scanned(NamedTuple):
    """Due keys, each with its first row's due time (unix seconds); and the key to go on after, None at the end."""

    due_keys: dict[DueKey, float]
    end: DueKey | None


class Settled(NamedTuple):
    """The keys of a partition's stored deliveries from an offset on: complete below `end`; None: complete.

    `cursors`: those of the partition, in its first look-up.
    """

    keys: set[Key]
    end: int | None
    cursors: tuple[KeptCursor, ...] = ()


def settled_keys(engine: Engine, group: str, topic: str, partition: int, from_offset: int, most: int = PAGE) -> Settled:
    """The keys of rows at or above an offset, in any state: `most` rows, or those of one record that has more.

    Exhausted and delivered rows count too: their deliveries must not be made again. Rows of replays do not count.
    """
    statement = select(ParkedDelivery.record_offset, ParkedDelivery.record_ts, ParkedDelivery.subscription_id).where(
        ParkedDelivery.group_id == group,
        ParkedDelivery.topic == topic,
        ParkedDelivery.partition_no == partition,
        ParkedDelivery.replay == 0,
    )
    offset = ParkedDelivery.record_offset
    page = statement.where(offset >= from_offset).order_by(offset).limit(most + 1)
    with reading(engine) as connection:
        keys = [(row.record_offset, row.record_ts, row.subscription_id) for row in connection.execute(page)]
        if len(keys) <= most:
            return Settled(set(keys), None)
        last = keys[-1][0]  # this record's rows may be incomplete
        whole = {key for key in keys if key[0] < last}
        if whole:
            return Settled(whole, last)
        rows = connection.execute(statement.where(offset == last))
        return Settled({(row.record_offset, row.record_ts, row.subscription_id) for row in rows}, last + 1)


def open_keys(engine: Engine, group: str, topic: str, partition: int, most: int) -> frozenset[OrderingKey] | None:
    """The ordering keys of a partition that have open rows; None if there are more than `most`."""
    with reading(engine) as connection:
        rows = connection.execute(standing(group, topic, partition).limit(most + 1)).all()
    if len(rows) > most:
        return None
    return frozenset(OrderingKey(row.subscription_id, topic, partition, row.order_key) for row in rows)


def open_topics(engine: Engine, group: str) -> list[str]:
    """Each topic that has open or delivered rows, or cursors.

    Delivered rows count because they have to be deleted if the topic is gone. Takes a seek for each topic and state,
    however many rows there are.
    """
    row, cursor = ParkedDelivery, StoredCursor
    firsts: list[tuple[ColumnElement[str], Select[Any]]] = [
        (row.topic.expression, select(func.min(row.topic)).where(row.group_id == group, row.status == status))
        for status in (*OPEN, Status.DELIVERED)
    ]
    firsts.append((cursor.topic.expression, select(func.min(cursor.topic)).where(cursor.group_id == group)))
    topics: set[str] = set()
    with reading(engine) as connection:
        for column, first in firsts:
            topic = connection.scalar(first)
            while topic is not None:
                topics.add(topic)
                topic = connection.scalar(first.where(column > topic))
    return sorted(topics)


def next_partition(engine: Engine, group: str, topic: str, after: int) -> int | None:
    """The lowest partition above `after` that has rows, in any state, or cursors. Two seeks, however many there are."""
    with reading(engine) as connection:
        lowest = [
            connection.scalar(
                select(func.min(table.partition_no)).where(
                    table.group_id == group, table.topic == topic, table.partition_no > after
                )
            )
            for table in (ParkedDelivery, StoredCursor)
        ]
    return min((number for number in lowest if number is not None), default=None)


def scan(
    engine: Engine, group: str, partitions: Sequence[TopicPartition], after: DueKey | None, most: int = SEEKS
) -> Scanned:
    """Due keys behind `after` with parked rows in some partitions (sorted); makes at most `most` seeks for them.

    Takes a statement for each topic, for each partition with parked rows, and for PARTS due keys.
    """
    found: list[DueKey] = []
    end = None
    with reading(engine) as connection:
        if after is None and connection.scalar(_any_parked(group)) is None:
            return Scanned({}, None)
        ahead = [partition for partition in partitions if after is None or partition >= after[:2]]
        for partition in _with_parked(connection, group, ahead):
            last = after[2] if after is not None and partition == after[:2] else BEFORE_IDS
            if not most:
                end = (*partition, last)
                break
            here = leaps(connection, ParkedDelivery.subscription_id, last, most, *_parked(group, *partition))
            found += [(*partition, subscription) for subscription in here]
            if len(here) == most:
                end = found[-1]
                break
            most -= len(here) + 1
        rows = of_each(connection, first_rows, DUE_KEY, [(group, *due_key) for due_key in found], 1)
    return Scanned({due_key_of_row(row): row.next_attempt_at.timestamp() for row in rows}, end)


def _any_parked(group: str) -> AnySelect:
    here = select(ParkedDelivery.id).where(ParkedDelivery.group_id == group, ParkedDelivery.status == Status.PARKED)
    return here.order_by(ParkedDelivery.topic).limit(1)  # in the order of the index, so that no scan looks cheaper


def _with_parked(connection: Connection, group: str, partitions: Iterable[TopicPartition]) -> Iterator[TopicPartition]:
    """Those of the partitions (sorted) that have parked rows. Takes a statement for each topic."""
    here = ParkedDelivery.group_id == group, ParkedDelivery.status == Status.PARKED
    for topic, owned in groupby(partitions, itemgetter(0)):
        numbers = [number for _, number in owned]
        before, most = numbers[0] - 1, numbers[-1] - numbers[0] + 1
        parked = leaps(connection, ParkedDelivery.partition_no, before, most, *here, ParkedDelivery.topic == topic)
        yield from ((topic, number) for number in sorted({*numbers}.intersection(parked)))


def _parked(group: object, topic: object, partition: object) -> tuple[ColumnElement[bool], ...]:
    """The condition that a row is parked, of this partition: values or binds."""
    return (
        ParkedDelivery.group_id == group,
        ParkedDelivery.status == Status.PARKED,
        ParkedDelivery.topic == topic,
        ParkedDelivery.partition_no == partition,
    )


def first_rows(group: object, topic: object, partition: object, subscription: object) -> AnySelect:
    """Select the rows of a due key, the first due one first."""
    return (
        select(*DUE_KEY[1:], ParkedDelivery.next_attempt_at, ParkedDelivery.id)
        .where(*_parked(group, topic, partition), ParkedDelivery.subscription_id == subscription)
        .order_by(ParkedDelivery.next_attempt_at, ParkedDelivery.id)
    )


def with_rows(engine: Engine, group: str, partitions: Collection[TopicPartition]) -> set[TopicPartition]:
    """The members of `partitions` that have stored deliveries, in any state, or marks but their owner's, or cursors.

    Takes a seek for each member found, and one for each topic and table: three for a thousand partitions of a topic
    without rows.
    """
    found: set[TopicPartition] = set()
    with reading(engine) as connection:
        for topic, here in groupby(sorted(partitions), itemgetter(0)):
            numbers = [number for _, number in here]
            for table in (ParkedDelivery, Mark, StoredCursor):
                found.update((topic, number) for number in _numbers(connection, table, group, topic, numbers))
    return found


def _numbers(
    connection: Connection, table: type[ParkedDelivery | Mark | StoredCursor], group: str, topic: str, wanted: list[int]
) -> list[int]:
    """The `wanted` partitions (sorted) that have rows."""
    lowest = select(func.min(table.partition_no)).where(table.group_id == group, table.topic == topic)
    if table is Mark:
        lowest = lowest.where(Mark.record_offset > OWNER_OFFSET)
    found, position = [], 0
    while position < len(wanted):
        number = connection.scalar(lowest.where(table.partition_no >= wanted[position]))
        if number is None:
            break
        position = bisect_left(wanted, number)
        if wanted[position : position + 1] == [number]:
            found.append(number)
            position += 1
    return found
