"""/v1/events: an event of the log, who got it, and sending it again."""

from typing import Any

import pytest
from sqlalchemy import Engine

from consumer.api.tokens import TokenFile
from consumer.ledger import store
from consumer.ops import story
from consumer.ops.replay_request import Log
from tests.api.v1_kit import GROUP, Api, make_api, token_file
from tests.kafka_kit import Kafka
from tests.ledger.rows_kit import make_event, parked


@pytest.fixture
def kafka(mock_kafka: str) -> Kafka:
    """A cluster."""
    return Kafka(mock_kafka, real=False)


@pytest.fixture
def topic(kafka: Kafka) -> str:
    """A topic with an event of acme, one of nobody, and a record that carries none."""
    topic = kafka.topic()
    for value, headers in ((b'{"type": "order.paid"}', [("tenant", b"acme")]), (b'{"n": 1}', []), (b"\xff", [])):
        kafka.write(topic, [value], partition=0, headers=headers)
    return topic


@pytest.fixture
def api(engine: Engine, kafka: Kafka, topic: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Api:
    """The application with that log, whose group has committed all of it."""
    monkeypatch.setattr(story, "committed_offsets", lambda _, partitions: dict.fromkeys(partitions, 3))
    return make_api(engine, TokenFile(token_file(tmp_path / "tokens.toml")), log=Log(kafka.settings(), [topic]))


def test_an_event_is_shown_with_its_receivers(api: Api, topic: str) -> None:
    """Also a stored delivery of a subscription that was removed."""
    added = api.create(event_type="order.*", event_filter="false", name="Old shop")["id"]
    shown = api.call("GET", f"/events/{topic}/0/0").json()
    timestamp = shown["at"]
    assert {name: shown[name] for name in ("topic", "partition", "offset", "event_type", "tenant", "reason")} == {
        "topic": topic,
        "partition": 0,
        "offset": 0,
        "event_type": "order.paid",
        "tenant": "acme",
        "reason": None,
    }
    assert (shown["body"], shown["size"], timestamp[-1]) == ('{"type": "order.paid"}', 22, "Z")
    (receiver,) = shown["receivers"]
    assert (receiver["subscription_id"], receiver["state"], receiver["matches"]) == (added, "unmatched", False)
    assert (receiver["name"], receiver["tenant"]) == ("Old shop", "*")
    assert receiver["why"] == "filter: false for this event"
    assert shown["missing"] == story.NO_HISTORY


def test_a_record_without_an_event_says_why(api: Api, topic: str) -> None:
    """It has no receivers, and cannot be sent."""
    shown = api.call("GET", f"/events/{topic}/0/2").json()
    assert "not UTF-8" in shown["reason"]
    assert (shown["receivers"], shown["webhook_id"], shown["size"]) == ([], None, 1)
    carried = {name: shown[name] for name in ("body", "body_base64", "key", "key_base64")}
    assert carried == {"body": None, "body_base64": "/w==", "key": "key", "key_base64": None}
    assert api.call("POST", f"/events/{topic}/0/2/resend", {"subscription_id": 1}).status_code == 422


def test_a_tenant_sees_its_own_events(api: Api, topic: str) -> None:
    """Others are not there, like records that the log lacks and topics that no worker reads."""
    mine, _ = api.create(event_type="order.*", tenant="acme")["id"], api.create(event_type="order.*", tenant="other")
    shown = api.call("GET", f"/events/{topic}/0/0", token="acme").json()
    assert [each["subscription_id"] for each in shown["receivers"]] == [mine]
    theirs = api.call("GET", f"/events/{topic}/0/0", token="other")
    absent = api.call("GET", f"/events/{topic}/0/9", token="other")
    assert theirs.status_code == absent.status_code == 404
    assert theirs.json()["detail"].replace("offset 0", "offset 9") == absent.json()["detail"]
    for place in ("0/1", "0/2", "7/0"):
        assert api.call("GET", f"/events/{topic}/{place}", token="acme").status_code == 404
    assert api.call("GET", "/events/another/0/0").status_code == 404


def test_receivers_come_by_pages(api: Api, topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of other tenants are counted for a token of all tenants. A cursor is for its own event."""
    monkeypatch.setattr(story, "MOST", 1)
    own = [api.create(event_type="order.*", tenant=tenant)["id"] for tenant in ("other", "acme", "*", "other")][1:3]
    first = api.call("GET", f"/events/{topic}/0/0").json()
    again = {"cursor": first["next"]}
    second = api.call("GET", f"/events/{topic}/0/0", params=again).json()
    assert [each["subscription_id"] for page in (first, second) for each in page["receivers"]] == own
    assert [(page["more"], page["other_tenants"]) for page in (first, second)] == [(True, 2), (False, 2)]
    assert api.call("GET", f"/events/{topic}/0/1", params=again).status_code == 422
    theirs = api.call("GET", f"/events/{topic}/0/0", token="acme").json()
    assert (len(theirs["receivers"]), theirs["next"], theirs["other_tenants"]) == (1, None, None)


def test_an_event_is_sent_again(api: Api, topic: str, engine: Engine) -> None:
    """By its stored delivery, or by a replay of its record, within the scope and the tenant of the token."""
    first, second = (api.create(event_type="order.*", tenant="acme")["id"] for _ in range(2))
    at = make_event(0, topic=topic).record._replace(timestamp=timestamp_of(api, topic))
    row = parked(make_event(0, topic=topic, tenant="acme")._replace(record=at), first, status="exhausted")
    store.park(engine, GROUP, [row], 1.0)

    def resend(subscription: int, who: str = "acme") -> Any:
        return api.call("POST", f"/events/{topic}/0/0/resend", {"subscription_id": subscription}, token=who)

    assert resend(first).json() == {"subscription_id": first, "delivery_id": 1, "replay_id": None}
    answer = resend(second)
    assert (answer.status_code, answer.json()) == (
        202,
        {"subscription_id": second, "delivery_id": None, "replay_id": 1},
    )
    assert resend(second, "other").status_code == 404
    assert resend(second, "reader").status_code == 403
    assert resend(999).status_code == 404
    actors = [event.data["actor"] for event in api.events() if event.type in {"replay.created", "delivery.redelivered"}]
    assert actors == ["api:acme"] * 2


def timestamp_of(api: Api, topic: str) -> int:
    """The timestamp of the first record, in milliseconds."""
    found: Any = api.app.state.backing.record(api.app.state.backing.tokens.find(b"all"), topic, 0, 0)
    return int(found.record.timestamp)
