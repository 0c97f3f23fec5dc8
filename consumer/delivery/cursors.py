"""Cursors in a worker: which deliveries the live stream leaves to them, and how far each has come. No I/O.

The live stream leaves a delivery to the cursor that covers its offset, and settles it once that cursor is stored. A
cursor's events pass the lanes as those of the live stream do, and settle its own tracker. Where a cursor meets the live
stream, one offset becomes its end: below it the cursor owes, from it on the live stream does.
"""

from collections.abc import Callable, Collection
from math import inf
from typing import NamedTuple

from consumer.delivery.delivery import OpenRecord
from consumer.events.event import Event
from consumer.intake.offsets import OffsetTracker
from consumer.ledger.cursors import CursorMove, KeptCursor, NewCursor
from consumer.ledger.rows import OrderingKey
from consumer.subscriptions.endpoint import Endpoint
from models import CursorReason
from models.cursor import RUNS_LENGTH

MOST_HELD = 400  # runs of held events: the settled ones between them must fit into the cursor's row
MOST_HELD_KEYS = 1_000
EXPIRY_STEP = 600.0  # seconds: the time at which a record expires is rounded down, so that its index rests
FEW_HELD = 500  # events, that may be stored so that the cursor can end; more of them need no rows


class Left(NamedTuple):
    """A delivery of the live stream that is left to a cursor."""

    event: Event
    endpoint: Endpoint
    record: OpenRecord


class Cursor:
    """A subscription's own position in an assigned partition: its events from `first` to before `end` (None: open).

    `read_to` is the next offset to read; events below it are settled, or on their way. `stored`: the database has it.
    `confirmed`: it has been written in this assignment, so that no earlier owner can change it any more. `ending`: its
    end is not stored yet. `astray`: another owner has moved it, and its row is to be read again before it moves.
    `gone`: it was dropped, and what settles of it counts no more. `waiting`: deliveries that were left to it and that
    are settled once it is confirmed. `held`: ordering keys whose events it has passed by, as stored ones go before
    them, and the offset of the first one of each; it will `go_back` for these. `stores_to`: below, such events are
    stored, and not held.
    """

    __slots__ = (
        "_beside",
        "_expires",
        "_joins",
        "_last_stored",
        "_lost_to",
        "_saved_end",
        "_saving",
        "_saving_settled",
        "_settled",
        "_stored",
        "_timestamp",
        "_tracker",
        "_version",
        "_waits",
        "astray",
        "confirmed",
        "due_key",
        "end",
        "ending",
        "first",
        "gone",
        "held",
        "id",
        "read_to",
        "reason",
        "replay",
        "stored",
        "stores_to",
        "waiting",
    )

    def __init__(self, kept: KeptCursor, waits: Callable[[int], None], *, stored: bool = True) -> None:
        """`waits` counts the deliveries that are left to it and not settled: so many more, or fewer."""
        self._waits = waits
        self.id: int | None = kept.id if stored else None
        self.due_key = kept.due_key
        self.replay = kept.replay
        self.reason = kept.reason
        self.first, self.end = kept.first, kept.end
        self.read_to = kept.next
        self.stored, self.ending, self.astray = stored, False, False
        self.confirmed = self.gone = False
        self._version = kept.version
        self._tracker = OffsetTracker(kept.next, kept.runs)
        self._timestamp, self._expires = kept.timestamp, kept.expires
        self._saved_end = kept.end
        self._saving: tuple[int, int | None, int] | None = None  # position, end and version of the save under way
        # Offsets and timestamps of its stored deliveries, which a crash has hidden from the position; None: not known.
        self._stored: Collection[tuple[int, int]] | None = None
        self._last_stored = -1
        self._beside: set[tuple[int, int]] = set()  # of deliveries that were stored instead of left to it
        self._settled = self._saving_settled = 0  # events since the last save began, and with the one under way
        self._lost_to = 0
        self.held: dict[OrderingKey, int] = {}
        self._joins = False  # the last event that was taken or held is held
        self.stores_to = 0
        self.waiting: list[Left] = []

    @classmethod
    def new(cls, new: NewCursor, waits: Callable[[int], None]) -> "Cursor":
        """A cursor that is about to be stored."""
        kept = KeptCursor(
            0,
            new.due_key,
            new.replay,
            new.reason,
            new.first,
            new.first,
            new.end,
            new.runs,
            new.timestamp,
            new.identity,
            0,
        )
        return cls(kept, waits, stored=False)

    @property
    def next(self) -> int:
        """Everything below is settled."""
        mark = self._tracker.low_water_mark
        return self.read_to if mark is None else mark

    @property
    def unsaved(self) -> int:
        """Events that have settled since the stored position: a crash sends them again."""
        return 0 if self.gone or self.astray else self._settled + self._saving_settled

    @property
    def is_saving(self) -> bool:
        """A save is under way."""
        return self._saving is not None

    @property
    def moved(self) -> bool:
        """The database does not have its position or its end."""
        return self._tracker.moved > 0 or self._saving is not None or self._saved_end != self.end

    @property
    def read_all(self) -> bool:
        """It has read up to its end."""
        return self.end is not None and self.read_to >= self.end

    @property
    def open(self) -> int:
        """Events that are on their way."""
        return self._tracker.open

    @property
    def may_end_at(self) -> int:
        """It has read what is below, or settled some of it before a restart: the live stream would send that again."""
        return max(self.read_to, self._tracker.restored_to)

    @property
    def timestamp(self) -> int | None:
        """The timestamp (milliseconds) of the first event that is owed, or that was read last; None: not known."""
        oldest = self._tracker.oldest_timestamp
        return self._timestamp if oldest is None else oldest

    @property
    def knows_rows(self) -> bool:
        """Its stored deliveries are known, so that it may read."""
        return self._stored is not None

    def has_rows(self, stored: Collection[tuple[int, int]]) -> None:
        """These deliveries (offset and timestamp of the record) are stored."""
        self._stored = stored
        self._last_stored = max((offset for offset, _ in (*stored, *self._beside)), default=-1)

    def is_row_at(self, offset: int, timestamp: int) -> None:
        """A delivery that it covers is stored, and not left to it."""
        self._beside.add((offset, timestamp))
        self._last_stored = max(self._last_stored, offset)

    def is_before_rows(self, offset: int) -> bool:
        """Later events of it are stored already. If the subscription is ordered, these wait for this one."""
        return offset < self._last_stored

    @property
    def is_start(self) -> bool:
        """Its subscription began in the past, perhaps just now."""
        return self.reason is CursorReason.START

    @property
    def finished(self) -> bool:
        """All that it owes is settled, and the database knows."""
        return self.end is not None and self.next >= self.end and not self.moved

    @property
    def is_full(self) -> bool:
        """It may hold no more events."""
        return len(self._tracker.held) >= MOST_HELD or len(self.held) >= MOST_HELD_KEYS

    @property
    def holds_many(self) -> bool:
        """It holds so many events that they are rather read again than stored."""
        return sum(self._tracker.held) > FEW_HELD

    def goes_before(self, offset: int, ordering_key: OrderingKey | None = None) -> bool:
        """Events of it that precede this offset are not sent or stored yet: some of this ordering key, or of any."""
        first = min(self.held.values(), default=inf) if ordering_key is None else self.held.get(ordering_key, inf)
        return min(self.read_to, first) < (offset if self.end is None else min(self.end, offset))

    def owes(self, offset: int) -> bool:
        """It has not read this offset yet, and does not end before it."""
        return self.read_to <= offset and (self.end is None or offset < self.end)

    def covers(self, offset: int) -> bool:
        """The live stream leaves this offset to it. A replay sends again what the live stream has sent."""
        return not self.replay and self.first <= offset and (self.end is None or offset < self.end)

    def leave(self, left: Left) -> None:
        """The live stream leaves a delivery: it is settled once the cursor is confirmed."""
        if self._timestamp is None:  # it began at the end of the log
            self._timestamp = left.event.record.timestamp
        if self.confirmed:
            left.record.settle_one()
            return
        self.waiting.append(left)
        self._waits(1)

    def confirm(self) -> None:
        """The database has the cursor as it is here: settle the deliveries that were left to it."""
        self.stored = self.confirmed = True
        for left in self.withdraw():
            left.record.settle_one()

    def withdraw(self) -> list[Left]:
        """Take the deliveries back that were left to it and are not settled."""
        waiting, self.waiting = self.waiting, []
        self._waits(-len(waiting))
        return waiting

    def kept(self) -> KeptCursor:
        """The cursor as it would be read from the database, had all that it has settled been saved."""
        mark, runs = self._tracker.committable(RUNS_LENGTH) or (self.read_to, "")
        place = self.id or 0, self.due_key, self.replay, self.reason, self.first
        return KeptCursor(*place, mark, self.end, runs, self.timestamp, None, self._version, self._expires)

    def is_row(self, kept: KeptCursor) -> None:
        """Its row has been read."""
        self.id, self._version = kept.id, kept.version

    def take(self, offset: int, timestamp: int) -> bool:
        """Read an event that the subscription gets; False if it was settled before a restart. Else `settle` it."""
        self._joins = False
        return self._reads_anew(offset, timestamp) and self._tracker.track(offset, timestamp=timestamp)

    def hold(self, offset: int, timestamp: int, ordering_key: OrderingKey) -> None:
        """Pass an event by that the subscription gets, unless it was settled before a restart."""
        joins, self._joins = self._joins, False
        if self._reads_anew(offset, timestamp) and self._tracker.hold(offset, timestamp, joins=joins):
            self.held.setdefault(ordering_key, offset)
            self._joins = True

    def go_back(self) -> None:
        """Read again from the first held event on."""
        self.read_to, self.held, self._joins = self._tracker.go_back(), {}, False

    def _reads_anew(self, offset: int, timestamp: int) -> bool:
        self._tracker.skip_to(offset)
        self.read_to, self._timestamp = offset + 1, timestamp
        if (self._stored and (offset, timestamp) in self._stored) or (offset, timestamp) in self._beside:
            self._tracker.skip_to(offset + 1)
            return False
        return True

    def settle(self, offset: int) -> None:
        """An event that was taken is delivered or stored."""
        self._tracker.settle(offset)
        self._settled += 1

    def passed(self, offset: int) -> None:
        """Nothing below this offset, or before its end, is left to read for the subscription."""
        self.read_to = max(self.read_to, offset if self.end is None else min(offset, self.end))
        self._tracker.skip_to(self.read_to)

    def loses(self, first: int, stop: int) -> int:
        """The log no longer has these offsets. Returns where the ones begin that were not known to be lost."""
        first, self._lost_to = max(first, self._lost_to), max(stop, self._lost_to)
        return first

    def meet(self, offset: int) -> None:
        """It ends here: the live stream owes the events from `offset` on."""
        self.end, self.ending = offset, True
        self._tracker.cut(offset)

    def begin_save(
        self, retention: float | None = None, identity: str | None = None, assignment: int = 1
    ) -> CursorMove | None:
        """The position to store; None if it has not moved, its row is not known, or a save is under way.

        `retention`: for how many seconds the topic keeps a record; `identity`: the topic's. None: not known.
        `assignment`: its number, as in a CursorMove.
        """
        if self.id is None or self._saving is not None or self.astray or self.gone:
            return None
        expires, timestamp = self._expires, self.timestamp
        if retention is not None:
            expires = None
            if timestamp is not None and timestamp >= 0 and retention < inf:
                expires = (timestamp / 1000 + retention) // EXPIRY_STEP * EXPIRY_STEP
        if not self.moved and expires == self._expires and (self.confirmed or not self.waiting):
            return None
        self._expires = expires
        self._saving_settled, self._settled = self._settled, 0
        self._tracker.committing()
        mark, runs = self._tracker.committable(RUNS_LENGTH) or (self.read_to, "")
        self._saving = mark, self.end, self._version + assignment
        return CursorMove(self.id, self._version, mark, self.end, runs, timestamp, expires, identity, assignment)

    def end_save(self) -> None:
        """The save that was begun is stored, so that the deliveries that were left to it are settled."""
        assert self._saving is not None  # noqa: S101 (for mypy)
        _, self._saved_end, self._version = self._saving
        self._saving, self._saving_settled = None, 0
        self.ending = self.ending and self.end != self._saved_end
        self.confirm()
