"""Brings subscriptions that are behind up to the live stream: reads the log for their cursors, and feeds their lanes.

A *pass* reads a partition for the cursors whose positions are near each other; each of them takes the records from its
own position on. A cursor whose lane has no room leaves the pass, and another pass goes on from there. Passes of a
partition take turns, so that a far cursor does not keep a near one waiting.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from math import inf

import structlog

from consumer.database.job import ThreadJob
from consumer.delivery.backlog import Backlog
from consumer.delivery.cursors import Cursor
from consumer.delivery.limits import Memory
from consumer.errors import RegistryUnavailable, Tombstone, Undecodable
from consumer.events.event import Event, TopicPartition
from consumer.intake.cursor_reader import CursorReader
from consumer.intake.decode import Mapped, decode
from consumer.intake.record import AssignedPartition, Record
from consumer.ledger.cursors import KeptCursor
from consumer.ledger.rows import DueKey
from consumer.loop.part import Part
from consumer.matching.selection import Selector
from consumer.matching.subscribers import Subscriber
from consumer.schemas.translation import Translation
from consumer.worker.cursor_looks import CursorLooks, LookUp
from consumer.worker.feeder import Feeder
from consumer.worker.losses import Losses
from consumer.worker.reading_pass import NEAR, Pass
from consumer.worker.replaying import Replays

log = structlog.get_logger(__name__)

SAVE_EVERY = 1.0  # seconds between two saves of positions
SAVE_AFTER = 100  # events of all cursors that have settled since
PASSES = 8  # partitions that are read at once
AT_ONCE = 256  # rows of cursors that do not move, of one save: others wait behind them
RECORDS = 100  # of one turn, so that catching up does not slow the live stream
SECONDS = 0.005  # that filters may take in a turn
AGAIN = 0.1  # seconds until a cursor whose lane had no room is tried again
PAUSE = 0.25  # seconds until a partition of which no cursor may read is looked at again


class CatchUp(Part):
    """Runs the cursors of this worker's partitions. Its `looks` say which of them may move."""

    def __init__(
        self,
        backlog: Backlog,
        feeder: Feeder,
        replaying: Replays,
        look: Callable[..., LookUp],
        job: ThreadJob[LookUp],
        open_reader: Callable[[], CursorReader],
        read_event: Callable[[Record], Event | None],
        selector: Selector,
        memory: Memory,
        owns: Callable[[TopicPartition], bool],
        given_out: Callable[[TopicPartition], Callable[[int], bool]],
        live_at: Callable[[TopicPartition], int | None],
        settled_to: Callable[[TopicPartition], int | None],
        retentions: Mapping[str, float],
        losses: Losses,
        remove: Callable[[int], None],
        finish_replays: Callable[[Collection[int]], None],
        subscription_cache: float,
    ) -> None:
        """`look` and `job` as for CursorLooks, `read_event` as `event_of`.

        `live_at`: the first offset of a partition that the live stream has not yet fanned out; `settled_to`: the first
        one that it has not settled; `given_out`: a predicate on offsets, whether it has fanned out everything up to
        there. `retentions` as for the backlog. `remove` deletes the row of a cursor, and
        `finish_replays` notes that these replays have perhaps ended. `subscription_cache`: seconds
        until the live stream knows a new subscription.
        """
        self._retentions, self._noted = retentions, dict[str, float]()
        self._unnoted: list[Cursor] = []  # cursors whose rows do not say yet when their next record expires
        self._losses = losses
        self._remove = remove
        self._finish_replays = finish_replays
        self._backlog = backlog
        self._feeder = feeder
        self._replays = replaying
        self.looks = CursorLooks(backlog, look, job, replaying, self._end_at_live, self._changed)
        self._open_reader = open_reader
        self._reader: CursorReader | None = None
        self._read_event = read_event
        self._selector = selector
        self._memory = memory
        self._owns = owns
        self._given_out = given_out
        self._live_at = live_at
        self._settled_to = settled_to
        self._passes: dict[TopicPartition, Pass] = {}
        self._not_before: dict[Cursor | TopicPartition, float] = {}
        self._subscription_cache = subscription_cache
        self._meets_from: dict[Cursor, float] = {}
        self._moved: dict[Cursor, None] = {}  # cursors whose position is not saved, perhaps
        self._over: dict[Cursor, None] = {}  # finished ones, whose offsets a restart might still read
        self._tidied = -inf
        self._more = False

    @property
    def ready(self) -> bool:
        """More records have come than were read."""
        return self._more

    @property
    def busy(self) -> bool:
        """A partition is read."""
        return bool(self._passes)

    @property
    def fault(self) -> str | None:
        """Why cursors make no progress."""
        reader = self._reader
        return self.looks.fault or (reader.fault if reader is not None and self._passes else None)

    def assigned(self, partition: AssignedPartition, kept: Iterable[KeptCursor]) -> None:
        """Take a partition's cursors, before its first record is matched."""
        for lost in self._backlog.load(partition.topic_partition, kept, partition.first):
            stop = lost.next + 1 if lost.end is None else lost.end
            self._losses.report(lost.due_key, lost.next, stop, "the topic was deleted and made anew")
            self._remove(lost.id)
        self.looks.assigned(partition.topic_partition)

    def stop(self, partitions: Collection[TopicPartition]) -> None:
        """Read these partitions no more."""
        for partition in partitions:
            self._passes.pop(partition, None)
        if self._reader is not None:
            self._reader.drop(partitions)

    def probe(self, due_key: DueKey, now: float) -> None:
        """Let the first event out that the due key's cursors owe to a paused subscription."""
        self.looks.probe(due_key, now)

    def save(self, partitions: Collection[TopicPartition]) -> None:
        """Store the positions of partitions that are given up."""
        for cursor in [*self._feeder.exposed, *self._moved]:
            if cursor.due_key[:2] in partitions:
                self._backlog.save(cursor)

    def forget(self, partitions: Collection[TopicPartition]) -> None:
        """Forget partitions that have left."""
        self.stop(partitions)
        self._backlog.forget(partitions)
        self.looks.forget(partitions)
        self._unnoted = [each for each in self._unnoted if each.due_key[:2] not in partitions]
        for several in (self._feeder.exposed, self._moved, self._over, self._meets_from):
            for cursor in [each for each in several if each.due_key[:2] in partitions]:
                del several[cursor]

    def poll(self, now: float) -> None:
        """Look up subscriptions and cursors, offer events to lanes, read on, meet the live stream, and save."""
        self.looks.poll(now)
        self._feeder.count()
        self._selector.begin(SECONDS)
        for partition, each in list(self._passes.items()):
            self._offer(partition, each, now)
        self._begin_passes(now)
        self._read(now)
        self._save(now)

    def close(self) -> None:
        """Close the reader."""
        if self._reader is not None:
            self._reader.close()

    # Passes.

    def _begin_passes(self, now: float) -> None:
        if not self._memory.room:
            return
        for partition in self.looks.partitions():
            if len(self._passes) >= PASSES:
                return
            if partition not in self._passes and now >= self._not_before.get(partition, -inf):
                self._begin_pass(partition, now)

    def _begin_pass(self, partition: TopicPartition, now: float) -> None:
        """Begin a pass with the first cursor that has its turn, and those near to it."""
        able: dict[Cursor, Subscriber] = {}
        unable: list[DueKey] = []
        for cursor in self.looks.candidates(partition):
            if not self._may_read(cursor, now):
                unable.append(cursor.due_key)
            elif (subscriber := self.looks.subscriber(cursor.due_key, now)) is not None:
                able[cursor] = subscriber
        if not able:
            self._not_before[partition] = now + PAUSE
            self.looks.served(partition, unable)
            return
        begin = next(iter(able)).read_to
        members = {each: subscriber for each, subscriber in able.items() if begin <= each.read_to < begin + NEAR}
        self.looks.served(partition, [*unable, *(each.due_key for each in members)])
        if self._reader is None:
            self._reader = self._open_reader()
        self._reader.seek(partition, begin)
        self._passes[partition] = Pass(members, begin, now)

    def _may_read(self, cursor: Cursor, now: float) -> bool:
        """Whether the cursor's subscription may get an event now, and the live stream is past its beginning."""
        partition = cursor.due_key[:2]
        return (
            cursor.id is not None
            and cursor.knows_rows
            and not cursor.astray
            and not cursor.read_all
            and now >= self._not_before.get(cursor, -inf)
            and self._owns(partition)
            and self._feeder.has_room(cursor.due_key[2], now)
            and self._given_out(partition)(cursor.first - 1)
        )

    def _read(self, now: float) -> None:
        reader, self._more = self._reader, False
        if reader is None:
            return
        reader.drop([partition for partition in reader.positions if partition not in self._passes])
        if not self._passes or not self._memory.room:
            return
        if sum(len(each.pending) for each in self._passes.values()) >= RECORDS:
            return
        records = reader.read(RECORDS)
        self._more = len(records) == RECORDS
        for record in records:
            if (each := self._passes.get(record.partition.topic_partition)) is not None:
                each.add(record, now)
        for removed in reader.removed:
            if (each := self._passes.get(removed.partition)) is not None:
                for cursor in each.members:
                    stop = removed.stop if cursor.end is None else min(removed.stop, cursor.end)
                    self._losses.report(cursor.due_key, cursor.read_to, stop, "retention removed their records")
        reader.removed.clear()
        for partition in reader.restarted:  # the live stream finds the cut, and the partition is assigned again
            self._passes.pop(partition, None)
            self._not_before[partition] = now + SAVE_EVERY
        reader.restarted.clear()

    def _offer(self, partition: TopicPartition, each: Pass, now: float) -> None:
        """Offer the events that were read. If one has to wait for its schema, the pass ends."""
        reader = self._reader
        if each.pending or (reader is not None and reader.positions.get(partition, 0) > each.position):
            self._moved |= dict.fromkeys(each.members)
        while each.pending and each.members and not self._selector.is_spent():
            try:
                event = self._read_event(each.pending[0])
            except RegistryUnavailable:
                self._not_before[partition] = now + AGAIN
                del self._passes[partition]
                return
            waiting = [] if event is None else self._waiting(event, each, now)
            if waiting and each.waits_for(waiting, now):
                break
            self._not_before.update(dict.fromkeys(waiting, now + AGAIN))
            each.took()
        each.advance(each.position if reader is None or each.pending else reader.positions.get(partition, 0))
        self._meet(partition, each, now)
        if each.is_over(now):
            del self._passes[partition]

    def _waiting(self, event: Event, each: Pass, now: float) -> list[Cursor]:
        """Give an event to the members that owe it. Returns the ones that cannot take it now."""
        waiting = []
        for cursor in each.getting(event):
            if cursor not in each.members:  # it has just been probed
                continue
            endpoint = each.members[cursor].endpoint
            if cursor.replay and not self._replays.wants(cursor.replay, event):
                continue
            if cursor.replay and (until := self._replays.rests_until(cursor.replay, now)) > now:
                self._not_before[cursor] = until
                each.leave(cursor)  # the others do not wait for it
                continue
            # A replay follows the live stream.
            is_early = cursor.replay and not self._given_out(cursor.due_key[:2])(event.record.offset)
            if endpoint is None or is_early or not self._feeder.takes(cursor, endpoint, event, now):
                waiting.append(cursor)
            elif endpoint.paused and cursor.open:
                self.looks.probed(cursor.due_key)
        return waiting

    # Meeting the live stream, and saving.

    def _meet(self, partition: TopicPartition, each: Pass, now: float) -> None:
        """End the cursors that have read all that the live stream has fanned out."""
        live = self._live_at(partition)
        for cursor in each.members:
            if cursor.end is None and live is not None and cursor.read_to >= live and self._may_meet(cursor, now):
                cursor.meet(cursor.read_to)
                self._backlog.save(cursor)

    def _may_meet(self, cursor: Cursor, now: float) -> bool:
        """The live stream knows the cursor's subscription, even one that has just begun."""
        return not cursor.is_start or now >= self._meets_from.setdefault(cursor, now + self._subscription_cache)

    def _end_at_live(self, due_key: DueKey) -> None:
        """A disabled subscription wants no events: it is owed those from before, as its stored deliveries are."""
        live = self._live_at(due_key[:2])
        for cursor in self._backlog.here(due_key):
            if cursor.end is None and cursor.id is not None and live is not None:
                cursor.meet(max(cursor.read_to, live))
                self._backlog.save(cursor)

    def _changed(self, due_key: DueKey) -> None:
        """The due key's cursors may be others now, or idle."""
        here = self._backlog.here(due_key)
        if (each := self._passes.get(due_key[:2])) is not None:
            each.keep(due_key, here if self.looks.may_move(due_key) else ())
        self._over.update(dict.fromkeys(cursor for cursor in here if cursor.finished))

    def _save(self, now: float) -> None:
        """Save positions: once a second, and of events that were delivered when they are many."""
        if now - self._tidied >= SAVE_EVERY:
            self._tidied = now
            self._tidy(now)
        elif self._feeder.unsaved >= SAVE_AFTER:
            for cursor in self._feeder.exposed:
                self._backlog.save(cursor)

    def _tidy(self, now: float) -> None:
        """Save all positions, and forget the cursors that have finished."""
        moved, self._moved = self._moved, {}
        for cursor in moved:
            self._backlog.save(cursor)
            if (cursor.moved or cursor.open) and not cursor.astray:  # an astray one is read again as another object
                self._moved[cursor] = None
            elif cursor.finished:
                self._over[cursor] = None
                self.looks.settled(cursor.due_key)
        if over := {cursor.replay for cursor in self._over if cursor.replay}:
            self._finish_replays(over)
        for cursor in list(self._over):
            settled = self._settled_to(cursor.due_key[:2])
            if cursor.replay or (settled is not None and cursor.end is not None and cursor.end <= settled):
                del self._over[cursor]
                self._meets_from.pop(cursor, None)
                self._backlog.drop(cursor)
                self.looks.dropped(cursor)
        self._not_before = {each: at for each, at in self._not_before.items() if now < at}
        if self._noted != self._retentions:  # each cursor's row says when its next record expires
            self._noted = dict(self._retentions)
            self._unnoted = list(self._backlog)
        for cursor in self._unnoted[:AT_ONCE]:
            self._backlog.save(cursor)
        del self._unnoted[:AT_ONCE]


def event_of(record: Record, translation: Translation | None, tenant_name: str, mapped: Mapped | None) -> Event | None:
    """The event of a record, as the live stream decodes it. None: that has skipped it, or made a dead letter of it.

    RegistryUnavailable: its schema is not known yet; the registry is asked.
    """
    if translation is not None and not translation.knows(record):
        raise RegistryUnavailable("the schema is not known yet")
    try:
        return decode(record if translation is None else translation.json_of(record), tenant_name, mapped)
    except (Tombstone, Undecodable):
        return None
    except Exception:
        log.exception("a record cannot be decoded", topic=record.partition.topic_partition, offset=record.offset)
        return None
