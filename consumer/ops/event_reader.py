"""Reads the events that records carry, as the workers of a deployment do, for callers outside their loop."""

from collections.abc import Callable
from functools import partial

from consumer.config.settings import KafkaSettings
from consumer.events.event import Event
from consumer.intake.decode import decode
from consumer.intake.mapping_file import mappings_of
from consumer.intake.record import Record

ReadEvent = Callable[[Record], Event]  # raises Tombstone and Undecodable, as `decode` does


def event_reader(kafka: KafkaSettings) -> ReadEvent:
    """A function that reads records by the workers' settings: else the ids of events would differ.

    Raises SettingsError if the file of KAFKA_MAPPINGS_FILE cannot be used.
    """
    return partial(decode, tenant_name=kafka.tenant, mapped=mappings_of(kafka))
