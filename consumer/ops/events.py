"""Looks up an event: the record at an offset, and the event that it carries."""

from typing import NamedTuple

from consumer.config.settings import KafkaSettings
from consumer.errors import Tombstone, Undecodable
from consumer.events.event import Event
from consumer.intake.record import Record
from consumer.ops.event_reader import ReadEvent
from consumer.ops.tail import record_at


class Found(NamedTuple):
    """A record of the log, and its event. `event` None: the record is not an event, for this `reason`."""

    record: Record
    event: Event | None
    reason: str | None


def find(kafka: KafkaSettings, read_event: ReadEvent, topic: str, partition: int, offset: int) -> Found | None:
    """The record at an offset; None if the log no longer holds it. Raises as `tail.record_at` does."""
    record = record_at(kafka, topic, partition, offset)
    if record is None:
        return None
    try:
        return Found(record, read_event(record), None)
    except (Undecodable, Tombstone) as error:
        return Found(record, None, str(error))
