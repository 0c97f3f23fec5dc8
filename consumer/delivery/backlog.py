"""What the live stream leaves to cursors: events of paused subscriptions, and of receivers that are far behind.

Rows are for retries, positions for backlogs. A receiver that is down gets at most `most_rows` stored deliveries in a
partition; the events after these are covered by a cursor, which costs one row however many they are.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial

from consumer.delivery.cursors import Cursor
from consumer.delivery.delivery import Lane, OpenRecord
from consumer.delivery.known_rows import OpenRows
from consumer.delivery.parking import Parking
from consumer.events.event import Event, TopicPartition
from consumer.ledger.cursors import KeptCursor, NewCursor
from consumer.ledger.rows import DueKey, due_key_of
from consumer.subscriptions.endpoint import Endpoint
from models import CursorReason

Covered = dict[int, list[Cursor]]  # the cursors of a partition, by subscription, the lowest first


class Backlog:
    """The cursors of assigned partitions."""

    def __init__(self, parking: Parking, most_rows: int, identity_of: Callable[[TopicPartition], str | None]) -> None:
        """`identity_of`: the identity of a partition's topic, as commits name it; None: not known."""
        self._parking = parking
        self._rows: OpenRows = parking.open_rows
        self._most_rows = most_rows
        self._identity_of = identity_of
        self._cursors: dict[TopicPartition, Covered] = {}

    def of(self, partition: TopicPartition) -> Covered:
        """The cursors of a partition; later ones appear in it."""
        return self._cursors.setdefault(partition, {})

    def all(self) -> Iterator[Cursor]:
        """Every cursor of this worker's partitions."""
        return (cursor for covered in self._cursors.values() for several in covered.values() for cursor in several)

    def active(self) -> Iterator[Cursor]:
        """The cursors that may move: of each subscription in a partition the first one that owes events, and replays."""
        for covered in self._cursors.values():
            for several in covered.values():
                owing = (cursor for cursor in several if cursor.stored and not (cursor.finished and not cursor.ending))
                for number, cursor in enumerate(owing):
                    if not number or cursor.replay:
                        yield cursor

    def may_store(self, due_key: DueKey) -> bool:
        """Whether the subscription may have more stored deliveries in the partition."""
        return self._rows[due_key] < self._most_rows and not self._parking.full

    def merge(self, due_key: DueKey, kept: Iterable[KeptCursor]) -> None:
        """Take the cursors of a due key as the database has them: their ids, and the ones that others have begun."""
        here = {(cursor.replay, cursor.first): cursor for cursor in self.of(due_key[:2]).get(due_key[2], ())}
        for each in kept:
            known = here.get((each.replay, each.first))
            if known is None:
                self._add(Cursor(each))
            elif known.id is None and known.stored:
                known.id = each.id

    def load(self, partition: TopicPartition, kept: Iterable[KeptCursor]) -> None:
        """Take a partition's cursors from the database. Call it before the first record of the partition is matched."""
        for each in kept:
            self._add(Cursor(each))
        self.of(partition)

    def leaves(self, event: Event, endpoint: Endpoint, record: OpenRecord) -> bool:
        """Leave a delivery of the live stream to the cursor that covers it, and begin one if the receiver is paused.

        False: none covers it, and the live stream makes the delivery.
        """
        cursor = self._covering(event, endpoint)
        if cursor is None:
            if not endpoint.paused:
                return False
            cursor = self._begin(event, endpoint, CursorReason.PAUSED)
        cursor.leave(record.settle_one)
        return True

    def takes(self, event: Event, endpoint: Endpoint, record: OpenRecord, lane: Lane | None) -> bool:
        """Whether a cursor takes a delivery that would be stored untried, since the receiver has enough rows."""
        held = 0 if lane is None else lane.held
        down = lane is not None and lane.breaker.is_long_open
        if not down and self._rows[due_key_of(event, endpoint.subscription_id)] + held < self._most_rows:
            return False
        self._begin(event, endpoint, CursorReason.BEHIND).leave(record.settle_one)
        return True

    def is_met(self, event: Event, endpoint: Endpoint) -> bool:
        """A cursor has met the live stream, and its end is not stored yet: store deliveries behind it."""
        several = self.of(event.record.topic_partition).get(endpoint.subscription_id, ())
        return any(cursor.ending for cursor in several)

    def save(self, cursor: Cursor) -> None:
        """Store a cursor's position, unless it has not moved. A cursor that another owner has moved is forgotten."""
        move = cursor.begin_save()
        if move is not None:
            self._parking.move(move, cursor.due_key, cursor.end_save, partial(self.drop, cursor))

    def drop(self, cursor: Cursor) -> None:
        """Forget a cursor whose row is gone."""
        covered = self.of(cursor.due_key[:2])
        left = [each for each in covered.get(cursor.due_key[2], ()) if each is not cursor]
        if left:
            covered[cursor.due_key[2]] = left
        else:
            covered.pop(cursor.due_key[2], None)

    def forget(self, partitions: Collection[TopicPartition]) -> None:
        """Forget partitions that have left."""
        for partition in partitions:
            self._cursors.pop(partition, None)

    def _covering(self, event: Event, endpoint: Endpoint) -> Cursor | None:
        several = self.of(event.record.topic_partition).get(endpoint.subscription_id, ())
        return next((cursor for cursor in several if cursor.covers(event.record.offset)), None)

    def _begin(self, event: Event, endpoint: Endpoint, reason: CursorReason) -> Cursor:
        due_key = due_key_of(event, endpoint.subscription_id)
        new = NewCursor(
            due_key,
            event.record.offset,
            reason,
            timestamp=event.record.timestamp,
            identity=self._identity_of(due_key[:2]),
        )
        cursor = Cursor.new(new)
        self._add(cursor)
        self._parking.begin(new, cursor.is_stored)
        return cursor

    def _add(self, cursor: Cursor) -> None:
        several = self.of(cursor.due_key[:2]).setdefault(cursor.due_key[2], [])
        several.append(cursor)
        several.sort(key=lambda each: (each.replay, each.first))
