"""The cursors of one pod: deliveries that its live stream leaves to them, and the passes that read these later.

It uses the bounds of the product's catching up. Offsets count the records of all receivers; each has one delivery.
"""

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

from benchmarks.fleet.costs import ROUND_TRIP, Costs
from benchmarks.fleet.lane import Delivery, Lane
from benchmarks.fleet.statements import Tally
from consumer.worker.catch_up import PAUSE, SAVE_AFTER
from consumer.worker.cursor_looks import FRESH, MOST
from consumer.worker.reading_pass import LENGTH
from consumer.worker.saver import SAVE_EVERY

FETCH = 0.02  # seconds of a fetch from a broker: consumer/intake/cursor_reader.py, fetch.queue.backoff.ms

DueKey = tuple[int, int]  # partition and subscription, here the receiver's rank


@dataclass(slots=True, eq=False)
class Cursor:
    """What a receiver is owed in a partition, from `position` on. `looked`: when its subscription was looked up."""

    head: DueKey
    lane: Lane
    position: float
    owed: deque[Delivery] = field(default_factory=deque)
    looked: float | None = None


class Backlog:
    """All cursors of the pod. `begun`: how many there were; `read`: records that their passes have read."""

    def __init__(
        self,
        costs: Costs,
        tally: Tally,
        per_second: float,
        at: Callable[[float, Callable[[float], None]], None],
        feed: Callable[[Delivery, float], None],
    ) -> None:
        """A partition gets so many records `per_second`. `at` runs an event later, `feed` queues a delivery."""
        self._costs, self._tally, self._per_second = costs, tally, per_second
        self._at, self._feed = at, feed
        self._cursors: dict[DueKey, Cursor] = {}
        self._moving: dict[int, OrderedDict[DueKey, Cursor]] = {}
        self._urgent: dict[DueKey, None] = {}
        self._looking = self._turning = False
        self._saved, self._moved, self._settled = 0.0, False, 0
        self.begun, self.read = 0, 0.0

    def leaves(self, delivery: Delivery) -> bool:
        """Leave a delivery to the cursor that covers it, if there is one."""
        cursor = self._cursors.get((delivery.place, delivery.lane.rank))
        if cursor is not None:
            delivery.offset = delivery.at * self._per_second
            cursor.owed.append(delivery)
        return cursor is not None

    def begin(self, delivery: Delivery) -> None:
        """A cursor covers everything from this delivery on. `stored` is to be called once its row is written."""
        head = delivery.place, delivery.lane.rank
        self._cursors[head] = Cursor(head, delivery.lane, delivery.at * self._per_second)
        self.begun += 1
        self.leaves(delivery)

    def stored(self, delivery: Delivery, now: float) -> None:
        """The row of a cursor that began with this delivery is written."""
        self._urgent[delivery.place, delivery.lane.rank] = None
        if not self._turning:
            self._turning = True
            self._turn(now)

    def settled(self, now: float) -> None:
        """A delivery of a cursor was made, or has become a row."""
        self._settled += 1
        if self._settled >= SAVE_AFTER:
            self._save(now)

    def _save(self, now: float) -> None:
        self._tally.add(now, "cursors", self._costs.cursor_saved_statements)
        self._saved, self._moved, self._settled = now, False, 0

    def _turn(self, now: float) -> None:
        """Look cursors up, save positions, and begin a pass if a receiver has room."""
        if self._urgent and not self._looking:
            keys = [*islice(self._urgent, MOST)]
            new = any(self._cursors[key].looked is None for key in keys if key in self._cursors)
            asked = self._costs.cursor_look_statements + self._costs.cursor_new_statements * new
            self._tally.add(now, "cursors", asked)
            self._looking = True
            self._at(now + asked * ROUND_TRIP, partial(self._looked, keys))
        if (self._moved or self._settled) and now >= self._saved + SAVE_EVERY:
            self._save(now)
        if not self._cursors and not self._settled:
            self._turning = False
            return
        begin, members = self._members(now)
        if not members:
            self._at(now + PAUSE, self._turn)
            return
        end = min(begin + LENGTH, now * self._per_second)
        took = max(FETCH, (end - begin) * self._costs.record_read / 1e6)
        self.read += end - begin
        self._at(now + took, partial(self._passed, members, end))

    def _looked(self, keys: list[DueKey], now: float) -> None:
        self._looking = False
        for key in keys:
            self._urgent.pop(key, None)
            if (cursor := self._cursors.get(key)) is not None:
                cursor.looked = now
                self._moving.setdefault(key[0], OrderedDict())[key] = cursor

    def _members(self, now: float) -> tuple[float, list[Cursor]]:
        """The position and the cursors of the next pass: those of the partition whose turn it is."""
        for place in list(self._moving):
            moving = self._moving.pop(place)
            if not moving:
                continue
            self._moving[place] = moving  # last in turn
            seen = [*islice(moving.values(), MOST)]
            able = [each for each in seen if each.lane.room(now) > 0]
            stale = {each.head for each in able if each.looked is None or now >= each.looked + FRESH}
            self._urgent |= dict.fromkeys(stale)
            able = [each for each in able if each.head not in stale]
            near = [each for each in able if each.position >= able[0].position]
            for each in near or seen:
                moving.move_to_end(each.head)
            if near:
                return near[0].position, near
        return 0.0, []

    def _passed(self, members: list[Cursor], end: float, now: float) -> None:
        """A pass has read up to `end`; members whose lanes have no more room stay where they are."""
        self._moved = True
        for cursor in members:
            while cursor.owed and cursor.owed[0].offset < end and cursor.lane.room(now) > 0:
                self._feed(cursor.owed.popleft(), now)
            waits = bool(cursor.owed) and cursor.owed[0].offset < end
            cursor.position = cursor.owed[0].offset if waits else end
            if not cursor.owed and end >= now * self._per_second - LENGTH:  # the live stream is met
                del self._cursors[cursor.head], self._moving[cursor.head[0]][cursor.head]
        self._turn(now)
