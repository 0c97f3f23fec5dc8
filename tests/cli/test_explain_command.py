"""`explain` with a file of mappings, on the mock cluster."""

import json
import uuid
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition
from sqlalchemy import Engine

from consumer.ops.story import NO_HISTORY
from consumer.subscriptions import repository
from tests.databases import url_of
from tests.kafka_kit import Kafka
from tests.processes import Command

MAPPING = """[[mapping]]\ntopics = ["{}"]\ntype = "value.table + '.' + value.op"\nbody = "value.after"\n"""


@pytest.fixture
def settings(mock_kafka: str, tmp_path: Path) -> dict[str, str]:
    """Settings with a topic that holds one record, and a mapping of it."""
    topic = f"t-{uuid.uuid4().hex[:8]}"
    kafka = Kafka(mock_kafka, real=False)
    kafka.write(topic, [b'{"table": "orders", "op": "c", "after": {"text": "\\u001b[31m"}}'], partition=1)
    (tmp_path / "mappings.toml").write_text(MAPPING.format(topic))
    return {
        "KAFKA_BOOTSTRAP_SERVERS": mock_kafka,
        "KAFKA_TOPICS": topic,
        "KAFKA_MAPPINGS_FILE": str(tmp_path / "mappings.toml"),
        "WEBHOOK_SECRET": "a secret of the deployment",
    }


def commit(settings: dict[str, str], offset: int) -> int:
    """The group commits this offset of the record's partition; returns what Kafka has then."""
    servers = {"bootstrap.servers": settings["KAFKA_BOOTSTRAP_SERVERS"], "group.id": settings["KAFKA_GROUP_ID"]}
    consumer = Consumer({**servers, "enable.auto.commit": False})
    try:
        place = TopicPartition(settings["KAFKA_TOPICS"], 1, offset)
        consumer.commit(offsets=[place], asynchronous=False)
        (committed,) = consumer.committed([place])
        return committed.offset
    finally:
        consumer.close()


def test_explain(called: Command, settings: dict[str, str], engine: Engine) -> None:
    """Both parts are printed as text and as JSON."""
    topic = settings["KAFKA_TOPICS"]
    settings["DATABASE_URL"] = url_of(engine)
    gets = repository.add(engine, "https://example.com/hooks", "orders.*")
    repository.add(engine, "https://example.com/other", "orders.*", event_filter="false")
    shown = called("explain", topic, **settings)
    assert (shown.returncode, shown.stderr) == (0, f"perhaps incomplete: {NO_HISTORY}\n")
    for text in (
        f"record     {topic}[1] @ 0",
        f"mapping    the mapping of {topic}",
        "type          orders.c          value.table + '.' + value.op",
        "2 subscriptions to this type, or with a delivery of it",
        "https://example.com/hooks  orders.*    waiting    the group has not committed its record yet",
        "https://example.com/other  orders.*    unmatched  filter: false for this event",
    ):
        assert text in shown.stdout
    told = json.loads(called("explain", topic, "--partition", "1", "--offset", "0", "--json", **settings).stdout)
    assert (told["outcome"], told["event"]["type"]) == ("event", "orders.c")
    assert [each["subscription_id"] for each in told["receivers"] if each["matches"]] == [gets]


def test_resend(called: Command, settings: dict[str, str], engine: Engine) -> None:
    """A replay of the record sends it; a subscription whose filter refuses it is told of."""
    del settings["KAFKA_MAPPINGS_FILE"]
    topic = settings["KAFKA_TOPICS"]
    settings |= {"DATABASE_URL": url_of(engine), "KAFKA_GROUP_ID": "g"}
    gets = repository.add(engine, "https://example.com/hooks", topic)
    refuses = repository.add(engine, "https://example.com/other", topic, event_filter="false")
    assert commit(settings, 1) == 1
    place = "--partition", "1", "--offset", "0", "--subscription"
    sent = called("resend", topic, *place, str(gets), **settings)
    assert (sent.returncode, sent.stderr) == (0, "")
    assert sent.stdout.startswith("replay 1 sends it; ")
    refused = called("resend", topic, *place, str(refuses), **settings)
    assert refused.returncode == 1
    assert f"subscription {refuses} would not get it: filter: false for this event" in refused.stderr
    assert called("resend", topic, *place, "999", **settings).returncode == 1


def test_explain_without_a_database(called: Command, settings: dict[str, str]) -> None:
    """The first part is printed, and the second says why it is missing."""
    for url, why in (("", "DATABASE_URL is not set"), ("sqlite:///absent/webhooks.db", "there is no directory")):
        shown = called("explain", settings["KAFKA_TOPICS"], **settings, DATABASE_URL=url)
        assert shown.returncode == 0
        assert "type          orders.c" in shown.stdout
        assert "who got it is not known: " in shown.stdout
        assert why in shown.stdout


def test_explain_a_dead_letter(called: Command, settings: dict[str, str]) -> None:
    """The reason is that of the dead letter, and the status is 0, since the question is answered."""
    topic = settings["KAFKA_TOPICS"]
    Kafka(settings["KAFKA_BOOTSTRAP_SERVERS"], real=False).write(topic, [b"{}"], partition=1)
    shown = called("explain", topic, "--partition", "1", **settings)
    assert shown.returncode == 0
    assert "no_type" in shown.stdout
    assert "the record has nothing that value.table + '.' + value.op reads" in shown.stdout
    assert called("explain", topic, "--offset", "1", **settings).returncode == 2
    assert called("explain", topic, "--partition", "1", "--offset", "99", **settings).returncode == 1


def test_a_wrong_file_is_an_error_of_the_settings(called: Command, settings: dict[str, str]) -> None:
    """Commands that need the file end with status 2, and a line for each mistake."""
    path = Path(settings["KAFKA_MAPPINGS_FILE"])
    path.write_text('[[mapping]]\ntopics = ["a"]\ntype = "valeu.a"\nkind = "b"\n')
    settings |= {"DATABASE_URL": "sqlite:///webhooks.db", "OPS_PORT": "0"}
    for words in (["explain", "a"], ["run"]):
        ended = called(*words, **settings)
        assert (ended.returncode, len(ended.stderr.splitlines())) == (2, 2), words
        assert f"{path}: mapping 1 (a), kind: there is no such key" in ended.stderr
