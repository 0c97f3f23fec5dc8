"""/v1/search, on a real Kafka."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from consumer.api import backing, log_parts, search
from consumer.api.context import MOST_CURSOR
from consumer.api.tokens import TokenFile
from consumer.ops.replay_request import Log
from consumer.ops.walk import Bounds
from tests.api.v1_kit import Api, make_api, token_file
from tests.kafka_kit import Kafka

pytestmark = pytest.mark.kafka  # the mock cluster finds no offsets by time


@pytest.fixture
def topic(real_kafka: Kafka) -> str:
    """A topic with events of two tenants."""
    topic = real_kafka.topic(partitions=3)
    for number in range(30):
        tenant = b"acme" if number % 2 else b"other"
        value = b'{"type": "a", "id": "val-%02d"}' % number
        real_kafka.write(topic, [value], headers=[("tenant", tenant)], partition=number % 3)
    return topic


@pytest.fixture
def api(engine: Engine, real_kafka: Kafka, topic: str, tmp_path: Path) -> Api:
    """The application with that log."""
    tokens = TokenFile(token_file(tmp_path / "tokens.toml"))
    return make_api(engine, tokens, log=Log(real_kafka.settings(), [topic]))


def parts(api: Api, **query: str) -> list[dict[str, Any]]:
    """The parts of a search, by the cursors."""
    found: list[dict[str, Any]] = []
    token = query.pop("token", "all")
    while not found or found[-1]["next"]:
        cursor = {"cursor": found[-1]["next"]} if found else {}
        answer = api.call("GET", "/search", params={**query, **cursor}, token=token)
        assert answer.status_code == 200, answer.text
        found.append(answer.json())
    return found


def test_the_database_and_the_log_are_searched(api: Api, topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Part after part, each record once; a tenant sees its own things."""
    monkeypatch.setattr(backing, "Bounds", lambda: Bounds(records=8))
    monkeypatch.setattr(log_parts, "TOGETHER", 2)
    mine = api.create(url="https://val-.example/", tenant="acme")["id"]
    api.create(url="https://val-.example/", tenant="other")
    found = parts(api, q="val-")
    assert len(found) >= 3
    assert [each["kind"] for each in found[0]["items"][:2]] == ["subscription"] * 2
    events = [each for part in found for each in part["items"] if each["kind"] == "event"]
    places = sorted((each["partition"], each["offset"]) for each in events)
    assert places == [(partition, offset) for partition in range(3) for offset in range(10)]
    assert {(each["topic"], each["matched"], each["what"]) for each in events} == {(topic, "value", "a")}
    assert (found[0]["records_left"], found[-1]["records_left"]) == (22, 0)
    assert all(len(part["next"] or "") < MOST_CURSOR / 2 for part in found)
    theirs = [each for part in parts(api, q="val-", token="acme") for each in part["items"]]
    assert [each["id"] for each in theirs if each["kind"] == "subscription"] == [mine]
    assert len([each for each in theirs if each["kind"] == "event"]) == 15
    assert parts(api, q="val-", since="2099-01-01T00:00:00Z")[0]["records_left"] == 0
    monkeypatch.setattr(search, "RECENT", -60.0)
    assert parts(api, q="val-")[0]["records_left"] == 0
    assert parts(api, q="val-", since="1970-01-01T00:00:00Z")[0]["records_left"] == 22


def test_wrong_searches(api: Api) -> None:
    """A position that no part has given, and no text."""
    answer = api.call("GET", "/search", params={"q": "abc", "cursor": "abc"})
    assert (answer.status_code, "is no cursor that a page of this list has given" in answer.text) == (422, True)
    assert api.call("GET", "/search", params={"q": ""}).status_code == 422
    assert api.call("GET", "/search").status_code == 422
    assert parts(api, q="ab")[0]["items"] == []
