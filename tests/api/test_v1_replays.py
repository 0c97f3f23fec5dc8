"""POST /v1/replays: beginning a replay, previewing one, and errors that point to the mistake. And `start`."""

from datetime import UTC, datetime
from typing import Any, get_args

import pytest

from consumer.ledger import cursors, replays
from consumer.ledger.replays import Span
from consumer.ops.replay_request import Log
from models import CursorReason
from tests.api.v1_kit import GROUP, Api
from tests.kafka_kit import Kafka, await_looks


@pytest.fixture
def topic(api: Api, mock_kafka: str) -> str:
    """The name of a topic that the API knows. The mock cluster finds no record by its time."""
    return written(api, Kafka(mock_kafka, real=False))


@pytest.fixture
def records(api: Api, kafka_bootstrap: str) -> str:
    """The name of a topic with three records that the API knows."""
    return written(api, Kafka(kafka_bootstrap, real=True))


def written(api: Api, kafka: Kafka) -> str:
    name = kafka.topic()
    kafka.write(name, [b'{"type": "order.created"}'] * 3)
    api.app.state.backing = api.app.state.backing._replace(log=Log(kafka.settings(group=GROUP), [name]))
    return name


def test_a_replay_is_begun(api: Api, records: str) -> None:
    """The answer is the replay, which the workers run, with its Location; the event names the actor."""
    subscription = api.create(rate_limit=50, ordering="key")["id"]
    body = {"subscription_id": subscription, "since": "1h", "topics": [records], "ordered": True}
    answer = api.call("POST", "/replays", body)
    assert answer.status_code == 201, answer.text
    begun = answer.json()
    assert answer.headers["location"] == f"/v1/replays/{begun['id']}"
    assert api.call("GET", f"/replays/{begun['id']}").json() == begun
    shown = {
        name: begun[name]
        for name in ("subscription_id", "state", "rate", "ordered", "records", "records_left", "created_by")
    }
    assert shown == {
        "subscription_id": subscription,
        "state": "running",
        "rate": 5.0,
        "ordered": True,
        "records": 3,
        "records_left": 3,
        "created_by": "api:all",
    }
    cancelled = api.call("POST", f"/replays/{begun['id']}/cancel", {}).json()
    assert (cancelled["state"], cancelled["cancelled_at"] is not None) == ("cancelled", True)
    told = [(event.type, event.data["actor"], event.data.get("replay_id")) for event in api.events()[1:]]
    assert told == [("replay.created", "api:all", begun["id"]), ("replay.cancelled", "api:all", begun["id"])]


@pytest.mark.usefixtures("topic")
def test_a_key_begins_one_replay(api: Api) -> None:
    """A repeated request gets the first one's replay in its present state."""
    body = {"subscription_id": api.create()["id"], "since": "1970-01-01T00:00:00Z"}
    first, second = (api.call("POST", "/replays", body, headers={"idempotency-key": "k"}) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 201), first.text
    assert (first.json(), first.headers["location"]) == (second.json(), second.headers["location"])
    assert second.headers["idempotency-replayed"] == "true"
    assert [each["id"] for each in api.call("GET", "/replays").json()["items"]] == [first.json()["id"]]


def test_a_dry_run_stores_nothing(api: Api, records: str) -> None:
    """It answers the records that would be read, by partition."""
    subscription = api.create()["id"]
    since = datetime.fromtimestamp(0, UTC).isoformat()
    body = {"subscription_id": subscription, "since": since, "rate": 20, "dry_run": True}
    answer = api.call("POST", "/replays", body)
    seen = answer.json()
    assert (answer.status_code, seen["since"], seen["rate"], seen["records"]) == (
        200,
        "1970-01-01T00:00:00.000Z",
        20,
        3,
    )
    part = {"topic": records, "partition": 0, "first_offset": 0, "last_offset": 2, "records": 3}
    assert seen["partitions"] == [part]
    assert replays.find(api.engine, limit=1) == []
    assert [event.type for event in api.events()] == ["subscription.created"]


@pytest.mark.parametrize(
    ("wrong", "pointer"),
    [
        ({"since": "2026-07-28T14:00"}, "/since"),
        ({"since": "1h", "until": "2h"}, "/until"),
        ({"since": "1h", "event_type": "another"}, "/event_type"),
        ({"since": "1h", "rate": 51}, "/rate"),
        ({"since": "1h", "ordered": True}, "/ordered"),
        ({"since": "1h", "topics": ["another"]}, "/topics/0"),
        ({"since": "1h", "topics": "another"}, "/topics"),
        ({"since": "1" * 41}, "/since"),
        ({"since": "1h", "limit": 1}, "/limit"),
        ({}, "/since"),
    ],
)
def test_a_mistake_is_pointed_at(api: Api, topic: str, wrong: dict[str, Any], pointer: str) -> None:
    """No replay is begun."""
    del topic
    answer = api.call("POST", "/replays", {"subscription_id": api.create(rate_limit=50)["id"], **wrong})
    assert (answer.status_code, [each["pointer"] for each in answer.json()["errors"]]) == (422, [pointer])
    assert replays.find(api.engine, limit=1) == []


def test_obstacles_to_a_replay_are_named(api: Api, topic: str) -> None:
    """They are an unknown or disabled subscription, an unknown topic, and a process without Kafka's settings."""
    subscription = api.create()["id"]
    body = {"subscription_id": subscription, "since": "1h"}
    absent = api.call("POST", "/replays", {**body, "subscription_id": subscription + 1})
    assert (absent.status_code, absent.json()["detail"]) == (404, "there is no such subscription")
    backing = api.app.state.backing
    api.call("PATCH", f"/subscriptions/{subscription}", {"state": "disabled"})
    disabled = api.call("POST", "/replays", body)
    assert (disabled.status_code, "is disabled" in disabled.json()["detail"]) == (409, True)
    api.call("PATCH", f"/subscriptions/{subscription}", {"state": "enabled"})
    api.app.state.backing = backing._replace(log=backing.log._replace(topics=[f"no-{topic}"]))
    assert "KAFKA_TOPICS=no-" in api.call("POST", "/replays", body).json()["detail"]
    api.app.state.backing = backing._replace(log=None)
    unknown = api.call("POST", "/replays", body)
    assert (unknown.status_code, "KAFKA_BOOTSTRAP_SERVERS" in unknown.json()["detail"]) == (409, True)


def test_a_tenant_replays_to_its_own_subscriptions(api: Api, records: str) -> None:
    """Within their rate limits, or at 100 a second. It learns neither how many records there are, nor who began one."""
    mine, limited = api.create(tenant="acme")["id"], api.create(tenant="acme", rate_limit=500)["id"]
    theirs, everybodys = api.create(tenant="other")["id"], api.create()["id"]
    body = {"subscription_id": mine, "since": "1h", "topics": [records]}
    for number in (theirs, everybodys):
        refused, absent = (
            api.call("POST", "/replays", body | {"subscription_id": each}, token="acme") for each in (number, 999)
        )
        assert (refused.status_code, refused.content) == (404, absent.content)
    for subscription, rate, status in ((mine, 101, 422), (mine, 100, 200), (limited, 500, 200), (limited, 501, 422)):
        asked = body | {"subscription_id": subscription, "rate": rate, "dry_run": True}
        previewed = api.call("POST", "/replays", asked, token="acme")
        assert previewed.status_code == status
        if status == 200:
            assert (previewed.json()["records"], previewed.json()["partitions"]) == (None, None)
    begun = api.call("POST", "/replays", body, token="acme", headers={"idempotency-key": "k"}).json()
    assert begun == api.call("POST", "/replays", body, token="acme", headers={"idempotency-key": "k"}).json()
    assert (begun["state"], begun["rate"]) == ("running", 100.0)
    assert (begun["records"], begun["records_left"], begun["created_by"]) == (None, None, None)
    assert api.call("GET", f"/replays/{begun['id']}").json()["created_by"] == "api:acme"
    assert api.call("GET", "/replays", token="acme").json()["items"] == [begun]
    assert api.call("GET", "/replays", token="other").json()["items"] == []
    (hit,) = [
        each
        for each in api.call("GET", f"/search?q={begun['id']}", token="acme").json()["items"]
        if each["kind"] == "replay"
    ]
    assert hit["id"] == begun["id"]
    for method, action in (("GET", ""), ("POST", "/cancel"), ("POST", "/resume")):
        one, no = (
            api.call(method, f"/replays/{each}{action}", {} if action else None, token="other")
            for each in (begun["id"], 999)
        )
        assert (one.status_code, one.content) == (404, no.content)
        assert (
            api.call(method, f"/replays/{begun['id']}{action}", {} if action else None, token="acme").status_code == 200
        )


def test_a_tenant_begins_a_bounded_number_of_replays(api: Api, topic: str) -> None:
    """Each reads the topics of all tenants; one that has ended makes room for another."""
    mine = api.create(tenant="acme")["id"]
    numbers = [
        replays.create(api.engine, GROUP, mine, 0.0, 1.0, None, 1.0, [Span(topic, 0, 0, 9)], 100.0) for _ in range(10)
    ]
    body = {"subscription_id": mine, "since": "1h"}
    refused = api.call("POST", "/replays", body, token="acme")
    assert (refused.status_code, "10 replays go on" in refused.json()["detail"]) == (409, True)
    assert api.call("POST", "/replays", body).status_code == 201
    assert api.call("POST", f"/replays/{numbers[0]}/cancel", {}, token="acme").status_code == 200
    assert api.call("POST", "/replays", body, token="acme").status_code == 201


def test_replays_are_listed_by_state(api: Api) -> None:
    """A replay is listed under the state that it shows, and under no other."""
    going, paused, removed = (api.create()["id"] for _ in range(3))
    for subscription, end in ((going, 9), (going, 0), (going, 9), (paused, 9), (removed, 9)):
        spans = [Span("t", 0, 0, end)] if end else []
        last = replays.create(api.engine, GROUP, subscription, 0.0, 1.0, None, 1.0, spans, 100.0)
    replays.cancel(api.engine, last - 2, 101.0)
    assert api.call("PATCH", f"/subscriptions/{paused}", {"state": "paused"}).status_code == 200
    assert api.call("DELETE", f"/subscriptions/{removed}", params={"if_owed": "exhaust"}).status_code == 204
    listed = {}
    for state in get_args(replays.State):
        for item in api.call("GET", f"/replays?state={state}").json()["items"]:
            assert item["state"] == state
            listed[item["id"]] = state
    assert [listed[last - back] for back in (4, 3, 2, 1, 0)] == [
        "running",
        "finished",
        "cancelled",
        "waiting",
        "waiting",
    ]
    assert api.call("GET", "/replays?state=ended").status_code == 422


def test_a_replay_without_its_subscription_is_not_resumed(api: Api) -> None:
    """A 409 says why; one that goes on says so, too."""
    subscription = api.create()["id"]
    number = replays.create(api.engine, GROUP, subscription, 0.0, 1.0, None, 1.0, [Span("t", 0, 0, 9)], 100.0)
    running = api.call("POST", f"/replays/{number}/resume", {})
    assert (running.status_code, running.json()["detail"]) == (409, "the replay is not cancelled")
    replays.cancel(api.engine, number, 101.0)
    assert api.call("DELETE", f"/subscriptions/{subscription}").status_code == 204
    refused = api.call("POST", f"/replays/{number}/resume", {})
    assert (refused.status_code, refused.json()["detail"]) == (409, f"subscription {subscription} was removed")
    left = api.call("GET", f"/replays/{number}").json()
    assert (left["state"], left["records_left"]) == ("cancelled", 9)


def test_an_unreachable_kafka_is_a_quick_error(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer says when to retry."""
    monkeypatch.setattr("consumer.ops.replay_request.spans_soon.__defaults__", (0.2,))
    log = Log(Kafka("127.0.0.1:1", real=True).settings(group=GROUP), ["t"])
    api.app.state.backing = api.app.state.backing._replace(log=log)
    answer = api.call("POST", "/replays", {"subscription_id": api.create()["id"], "since": "1h"})
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:kafka-webhooks:problem:unavailable")
    assert "127.0.0.1:1" in answer.json()["detail"]
    assert answer.headers["retry-after"] == "5"
    await_looks()


def test_a_subscription_begins_in_the_past(api: Api, records: str) -> None:
    """It has a cursor in each partition that it gets events from, and a repeated request creates nothing."""
    new = {"url": "https://example.com/hooks", "event_type": "a", "start": "earliest", "topics": records}
    for _ in range(2):
        answer = api.call("POST", "/subscriptions", new, headers={"idempotency-key": "k"})
        assert answer.status_code == 201, answer.text
    kept = cursors.of_partition(api.engine, GROUP, (records, 0))
    assert [(each.reason, each.first, each.end) for each in kept] == [(CursorReason.START, 0, None)]


def test_a_start_that_is_not_possible_creates_nothing(api: Api, topic: str) -> None:
    """It is no time in the past, the subscription's topics are not read, or the API knows no Kafka."""
    new = {"url": "https://example.com/hooks", "event_type": "a"}
    wrong = api.call("POST", "/subscriptions", {**new, "start": "soon"})
    assert (wrong.status_code, wrong.json()["errors"][0]["pointer"]) == (422, "/start")
    for topics in (f"^{topic}", ",", "bad name!"):
        wrong = api.call("POST", "/subscriptions", {**new, "start": "1h", "topics": topics})
        assert (wrong.status_code, wrong.json()["errors"][0]["pointer"]) == (422, "/topics")
    away = api.call("POST", "/subscriptions", {**new, "start": "1h", "topics": f"no-{topic}"})
    assert (away.status_code, "KAFKA_TOPICS" in away.json()["detail"]) == (409, True)
    api.app.state.backing = api.app.state.backing._replace(log=None)
    unknown = api.call("POST", "/subscriptions", {**new, "start": "1h"})
    assert (unknown.status_code, "KAFKA_BOOTSTRAP_SERVERS" in unknown.json()["detail"]) == (409, True)
    assert api.call("GET", "/subscriptions").json()["items"] == []
