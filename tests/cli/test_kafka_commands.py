"""`publish` and `check` on a Kafka: the mock cluster and a real one."""

import json
import re
import uuid
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient
from sqlalchemy import Engine

from consumer.config.settings import KafkaSettings
from consumer.ops.check import knows_kip_848
from consumer.ops.events import newest
from tests.databases import url_of
from tests.processes import Command


@pytest.fixture(params=["mock", pytest.param("real", marks=pytest.mark.kafka)])
def servers(request: pytest.FixtureRequest) -> str:
    """The mock cluster, then the real Kafka."""
    found: str = request.getfixturevalue("kafka_bootstrap" if request.param == "real" else "mock_kafka")
    return found


@pytest.fixture
def settings(servers: str, tmp_path: Path) -> dict[str, str]:
    """The settings of a worker, with its own topic and group."""
    return {
        "KAFKA_BOOTSTRAP_SERVERS": servers,
        "KAFKA_TOPICS": f"t-{uuid.uuid4().hex[:8]}",
        "KAFKA_GROUP_ID": f"g-{uuid.uuid4().hex[:8]}",
        "DATABASE_URL": f"sqlite:///{tmp_path}/webhooks.db",
        "WEBHOOK_SECRET": "secret",
    }


def read(servers: str, topic: str, partition: int, offset: int) -> tuple[bytes | None, bytes | None, object]:
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "reader", "log_level": 0})
    consumer.assign([TopicPartition(topic, partition, offset)])
    message = consumer.poll(10)
    consumer.close()
    assert message is not None
    assert message.error() is None
    return message.key(), message.value(), message.headers()


def test_an_event_is_published_unchanged(command: Command, settings: dict[str, str]) -> None:
    """Its bytes, key, type, id and headers are in the log at the printed offset."""
    topic, value = settings["KAFKA_TOPICS"], '{"id": 123,  "name": "Jané"}'
    options = ["--key", "123", "--type", "user.created", "--id", "e-1", "--header", "traceparent=00-a=b"]
    options += ["--header", "x-origin: a=b"]
    done = command("publish", topic, value, *options, **settings)
    assert done.returncode == 0
    assert re.fullmatch("(waiting for Kafka at .*\n)?", done.stderr)
    partition, offset = done.stdout.removeprefix(f"{topic}[").strip().split("] offset ")
    key, stored, headers = read(settings["KAFKA_BOOTSTRAP_SERVERS"], topic, int(partition), int(offset))
    assert (key, stored) == (b"123", value.encode())
    assert headers == [
        ("traceparent", b"00-a=b"),
        ("x-origin", b"a=b"),
        ("event-type", b"user.created"),
        ("event-id", b"e-1"),
    ]


def test_many_events_from_a_pipe(command: Command, settings: dict[str, str]) -> None:
    """Each line is one document; all are acknowledged, with a count for each partition."""
    lines = "".join(f'{{"n": {number}}}\n' for number in range(300))
    done = command("publish", settings["KAFKA_TOPICS"], "-", "--count", "2", stdin=lines, **settings)
    assert done.returncode == 0
    assert done.stdout.startswith("600 of 600 records stored")
    counts = [int(line.split(": ")[1]) for line in done.stdout.splitlines()[1:]]
    assert sum(counts) == 600


def test_one_document_of_many_lines_is_one_event(command: Command, settings: dict[str, str]) -> None:
    """A pretty-printed document from a file is one record."""
    done = command("publish", settings["KAFKA_TOPICS"], "-", stdin='{\n  "id": 1\n}\n', **settings)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 1


def test_check_says_what_to_do_until_all_is_well(command: Command, settings: dict[str, str]) -> None:
    """Each part has a line.

    Once topic, tables and subscription exist, all are well and the start position is reported.
    """
    before = command("check", **settings)
    assert before.returncode == 1
    assert f"✗ topic: {settings['KAFKA_TOPICS']} does not exist" in before.stdout
    assert "✗ database: " in before.stdout
    assert "there is no such file: correct DATABASE_URL, or make it with kafka-webhooks migrate" in before.stdout
    Path(settings["DATABASE_URL"].removeprefix("sqlite:///")).touch()
    empty_file = command("check", **settings)
    assert "✗ tables: at nothing, needed is" in empty_file.stdout
    assert "run kafka-webhooks migrate" in empty_file.stdout
    command("publish", settings["KAFKA_TOPICS"], "{}", "--count", "7", **settings)
    command("migrate", **settings)
    empty = command("check", **settings)
    assert empty.returncode == 0
    assert "subscriptions: none yet: kafka-webhooks subscriptions add" in empty.stdout
    command("subscriptions", "add", "https://example.com/", "a", **settings)
    after = command("check", "--json", **settings, KAFKA_ATTEMPTS_TOPIC="webhooks.attempts")
    assert (after.returncode, after.stderr) == (0, "")
    findings = {finding["part"]: finding for finding in json.loads(after.stdout)}
    assert list(findings) == [
        "settings",
        "kafka",
        "topic",
        "group",
        "dead-letter topic",
        "operations topic",
        "attempts topic",
        "database",
        "tables",
        "subscriptions",
        "receivers",
        "secrets",
    ]
    assert all(finding["ok"] for finding in findings.values())
    assert findings["group"]["text"] == f"{settings['KAFKA_GROUP_ID']} is new; a start now sends 7 records"
    assert "to get its events as webhooks, add it to KAFKA_TOPICS" in findings["operations topic"]["text"]
    assert findings["subscriptions"]["text"] == "1 enabled"
    weak = "complete; WEBHOOK_SECRET: a secret has 6 bytes; Standard Webhooks wants 24 to 64"
    assert findings["settings"]["text"] == weak


def test_check_counts_from_the_committed_offsets(command: Command, settings: dict[str, str]) -> None:
    """Records that the group has committed are not counted."""
    topic = settings["KAFKA_TOPICS"]
    command("publish", topic, "{}", "--count", "7", "--key", "same", **settings)
    consumer = Consumer(
        {"bootstrap.servers": settings["KAFKA_BOOTSTRAP_SERVERS"], "group.id": settings["KAFKA_GROUP_ID"]}
    )
    partitions = consumer.list_topics(topic, 60).topics[topic].partitions
    ends = {number: consumer.get_watermark_offsets(TopicPartition(topic, number))[1] for number in partitions}
    (filled,) = [number for number, end in ends.items() if end]
    consumer.commit(offsets=[TopicPartition(topic, filled, 5)], asynchronous=False)
    consumer.close()
    group = next(line for line in command("check", **settings).stdout.splitlines() if " group: " in line)
    assert group.startswith(f"✓ group: {settings['KAFKA_GROUP_ID']} has committed on 1 of ")
    assert group.endswith("a start now sends 2 records")


def test_check_reports_records_deleted_by_retention(command: Command, kafka_bootstrap: str, topic: str) -> None:
    """A committed offset below the log's start is a failure, with the number of records never sent."""
    settings = {"KAFKA_BOOTSTRAP_SERVERS": kafka_bootstrap, "KAFKA_TOPICS": topic, "KAFKA_GROUP_ID": f"g-{topic}"}
    command("publish", topic, "{}", "--count", "9", "--key", "same", **settings)
    consumer = Consumer({"bootstrap.servers": kafka_bootstrap, "group.id": f"g-{topic}"})
    ends = {number: consumer.get_watermark_offsets(TopicPartition(topic, number))[1] for number in range(4)}
    (filled,) = [number for number, end in ends.items() if end]
    consumer.commit(offsets=[TopicPartition(topic, filled, 2)], asynchronous=False)
    consumer.close()
    admin = AdminClient({"bootstrap.servers": kafka_bootstrap})
    for answer in admin.delete_records([TopicPartition(topic, filled, 6)]).values():
        answer.result()
    group = next(line for line in command("check", **settings).stdout.splitlines() if " group: " in line)
    assert group.startswith("✗")
    assert "a start now sends 3 records; retention has dropped 4 records" in group


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, True),  # it may not be read
        ({"group.min.session.timeout.ms": "6000"}, False),
        ({"group.coordinator.rebalance.protocols": "classic", "group.consumer.heartbeat.interval.ms": "1"}, False),
        (
            {"group.coordinator.rebalance.protocols": "classic,consumer", "group.consumer.heartbeat.interval.ms": "1"},
            True,
        ),
        ({"group.consumer.heartbeat.interval.ms": "1"}, True),  # if a later Kafka has no such choice
    ],
)
def test_check_finds_brokers_without_kip_848(config: dict[str, str], expected: bool) -> None:  # noqa: FBT001 (a table)
    """A worker would wait for ever there."""
    assert knows_kip_848(config) is expected


def test_dead_letters_are_counted_and_published_again(
    called: Command, kafka_bootstrap: str, topic: str, engine: Engine
) -> None:
    """`check` warns of those of the last hour, `top` shows their number, and each is published again once."""
    settings = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka_bootstrap,
        "KAFKA_TOPICS": topic,
        "KAFKA_GROUP_ID": f"g-{uuid.uuid4().hex[:8]}",
        "KAFKA_DEAD_LETTER_TOPIC": f"dead-{topic}",
        "DATABASE_URL": url_of(engine),
        "WEBHOOK_SECRET": "secret-of-24-characters-",
    }
    told = {"topic": topic, "partition": "0", "offset": "1", "reason": "no_type"}
    headers = [word for name, text in told.items() for word in ("--header", f"dead-letter-{name}={text}")]
    assert called("publish", f"dead-{topic}", "{}", "--count", "3", *headers, **settings).returncode == 0
    checked = called("check", **settings)
    (line,) = [line for line in checked.stdout.splitlines() if "dead-letter topic" in line]
    assert line.startswith("! dead-letter topic: ")
    assert line.endswith(
        "; 3 dead letters in the last hour: remove the cause, then kafka-webhooks dead-letters publish"
    )
    assert checked.returncode == 0, checked.stdout
    assert "dead letters in the last hour: 3;" in called("top", "--once", **settings, COLUMNS="200").stdout

    asked = called("dead-letters", "publish", **settings)
    assert (asked.returncode, asked.stdout.splitlines()[1].split()) == (2, [topic, "no_type", "3"])
    assert "nothing was changed: give --yes" in asked.stderr
    some = called("dead-letters", "publish", "--since", "1h", "--limit", "2", "--yes", **settings)
    assert (some.returncode, some.stdout.splitlines()[-1]) == (0, "2 dead letters published again")
    assert "there are more: the same command continues with them" in some.stderr
    rest = called("dead-letters", "publish", "--topic", topic, "--reason", "no_type", "--yes", **settings)
    assert rest.stdout.splitlines()[-1] == "1 dead letter published again"
    none = called("dead-letters", "publish", **settings)
    assert (none.returncode, none.stdout) == (0, "")
    assert none.stderr == "left out, published again before: 3\nthere are no such dead letters\n"
    published = newest(KafkaSettings(bootstrap_servers=kafka_bootstrap), topic, 10)
    assert [record.value for record in published] == [b"{}"] * 3


def test_check_continues_after_a_failure(command: Command) -> None:
    """With everything wrong, each part is still reported, in bounded time and without a secret."""
    ended = command(
        "check",
        KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1",
        KAFKA_TOPICS="users",
        DATABASE_URL="oracle+oracledb://user:hidden@127.0.0.1:1/?service_name=X",
        WEBHOOK_TIMEOUT="soon",
    )
    assert ended.returncode == 1
    parts = [line.split(":")[0] for line in ended.stdout.splitlines()]
    assert parts == ["✗ settings", "✗ settings", "✗ kafka", "✗ database"]
    assert "hidden" not in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("settings", "part", "says"),
    [
        ({"KAFKA_SECURITY_PROTOCOL": "SLS"}, "kafka", 'KAFKA_SECURITY_PROTOCOL: Invalid value "SLS"'),
        (
            {"KAFKA_ENABLE_AUTO_COMMIT": "true"},
            "kafka",
            "KAFKA_ENABLE_AUTO_COMMIT cannot be set: offsets are committed",
        ),
        ({"DATABASE_URL": "mysql://u:hidden@h/d"}, "database", "DATABASE_URL: starts with neither oracle"),
    ],
)
def test_check_says_why_a_part_is_not_checked(called: Command, settings: dict[str, str], part: str, says: str) -> None:
    """A part whose settings are wrong names the reason, and so do the settings."""
    least = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "KAFKA_TOPICS": "t", "DATABASE_URL": "sqlite:///w.db"}
    ended = called("check", "--json", **{**least, "WEBHOOK_SECRET": "hidden", **settings})
    found = [(finding["part"], finding["text"]) for finding in json.loads(ended.stdout) if not finding["ok"]]
    assert any(name == part and text.startswith(f"not checked: {says}") for name, text in found)
    assert any(name == "settings" and text.startswith(says) for name, text in found)
    assert "hidden" not in ended.stdout


def test_check_reports_unknown_names(called: Command, mock_kafka: str, tmp_path: Path) -> None:
    """An unmatched topic or pattern is a failure, an unknown variable a warning; the most similar name is shown."""
    command = {
        "KAFKA_BOOTSTRAP_SERVERS": mock_kafka,
        "DATABASE_URL": f"sqlite:///{tmp_path}/w.db",
        "WEBHOOK_SECRET": "s",
    }
    called("publish", "orders-of-today", "{}", **command)
    misspelt = {"KAFKA_SASL_MECHANISMZ": "hidden", "WEBHOOK_TIMEOUTS": "hidden"}
    ended = called("check", KAFKA_TOPICS="^order[.]of.*", **misspelt, **command)
    assert (
        "✗ topic: ^order[.]of.* matches no topic now: create one, or correct KAFKA_TOPICS (there is orders-of-today"
        in (ended.stdout)
    )
    assert "KAFKA_SASL_MECHANISMZ is ignored: librdkafka has no property sasl.mechanismz" in ended.stdout
    assert "WEBHOOK_TIMEOUTS is ignored: there is no such setting. Did you mean WEBHOOK_TIMEOUT?" in ended.stdout
    assert "hidden" not in ended.stdout + ended.stderr
    missing = called("check", WEBHOOK_TIMEOUTS="hidden", **command)
    assert "✗ settings: KAFKA_TOPICS is not set" in missing.stdout
    assert "✗ settings: WEBHOOK_TIMEOUTS is ignored" in missing.stdout


def test_no_kafka_is_1(command: Command) -> None:
    """Records that were not acknowledged are not reported as stored."""
    ended = command("publish", "users", "{}", KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
    assert ended.returncode == 1
    assert ended.stdout == ""
    told, line = ended.stderr.splitlines()
    assert told == "waiting for Kafka at 127.0.0.1:1"
    assert "no acknowledgement from Kafka at 127.0.0.1:1" in line
