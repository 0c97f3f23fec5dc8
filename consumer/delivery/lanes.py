"""What may start now: one lane for each subscription, so that a bad receiver fills its own lane and no other.

Two bounds keep lanes apart. A lane takes at most as many slots as are still free, so the first hung receiver holds half
of them, the second a quarter, and the next receiver still finds one. A lane queues a bounded number of deliveries; when
it is full, a fast receiver is waited for (the queue of 1,000 moves within a second) and a slow one is not: its further
deliveries are stored in the database, so that the partition goes on. No I/O here; time comes with the call.
"""

from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from heapq import heappop, heappush
from itertools import count
from typing import NamedTuple

from requests import PreparedRequest, RequestException
from requests.exceptions import InvalidURL

from consumer.delivery.outcome import Failed
from consumer.endpoint import Endpoint
from consumer.event import Event
from consumer.sending.request import prepare
from consumer.sending.transport import Transfer

LANE_DELIVERIES = 1000
LANE_BYTES = 16 * 2**20
ALL_DELIVERIES = 20_000  # twenty full lanes; at 0.5 KB a delivery and 0.5 KB of body this is 20 MB
ALL_BYTES = 128 * 2**20
LARGEST = 2**20  # bytes of one body; a lane with less room than this is full
SLOW = 1.0  # seconds that the head of a full queue has waited: below, the receiver takes over 1,000 deliveries a second
IDLE_LANES = 10_000  # lanes kept for their prepared request (about 3 KB each)


class OpenRecord:
    """A record with deliveries that are not settled. `started`: a receiver may have seen it."""

    __slots__ = ("_offset", "_settle", "open", "started")

    def __init__(self, settle: Callable[[int], None], offset: int, deliveries: int) -> None:
        self._settle = settle
        self._offset = offset
        self.open = deliveries
        self.started = False

    def settle_one(self) -> None:
        """One delivery is settled; with the last one the offset is."""
        self.open -= 1
        if not self.open:
            self._settle(self._offset)


class StoredRow(NamedTuple):
    """A row of the database, by its id."""

    id: int


class Delivery:
    """An event on its way to one subscription. It comes from a record that is open, or from a row that is due."""

    __slots__ = (
        "attempts",
        "due_at",
        "event",
        "failed",
        "first_attempt_at",
        "lane",
        "origin",
        "queued_at",
        "started_at",
        "transfer",
    )

    def __init__(self, event: Event, lane: "Lane", origin: OpenRecord | StoredRow) -> None:
        self.event = event
        self.lane = lane
        self.origin = origin
        self.attempts = 0
        self.first_attempt_at: float | None = None  # unix seconds, like due_at
        self.due_at: float | None = None
        self.failed: Failed | None = None
        self.queued_at = 0.0
        self.started_at = 0.0
        self.transfer: Transfer | None = None


class Lane:
    """The deliveries of one subscription that are in this process."""

    __slots__ = ("endpoint", "held", "held_bytes", "in_flight", "listed", "prepared", "queue")

    def __init__(self, endpoint: Endpoint) -> None:
        self.queue: deque[Delivery] = deque()
        self.held = 0  # deliveries queued or waiting for their retry
        self.held_bytes = 0
        self.in_flight = 0
        self.listed = False
        self.serve(endpoint)

    def serve(self, endpoint: Endpoint) -> None:
        """Send to this endpoint from now on; what cannot become a request is kept as the error that it is."""
        self.endpoint = endpoint
        self.prepared: PreparedRequest | RequestException
        try:
            self.prepared = prepare(endpoint)
        except ValueError as error:
            self.prepared = error if isinstance(error, RequestException) else InvalidURL(error)

    def idle(self) -> bool:
        """Nothing of this lane is in the process."""
        return not self.held and not self.in_flight


class Admission(Enum):
    """What to do with the next delivery of a lane."""

    QUEUE = auto()
    HOLD = auto()  # the receiver is fast and we are faster: ask again soon
    PARK = auto()  # the receiver is slow: store it, others must not wait


class Lanes:
    """All lanes of a worker and the slots they share."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.in_flight = 0
        self.held = 0
        self._held_bytes = 0
        self._lanes: dict[int, Lane] = {}
        self._ready: deque[Lane] = deque()  # have something queued, in turn
        self._blocked: list[Lane] = []  # the same, but over their share until something finishes
        self._waiting: list[tuple[float, int, Delivery]] = []  # a heap by due time
        self._tie = count()
        self._most = IDLE_LANES

    def lane(self, endpoint: Endpoint) -> Lane:
        """The endpoint's lane, which from now on sends as the endpoint says."""
        lane = self._lanes.get(endpoint.subscription_id)
        if lane is None:
            if len(self._lanes) >= self._most:
                self._lanes = {key: lane for key, lane in self._lanes.items() if not lane.idle()}
                self._most = max(IDLE_LANES, 2 * len(self._lanes))  # else each new lane would walk all busy ones
            lane = self._lanes[endpoint.subscription_id] = Lane(endpoint)
        elif lane.endpoint is not endpoint:
            if lane.endpoint == endpoint:
                lane.endpoint = endpoint
            else:
                lane.serve(endpoint)
        return lane

    def admit(self, lane: Lane, size: int, now: float) -> Admission:
        """Whether a delivery of `size` bytes may be queued at `now` (monotonic seconds)."""
        if not lane.held or (
            lane.held < LANE_DELIVERIES
            and lane.held_bytes + size <= LANE_BYTES
            and self.held < ALL_DELIVERIES
            and self._held_bytes + size <= ALL_BYTES
        ):
            return Admission.QUEUE
        if lane.queue and now - lane.queue[0].queued_at < SLOW:
            return Admission.HOLD
        return Admission.PARK

    def enqueue(self, delivery: Delivery, now: float) -> None:
        """Queue an admitted delivery."""
        delivery.queued_at = now
        self._hold(delivery, 1)
        delivery.lane.queue.append(delivery)
        self._list(delivery.lane)

    def wait(self, delivery: Delivery, due: float) -> None:
        """Keep a failed delivery here until `due` (monotonic seconds); `wake` queues it again."""
        self._hold(delivery, 1)
        heappush(self._waiting, (due, next(self._tie), delivery))

    def wake(self, now: float) -> None:
        """Queue what has waited long enough, ahead of what was never tried; a full lane with retries is a slow one."""
        while self._waiting and self._waiting[0][0] <= now:
            delivery = heappop(self._waiting)[2]
            delivery.lane.queue.appendleft(delivery)
            self._list(delivery.lane)

    def next(self) -> Delivery | None:
        """Take the next delivery that may start, lane by lane in turn; None when none may."""
        ready = self._ready
        while ready:
            free = self.slots - self.in_flight
            if free <= 0:
                return None
            lane = ready[0]
            if lane.in_flight >= free:
                self._blocked.append(ready.popleft())
                continue
            delivery = lane.queue.popleft()
            self._hold(delivery, -1)
            lane.in_flight += 1
            self.in_flight += 1
            if lane.queue:
                ready.rotate(-1)
            else:
                lane.listed = False
                ready.popleft()
            return delivery
        return None

    def ready(self) -> bool:
        """`next` may have something to give."""
        return bool(self._ready) and self.in_flight < self.slots

    def finished(self, lane: Lane) -> None:
        """A delivery that `next` gave has ended, however it did."""
        lane.in_flight -= 1
        self.in_flight -= 1
        if self._blocked:
            self._ready.extend(self._blocked)
            self._blocked.clear()

    def withdraw(self, whose: Callable[[Delivery], bool]) -> list[Delivery]:
        """Take out all deliveries queued or waiting for which `whose` is true."""
        taken = [delivery for lane in self._lanes.values() for delivery in lane.queue if whose(delivery)]
        for lane in {delivery.lane for delivery in taken}:
            lane.queue = deque(delivery for delivery in lane.queue if not whose(delivery))
        waiting = [entry for entry in self._waiting if whose(entry[2])]
        if waiting:
            self._waiting = [entry for entry in self._waiting if not whose(entry[2])]
            self._waiting.sort()
        taken.extend(entry[2] for entry in waiting)
        for delivery in taken:
            self._hold(delivery, -1)
        listed = [lane for lane in (*self._ready, *self._blocked) if lane.queue or self._unlist(lane)]
        self._ready, self._blocked = deque(listed), []
        return taken

    def full(self) -> list[int]:
        """The subscriptions whose lanes have no room for another delivery."""
        crowded = self.held >= ALL_DELIVERIES or self._held_bytes > ALL_BYTES - LARGEST
        return [
            key
            for key, lane in self._lanes.items()
            if lane.held and (crowded or lane.held >= LANE_DELIVERIES or lane.held_bytes > LANE_BYTES - LARGEST)
        ]

    def _hold(self, delivery: Delivery, sign: int) -> None:
        size = sign * len(delivery.event.body)
        lane = delivery.lane
        lane.held += sign
        lane.held_bytes += size
        self.held += sign
        self._held_bytes += size

    def _list(self, lane: Lane) -> None:
        if not lane.listed:
            lane.listed = True
            self._ready.append(lane)

    @staticmethod
    def _unlist(lane: Lane) -> bool:
        lane.listed = False
        return False
