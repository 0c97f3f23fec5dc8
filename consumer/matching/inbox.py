"""Decoded events, in the order they came, until it is known who subscribed to them.

Of a partition nothing comes before it is known what is stored of it: this one queue never waits for one partition.
"""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from consumer.endpoint import Endpoint
from consumer.event import Event, Place
from consumer.matching.catalog import Catalog

MOST_EVENTS = 1000  # what one look-up of subscriptions may hold up
MOST_BYTES = 32 * 2**20

Settle = Callable[[int], None]  # takes the record's offset


class Matched(NamedTuple):
    """An event and whom it goes to: nobody, where `endpoints` is empty. `stored`: some of its deliveries are."""

    event: Event
    endpoints: tuple[Endpoint, ...]
    settle: Settle
    stored: bool = False


class Inbox:
    """Gives events out once their subscriptions are known, without those deliveries that are stored already."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._events: deque[tuple[Event, Settle, float]] = deque()
        self._bytes = 0
        self._stored: dict[Place, set[tuple[int, int, int]]] = {}
        self._highest: dict[Place, int] = {}  # offset of what is stored

    def __bool__(self) -> bool:
        return bool(self._events)

    @property
    def room(self) -> int:
        """How many more events may be put in."""
        return max(0, MOST_EVENTS - len(self._events)) if self._bytes < MOST_BYTES else 0

    def put(self, event: Event, settle: Settle, arrived: float) -> None:
        """Add an event that arrived then (the catalog's clock), of a partition that `stored` has told of.

        `settle` takes its offset once all of it is settled.
        """
        if event.record[:2] not in self._stored:
            raise KeyError(event.record[:2])
        self._events.append((event, settle, arrived))
        self._bytes += event.size

    def stored(self, place: Place, keys: set[tuple[int, int, int]]) -> None:
        """A partition's stored deliveries (offset, timestamp, subscription) are known: its events may be put in."""
        self._stored[place] = keys
        self._highest[place] = max(keys)[0] if keys else -1

    def next(self) -> Matched | None:
        """Take the oldest event out; None while there is none, or its subscriptions are not known yet."""
        if not self._events:
            return None
        event, settle, arrived = self._events[0]
        _, _, offset, timestamp = event.record
        place = event.record[:2]
        stored = self._stored[place]
        key = event.type, event.tenant
        endpoints = self._catalog.match(key, arrived)
        if endpoints is None:
            self._catalog.want((key,))
            return None
        self._events.popleft()
        self._bytes -= event.size
        if not stored:
            return Matched(event, endpoints, settle)
        if offset > self._highest[place]:  # so are those that follow; a log that goes back repeats some
            self._stored[place] = set()
            return Matched(event, endpoints, settle)
        rest = tuple(e for e in endpoints if (offset, timestamp, e.subscription_id) not in stored)
        return Matched(event, rest, settle, stored=len(rest) < len(endpoints))

    def first_offset(self, place: Place) -> int | None:
        """The lowest offset of a partition that waits here; None if none does."""
        return next((event.record.offset for event, _, _ in self._events if event.record[:2] == place), None)

    def discard(self, places: set[Place]) -> None:
        """Forget partitions and their events; their next owner reads them again."""
        self._events = deque(entry for entry in self._events if entry[0].record[:2] not in places)
        self._bytes = sum(event.size for event, _, _ in self._events)
        for place in places:
            self._stored.pop(place, None)
            self._highest.pop(place, None)
