"""Reads stored deliveries, open ordering keys and topics with rows, for the owner of a partition."""

from bisect import bisect_left
from collections.abc import Collection, Iterable
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from sqlalchemy import Connection, Engine, exists, func, select

from consumer.database.engine import any_of, reading
from consumer.events.event import TopicPartition
from consumer.ledger.columns import BATCH, OPEN, time_of
from consumer.ledger.ordering import standing
from consumer.ledger.rows import DueKey, OrderingKey
from models import Mark, ParkedDelivery, Status, Subscription

PAGE = 1000  # rows; a partition keeps one page in memory, some 0.25 MB

Key = tuple[int, int, int]  # offset, record timestamp, subscription


class Settled(NamedTuple):
    """The keys of a partition's stored deliveries from an offset on: complete below `end`; None: complete."""

    keys: set[Key]
    end: int | None


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
    """Each topic that has open or delivered rows.

    Delivered rows count because they have to be deleted if the topic is gone. Takes a seek for each topic and state,
    however many rows there are.
    """
    topics: set[str] = set()
    with reading(engine) as connection:
        for status in (*OPEN, Status.DELIVERED):
            first = select(func.min(ParkedDelivery.topic)).where(
                ParkedDelivery.group_id == group, ParkedDelivery.status == status
            )
            topic = connection.scalar(first)
            while topic is not None:
                topics.add(topic)
                topic = connection.scalar(first.where(ParkedDelivery.topic > topic))
    return sorted(topics)


def next_partition(engine: Engine, group: str, topic: str, after: int) -> int | None:
    """The lowest partition above `after` that has rows, in any state. One seek, however large the numbers are."""
    lowest = select(func.min(ParkedDelivery.partition_no)).where(
        ParkedDelivery.group_id == group, ParkedDelivery.topic == topic, ParkedDelivery.partition_no > after
    )
    with reading(engine) as connection:
        return connection.scalar(lowest)


def with_due_rows(engine: Engine, group: str, due_keys: Iterable[DueKey], now: float) -> list[DueKey]:
    """Those of the due keys that have a row due at `now` (unix seconds), unless their subscription is removed.

    Takes a seek for each due key, and a statement for each partition and BATCH due keys.
    """
    found: list[DueKey] = []
    with reading(engine) as connection:
        for (topic, number), here in groupby(sorted(due_keys), itemgetter(0, 1)):
            due = exists().where(
                ParkedDelivery.group_id == group,
                ParkedDelivery.status == Status.PARKED,
                ParkedDelivery.topic == topic,
                ParkedDelivery.partition_no == number,
                ParkedDelivery.subscription_id == Subscription.id,
                ParkedDelivery.next_attempt_at <= time_of(now),
            )
            subscriptions = [subscription for _, _, subscription in here]
            for start in range(0, len(subscriptions), BATCH):
                some = any_of(Subscription.id.expression, subscriptions[start : start + BATCH])
                rows = connection.execute(select(Subscription.id).where(some, due))
                found += [(topic, number, row.id) for row in rows]
    return found


def with_rows(engine: Engine, group: str, partitions: Collection[TopicPartition]) -> set[TopicPartition]:
    """The members of `partitions` that have stored deliveries, in any state, or marks.

    Takes a seek for each member found, and one for each topic and table: two for a thousand partitions of a topic
    without rows.
    """
    found: set[TopicPartition] = set()
    with reading(engine) as connection:
        for topic, here in groupby(sorted(partitions), itemgetter(0)):
            numbers = [number for _, number in here]
            for table in (ParkedDelivery, Mark):
                found.update((topic, number) for number in _numbers(connection, table, group, topic, numbers))
    return found


def _numbers(
    connection: Connection, table: type[ParkedDelivery | Mark], group: str, topic: str, wanted: list[int]
) -> list[int]:
    """The `wanted` partitions (sorted) that have rows."""
    lowest = select(func.min(table.partition_no)).where(table.group_id == group, table.topic == topic)
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
