"""A real database and its thread for stored deliveries. Answers arrive and time passes when the test says so."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from queue import SimpleQueue
from typing import Any

from sqlalchemy import Engine, select, text

from consumer.database.engine import DatabaseThread
from consumer.delivery.failing import Notes
from consumer.delivery.parking import Parking
from consumer.ledger import store as ledger
from consumer.ledger.rows import NewDelivery
from models import ParkedDelivery
from tests.ledger.rows_kit import GROUP

NOW = 1_700_000_100.0  # 100 s after the record with offset 0
REFUSED_AFTER = 3600.0  # seconds


class Clock:
    """A clock that moves by `step` at each reading, and when a test moves it."""

    def __init__(self, now: float = 100.0, step: float = 0.0) -> None:
        self.now, self.step = now, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


class Store:
    """A Parking on a real database. What the database thread posts waits until `answer`."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.monotonic = Clock(1000.0)
        self.clock = Clock(NOW)
        self.posted: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.thread = DatabaseThread("ledger", self.posted.put)
        self.woken: list[None] = []  # one for each batch that may have written an operational event
        self.settled: list[int] = []  # offsets of settled records
        # Deliveries that will not be stored, each with the reason and the callback that settles it.
        self.refused: list[tuple[NewDelivery, Exception, Callable[[], None]]] = []
        told = self.woken.append
        self.parking = Parking(
            engine,
            self.thread,
            self.thread,
            GROUP,
            self.clock,
            self.monotonic,
            on_operation=lambda: told(None),
            on_refused=lambda *refused: self.refused.append(refused),
            refused_after=REFUSED_AFTER,
        )
        self.notes = Notes(engine, self.thread, self.monotonic, lambda: told(None))

    def park(self, *rows: NewDelivery) -> None:
        """Hand rows to the Parking. Each settles its offset."""
        for row in rows:
            offset = row.event.record.offset
            self.parking.park(row, lambda offset=offset: self.settled.append(offset))  # type: ignore[misc]

    def others_park(self, *rows: NewDelivery) -> None:
        """Another process stores these rows."""
        ledger.park(self.engine, GROUP, rows, self.clock.now)

    def passes(self, seconds: float) -> None:
        """Advance both clocks."""
        self.clock.now += seconds
        self.monotonic.now += seconds

    def answer(self) -> None:
        """Run the next thing that the database thread has posted."""
        self.posted.get(timeout=60)()

    def write(self) -> None:
        """Write one batch and handle its answer."""
        self.parking.poll(0.0)
        self.answer()

    def write_all(self, seconds: float = 10.0) -> None:
        """Turn the loop, `seconds` each time, until everything is written."""
        while self.parking.backlog:
            self.write()
            self.monotonic.now += seconds
        self.write_notes(seconds)

    def write_notes(self, seconds: float = 10.0) -> None:
        """Turn the loop until all notes on subscriptions are written."""
        while self.notes.pending:
            self.notes.poll(0.0)
            self.answer()
            self.monotonic.now += seconds

    def rows(self, *columns: str) -> list[tuple[Any, ...]]:
        """Columns of `webhook_deliveries`, as another connection sees them."""
        with self.engine.connect() as connection:
            found = connection.exec_driver_sql(f"SELECT {', '.join(columns)} FROM webhook_deliveries ORDER BY id")  # noqa: S608 (constants)
            return [tuple(row) for row in found]

    def seconds(self, *columns: str) -> list[tuple[Any, ...]]:
        """Columns of `webhook_deliveries`, read through the models, with times as seconds after NOW."""
        statement = select(*(getattr(ParkedDelivery, column) for column in columns)).order_by(ParkedDelivery.id)
        with self.engine.connect() as connection:
            return [tuple(_seconds(value) for value in row) for row in connection.execute(statement)]

    @contextmanager
    def without(self, table: str = "webhook_deliveries") -> Iterator[None]:
        """Take the table away, and bring it back with its rows."""
        rename(self.engine, table, f"away_{table}")
        try:
            yield
        finally:
            rename(self.engine, f"away_{table}", table)


def _seconds(value: object) -> object:
    return round(value.timestamp() - NOW) if isinstance(value, datetime) else value


def rename(engine: Engine, old: str, new: str) -> None:
    """Rename a table."""
    with engine.begin() as connection:
        connection.execute(text(f"ALTER TABLE {old} RENAME TO {new}"))
