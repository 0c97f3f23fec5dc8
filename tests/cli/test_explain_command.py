"""`explain` with a file of mappings, on the mock cluster."""

import json
import uuid
from pathlib import Path

import pytest
from sqlalchemy import Engine

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


def test_explain(called: Command, settings: dict[str, str], engine: Engine) -> None:
    """Both parts are printed as text and as JSON."""
    topic = settings["KAFKA_TOPICS"]
    settings["DATABASE_URL"] = url_of(engine)
    gets = repository.add(engine, "https://example.com/hooks", "orders.*")
    repository.add(engine, "https://example.com/other", "orders.*", event_filter="false")
    shown = called("explain", topic, **settings)
    assert (shown.returncode, shown.stderr) == (0, "")
    for text in (
        f"record     {topic}[1] @ 0",
        f"mapping    the mapping of {topic}",
        "type          orders.c          value.table + '.' + value.op",
        "1 subscription would get it",
        "https://example.com/hooks  orders.*",
        "1 subscription to this type would not",
        "filter: false for this event",
    ):
        assert text in shown.stdout
    told = json.loads(called("explain", topic, "--partition", "1", "--offset", "0", "--json", **settings).stdout)
    assert (told["outcome"], told["event"]["type"]) == ("event", "orders.c")
    assert [each["id"] for each in told["subscriptions"] if each["gets"]] == [gets]


def test_explain_without_a_database(called: Command, settings: dict[str, str]) -> None:
    """The first part is printed, and the second says why it is missing."""
    for url, why in (("", "DATABASE_URL is not set"), ("sqlite:///absent/webhooks.db", "there is no directory")):
        shown = called("explain", settings["KAFKA_TOPICS"], **settings, DATABASE_URL=url)
        assert shown.returncode == 0
        assert "type          orders.c" in shown.stdout
        assert "who would get it is not known: " in shown.stdout
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
