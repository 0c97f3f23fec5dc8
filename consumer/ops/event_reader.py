"""Reads the events that records carry, as the workers of a deployment do, for callers outside their loop."""

from collections.abc import Callable
from functools import partial

from consumer.config.settings import KafkaSettings, SchemaSettings
from consumer.events.event import Event
from consumer.intake.decode import decode, decoded
from consumer.intake.mapping_file import mappings_of
from consumer.intake.record import Record

ReadEvent = Callable[[Record], Event]  # raises Tombstone, Undecodable and RegistryUnavailable


def event_reader(kafka: KafkaSettings, schemas: SchemaSettings) -> ReadEvent:
    """A function that reads records by the workers' settings: with other settings the ids of events would differ.

    It queries the schema registry if there is one. A bug of a decoder makes the record Undecodable, as for workers.
    Raises SettingsError if the file of KAFKA_MAPPINGS_FILE cannot be used.
    """
    read, json_of = partial(decode, tenant_name=kafka.tenant, mapped=mappings_of(kafka)), json_reader(schemas)
    return partial(decoded, lambda record: read(json_of(record)))


def json_reader(schemas: SchemaSettings) -> Callable[[Record], Record]:
    """A function that converts a record's value to JSON by its schema; without SCHEMA_REGISTRY_URL it changes nothing.

    It raises Undecodable and RegistryUnavailable.
    """
    if schemas.url is None:
        return lambda record: record
    from consumer.schemas.registry import Registry  # noqa: PLC0415 (an extra)
    from consumer.schemas.translation import translator  # noqa: PLC0415 (only with a registry)

    return translator(Registry(schemas).decoder)
