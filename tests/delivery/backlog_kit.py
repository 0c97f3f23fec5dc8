"""A backlog of cursors, without a database: its writes wait until the test says that they are done."""

from typing import cast

from consumer.delivery.backlog import Backlog
from consumer.delivery.known_rows import OpenRows
from consumer.delivery.parking import Parking
from consumer.delivery.set_aside import OnStored
from consumer.delivery.settling import Settling
from consumer.ledger.cursors import CursorMove, NewCursor
from consumer.ledger.rows import DueKey


class Unwritten(Parking):
    """Keeps the cursors that are to be stored, and knows when the others are."""

    full = False

    def __init__(self) -> None:
        self.open_rows = OpenRows()
        self.begun: list[NewCursor] = []
        self._left = 0
        self._waiting: list[OnStored] = []

    def begin(self, cursor: NewCursor, on_stored: OnStored, on_astray: OnStored) -> None:
        del on_astray
        self.begun.append(cursor)
        self._waiting.append(on_stored)

    def move(self, move: CursorMove, due_key: DueKey, on_stored: OnStored, on_astray: OnStored) -> None:
        del move, due_key, on_astray
        self._waiting.append(on_stored)

    def write(self) -> None:
        """The database has all of them."""
        while self._waiting:
            self._waiting.pop(0)()


def make_backlog(parking: Parking | None = None, most_rows: int = 10**9, settling: Settling | None = None) -> Backlog:
    """A backlog without cursors. `settling` is needed once a cursor is gone."""
    return Backlog(
        parking or Unwritten(), settling or cast("Settling", None), most_rows, lambda _partition: "topic", {}
    )
