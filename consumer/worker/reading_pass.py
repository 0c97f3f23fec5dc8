"""A pass: cursors of a partition whose positions are near each other, and that read it together."""

from collections import deque
from collections.abc import Collection, Mapping

from consumer.delivery.cursors import Cursor
from consumer.events.event import Event
from consumer.intake.record import Record
from consumer.ledger.rows import DueKey
from consumer.matching.catalog import Pattern, patterns_of
from consumer.matching.subscribers import Subscriber

NEAR = 2_000  # offsets within which cursors share a pass; and the records of a pass before another one has its turn
REST = 0.5  # seconds without a record after which a pass ends
LONGEST = 5.0  # seconds; its subscriptions are read again before the next one
PATIENCE = 0.05  # seconds for which a pass waits for members whose lanes have no room


class Pass:
    """The cursors that read a partition from `begin` on, with their subscriptions.

    All members have the records before `position`; `pending` ones were read, and some members do not have them yet.
    """

    def __init__(self, members: Mapping[Cursor, Subscriber], begin: int, now: float) -> None:
        self.members = dict(members)
        self.pending: deque[Record] = deque()
        self.position = begin
        self._until = begin + NEAR
        self._began_at = self._moved_at = now
        self._waits_since: float | None = None
        self._by_pattern: dict[Pattern, list[Cursor]] = {}
        for cursor, subscriber in members.items():
            self._by_pattern.setdefault(subscriber.pattern, []).append(cursor)

    def add(self, record: Record, now: float) -> None:
        """A record was read."""
        self.pending.append(record)
        self._moved_at = now

    def getting(self, event: Event) -> list[Cursor]:
        """The members that owe this event to a subscription, if its filter wants it: type and tenant fit."""
        offset = event.record.offset
        return [
            cursor
            for pattern in patterns_of((event.type, event.tenant))
            for cursor in self._by_pattern.get(pattern, ())
            if cursor in self.members and cursor.read_to <= offset and (cursor.end is None or offset < cursor.end)
        ]

    def waits_for(self, cursors: Collection[Cursor], now: float) -> bool:
        """These members cannot take the first pending record now. True: wait for them. Else they leave."""
        if self._waits_since is None:
            self._waits_since = now
        if now < self._waits_since + PATIENCE:
            return True
        for cursor in cursors:
            self.leave(cursor)
        return False

    def leave(self, cursor: Cursor) -> None:
        """A member has read the records before `position`, and continues from there in another pass."""
        del self.members[cursor]
        cursor.passed(self.position)

    def took(self) -> None:
        """All members have the first pending record."""
        self.position = self.pending.popleft().offset + 1
        self._waits_since = None

    def keep(self, due_key: DueKey, cursors: Collection[Cursor]) -> None:
        """Other cursors of the due key than these read no more."""
        for cursor in [each for each in self.members if each.due_key == due_key and each not in cursors]:
            del self.members[cursor]

    def advance(self, position: int) -> None:
        """All members have read the records before this offset; the ones that end there leave."""
        self.position = max(self.position, position)
        for cursor in list(self.members):
            cursor.passed(self.position)
            if cursor.read_all:
                del self.members[cursor]

    def is_over(self, now: float) -> bool:
        """Another pass of the partition may have its turn."""
        if not self.members:
            return True
        over = self.position >= self._until or now >= self._began_at + LONGEST or now >= self._moved_at + REST
        return over and not self.pending
