"""A delivery, the record or row that it comes from, and the lane in which it waits for its turn.

A lane has the deliveries of one subscription. How many of them may start is bounded by the process's free slots, the
subscription's own limit of open requests and its rate (this worker's share of both), and its circuit breaker. Where a
request carries a batch, the lane waits until that is complete. No I/O; times are monotonic seconds.
"""

from collections import deque
from collections.abc import Callable, Sequence
from itertools import chain
from math import ceil, inf
from random import random
from typing import NamedTuple

from requests import RequestException
from requests.exceptions import InvalidURL

from consumer.delivery.breaker import Breaker
from consumer.delivery.limits import LARGEST, TokenBucket
from consumer.delivery.outcome import unavailable
from consumer.events.event import Event
from consumer.ledger.rows import AttemptFailure, DueDelivery, OrderingKey
from consumer.sending.signing import Template, prepare
from consumer.sending.transfer import Transfer
from consumer.subscriptions.endpoint import Endpoint

LANE_DELIVERIES = 1000
LANE_BYTES = 16 * 2**20
BATCH_BYTES = 2**20  # of the bodies of a batch together; a larger body goes alone
OPEN_DELIVERIES = 10_000  # of one lane, in open batches: some 10 MB
QUEUE_SECONDS = 5.0  # of deliveries at a limited rate: queued deliveries hold back their partition's low-water mark


class OpenRecord:
    """A record with unsettled deliveries. `started` means that a receiver may have seen it; `replay` is its replay."""

    __slots__ = ("_offset", "_settle", "open", "replay", "started")

    def __init__(self, settle: Callable[[int], None], offset: int, deliveries: int, replay: int = 0) -> None:
        self._settle = settle
        self._offset = offset
        self.open = deliveries
        self.started = False
        self.replay = replay

    def settle_one(self) -> None:
        """Settle one delivery; the last one settles the offset."""
        self.open -= 1
        if not self.open:
            self._settle(self._offset)


class CursorRecord(OpenRecord):
    """A record that a cursor has read."""

    __slots__ = ()


class StoredRow(NamedTuple):
    """A row of the database, by its id. Its current schedule began after `schedule_start` attempts."""

    id: int
    schedule_start: int = 0


class Delivery:  # not a dataclass, whose initialiser would not be compiled
    """An event on its way to one subscription.

    `ordering_key` is set if the delivery must keep its place among the deliveries of its record key. `first` and `last`
    are the first and the last failed attempt. In an open batch, one delivery stands for the request and the others are
    its `batch_members`. A `released` delivery is still part of the request, but its partition has been revoked, so it
    ignores the result. `rendered` is the request's body if that differs from the event's; `slots` is how many slots the
    request takes; `size` is the event's, at the latest once it is queued.
    """

    __slots__ = (
        "attempts",
        "batch_members",
        "due_at",
        "event",
        "first",
        "lane",
        "last",
        "ordering_key",
        "origin",
        "queued_at",
        "released",
        "rendered",
        "sent_to",
        "size",
        "slots",
        "started_at",
        "transfer",
    )

    def __init__(
        self,
        event: Event,
        lane: "Lane",
        origin: OpenRecord | StoredRow,
        ordering_key: OrderingKey | None = None,
        size: int = 0,
        attempts: int = 0,
        first: AttemptFailure | None = None,
        last: AttemptFailure | None = None,
    ) -> None:
        self.event = event
        self.lane = lane
        self.origin = origin
        self.ordering_key = ordering_key
        self.size = size
        self.attempts = attempts
        self.first = first
        self.last = last
        self.due_at = 0.0  # unix seconds, of the next attempt
        self.queued_at = self.started_at = 0.0
        self.sent_to: Endpoint | None = None  # the endpoint of its request; the lane may get another url meanwhile
        self.transfer: Transfer | None = None
        self.batch_members: Sequence[Delivery] = ()
        self.released = False
        self.rendered: bytes | None = None
        self.slots = 1

    @classmethod
    def of_row(cls, row: DueDelivery, lane: "Lane") -> "Delivery":
        """A stored delivery, with the attempts that were made."""
        origin = StoredRow(row.id, row.schedule_start)
        return cls(row.event, lane, origin, row.ordering_key, row.event.size, row.attempt, row.first, row.last)

    @property
    def goes_alone(self) -> bool:
        """The last attempt failed with a status that may concern this event alone: keep it out of batches."""
        return self.last is not None and not unavailable(self.last.status)

    def batch(self) -> tuple["Delivery", ...]:
        """The deliveries that the request carries and whose partitions are still assigned."""
        if not self.batch_members:
            return () if self.released else (self,)
        return tuple(each for each in (self, *self.batch_members) if not each.released)

    def split(self) -> tuple["Delivery", ...]:
        """The same deliveries, after the request: each is on its own from now on."""
        if not self.batch_members:
            return () if self.released else (self,)
        members = self.batch()
        self.batch_members = ()
        return members


class Lane:
    """The deliveries of one subscription that are in this process."""

    def __init__(self, endpoint: Endpoint, share: float, now: float) -> None:
        self.queue: deque[Delivery] = deque()
        self.backlog: deque[Delivery] = deque()  # those of cursors, which go behind the queue
        self.waiting: list[tuple[float, int, Delivery]] = []  # for a retry; a heap by due time
        self.chains: dict[OrderingKey, deque[Delivery]] = {}  # the deliveries behind the current one of their key
        self.held = 0  # deliveries that are queued, wait for a retry, or wait behind another one of their key
        self.held_bytes = 0
        self.in_flight = 0  # requests
        self.slots = 0  # that they take
        self.backlog_slots = 0  # of these, for deliveries of cursors: the others count as the first that ended
        self.listed = False
        self.gathers = False
        self.moved_at = now  # when a request last ended, or the lane was first used
        self.accepted_at = -inf  # when the receiver last accepted a request
        self.took = 0.0  # seconds of that request
        self.warm = False  # a request has ended since the lane was empty
        self.timed_out = False  # the last result was a time-out; Lanes sets it
        self.unsendable: str | None = None  # why the last request could not be sent at all
        self.breaker = Breaker(random)
        self.endpoint = endpoint
        self.pace: TokenBucket | None = None
        self.serve(endpoint, share, now)

    def serve(self, endpoint: Endpoint, share: float, now: float) -> None:
        """Send to this endpoint from now on. If no request can be prepared, `prepared` is the error."""
        if endpoint.url != self.endpoint.url:  # another receiver: its health is unknown
            self.breaker, self.unsendable = Breaker(random), None
        self.endpoint = endpoint
        self.connects = endpoint.url[:6].lower() == "https:"  # a guess; later, whether the last request opened one
        self.prepared: Template | RequestException
        try:
            self.prepared = prepare(endpoint)
        except ValueError as error:
            self.prepared = error if isinstance(error, RequestException) else InvalidURL(error)
        self.bound(share, now)

    def bound(self, share: float, now: float) -> None:
        """Take this share of the subscription's limits, which count requests; at least one request."""
        self.share = share
        most, rate, self.batch = self.endpoint.max_in_flight, self.endpoint.rate_limit, self.endpoint.batch
        self.limit = None if most is None else max(1, int(most * share + 1e-9))  # 0.29 of 100 is a little less than 29
        size = 1
        if self.batch is not None:
            size = self.batch.size
            self.limit = min(self.limit or OPEN_DELIVERIES, OPEN_DELIVERIES // size)
        self.bounded = self.limit is not None or rate is not None
        self.capacity = LANE_DELIVERIES
        if rate is None:
            self.pace = None
            return
        rate *= share
        self.capacity = min(LANE_DELIVERIES, ceil(rate * QUEUE_SECONDS) * size)
        if self.pace is None:
            self.pace = TokenBucket(rate, now)
        else:
            self.pace.set_rate(rate, now)

    def startable_at(self, now: float) -> float:
        """When the next request may start: `now`, later, or inf if only the end of another one allows it."""
        if self.limit is not None and self.in_flight >= self.limit:
            return inf
        window = self.breaker.window(now)
        if window == 0:
            return self.breaker.open_until or now
        if window is not None and self.in_flight >= window:
            return inf
        return now if self.pace is None else self.pace.ready_at(now)

    def complete_at(self, now: float) -> float:
        """When the queued batch is sent: `now`, or when its first delivery has waited long enough.

        A batch is complete when it has reached its size or its bytes, when its first delivery goes alone, or when the
        lane is full. Requires a `batch` option and a queued delivery.
        """
        batch, first = self.batch, (self.queue or self.backlog)[0]
        assert batch is not None  # noqa: S101 (for the type checker)
        if len(self.queue) + len(self.backlog) >= batch.size or first.goes_alone or self.room(now) <= 0:
            return now
        queued = chain(self.queue, self.backlog)
        if self.held_bytes >= BATCH_BYTES and sum(len(each.event.body) for each in queued) >= BATCH_BYTES:
            return now
        return max(now, first.queued_at + batch.wait)

    def gather(self) -> Sequence[Delivery]:
        """Move queued deliveries to the `batch_members` of the first one, and return them.

        Deliveries that go alone keep their places, and so does the first one that would make the batch too large.
        """
        first, batch = (self.queue or self.backlog).popleft(), self.batch
        assert batch is not None  # noqa: S101 (for the type checker)
        batch_members: list[Delivery] = []
        most = 0 if first.goes_alone else batch.size - 1
        room = BATCH_BYTES - len(first.event.body)
        stay = [first]
        for queue in (self.queue, self.backlog):
            while queue and room >= 0 and len(batch_members) < most:
                each = queue.popleft()
                if each.goes_alone or (room := room - len(each.event.body)) < 0:
                    stay.append(each)
                else:
                    batch_members.append(each)
        first.batch_members = batch_members
        for each in reversed(stay):
            self.queue_of(each).appendleft(each)
        return batch_members

    def queue_of(self, delivery: Delivery) -> deque[Delivery]:
        """Where a delivery waits for its turn."""
        return self.backlog if isinstance(delivery.origin, CursorRecord) else self.queue

    def sends_within(self, seconds: float, now: float) -> bool:
        """The rate allows the next request within so many seconds."""
        return self.pace is None or self.pace.ready_at(now) <= now + seconds

    def room(self, now: float) -> int:
        """How many more deliveries the lane may hold; 0 while the circuit breaker is open or the rate allows nothing.

        At a very low rate there is room for stored deliveries before new ones are queued, so the older ones go first.
        """
        if not self.sends_within(2 * QUEUE_SECONDS, now):
            return 0
        most = self.capacity
        if (window := self.breaker.window(now)) is not None:
            most = min(most, 2 * window * (1 if self.batch is None else self.batch.size))
        return most - self.held if self.held_bytes <= LANE_BYTES - LARGEST or not self.held else 0

    def could_not_send(self, now: float, started: float, why: str) -> bool:
        """A request that started at `started` has shown that none can be sent. True if the reason is new."""
        self.breaker.unsendable(now, started)
        news, self.unsendable = why != self.unsendable, why
        return news

    def succeeded(self, now: float, started: float, slots: int) -> None:
        """The receiver accepted a request that started at `started`."""
        self.unsendable, self.accepted_at, self.took = None, now, now - started
        self.breaker.succeeded(now, started, self.limit or slots)

    def refused(self, now: float, started: float, slots: int) -> bool:
        """The receiver answered a request without accepting it. True if that opened the circuit breaker."""
        return self.breaker.refused(now, started, self.limit or slots)

    def idle(self, now: float) -> bool:
        """The lane is empty and has no state worth keeping."""
        return (
            not self.held
            and not self.in_flight
            and self.breaker.idle(now)
            and (self.pace is None or self.pace.is_full(now))
        )
