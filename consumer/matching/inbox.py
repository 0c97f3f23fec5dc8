"""Queues decoded events, in the order they came, until their subscriptions are known.

A partition's events wait until its stored deliveries are known. These are known up to an offset; events beyond it stand
aside until more are known. So the queue, which all partitions share, never waits for a single partition.
"""

from collections import deque
from collections.abc import Callable
from itertools import chain
from typing import NamedTuple

from consumer.events.event import Event, TopicPartition
from consumer.loop.part import first
from consumer.matching.catalog import Catalog
from consumer.subscriptions.endpoint import Endpoint

MOST_EVENTS = 1000  # events that one look-up of subscriptions may hold up
INBOX_BYTES = 32 * 2**20

Settle = Callable[[int], None]  # takes the record's offset
Ask = Callable[[TopicPartition, int], None]
Entry = tuple[Event, Settle, float, int]  # with its arrival and its size
# An event and its size, its subscriptions' endpoints, which may be none, its `settle`, its arrival, and whether some of
# its deliveries are stored. A named tuple would take three times as long to make, and this is made for each event.
Matched = tuple[Event, int, tuple[Endpoint, ...], Settle, float, bool]


class _Stored(NamedTuple):
    """A partition's stored deliveries: their keys at offsets below `end` (None: all), and the `highest` such offset."""

    keys: set[tuple[int, int, int]]
    highest: int
    end: int | None


class Inbox:
    """Hands out events once their subscriptions are known, without deliveries that are already stored."""

    def __init__(self, catalog: Catalog, ask: Ask) -> None:
        """`ask(partition, offset)` requests the stored deliveries from an offset on; `stored` gets the answer."""
        self._catalog = catalog
        self._ask = ask
        self._events: deque[Entry] = deque()
        self._beyond: dict[TopicPartition, deque[Entry]] = {}  # events whose stored deliveries are requested
        self._held = self._bytes = 0
        self._stored: dict[TopicPartition, _Stored] = {}

    def __bool__(self) -> bool:
        return self._held > 0

    @property
    def room(self) -> int:
        """The number of events that may still be put in."""
        return max(0, MOST_EVENTS - self._held) if self._bytes < INBOX_BYTES else 0

    @property
    def oldest(self) -> float | None:
        """When the first waiting event arrived; None if none waits. Safe to call from another thread."""
        heads = (first(queue) for queue in [self._events, *list(self._beyond.values())])
        return min((head[2] for head in heads if head is not None), default=None)

    def put(self, event: Event, size: int, settle: Settle, arrived: float) -> None:
        """Add an event that `arrived` at a time (the catalog's clock), of a partition that `stored` was called for.

        `size` is the event's. `settle` takes its offset once all its deliveries are settled.
        """
        self._add((event, settle, arrived, size))
        self._held += 1
        self._bytes += size

    def stored(self, partition: TopicPartition, keys: set[tuple[int, int, int]], end: int | None = None) -> None:
        """Take a partition's stored deliveries (offset, timestamp, subscription): its events may then be put in.

        With an `end`, these are the ones below that offset; later ones are requested when an event reaches `end`.
        """
        before, first = self._stored.get(partition), self.first_offset(partition)
        if before is not None and first is not None:  # keep the keys of events that are still queued
            keys = keys | {key for key in before.keys if key[0] >= first}
        self._stored[partition] = _Stored(keys, max(keys)[0] if keys else -1, end)
        for entry in self._beyond.pop(partition, ()):
            self._add(entry)

    def stands_aside(self, partition: TopicPartition) -> bool:
        """Whether events of this partition wait until their stored deliveries are known."""
        return partition in self._beyond

    def next(self) -> Matched | None:
        """Take out the oldest event; None while the queue is empty or the event's subscriptions are not known yet."""
        if not self._events:
            return None
        event, settle, arrived, size = self._events[0]
        key = event.type, event.tenant
        endpoints = self._catalog.match(key, arrived)
        if endpoints is None:
            self._catalog.want((key,))
            return None
        self._events.popleft()
        self._held -= 1
        self._bytes -= size
        partition = event.record[:2]
        stored = self._stored[partition]
        if not stored.keys:
            return event, size, endpoints, settle, arrived, False
        offset, timestamp = event.record.offset, event.record.timestamp
        if offset > stored.highest:  # true of all later events too; a log that goes back repeats some
            self._stored[partition] = _Stored(set(), -1, stored.end)
            return event, size, endpoints, settle, arrived, False
        rest = tuple(e for e in endpoints if (offset, timestamp, e.subscription_id) not in stored.keys)
        return event, size, rest, settle, arrived, len(rest) < len(endpoints)

    def first_offset(self, partition: TopicPartition) -> int | None:
        """The lowest offset of a partition's waiting events; None if none waits."""
        waiting = chain(self._events, self._beyond.get(partition, ()))
        return next((event.record.offset for event, *_ in waiting if event.record.topic_partition == partition), None)

    def discard(self, partitions: set[TopicPartition]) -> None:
        """Forget partitions and their events; their next owner reads them again."""
        for partition in partitions:
            self._stored.pop(partition, None)
            self._beyond.pop(partition, None)
        self._events = deque(entry for entry in self._events if entry[0].record.topic_partition not in partitions)
        left = [entry[3] for entry in chain(self._events, *self._beyond.values())]
        self._held, self._bytes = len(left), sum(left)

    def _add(self, entry: Entry) -> None:
        """Append an entry to the queue, or put it aside."""
        record = entry[0].record
        partition, offset = record[:2], record.offset
        end = self._stored[partition].end
        if partition in self._beyond:
            self._beyond[partition].append(entry)
        elif end is None or offset < end:
            self._events.append(entry)
        else:
            self._beyond[partition] = deque((entry,))
            self._ask(partition, offset)
