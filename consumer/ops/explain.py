"""`explain`: how a worker would read a record, field by field."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import product
from typing import NamedTuple

import orjson

from consumer.config.settings import KafkaSettings
from consumer.errors import Tombstone, Undecodable, WebhooksError
from consumer.events.event import Event, RecordId
from consumer.intake.decode import decode, decoded, webhook_id
from consumer.intake.mapping import BY_PLACE, NO_CONTENT_TYPE, NO_TENANT, Step
from consumer.intake.mapping_file import Mappings
from consumer.intake.record import Record
from consumer.ops.events import newest, record_at

SHOWN = 500  # bytes of a body
_DEFAULT = "the rules for topics without a mapping"
_LAST = 10  # offsets at a partition's end, some of which may be markers of transactions


class Explained(NamedTuple):
    """The `outcome` of the record at `place`: an event, a tombstone or a dead_letter.

    `mapping` names the rules; `steps` explain each field, up to the one at fault. `reason` and `detail` are a dead
    letter's.
    """

    place: RecordId
    mapping: str
    steps: tuple[Step, ...]
    outcome: str
    event: Event | None = None
    reason: str | None = None
    detail: str | None = None


def record_of(kafka: KafkaSettings, topic: str, partition: int | None, offset: int | None) -> Record:
    """The record at an offset of a partition, or the newest one of a partition or topic.

    Raises WebhooksError if there is none, and as `events.newest` does.
    """
    if offset is not None and partition is not None:
        found = record_at(kafka, topic, partition, offset)
        where = f"{topic}[{partition}] has no record at offset {offset}"
    else:
        found = next(iter(newest(kafka, topic, _LAST, partition)), None)
        where = f"{topic}{'' if partition is None else f'[{partition}]'} has no record"
    if found is None:
        raise WebhooksError(f"{where}: is the name right, and does the log still hold it?")
    return found


def explain(
    record: Record,
    tenant_name: str,
    mapped: Mappings | None,
    json_of: Callable[[Record], Record] = lambda record: record,
) -> Explained:
    """Read a record as a worker with these rules does. `json_of`: from `events.json_reader`.

    Raises RegistryUnavailable.
    """
    mapping = None if mapped is None else mapped.of(record.partition.topic)
    so_far = Explained(record.id, _DEFAULT if mapping is None else mapping.name, (), "event")
    try:
        record = decoded(json_of, record)
        if mapping is not None:
            steps: list[Step] = []
            with suppress(Tombstone, Undecodable):  # `decode` raises them again below
                decoded(lambda each: steps.extend(mapping.explain(each)), record)
            so_far = so_far._replace(steps=tuple(steps))
        event = decoded(partial(decode, tenant_name=tenant_name, mapped=mapped), record)
        return so_far._replace(event=event, steps=so_far.steps or tuple(_default_steps(event, tenant_name)))
    except Tombstone:
        return so_far._replace(outcome="tombstone")
    except Undecodable as error:
        return so_far._replace(outcome="dead_letter", reason=error.reason, detail=str(error))


def _default_steps(event: Event, tenant_name: str) -> Iterator[Step]:
    """The source of each field of an event by the default rules: the first place that gives what the event has."""
    places: dict[str, bytes] = {f"headers['{name}']": text or b"" for name, text in (event.headers or {}).items()}
    with suppress(orjson.JSONDecodeError):  # only a body of JSON has fields
        if isinstance(found := orjson.loads(event.body), dict):
            texts = {name: orjson.dumps(each) if isinstance(each, int) else each for name, each in found.items()}
            places |= {f"value.{name}": _bytes(each) for name, each in texts.items() if isinstance(each, str | bytes)}
    places["topic"] = event.record.topic.encode()

    def first(field: str, value: str | None, *names: str, otherwise: str) -> Step:
        by = (name for name in names if value is not None and places.get(name) == value.encode())
        return Step(field, next(by, otherwise), value)

    types = "headers['ce_type']", "headers['event-type']", "value.type", "value.event_type", "value.eventType"
    yield first("type", event.type, *types, otherwise="topic")
    yield Step("body", "value", None)
    sources = [name for name in ("headers['ce_source']", "value.source", "topic") if name in places]
    ids = [name for name in ("headers['ce_id']", "value.id", "headers['event-id']") if name in places]
    for source, by in product(sources, (*ids, BY_PLACE)):
        if webhook_id(places[source], places.get(by), event.record) == event.webhook_id:
            yield Step("source", source, places[source].decode("utf-8", "replace"))
            yield Step("id", by, places[by].decode("utf-8", "replace") if by in places else None)
            break
    tenants = f"headers['ce_{tenant_name}']", f"value.{tenant_name}", f"headers['{tenant_name}']"
    yield first("tenant", event.tenant, *tenants, otherwise=NO_TENANT)
    yield first("content_type", event.content_type, "headers['content-type']", otherwise=NO_CONTENT_TYPE)


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value
