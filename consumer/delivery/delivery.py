"""An event on its way to one subscription, and where it comes from: a record that is open, or a row that is due."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from consumer.delivery.outcome import unavailable
from consumer.events.event import Event
from consumer.ledger.rows import Failure, OrderingKey
from consumer.subscriptions.endpoint import Endpoint

if TYPE_CHECKING:
    from consumer.delivery.lane import Lane
    from consumer.sending.transfer import Transfer


class OpenRecord:
    """A record with deliveries that are not settled. `started`: a receiver may have seen it."""

    __slots__ = ("_offset", "_settle", "open", "started")

    def __init__(self, settle: Callable[[int], None], offset: int, deliveries: int) -> None:
        self._settle = settle
        self._offset = offset
        self.open = deliveries
        self.started = False

    def settle_one(self) -> None:
        """One delivery is settled; with the last one the offset is."""
        self.open -= 1
        if not self.open:
            self._settle(self._offset)


class StoredRow(NamedTuple):
    """A row of the database, by its id. Its schedule began after `schedule_start` attempts."""

    id: int
    schedule_start: int = 0


class Delivery:
    """`ordering_key` is set where it has to go in order. `first` and `last` are the failed attempts so far.

    Of a batch that is open one delivery stands for the request, and the others are its `batch_members`. One that is
    `released` is still in the request, but its partition has left: the request's result is not for it. `rendered` is
    the body that was made for the request, where that is not the event's own; `slots` are those that it takes.
    """

    __slots__ = (
        "attempts",
        "batch_members",
        "due_at",
        "event",
        "first",
        "lane",
        "last",
        "ordering_key",
        "origin",
        "queued_at",
        "released",
        "rendered",
        "sent_to",
        "slots",
        "started_at",
        "transfer",
    )

    def __init__(
        self, event: Event, lane: "Lane", origin: OpenRecord | StoredRow, ordering_key: OrderingKey | None = None
    ) -> None:
        self.event = event
        self.lane = lane
        self.origin = origin
        self.ordering_key = ordering_key
        self.attempts = 0
        self.first: Failure | None = None
        self.last: Failure | None = None
        self.due_at = 0.0  # unix seconds, of the next attempt
        self.queued_at = 0.0
        self.started_at = 0.0
        self.sent_to: Endpoint | None = None  # where its request goes; the lane may be told of another url meanwhile
        self.transfer: Transfer | None = None
        self.batch_members: Sequence[Delivery] = ()
        self.released = False
        self.rendered: bytes | None = None
        self.slots = 1

    @property
    def goes_alone(self) -> bool:
        """Its last attempt was answered with a status that may be about its event: others must not fail with it."""
        return self.last is not None and not unavailable(self.last.status)

    def batch(self) -> tuple["Delivery", ...]:
        """All that its request carries and whose partitions are still here."""
        if not self.batch_members:
            return () if self.released else (self,)
        return tuple(each for each in (self, *self.batch_members) if not each.released)

    def split(self) -> tuple["Delivery", ...]:
        """The same, once the request has ended: from now on each goes its own way."""
        members = self.batch()
        self.batch_members = ()
        return members
