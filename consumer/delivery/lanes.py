"""Decides which deliveries may start now. Each subscription has a lane, so that a bad receiver fills only its own lane.

Four bounds keep lanes apart:

- A lane may take as many slots as are free, and four times as many once a request of its burst has ended. With N busy
  lanes, each holds 4/(4 N + 1) of the slots and 1/(4 N + 1) stays free. (This is the dynamic threshold of packet
  switches: Choudhury and Hahne, 1998.) A busy lane that is alone leaves a twentieth free, until another one comes.
- Lanes whose requests do not end may only use half of the slots, apart from one request each.
- All lanes whose last result was a time-out share a quarter of the slots, however many receivers hang.
- Each turn opens few new TLS connections.

Deliveries of the live stream come before those of cursors: a lane that has none has its turn behind all lanes that do,
and cursors leave a twentieth of the slots, half of each lane and half of all lanes' memory to the live stream.

A lane's queue is bounded, and so are all lanes together (`admit`). Deliveries with one ordering key go one at a time;
the others wait in a chain behind the current one. A batch counts as one request. A large request takes several slots,
which bounds the bytes of open requests. No I/O; times are monotonic.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from enum import Enum, auto
from functools import cache
from heapq import heapify, heappop, heappush
from itertools import chain, count
from math import inf

from consumer.delivery.delivery import LANE_BYTES, LANE_DELIVERIES, CursorRecord, Delivery, Lane
from consumer.delivery.limits import LARGEST, Share, Slots
from consumer.ledger.rows import OrderingKey
from consumer.loop.part import first
from consumer.subscriptions.endpoint import Endpoint

ALL_DELIVERIES = 20_000  # twenty full lanes: 20 MB at 0.5 KB a delivery and 0.5 KB of body; empty lanes may double it
ALL_BYTES = 64 * 2**20  # four full lanes; empty lanes may double it (`memory` adds all bounds up)
SLOW = 1.0  # seconds: a full queue whose head has waited less belongs to a receiver of over 1,000 deliveries a second
ALONE = 2.0  # seconds instead, if no other lane sends anything: nobody is known to wait behind it
BUSY = 4  # a lane whose requests end may take this many times the free slots
RESERVE = 20  # one slot in so many is left to a lane that begins, and to the live stream
FOR_BACKLOG = 16  # while the live stream takes all turns, cursors get one in so many: retention does not wait
STILL = 0.25  # seconds without the end of a request, or twice as long as the receiver took: the lane is not waited for
NEW_CONNECTIONS = 8  # TLS connections in one turn: 0.65 ms of CPU each, so all others wait for 5 ms
WORKS = 600.0  # seconds for which a receiver that accepted a request counts as working
IDLE_LANES = 10_000  # lanes kept for their prepared request (about 3 KB each)


class Admission(Enum):
    """The decision on the next delivery of a lane."""

    QUEUE = auto()
    BACKPRESSURE = auto()  # the receivers are fast, and Kafka is faster: try again soon
    STORE = auto()  # this receiver, or each with queued deliveries, is slow, limited or down: do not wait


class Lanes:
    """All lanes of a worker and the slots they share."""

    def __init__(self, slots: int) -> None:
        self.slots = Slots(slots, STILL)
        self.held = 0
        self._share: Share = lambda _topics: 1.0
        self._held_bytes = 0
        self._backlog = self._backlog_bytes = self._backlog_slots = 0  # of these, and of taken slots, for cursors
        self._now = 0.0
        self._lanes: dict[int, Lane] = {}
        self._ready: deque[Lane] = deque()  # lanes with queued deliveries, in turn
        self._later: deque[Lane] = deque()  # lanes that have them from cursors alone, in turn
        self._turns = 0  # while there are both
        self._blocked: list[Lane] = []  # lanes over their share until a request ends; lanes that wait for a connection
        self._capped: list[Lane] = []  # lanes that timed out, while all slots of such lanes are taken
        self._resting: list[tuple[float, int, Lane]] = []  # lanes at their limit; a heap by when they may go on
        self._gathering: list[tuple[float, int, Lane]] = []  # incomplete batches; a heap by when they are sent
        self._waiting: list[tuple[float, int, Lane]] = []  # when retries are due; may name retries already taken out
        self._changed: dict[Lane, None] = {}  # lanes whose limits changed, in this order: they may go on at once
        self._connections = NEW_CONNECTIONS  # TLS connections that this turn may still open
        self._all_started = False  # the last turn started every delivery that may start
        self._tie = count()
        self._most = IDLE_LANES

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._lanes.values())

    @property
    def oldest(self) -> float | None:
        """Since when the first queued delivery waits for a slot; None if none does. Safe to call from another thread.

        A delivery that is queued again after a failure counts from its first time. Those of cursors do not count.
        """
        heads = (first(lane.queue) for lane in list(self))
        return min((head.queued_at for head in heads if head is not None), default=None)

    def wakes_before(self, moment: float) -> bool:
        """A lane goes on by itself before this moment, and no socket wakes the process for it."""
        return bool(self._changed) or any(
            heap and heap[0][0] < moment for heap in (self._resting, self._gathering, self._waiting)
        )

    def lane(self, endpoint: Endpoint) -> Lane:
        """The endpoint's lane; from now on it sends as this endpoint says."""
        lane = self._lanes.get(endpoint.subscription_id)
        if lane is None:
            if len(self._lanes) >= self._most:
                self._lanes = {key: lane for key, lane in self._lanes.items() if not lane.idle(self._now)}
                self._most = len(self._lanes) + IDLE_LANES  # so that not every new lane walks all busy ones
            lane = self._lanes[endpoint.subscription_id] = Lane(endpoint, self._share_of(endpoint), self._now)
        elif lane.endpoint is not endpoint:
            # An outage marks thousands of subscriptions as failing, which changes nothing in their requests.
            if replace(lane.endpoint, failing_since=endpoint.failing_since) == endpoint:
                lane.endpoint = endpoint
            else:
                lane.serve(endpoint, self._share_of(endpoint), self._now)
                self._changed[lane] = None
        return lane

    def works(self, subscription_id: int, now: float) -> bool:
        """A receiver has accepted a request lately: what is stored waits because of its ordering key alone."""
        lane = self._lanes.get(subscription_id)
        return lane is not None and lane.breaker.open_until is None and now - lane.accepted_at < WORKS

    def rebound(self, share: Share) -> None:
        """Share limits anew: partitions have come or gone, or topics have become busy or quiet."""
        self._share = cache(share)  # many subscriptions name the same topics, and most name none
        for lane in self:
            mine = self._share_of(lane.endpoint)
            if mine != lane.share:
                lane.bound(mine, self._now)
                self._changed[lane] = None

    def _share_of(self, endpoint: Endpoint) -> float:
        """The share of a subscription's limits, above 0 and at most 1."""
        return self._share(None if endpoint.selection is None else endpoint.selection.topics)

    def room(self, subscription_id: int, now: float) -> int:
        """How many of a subscription's stored deliveries may be taken up."""
        lane = self._lanes.get(subscription_id)
        room = LANE_DELIVERIES if lane is None else max(0, lane.room(now))
        if not self._full:
            return room
        return 0 if self._packed or (lane is not None and lane.held) else min(1, room)

    def room_for_backlog(self, subscription_id: int, now: float) -> int:
        """How many deliveries of cursors a subscription's lane may take, beside those of the live stream."""
        lane, room = self._lanes.get(subscription_id), self.room(subscription_id, now)
        if lane is None or not lane.held:
            return room
        if self._backlog >= ALL_DELIVERIES // 2 or self._backlog_bytes >= ALL_BYTES // 2:
            return 0
        if lane.batch is not None:  # it may be as large as the lane
            return room
        return min(room, lane.capacity // 2 - lane.held) if 2 * lane.held_bytes < LANE_BYTES else 0

    def is_down(self, subscription_id: int) -> bool:
        """The subscription's circuit breaker is open, or lets probes through."""
        lane = self._lanes.get(subscription_id)
        return lane is not None and lane.breaker.open_until is not None

    def admit(self, lane: Lane, size: int, now: float) -> Admission:
        """Whether a delivery of `size` bytes may be queued at `now`.

        A full lane is waited for if its receiver is fast, or if receivers are fast as a whole and it only waits for its
        turn or for slots. For any other receiver, deliveries are stored, so that the partition goes on. An empty lane
        may hold one delivery in a full process, and is waited for beyond that unless nothing queued could start.
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
        waits_for_us = self.slots.quick
        if lane.batch is not None:  # the head may have waited for the rest of its batch
            waits_for_us = waits_for_us or self.slots.taken < self.slots.total
        elif lane.queue and now - lane.queue[0].queued_at < self._patience(lane) and not self._is_still(lane, now):
            return Admission.BACKPRESSURE
        return Admission.BACKPRESSURE if waits_for_us and self._may_start(lane, now) else Admission.STORE

    def enqueue(self, delivery: Delivery, now: float) -> None:
        """Queue an admitted delivery, behind the current one of its ordering key if there is one."""
        lane = delivery.lane
        if not lane.held and not lane.in_flight:
            lane.moved_at, lane.warm = now, False
        delivery.queued_at, delivery.size = now, delivery.size or delivery.event.size
        queue = lane.backlog if self._hold(delivery, 1) else lane.queue
        if delivery.ordering_key is not None:
            behind = lane.chains.get(delivery.ordering_key)
            if behind is not None:
                behind.append(delivery)
                return
            lane.chains[delivery.ordering_key] = deque()
        queue.append(delivery)
        if not lane.listed or lane.backlog:
            self._list(lane)

    def wait(self, delivery: Delivery, due: float) -> None:
        """Keep a failed delivery here until `due`; `wake` queues it again."""
        self._hold(delivery, 1)
        lane, tie = delivery.lane, next(self._tie)
        heappush(lane.waiting, (due, tie, delivery))
        heappush(self._waiting, (due, tie, lane))

    def wake(self, now: float) -> None:
        """Begin a turn: queue retries that are due, ahead of first attempts.

        In a lane with batches they join the end of the queue, as first attempts do, and wait for a batch.
        """
        self._now = now
        self._all_started = False
        self.slots.look(now)
        if self._changed:
            self._look_again()
        if not self._connections:
            self._connections = NEW_CONNECTIONS
            self._readmit(self._blocked)
        while self._waiting and self._waiting[0][0] <= now:
            lane = heappop(self._waiting)[2]
            if not lane.waiting or lane.waiting[0][0] > now:
                continue  # the retry was taken out
            delivery = heappop(lane.waiting)[2]
            if lane.batch is None or delivery.goes_alone:
                lane.queue_of(delivery).appendleft(delivery)
            else:
                delivery.queued_at = now
                lane.queue_of(delivery).append(delivery)
            self._list(lane)
        while self._resting and self._resting[0][0] <= now:  # it is listed; `next` skips it if it is empty by now
            self._readmit([heappop(self._resting)[2]])
        while self._gathering and (self._gathering[0][0] <= now or self._full):
            lane = heappop(self._gathering)[2]
            lane.gathers = False
            self._list(lane)

    def next(self, now: float) -> Delivery | None:
        """Take the next delivery that may start, with its batch, lane by lane in turn; None if none may start."""
        if not self._later:
            return self._next(self._ready, now)
        self._turns += 1
        if not self._turns % FOR_BACKLOG:
            return self._next(self._later, now) or self._next(self._ready, now)
        return self._next(self._ready, now) or self._next(self._later, now)

    def _next(self, ready: deque[Lane], now: float) -> Delivery | None:
        slots, later = self.slots, ready is self._later
        half = slots.total // 2
        while ready:
            free = self._free_for_backlog if later else slots.total - slots.taken
            if free <= 0:
                return None
            lane = ready[0]
            queue = lane.queue or lane.backlog
            if not queue:  # its deliveries were taken out
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
            if (lane.bounded or lane.breaker.restrains) and not self._begins(ready, now):
                continue
            if lane.connects:
                self._connections -= 1
            delivery = queue.popleft()
            size = delivery.size
            lane.held, lane.held_bytes = lane.held - 1, lane.held_bytes - size
            self.held, self._held_bytes = self.held - 1, self._held_bytes - size
            if delivery.batch_members:
                size += sum([each.size for each in delivery.batch_members])
            delivery.slots = slots.take(size, timed_out=lane.timed_out)
            lane.in_flight += 1
            lane.slots += delivery.slots
            if lane.queue:
                ready.rotate(-1)
            else:
                self._leave_turn(ready, delivery, of_cursor=queue is lane.backlog)
            return delivery
        self._all_started = self._connections > 0 and not self._ready  # else the next turn may open some
        return None

    def _leave_turn(self, ready: deque[Lane], delivery: Delivery, *, of_cursor: bool) -> None:
        """The first lane has no more deliveries of the live stream, and `delivery` starts."""
        lane = ready.popleft()
        lane.listed = False
        if of_cursor:
            self._backlog, self._backlog_bytes = self._backlog - 1, self._backlog_bytes - delivery.size
            lane.backlog_slots += delivery.slots
            self._backlog_slots += delivery.slots
        if lane.backlog:
            self._list(lane)

    def give_back(self, deliveries: Sequence[Delivery]) -> None:
        """Put deliveries that `next` gave and that were not sent back at the head of their queues."""
        for delivery in reversed(deliveries):
            self._hold(delivery, 1)
            delivery.lane.queue_of(delivery).appendleft(delivery)
            self._list(delivery.lane)

    def ready(self) -> bool:
        """`next` may have something to give."""
        if self._later and self._free_for_backlog > 0:
            return True
        return bool(self._ready or (self._blocked and not self._connections)) and self.slots.taken < self.slots.total

    def finished(self, lane: Lane, slots: int = 1) -> None:
        """A request that `next` started, and that took so many slots, has ended with any result."""
        lane.in_flight -= 1
        lane.slots -= slots
        if lane.backlog_slots > lane.slots:
            self._backlog_slots -= lane.backlog_slots - lane.slots
            lane.backlog_slots = lane.slots
        lane.moved_at, lane.warm = self._now, True
        self.slots.free(slots, timed_out=lane.timed_out)
        if lane.timed_out:
            self._readmit(self._capped)
        if (lane.queue or lane.backlog) and not lane.listed:
            self._list(lane)
        if self._blocked:
            self._readmit(self._blocked)

    def ended(self, lane: Lane, *, timed_out: bool) -> None:
        """A request of this lane has ended with a time-out, or with another result."""
        if lane.timed_out is not timed_out:
            lane.timed_out = timed_out
            self.slots.changed(lane.slots, timed_out=timed_out)
            self._readmit(self._capped)

    def go_on(self, lane: Lane, ordering_key: OrderingKey) -> None:
        """The current delivery of this ordering key has ended: queue the next one, if there is one."""
        behind = lane.chains.get(ordering_key)
        if not behind:
            lane.chains.pop(ordering_key, None)
            return
        delivery = behind.popleft()
        lane.queue_of(delivery).append(delivery)
        self._list(lane)

    def cut(self, lane: Lane, ordering_key: OrderingKey) -> list[Delivery]:
        """The current delivery of this ordering key leaves memory: take out the deliveries behind it."""
        behind = lane.chains.pop(ordering_key, ())
        for delivery in behind:
            self._hold(delivery, -1)
        return list(behind)

    def withdraw(self, whose: Callable[[Delivery], bool]) -> list[Delivery]:
        """Take out deliveries that are not open and that `whose` selects: all of an ordering key, or none."""
        return [each for lane in self if lane.held for each in self.clear(lane, whose)]

    def clear(self, lane: Lane, whose: Callable[[Delivery], bool] = lambda _: True) -> list[Delivery]:
        """Take out deliveries of one lane, as `withdraw`. It stays in the lists: `next` skips what is gone."""
        taken = [each for each in chain(lane.queue, lane.backlog) if whose(each)]
        lane.queue = deque(each for each in lane.queue if not whose(each))
        lane.backlog = deque(each for each in lane.backlog if not whose(each))
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

    def _hold(self, delivery: Delivery, sign: int) -> bool:
        """Count a delivery that comes or goes. Returns whether it is a cursor's."""
        lane, size = delivery.lane, sign * delivery.size
        lane.held += sign
        lane.held_bytes += size
        self.held += sign
        self._held_bytes += size
        if not isinstance(delivery.origin, CursorRecord):
            return False
        self._backlog += sign
        self._backlog_bytes += size
        return True

    @property
    def _free_for_backlog(self) -> int:
        """How many slots deliveries of cursors may take: they leave some to the live stream."""
        total = self.slots.total
        return min(total - self.slots.taken, max(1, total - max(1, total // RESERVE)) - self._backlog_slots)

    @property
    def _full(self) -> bool:
        """The process holds as many deliveries as it may."""
        return self.held >= ALL_DELIVERIES or self._held_bytes > ALL_BYTES - LARGEST

    @property
    def _packed(self) -> bool:
        """The process holds twice as many, with one for each lane that was empty: nothing more may come in."""
        return self.held >= 2 * ALL_DELIVERIES or self._held_bytes >= 2 * ALL_BYTES

    def _may_start(self, lane: Lane, now: float) -> bool:
        """A request of this lane can start as soon as it is its turn and a slot is free.

        While slots are scarce, a lane over its share counts too: other lanes hold the slots, and will free them.
        """
        if not (lane.queue or lane.backlog) or (lane.timed_out and self.slots.is_capped):
            return False
        free = max(1, self.slots.total - self.slots.taken)
        over = lane.in_flight and lane.slots >= free - self.slots.total // 2 and self._is_over(lane, free, now)
        if over and (self._is_still(lane, now) or not self.slots.is_scarce(lane.slots)):
            return False
        return lane.startable_at(now) <= now

    def _begins(self, ready: deque[Lane], now: float) -> bool:
        """Whether a request of the first lane, which is limited, may start; if not, it leaves the turn until it may."""
        lane = ready[0]
        if (at := lane.startable_at(now)) > now:
            ready.popleft()
            if at < inf:
                heappush(self._resting, (at, next(self._tie), lane))
            else:  # until one of its requests ends
                lane.listed = False
            return False
        if lane.batch is not None:
            if (at := lane.complete_at(now)) > now and not self._full:  # until then, or until more is queued
                ready.popleft()
                lane.listed = False
                if not lane.gathers:  # else the heap has it with an earlier moment
                    lane.gathers = True
                    heappush(self._gathering, (at, next(self._tie), lane))
                return False
            for follower in lane.gather():
                self._hold(follower, -1)
        if lane.pace is not None:
            lane.pace.take(now)
        return True

    def _is_over(self, lane: Lane, free: int, now: float) -> bool:
        """Whether a lane has its share of slots. The caller has found that it has at least `free` less half of all."""
        if self._is_still(lane, now):
            return True
        if lane.slots < (BUSY * free if lane.warm else free):
            return False
        return not (lane.warm and self._is_alone(lane)) or free <= max(1, self.slots.total // RESERVE)

    def _is_still(self, lane: Lane, now: float) -> bool:
        """No request has ended for longer than the receiver takes: it uses only half of the slots.

        How long a receiver takes that has not answered yet is not known.
        """
        waited = now - lane.moved_at
        if waited < STILL:
            return False
        is_new = not (lane.warm or lane.timed_out) and self._is_alone(lane)
        return waited >= min(self._patience(lane), inf if is_new else 2 * lane.took)

    def _patience(self, lane: Lane) -> float:
        """Seconds for which others, who may be behind it in its partitions, wait for a lane."""
        return ALONE if self._is_alone(lane) else SLOW

    def _is_alone(self, lane: Lane) -> bool:
        """No other lane has anything to send, or has sent anything that is not answered."""
        return lane.slots == self.slots.taken and len(self._ready) + len(self._later) + len(self._blocked) <= 1

    def _readmit(self, lanes: list[Lane]) -> None:
        for lane in lanes:
            (self._ready if lane.queue else self._later).append(lane)
        lanes.clear()

    def _list(self, lane: Lane) -> None:
        """Give a lane its turn, and an earlier one if the live stream has just given it the first delivery."""
        if lane.listed:
            if len(lane.queue) != 1 or lane not in self._later:
                return
            self._later.remove(lane)
        lane.listed = True
        (self._ready if lane.queue else self._later).append(lane)

    def _look_again(self) -> None:
        """Wake lanes whose limits changed: at a rate of 0.001 they would rest for a quarter of an hour more."""
        changed, self._changed = self._changed, {}
        for heap in (self._resting, self._gathering):
            heap[:] = [(self._now if lane in changed else at, tie, lane) for at, tie, lane in heap]
            heapify(heap)
        for lane in changed:
            if lane.queue or lane.backlog:  # a lane that waited for the end of a request is in no heap
                self._list(lane)
