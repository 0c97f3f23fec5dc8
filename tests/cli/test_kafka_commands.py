"""`publish`, `dead-letters publish` and the printing of `check`."""

import json
import re

import pytest
from sqlalchemy import Engine

from consumer.ops.events import newest
from tests.databases import url_of
from tests.kafka_kit import Kafka, unique
from tests.ops.test_attempts import Written
from tests.processes import Command


def test_an_event_is_published_unchanged(called: Command, kafka: Kafka) -> None:
    """Its bytes, key, type, id and headers are in the log at the printed offset."""
    topic, value = unique("topic"), '{"id": 123,  "name": "Jané"}'
    options = ["--key", "123", "--type", "user.created", "--id", "e-1", "--header", "traceparent=00-a=b"]
    options += ["--header", "x-origin: a=b"]
    done = called("publish", topic, value, *options, KAFKA_BOOTSTRAP_SERVERS=kafka.servers)
    assert done.returncode == 0
    assert re.fullmatch("(waiting for Kafka at .*\n)?", done.stderr)
    (record,) = newest(kafka.settings(), topic, 2)
    assert done.stdout == f"{topic}[{record.partition.number}] offset {record.offset}\n"
    assert (record.key, record.value) == (b"123", value.encode())
    own = [("traceparent", b"00-a=b"), ("x-origin", b"a=b")]
    assert record.headers == [*own, ("event-type", b"user.created"), ("event-id", b"e-1")]


@pytest.mark.parametrize(
    ("given", "more", "said"),
    [
        ("".join(f'{{"n": {number}}}\n' for number in range(300)), ("--count", "2"), "600 of 600 records stored in"),
        ('{\n  "id": 1\n}\n', (), "topic-"),  # one document of many lines
    ],
)
def test_events_from_a_pipe(called: Command, mock_kafka: str, given: str, more: tuple[str, ...], said: str) -> None:
    """Each line is one event, or all of them are; all are acknowledged, with a count for each partition."""
    done = called("publish", unique("topic"), "-", *more, stdin=given, KAFKA_BOOTSTRAP_SERVERS=mock_kafka)
    first, *partitions = done.stdout.splitlines()
    assert (done.returncode, first.startswith(said)) == (0, True)
    assert sum(int(line.split(": ")[1]) for line in partitions) == (600 if more else 0)


def test_check_prints_a_line_for_each_part(called: Command, database: dict[str, str]) -> None:
    """A part that is well has a tick, one that is not a cross; for a setting the status is 2. JSON has the same."""
    settings = database | {"KAFKA_BOOTSTRAP_SERVERS": "b:1", "KAFKA_ACKS": "1", "LOG_LEVEL": "loud"}
    done = called("check", **settings)
    lines = {line.partition(":")[0] for line in done.stdout.splitlines()}
    assert (done.returncode, {"✗ settings", "✗ kafka", "✓ database", "✓ tables"} <= lines) == (2, True)
    told = json.loads(called("check", "--json", **settings).stdout)
    assert {f"{'✓' if each['ok'] else '✗'} {each['part']}" for each in told} == lines


def test_dead_letters_are_counted_and_published_again(
    called: Command, kafka_bootstrap: str, topic: str, engine: Engine
) -> None:
    """`check` warns of those of the last hour, `top` shows their number, and each is published again once."""
    settings = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka_bootstrap,
        "KAFKA_TOPICS": topic,
        "KAFKA_GROUP_ID": unique("group"),
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
    some = called("dead-letters", "publish", "--since", "1h", "--limit", "2", "--yes", **settings)
    assert (some.returncode, some.stdout.splitlines()[-1]) == (0, "2 dead letters published again")
    assert "there are more: the same command continues with them" in some.stderr
    rest = called("dead-letters", "publish", "--topic", topic, "--reason", "no_type", "--yes", **settings)
    assert rest.stdout.splitlines()[-1] == "1 dead letter published again"
    none = called("dead-letters", "publish", **settings)
    assert (none.returncode, none.stdout) == (0, "")
    assert none.stderr == "left out, published again before: 3\nthere are no such dead letters\n"


def test_no_kafka_is_1(command: Command) -> None:
    """Records that were not acknowledged are not reported as stored."""
    ended = command("publish", "users", "{}", KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
    assert ended.returncode == 1
    assert ended.stdout == ""
    told, line = ended.stderr.splitlines()
    assert told == "waiting for Kafka at 127.0.0.1:1"
    assert "no acknowledgement from Kafka at 127.0.0.1:1" in line


def test_the_attempts_of_a_subscription_are_shown(called: Command, real_kafka: Kafka) -> None:
    """How many succeed, and the newest; with a time only the attempts of that time."""
    without = called("subscriptions", "attempts", "1", KAFKA_BOOTSTRAP_SERVERS=real_kafka.servers)
    assert (without.returncode, "KAFKA_ATTEMPTS_TOPIC is not set" in without.stderr) == (2, True)
    written = Written(real_kafka)
    written.add(1, 7200, 60)
    written.add(1, 30, outcome="parked")
    settings = {
        "KAFKA_BOOTSTRAP_SERVERS": real_kafka.servers,
        "KAFKA_ATTEMPTS_TOPIC": written.topic,
        "KAFKA_GROUP_ID": written.settings.group_id,
    }
    told = json.loads(called("subscriptions", "attempts", "1", "--limit", "2", "--json", **settings).stdout)
    assert [(each["hours"], each["delivered"], each["failed"]) for each in told["windows"]] == [
        (1, 1, 1),
        (24, 2, 1),
        (168, 2, 1),
    ]
    assert [each["outcome"] for each in told["attempts"]] == ["parked", "delivered"]
    printed = called("subscriptions", "attempts", "1", "--limit", "2", **settings)
    assert printed.stdout.startswith("hours  since")
    assert [line.split()[6] for line in printed.stdout.splitlines()[1:4]] == ["50.00%", "66.67%", "66.67%"]
    assert "there may be earlier ones: give --limit, or --until 20" in printed.stderr
    earlier = json.loads(called("subscriptions", "attempts", "1", "--until", "1h", "--json", **settings).stdout)
    assert ([each["outcome"] for each in earlier["attempts"]], "windows" in earlier) == (["delivered"], False)
