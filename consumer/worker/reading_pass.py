"""A pass: cursors of a partition that read it together, each from its own position on."""

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

from consumer.delivery.cursors import Cursor
from consumer.events.event import Event
from consumer.intake.record import Record
from consumer.ledger.rows import DueKey
from consumer.matching.catalog import Pattern, patterns_of
from consumer.matching.selection import FilterResult
from consumer.matching.subscribers import Subscriber
from consumer.subscriptions.endpoint import Endpoint

LENGTH = 20_000  # records of a pass before another one has its turn
REST = 0.5  # seconds without a record after which a pass ends
LONGEST = 5.0  # seconds; its subscriptions are read again before the next one
PATIENCE = 0.05  # seconds for which a pass waits in all for members whose lanes have no room: a key may be blocked
MOST, MOST_BYTES = 500, 4 * 2**20  # records that may come meanwhile, for it and before the ones of other passes
FAR = 1_000  # records that nobody owes: another pass of the partition goes first, and begins anew behind them
MOST_CHOSEN = 1_000  # types and tenants whose members are remembered
ADVANCE_EVERY = 0.05  # seconds between two updates of the members' positions


class Looked(NamedTuple):
    """A subscription, from a look-up that began after the live stream had judged the records before `judged_to`."""

    subscriber: Subscriber
    judged_to: int


class Pass:
    """The cursors that read a partition from `begin` on, with their subscriptions.

    All members have the records before `position`. `pending` were read after it, each with its time; the first of them
    is `event`, if it is one, and `owing` are the members that do not have it yet (None: it was not looked at).
    """

    def __init__(
        self, members: Mapping[Cursor, Looked], begin: int, now: float, pending: Collection[tuple[Record, float]] = ()
    ) -> None:
        self.members = dict(members)
        self.pending = deque(pending)
        self.position = begin
        self.event: Event | None = None
        self.owing: deque[Cursor] | None = None
        self.answers: dict[Cursor, FilterResult] = {}  # of the filters of members that wait with the event
        self._until = begin + LENGTH
        self._bytes = sum(record.size for record, _ in pending)
        self._began_at = self._moved_at = self._advanced_at = now
        self._waits_since: float | None = None
        self._held = False
        self._asks_on = False
        self._waited = 0.0
        self._nearest = begin  # where the member that is the furthest behind has read to
        self._chosen: dict[tuple[str, str | None], tuple[Cursor, ...]] = {}  # members by an event's type and tenant
        self._by_pattern: dict[Pattern, list[Cursor]] = {}
        self._of: dict[int, list[Cursor]] = {}  # members by subscription
        for cursor in members:
            self._of.setdefault(cursor.due_key[2], []).append(cursor)
        self._newer: dict[Cursor, Endpoint] = {}  # for the event, as the live stream has looked them up
        self._judged_to: int | None = None  # by the look-ups of all members; None: not known
        self._asked = -1  # the last offset for which newer look-ups were asked for
        self._sort_patterns()

    def _sort_patterns(self) -> None:
        self._chosen.clear()
        self._by_pattern.clear()
        for cursor, looked in self.members.items():
            for pattern in looked.subscriber.patterns:
                self._by_pattern.setdefault(pattern, []).append(cursor)

    def add(self, record: Record, now: float) -> None:
        """A record was read."""
        self.pending.append((record, now))
        self._bytes += record.size
        self._moved_at = now

    def is_judged(self, offset: int) -> bool:
        """The live stream had judged this offset when the look-ups of all members began."""
        if self._judged_to is None:
            self._judged_to = min((looked.judged_to for looked in self.members.values()), default=0)
        return offset < self._judged_to

    def hold(self, event: Event | None = None) -> None:
        """The first pending record waits, for the live stream or for a look-up; `event`: its own, if it was read."""
        self._held, self.event = True, event

    def asks(self, offset: int) -> Iterable[DueKey]:
        """The due keys to look up anew, so that this offset `is_judged`; it asks once."""
        asked, self._asked = self._asked, offset
        if asked == offset:
            return ()
        return [cursor.due_key for cursor, looked in self.members.items() if looked.judged_to <= offset]

    def look(self, event: Event | None, matched: Sequence[Endpoint] = ()) -> None:
        """The first pending record carries this event. Type and tenant choose the members that it is offered to.

        `matched`: the subscriptions that the live stream has looked up for it, unless it `is_judged`.
        """
        self.event, self.owing, self._held = event, deque(), False
        self._newer = {cursor: each for each in matched for cursor in self._of.get(each.subscription_id, ())}
        if event is None:
            return
        offset, chosen = event.record.offset, (event.type, event.tenant)
        if (cursors := self._chosen.get(chosen)) is None:
            several = (self._by_pattern.get(pattern, ()) for pattern in patterns_of(chosen))
            if len(self._chosen) >= MOST_CHOSEN:
                self._chosen.clear()
            cursors = self._chosen[chosen] = tuple(dict.fromkeys(chain.from_iterable(several)))
        for cursor in dict.fromkeys(chain(cursors, self._newer)) if self._newer else cursors:
            if cursor.owes(offset):
                self.owing.append(cursor)

    def endpoint(self, cursor: Cursor) -> Endpoint | None:
        """The member's subscription, for the event."""
        return self._newer.get(cursor) or self.members[cursor].subscriber.endpoint

    def may_wait(self, now: float) -> bool:
        """Whether to wait for members that have no room now: not for long, as others wait behind them."""
        waits = 0.0 if self._waits_since is None else now - self._waits_since
        return self._waited + waits < PATIENCE and not self.is_full

    def wait(self, now: float) -> None:
        """Wait for a member that has no room."""
        self._asks_on = False
        if self._waits_since is None:
            self._waits_since = now

    def ask_on(self) -> None:
        """There was no time to ask all members: ask the others in the next turn, which is to come at once."""
        self._asks_on = True

    def wait_no_more(self, now: float) -> None:
        """Wait for no member."""
        if self._waits_since is not None:
            self._waited += now - self._waits_since
            self._waits_since = None

    def took(self, now: float) -> None:
        """All members have the first pending record."""
        record, _ = self.pending.popleft()
        self._moved_at = now
        self._bytes -= record.size
        self.position, self.event, self.owing = record.offset + 1, None, None
        self.answers.clear()
        self.wait_no_more(now)

    def leave(self, cursor: Cursor) -> None:
        """The member has read the records before `position`, and continues from there in another pass."""
        if self.members.pop(cursor, None) is not None:
            cursor.passed(self.position)

    def keep(self, due_key: DueKey, cursors: Collection[Cursor], looked: Looked | None) -> None:
        """The due key was looked up: other cursors of it than these read no more. None: its cursors may not move."""
        for cursor in filter(self.members.__contains__, self._of.get(due_key[2], ())):
            if looked is None or cursor not in cursors:
                del self.members[cursor]
            else:
                before, self.members[cursor], self._judged_to = self.members[cursor], looked, None
                if before.subscriber.patterns != looked.subscriber.patterns:
                    self._sort_patterns()

    def advance(self, position: int, now: float, *, at_once: bool) -> list[Cursor]:
        """All members have read the records before this offset. Tell them, `at_once` or now and then.

        Returns the ones that were told. Those that end there leave.
        """
        self.position = max(self.position, position)
        if not at_once and now < self._advanced_at + ADVANCE_EVERY:
            return []
        self._advanced_at, told = now, list(self.members)
        for cursor in told:
            cursor.passed(self.position)
            if cursor.read_all:
                del self.members[cursor]
        self._nearest = min((cursor.read_to for cursor in self.members), default=self.position)
        return told

    @property
    def has_more(self) -> bool:
        """It has records to offer, and does not wait for all members that owe the first one."""
        return bool(self.pending) and not self._held and (self._waits_since is None or self._asks_on)

    @property
    def is_full(self) -> bool:
        """No more records may be read for it."""
        return len(self.pending) >= MOST or self._bytes >= MOST_BYTES

    def reaches(self, cursor: Cursor) -> bool:
        """The pass will come to what a member owes."""
        return cursor.read_to < self._until

    def is_over(self, now: float) -> bool:
        """Another pass of the partition may have its turn."""
        rests = (self._held or not self.pending) and now >= self._moved_at + REST
        is_far = not self.pending and self._nearest > self.position + FAR
        return not self.members or rests or is_far or self.position >= self._until or now >= self._began_at + LONGEST
