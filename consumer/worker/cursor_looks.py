"""Looks at cursors and their subscriptions in the database: which ones may move, and what others have changed.

A look answers for many due keys at once, and while it is under way, cursors move on.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from math import inf
from typing import NamedTuple

from sqlalchemy import Engine

from consumer.database.job import Batch, ThreadJob
from consumer.delivery.backlog import Backlog
from consumer.delivery.cursors import Cursor
from consumer.errors import DatabaseTooSlow
from consumer.events.event import TopicPartition
from consumer.ledger import cursors, replays
from consumer.ledger.cursors import KeptCursor
from consumer.ledger.replays import Request
from consumer.ledger.rows import DueKey
from consumer.matching.subscribers import Subscriber
from consumer.worker.reading_pass import Looked
from consumer.worker.replaying import Replays

EVERY = 5.0  # seconds between two looks at due keys that may not move
MET_EVERY = 0.5  # seconds until the live stream's news of pauses and resumptions lead to a look
COUNT_EVERY = 30.0  # seconds between two counts of the rows beside cursors
MOST = 256  # due keys of one look
PROBED = 60.0  # seconds for which a paused subscription waits for the event that probes it
ASK_AFTER = 1.0  # seconds after which a subscription that gets events is looked up again
FRESH = 5.0  # seconds for which it may be used for a new pass

Find = Callable[[Sequence[int]], Mapping[int, Subscriber]]


class LookUp(NamedTuple):
    """The cursors and subscriptions of due keys, and the stored deliveries of the ones for which these were not known.

    `requests`: those of the cursors' replays that have not ended. `rows`: how many open rows due keys have.
    """

    kept: Mapping[DueKey, list[KeptCursor]]
    subscribers: Mapping[int, Subscriber]
    stored: Mapping[DueKey, set[tuple[int, int, int]]]
    requests: Mapping[int, Request]
    rows: Mapping[DueKey, int]


def look_up(
    engine: Engine,
    group: str,
    find: Find,
    due_keys: Sequence[DueKey],
    new: Collection[DueKey],
    assigned: TopicPartition | None,
) -> LookUp:
    """Read what is known of due keys, in a few statements; `new` ones with their stored deliveries.

    And the number of open rows of each due key of a partition that was just assigned.
    """
    rows = {} if assigned is None else cursors.open_rows(engine, group, assigned)
    if not due_keys:
        return LookUp({}, {}, {}, {}, rows)
    kept: dict[DueKey, list[KeptCursor]] = {}
    for cursor in cursors.of_due_keys(engine, group, due_keys):
        kept.setdefault(cursor.due_key, []).append(cursor)
    subscribers = find(sorted({due_key[2] for due_key in due_keys}))
    requests = replays.requests(engine, {each.replay for several in kept.values() for each in several if each.replay})
    return LookUp(kept, subscribers, cursors.stored(engine, group, new), requests, rows)


class CursorLooks:
    """The due keys with cursors, of assigned partitions: the ones that may move, and the idle ones."""

    def __init__(
        self,
        backlog: Backlog,
        look: Callable[[Sequence[DueKey], Collection[DueKey], TopicPartition | None], LookUp],
        job: ThreadJob[LookUp],
        replaying: Replays,
        live_at: Callable[[TopicPartition], int | None],
        on_disabled: Callable[[DueKey], None],
        on_change: Callable[[DueKey], None],
    ) -> None:
        """`on_disabled`: a due key's subscription wants no events. `on_change`: its cursors may be others now.

        `live_at` as for the Meeting.
        """
        self._live_at = live_at
        self._backlog = backlog
        self._look, self._job = look, job
        self._most = Batch(MOST)
        self._replays = replaying
        self._on_disabled, self._on_change = on_disabled, on_change
        self._urgent: dict[DueKey, None] = {}  # to be looked at soon
        self._idle: dict[DueKey, None] = {}  # to be looked at in turn
        self._moving = OrderedDict[TopicPartition, OrderedDict[DueKey, tuple[Looked, float]]]()
        self._unwanted: dict[DueKey, None] = {}  # of disabled subscriptions
        self._probes: dict[DueKey, float] = {}  # until when they may move, though paused, for one event
        self._looked = self._met = self._now = self._counted = -inf
        self._uncounted: dict[TopicPartition, None] = {}  # their rows from before the assignment are not counted
        self._assignments = 0
        self._assigned_at: dict[TopicPartition, int] = {}

    @property
    def fault(self) -> str | None:
        """Why nothing can be looked up."""
        return self._job.fault

    def assigned(self, partition: TopicPartition) -> None:
        """A partition has come, and the backlog has its cursors."""
        self._assignments += 1
        self._assigned_at[partition] = self._assignments
        self._uncounted[partition] = None

    def forget(self, partitions: Collection[TopicPartition]) -> None:
        """Partitions have left."""
        for partition in partitions:
            self._assigned_at.pop(partition, None)
            self._uncounted.pop(partition, None)
            self._moving.pop(partition, None)
        for several in (self._urgent, self._idle, self._unwanted, self._probes):
            for due_key in [each for each in several if each[:2] in partitions]:
                del several[due_key]

    def look_at(self, due_keys: Iterable[DueKey]) -> None:
        """Somebody has begun, paused, resumed or moved something there."""
        self._urgent |= dict.fromkeys(due_keys)

    def probe(self, due_key: DueKey, now: float) -> None:
        """The cursors of a paused subscription may move until it is `probed`."""
        self._probes[due_key] = now + PROBED
        self._urgent[due_key] = None

    def probed(self, due_key: DueKey) -> None:
        """A paused subscription gets an event: no more than this one."""
        self._probes.pop(due_key, None)
        self._stop(due_key)
        self._idle[due_key] = None
        self._on_change(due_key)

    def poll(self, now: float) -> None:
        """Begin a look, unless one is under way."""
        self._now = now
        begun, self._backlog.news = self._backlog.news, {}
        self._urgent |= begun
        if now - self._met >= MET_EVERY:
            self._met = now
            met, self._backlog.met = self._backlog.met, {}
            self.look_at(key for key, paused in met.items() if (self.may_move(key) if paused else key in self._idle))
        if not self._job.ready:
            return
        wanted = list(islice(self._urgent, self._most.size))
        if now - self._looked >= EVERY:
            self._looked = now
            wanted += islice(self._idle, self._most.size)
        new, early = self._backlog.unread(wanted)
        wanted = [due_key for due_key in wanted if due_key not in early]  # a look could miss what is being stored
        for due_key in wanted:
            self._urgent.pop(due_key, None)
        if now - self._counted >= COUNT_EVERY:
            self._counted = now
            self._uncounted |= dict.fromkeys(self._moving)
        counted = next(iter(self._uncounted), None)
        if wanted or counted is not None:
            new = [due_key for due_key in new if due_key not in early]
            self._backlog.looking()
            judged_to = {place: self._live_at(place) or 0 for place in {due_key[:2] for due_key in wanted}}
            found = partial(self._found, wanted, judged_to, counted, self._assignments)
            self._job.start(partial(self._look, wanted, new, counted), found, partial(self._failed, wanted))

    def partitions(self) -> list[TopicPartition]:
        """The partitions with cursors that may move, the one that has waited longest for its turn first."""
        return list(self._moving)

    def moving(self, partition: TopicPartition) -> int:
        """How many due keys of a partition may move."""
        return len(self._moving.get(partition, ()))

    def first(self, partition: TopicPartition) -> list[DueKey]:
        """The due keys of a partition that may move and have their turn."""
        return list(islice(self._moving.get(partition, ()), MOST))

    def candidates(self, due_keys: Iterable[DueKey]) -> Iterator[Cursor]:
        """Cursors of due keys that may move; of several of a due key, the first one that owes, and replays."""
        for due_key in due_keys:
            for cursor in filter(self._replays.runs, self._backlog.owing(due_key)):
                if not (cursor.replay and due_key in self._probes):  # a paused subscription's replays wait
                    yield cursor

    def subscriber(self, due_key: DueKey, now: float) -> Looked | None:
        """The subscription of a due key that may move. None: it was looked up long ago."""
        looked, at = self._moving[due_key[:2]][due_key]
        if now >= at + ASK_AFTER:
            self._urgent[due_key] = None
        return looked if now < at + FRESH else None

    def looked(self, due_key: DueKey) -> Looked | None:
        """The subscription of a due key as it was looked up last. None: it may not move."""
        return self._moving[due_key[:2]][due_key][0] if self.may_move(due_key) else None

    def probes(self, due_key: DueKey) -> bool:
        """Its cursors may move though its subscription is paused, until it is `probed`."""
        return due_key in self._probes

    @property
    def move(self) -> bool:
        """Some cursors may move. Safe to call from another thread."""
        return bool(self._moving)

    def is_wanted(self, due_key: DueKey) -> bool:
        """The subscription is not known as disabled. Safe to call from another thread."""
        return due_key not in self._unwanted

    def may_move(self, due_key: DueKey) -> bool:
        """The subscription may get events."""
        return due_key in self._moving.get(due_key[:2], ())

    def settled(self, due_key: DueKey) -> None:
        """A cursor of the due key has finished: if none is left, there is nothing to look at."""
        if all(cursor.finished for cursor in self._backlog.here(due_key)):
            self._idle.pop(due_key, None)
            self._unwanted.pop(due_key, None)
            self._stop(due_key)

    def dropped(self, cursor: Cursor) -> None:
        """A finished cursor was forgotten."""
        if cursor.replay and not self._backlog.of_replays[cursor.replay]:
            del self._backlog.of_replays[cursor.replay]
            self._replays.forget(cursor.replay)

    def served(self, partition: TopicPartition, due_keys: Iterable[DueKey]) -> None:
        """These due keys have had their turn, and so has the partition."""
        moving = self._moving.get(partition)
        if moving is None:
            return
        self._moving.move_to_end(partition)
        for due_key in due_keys:
            if due_key in moving:
                moving.move_to_end(due_key)

    def _failed(self, due_keys: Sequence[DueKey], error: Exception) -> None:
        self.look_at(due_keys)
        if isinstance(error, DatabaseTooSlow):
            self._most.was_too_large(len(due_keys))

    def _found(
        self,
        due_keys: Sequence[DueKey],
        judged_to: Mapping[TopicPartition, int],
        counted: TopicPartition | None,
        assignments: int,
        answer: LookUp,
    ) -> None:
        """The answer about these due keys; `assignments`: how many there had been when it was asked for.

        `judged_to`: what the live stream had judged then, by partition.
        """
        self._most.succeeded(len(due_keys))
        if counted is not None and self._assigned_at.get(counted, inf) <= assignments:
            self._uncounted.pop(counted, None)
            self._backlog.counted(counted, answer.rows)
        for due_key in due_keys:
            self._idle.pop(due_key, None)
            assigned_at = self._assigned_at.get(due_key[:2])
            if assigned_at is None:
                continue
            if assigned_at > assignments:  # read for an earlier assignment
                self._urgent[due_key] = None
                continue
            if due_key[2] not in answer.subscribers:  # it was removed, and its cursors with it
                self._backlog.drop_all(due_key)
            self._backlog.merge(due_key, answer.kept.get(due_key, ()))
            known = {(each.replay, each.first) for each in answer.kept.get(due_key, ())}
            for cursor in self._backlog.here(due_key):
                if not cursor.knows_rows and due_key in answer.stored and (cursor.replay, cursor.first) in known:
                    rows = answer.stored[due_key]
                    cursor.has_rows({(offset, at) for replay, offset, at in rows if replay == cursor.replay})
            of_replays = self._backlog.of_replays
            mine = {each.replay: of_replays[each.replay] for each in self._backlog.here(due_key) if each.replay}
            self._replays.learn(mine, answer.requests, self._now)
            self._sort(due_key, answer.subscribers.get(due_key[2]), judged_to[due_key[:2]], self._now)
            self._on_change(due_key)

    def _sort(self, due_key: DueKey, subscriber: Subscriber | None, judged_to: int, now: float) -> None:
        """The due key's cursors may move, or are idle, or owe nothing."""
        endpoint = None if subscriber is None else subscriber.endpoint
        is_probed = now < self._probes.get(due_key, -inf)
        may_move = (
            endpoint is not None
            and (not endpoint.paused or is_probed)
            and endpoint.fault is None
            and any(map(self._replays.runs, self._backlog.owing(due_key)))
        )
        if not is_probed:
            self._probes.pop(due_key, None)
        if subscriber is not None and may_move:
            self._moving.setdefault(due_key[:2], OrderedDict())[due_key] = Looked(subscriber, judged_to), now
        else:
            self._stop(due_key)
            self._idle[due_key] = None
        self.settled(due_key)
        self._unwanted.pop(due_key, None)
        if subscriber is not None and not subscriber.enabled:
            self._unwanted[due_key] = None
            self._on_disabled(due_key)

    def _stop(self, due_key: DueKey) -> None:
        if (moving := self._moving.get(due_key[:2])) is not None:
            moving.pop(due_key, None)
            if not moving:
                del self._moving[due_key[:2]]
