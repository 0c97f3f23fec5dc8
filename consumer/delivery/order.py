"""Ordered deliveries: which ordering keys have rows in the database, so that what comes for them goes behind those.

An ordering key stands for the deliveries of a record key from one partition to a subscription that asked for order.
The database decides which of them is first (`ledger.ordering`). This set may hold too many keys, never too few: a key
too many costs its deliveries a detour through the database.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from math import inf

from consumer.events.event import Event, TopicPartition
from consumer.ledger.rows import OrderingKey, order_key
from consumer.subscriptions.endpoint import Endpoint

MOST_KEYS = 100_000  # of all partitions together, some 15 MB


def ordering_key_of(event: Event, endpoint: Endpoint) -> OrderingKey | None:
    """The ordering key of a delivery; None where it need not go in order: not asked for, or the record has no key."""
    if not endpoint.ordered or event.key is None:
        return None
    return OrderingKey(endpoint.subscription_id, event.record.topic, event.record.partition, order_key(event.key))


class StoredKeys:
    """The ordering keys that have rows, of the assigned partitions: at most `most` of them.

    Above that, the subscriptions with most keys in a partition are given up: each counts as one key, and all of its
    deliveries there are taken to have rows before them. The backlog of a receiver that is down must not send other
    subscriptions' deliveries through the database.
    """

    def __init__(self, most: int = MOST_KEYS) -> None:
        self.most = most
        # By subscription their keys; None: too many to keep, of a subscription or of all of the partition.
        self._known: dict[TopicPartition, dict[int, set[str] | None] | None] = {}
        self._count = 0
        self._writing: dict[OrderingKey, Counter[int]] = {}  # the offsets of its rows
        self._written: dict[OrderingKey, int] | None = None  # the lowest of its rows since a look at the database began

    def __contains__(self, ordering_key: OrderingKey) -> bool:
        """Deliveries of this ordering key go behind its rows."""
        known = self._known.get(ordering_key[1:3], {})
        if known is None:
            return True
        keys = known.get(ordering_key.subscription_id, ())
        return keys is None or ordering_key.key in keys or ordering_key in self._writing

    def look_begins(self) -> None:
        """Rows are read from now on: whether with what is written meanwhile, nobody knows."""
        self._written = {}

    def look_ends(self) -> None:
        """What was read has been compared with `first_unseen`."""
        self._written = None

    def first_unseen(self, ordering_key: OrderingKey) -> float:
        """The lowest offset of the rows of this ordering key that a look may not have seen; inf if there is none.

        They are being written, or have been since it began.
        """
        written = inf if self._written is None else self._written.get(ordering_key, inf)
        return min(written, min(self._writing.get(ordering_key, ()), default=inf))

    @property
    def unknown(self) -> dict[TopicPartition, int]:
        """Partitions of which something is given up, and with how many ordering keys each could be kept whole."""
        given_up = {place: known for place, known in self._known.items() if known is None or None in known.values()}
        part = (self.most - self._count) // max(1, len(given_up))
        return {place: _size(known) + part for place, known in given_up.items()}

    def loaded(self, place: TopicPartition, ordering_keys: Iterable[OrderingKey] | None) -> None:
        """What the database has for a partition; None: too many."""
        self._forget(place)
        if ordering_keys is None:
            self._known[place] = None
            return
        known: defaultdict[int, set[str]] = defaultdict(set)
        for ordering_key in ordering_keys:
            known[ordering_key.subscription_id].add(ordering_key.key)
        self._known[place] = dict(known)
        self._count += _size(known)
        self._make_room()

    def began(self, ordering_key: OrderingKey, offset: int) -> None:
        """A row of this ordering key is to be written."""
        self._writing.setdefault(ordering_key, Counter())[offset] += 1

    def written(self, ordering_key: OrderingKey, offset: int) -> None:
        """It is in the database, and waits there."""
        if self._written is not None:
            self._written[ordering_key] = min(offset, self._written.get(ordering_key, offset))
        self.given_up(ordering_key, offset)
        self.seen(ordering_key)

    def seen(self, ordering_key: OrderingKey) -> None:
        """A row of this ordering key waits in the database."""
        known = self._known.setdefault(ordering_key[1:3], {})
        if known is None:
            return
        keys = known.setdefault(ordering_key.subscription_id, set())
        if keys is not None and ordering_key.key not in keys:
            keys.add(ordering_key.key)
            self._count += 1
            self._make_room()

    def given_up(self, ordering_key: OrderingKey, offset: int) -> None:
        """It is in the database, as one that is given up: those behind it may go."""
        if offsets := self._writing.get(ordering_key):
            offsets[offset] -= 1
            if offsets[offset] <= 0:
                del offsets[offset]
            if not offsets:
                del self._writing[ordering_key]

    def cleared(self, ordering_keys: Iterable[OrderingKey]) -> None:
        """The last row of each is done with; what is being written since keeps it."""
        for ordering_key in ordering_keys:
            known = self._known.get(ordering_key[1:3]) or {}
            keys = known.get(ordering_key.subscription_id)
            if keys and ordering_key.key in keys:
                keys.remove(ordering_key.key)
                self._count -= 1
                if not keys:
                    del known[ordering_key.subscription_id]

    def leave(self, places: Collection[TopicPartition]) -> None:
        """Forget partitions."""
        for place in places:
            self._forget(place)
        self._writing = {
            ordering_key: offsets for ordering_key, offsets in self._writing.items() if ordering_key[1:3] not in places
        }

    def _forget(self, place: TopicPartition) -> None:
        self._count -= _size(self._known.pop(place, None))

    def _make_room(self) -> None:
        """Where there are too many ordering keys, give up half of them, so that it is not for each one that comes."""
        if self._count <= self.most:
            return
        found = [
            (len(keys), place, subscription)
            for place, known in self._known.items()
            for subscription, keys in (known or {}).items()
            if keys is not None
        ]
        for size, place, subscription in sorted(found, reverse=True):
            if self._count <= self.most // 2:
                return
            if known := self._known[place]:
                known[subscription] = None
                self._count -= size - 1
        if self._count > self.most // 2:  # too many subscriptions, even to note that they are given up
            self._known = dict.fromkeys(self._known)
            self._count = 0


def _size(known: Mapping[int, Collection[str] | None] | None) -> int:
    return sum(1 if keys is None else len(keys) for keys in (known or {}).values())
