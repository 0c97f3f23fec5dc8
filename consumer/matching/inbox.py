"""Decoded events, in the order they came, until it is known who subscribed to them."""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from consumer.endpoint import Endpoint
from consumer.event import Event, Place
from consumer.matching.catalog import Catalog

MOST_EVENTS = 1000  # what one look-up of subscriptions may hold up
MOST_BYTES = 32 * 2**20

Settle = Callable[[int], None]  # takes the record's offset
Ask = Callable[[Place, int], None]


class Matched(NamedTuple):
    """An event and whom it goes to: nobody, where `endpoints` is empty. `stored`: some of its deliveries are."""

    event: Event
    endpoints: tuple[Endpoint, ...]
    settle: Settle
    stored: bool = False


class _Stored(NamedTuple):
    """What is stored of a partition: keys of offsets below `end`, None: all; `highest` is the last of their offsets."""

    keys: set[tuple[int, int, int]]
    highest: int
    end: int | None


class Inbox:
    """Gives events out once their subscriptions are known, and what is stored of them already."""

    def __init__(self, catalog: Catalog, ask: Ask) -> None:
        """`ask` what is stored of a partition from an offset on: `stored` tells."""
        self._catalog = catalog
        self._ask = ask
        self._events: deque[tuple[Event, Settle, float]] = deque()
        self._bytes = 0
        self._stored: dict[Place, _Stored] = {}

    def __bool__(self) -> bool:
        return bool(self._events)

    @property
    def room(self) -> int:
        """How many more events may be put in."""
        return max(0, MOST_EVENTS - len(self._events)) if self._bytes < MOST_BYTES else 0

    def put(self, event: Event, settle: Settle, arrived: float) -> None:
        """Add an event that arrived then (the catalog's clock); `settle` takes its offset once all of it is settled."""
        self._events.append((event, settle, arrived))
        self._bytes += event.size

    def stored(self, place: Place, keys: set[tuple[int, int, int]], end: int | None = None) -> None:
        """A partition's stored deliveries (offset, timestamp, subscription) are known: its events may go out.

        With an `end` those below that offset; what is stored of later ones is asked for when it is their turn.
        """
        self._stored[place] = _Stored(keys, max(keys)[0] if keys else -1, end)

    def next(self) -> Matched | None:
        """Take the oldest event out; None while there is none, or what it needs is not known yet."""
        if not self._events:
            return None
        event, settle, arrived = self._events[0]
        _, _, offset, timestamp = event.record
        stored = self._known(event.record[:2], offset)
        if stored is None:
            return None
        key = event.type, event.tenant
        endpoints = self._catalog.match(key, arrived)
        if endpoints is None:
            self._catalog.want((key,))
            return None
        self._events.popleft()
        self._bytes -= event.size
        if not stored.keys:
            return Matched(event, endpoints, settle)
        if offset > stored.highest:  # so are those that follow; a log that goes back repeats some
            self._stored[event.record[:2]] = _Stored(set(), -1, stored.end)
            return Matched(event, endpoints, settle)
        rest = tuple(e for e in endpoints if (offset, timestamp, e.subscription_id) not in stored.keys)
        return Matched(event, rest, settle, stored=len(rest) < len(endpoints))

    def _known(self, place: Place, offset: int) -> _Stored | None:
        """What is stored, this offset's among it; None while that is asked for."""
        stored = self._stored.get(place)
        if stored is None or stored.end is None or offset < stored.end:
            return stored
        del self._stored[place]
        self._ask(place, offset)
        return None

    def first_offset(self, place: Place) -> int | None:
        """The lowest offset of a partition that waits here; None if none does."""
        return next((event.record.offset for event, _, _ in self._events if event.record[:2] == place), None)

    def discard(self, places: set[Place]) -> None:
        """Forget partitions and their events; their next owner reads them again."""
        self._events = deque(entry for entry in self._events if entry[0].record[:2] not in places)
        self._bytes = sum(event.size for event, _, _ in self._events)
        for place in places:
            self._stored.pop(place, None)
