"""A CatchUp on a real database, whose log is in memory."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from math import inf
from types import SimpleNamespace
from typing import Any, cast

from sqlalchemy import Engine, update

from consumer.database.job import ThreadJob
from consumer.delivery.backlog import Backlog
from consumer.delivery.cursors import Cursor
from consumer.delivery.delivery import Delivery
from consumer.errors import DatabaseTooSlow
from consumer.events.event import Event, TopicPartition
from consumer.intake.cursor_reader import CursorReader, RemovedRecords
from consumer.intake.record import AssignedPartition, Record
from consumer.ledger import cursors, replays
from consumer.ledger.cursors import NewCursor
from consumer.ledger.replays import Span
from consumer.ledger.rows import DueKey
from consumer.matching.catalog import Catalog, find_endpoints
from consumer.matching.selection import Selector
from consumer.matching.subscribers import find_subscribers
from consumer.subscriptions import repository
from consumer.telemetry.metrics import Metrics
from consumer.worker.catch_up import CatchUp, Records
from consumer.worker.cursor_client import CursorClient
from consumer.worker.cursor_looks import Find, LookUp, look_up
from consumer.worker.feeder import Feeder
from consumer.worker.losses import Losses
from consumer.worker.replaying import Replays
from models import CursorReason, Subscription
from tests.crypto.vaults import in_the_clear
from tests.delivery.desk_kit import Desk
from tests.ledger.rows_kit import DEFAULT, GROUP, URL, make_event

HERE = ("t", 0)
MANY = 1_000_000  # records
FAST = 50_000.0  # deliveries a second, more than the test takes


class Log(CursorReader):
    """Partitions of many records, all of them there. It gives each one that is read its part, if it `answers`."""

    def __init__(self, records: int) -> None:
        self.positions: dict[TopicPartition, int] = {}
        self.sought: list[int] = []
        self.removed, self.restarted, self.answered = [], set(), set()
        self.records = records
        self.answers = True
        self.reads = 0
        self.at_once = 1000  # records that one call returns at most
        self.begins = 0  # retention has removed what is before it

    @property
    def fault(self) -> str | None:
        """Kafka answers."""
        return None

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self.positions[partition] = offset
        self.sought.append(offset)

    def read(self, limit: int) -> list[Record]:
        self.reads += 1
        found: list[Record] = []
        if not self.answers:
            return found
        self.answered |= set(self.positions)
        if not self.positions:
            return found
        part = min(self.at_once, limit // len(self.positions))
        for place, sought in self.positions.items():
            first = max(sought, self.begins)
            if sought < first:
                self.removed.append(RemovedRecords(place, sought, first))
            self.positions[place] = max(first, min(first + part, self.records))
            offsets = range(first, self.positions[place])
            found += [Record(AssignedPartition(*place), offset, 0, b"k", b"", None) for offset in offsets]
        return found

    def drop(self, partitions: Collection[TopicPartition]) -> None:
        for partition in partitions:
            self.positions.pop(partition, None)
            self.answered.discard(partition)

    def close(self) -> None:
        """It needs no client."""


class Rig(Desk):
    """A CatchUp on a real database, of one subscription; its requests end when the test says so.

    Each look reads at once, and its answer comes `look_seconds` later. It is too slow for more due keys than
    `most_looked`. `looked_at` has how many each was for. `live`: the live stream has fanned out what is
    before this offset, and queued an event at `live_queued_at`. `slow`: subscriptions whose receivers take so many
    seconds for each event. `writes`: the database stores what it is given. `client_fails`: why no Kafka client can be
    made.
    """

    def __init__(self, engine: Engine, records: int = 5000, most_rows: int = 1000) -> None:
        super().__init__(engine)
        self.look_seconds = 0.0
        self.looked_at: list[int] = []
        self.most_looked = MANY
        self.live, self.writes = records, True
        self.slow: dict[int, float] = {}
        self._looks: list[tuple[float, Callable[[], None]]] = []
        self._open: list[tuple[float, Delivery]] = []
        self.types: dict[int, str] = {}  # of events, by offset; else user.created
        self.keys: dict[int, bytes] = {}  # of records, by offset; else k
        self.settled_to = 0  # the live stream has settled what is before this offset
        self.log = Log(records)
        self.client_fails: Exception | None = None
        self.live_queued_at = -inf
        replaying, selector = Replays(), Selector(Metrics(), clock=lambda: 0.0)
        self.retentions: dict[str, float] = {}  # seconds, by topic
        self.backlog = Backlog(self.parking, self.settling, most_rows, lambda _partition: None, self.retentions)
        find = partial(find_subscribers, engine, DEFAULT, in_the_clear)
        self.catch_up = CatchUp(
            self.backlog,
            Feeder(self.backlog, self.lanes, self.settling, selector, self.memory, replaying),
            replaying,
            partial(self._look_up, find),
            ThreadJob[LookUp](self._begin_look, "no look", self.monotonic),
            CursorClient(lambda made: made(self.client_fails or self.log), self.monotonic),
            cast("Records", SimpleNamespace(event_of=self._event)),
            selector,
            self.memory,
            Catalog(lambda keys, done: done(find_endpoints(engine, keys, DEFAULT, in_the_clear)), 1.0, self.monotonic),
            owns=lambda _: True,
            given_out=lambda _: lambda offset: offset < self.live,
            live_at=lambda _: self.live,
            live_queued_at=lambda: self.live_queued_at,
            waits_since=lambda: None,
            settled_to=lambda _: self.settled_to,
            retentions=self.retentions,
            losses=Losses(GROUP, self.notes),
            finish_replays=lambda ids: replays.finish(engine, 1.0, ids),
            subscription_cache=5.0,
        )
        self.assigned()

    def assigned(self, *places: TopicPartition) -> None:
        """These partitions are assigned; else the first one."""
        for place in places or (HERE,):
            kept = cursors.of_partition(self.engine, GROUP, place)
            self.catch_up.assigned(AssignedPartition(*place), kept)

    def _look_up(self, find: Find, due_keys: Sequence[DueKey], *more: Any) -> LookUp:
        self.looked_at.append(len(due_keys))
        if len(due_keys) > self.most_looked:
            raise DatabaseTooSlow("DPY-4024: call timeout")
        return look_up(self.engine, GROUP, find, due_keys, *more)

    def _begin_look(self, work: Callable[[], LookUp], answered: Callable[[LookUp | Exception], None]) -> None:
        answer: LookUp | Exception
        try:
            answer = work()
        except DatabaseTooSlow as error:
            answer = error
        self._looks.append((self.monotonic.now + self.look_seconds, partial(answered, answer)))

    def _event(self, record: Record) -> Event:
        event_type, place = self.types.get(record.offset, "user.created"), record.partition.topic_partition
        key = self.keys.get(record.offset, record.key)
        return make_event(record.offset, topic=place[0], partition=place[1], key=key, type=event_type)

    def add(self, name: str, **options: Any) -> int:
        """Another subscription."""
        return repository.add(self.engine, f"{URL}/{name}", "user.created", **options)

    def owe(self, subscription: int, first: int = 0, place: TopicPartition = HERE) -> Cursor:
        """Another process has begun a cursor; the worker looks."""
        self.begun(subscription, first, place)
        self.look(subscription, place)
        return self.backlog.here((*place, subscription))[-1]

    def begun(self, subscription: int, first: int = 0, place: TopicPartition = HERE, end: int | None = None) -> None:
        """Another process has begun a cursor."""
        new = NewCursor((*place, subscription), first, CursorReason.BEHIND, end)
        cursors.begin(self.engine, GROUP, [new], 1.0)

    def replay(self, rate: float = FAST, begin: int = 0, end: int = 4000, **more: Any) -> int:
        """Begins a replay; the worker looks."""
        spans = [Span(*HERE, begin, end)]
        number = replays.create(self.engine, GROUP, self.subscription, 0.0, 9.0, None, rate, spans, 1.0, **more)
        self.look()
        return number

    def look(self, subscription: int | None = None, place: TopicPartition = HERE) -> None:
        """The worker hears that it should look, and does so until it knows all."""
        self.catch_up.looks.look_at([(*place, subscription or self.subscription)])
        for _ in range(2):  # cursors, then their rows
            self.catch_up.looks.poll(self.monotonic.now)
            self.looked()

    def turn(self, seconds: float = 0.0, times: int = 100) -> None:
        """Turns of the loop."""
        for _ in range(times):
            self.passes(seconds)
            self.catch_up.poll(self.monotonic.now)
            self.looked()
            self.store()

    def store(self) -> None:
        """The database takes what is to be written, if it `writes`."""
        while self.writes:
            self.parking.poll(0.0)
            if not self.parking.storing.busy:
                return
            self.answer()

    def load_rows(self, first: int) -> None:
        """The ordering keys with stored deliveries from this offset on are known."""
        self.parking.load_stored(HERE, first, lambda _settled: None)
        self.store()
        self.parking.poll(0.0)
        self.answer()

    def looked(self) -> None:
        """The answers of looks come, if it is time."""
        while self._looks and self._looks[0][0] <= self.monotonic.now:
            self._looks.pop(0)[1]()

    def send(self, most: int = 1000) -> list[Delivery]:
        """Takes what may be sent now, and has it accepted."""
        self.lanes.wake(self.monotonic.now)
        ended = [each for until, each in self._open if until <= self.monotonic.now]
        self._open = [(until, each) for until, each in self._open if until > self.monotonic.now]
        for each in ended:
            self._accepted(each)
        for lane in self.lanes:
            lane.connects = False  # else few requests begin at once
        while len(ended) < most and (delivery := self.lanes.next(self.monotonic.now)) is not None:
            if seconds := self.slow.get(delivery.lane.endpoint.subscription_id):
                self._open.append((self.monotonic.now + seconds, delivery))
            else:
                self._accepted(delivery)
                ended.append(delivery)
        return ended

    def _accepted(self, delivery: Delivery) -> None:
        self.lanes.finished(delivery.lane)
        delivery.lane.succeeded(self.monotonic.now, self.monotonic.now, 1)
        assert not isinstance(delivery.origin, tuple)
        delivery.origin.settle_one()
        if delivery.ordering_key is not None:
            self.lanes.go_on(delivery.lane, delivery.ordering_key)

    def sent_in(self, seconds: int) -> list[Delivery]:
        """What is sent in so many seconds."""
        sent: list[Delivery] = []
        for _ in range(seconds * 20):
            self.turn(0.05, 1)
            sent += self.send()
        return sent

    def all_of(self, number: int, replay: int | None = None) -> list[Delivery]:
        """What is sent until so many are (of a replay), or for long."""
        sent: list[Delivery] = []
        for _ in range(100):
            sent += self.sent_in(1)
            if sum(replay in {None, each.origin.replay} for each in sent) >= number:  # type: ignore[union-attr]  # no row is sent
                break
        return sent


def unordered(rig: Rig) -> None:
    """Its subscription's events have no order."""
    with rig.engine.begin() as connection:
        connection.execute(update(Subscription).values(ordering="none"))
    rig.endpoint = replace(rig.endpoint, ordered=False)


def by(sent: Collection[Delivery], subscription: int) -> list[int]:
    """The offsets that a subscription was sent."""
    return [each.event.record.offset for each in sent if each.lane.endpoint.subscription_id == subscription]
