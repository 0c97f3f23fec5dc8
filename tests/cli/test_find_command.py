"""`find`, on a real Kafka."""

import json
from collections.abc import Mapping

import pytest
from sqlalchemy import Engine

from consumer.subscriptions import repository
from tests.databases import url_of
from tests.kafka_kit import Kafka
from tests.processes import Command

pytestmark = pytest.mark.kafka  # the mock cluster finds no offsets by time


@pytest.fixture
def settings(real_kafka: Kafka, engine: Engine) -> Mapping[str, str]:
    """Settings with a topic that holds two events."""
    topic = real_kafka.topic()
    real_kafka.write(topic, [b'{"type": "order.paid", "id": "A-4711"}', b'{"type": "other"}'])
    servers = real_kafka.settings().bootstrap_servers
    return {"KAFKA_BOOTSTRAP_SERVERS": servers, "KAFKA_TOPICS": topic, "DATABASE_URL": url_of(engine)}


def test_find(called: Command, settings: Mapping[str, str], engine: Engine) -> None:
    """Hits in the database and in the log are printed as text and as JSON; without a hit it says so."""
    topic = settings["KAFKA_TOPICS"]
    number = repository.add(engine, "https://a-4711.example/hooks", "order.*")
    shown = called("find", "A-4711", "--since", "1h", **settings)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert [line.split()[:3] for line in shown.stdout.splitlines()[1:]] == [
        ["subscription", str(number), "url"],
        ["event", f"{topic}[0]@0", "value"],
    ]
    told = json.loads(called("find", "A-4711", "--json", **settings).stdout)
    assert ([each["kind"] for each in told["hits"]], told["records_left"]) == (["subscription", "event"], 0)
    assert (told["hits"][1]["what"], told["hits"][1]["offset"]) == ("order.paid", 0)
    (only,) = json.loads(called("find", "A-4711", "--no-log", "--json", **settings).stdout)["hits"]
    assert only["kind"] == "subscription"
    shown = called("find", "nowhere", "--since", "1h", **settings)
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, "", "nothing was found\n")


def test_wrong_usage(called: Command, settings: Mapping[str, str]) -> None:
    """A text that is too short for the log, and an expression that is none."""
    assert called("find", "ab", **settings).returncode == 2
    assert called("find", "ab", "--no-log", **settings).returncode == 0
    wrong = called("find", "abc", **settings, WEBHOOK_SEARCH_FIELDS="data.")
    assert wrong.returncode == 2
    assert "WEBHOOK_SEARCH_FIELDS: data.: " in wrong.stderr
