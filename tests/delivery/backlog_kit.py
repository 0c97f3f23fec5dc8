"""A backlog of cursors, without a database: its writes wait until the test says that they are done."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

from sqlalchemy import Engine

from consumer.database.engine import DatabaseThread
from consumer.delivery.backlog import Backlog
from consumer.delivery.failing import Failing, Notes
from consumer.delivery.known_rows import TakenUp
from consumer.delivery.lanes import Lanes
from consumer.delivery.limits import Memory
from consumer.delivery.parking import BACKLOG, Parking, _Done
from consumer.delivery.settling import Settling
from consumer.events.event import TopicPartition
from consumer.intake.offsets import OffsetTracker
from consumer.ledger.cursors import NewCursor
from consumer.ledger.rows import NewDelivery
from consumer.telemetry.metrics import Metrics
from tests.delivery.store_kit import Clock

T = TypeVar("T")
NO_ENGINE = cast("Engine", None)


class Unwritten:
    """A Parking, and a Settling that stores there. The database takes `room` deliveries in all."""

    def __init__(self, room: int = 10**9) -> None:
        clock, thread = Clock(), cast("DatabaseThread", self)
        self._written: list[object] = []
        self._answer: Callable[[Any], None] = lambda _: None
        self.parking = Parking(NO_ENGINE, thread, thread, "g", clock, clock, lambda: None, lambda *_: None, 0.0)
        self.settling = Settling(
            Lanes(10),
            self.parking,
            Failing(Notes(NO_ENGINE, thread, clock, lambda: None), "g", 0.0),
            Metrics(),
            TakenUp(Memory()),
            schedule=(),
            jitter=0.0,
            in_memory=0.0,
            operations_topic="",
            owns=lambda _: True,
            clock=clock,
            monotonic=clock,
        )
        self.room = room

    def submit(self, _job: Callable[[], object], done: Callable[[Any], None]) -> None:
        """Take a batch, as a database thread does."""
        self._answer = done

    def write(self) -> None:
        """The database has all of them."""
        while self.parking.busy:
            self._written += self._waiting()
            self.parking.poll(0.0)
            self._answer(_Done())
        self.room = self._room

    @property
    def room(self) -> int:
        return self._room

    @room.setter
    def room(self, room: int) -> None:
        self._room = room
        self.parking._left = BACKLOG - room + sum(isinstance(each, NewDelivery) for each in self._written)

    @property
    def rows(self) -> list[NewDelivery]:
        """The deliveries to store, written or not."""
        return self._of(NewDelivery)

    @property
    def stored(self) -> list[int]:
        """Their subscriptions."""
        return [each.subscription_id for each in self.rows]

    @property
    def begun(self) -> list[NewCursor]:
        """The new cursors, written or not."""
        return self._of(NewCursor)

    def _of(self, kind: type[T]) -> list[T]:
        return [each for each in (*self._written, *self._waiting()) if isinstance(each, kind)]

    def _waiting(self) -> list[object]:
        return [each.item for each in self.parking._to_write]


def tracker_of(_partition: TopicPartition) -> OffsetTracker:
    """The tracker of a partition of the topic "topic", without records."""
    tracker = OffsetTracker(None)
    tracker.identity = "topic"
    return tracker


def make_backlog(writes: Unwritten | None = None, most_rows: int = 10**9) -> Backlog:
    """A backlog without cursors."""
    writes = writes or Unwritten()
    return Backlog(writes.parking, writes.settling, most_rows, tracker_of, {})
