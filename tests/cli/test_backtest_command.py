"""`subscriptions backtest`, on a real Kafka."""

import json

import pytest

from tests.kafka_kit import Kafka
from tests.processes import Command


@pytest.mark.kafka  # the mock cluster finds no offsets by time
def test_backtest(called: Command, real_kafka: Kafka) -> None:
    """Counts and the first bodies are printed as text and as JSON; a wrong filter is wrong usage."""
    topic = real_kafka.topic()
    real_kafka.write(topic, [b'{"type": "order.paid", "amount": %d}' % amount for amount in (50, 150, 250)])
    settings = {"KAFKA_BOOTSTRAP_SERVERS": real_kafka.settings().bootstrap_servers, "KAFKA_TOPICS": topic}
    options = (
        "--type",
        "invoice.*",
        "--type",
        "order.*",
        "--filter",
        "data.amount > 100",
        "--projection",
        "data.amount",
        "--since",
        "1h",
    )
    shown = called("subscriptions", "backtest", *options, **settings)
    assert (shown.returncode, shown.stderr) == (0, "")
    for text in (
        "2 of 3 events of these types match, in 3 records",
        "order.paid  2",
        "filter: false for this event  1",
        f"{topic}[0]@1  order.paid  150",
    ):
        assert text in shown.stdout
    told = json.loads(called("subscriptions", "backtest", *options, "--json", **settings).stdout)
    assert (told["matched"], [each["body"] for each in told["samples"]]) == (2, ["150", "250"])
    wrong = called("subscriptions", "backtest", "--type", "a", "--filter", "data.", **settings)
    assert wrong.returncode == 2
    assert "event_filter" in wrong.stderr
