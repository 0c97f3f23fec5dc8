"""Carries out operators' decisions on deliveries that the database refuses.

`deliveries settle` only writes a mark; the owner of the partition acts on it once the database has refused the delivery
again. The mark stays until the group's offset has passed it. Until then, after a crash or a rebalance, the next owner
acts on it again.
"""

from collections.abc import Callable, Mapping
from functools import partial

import structlog
from sqlalchemy import Engine

from consumer.delivery.notes import Notes
from consumer.delivery.set_aside import Decided
from consumer.events.event import TopicPartition
from consumer.http.urls import redact_url
from consumer.intake.dead_letters import DeadLetters
from consumer.intake.record import Partition, Record
from consumer.ledger import marks
from consumer.ledger.marks import Subject
from consumer.telemetry.metrics import Metrics
from models import Wish

log = structlog.get_logger(__name__)

REASON = "not_stored"  # of the dead letter


class Decisions:
    """Acts on decisions, on the loop's thread."""

    def __init__(
        self,
        group: str,
        dead_letters: DeadLetters,
        notes: Notes,
        metrics: Metrics,
        partitions: Callable[[], Mapping[TopicPartition, Partition]],
    ) -> None:
        self._group = group
        self._dead_letters = dead_letters
        self._notes = notes
        self._metrics = metrics
        self._partitions = partitions

    def act(self, decided: Decided, settle: Callable[[], None]) -> None:
        """Carry a decision out, then `settle` the delivery. The next owner acts if the partition was revoked."""
        event = decided.item.event
        partition = self._partitions().get(event.record.topic_partition)
        if partition is None:
            return
        done = partial(self._done, decided, settle)
        if decided.wish == Wish.GIVE_UP:
            done()
            return
        headers = None if event.headers is None else list(event.headers.items())
        record = Record(partition, event.record.offset, event.record.timestamp, event.key, event.body, headers)
        detail = f"subscription {decided.item.subscription_id}: {decided.error}"
        self._dead_letters.send(record, REASON, detail, done)

    def _done(self, decided: Decided, settle: Callable[[], None]) -> None:
        item, wish = decided.item, decided.wish
        self._metrics.deliveries["exhausted" if wish == Wish.GIVE_UP else "dead_lettered"] += 1
        log.error(
            "a delivery is settled by decision, and was not delivered",
            decision=wish.value,
            **item.event.record._asdict(),
            webhook_id=item.event.webhook_id,
            event_type=item.event.type,
            subscription=item.subscription_id,
            url=redact_url(item.url),
            attempts=item.attempt,
            last_error=item.last.error if item.last else None,
            error=decided.error,
        )
        subject = Subject(*item.event.record[:3], item.subscription_id)

        def note(engine: Engine) -> None:
            marks.acted(engine, self._group, subject)

        self._notes.add(note, lambda: None)
        settle()
