"""What the live stream leaves to cursors: events of paused subscriptions, and of receivers that are far behind.

Rows are for retries, positions for backlogs. A receiver that is down gets at most `most_rows` stored deliveries in a
partition; the events after these are covered by a cursor, which costs one row however many they are.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise

from consumer.delivery.cursors import Cursor, Left
from consumer.delivery.delivery import Lane, OpenRecord
from consumer.delivery.known_rows import OpenRows, ordering_key_of
from consumer.delivery.parking import Parking
from consumer.delivery.settling import Settling
from consumer.events.event import Event, TopicPartition
from consumer.intake.offsets import OffsetTracker, encode
from consumer.ledger.cursors import KeptCursor, NewCursor
from consumer.ledger.rows import DueKey, OrderingKey, due_key_of
from consumer.subscriptions.endpoint import Endpoint
from models import CursorReason
from models.cursor import RUNS_LENGTH

FEW = 10  # a tenth of the rows that it may have: deliveries on their way, of a subscription that has them all
Covered = dict[int, list[Cursor]]  # the cursors of a partition, by subscription, the lowest first


class Backlog:
    """The cursors of assigned partitions."""

    def __init__(
        self,
        parking: Parking,
        settling: Settling,
        most_rows: int,
        tracker_of: Callable[[TopicPartition], OffsetTracker | None],
        retentions: Mapping[str, float],
    ) -> None:
        """A subscription may have `most_rows` in a partition. `tracker_of`: an assigned partition's, if there is one.

        `retentions`: for how many seconds topics keep a record, as far as known by now.
        """
        self._retentions = retentions
        self._settling = settling
        self._parking = parking
        self._rows: OpenRows = parking.open_rows
        self._most_rows = most_rows
        self._tracker_of = tracker_of
        self._cursors: dict[TopicPartition, Covered] = {}
        self._looked: dict[TopicPartition, set[int]] = {}  # subscriptions whose cursors were read in this assignment
        self._dropped: set[int] = set()  # ids of cursors that were forgotten since the last look began
        self.news: dict[DueKey, None] = {}  # due keys with cursors that were begun, or loaded, since this was emptied
        self.saves = 0  # how many positions have been stored
        self.of_replays = Counter[int]()  # how many cursors of each replay are here
        self.met: dict[DueKey, bool] = {}  # due keys that live events were left to, and whether they are paused

    @property
    def is_refused(self) -> bool:
        """The database answers, and refuses some writes alone."""
        return self._parking.set_aside > 0 and self._parking.storing.fault is None

    def of(self, partition: TopicPartition) -> Covered:
        """The cursors of a partition; later ones appear in it."""
        return self._cursors.setdefault(partition, {})

    def owing(self, due_key: DueKey) -> list[Cursor]:
        """The cursors that may move: the first one that owes events, and those of replays."""
        owing = [each for each in self.here(due_key) if each.stored and not each.finished]
        return [cursor for number, cursor in enumerate(owing) if not number or cursor.replay]

    def here(self, due_key: DueKey) -> Sequence[Cursor]:
        """The cursors of a due key, the lowest first."""
        return self.of(due_key[:2]).get(due_key[2], ())

    def may_store(self, due_key: DueKey, queued: int = 0) -> bool:
        """Whether the subscription may have more stored deliveries in the partition, besides `queued` ones."""
        return self._rows[due_key] + queued < self._most_rows and not self._parking.full

    def may_send(self, due_key: DueKey, queued: int) -> bool:
        """Whether the subscription may have one more delivery on its way, besides `queued` ones.

        If its receiver fails, all of them are stored. One with enough rows gets a part of that number at a time: it
        takes most events perhaps, and must not stay behind for the ones that it refuses.
        """
        few = 0 if self._parking.full else self._most_rows // FEW
        return not queued or queued < few or self.may_store(due_key, queued)

    def unread(self, due_keys: Iterable[DueKey]) -> tuple[list[DueKey], set[DueKey]]:
        """Due keys with a cursor whose stored deliveries are not known; and those of them that are being stored."""
        unread = [key for key in due_keys if not all(cursor.knows_rows for cursor in self.here(key))]
        return unread, self._parking.being_stored().intersection(unread) if unread else set()

    def counted(self, partition: TopicPartition, rows: Mapping[DueKey, int]) -> None:
        """The due keys of a partition have so many open rows, with those from before the assignment."""
        self._rows.forget((partition,))
        self._rows.update(rows)

    def looking(self) -> None:
        """The cursors are about to be read from the database, to be merged."""
        self._dropped.clear()

    def _identity_of(self, partition: TopicPartition) -> str | None:
        tracker = self._tracker_of(partition)
        return None if tracker is None else tracker.identity

    def merge(self, due_key: DueKey, kept: Iterable[KeptCursor]) -> None:
        """Take the cursors of a due key as the database has them.

        They get their ids; cursors that others have begun or moved appear, and those that are gone disappear. One that
        was dropped since the database was read does not come back: it would send its events again.
        """
        here = {(cursor.replay, cursor.first): cursor for cursor in self.here(due_key)}
        left: list[Left] = []
        for each in kept:
            known = here.pop((each.replay, each.first), None)
            if known is None:
                if each.id not in self._dropped:
                    self._add(Cursor(each, self._parking.waits))
            elif known.astray:
                left += self.drop(known)
                self._add(Cursor(each, self._parking.waits))
            elif known.id is None and known.stored:
                known.is_row(each)
        for cursor in here.values():
            if cursor.id is not None or cursor.astray:  # else it is about to be stored
                left += self.drop(cursor)
        self._looked.setdefault(due_key[:2], set()).add(due_key[2])
        for cursor in self._part(due_key):
            self.save(cursor)
        self._leave_anew(left)

    def _leave_anew(self, left: Iterable[Left]) -> None:
        for event, endpoint, record in left:
            if not self.leaves(event, endpoint, record):  # no cursor covers it any more
                asked = endpoint.selection is None  # deliveries are left before their filter is asked
                self._settling.postpone(event, endpoint, record, ordering_key_of(event, endpoint), asked=asked)

    def __iter__(self) -> Iterator[Cursor]:
        return (cursor for covered in self._cursors.values() for several in covered.values() for cursor in several)

    def topics(self) -> set[str]:
        """The topics with cursors. Safe to call from another thread."""
        return {topic for (topic, _), covered in list(self._cursors.items()) if covered}

    def waiting(self) -> dict[DueKey, float]:
        """The unix time of the first event that each due key is owed, if known. Safe to call from another thread."""
        oldest: dict[DueKey, float] = {}
        for partition, covered in list(self._cursors.items()):
            for subscription, several in list(covered.items()):
                for cursor in list(several):
                    at, due_key = cursor.timestamp, (*partition, subscription)
                    if at is not None and at >= 0 and not cursor.finished and not cursor.replay:
                        oldest[due_key] = min(at / 1000, oldest.get(due_key, at / 1000))
        return oldest

    def load(self, partition: TopicPartition, kept: Iterable[KeptCursor], cut: int | None = None) -> list[KeptCursor]:
        """Take a partition's cursors from the database, before the first record of the partition is matched.

        The log has other records than before from the offset `cut` on, if it is given. Returns the cursors of an
        earlier topic of this name, whose records are gone: these owe nothing any more.
        """
        self.forget((partition,))
        looked = self._looked[partition] = set()
        identity, lost = self._identity_of(partition), []
        for each in kept:
            if identity is not None and each.identity not in {None, identity}:
                lost.append(each)
            else:
                self._add(Cursor(rewound(each, cut), self._parking.waits))
                looked.add(each.due_key[2])
        for subscription in looked:
            self._part((*partition, subscription))
        return lost

    def _part(self, due_key: DueKey) -> list[Cursor]:
        """Where two cursors cover an offset, let the first one end where the other begins. Returns those that do now.

        A subscription that begins in the past may get live events before its cursor from there is known here.
        """
        covering = [each for each in self.here(due_key) if not each.replay]
        ending = []
        for cursor, behind in pairwise(covering):
            if cursor.end is None or cursor.end > behind.first:
                cursor.meet(max(cursor.read_to, behind.first))
                ending.append(cursor)
        return ending

    def leaves(self, event: Event, endpoint: Endpoint, record: OpenRecord) -> bool:
        """Leave a delivery of the live stream to the cursor that covers it, and begin one if the receiver is paused.

        False: none covers it, and the live stream makes the delivery.
        """
        covering = (cursor for cursor in self._of(event, endpoint) if cursor.covers(event.record.offset))
        if (cursor := next(covering, None)) is None:
            if not self._may_begin(event, endpoint):
                return False
            if endpoint.paused:
                cursor = self._begin(event, endpoint, CursorReason.PAUSED)
            elif endpoint.starts and endpoint.subscription_id not in self._looked.get(event.record.topic_partition, ()):
                cursor = self._begin(event, endpoint, CursorReason.START)  # until its cursor from the past is known
            elif endpoint.ordered and self.is_behind(due_key_of(event, endpoint.subscription_id), event.record.offset):
                cursor = self._begin(event, endpoint, CursorReason.BEHIND)
            else:
                return False
        elif self._is_stuck(cursor):
            cursor.is_row_at(event.record.offset, event.record.timestamp)
            return False
        self.met[cursor.due_key] = endpoint.paused
        cursor.leave(Left(event, endpoint, record))
        if not cursor.confirmed:
            self.save(cursor)
        return True

    def takes(self, event: Event, endpoint: Endpoint, record: OpenRecord, lane: Lane | None) -> bool:
        """Whether a cursor takes a delivery that would be stored untried, since the receiver has enough rows."""
        held = 0 if lane is None else lane.held
        down = lane is not None and lane.breaker.is_long_open
        if not down and self._rows[due_key_of(event, endpoint.subscription_id)] + held < self._most_rows:
            return False
        if not self._may_begin(event, endpoint) or any(map(self._is_stuck, self._of(event, endpoint))):
            return False
        self._begin(event, endpoint, CursorReason.BEHIND).leave(Left(event, endpoint, record))
        return True

    def is_met(self, event: Event, endpoint: Endpoint) -> bool:
        """A cursor has met the live stream and its end is not stored, or it is stuck: store deliveries behind it."""
        return any(cursor.ending or self._is_stuck(cursor) for cursor in self._of(event, endpoint))

    def _is_stuck(self, cursor: Cursor) -> bool:
        """Many deliveries wait for a cursor whose write the database refuses alone: they must not fill the process."""
        many = len(cursor.waiting) >= max(1, self._most_rows // FEW)
        return many and not cursor.confirmed and self._parking.refuses(cursor.due_key)

    def save(self, cursor: Cursor) -> None:
        """Store a cursor's position, unless it has not moved, or its partition has left."""
        if cursor.gone:
            return
        place = cursor.due_key[:2]
        assignment = self._parking.assignments.get(place, 1)
        move = cursor.begin_save(self._retentions.get(place[0]), self._identity_of(place), assignment)
        if move is not None:
            self._parking.move(
                move, cursor.due_key, partial(self._was_saved, cursor), partial(self._went_astray, cursor)
            )

    def _was_saved(self, cursor: Cursor) -> None:
        self.saves += 1
        cursor.end_save()

    def _went_astray(self, cursor: Cursor) -> None:
        """Another owner has moved the cursor, or it is gone: read its row again."""
        cursor.astray = True
        self.news[cursor.due_key] = None

    def rewind(self, cursor: Cursor) -> None:
        """The log has other records than before: the cursor owes what it covers from its beginning on."""
        left = self.drop(cursor)
        self._add(Cursor(rewound(cursor.kept(), cursor.first), self._parking.waits))
        self._leave_anew(left)

    def drop(self, cursor: Cursor) -> list[Left]:
        """Forget a cursor whose row is gone. Returns the deliveries that were left to it and are not settled."""
        cursor.gone = True
        if cursor.id is not None:
            self._dropped.add(cursor.id)
        covered = self.of(cursor.due_key[:2])
        several = covered.get(cursor.due_key[2], [])
        left = [each for each in several if each is not cursor]
        if len(left) < len(several):
            self._count(cursor, -1)
        if left:
            covered[cursor.due_key[2]] = left
        else:
            covered.pop(cursor.due_key[2], None)
        return cursor.withdraw()

    def drop_all(self, due_key: DueKey) -> None:
        """Forget the cursors of a subscription that was removed: nobody gets what was left to them."""
        for cursor in list(self.here(due_key)):
            cursor.confirm()
            self.drop(cursor)

    def forget(self, partitions: Collection[TopicPartition]) -> None:
        """Forget partitions that have left."""
        for partition in partitions:
            for several in self._cursors.pop(partition, {}).values():
                for cursor in several:
                    cursor.gone = True  # a request that is open may end later
                    self._count(cursor, -1)
                    cursor.withdraw()
            self._looked.pop(partition, None)

    def is_behind(self, due_key: DueKey, offset: int, replay: int = 0, ordering_key: OrderingKey | None = None) -> bool:
        """A cursor (of this replay, or of none) has events before this offset that are neither sent nor stored.

        If the subscription is ordered, these go first: those of this `ordering_key`, as far as keys are known.
        """
        here = (cursor for cursor in self.here(due_key) if cursor.replay == replay)
        return any(cursor.goes_before(offset, ordering_key) for cursor in here)

    def _of(self, event: Event, endpoint: Endpoint) -> Sequence[Cursor]:
        return self.of(event.record.topic_partition).get(endpoint.subscription_id, ())

    def _may_begin(self, event: Event, endpoint: Endpoint) -> bool:
        """Not where a cursor began and has met the live stream at once: until its end is stored, both are one row."""
        offset = event.record.offset
        return not any(cursor.ending and cursor.first == offset for cursor in self._of(event, endpoint))

    def _begin(self, event: Event, endpoint: Endpoint, reason: CursorReason) -> Cursor:
        due_key, offset = due_key_of(event, endpoint.subscription_id), event.record.offset
        # After a crash, records before another cursor's may come again.
        later = (each.first for each in self.here(due_key) if not each.replay)
        end = min((first for first in later if first > offset), default=None)
        tracker = self._tracker_of(due_key[:2])
        settled = () if tracker is None else tracker.settled_after(offset, end)
        new = NewCursor(
            due_key,
            offset,
            reason,
            end,
            timestamp=event.record.timestamp,
            identity=self._identity_of(due_key[:2]),
            runs=encode(offset, settled, None, RUNS_LENGTH),
        )
        cursor = Cursor.new(new, self._parking.waits)
        self._add(cursor)
        self._parking.begin(new, partial(self._begun, cursor), partial(self._went_astray, cursor))
        return cursor

    def _begun(self, cursor: Cursor) -> None:
        """A new cursor is stored: its deliveries are settled, and its row can be looked up."""
        cursor.confirm()
        self.news[cursor.due_key] = None

    def _count(self, cursor: Cursor, change: int) -> None:
        if cursor.replay:
            self.of_replays[cursor.replay] += change

    def _add(self, cursor: Cursor) -> None:
        several = self.of(cursor.due_key[:2]).setdefault(cursor.due_key[2], [])
        if cursor.stored:
            self.news[cursor.due_key] = None
        self._count(cursor, 1)
        several.append(cursor)
        several.sort(key=lambda each: (each.replay, each.first))


def rewound(kept: KeptCursor, cut: int | None) -> KeptCursor:
    """A cursor of a log that has other records than before from the offset `cut` on; None: the same ones.

    Its settled runs may name records that are gone.
    """
    return kept if cut is None else kept._replace(next=min(kept.next, max(cut, kept.first)), runs="")
