"""The values that the ledger takes and returns. Times are unix seconds."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal, NamedTuple

from consumer.events.event import Event
from consumer.subscriptions.endpoint import Endpoint

DueKey = tuple[str, int, int]  # topic, partition, subscription: a range of stored deliveries


def due_key_of(event: Event, subscription_id: int) -> DueKey:
    """The due key of a subscription's stored delivery of this event."""
    return (*event.record.topic_partition, subscription_id)


class OrderingKey(NamedTuple):
    """A key of an ordered subscription in a partition: one delivery of it is under way at a time."""

    subscription_id: int
    topic: str
    partition: int
    key: str


def order_key(key: bytes) -> str:
    """The `key` of an OrderingKey: a digest that fits an index however long the record's key is."""
    return blake2b(key, digest_size=16).hexdigest()


class AttemptFailure(NamedTuple):
    """An attempt that failed at `at`. `response` is the start of the answer's body, stored escaped to ASCII."""

    error: str
    status: int | None
    response: str | None
    at: float


class OperationalEvent(NamedTuple):
    """An operational event to publish. `event_id` is the same for each repeated write; `data` becomes JSON."""

    type: str
    event_id: str
    data: Mapping[str, object]


class NewDelivery(NamedTuple):
    """A delivery to store.

    `attempt` counts the attempts made, `schedule_start` of them before its retry schedule began; `next_attempt_at` is
    for `parked`. With an `ordering_key`, the delivery waits behind the open rows of that key; a replay's delivery has
    none. `filter_pending`: the subscription's filter has to be evaluated before sending.
    """

    event: Event
    subscription_id: int
    url: str
    attempt: int
    status: Literal["parked", "exhausted"]
    next_attempt_at: float | None
    first: AttemptFailure | None = None
    last: AttemptFailure | None = None
    ordering_key: OrderingKey | None = None
    operation: OperationalEvent | None = None
    replay: int = 0
    schedule_start: int = 0
    filter_pending: bool = False


class AttemptResult(NamedTuple):
    """The result of one more attempt, which ended at `at`, of the row `id` after `attempt_before` earlier ones.

    The attempt belongs to the retry schedule that began after `schedule_start` attempts. `unwanted`: no attempt was
    made, because the event does not pass the subscription's filter.
    """

    id: int
    attempt_before: int
    status: Literal["delivered", "parked", "exhausted", "unwanted"]
    next_attempt_at: float | None
    status_code: int | None
    failure: AttemptFailure | None
    at: float
    ordering_key: OrderingKey | None = None
    operation: OperationalEvent | None = None
    schedule_start: int = 0


@dataclass(frozen=True, slots=True)
class DueDelivery:
    """A stored delivery to send now. Of the `attempt` attempts made, `schedule_start` were on an older schedule."""

    id: int
    event: Event
    endpoint: Endpoint
    attempt: int
    schedule_start: int
    first: AttemptFailure | None
    last: AttemptFailure | None
    ordering_key: OrderingKey | None
    replay: int
    filter_pending: bool
