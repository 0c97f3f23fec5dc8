"""A CatchUp on a real database, whose log is in memory."""

from collections.abc import Collection
from functools import partial
from typing import Any

from sqlalchemy import Engine

from consumer.database.job import ThreadJob
from consumer.delivery.backlog import Backlog
from consumer.delivery.delivery import Delivery
from consumer.events.event import Event, TopicPartition
from consumer.intake.cursor_reader import CursorReader
from consumer.intake.record import AssignedPartition, Record
from consumer.ledger import cursors, replays
from consumer.ledger.replays import Span
from consumer.matching.selection import Selector
from consumer.matching.subscribers import find_subscribers
from consumer.telemetry.metrics import Metrics
from consumer.worker.catch_up import CatchUp
from consumer.worker.cursor_looks import LookUp, look_up
from consumer.worker.feeder import Feeder
from consumer.worker.losses import Losses
from consumer.worker.replaying import Replays
from tests.crypto.vaults import in_the_clear
from tests.delivery.desk_kit import Desk
from tests.ledger.rows_kit import DEFAULT, GROUP, make_event

HERE = ("t", 0)
FAST = 50_000.0  # deliveries a second, more than the test takes


class Log(CursorReader):
    """A partition of many records, all of them there."""

    def __init__(self, records: int) -> None:
        self.positions: dict[TopicPartition, int] = {}
        self.sought: list[int] = []
        self.removed, self.restarted, self.answered = [], set(), {HERE}
        self._records = records
        self._assigned = AssignedPartition(*HERE)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self.positions = {partition: offset}
        self.sought.append(offset)

    def read(self, limit: int) -> list[Record]:
        first = self.positions[HERE]
        self.positions[HERE] = min(first + limit, self._records)
        return [Record(self._assigned, offset, 0, b"k", b"", None) for offset in range(first, self.positions[HERE])]

    def drop(self, _partitions: Collection[TopicPartition]) -> None:
        """It needs no client."""

    def close(self) -> None:
        """The same."""


class Rig(Desk):
    """A CatchUp on a real database, of one subscription; its requests end when the test says so."""

    def __init__(self, engine: Engine, records: int = 5000) -> None:
        super().__init__(engine)
        self.types: dict[int, str] = {}  # of events, by offset; else user.created
        self.log = Log(records)
        replaying, selector = Replays(), Selector(Metrics())
        self.backlog = Backlog(self.parking, self.settling, 1000, lambda _partition: None, {})
        find = partial(find_subscribers, engine, DEFAULT, in_the_clear)
        self.catch_up = CatchUp(
            self.backlog,
            Feeder(self.backlog, self.lanes, self.settling, selector, self.memory, replaying),
            replaying,
            partial(look_up, engine, GROUP, find),
            ThreadJob[LookUp](self.thread.submit, "no look", self.monotonic),
            lambda: self.log,
            self._event,
            selector,
            self.memory,
            owns=lambda _: True,
            given_out=lambda _: lambda offset: offset < records,
            live_at=lambda _: records,
            settled_to=lambda _: 0,
            retentions={},
            losses=Losses(GROUP, self.notes),
            remove=lambda _: None,
            finish_replays=lambda ids: replays.finish(engine, 1.0, ids),
            subscription_cache=5.0,
        )
        self.catch_up.assigned(AssignedPartition(*HERE), cursors.of_partition(engine, GROUP, HERE))

    def _event(self, record: Record) -> Event:
        return make_event(record.offset, key=record.key, type=self.types.get(record.offset, "user.created"))

    def replay(self, rate: float = FAST, begin: int = 0, end: int = 4000, **more: Any) -> int:
        """Begins a replay; the worker looks."""
        spans = [Span(*HERE, begin, end)]
        number = replays.create(self.engine, GROUP, self.subscription, 0.0, 9.0, None, rate, spans, 1.0, **more)
        self.look()
        return number

    def look(self) -> None:
        """The worker hears that it should look, and does so until it knows all."""
        self.catch_up.looks.look_at([(*HERE, self.subscription)])
        for _ in range(2):  # cursors, then their rows
            self.catch_up.looks.poll(self.monotonic.now)
            self._looked()

    def turn(self, seconds: float = 0.0, times: int = 100) -> None:
        """Turns of the loop."""
        for _ in range(times):
            self.passes(seconds)
            self.catch_up.poll(self.monotonic.now)
            self._looked()
            if self.parking.backlog:
                self.write()

    def _looked(self) -> None:
        if self.catch_up.looks._job.busy:
            self.answer()

    def send(self, most: int = 1000) -> list[Delivery]:
        """Takes what may be sent now, and has it accepted."""
        self.lanes.wake(self.monotonic.now)
        sent: list[Delivery] = []
        for lane in self.lanes:
            lane.connects = False  # else few requests begin at once
        while len(sent) < most and (delivery := self.lanes.next(self.monotonic.now)) is not None:
            sent.append(delivery)
            self.lanes.finished(delivery.lane)
            assert not isinstance(delivery.origin, tuple)
            delivery.origin.settle_one()
            if delivery.ordering_key is not None:
                self.lanes.go_on(delivery.lane, delivery.ordering_key)
        return sent

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
