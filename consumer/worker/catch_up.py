"""Brings subscriptions that are behind up to the live stream: reads the log for their cursors, and feeds their lanes.

A *pass* reads a partition for several cursors; each of them takes the records from its own position on. A cursor whose
lane has no room for long leaves the pass, and another pass continues from there. Passes of a partition take turns, so
that a far cursor does not keep a near one waiting.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from itertools import chain
from math import inf
from typing import NamedTuple, Protocol

import structlog
from confluent_kafka import KafkaException

from consumer.database.job import ThreadJob
from consumer.delivery.backlog import Backlog
from consumer.delivery.cursors import Cursor
from consumer.delivery.limits import Memory
from consumer.errors import FatalKafkaError, RegistryUnavailable, Undecodable
from consumer.events.event import Event, TopicPartition
from consumer.intake.cursor_reader import CursorReader
from consumer.intake.record import AssignedPartition, Record
from consumer.ledger.cursors import KeptCursor
from consumer.ledger.rows import DueKey
from consumer.loop.part import Part
from consumer.matching.catalog import Catalog
from consumer.matching.selection import Selector
from consumer.subscriptions.endpoint import Endpoint
from consumer.worker.cursor_client import CursorClient
from consumer.worker.cursor_looks import CursorLooks, LookUp
from consumer.worker.feeder import Feeder
from consumer.worker.losses import Losses
from consumer.worker.meeting import Meeting
from consumer.worker.reading_pass import Looked, Pass
from consumer.worker.replaying import Replays
from consumer.worker.saver import Saver

log = structlog.get_logger(__name__)

SAVE_AFTER = 150  # events of all cursors that have settled since their positions were saved
PASSES = 8  # partitions that are read at once
AGAIN = 0.1  # seconds until a cursor whose lane had no room is tried again
IDLE = 5.0  # seconds until the client is polled though nothing is to be read, for its statistics and tokens
LOOK_EVERY = 16  # members between two checks of the clock
REMOVED = "retention removed their records"
PAUSE = 1.0  # seconds until a partition of which no cursor may read is looked at again


class Share(NamedTuple):
    """Of a turn: the records that are read, the seconds for offering events, and the passes that are begun.

    A pass that begins goes through up to 256 due keys.
    """

    records: int
    seconds: float
    passes: int


class Records(Protocol):
    """Makes events of records that were read, and buries the others, as Polling does for both."""

    @property
    def may_bury(self) -> bool: ...
    def event_of(self, record: Record) -> Event | None: ...
    def bury(self, record: Record, error: Undecodable, on_stored: Callable[[], None]) -> None: ...


ALONE = Share(64, 0.004, 4)
BESIDE = Share(8, 0.0005, 1)  # while the live stream queues events, whose latency is that of a turn
RECENT = 1.0  # seconds after the last of these


class CatchUp(Part):
    """Runs the cursors of this worker's partitions. Its `looks` say which of them may move."""

    def __init__(
        self,
        backlog: Backlog,
        feeder: Feeder,
        replaying: Replays,
        look: Callable[..., LookUp],
        job: ThreadJob[LookUp],
        client: CursorClient,
        records: Records,
        selector: Selector,
        memory: Memory,
        catalog: Catalog,
        owns: Callable[[TopicPartition], bool],
        given_out: Callable[[TopicPartition], Callable[[int], bool]],
        live_at: Callable[[TopicPartition], int | None],
        settled_to: Callable[[TopicPartition], int | None],
        live_queued_at: Callable[[], float],
        waits_since: Callable[[], float | None],
        retentions: Mapping[str, float],
        losses: Losses,
        finish_replays: Callable[[Collection[int]], None],
        subscription_cache: float,
    ) -> None:
        """`look` and `job` as for CursorLooks; `records` makes events of them.

        `given_out`: a predicate on offsets, whether the live stream has fanned out all of a partition up to there;
        `live_queued_at`: when it last had an event for a subscription that is not behind (monotonic seconds).
        `catalog`: what the live stream has looked up. `settled_to`, `retentions` and `finish_replays` as for the Saver,
        `live_at`, `waits_since` and `subscription_cache` as for the Meeting.
        """
        self._losses = losses
        self._backlog = backlog
        self._feeder = feeder
        self._replays = replaying
        self.looks = CursorLooks(backlog, look, job, replaying, live_at, self._disabled, self._changed)
        self._client = client
        self._records = records
        self._selector = selector
        self._memory = memory
        self._catalog = catalog
        self._owns = owns
        self._given_out = given_out
        self._live_queued_at = live_queued_at
        self._passes = OrderedDict[TopicPartition, Pass]()
        self._not_before: dict[Cursor | TopicPartition, float] = {}
        self._asked: dict[TopicPartition, tuple[int, float]] = {}  # due keys of which none may read, and until when
        self._asks_on = False  # the next turn asks others
        self._saver = Saver(backlog, settled_to, retentions, finish_replays, self.looks.settled, self._dropped)
        self._meeting = Meeting(backlog, self._saver, live_at, waits_since, subscription_cache)
        self._polled = -inf

    @property
    def ready(self) -> bool:
        """Records can be offered at once, or more cursors be asked whether they may read."""
        return self._asks_on or any(each.has_more for each in self._passes.values())

    @property
    def busy(self) -> bool:
        """A partition is read."""
        return bool(self._passes)

    @property
    def fault(self) -> str | None:
        """Why cursors make no progress."""
        return self.looks.fault or (self._client.fault if self.looks.move else None)

    def assigned(self, partition: AssignedPartition, kept: Iterable[KeptCursor]) -> None:
        """Take a partition's cursors, before its first record is matched."""
        lost = self._backlog.load(partition.topic_partition, kept, partition.first)
        self._losses.give_up(lost, "the topic was deleted and made anew", partition.former_end)
        here = chain.from_iterable(self._backlog.of(partition.topic_partition).values())
        self._saver.moved(each for each in here if each.ending)
        self.looks.assigned(partition.topic_partition)

    def stop(self, partitions: Collection[TopicPartition]) -> None:
        """Read these partitions no more."""
        for partition in partitions:
            self._end(partition)
            self._asked.pop(partition, None)
        if (reader := self._client.reader) is None:
            return
        try:
            reader.drop(partitions)
        except KafkaException as error:  # it must not end a rebalance
            self._client_failed(error)

    def save(self, partitions: Collection[TopicPartition]) -> bool:
        """Store the positions of partitions that are given up. False: all of them are stored."""
        return self._saver.give_up(partitions, self._feeder.dirty)

    def forget(self, partitions: Collection[TopicPartition]) -> None:
        """Forget partitions that have left."""
        self.stop(partitions)
        self._backlog.forget(partitions)
        self.looks.forget(partitions)
        self._feeder.forget(partitions)
        self._saver.forget(partitions)
        self._meeting.forget(partitions)

    def poll(self, now: float) -> None:
        """Look up subscriptions and cursors, offer events to lanes, read on, meet the live stream, and save."""
        self.looks.poll(now)
        self._feeder.count(now)
        for cursor in self._feeder.returning(now):
            if (reading := self._passes.get(cursor.due_key[:2])) is not None:
                reading.leave(cursor)
            cursor.go_back()
        share = BESIDE if now < self._live_queued_at() + RECENT else ALONE
        self._selector.begin(share.seconds)
        left: dict[TopicPartition, Pass] = {}  # passes that have ended before they had offered all that was read
        for partition, each in list(self._passes.items()):
            self._passes.move_to_end(partition)  # the next turn begins with another one
            if not self._offer(partition, each, now):
                left[partition] = each
                self._end(partition)
            if self._selector.is_spent():
                break
        try:
            self._begin_passes(left, share.passes, now)
            self._read(share.records, now)
        except (KafkaException, FatalKafkaError) as error:
            self._client_failed(error)
        self._save(now)

    def close(self) -> None:
        """Close the client."""
        self._client.close()

    # Passes.

    def _begin_passes(self, left: Mapping[TopicPartition, Pass], most: int, now: float) -> None:
        partitions, self._asks_on = self.looks.partitions(), False
        if not partitions or not self._memory.room or (reader := self._client.open()) is None:
            return
        begun = 0
        for partition in partitions:
            if len(self._passes) >= PASSES or begun >= most:
                return
            if partition not in self._passes and now >= self._not_before.get(partition, -inf):
                begun += 1
                self._begin_pass(reader, partition, left.get(partition), now)

    def _client_failed(self, error: Exception) -> None:
        for partition in list(self._passes):
            self._end(partition)
        self._client.failed(error)

    def _begin_pass(self, reader: CursorReader, partition: TopicPartition, before: Pass | None, now: float) -> None:
        """Begin a pass with the first cursor that has its turn, and those that are further on, which it will reach.

        It goes on with the records that the one `before` it has left, if it begins there.
        """
        able: dict[Cursor, Looked] = {}
        unable: list[Cursor] = []
        given_out, due_keys = self._given_out(partition), self.looks.first(partition) if self._owns(partition) else []
        asked, until = self._asked.pop(partition, (0, now + PAUSE))
        for cursor in self.looks.candidates(due_keys):
            if not self._may_read(cursor, now) or not given_out(cursor.first - 1):
                unable.append(cursor)
            elif (looked := self.looks.subscriber(cursor.due_key, now)) is not None:
                able[cursor] = looked
            else:
                unable.append(cursor)
                until = min(until, now + AGAIN)
        if not able:
            rested = (self._not_before.get(cursor, inf) for cursor in unable)
            until, asked = min((until, *(each for each in rested if each > now))), asked + len(due_keys)
            if due_keys and asked < self.looks.moving(partition):
                self._asked[partition], self._asks_on = (asked, until), True
            else:
                self._not_before[partition] = until
            self.looks.served(partition, due_keys)
            return
        begin = next(iter(able)).read_to
        members = {each: looked for each, looked in able.items() if begin <= each.read_to}
        goes_on = before is not None and before.position == begin
        if not goes_on:
            reader.seek(partition, begin)
        each = self._passes[partition] = Pass(
            members, begin, now, before.pending if before is not None and goes_on else ()
        )
        self.looks.served(partition, [cursor.due_key for cursor in (*unable, *filter(each.reaches, members))])

    def _may_read(self, cursor: Cursor, now: float) -> bool:
        """Whether the cursor's subscription may get an event now."""
        return (
            cursor.id is not None
            and cursor.knows_rows
            and not cursor.astray
            and not cursor.read_all
            and now >= self._not_before.get(cursor, -inf)
            and self._feeder.has_room(cursor, now)
        )

    def _end(self, partition: TopicPartition) -> None:
        """End a pass. Its members continue from where each of them is."""
        if (each := self._passes.pop(partition, None)) is not None:
            self._saver.moved(each.advance(0, 0.0, at_once=True))

    def _read(self, records: int, now: float) -> None:
        """Read so many records, if a pass has none: they come in one stream, also for passes that have some."""
        reader = self._client.reader
        if reader is None:
            return
        wanted = (
            self._memory.room > 0 and self._feeder.may_take and any(not each.pending for each in self._passes.values())
        )
        if not wanted and now < self._polled + IDLE:  # what was fetched may be of use again in the next turn
            return
        self._polled, there = now, reader.positions
        reads = {place: each for place, each in self._passes.items() if wanted and not each.is_full}
        reader.drop([partition for partition in there if partition not in reads])
        for partition, each in reads.items():
            if partition not in there and not each.pending:
                reader.seek(partition, each.position)
        for record in reader.read(records):
            if (reading := self._passes.get(record.partition.topic_partition)) is not None:
                reading.add(record, now)
        self._note_losses(reader)
        for partition in reader.restarted:
            self._restarted(partition, now)
        reader.restarted.clear()

    def _note_losses(self, reader: CursorReader) -> None:
        for removed in reader.removed:
            if (each := self._passes.get(removed.partition)) is not None:
                for cursor in each.members:
                    stop = removed.stop if cursor.end is None else min(removed.stop, cursor.end)
                    first = cursor.loses(max(cursor.read_to, removed.first), stop)
                    self._losses.report(cursor.due_key, first, stop, REMOVED)
                    if cursor.read_to >= removed.first:  # else records before these are still to be offered
                        cursor.passed(removed.stop)
        reader.removed.clear()

    def overtaken(self, partition: TopicPartition, begin: int) -> None:
        """The log begins there, at least: give up what it no longer has of cursors that are not read."""
        each, live = self._passes.get(partition), self._meeting.live_at(partition)
        for cursor in chain.from_iterable(self._backlog.of(partition).values()):
            rests = cursor.stored and not cursor.astray and (each is None or cursor not in each.members)
            if rests and cursor.read_to < begin and live is not None and begin <= live:  # else of an earlier topic
                stop = begin if cursor.end is None else min(begin, cursor.end)
                self._losses.report(cursor.due_key, cursor.loses(cursor.read_to, stop), stop, REMOVED)
                cursor.passed(begin)
                self._saver.moved([cursor])

    def _restarted(self, partition: TopicPartition, now: float) -> None:
        """The log ends before the position of a pass: it was truncated, or its topic made anew."""
        each = self._passes.get(partition)
        self._end(partition)
        self._not_before[partition] = now + PAUSE
        for cursor in () if each is None else each.members:
            if cursor.replay and cursor.end is not None:
                self._losses.report(cursor.due_key, cursor.next, cursor.end, "the log does not reach them any more")
                cursor.meet(cursor.read_to)
                self._saver.moved([cursor])
            else:
                log.warning("the log ends before a cursor; it begins again", cursor=cursor.id, from_offset=cursor.first)
                self._backlog.rewind(cursor)

    def _offer(self, partition: TopicPartition, each: Pass, now: float) -> bool:
        """Offer the events that were read. False: the pass has ended."""
        live = self._meeting.live_at(partition)
        # Nobody waits for a member while all wait for positions to be saved.
        while each.pending and each.members and self._feeder.may_take and not self._selector.is_spent():
            if each.owing is None:
                try:
                    if not self._looks(each, live):
                        break
                except RegistryUnavailable:
                    self._not_before[partition] = now + AGAIN
                    return False
            if each.owing and not self._give(each, now):
                break
            each.took(now)
        reader = self._client.reader
        reached = each.position if reader is None or each.pending else reader.positions.get(partition, 0)
        told = each.advance(reached, now, at_once=live is not None and reached >= live)
        self._saver.moved(cursor for cursor in told if cursor.read_all)
        if told and live is not None and reader is not None and partition in reader.answered:
            self._meeting.meet(each.members, live, now)
        return not each.is_over(now)

    def _looks(self, each: Pass, live: int | None) -> bool:
        """Look at the first pending record. False: it waits.

        Who gets it is decided by look-ups that are not older than the one by which the live stream has judged it: else
        an edit between the two would lose it. So what the live stream has not judged yet waits for that.
        """
        record, read_at = each.pending[0]
        if live is None or record.offset >= live:
            each.hold()
            return False
        matched: tuple[Endpoint, ...] = ()
        try:
            event = each.event or self._records.event_of(record)
        except Undecodable as error:
            if not self._bury(each, record, error):
                each.hold()
                return False
            event = None
        if event is not None and not each.is_judged(record.offset):
            key = event.type, event.tenant
            if (answer := self._catalog.match(key, read_at)) is None:
                self._catalog.want((key,))
                self.looks.look_at(each.asks(record.offset))
                each.hold(event)
                return False
            matched = answer
        each.look(event, matched)
        return True

    def _bury(self, each: Pass, record: Record, error: Undecodable) -> bool:
        """Send a record that cannot be decoded to the dead-letter topic. False: it waits.

        Cursors that the live stream has left it to settle it once the letter is stored. A replay passes it by.
        """
        owing = [cursor for cursor in each.members if cursor.covers(record.offset) and cursor.owes(record.offset)]
        if owing and not self._records.may_bury:
            return False
        if taken := [cursor for cursor in owing if cursor.take(record.offset, record.timestamp)]:
            self._records.bury(record, error, partial(self._feeder.settle, taken, record.offset))
        return True

    def _give(self, each: Pass, now: float) -> bool:
        """Give the first event that is pending to the members that owe it. False: some wait, or the time is spent."""
        event, owing = each.event, each.owing
        if event is None or owing is None:
            return True
        for number in range(len(owing)):
            # A filter checks the clock too.
            if self._selector.spent or (number % LOOK_EVERY == LOOK_EVERY - 1 and self._selector.is_spent()):
                each.ask_on()
                return False
            cursor = owing.popleft()
            # Its end may have been decided since the event was first offered.
            owes = cursor in each.members and cursor.owes(event.record.offset)
            if owes and not self._takes(cursor, each, event, now):
                if each.may_wait(now) and self._feeder.moves(cursor):
                    each.wait(now)
                    owing.append(cursor)
                else:
                    each.wait_no_more(now)
                    self._leave(each, cursor, now + AGAIN)
        return not owing

    def _takes(self, cursor: Cursor, each: Pass, event: Event, now: float) -> bool:
        """Whether a member takes an event, or need not."""
        endpoint = each.endpoint(cursor)
        if (
            endpoint is None
            or endpoint.fault is not None
            or (endpoint.paused and not self.looks.probes(cursor.due_key))
        ):
            self.looks.look_at((cursor.due_key,))
            self._leave(each, cursor, now + AGAIN)
            return True
        if cursor.replay:
            if not self._replays.wants(cursor.replay, event):
                return True
            if (until := self._replays.rests_until(cursor.replay, now)) > now:
                self._leave(each, cursor, until)  # the others do not wait for it
                return True
            if not self._given_out(cursor.due_key[:2])(event.record.offset):  # a replay follows the live stream
                return False
        if not self._feeder.takes(cursor, endpoint, event, each.answers, now):
            return False
        if endpoint.paused and cursor.open:
            self.looks.probed(cursor.due_key)
        return True

    def _leave(self, each: Pass, cursor: Cursor, until: float) -> None:
        """A member leaves its pass, and does not read again before `until`."""
        each.leave(cursor)
        self._saver.moved([cursor])
        self._not_before[cursor] = until

    # Subscriptions that change, and saving.

    def _disabled(self, due_key: DueKey) -> None:
        self._meeting.end_at_live(due_key)

    def _changed(self, due_key: DueKey) -> None:
        """The due key's cursors may be others now, or idle."""
        here = self._backlog.here(due_key)
        if (each := self._passes.get(due_key[:2])) is not None:
            each.keep(due_key, here, self.looks.looked(due_key))
        self._saver.finished(cursor for cursor in here if cursor.finished)
        for cursor in here:  # its row says when its next record expires, though it does not move
            self._backlog.save(cursor)

    def _dropped(self, cursor: Cursor) -> None:
        """A finished cursor is forgotten."""
        self._meeting.dropped(cursor)
        self.looks.dropped(cursor)

    def _save(self, now: float) -> None:
        """Save positions: once a second, and of events that were delivered when they are many."""
        reading = chain(self._feeder.dirty, *(each.members for each in self._passes.values()))
        if self._saver.save(reading, now):
            self._not_before = {each: at for each, at in self._not_before.items() if now < at}
        elif self._feeder.unsaved >= SAVE_AFTER:
            for cursor in self._feeder.dirty:
                self._backlog.save(cursor)
