"""Sends one event of the log to one subscription again, also if it was delivered: the same id, a new attempt."""

from typing import NamedTuple

from consumer.config.settings import KafkaSettings
from consumer.errors import Conflict, NotFound
from consumer.events.event import Event
from consumer.ledger.replays import Span
from consumer.ops import replay_request
from consumer.ops.changes import Changes
from consumer.ops.replay_request import Plan, default_rate
from consumer.ops.story import ReceiverState, tell


class Resent(NamedTuple):
    """How it is sent: its stored delivery is due now, or a replay reads its record again."""

    subscription_id: int
    delivery_id: int | None
    replay_id: int | None


def resend(by: Changes, event: Event, kafka: KafkaSettings, subscription_id: int) -> Resent:
    """Send an event again, on its way through the workers. An operational event names the actor.

    Raises NotFound, and Conflict if the subscription would not get it, or gets it anyway.
    """
    where, record = by.deployment, event.record
    (found,) = tell(where, event, kafka, None, by.tenant, subscription_id).receivers or (None,)
    if found is None or found.event_type is None:
        raise NotFound("subscription", subscription_id)
    open_rows = found.delivery_id is not None and found.state is not ReceiverState.DELIVERED
    if found.delivery_id is not None and open_rows and by.redeliver_these([found.delivery_id]):
        return Resent(subscription_id, found.delivery_id, None)
    if found.state is ReceiverState.WAITING:
        raise Conflict(f"subscription {subscription_id} gets it anyway: {found.why}")
    if not found.matches:
        raise Conflict(f"subscription {subscription_id} would not get it: {found.why}")
    item, at = where.subscription(subscription_id, by.tenant), max(0.0, record.timestamp / 1000)
    # A second earlier than the record's timestamp, since a database rounds it.
    planned = Plan(item, max(0.0, at - 1), at, None, (), default_rate(item.options["rate_limit"]), where.clock())
    replay_request.check_receiver(item)
    span = Span(*record.topic_partition, record.offset, record.offset + 1)
    with where.engine.begin() as connection:
        return Resent(subscription_id, None, replay_request.create(connection, where.group, by.actor, planned, [span]))
