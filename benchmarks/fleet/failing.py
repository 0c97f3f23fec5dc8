"""One pod and its failing receivers, request by request: rows stored and taken up, and when all are delivered.

It uses the product's own breaker, retry policy and limits of taking up. It leaves out healthy receivers, which have no
rows in the database.
"""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from heapq import heappop, heappush
from itertools import accumulate, count
from math import inf
from random import Random

from benchmarks.fleet import statements
from benchmarks.fleet.backlog import Backlog, DueKey
from benchmarks.fleet.capacity import SLOTS
from benchmarks.fleet.costs import MEASURED, ROUND_TRIP, Costs
from benchmarks.fleet.lane import Delivery, Lane
from benchmarks.fleet.statements import DELIVERED, MINUTE, SETTLED, STORED, TAKEN_UP, Tally
from benchmarks.fleet.world import (
    REFUSAL,
    TIMEOUT,
    Failure,
    Outage,
    World,
    is_down,
    latency,
    mean_open,
    seeded,
    setting,
    waits,
)
from consumer.delivery.breaker import Breaker
from consumer.delivery.delivery import LANE_DELIVERIES
from consumer.delivery.limits import TIMED_OUT
from consumer.delivery.outcome import Failed
from consumer.delivery.parking import STORE_BATCH
from consumer.delivery.recall import DUE_KEYS, ROWS, SOON
from consumer.delivery.retry import policy_for

IN_MEMORY = setting("retry_in_memory")
POLICY = policy_for(waits(), setting("retry_jitter"))
BACKLOG_ROWS = setting("backlog_rows")
LIVE_AFTER = 15 * MINUTE  # new events arrive for so long after the end, until each breaker has closed
_FAILED = Failed("the simulated receiver is down", 503)


@dataclass(frozen=True, slots=True)
class Story:
    """The history of one pod. Statements are by purpose, for each minute; times are seconds from `end`."""

    minutes: Sequence[Counter[str]]
    offered: int
    delivered: int
    owed: int  # stored and not delivered at the end of the run
    behind: int  # left to cursors, and neither delivered nor stored then
    in_hand: int  # neither delivered nor stored: the record is not settled
    exhausted: int
    stored: int  # rows stored by `end`
    cursors: int  # begun
    attempts: int
    heads: int  # highest number of due keys with rows
    waits: Sequence[float]  # sorted delivery times of deliveries still open at `end`
    probes: int  # probes of half-open breakers in the last ten minutes before `end`


@dataclass(slots=True)
class _Entry:
    kind: str  # new, again, delivered, given up, begun
    delivery: Delivery


class _Pod:
    """One run. Times are seconds from the beginning of the outage."""

    def __init__(
        self,
        world: World,
        outages: Sequence[tuple[int, Outage]],
        end: float,
        random: Random,
        costs: Costs,
        most_rows: float = BACKLOG_ROWS,
    ) -> None:
        self._most_rows, self._open_rows = most_rows, Counter[DueKey]()
        self._random, self._costs, self._end = random, costs, end
        mine: dict[int, list[Outage]] = {}
        for rank, outage in outages:
            mine.setdefault(rank, []).append(outage)
        self._lanes = [Lane(rank, tuple(each), Breaker(random.random)) for rank, each in mine.items()]
        weights = list(accumulate(world.share(lane.rank) for lane in self._lanes))
        self._weights, self._rate = weights, weights[-1] * world.of_a_pod if weights else 0.0
        self._places = max(1, round(world.partitions / world.pods))
        self._free = max(1, SLOTS - round(world.of_a_pod * mean_open()))
        self._open = self._timed_out = 0
        self._capped: deque[Lane] = deque()
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._tie, self._numbers = count(), count()
        self._waiting: dict[int, Delivery] = {}
        self._to_write: deque[_Entry] = deque()
        self._writing = self._looking = False
        self._next_look = 0.0
        self._rows: dict[DueKey, list[tuple[float, int, Delivery]]] = {}
        self._noted: dict[DueKey, float] = {}
        self._ready: list[tuple[float, DueKey]] = []
        self._planned = inf
        self._tally = Tally()
        self.backlog = Backlog(costs, self._tally, world.of_a_pod / self._places, self._at, self._feed)
        self.behind: dict[int, Delivery] = {}
        self.delivered: set[int] = set()
        self.owed: dict[int, Delivery] = {}
        self.in_hand: dict[int, Delivery] = {}
        self.exhausted: set[int] = set()
        self._missing: set[int] = set()  # open at the end of the outage, to be delivered
        self.stored = self.attempts = self.heads = self.probes = self.offered = 0
        self.waits: list[float] = []

    def run(self, until: float) -> None:
        """Runs until that time, or until all deliveries open at the end of the outage are made."""
        if self._rate:
            self._at(self._random.expovariate(self._rate), self._arrive)
        self._at(self._end, self._over)
        self._at(0.0, self._maintain)
        while self._events and self._events[0][0] <= until:
            now, _, event = heappop(self._events)
            event(now)
            self._pump(now)
            self._plan(now)
            if now >= self._end and not self._missing:
                return

    def _at(self, moment: float, event: Callable[[float], None]) -> None:
        heappush(self._events, (moment, next(self._tie), event))

    # Events become deliveries.

    def _arrive(self, now: float) -> None:
        lane = self._random.choices(self._lanes, cum_weights=self._weights)[0]
        delivery = Delivery(next(self._numbers), lane, self._random.randrange(self._places), now)
        self.offered += 1
        self.in_hand[delivery.number] = delivery
        if self.backlog.leaves(delivery):
            self._leave(delivery)
        elif (lane.breaker.restrains and lane.room(now) <= 0) or lane.held >= LANE_DELIVERIES:
            if self._takes(delivery):
                self.backlog.begin(delivery)
                self._to_write.append(_Entry("begun", delivery))
            else:
                self._store(delivery, max(now, lane.breaker.open_until or now))
        else:
            lane.queue.append(delivery)
            self._start(lane, now)
        if now < self._end + LIVE_AFTER:
            self._at(now + self._random.expovariate(self._rate), self._arrive)

    def _takes(self, delivery: Delivery) -> bool:
        """A cursor takes what would be stored, by the rule of the product's backlog."""
        lane = delivery.lane
        enough = self._open_rows[delivery.place, lane.rank] + lane.held >= self._most_rows
        return self._most_rows < inf and (lane.breaker.is_long_open or enough)

    def _leave(self, delivery: Delivery) -> None:
        delivery.behind = True
        self.behind[delivery.number] = self.in_hand.pop(delivery.number)

    def _feed(self, delivery: Delivery, now: float) -> None:
        """A cursor has read a delivery."""
        self.in_hand[delivery.number] = self.behind.pop(delivery.number)
        delivery.lane.queue.append(delivery)
        self._start(delivery.lane, now)

    def _start(self, lane: Lane, now: float) -> None:
        while lane.queue:
            window = lane.breaker.window(now)
            if window is not None and lane.open >= window:
                return
            if self._open >= self._free or (lane.timed_out and self._timed_out >= SLOTS // TIMED_OUT):
                self._capped.append(lane)
                return
            if lane.breaker.open_until is not None and self._end - 10 * MINUTE <= now < self._end:
                self.probes += 1
            delivery = lane.queue.popleft()
            lane.open += 1
            self._open += 1
            self._timed_out += lane.timed_out
            self.attempts += 1
            failure, took = is_down(lane.outages, now), REFUSAL
            if failure is None and (took := latency(self._random)) >= TIMEOUT:
                failure = Failure.HANGING
            if failure is Failure.HANGING:
                took = TIMEOUT
            self._at(now + took, partial(self._ended, delivery, now, failure))

    def _ended(self, delivery: Delivery, started: float, failure: Failure | None, now: float) -> None:
        lane = delivery.lane
        self._timed_out -= lane.open if lane.timed_out else 0
        lane.open -= 1
        self._open -= 1
        lane.timed_out = failure is Failure.HANGING
        self._timed_out += lane.open if lane.timed_out else 0
        delivery.made += 1
        if failure is None:
            lane.breaker.succeeded(now, started, SLOTS)
            self._succeeded(delivery, now)
        else:
            opened = lane.breaker.failed(now, started)
            self._failed(delivery, now)
            if opened:
                self._leave_alone(lane, now)
        self._start(lane, now)
        if lane.full and (lane.breaker.open_until is not None or lane.room(now) > 0):
            full, lane.full = lane.full, []
            for place in full:
                self._note((place, lane.rank), now)
        for _ in range(len(self._capped)):
            self._start(self._capped.popleft(), now)

    def _succeeded(self, delivery: Delivery, now: float) -> None:
        number = delivery.number
        del (self.owed if delivery.row else self.in_hand)[number]
        self.delivered.add(number)
        if number in self._missing:
            self._missing.remove(number)
            self.waits.append(now - self._end)
        if delivery.row:
            self._to_write.append(_Entry("delivered", delivery))
        self._settled(delivery, now)

    def _settled(self, delivery: Delivery, now: float) -> None:
        """Its row needs no more, or its cursor may move."""
        if delivery.row:
            self._open_rows[delivery.place, delivery.lane.rank] -= 1
        elif delivery.behind:
            delivery.behind = False
            self.backlog.settled(now)

    def _failed(self, delivery: Delivery, now: float) -> None:
        wait = POLICY.decide(delivery.made, _FAILED)
        if wait is None:
            self._missing.discard(delivery.number)
            del (self.owed if delivery.row else self.in_hand)[delivery.number]
            self.exhausted.add(delivery.number)
            self._to_write.append(_Entry("given up", delivery))
            self._settled(delivery, now)
            return
        lane, delivery.due = delivery.lane, now + wait
        if not delivery.row and wait <= IN_MEMORY and lane.breaker.open_until is None:
            lane.waiting.add(delivery.number)
            self._waiting[delivery.number] = delivery
            self._at(delivery.due, partial(self._wake, delivery))
        else:
            self._store(delivery, delivery.due)

    def _wake(self, delivery: Delivery, now: float) -> None:
        if self._waiting.pop(delivery.number, None) is not None:
            delivery.lane.waiting.remove(delivery.number)
            delivery.lane.queue.appendleft(delivery)
            self._start(delivery.lane, now)

    def _leave_alone(self, lane: Lane, now: float) -> None:
        """The breaker has opened: rows waiting in memory go back to the database."""
        held = [*lane.queue, *(self._waiting.pop(each) for each in sorted(lane.waiting))]
        lane.queue.clear()
        lane.waiting.clear()
        for delivery in held:
            if delivery.row:
                self._is_due(delivery, now)
            else:
                self._store(delivery, delivery.due if delivery.made else max(now, lane.breaker.open_until or now))

    # Storing rows and results.

    def _store(self, delivery: Delivery, due: float) -> None:
        delivery.due = due
        if not delivery.row:
            self._open_rows[delivery.place, delivery.lane.rank] += 1
        self._to_write.append(_Entry("again" if delivery.row else "new", delivery))

    def _pump(self, now: float) -> None:
        if self._writing or not self._to_write:
            return
        batch = [self._to_write.popleft() for _ in range(min(STORE_BATCH, len(self._to_write)))]
        new = {each.delivery.place for each in batch if not each.delivery.row and each.kind != "begun"}
        begun = sum(each.kind == "begun" for each in batch)
        told = [each for each in batch if each.delivery.row]
        outcomes = len({each.kind for each in told})
        storing = statements.storing(self._costs, len(new))
        telling = statements.results(self._costs, outcomes)
        self._tally.add(now, "storing", storing)
        self._tally.add(now, "results", telling)
        beginning = self._costs.cursor_begun_statements * min(1, begun)
        self._tally.add(now, "cursors", beginning)
        self._tally.add(now, STORED, len(batch) - len(told) - begun)
        self._tally.add(now, SETTLED, len(told))
        self._writing = True
        self._at(now + (storing + telling + beginning) * ROUND_TRIP, partial(self._written, batch))

    def _written(self, batch: Sequence[_Entry], now: float) -> None:
        self._writing = False
        for entry in batch:
            kind, delivery = entry.kind, entry.delivery
            if kind == "begun":
                self._leave(delivery)
                self.backlog.stored(delivery, now)
            if kind == "new":
                delivery.row = True
                if delivery.behind:
                    delivery.behind = False
                    self.backlog.settled(now)
                self.stored += now <= self._end
                self.owed[delivery.number] = self.in_hand.pop(delivery.number)
            if kind in {"new", "again"}:
                self._is_due(delivery, delivery.due)
            elif kind == "delivered":
                self._tally.add(now, DELIVERED, 1)

    def _is_due(self, delivery: Delivery, due: float) -> None:
        head = delivery.place, delivery.lane.rank
        heappush(self._rows.setdefault(head, []), (due, delivery.number, delivery))
        self.heads = max(self.heads, len(self._rows))
        self._note(head, due)

    def _note(self, head: DueKey, due: float) -> None:
        if due < self._noted.get(head, inf):
            self._noted[head] = due
            heappush(self._ready, (due, head))

    # Taking up stored deliveries.

    def _plan(self, now: float) -> None:
        if self._looking or not self._ready:
            return
        moment = max(now, self._next_look, self._ready[0][0])
        if moment < self._planned:
            self._planned = moment
            self._at(moment, self._look)

    def _look(self, now: float) -> None:
        if now < self._planned or self._looking:
            return
        self._planned, self._next_look = inf, now + SOON
        chosen = self._choose(now)
        if not chosen:
            return
        share, taken = ROWS // len(chosen), list[Delivery]()
        heads_of = Counter(rank for _, rank in chosen)
        for head, room in chosen.items():
            rows = self._rows[head]
            for _ in range(min(max(1, room // heads_of[head[1]]), share)):
                if not rows or rows[0][0] > now:
                    break
                taken.append(heappop(rows)[2])
        asking = statements.taking_up(self._costs, len(chosen), found=bool(taken))
        self._tally.add(now, "taking up", asking)
        self._tally.add(now, TAKEN_UP, len(taken))
        self._looking = True
        if len(chosen) == DUE_KEYS:
            self._next_look = now
        self._at(now + asking * ROUND_TRIP, partial(self._taken, tuple(chosen), taken))

    def _choose(self, now: float) -> dict[DueKey, int]:
        """Due keys whose time has come, each with its room."""
        chosen: dict[DueKey, int] = {}
        while self._ready and self._ready[0][0] <= now and len(chosen) < DUE_KEYS:
            due, head = heappop(self._ready)
            if self._noted.get(head) != due:
                continue
            del self._noted[head]
            lane = self._rows[head][0][2].lane
            if (room := lane.room(now)) > 0:
                chosen[head] = room
            elif lane.breaker.window(now) == 0:
                self._note(head, lane.breaker.open_until or now)
            else:
                lane.full.append(head[0])
        return chosen

    def _taken(self, heads: Sequence[DueKey], taken: Sequence[Delivery], now: float) -> None:
        self._looking = False
        for delivery in taken:
            if delivery.lane.room(now) > 0:
                delivery.lane.queue.append(delivery)
            else:
                self._is_due(delivery, now)
        for lane in dict.fromkeys(each.lane for each in taken):
            self._start(lane, now)
        for head in heads:
            if rows := self._rows.get(head):
                self._note(head, rows[0][0])
            else:
                self._rows.pop(head, None)

    # Once a minute.

    def _maintain(self, now: float) -> None:
        ended = self._tally.before(now, DELIVERED)
        with_rows = max(len({place for place, _ in self._rows}), min(self._places, ended))  # including delivered rows
        self._tally.add(now, "polling", statements.polling(self._costs, len(self._rows), self._places))
        self._tally.add(now, "upkeep", statements.tidying(self._costs, with_rows, ended))
        self._at(now + MINUTE, self._maintain)

    def _over(self, _now: float) -> None:
        """The outage ends: open deliveries are to be made, unless their receiver stays down longer."""
        self._missing = {
            number
            for number, each in (self.owed | self.behind | self.in_hand).items()
            if all(outage.end <= self._end for outage in each.lane.outages)
        }

    def story(self) -> Story:
        """The history so far."""
        return Story(
            self._tally.minutes,
            self.offered,
            len(self.delivered),
            len(self.owed),
            len(self.behind),
            len(self.in_hand),
            len(self.exhausted),
            self.stored,
            self.backlog.begun,
            self.attempts,
            self.heads,
            sorted(self.waits),
            self.probes,
        )


def suffer(
    world: World,
    outages: Sequence[tuple[int, Outage]],
    seconds: float,
    name: str,
    *,
    until: float = inf,
    costs: Costs = MEASURED,
    most_rows: float = BACKLOG_ROWS,
) -> Story:
    """Runs one pod of the world whose receivers have these outages, which end after so many seconds.

    The run ends when all deliveries open then are made, or at `until`. The same `name` gives the same run.
    `most_rows` of a receiver in a partition, as WEBHOOK_BACKLOG_ROWS; inf: each delivery is a row, there is no cursor.
    """
    with seeded(name):
        pod = _Pod(world, outages, seconds, Random(name), costs, most_rows)  # noqa: S311 (a simulation)
        pod.run(until)
    return pod.story()
