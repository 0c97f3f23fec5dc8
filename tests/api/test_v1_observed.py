"""/v1/attempts, statistics, event-types and replays."""

import time
from collections import Counter
from collections.abc import Callable

import pytest
from sqlalchemy import Engine

from consumer.api import backing
from consumer.api.tokens import ANYONE
from consumer.events.attempt import Attempt
from consumer.ledger import replays, store, upkeep
from consumer.ledger.replays import Span
from consumer.ledger.rows import AttemptFailure
from consumer.ops.attempt_pages import AttemptPage, Position, Wanted, after, order
from consumer.ops.attempt_statistics import AttemptStatistics, Bucket, step_of, success
from consumer.ops.overview import overview
from tests.api.v1_kit import GROUP, Api
from tests.ledger.rows_kit import make_event, parked


class History:
    """An attempt history of these attempts, with AttemptHistory's interface."""

    fault: str | None = None

    def __init__(self, attempts: list[Attempt]) -> None:
        self.attempts = attempts
        self.asked: list[tuple[float, float, Position | None]] = []

    def recent(
        self, subscription: int | None, limit: int, where: Callable[[Attempt], bool] = lambda _: True
    ) -> list[Attempt]:
        """The attempts of the last hour."""
        return [each for each in self.attempts if subscription in {None, each.subscription_id} and where(each)][:limit]

    def statistics(self, subscription: int, tenant: str | None) -> AttemptStatistics:
        """The numbers of all attempts of a subscription, as if it was the last hour's."""
        its = [each for each in self.attempts if each.subscription_id == subscription and tenant in {None, each.tenant}]
        counted = Counter((each.outcome == "delivered", step_of(each.seconds)) for each in its)
        return AttemptStatistics([success(1, 1_800_000_000.0, [Bucket(0.0, 2.0, [counted])])], [], 3)

    def page(self, wanted: Wanted, limit: int, position: Position | None) -> AttemptPage:
        """A page of a list of attempts."""
        self.asked.append((wanted.since, wanted.until, position))
        there = (each for each in self.attempts if wanted.has(each) and (not position or order(each) < position.before))
        found = sorted(there, key=order, reverse=True)
        return AttemptPage(found[:limit], after(found[:limit], 0.0) if len(found) > limit else None)


def attempt(subscription: int, tenant: str | None = None) -> Attempt:
    """A failed attempt at an event of a tenant."""
    at = 1_800_000_000.0
    return Attempt(
        at, subscription, "msg_1", "a", tenant, "t", 0, 7, 1, "parked", 503, "status 503", 0.042, "try later"
    )


def test_attempts_are_listed(api: Api) -> None:
    """The list has all attempts, a subscription's, or those of a time range.

    A tenant sees those of its own subscriptions and events: a subscription may have had another tenant before.
    """
    mine, theirs = api.create(tenant="acme")["id"], api.create(tenant="other")["id"]
    assert api.call("GET", "/attempts").status_code == 404
    history = History([attempt(mine, "acme"), attempt(theirs)])
    api.app.state.backing = api.app.state.backing._replace(history=history)
    items = api.call("GET", "/attempts").json()["items"]
    assert [item["subscription_id"] for item in items] == [mine, theirs]
    assert items[0]["at"] == "2027-01-15T08:00:00.000Z"
    (item,) = api.call("GET", f"/attempts?subscription_id={mine}", token="acme").json()["items"]
    assert (item["status"], item["error"], item["response"]) == (503, "status 503", "try later")
    assert api.call("GET", f"/attempts?subscription_id={theirs}", token="acme").json()["items"] == []
    history.attempts.append(attempt(mine, "other"))
    for query in ("", "&since=2027-01-15T07:00:00Z"):
        (item,) = api.call("GET", f"/attempts?subscription_id={mine}{query}", token="acme").json()["items"]
        assert len(api.call("GET", f"/attempts?subscription_id={mine}{query}").json()["items"]) == 2
    history.asked.clear()
    told = api.call("GET", "/attempts?since=2027-01-15T07:00:00Z&until=2027-01-15T09:00:00Z").json()
    assert history.asked == [(1_800_000_000.0 - 3600, 1_800_000_000.0 + 3600, None)]
    assert (len(told["items"]), told["next"], told["missing"]) == (3, None, None)
    api.call("GET", "/attempts?since=1969-12-31T23:59:59Z&until=1970-01-01T00:00:00Z")
    assert history.asked[-1] == (0.0, 0.0, None)


def test_attempts_at_an_event_are_found(api: Api) -> None:
    """By its webhook-id, in memory and in the topic. A tenant needs to name no subscription: it gets its own."""
    mine, moved = api.create(tenant="acme")["id"], api.create(tenant="other")["id"]
    made = [attempt(mine, "acme"), attempt(mine, "other"), attempt(moved, "acme"), attempt(mine, "acme")]
    made[3] = made[3]._replace(webhook_id="msg_2")
    api.app.state.backing = api.app.state.backing._replace(history=History(made))
    for time_range in ("", "&since=2027-01-15T07:00:00Z"):
        for token, query, found in (
            ("all", "webhook_id=msg_2", [(mine, "msg_2")]),
            ("all", "webhook_id=msg_1&limit=9", [(moved, "msg_1"), (mine, "msg_1"), (mine, "msg_1")]),
            ("all", f"webhook_id=msg_1&subscription_id={moved}", [(moved, "msg_1")]),
            ("acme", "webhook_id=msg_1", [(mine, "msg_1")]),
            ("acme", "limit=9", [(mine, "msg_2"), (mine, "msg_1")]),
            ("other", "webhook_id=msg_1", []),
            ("all", "webhook_id=msg_3", []),
            ("all", "webhook_id=msg_2&outcome=parked", [(mine, "msg_2")]),
            ("all", "webhook_id=msg_2&outcome=delivered", []),
        ):
            answer = api.call("GET", f"/attempts?{query}{time_range}", token=token)
            items = [(item["subscription_id"], item["webhook_id"]) for item in answer.json()["items"]]
            assert sorted(items) == sorted(found), (token, query, time_range)


def test_attempts_are_listed_page_by_page(api: Api) -> None:
    """The first page without a time is from memory, and the next one goes on behind its last attempt."""
    subscription = api.create(tenant="acme")["id"]
    history = History([attempt(subscription, "acme")._replace(at=float(second)) for second in (5, 4, 4, 3, 2)])
    history.attempts[2] = history.attempts[2]._replace(webhook_id="msg_0")
    history.fault = "no broker reachable"
    api.app.state.backing = api.app.state.backing._replace(history=history)
    path, found, missing = f"/attempts?limit=2&subscription_id={subscription}", [], []
    page = {"next": ""}
    while page["next"] is not None:
        more = {"cursor": page["next"]} if page["next"] else {}
        page = api.call("GET", path, token="acme", params=more).json()
        found += [(item["at"], item["webhook_id"]) for item in page["items"]]
        missing.append(page["missing"])
    times = [f"1970-01-01T00:00:0{second}.000Z" for second in (5, 4, 4, 3, 2)]
    assert found == [(at, "msg_0" if place == 2 else "msg_1") for place, at in enumerate(times)]
    assert missing == ["attempts cannot all be read now; try again later", None, None]
    assert len(history.asked) == 2
    history.attempts.clear()
    empty = api.call("GET", path, token="acme").json()
    assert empty["items"] == []
    last = api.call("GET", path, token="acme", params={"cursor": empty["next"]}).json()
    assert (last["items"], last["next"]) == ([], None)


def test_few_requests_read_the_topic_at_once(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each holds a thread for seconds; the requests of other tenants need one too."""
    mine, history = api.create(tenant="acme")["id"], History([])
    api.app.state.backing = api.app.state.backing._replace(history=history)
    monkeypatch.setattr(backing.reading_back, "most", 1)
    path = f"/attempts?subscription_id={mine}&since=2027-01-15T07:00:00Z"
    assert api.call("GET", path, token="acme").status_code == 200
    with backing.reading_back(ANYONE):
        refused = api.call("GET", path, token="acme")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert api.call("GET", f"/attempts?subscription_id={mine}", token="acme").status_code == 200
    assert len(history.asked) == 1


def test_statistics(api: Api, engine: Engine) -> None:
    """They have counts by state and failing subscriptions.

    Without Kafka's settings the lag is missing, with the reason.
    """
    subscription = api.create()["id"]
    store.park(engine, GROUP, [parked(make_event(1), subscription)], 1.0)
    api.app.state.backing = api.app.state.backing._replace(look=lambda: overview(engine, None, ()))
    seen = api.call("GET", "/statistics").json()
    assert seen["states"]["parked"] == 1
    assert (seen["failing"], seen["lag"]) == ([], None)
    assert "KAFKA_BOOTSTRAP_SERVERS" in seen["missing"]["lag"]


def test_statistics_of_a_subscription(api: Api) -> None:
    """They say how many attempts succeed, in which time, and whether that is an estimate; of a tenant's own events."""
    mine = api.create(tenant="acme")["id"]
    path = f"/subscriptions/{mine}/statistics"
    assert api.call("GET", path).status_code == 404
    history = History([attempt(mine, "acme"), attempt(mine, "acme"), attempt(mine, "other"), attempt(mine + 1)])
    api.app.state.backing = api.app.state.backing._replace(history=history)
    told = api.call("GET", path).json()
    (hour,) = told["windows"]
    assert (hour["failed"], hour["sample"], hour["exact"], hour["share"]) == (6, 3, False, 0.0)
    assert (hour["since"], told["by_hour"], told["unread"]) == ("2027-01-15T08:00:00.000Z", [], 3)
    assert hour["median"] == pytest.approx(0.042, rel=0.05)
    assert api.call("GET", path, token="acme").json()["windows"][0]["sample"] == 2
    assert api.call("GET", "/subscriptions/999/statistics").status_code == 404


def test_a_tenants_statistics_are_of_its_own_subscriptions(api: Api, engine: Engine) -> None:
    """Nothing of another tenant is counted or named; what is about all tenants is missing, with the reason."""
    mine, theirs = api.create(tenant="acme", name="ERP")["id"], api.create(tenant="other")["id"]
    failed = AttemptFailure("connecting to 10.9.8.7:443", None, None, 1.0)
    for number in (mine, theirs, theirs):
        store.park(engine, GROUP, [parked(make_event(api.create()["id"]), number, first=failed, last=failed)], 1.0)
    for number in (mine, theirs):
        upkeep.failing(engine, number, 1.0)
    api.app.state.backing = api.app.state.backing._replace(look=lambda: pytest.fail("it looked at all"))
    seen = api.call("GET", "/statistics", token="acme").json()
    assert seen["states"]["parked"] == 1
    ((failing, error),) = [(each["subscription_id"], each["last_error"]) for each in seen["failing"]]
    assert (seen["failing"][0]["name"], seen["failing"][0]["tenant"]) == ("ERP", "acme")
    assert (failing, error, seen["disabled"], seen["paused"]) == (mine, "connecting to …:443", [], [])
    assert (seen["lag"], seen["dead_letters"]) == (None, None)
    assert seen["missing"]["lag"] == "only a token of all tenants shows it"


def test_few_requests_count_at_once(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a tenant: each reads up to 10,000 rows of a state."""
    monkeypatch.setattr(backing.counting, "most", 1)
    api.app.state.backing = api.app.state.backing._replace(look=lambda: pytest.fail("it looked at all"))
    assert api.call("GET", "/statistics", token="acme").status_code == 200
    with backing.counting(ANYONE):
        refused = api.call("GET", "/statistics", token="acme")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")


def test_event_types_are_listed_page_by_page(api: Api) -> None:
    """Each has its number of subscriptions."""
    for event_type in ("a", "b", "b", "c"):
        api.create(event_type=event_type)
    first = api.call("GET", "/event-types?limit=2").json()
    assert [(item["event_type"], item["subscriptions"]) for item in first["items"]] == [("a", 1), ("b", 2)]
    second = api.call("GET", f"/event-types?limit=2&cursor={first['next']}").json()
    assert ([item["event_type"] for item in second["items"]], second["next"]) == (["c"], None)


def test_replays_are_listed_and_cancelled(api: Api, engine: Engine) -> None:
    """They have their progress, and a cancelled one can be resumed. Another group's is unknown.

    Cancelling one that has ended is a conflict, and so is resuming one that goes on.
    """
    subscription = api.create()["id"]
    for group in (GROUP, "another"):
        replays.create(engine, group, subscription, 1000.0, 2000.0, None, 10.0, [Span("t", 0, 5, 15)], time.time())
    (item,) = api.call("GET", "/replays").json()["items"]
    assert (item["state"], item["records"], item["records_left"], item["ordered"]) == ("running", 10, 10, False)
    path = f"/replays/{item['id']}"
    assert api.call("POST", f"{path}/cancel", {}).json()["state"] == "cancelled"
    assert api.call("POST", f"{path}/cancel", {}).status_code == 409
    assert api.call("GET", path).json()["state"] == "cancelled"
    assert api.call("GET", f"/replays/{item['id'] + 1}").status_code == 404
    assert api.call("POST", f"{path}/resume", {}).json()["state"] == "running"
    assert api.call("POST", f"{path}/resume", {}).status_code == 409
    assert api.call("POST", f"/replays/{item['id'] + 1}/resume", {}).status_code == 404
    assert [event.type for event in api.events()[1:]] == ["replay.cancelled", "replay.resumed"]
    for _ in range(2):
        replays.create(engine, GROUP, subscription, 1000.0, 2000.0, None, 10.0, [Span("t", 0, 5, 15)], time.time())
    first = api.call("GET", "/replays?limit=2").json()
    last = api.call("GET", f"/replays?limit=2&cursor={first['next']}").json()
    assert [each["id"] for each in first["items"] + last["items"]] == [item["id"] + 3, item["id"] + 2, item["id"]]
    assert last["next"] is None
