"""Stored deliveries come back into their lanes when they are due."""

from collections.abc import Callable, Collection

from consumer.delivery.lanes import Admission, Delivery, Lanes, StoredRow
from consumer.delivery.parking import Due, Parking
from consumer.delivery.settling import Settling

EVERY = 5.0  # seconds: rows that the command line has marked due are found this soon
SOON = 0.25  # seconds, while a lane is full: its rows come back as it empties
AGAIN = 0.05  # seconds between two looks that both find something

Place = tuple[str, int]


class Recall:
    """Looks for rows of the owned partitions: when the next one is due, and now and then."""

    def __init__(
        self,
        parking: Parking,
        lanes: Lanes,
        settling: Settling,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._parking = parking
        self._lanes = lanes
        self._settling = settling
        self._clock = clock
        self._monotonic = monotonic
        self._next = 0.0

    def at_once(self) -> None:
        """Partitions have come: look in the next round."""
        self._next = 0.0

    def look(self, owned: Collection[Place]) -> None:
        """Look if it is time. `owned` is read again when the answer comes: it may have changed."""
        now = self._monotonic()
        if self._parking.next_due is not None:
            self._next = min(self._next, now + max(SOON, self._parking.next_due - self._clock()))
        if now < self._next or not owned or self._parking.full:
            return
        full = self._lanes.full()
        self._next = now + (SOON if full else EVERY)
        partitions: dict[str, list[int]] = {}
        for topic, number in owned:
            partitions.setdefault(topic, []).append(number)
        self._parking.look_for_due(
            partitions, self._clock(), full, tuple(self._settling.rows), lambda due: self._found(due, owned)
        )

    def _found(self, due: Due, owned: Collection[Place]) -> None:
        now = self._monotonic()
        for row in due.rows:
            place = row.event.record[:2]
            if row.id in self._settling.rows or place in self._settling.leaving or place not in owned:
                continue
            lane = self._lanes.lane(row.endpoint)
            if self._lanes.admit(lane, len(row.event.body), now) is not Admission.QUEUE:
                continue
            delivery = Delivery(row.event, lane, StoredRow(row.id))
            delivery.attempts = row.attempt
            delivery.first_attempt_at = row.first_attempt_at
            self._settling.rows.add(row.id)
            self._lanes.enqueue(delivery, now)
        if due.next_at is not None:
            self._next = min(self._next, now + max(AGAIN, due.next_at - self._clock()))
