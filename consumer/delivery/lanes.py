"""What may start now: one lane for each subscription, so that a bad receiver fills its own lane and no other.

Four bounds keep lanes apart. A lane takes at most as many slots as are still free, and once a request of its burst has
ended four times as many: one busy lane holds four fifths, N of them 4/(4 N + 1) each, and 1/(4 N + 1) is left (the
dynamic threshold of packet switches: Choudhury and Hahne, 1998). Lanes of which nothing ends take from one half of the
slots only, but for the one request that each may have open. All lanes whose last result was a time-out share a quarter
of the slots: however many receivers hang, the rest is for others once that is known. One turn opens few new TLS
connections.

A lane queues a bounded number of deliveries; when it is full, a receiver that takes them quickly is waited for, and any
other is not: its further deliveries are stored in the database, so that the partition goes on. All lanes together are
bounded too, and as much again is kept for lanes that are empty, one delivery each; beyond that nothing comes in. Of an
ordering key (the deliveries of one key to a subscription that asked for order) one is queued, open or waiting at a
time, and the others stand in a chain behind it. A request that carries a batch is one request to all of these bounds; a
large one takes several slots, so that what is open is bounded in bytes too, and shared as slots are. No I/O; times are
monotonic.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from enum import Enum, auto
from heapq import heapify, heappop, heappush
from itertools import count

from consumer.delivery.delivery import LANE_BYTES, LANE_DELIVERIES, LARGEST, Delivery, Lane
from consumer.delivery.shares import Share, Shares
from consumer.delivery.slots import Slots
from consumer.ledger.rows import OrderingKey
from consumer.subscriptions.endpoint import Endpoint

ALL_DELIVERIES = 20_000  # twenty full lanes; at 0.5 KB a delivery and 0.5 KB of body this is 20 MB; and once more
ALL_BYTES = 64 * 2**20  # four full lanes; and once more (memory: how this adds up)
SLOW = 1.0  # seconds that the head of a full queue has waited: below, the receiver takes over 1,000 deliveries a second
BUSY = 4  # times the slots that are free: so many a lane takes whose requests end
STILL = 0.25  # seconds in which nothing of a lane has ended: it is not waited for, and takes no more than its half
NEW_CONNECTIONS = 8  # TLS, in one turn: 0.65 ms of CPU each, 5 ms that all others wait
IDLE_LANES = 10_000  # lanes kept for their prepared request (about 3 KB each)


class Admission(Enum):
    """What to do with the next delivery of a lane."""

    QUEUE = auto()
    BACKPRESSURE = auto()  # receivers are fast and we are faster: ask again soon
    STORE = auto()  # the receiver is slow, limited or gone, or all that others have here is: nobody must wait for it


class Lanes:
    """All lanes of a worker and the slots they share."""

    def __init__(self, slots: int) -> None:
        self.slots = Slots(slots, STILL)
        self.held = 0
        self._shares = Shares()
        self._held_bytes = 0
        self._now = 0.0
        self._lanes: dict[int, Lane] = {}
        self._ready: deque[Lane] = deque()  # have something queued, in turn
        self._blocked: list[Lane] = []  # the same, but over their share until something ends, or until the next turn
        self._capped: list[Lane] = []  # the same, but timed out, and their part is taken
        self._resting: list[tuple[float, int, Lane]] = []  # the same, but limited; a heap by when they may go on
        self._gathering: list[tuple[float, int, Lane]] = []  # a batch that is not complete; a heap by when it goes
        self._waiting: list[tuple[float, int, Lane]] = []  # when retries are due, or were before they were taken out
        self._changed: dict[Lane, None] = {}  # in this order; what they rest for may be over
        self._connections = NEW_CONNECTIONS  # that this turn may still open
        self._all_started = False  # by the last turn, all that may: what is held rests, waits, or is behind what hangs
        self._tie = count()
        self._most = IDLE_LANES

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._lanes.values())

    def wakes_before(self, moment: float) -> bool:
        """By then a lane goes on by itself, without anything that wakes the process."""
        return bool(self._changed) or any(
            heap and heap[0][0] < moment for heap in (self._resting, self._gathering, self._waiting)
        )

    def lane(self, endpoint: Endpoint) -> Lane:
        """The endpoint's lane, which from now on sends as the endpoint says."""
        lane = self._lanes.get(endpoint.subscription_id)
        if lane is None:
            if len(self._lanes) >= self._most:
                self._lanes = {key: lane for key, lane in self._lanes.items() if not lane.idle(self._now)}
                self._most = len(self._lanes) + IDLE_LANES  # those that are busy are not walked for each new one
            lane = self._lanes[endpoint.subscription_id] = Lane(endpoint, self._shares.of(endpoint), self._now)
        elif lane.endpoint is not endpoint:
            # Of an outage that marks ten thousand nothing changes for their requests.
            if lane.endpoint == endpoint or replace(lane.endpoint, failing_since=endpoint.failing_since) == endpoint:
                lane.endpoint = endpoint
            else:
                lane.serve(endpoint, self._shares.of(endpoint), self._now)
                self._changed[lane] = None
        return lane

    def find(self, subscription_id: int) -> Lane | None:
        """The lane of a subscription that has one now."""
        return self._lanes.get(subscription_id)

    def rebound(self, share: Share) -> None:
        """Partitions have come or gone, or topics are written to: limits are shared anew."""
        before, self._shares = self._shares, Shares(share)
        for lane in self:
            mine = self._shares.of(lane.endpoint)
            if mine != before.of(lane.endpoint):
                lane.bound(mine, self._now)
                self._changed[lane] = None

    def room(self, subscription_id: int, now: float) -> int:
        """How many stored deliveries of a subscription may be taken up."""
        lane = self._lanes.get(subscription_id)
        room = LANE_DELIVERIES if lane is None else max(0, lane.room(now))
        if self._full:
            return 0 if self._packed or (lane is not None and lane.held) else min(1, room)
        return room

    def admit(self, lane: Lane, size: int, now: float) -> Admission:
        """Whether a delivery of `size` bytes may be queued at `now`.

        Where nothing comes in, an empty lane waits for slots and turns, which come by themselves. If there are enough
        of these, what others have here rests, waits or hangs: that is not waited for.
        """
        limited = lane.pace is not None or lane.breaker.restrains
        if limited and lane.room(now) <= 0:
            return Admission.STORE
        if not lane.held:
            if (self.held < ALL_DELIVERIES and self._held_bytes < ALL_BYTES) or not self._packed:
                return Admission.QUEUE
            return Admission.STORE if self._all_started else Admission.BACKPRESSURE
        if (
            lane.held < LANE_DELIVERIES
            and lane.held_bytes + size <= LANE_BYTES
            and self.held < ALL_DELIVERIES
            and self._held_bytes + size <= ALL_BYTES
        ):
            return Admission.QUEUE
        if lane.batch is None:
            if now - lane.moved_at < STILL and lane.queue and now - lane.queue[0].queued_at < SLOW:
                return Admission.BACKPRESSURE
            waits_for_us = self.slots.quick
        else:  # its head may have waited for the rest of its batch
            waits_for_us = self.slots.quick or self.slots.taken < self.slots.total
        return Admission.BACKPRESSURE if waits_for_us and self._may_start(lane, now) else Admission.STORE

    def enqueue(self, delivery: Delivery, now: float) -> None:
        """Queue an admitted delivery, or let it wait behind the one of its ordering key that is under way."""
        lane = delivery.lane
        if not lane.held and not lane.in_flight:
            lane.moved_at, lane.warm = now, False
        delivery.queued_at = now
        self._hold(delivery, 1)
        if delivery.ordering_key is not None:
            behind = lane.chains.get(delivery.ordering_key)
            if behind is not None:
                behind.append(delivery)
                return
            lane.chains[delivery.ordering_key] = deque()
        lane.queue.append(delivery)
        self._list(lane)

    def wait(self, delivery: Delivery, due: float) -> None:
        """Keep a failed delivery here until `due`; `wake` queues it again."""
        self._hold(delivery, 1)
        lane, tie = delivery.lane, next(self._tie)
        heappush(lane.waiting, (due, tie, delivery))
        heappush(self._waiting, (due, tie, lane))

    def wake(self, now: float) -> None:
        """Begin a turn: queue what has waited long enough, ahead of what was never tried; a lane full of it is slow.

        What may go in a batch waits for one like what was never tried, and behind it.
        """
        self._now = now
        self._all_started = False
        self.slots.look(now)
        if self._changed:
            self._look_again()
        if not self._connections:
            self._connections = NEW_CONNECTIONS
            self._unblock()
        while self._waiting and self._waiting[0][0] <= now:
            lane = heappop(self._waiting)[2]
            if not lane.waiting or lane.waiting[0][0] > now:
                continue  # it was taken out
            delivery = heappop(lane.waiting)[2]
            if lane.batch is None or delivery.goes_alone:
                lane.queue.appendleft(delivery)
            else:
                delivery.queued_at = now
                lane.queue.append(delivery)
            self._list(lane)
        while self._resting and self._resting[0][0] <= now:
            lane = heappop(self._resting)[2]
            lane.listed = False
            if lane.queue:
                self._list(lane)
        while self._gathering and (self._gathering[0][0] <= now or self._full):
            lane = heappop(self._gathering)[2]
            lane.gathers = False
            if lane.queue:
                self._list(lane)

    def next(self, now: float) -> Delivery | None:
        """Take the next delivery that may start, lane by lane in turn, with its batch; None when none may."""
        ready, slots = self._ready, self.slots
        half = slots.total // 2
        while ready:
            free = slots.total - slots.taken
            if free <= 0:
                return None
            lane = ready[0]
            if not lane.queue:  # it was taken out
                lane.listed = False
                ready.popleft()
                continue
            if lane.timed_out and slots.is_capped:
                self._capped.append(ready.popleft())
                continue
            if (lane.slots >= free - half and lane.in_flight and self._is_over(lane, free, now)) or (
                lane.connects and not self._connections
            ):
                self._blocked.append(ready.popleft())
                continue
            if (lane.bounded or lane.breaker.restrains) and not self._begins(lane, now):
                continue
            if lane.connects:
                self._connections -= 1
            delivery = lane.queue.popleft()
            size = self._hold(delivery, -1)
            if delivery.batch_members:
                size += sum([each.event.size for each in delivery.batch_members])
            delivery.slots = slots.take(size, timed_out=lane.timed_out)
            lane.in_flight += 1
            lane.slots += delivery.slots
            if lane.queue:
                ready.rotate(-1)
            else:
                lane.listed = False
                ready.popleft()
            return delivery
        self._all_started = self._connections > 0  # else the next turn may open some
        return None

    def give_back(self, deliveries: Sequence[Delivery]) -> None:
        """Those that `next` gave and that have not been sent after all: they are the first again."""
        for delivery in reversed(deliveries):
            self._hold(delivery, 1)
            delivery.lane.queue.appendleft(delivery)
            self._list(delivery.lane)

    def ready(self) -> bool:
        """`next` may have something to give."""
        return bool(self._ready or (self._blocked and not self._connections)) and self.slots.taken < self.slots.total

    def finished(self, lane: Lane, slots: int = 1) -> None:
        """The request of what `next` gave, which took so many slots, has ended, however it did."""
        lane.in_flight -= 1
        lane.slots -= slots
        lane.moved_at, lane.warm = self._now, True
        self.slots.free(slots, timed_out=lane.timed_out)
        if lane.timed_out:
            self._uncap()
        if lane.queue:
            self._list(lane)
        self._unblock()

    def ended(self, lane: Lane, *, timed_out: bool) -> None:
        """A result of this lane's receiver is known."""
        if lane.timed_out is not timed_out:
            lane.timed_out = timed_out
            self.slots.changed(lane.slots, timed_out=timed_out)
            self._uncap()

    def go_on(self, lane: Lane, ordering_key: OrderingKey) -> None:
        """The delivery of this ordering key that was under way has ended: the next one may go, if any is left."""
        behind = lane.chains.get(ordering_key)
        if not behind:
            lane.chains.pop(ordering_key, None)
            return
        lane.queue.append(behind.popleft())
        self._list(lane)

    def cut(self, lane: Lane, ordering_key: OrderingKey) -> list[Delivery]:
        """The one of this ordering key that was under way will not be done with here: take out those behind it."""
        behind = lane.chains.pop(ordering_key, ())
        for delivery in behind:
            self._hold(delivery, -1)
        return list(behind)

    def withdraw(self, whose: Callable[[Delivery], bool]) -> list[Delivery]:
        """Take out the deliveries that are not open and that `whose` names; of an ordering key it names all or none."""
        return [each for lane in self if lane.held for each in self._take(lane, whose)]

    def clear(self, lane: Lane) -> list[Delivery]:
        """Take out all deliveries of a lane that are not open, whatever the others hold."""
        return self._take(lane, lambda _: True)

    def _take(self, lane: Lane, whose: Callable[[Delivery], bool]) -> list[Delivery]:
        """Those of one lane. It stays listed, and is woken, as it was: `next` and `wake` pass over what is gone."""
        taken = [each for each in lane.queue if whose(each)]
        lane.queue = deque(each for each in lane.queue if not whose(each))
        taken.extend(entry[2] for entry in lane.waiting if whose(entry[2]))
        lane.waiting = [entry for entry in lane.waiting if not whose(entry[2])]
        heapify(lane.waiting)
        first = [each.ordering_key for each in taken if each.ordering_key is not None]
        for behind in lane.chains.values():
            if behind and whose(behind[0]):
                taken.extend(behind)
                behind.clear()
        for ordering_key in first:
            del lane.chains[ordering_key]
        for each in taken:
            self._hold(each, -1)
        return taken

    def _hold(self, delivery: Delivery, sign: int) -> int:
        size = delivery.event.size
        lane = delivery.lane
        lane.held += sign
        lane.held_bytes += sign * size
        self.held += sign
        self._held_bytes += sign * size
        return size

    @property
    def _full(self) -> bool:
        """The process holds all that it may."""
        return self.held >= ALL_DELIVERIES or self._held_bytes > ALL_BYTES - LARGEST

    @property
    def _packed(self) -> bool:
        """It holds as much again, one delivery each of lanes that were empty: nothing comes in."""
        return self.held >= 2 * ALL_DELIVERIES or self._held_bytes >= 2 * ALL_BYTES

    def _may_start(self, lane: Lane, now: float) -> bool:
        """A request of this lane begins as soon as it is its turn, and a slot is free."""
        if not lane.queue or (lane.timed_out and self.slots.is_capped):
            return False
        free = max(1, self.slots.total - self.slots.taken)
        over = lane.in_flight and lane.slots >= free - self.slots.total // 2 and self._is_over(lane, free, now)
        if over and not (self.slots.is_scarce(lane.slots) and now - lane.moved_at < STILL):
            return False
        return lane.startable_at(now) <= now

    def _begins(self, lane: Lane, now: float) -> bool:
        """A request of this bounded lane, whose turn it is, begins; else the lane is taken out of the turn."""
        at = lane.startable_at(now)
        if at > now:
            self._rest(self._ready.popleft(), at)
            return False
        if lane.batch is not None:
            at = lane.complete_at(now)
            if at > now and not self._full:
                self._gather(self._ready.popleft(), at)
                return False
            for follower in lane.gather():
                self._hold(follower, -1)
        if lane.pace is not None:
            lane.pace.take(now)
        return True

    @staticmethod
    def _is_over(lane: Lane, free: int, now: float) -> bool:
        """Of a lane that has at least as many open as are free in its half: it takes no more."""
        return lane.slots >= (BUSY * free if lane.warm else free) or now - lane.moved_at >= STILL

    def _unblock(self) -> None:
        if self._blocked:
            self._ready.extend(self._blocked)
            self._blocked.clear()

    def _uncap(self) -> None:
        if self._capped:
            self._ready.extend(self._capped)
            self._capped.clear()

    def _list(self, lane: Lane) -> None:
        if not lane.listed:
            lane.listed = True
            self._ready.append(lane)

    def _rest(self, lane: Lane, until: float) -> None:
        """Out of the turn until then, or until one of it has ended."""
        if until < float("inf"):
            heappush(self._resting, (until, next(self._tie), lane))
        else:
            lane.listed = False

    def _gather(self, lane: Lane, until: float) -> None:
        """Out of the turn until then, or until more is queued."""
        lane.listed = False
        if not lane.gathers:  # else it is looked at earlier
            lane.gathers = True
            heappush(self._gathering, (until, next(self._tie), lane))

    def _look_again(self) -> None:
        """What these rest for may be over: at a rate of a thousandth that would be known a quarter of an hour later."""
        changed, self._changed = self._changed, {}
        for heap in (self._resting, self._gathering):
            heap[:] = [(self._now if lane in changed else at, tie, lane) for at, tie, lane in heap]
            heapify(heap)
        for lane in changed:
            if lane.queue:  # one that waited for the end of a request is in no heap
                self._list(lane)
