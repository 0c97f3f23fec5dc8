"""A worker's knowledge of stored rows: when they are due, their ordering keys, and which are taken up.

An ordering key stands for the deliveries of one record key, from one partition, to a subscription that asks for order.
The database decides which of them is first (`ledger.ordering`). A new delivery whose key has rows goes behind them.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import chain
from math import inf

from consumer.delivery.limits import Memory
from consumer.events.event import Event, TopicPartition
from consumer.ledger.rows import AttemptResult, DueKey, NewDelivery, OrderingKey, order_key
from consumer.subscriptions.endpoint import Endpoint

MOST_KEYS = 100_000  # of all partitions together, some 15 MB


class DueKeys(dict[DueKey, float]):
    """By key, when its first row is due (unix seconds). The noted time may be too early."""

    @property
    def next_at(self) -> float | None:
        """When the first of all rows is due; None if none waits. Safe to call from another thread."""
        return min(list(self.values()), default=None)

    def note(self, due_key: DueKey, due_at: float) -> None:
        """Note that a row of this key is due at `due_at`."""
        self[due_key] = min(due_at, self.get(due_key, due_at))

    def postpone(self, due_keys: Iterable[DueKey], until: float) -> None:
        """Replace the noted times of these keys by `until`."""
        self.update(dict.fromkeys(due_keys, until))

    def forget(self, partitions: Collection[TopicPartition]) -> None:
        """Forget the keys of partitions that have left."""
        for due_key in [each for each in self if each[:2] in partitions]:
            del self[due_key]


class OpenRows(Counter[DueKey]):
    """How many open rows each due key has, or is about to get from this process, since its partition was assigned."""

    def ended(self, due_key: DueKey, item: NewDelivery | AttemptResult) -> None:
        """A row was written: it may be a row less."""
        if item.status != "parked" and self[due_key] > 0:
            self[due_key] -= 1

    def forget(self, partitions: Collection[TopicPartition]) -> None:
        """Forget the due keys of partitions that have left."""
        for due_key in [each for each in self if each[:2] in partitions]:
            del self[due_key]


class TakenUp:
    """The stored deliveries that this process has taken up, by the id of their row.

    A row looks due until its result is written, even if its partition was revoked and assigned again meanwhile.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._rows: dict[int, tuple[DueKey, Event]] = {}

    def __contains__(self, row: int) -> bool:
        return row in self._rows

    def __iter__(self) -> Iterator[int]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def due_keys(self) -> Iterator[tuple[int, DueKey]]:
        """Each row's id with its due key."""
        return ((row, due_key) for row, (due_key, _) in self._rows.items())

    def add(self, row: int, due_key: DueKey, event: Event) -> None:
        """Take up a row."""
        self._rows[row] = due_key, event
        self._memory.keep(event, event.size)

    def remove(self, row: int) -> DueKey | None:
        """Let go of a row: its result is written, or the database owns it again. None if it was not here."""
        due_key, event = self._rows.pop(row, (None, None))
        if event is not None:
            self._memory.drop(event)
        return due_key


def ordering_key_of(event: Event, endpoint: Endpoint, replay: int = 0) -> OrderingKey | None:
    """The ordering key of a delivery; None if the subscription does not ask for order or the record has no key."""
    if not endpoint.ordered or event.key is None:
        return None
    place = endpoint.subscription_id, event.record.topic, event.record.partition
    return OrderingKey(*place, order_key(event.key, replay))


class RowsReading:
    """A read of rows that is under way: what it may miss, by ordering key, from the lowest offset on."""

    __slots__ = ("missed",)

    def __init__(self) -> None:
        self.missed: dict[OrderingKey, float] = {}


class StoredKeys:
    """The ordering keys with rows in the assigned partitions: perhaps too many, never too few, and at most `most`.

    A surplus key sends its deliveries through the database. Above `most`, the keys of the subscriptions with the most
    keys in a partition are dropped: all of their deliveries there then go behind rows. So the backlog of a receiver
    that is down does not send other subscriptions' deliveries through the database.
    """

    def __init__(self, most: int = MOST_KEYS) -> None:
        self.most = most
        # Keys by subscription; None if a subscription, or the whole partition, has too many to keep.
        self._known: dict[TopicPartition, dict[int, set[str] | None] | None] = {}
        self._count = 0
        self._writing: dict[OrderingKey, Counter[int]] = {}  # offsets of the rows that are being written
        self._readings: list[RowsReading] = []

    def __contains__(self, ordering_key: OrderingKey) -> bool:
        """Deliveries with this ordering key go behind its rows."""
        known = self._known.get(ordering_key[1:3], {})
        if known is None:
            return True
        keys = known.get(ordering_key.subscription_id, ())
        return keys is None or ordering_key.key in keys or ordering_key in self._writing

    def begin_reading(self) -> RowsReading:
        """A read of rows begins on a database thread; end it with `end_reading`."""
        self._readings.append(reading := RowsReading())
        return reading

    def end_reading(self, reading: RowsReading) -> None:
        """The rows of the read have been used, or the read has failed."""
        self._readings.remove(reading)

    def first_unseen(self, ordering_key: OrderingKey, reading: RowsReading) -> float:
        """The lowest offset of this ordering key's rows that `reading` may have missed; inf if there is none.

        Such rows are being written, or were written since it began.
        """
        written = reading.missed.get(ordering_key, inf)
        return min(written, min(self._writing.get(ordering_key, ()), default=inf))

    @property
    def unknown(self) -> dict[TopicPartition, int]:
        """Partitions with keys that are not kept, and how many ordering keys of each may be kept."""
        given_up = {
            partition: known for partition, known in self._known.items() if known is None or None in known.values()
        }
        part = (self.most - self._count) // max(1, len(given_up))
        return {partition: _size(known) + part for partition, known in given_up.items()}

    def loaded(
        self, partition: TopicPartition, ordering_keys: Iterable[OrderingKey] | None, reading: RowsReading
    ) -> None:
        """Take the ordering keys that the database has for a partition; None if there are too many."""
        self._forget(partition)
        if ordering_keys is None:
            self._known[partition] = None
            return
        missed = [ordering_key for ordering_key in reading.missed if ordering_key[1:3] == partition]
        for ordering_key in chain(ordering_keys, missed):
            self._add(ordering_key)

    def began(self, ordering_key: OrderingKey, offset: int) -> None:
        """A row with this ordering key is to be written."""
        self._writing.setdefault(ordering_key, Counter())[offset] += 1

    def written(self, ordering_key: OrderingKey, offset: int, *, is_open: bool) -> None:
        """The row is in the database. It waits there, or was given up: then later deliveries may go."""
        if is_open:
            self.seen(ordering_key, offset)
        if offsets := self._writing.get(ordering_key):
            offsets[offset] -= 1
            if offsets[offset] <= 0:
                del offsets[offset]
            if not offsets:
                del self._writing[ordering_key]

    def seen(self, ordering_key: OrderingKey, offset: float = inf) -> None:
        """A row with this ordering key waits in the database; readings may have missed it if it has an `offset`."""
        for reading in self._readings:
            reading.missed[ordering_key] = min(offset, reading.missed.get(ordering_key, inf))
        self._add(ordering_key)

    def cleared(self, ordering_keys: Iterable[OrderingKey]) -> None:
        """The last row of each key has ended. A key with a row that is being written stays."""
        for ordering_key in ordering_keys:
            known = self._known.get(ordering_key[1:3]) or {}
            keys = known.get(ordering_key.subscription_id)
            if keys and ordering_key.key in keys:
                keys.remove(ordering_key.key)
                self._count -= 1
                if not keys:
                    del known[ordering_key.subscription_id]

    def leave(self, partitions: Collection[TopicPartition]) -> None:
        """Forget partitions."""
        for partition in partitions:
            self._forget(partition)
        self._writing = {
            ordering_key: offsets
            for ordering_key, offsets in self._writing.items()
            if ordering_key[1:3] not in partitions
        }

    def _forget(self, partition: TopicPartition) -> None:
        self._count -= _size(self._known.pop(partition, None))

    def _add(self, ordering_key: OrderingKey) -> None:
        known = self._known.setdefault(ordering_key[1:3], {})
        keys = None if known is None else known.setdefault(ordering_key.subscription_id, set())
        if keys is not None and ordering_key.key not in keys:
            keys.add(ordering_key.key)
            self._count += 1
            if self._count > self.most:
                self._drop_half()

    def _drop_half(self) -> None:
        """Drop the keys of the subscriptions with the most, until half are left, so that this is rare."""
        found = [
            (len(keys), partition, subscription)
            for partition, known in self._known.items()
            for subscription, keys in (known or {}).items()
            if keys
        ]
        for size, partition, subscription in sorted(found, reverse=True):
            if self._count <= self.most // 2:
                return
            if known := self._known[partition]:
                known[subscription] = None
                self._count -= size - 1
        if self._count > self.most // 2:  # too many subscriptions, even with one key each
            self._known = dict.fromkeys(self._known)
            self._count = 0


def _size(known: Mapping[int, Collection[str] | None] | None) -> int:
    return sum(1 if keys is None else len(keys) for keys in (known or {}).values())
