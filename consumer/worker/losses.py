"""Events that were owed to subscriptions and that the log no longer has: counted, logged, and an operational event."""

from collections.abc import Iterable
from functools import partial

import structlog

from consumer.delivery.failing import Notes
from consumer.ledger import cursors, outbox
from consumer.ledger.cursors import KeptCursor
from consumer.ledger.rows import DueKey, OperationalEvent, in_transaction

log = structlog.get_logger(__name__)

LONGEST_ID = 255  # characters of its column; the longest topic has 249


class Losses:
    """`offsets` counts them, with the ones that had no event for the subscription. Used on the loop's thread."""

    def __init__(self, group: str, notes: Notes) -> None:
        self._group = group
        self._notes = notes
        self.offsets = 0

    def report(self, due_key: DueKey, first: int, stop: int, reason: str) -> None:
        """The log no longer has the offsets from `first` to before `stop`, which a subscription had not got yet."""
        topic, partition, subscription = due_key
        if stop <= first:
            return
        self.offsets += stop - first
        data: dict[str, object] = {
            "subscription_id": subscription,
            "topic": topic,
            "partition": partition,
            "first_offset": first,
            "end_offset": stop,
            "reason": reason,
        }
        log.error("events of a subscription that is behind are gone from Kafka; it does not get them", **data)
        identity = f"lost-{subscription}-{partition}-{stop}-{topic}"[:LONGEST_ID]
        operation = OperationalEvent("subscription.events_lost", identity, data)
        write = partial(outbox.add, group=self._group, operations=[operation])
        self._notes.add(lambda engine: in_transaction(engine, write))

    def give_up(self, lost: Iterable[KeptCursor], reason: str, log_end: int = -1) -> None:
        """Report and delete cursors whose records are gone. One without an end owes them up to where the log ended.

        At least to `log_end`; it owed one or more.
        """
        for each in lost:
            self.report(each.due_key, each.next, max(each.next + 1, log_end) if each.end is None else each.end, reason)
            self._notes.add(partial(cursors.remove, ids=[each.id]))
