"""Ordered deliveries: which pairs have rows in the database, so that what comes for them goes behind those.

A pair is a key's deliveries from one partition to a subscription that asked for order. What stands here may be too
much, never too little: the database decides who of a pair is first (`ledger.store`), and a pair too many costs its
deliveries a detour through the database.
"""

from collections import Counter
from collections.abc import Collection, Iterable
from math import inf

from consumer.endpoint import Endpoint
from consumer.event import Event
from consumer.ledger.rows import Pair, order_key

MOST_PAIRS = 100_000  # of one partition, some 30 MB; above it all of its ordered deliveries take the detour

Place = tuple[str, int]


def pair_of(event: Event, endpoint: Endpoint) -> Pair | None:
    """The pair of a delivery; None where it need not go in order: not asked for, or the record has no key."""
    if not endpoint.ordered or event.key is None:
        return None
    return Pair(endpoint.subscription_id, event.record.topic, event.record.partition, order_key(event.key))


class StoredPairs:
    """The pairs that have rows, of the partitions owned."""

    def __init__(self) -> None:
        self._known: dict[Place, set[Pair] | None] = {}  # None: too many to keep
        self._writing: dict[Pair, Counter[int]] = {}  # the offsets of its rows

    def __contains__(self, pair: Pair) -> bool:
        """Deliveries of this pair go behind its rows."""
        known = self._known.get(pair[1:3], ())
        return known is None or pair in known or pair in self._writing

    def first_writing(self, pair: Pair) -> float:
        """The lowest offset of the rows of this pair that are being written; inf if none is."""
        return min(self._writing.get(pair, ()), default=inf)

    @property
    def unknown(self) -> list[Place]:
        """Partitions that had too many pairs when they were loaded."""
        return [place for place, known in self._known.items() if known is None]

    def loaded(self, place: Place, pairs: Iterable[Pair] | None) -> None:
        """What the database has for a partition; None: too many."""
        self._known[place] = None if pairs is None else set(pairs)

    def began(self, pair: Pair, offset: int) -> None:
        """A row of this pair is to be written."""
        self._writing.setdefault(pair, Counter())[offset] += 1

    def written(self, pair: Pair, offset: int) -> None:
        """It is in the database, and waits there."""
        self.given_up(pair, offset)
        self.seen(pair)

    def seen(self, pair: Pair) -> None:
        """A row of this pair waits in the database."""
        known = self._known.setdefault(pair[1:3], set())
        if known is not None:
            known.add(pair)

    def given_up(self, pair: Pair, offset: int) -> None:
        """It is in the database, as one that is given up: those behind it may go."""
        if offsets := self._writing.get(pair):
            offsets[offset] -= 1
            if offsets[offset] <= 0:
                del offsets[offset]
            if not offsets:
                del self._writing[pair]

    def cleared(self, pairs: Iterable[Pair]) -> None:
        """The last row of each is done with; what is being written since keeps it."""
        for pair in pairs:
            if known := self._known.get(pair[1:3]):
                known.discard(pair)

    def leave(self, places: Collection[Place]) -> None:
        """Forget partitions."""
        for place in places:
            self._known.pop(place, None)
        self._writing = {pair: offsets for pair, offsets in self._writing.items() if pair[1:3] not in places}
