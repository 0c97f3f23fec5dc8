"""/v1/subscriptions/backtest, on a real Kafka."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from consumer.api import backing
from consumer.api.tokens import TokenFile
from consumer.ops.replay_request import Log
from consumer.ops.walk import Bounds
from tests.api.v1_kit import Api, make_api, token_file
from tests.kafka_kit import Kafka

pytestmark = pytest.mark.kafka  # the mock cluster finds no offsets by time


@pytest.fixture
def api(engine: Engine, real_kafka: Kafka, tmp_path: Path) -> Api:
    """The application with a log of twenty events of two tenants."""
    topic = real_kafka.topic()
    for number in range(20):
        tenant = b"acme" if number % 4 == 0 else b"other"
        real_kafka.write(topic, [b'{"type": "a", "n": %d}' % number], headers=[("tenant", tenant)])
    tokens = TokenFile(token_file(tmp_path / "tokens.toml"))
    return make_api(engine, tokens, log=Log(real_kafka.settings(), [topic]))


def test_a_backtest_is_read_in_parts(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parts' numbers add up to those of the whole, and nothing is stored."""
    monkeypatch.setattr(backing, "Bounds", lambda: Bounds(records=6))
    body: dict[str, Any] = {"event_types": ["a", "b.*"], "event_filter": "data.n >= 5"}
    parts: list[dict[str, Any]] = []
    while not parts or body.get("cursor"):
        answer = api.call("POST", "/subscriptions/backtest", body, token="reader")
        assert answer.status_code == 200, answer.text
        parts.append(answer.json())
        body["cursor"] = parts[-1]["next"]
    assert len(parts) >= 4
    assert [sum(part[name] for part in parts) for name in ("records", "events", "matched")] == [20, 20, 15]
    assert [each["body"] for each in parts[0]["samples"]] == ['{"type": "a", "n": 5}']
    assert api.call("GET", "/subscriptions").json()["items"] == []


def test_a_tenant_tries_options_on_its_own_events(api: Api) -> None:
    """Whatever tenant it names; the numbers of others' records are not shown."""
    found = api.call("POST", "/subscriptions/backtest", {"event_type": "a", "tenant": "other"}, token="acme").json()
    assert (found["matched"], found["records"], found["records_left"]) == (5, None, None)


def test_wrong_backtests(api: Api) -> None:
    """The place of the mistake is named."""
    for body, place in (
        ({"event_type": "a", "event_filter": "data."}, "/event_filter"),
        ({"event_type": "a", "cursor": "abc"}, "/cursor"),
        ({"event_type": "a", "rate_limit": 1}, "/rate_limit"),
        ({"event_type": "a", "since": 1700000000}, "/since"),
        ({"event_type": "a", "url": "https://{data.host}/"}, "/url"),
        ({}, "/event_type"),
        ({"event_types": []}, "/event_type"),
        ({"event_types": ["a", "b.*.c"]}, "/event_types"),
        ({"event_type": "a", "event_types": ["b"]}, "/event_types"),
    ):
        answer = api.call("POST", "/subscriptions/backtest", body)
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, place)
