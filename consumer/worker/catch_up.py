"""Brings subscriptions that are behind up to the live stream: reads the log for their cursors, and feeds their lanes.

A *pass* reads a partition for the cursors whose positions are near each other; each of them takes the records from its
own position on. A cursor whose lane has no room leaves the pass, and another pass goes on from there. Passes of a
partition take turns, so that a far cursor does not keep a near one waiting.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from math import inf
from typing import NamedTuple

import structlog

from consumer.database.job import ThreadJob
from consumer.delivery.backlog import Backlog
from consumer.delivery.cursors import Cursor
from consumer.delivery.delivery import Delivery, OpenRecord
from consumer.delivery.known_rows import ordering_key_of
from consumer.delivery.lanes import Admission, Lanes
from consumer.delivery.limits import Memory
from consumer.delivery.settling import Settling
from consumer.errors import Tombstone, Undecodable
from consumer.events.event import Event, TopicPartition
from consumer.intake.cursor_reader import CursorReader
from consumer.intake.record import Record
from consumer.ledger.cursors import KeptCursor
from consumer.ledger.rows import DueKey
from consumer.loop.part import Part
from consumer.matching.catalog import Pattern, patterns_of
from consumer.matching.selection import FILTER_TOO_LARGE, FilterResult, Selector
from consumer.matching.subscribers import Subscriber
from consumer.subscriptions.endpoint import Endpoint

log = structlog.get_logger(__name__)

SAVE_EVERY = 1.0  # seconds between two saves of a cursor's position
MOST_UNSAVED = 500  # settled deliveries of a cursor that a crash may repeat
NEAR = 2_000  # offsets within which cursors share a pass; and the records of a pass before another one has its turn
PASSES = 8  # partitions that are read at once
RECORDS = 100  # of one turn, so that catching up does not slow the live stream
LOOK_EVERY = 5.0  # seconds between two looks at idle cursors
LOOKED_AT = 256  # subscriptions of one look
AGAIN = 0.1  # seconds until a cursor whose lane had no room is tried again


class LookUp(NamedTuple):
    """The subscriptions and the cursors of some due keys."""

    subscribers: Mapping[int, Subscriber]
    kept: Mapping[DueKey, list[KeptCursor]]


class _Pass:
    """The cursors that read a partition together; `pending` events were read and not yet offered."""

    def __init__(self, members: Mapping[Cursor, Subscriber], begin: int) -> None:
        self.members = dict(members)
        self.pending: deque[Record] = deque()
        self.position = begin  # the records before it were offered
        self.until = begin + NEAR
        self._by_pattern: dict[Pattern, list[Cursor]] = {}
        for cursor, subscriber in members.items():
            self._by_pattern.setdefault(subscriber.pattern, []).append(cursor)

    def getting(self, event: Event) -> list[Cursor]:
        """The members whose subscription's type and tenant fit, and that have not read this event yet."""
        offset = event.record.offset
        return [
            cursor
            for pattern in patterns_of((event.type, event.tenant))
            for cursor in self._by_pattern.get(pattern, ())
            if cursor in self.members and cursor.read_to <= offset
        ]

    def leave(self, cursor: Cursor) -> None:
        """The cursor has read the records before `position`, and goes on from there in another pass."""
        del self.members[cursor]
        cursor.passed(self.position)

    def end(self) -> None:
        """All members have read the records before `position`."""
        for cursor in self.members:
            cursor.passed(self.position)
