"""`explain`: the event made from a record, and the subscriptions that would get it."""

import json

import pytest
from structlog.testing import capture_logs

from consumer.config.settings import KafkaSettings, SchemaSettings
from consumer.errors import Undecodable, WebhooksError
from consumer.events.event import Event
from consumer.intake.mapping_file import parse
from consumer.intake.offsets import OffsetTracker
from consumer.intake.record import AssignedPartition, Headers, Record
from consumer.ops.events import event_reader
from consumer.ops.explain import Explained, explain, record_of
from tests.kafka_kit import Kafka

MAPPING = """[[mapping]]
topics = ["shop.*"]
type = ["headers.kind", "value.table + '.created'"]
id = "value.id"
body = "value.after"
attributes = { subject = "key" }
"""
VALUE = {"id": 7, "table": "orders", "op": "c", "after": {"n": 1}}


def explained(value: object, topic: str = "shop.orders", headers: Headers | None = None) -> Explained:
    body = None if value is None else json.dumps(value).encode()
    record = Record(AssignedPartition(topic, 2, OffsetTracker(None)), 7, 1, b"k", body, headers)
    return explain(record, "tenant", parse(MAPPING, "m.toml"))


def event() -> Event:
    found = explained(VALUE).event
    assert found is not None
    return found


def test_each_field_has_its_source_and_value() -> None:
    """The source is the expression, or a rule in words."""
    found = explained(VALUE)
    assert (found.mapping, found.outcome) == ("the mapping of shop.*", "event")
    assert {step.field: (step.by, step.value) for step in found.steps} == {
        "type": ("value.table + '.created'", "orders.created"),
        "body": ("value.after", None),
        "source": ("the topic", None),
        "id": ("value.id", "7"),
        "tenant": ("none: only subscriptions of every tenant get it", None),
        "content_type": ("the rule for events without one", "application/json"),
        "attributes.subject": ("key", "k"),
    }
    assert found.event is not None
    assert found.event.body == b'{"n":1}'


def test_a_topic_without_a_mapping_has_the_default_rules() -> None:
    """These rules are shown like a mapping, with the place that each field has its value from."""
    found = explained({"event_type": "a", "id": "no"}, "users", [("event-id", b"5"), ("tenant", b"acme")])
    assert found.mapping == "the rules for topics without a mapping"
    assert {step.field: (step.by, step.value) for step in found.steps} == {
        "type": ("value.event_type", "a"),
        "body": ("value", None),
        "source": ("topic", "users"),
        "id": ("headers['event-id']", "5"),
        "tenant": ("headers['tenant']", "acme"),
        "content_type": ("the rule for events without one", "application/json"),
    }
    given = {"specversion": "1.0", "type": "a", "id": "5", "source": "/shop", "tenant": 7}
    by = {step.field: step.by for step in explained(given, "users", [("content-type", b"text/plain")]).steps}
    assert (by["source"], by["id"], by["tenant"]) == ("value.source", "value.id", "value.tenant")
    placed = {step.field: step.by for step in explained({"id": "no"}, "users", [("content-type", b"a/b")]).steps}
    assert placed["id"].startswith("the record's place")
    assert (placed["type"], placed["content_type"]) == ("topic", "headers['content-type']")


def test_a_dead_letter_has_the_fields_before_the_invalid_one() -> None:
    """It also has the reason and detail of the dead letter. A tombstone has no field and no event."""
    assert explained(None)[2:] == ((), "tombstone", None, None, None)
    found = explained({"table": "orders", "op": "c"})
    assert (found.outcome, found.event, found.reason) == ("dead_letter", None, "no_body")
    assert found.detail == "the mapping of shop.*: body: the record has nothing that value.after reads"
    assert [step.field for step in found.steps] == ["type"]


def test_the_record(mock_kafka: str) -> None:
    """It is the newest of the topic or a partition, or the one at an offset.

    Otherwise the error says what is missing.
    """
    kafka = Kafka(mock_kafka, real=False)
    topic, settings = kafka.topic(), kafka.settings()
    with pytest.raises(WebhooksError, match=f"{topic} has no record: is the name right"):
        record_of(settings, topic, None, None)
    for number, partition in enumerate((0, 1, 1, 0, 1)):
        kafka.write(topic, [b"%d" % number], partition=partition)
    places: list[tuple[int | None, int | None]] = [(None, None), (0, None), (1, None), (1, 1)]
    assert [record_of(settings, topic, *place).value for place in places] == [b"4", b"3", b"4", b"2"]
    for place, said in (((1, 99), r"\[1\] has no record at offset 99"), ((7, None), r"\[7\] has no record")):
        with pytest.raises(WebhooksError, match=said):
            record_of(settings, topic, *place)


def test_a_bug_of_a_decoder_is_a_dead_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for workers: `explain` has the reason, and a replay counts the record and goes on. No text has the payload."""

    def failing(record: Record, *_: object, **__: object) -> Record:
        raise RuntimeError(f"{record.value!r}")

    record = Record(AssignedPartition("orders", 2), 7, 1, None, b'{"type": "secret"}', None)
    with capture_logs() as logs:
        found = explain(record, "tenant", None, failing)
        monkeypatch.setattr("consumer.ops.events.decode", failing)
        with pytest.raises(Undecodable) as refused:
            event_reader(KafkaSettings(bootstrap_servers="localhost:9092"), SchemaSettings())(record)
    assert (found.outcome, found.reason, refused.value.reason) == ("dead_letter", "error", "error")
    assert [line["record"] for line in logs] == [("orders", 2, 7)] * 2
    assert "secret" not in str((found, refused.value, logs))
