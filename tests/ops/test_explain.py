"""`explain`: the event made from a record, and the subscriptions that would get it."""

import json
import re

import pytest
from sqlalchemy import Engine, text
from structlog.testing import capture_logs

from consumer.config.settings import KafkaSettings, RuleSettings, SchemaSettings
from consumer.crypto.vault import Vault
from consumer.errors import Undecodable, WebhooksError
from consumer.events.event import Event
from consumer.intake.mapping_file import parse
from consumer.intake.offsets import OffsetTracker
from consumer.intake.record import AssignedPartition, Headers, Record
from consumer.ledger import cursors
from consumer.ledger.cursors import NewCursor
from consumer.ops import explain as module
from consumer.ops.events import event_reader
from consumer.ops.explain import Candidate, Explained, candidates_of, explain, record_of
from consumer.subscriptions import repository
from models import CursorReason
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


def test_subscriptions_that_would_get_it_and_those_that_would_not(engine: Engine) -> None:
    """Candidates by type and pattern are listed, with the reason for each that would not get it; others are not."""
    url = "https://example.com/hooks"
    gets = [repository.add(engine, url, pattern) for pattern in ("orders.created", "orders.*", "*")]
    repository.add(engine, url, "orders.deleted")
    not_topic = repository.add(engine, url, "orders.*", topics="users,billing")
    not_tenant = repository.add(engine, url, "orders.*", tenant="acme")
    untrue = repository.add(engine, url, "orders.*", event_filter="data.n > 1")
    true = repository.add(engine, url, "orders.*", event_filter="data.n == 1")
    failing = repository.add(engine, url, "orders.*", event_filter="data.absent > 1")
    odd = repository.add(engine, url, "orders.*", event_filter="data.n")
    disabled = repository.add(engine, url, "orders.created")
    repository.set_enabled(engine, disabled, False, "moved")
    broken = repository.add(engine, url, "orders.created")
    with engine.begin() as connection:
        connection.execute(text("UPDATE webhook_subscriptions SET event_filter = '(' WHERE id = :id"), {"id": broken})
    found = {each.id: each for each in candidates_of(engine, event(), Vault(), RuleSettings(), "g").found}
    assert [number for number, each in found.items() if each.gets] == [*gets, true, broken]
    assert "its events are stored, not sent" in (found[broken].why or "")
    whys = {number: (found[number].why or "") for number in (not_topic, not_tenant, untrue, failing, odd, disabled)}
    assert whys.pop(failing).startswith("filter: it fails on this event: ")
    assert whys == {
        not_topic: "topics: it gets events of billing, users",
        not_tenant: "tenant: it gets events of acme; the tenant of this event is none",
        untrue: "filter: false for this event",
        odd: "filter: its value is neither true nor false",
        disabled: "disabled: moved",
    }


def test_an_event_that_waits_in_kafka_says_why(engine: Engine) -> None:
    """Its subscription is paused, or a cursor covers it; it comes. One that the cursor has sent does not wait."""
    paused, behind, past = (repository.add(engine, "https://example.com/hooks", "orders.created") for _ in range(3))
    repository.pause(engine, paused, "no space")
    place = event().record
    owed = [
        NewCursor((*place.topic_partition, whose), first, CursorReason.BEHIND)
        for whose, first in ((behind, place.offset), (past, place.offset + 1))
    ]
    cursors.begin(engine, "g", owed, 0.0)
    found = {each.id: each for each in candidates_of(engine, event(), Vault(), RuleSettings(), "g").found}
    assert all(each.gets for each in found.values())
    assert re.fullmatch(r"paused since \S+Z: no space", found[paused].why or "")
    covered = "a cursor (behind) covers it: it comes from Kafka, in its turn"
    assert (found[behind].why, found[past].why) == (covered, None)
    cursors.begin(engine, "g", [owed[0]._replace(due_key=(*place.topic_partition, paused))], 0.0)
    (first, *_) = candidates_of(engine, event(), Vault(), RuleSettings(), "g").found
    assert (first.why or "").endswith(f"Z: no space; {covered}")


def test_lists_are_bounded(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cut list says so, and a URL with a password does not show it."""
    monkeypatch.setattr(module, "MOST", 3)
    for number in range(3):
        repository.add(engine, "https://example.com/hooks", ["orders.created", "*", "orders.**"][number])
    with engine.begin() as connection:
        connection.execute(text("UPDATE webhook_subscriptions SET url = 'https://u:secret@example.com/'"))
    found = candidates_of(engine, event(), Vault(), RuleSettings(), "g")
    assert (len(found.found), found.more) == (3, False)
    assert {each.url for each in found.found} == {"…@example.com/"}
    repository.add(engine, "https://example.com/hooks", "*")
    found = candidates_of(engine, event(), Vault(), RuleSettings(), "g")
    assert (len(found.found), found.more) == (3, True)
    assert isinstance(found.found[0], Candidate)


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
