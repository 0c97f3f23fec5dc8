"""/v1/dead-letters and /v1/audit, on the topics that workers write."""

import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from consumer.api.tokens import TokenFile
from consumer.config.settings import KafkaSettings
from consumer.ops import events
from consumer.ops.events import newest
from tests.api.v1_kit import Api, make_api, token_file
from tests.kafka_kit import Kafka, unique

ENTRIES: tuple[tuple[str, str | None, dict[str, object]], ...] = (
    ("subscription.created", "console:anne", {"subscription_id": 7}),
    ("replay.created", "api:grafana", {"subscription_id": 8, "replay_id": 1}),
    ("delivery.redelivered", "cli:anne", {"delivery_ids": [1], "subscription_ids": [7, 9]}),
    ("subscription.disabled", None, {"subscription_id": 8}),
)


@pytest.fixture
def kafka(mock_kafka: str) -> Kafka:
    """A cluster."""
    return Kafka(mock_kafka, real=False)


@pytest.fixture
def settings(kafka: Kafka) -> KafkaSettings:
    """A deployment's topics: ENTRIES and one of another deployment, and a dead letter of five records."""
    made = kafka.settings().model_copy(update={"operations_topic": unique("operations")})
    told = [(made.event_source, *entry) for entry in ENTRIES]
    for number, (source, kind, actor, data) in enumerate([*told[:2], ("elsewhere", *ENTRIES[0]), *told[2:]]):
        content = data if actor is None else data | {"actor": actor}
        event = {"source": source, "type": kind, "time": f"2026-07-28T14:00:0{number}Z", "data": content}
        kafka.write(made.operations_topic, [json.dumps(event).encode()])
    for number in range(5):
        place = {"topic": kafka.topic(), "partition": "3", "offset": str(number), "reason": "not_json"}
        if number == 4:
            place["reason"] = "unreadable"
        headers = [(f"dead-letter-{name}", text.encode()) for name, text in place.items()]
        kafka.write(made.dead_letter_topic, [b"\xff%d" % number], headers=headers)
    return made


@pytest.fixture
def api(engine: Engine, settings: KafkaSettings, tmp_path: Path) -> Api:
    """The application with that deployment."""
    return make_api(engine, TokenFile(token_file(tmp_path / "tokens.toml")), kafka=settings)


def walked(api: Api, path: str, **query: str | int) -> list[dict[str, Any]]:
    """The items of all pages."""
    page = api.call("GET", path, params=query).json()
    found: list[dict[str, Any]] = page["items"]
    while page["next"]:
        page = api.call("GET", path, params=query | {"cursor": page["next"]}).json()
        found += page["items"]
    return found


def test_dead_letters_are_listed_and_shown(api: Api) -> None:
    """Newest first, page by page, with the place and the content of the record."""
    found = walked(api, "/dead-letters", limit=2)
    assert [item["offset"] for item in found] == [4, 3, 2, 1, 0]
    shown = api.call("GET", "/dead-letters/0/3").json()
    assert shown == found[1]
    assert (shown["value"], shown["value_base64"]) == (None, b64encode(b"\xff3").decode())
    assert (shown["size"], shown["key"], shown["key_base64"]) == (2, "key", None)
    assert (shown["origin"], shown["reason"], shown["lacking"]) == (f"{shown['topic']}[3] @ 3", "not_json", None)
    assert "its producer has to publish it again" in found[0]["lacking"]
    absent = api.call("GET", "/dead-letters/0/9")
    assert (absent.status_code, absent.json()["code"]) == (404, "not_found")


def test_a_dead_letter_is_published_again(api: Api, settings: KafkaSettings) -> None:
    """It says when, and the audit says who. One that is not whole is a conflict."""
    topic = api.call("GET", "/dead-letters/0/1").json()["topic"]
    assert api.call("POST", "/dead-letters/0/1/publish", {}, token="writer").status_code == 204
    assert [record.value for record in newest(settings, topic, 9)] == [b"\xff1"]
    assert [item["published_at"] is None for item in walked(api, "/dead-letters")] == [True] * 3 + [False, True]
    assert [(event.type, event.data["actor"]) for event in api.events()] == [("dead_letter.published", "api:writer")]
    assert api.call("POST", "/dead-letters/0/4/publish", {}).status_code == 409
    assert api.call("POST", "/dead-letters/0/9/publish", {}).status_code == 404


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({}, [3, 2, 1, 0]),
        ({"type": "subscription"}, [3, 0]),
        ({"actor": "anne"}, [2, 0]),
        ({"actor": "service"}, [3]),
        ({"subscription_id": 7}, [2, 0]),
        ({"subscription_id": 8, "actor": "api"}, [1]),
        ({"type": "secret"}, []),
    ],
)
def test_changes_are_listed(api: Api, query: dict[str, Any], found: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Newest first, with the way by which each was made; a filter looks at more records a page at a time."""
    monkeypatch.setattr(events, "SEARCHED", 2)
    for limit in (1, 50):
        items = walked(api, "/audit", limit=limit, **query)
        assert [item["type"] for item in items] == [ENTRIES[number][0] for number in found]
    if not query:
        assert [item["via"] for item in items] == ["service", "cli", "api", "console"]
        assert items[1]["data"] == ENTRIES[2][2] | {"actor": "cli:anne"}


@pytest.mark.parametrize("path", ["/dead-letters", "/dead-letters/0/0", "/audit"])
def test_without_kafka_the_answer_says_what_to_set(engine: Engine, tmp_path: Path, path: str) -> None:
    """This process has not the settings that workers have."""
    refused = make_api(engine, TokenFile(token_file(tmp_path / "tokens.toml"))).call("GET", path)
    assert (refused.status_code, "KAFKA_BOOTSTRAP_SERVERS" in refused.json()["detail"]) == (404, True)


@pytest.mark.parametrize("path", ["/dead-letters", "/audit"])
def test_a_cursor_of_another_list_is_refused(api: Api, path: str) -> None:
    """So is any text that no page has given."""
    other = api.app.state.backing.cursor("deliveries", [[0, 1]])
    for cursor in (other, "x"):
        refused = api.call("GET", path, params={"cursor": cursor})
        assert (refused.status_code, refused.json()["errors"][0]["parameter"]) == (422, "cursor")
