"""Stored deliveries come back into their lanes when they are due.

Rows are looked for by their *head*: partition and subscription. Which heads have rows is known from a walk through the
index when partitions come, from what this process stores itself, and from the marks of those who make rows due: the
command line, the API, other workers. What somebody has changed by hand is found by a walk that goes on slowly, a step
every few seconds however many heads there are. Only a head that is due and whose lane has room is asked for rows, so
that neither a million rows behind an open breaker nor those of other workers' partitions are ever read through.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import NamedTuple

from consumer.database.engine import DatabaseThread
from consumer.database.job import DatabaseJob
from consumer.delivery.delivery import Delivery, StoredRow
from consumer.delivery.lanes import Admission, Lanes
from consumer.delivery.memory import Memory, TakenUp
from consumer.delivery.parking import Parking
from consumer.delivery.settling import Settling
from consumer.events.event import TopicPartition
from consumer.ledger.due import POSTPONED, Fetched, FetchRequest, Scanned
from consumer.ledger.marks import RecentMarks
from consumer.ledger.rows import DueDelivery, DueKey, OrderingKey
from consumer.loop.part import Part
from consumer.matching.selection import FILTER_TOO_LARGE, TURN, FilterResult, Selector

LOOK_EVERY = 5.0  # seconds: what is marked is found this soon; between two steps of a walk too, once all was walked
SOON = 0.1  # seconds between two looks at the heads, in memory
LOOKING = 9  # times as long as a look took is waited besides: half a million heads would take all of the loop
EARLY = 0.5  # seconds until a head is asked again whose rows may not go yet: each time they are read for nothing
HEADS = 20  # asked for in one job
ROWS = 500


class Ledger(NamedTuple):
    """What is asked of the database, on its thread: functions of the ledger with all but the question filled in."""

    scan: Callable[[Sequence[TopicPartition], DueKey | None], Scanned]
    recent: Callable[[datetime | None], RecentMarks]
    fetch: Callable[[Sequence[FetchRequest], float], Fetched]


class _Answer(NamedTuple):
    seen: RecentMarks | None
    walked: Scanned | None
    taken: Fetched | None


class Recall(Part):
    """Looks for rows of the partitions that are this worker's, which `places` gives.

    `given_out(place)` tells of an offset whether all records up to it have been fanned out. An ordered row waits for
    that: until then an earlier one of its key may come, which was not settled before a crash.
    """

    def __init__(
        self,
        ledger: Ledger,
        thread: DatabaseThread,
        parking: Parking,
        lanes: Lanes,
        settling: Settling,
        rows: TakenUp,
        selector: Selector,
        memory: Memory,
        places: Callable[[], Collection[TopicPartition]],
        given_out: Callable[[TopicPartition], Callable[[int], bool]],
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._ledger = ledger
        self._looks = DatabaseJob[Callable[[], _Answer], _Answer](
            thread.submit, "could not look for due deliveries", monotonic
        )
        self._parking = parking
        self._lanes = lanes
        self._settling = settling
        self._rows = rows
        self._selector = selector
        self._memory = memory
        self._places = places
        self._given_out = given_out
        self._clock = clock
        self._monotonic = monotonic
        self._next = self._next_walk = self._next_marks = 0.0
        self._walked_to: DueKey | None = None
        self._walked_all = False  # since partitions have come
        self._seen = RecentMarks({}, {}, None)  # what was marked lately
        self._begun_anew = False  # while a walk was under way
        self._unreadable: dict[int, str] = {}  # rows of the last look that met any, by id
        self._unreadable_until = 0.0

    @property
    def busy(self) -> bool:
        """An answer of the database is awaited."""
        return self._looks.busy

    @property
    def fault(self) -> str | None:
        """Why rows cannot be looked for, or some of them not be read, for /readyz."""
        if self._looks.fault is None and self._monotonic() < self._unreadable_until:
            row, error = next(iter(self._unreadable.items()))
            more = f" and {len(self._unreadable) - 1} more" if len(self._unreadable) > 1 else ""
            return f"database: {error}; a stored delivery cannot be read: row {row}{more}"
        return self._looks.fault

    def within(self, seconds: float) -> None:
        """Partitions have come: walk after so long at most."""
        now = self._monotonic()
        if not now < self._next_walk <= now + seconds:
            self._next_walk = now + seconds
        self._walked_to = None
        self._walked_all = False
        self._begun_anew = True

    def poll(self, _now: float) -> None:
        """Look if it is time."""
        now = self._monotonic()
        if now < self._next or self._parking.full or not self._looks.ready:
            return
        self._next = now + SOON
        owned = self._places()
        wants = self._wants(now, owned) if self._memory.room else []
        # Of many heads the next ones are asked for at once, unless to look through them takes the loop.
        self._next = (now if len(wants) == HEADS else self._next) + LOOKING * (self._monotonic() - now)
        if marking := bool(owned) and now >= self._next_marks:
            self._next_marks = now + LOOK_EVERY
        if walking := bool(owned) and now >= self._next_walk:
            self._next_walk = now + LOOK_EVERY
        if not (wants or marking or walking):
            return
        self._parking.ordering_keys.look_begins()
        self._begun_anew = False
        clock, after, ways, since = self._clock(), self._walked_to, sorted(owned) if walking else (), self._seen.until

        def job() -> _Answer:  # marks first: what is marked after that is seen the next time, whatever the walk meets
            return _Answer(
                self._ledger.recent(since) if marking else None,
                self._ledger.scan(ways, after) if walking else None,
                self._ledger.fetch(wants, clock) if wants else None,
            )

        self._looks.start(job, self._answered, partial(self._failed, wants))

    def _failed(self, wants: Sequence[FetchRequest], _error: Exception) -> None:
        self._parking.ordering_keys.look_ends()
        self._note(dict.fromkeys((want.due_key for want in wants), 0.0))
        self._next_walk = self._next_marks = 0.0

    def _answered(self, answer: _Answer) -> None:
        places = self._places()  # they may have changed since they were looked at
        if answer.seen is not None:
            self._marked(answer.seen, places)
        if answer.walked is not None:
            self._note(answer.walked.due_keys)
            if not self._begun_anew:
                self._walked_to = answer.walked.end
                self._walked_all = self._walked_all or answer.walked.end is None
            if not self._walked_all:
                self._next_walk = 0.0
        if answer.taken is not None:
            if answer.taken.unreadable:  # each is tried again in a minute, and is said until then
                self._unreadable = answer.taken.unreadable
                self._unreadable_until = self._monotonic() + POSTPONED + LOOK_EVERY
            self._note(answer.taken.next_due)
            self._found(answer.taken.rows, places)
        self._parking.ordering_keys.look_ends()

    def _marked(self, seen: RecentMarks, places: Collection[TopicPartition]) -> None:
        """Look at what is new among what was marked lately."""
        before, self._seen = self._seen, seen
        due_keys = [
            due_key
            for due_key, asked in seen.due_keys.items()
            if before.due_keys.get(due_key) != asked and due_key[:2] in places
        ]
        self._note(dict.fromkeys(due_keys, 0.0))
        for subject, asked in seen.decisions.items():
            if before.decisions.get(subject) != asked:
                self._parking.hurry(subject)

    def _wants(self, now: float, places: Collection[TopicPartition]) -> list[FetchRequest]:
        """Heads that are due, and how many rows there is room for; taken out until the answer puts them back."""
        clock, due_keys = self._clock(), self._parking.due_keys
        rooms: dict[int, int] = {}  # asked once for each subscription: it may have heads in all partitions
        chosen: dict[DueKey, int] = {}
        out: list[DueKey] = []
        for due_key, due_at in due_keys.items():
            if due_at > clock:
                continue
            if (room := rooms.get(due_key[2])) is None:
                room = rooms[due_key[2]] = (
                    0 if self._selector.is_over(due_key[2]) else self._lanes.room(due_key[2], now)
                )
            if room <= 0:
                continue
            out.append(due_key)
            if due_key[:2] in places and due_key[:2] not in self._settling.revoking:
                chosen[due_key] = room
            if len(chosen) == HEADS:
                break
        for due_key in out:
            del due_keys[due_key]
        here: dict[DueKey, set[int]] = {due_key: set() for due_key in chosen}
        for row, due_key in self._rows.due_keys() if here else ():
            if due_key in here:
                here[due_key].add(row)
        share = ROWS // max(1, len(chosen))
        heads_of = Counter(due_key[2] for due_key in chosen)
        return [
            FetchRequest(due_key, min(max(1, room // heads_of[due_key[2]]), share), frozenset(here[due_key]))
            for due_key, room in chosen.items()
        ]

    def _note(self, due: Mapping[DueKey, float]) -> None:
        for due_key, due_at in due.items():
            self._parking.due_keys.note(due_key, due_at)

    def _found(self, rows: Sequence[DueDelivery], places: Collection[TopicPartition]) -> None:
        now = self._monotonic()
        self._selector.begin(TURN)
        given_out: dict[TopicPartition, Callable[[int], bool]] = {}
        ends: dict[OrderingKey, float] = {}  # of each ordering key the offset from which on its rows may not come yet
        later: set[DueKey] = set()
        for row in rows:
            place, offset = row.event.record[:2], row.event.record.offset
            due_key = (*place, row.endpoint.subscription_id)
            if row.id in self._rows or place in self._settling.revoking or place not in places:
                continue
            early = row.ordering_key is not None and self._is_early(row.ordering_key, offset, given_out, ends)
            if not early and row.filter_pending and not self._is_wanted(row, due_key):
                if row.ordering_key is not None and row.id not in self._rows:
                    ends[row.ordering_key] = offset
                continue
            lane = self._lanes.lane(row.endpoint)
            if early or self._lanes.admit(lane, row.event.size, now) is not Admission.QUEUE:
                if row.ordering_key is not None:  # those behind it must not pass it
                    ends[row.ordering_key] = offset
                if early:
                    later.add(due_key)
                else:
                    self._note({due_key: 0.0})
                continue
            delivery = Delivery(row.event, lane, StoredRow(row.id, row.schedule_start), row.ordering_key)
            delivery.attempts = row.attempt
            delivery.first, delivery.last = row.first, row.last
            self._rows.add(row.id, due_key, row.event)
            self._lanes.enqueue(delivery, now)
        self._parking.due_keys.postpone(later, self._clock() + EARLY)

    def _is_early(
        self,
        ordering_key: OrderingKey,
        offset: int,
        given_out: dict[TopicPartition, Callable[[int], bool]],
        ends: dict[OrderingKey, float],
    ) -> bool:
        """An earlier one of its key may still come. The last two are what is known of other rows of this look."""
        place = (ordering_key.topic, ordering_key.partition)
        if place not in given_out:
            given_out[place] = self._given_out(place)
        if ordering_key not in ends:
            self._parking.ordering_keys.seen(ordering_key)  # an adopted one was not known
            ends[ordering_key] = self._parking.ordering_keys.first_unseen(ordering_key)
        return offset >= ends[ordering_key] or not given_out[place](offset)

    def _is_wanted(self, row: DueDelivery, due_key: DueKey) -> bool:
        """Ask the filter that was not asked when the row was stored. If not, the row has ended, or waits."""
        if self._selector.spent:
            self._note({due_key: 0.0})
            return False
        match self._selector.ask(row.endpoint, row.event):
            case FilterResult.WANTED:
                return True
            case FilterResult.NOT_ASKED:  # since this look began
                self._note({due_key: 0.0})
            case FilterResult.UNWANTED:
                self._settling.on_unwanted(row)
            case FilterResult.TOO_LARGE:
                self._rows.add(row.id, due_key, row.event)
                delivery = Delivery(row.event, self._lanes.lane(row.endpoint), StoredRow(row.id, row.schedule_start))
                self._settling.on_undeliverable(delivery, FILTER_TOO_LARGE)
        return False
