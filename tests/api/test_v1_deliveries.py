"""/v1/deliveries, on each database: search, detail and redelivery, with each tenant limited to its own."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text, update

from consumer.api.tokens import TokenFile
from consumer.config.settings import KafkaSettings
from consumer.errors import InvalidPosition
from consumer.ledger import store
from consumer.ledger.admin import DeliveryQuery
from consumer.ledger.search import search
from consumer.ops.replay_request import Log
from models import ParkedDelivery
from tests.api.test_v1_observed import History
from tests.api.v1_kit import Api, make_api, token_file
from tests.ledger.rows_kit import GROUP, make_event, parked


def stored(
    engine: Engine,
    subscription: int,
    offset: int,
    status: str = "parked",
    body: bytes = b"{}",
    tenant: str | None = None,
) -> None:
    """A stored delivery that has failed once."""
    event = make_event(offset, body=body, tenant=tenant)
    store.park(engine, GROUP, [parked(event, subscription, status=status)], 1.0)


def test_deliveries_are_searched_page_by_page(api: Api, engine: Engine) -> None:
    """They come newest first, by state, subscription, type and topic, each on one page."""
    first, second = api.create()["id"], api.create()["id"]
    for offset in range(5):
        stored(engine, first, offset)
    stored(engine, second, 9, "exhausted")
    found, path = [], f"/deliveries?subscription_id={first}&limit=2"
    page = api.call("GET", path).json()
    found += page["items"]
    while page["next"]:
        page = api.call("GET", f"{path}&cursor={page['next']}").json()
        found += page["items"]
    assert [item["offset"] for item in found] == [4, 3, 2, 1, 0]
    one = api.call("GET", f"/deliveries?webhook_id={found[0]['webhook_id']}").json()["items"]
    assert [item["offset"] for item in one] == [4]
    (item,) = api.call("GET", "/deliveries?state=exhausted&event_type=user.created&topic=t").json()["items"]
    assert (item["subscription_id"], item["state"], item["attempts"]) == (second, "exhausted", 1)
    assert (item["next_attempt_at"], item["last_failure"]["status"]) == (None, 503)
    assert api.call("GET", "/deliveries?topic=another").json() == {"items": [], "next": None}
    assert api.call("GET", "/deliveries?since=2001-01-01T00:00:00Z").json()["items"] == []


@pytest.mark.parametrize(
    "query", ["", "until=9999-12-31T23:59:59-14:00", "since=0001-01-01T00:00:00%2B14:00", "since=1969-01-01T00:00:00Z"]
)
def test_times_at_the_ends_of_the_calendar(api: Api, engine: Engine, query: str) -> None:
    """A row that an operator has put off for ever hides no other, and a far time is a time like any other."""
    subscription = api.create()["id"]
    for offset in range(2):
        stored(engine, subscription, offset)
    with engine.begin() as connection:
        never = datetime.max.replace(tzinfo=UTC)
        last = update(ParkedDelivery).where(ParkedDelivery.record_offset == 1)
        connection.execute(last.values(status="parked", next_attempt_at=never, updated_at=never))
    items = api.call("GET", f"/deliveries?{query}").json()["items"]
    assert [item["offset"] for item in items] == [1, 0]
    assert items[0]["next_attempt_at"] == "9999-12-31T23:59:59.999Z"


def test_a_time_may_be_an_age(api: Api, engine: Engine) -> None:
    """A query and a body take it. The answer's times have three digits of a second, whatever the database keeps."""
    subscription = api.create()
    stored(engine, subscription["id"], 0)
    ages = ("since=1h", "until=1h", "since=1h&until=0s", "since=1970-01-01t00:00:00z&until=1h")
    assert [len(api.call("GET", f"/deliveries?{each}").json()["items"]) for each in ages] == [0, 1, 0, 1]
    assert api.call("POST", "/subscriptions/backtest", {"event_type": "a", "since": "1hour"}).status_code == 422
    (item,) = api.call("GET", "/deliveries").json()["items"]
    assert all(re.fullmatch(r".{19}\.\d{3}Z", at) for at in (subscription["created_at"], item["created_at"]))


@pytest.mark.parametrize("query", ["cursor=x", "since=yesterday", "until=2026-01-01T00:00:00", "limit=0", "state=lost"])
def test_an_invalid_search_is_a_problem(api: Api, query: str) -> None:
    """The problem names the parameter."""
    answer = api.call("GET", f"/deliveries?{query}")
    assert answer.status_code == 422
    assert query.partition("=")[0] in answer.text
    if query == "state=lost":
        assert "should be 'parked', 'blocked', 'held', 'exhausted' or 'delivered'" in answer.text


def test_a_cursor_tells_nothing(engine: Engine, tmp_path: Path) -> None:
    """It has ids of all tenants' deliveries, which tell how many there are. Any process goes on from it."""
    one, other = (make_api(engine, TokenFile(token_file(tmp_path / name))) for name in ("one", "other"))
    subscription = one.create(tenant="acme")["id"]
    for offset in range(3):
        stored(engine, subscription, offset, tenant="acme")
    first = one.call("GET", "/deliveries?limit=2", token="acme").json()
    with pytest.raises(InvalidPosition):
        search(engine, DeliveryQuery(), 1, first["next"])
    for others in ("/subscriptions", "/replays", "/event-types"):
        wrong = one.call("GET", others, params={"cursor": first["next"]})
        detail = "is no cursor that a page of this list has given; leave it out to begin"
        assert (wrong.status_code, wrong.json()["errors"]) == (422, [{"parameter": "cursor", "detail": detail}])
    second = other.call("GET", f"/deliveries?limit=2&cursor={first['next']}", token="acme").json()
    assert [item["id"] for item in first["items"] + second["items"]] == [3, 2, 1]
    assert second["next"] is None


@pytest.mark.parametrize(
    ("path", "position"),
    [
        ("/subscriptions", "x"),
        ("/subscriptions", {"a": 1}),
        ("/replays", [1]),
        ("/jwks", "x"),
        ("/event-types", [1]),
        ("/deliveries", [1, 2]),
        ("/attempts", [[1], 2, 3]),
        ("/attempts", [["a"], 2]),
        ("/search?q=abcd", [1]),
        ("/search?q=abcd", ["a", "b", [["orders", 0, "x"]], None]),
        ("/audit", [["x", 1]]),
    ],
)
def test_a_sealed_position_of_another_shape_is_refused(engine: Engine, path: str, position: Any) -> None:
    """As a cursor of another list is: an earlier release may have made it."""
    tokens, kafka = TokenFile(None), KafkaSettings(bootstrap_servers="127.0.0.1:1")
    more: dict[str, Any] = {"kafka": kafka, "log": Log(kafka, ["orders"]), "history": History([])}
    listed = "log" if "search" in path else path[1:]
    cursor = tokens.sealed(json.dumps([listed, position]))
    answer = make_api(engine, tokens, **more).call("GET", path, params={"cursor": cursor}, token=None)
    assert (answer.status_code, answer.json()["errors"][0]["parameter"]) == (422, "cursor")


def test_a_delivery_is_shown_with_its_event(api: Api, engine: Engine) -> None:
    """The body is shown as text or as base64; the subscription has its name and tenant beside its number."""
    subscription = api.create(name="ERP", tenant="acme")["id"]
    stored(engine, subscription, 1, body=b'{"amount": 5}')
    stored(engine, subscription, 2, body=b"\xff")
    listed = api.call("GET", "/deliveries").json()["items"]
    second, first = (item["id"] for item in listed)
    shown = api.call("GET", f"/deliveries/{first}").json()
    assert (shown["event"]["body"], shown["event"]["body_base64"]) == ('{"amount": 5}', None)
    for each in (*listed, shown):
        assert (each["subscription_name"], each["subscription_tenant"]) == ("ERP", "acme")
    shown = api.call("GET", f"/deliveries/{second}").json()
    assert (shown["event"]["body"], shown["event"]["body_base64"]) == (None, "/w==")
    assert api.call("GET", "/deliveries/999").status_code == 404


def test_a_delivery_says_what_it_waits_for(api: Api, engine: Engine) -> None:
    """The answer about one delivery has it; one that was given up waits for nothing."""
    subscription = api.create(tenant="acme")["id"]
    for offset, status in enumerate(("parked", "exhausted")):
        stored(engine, subscription, offset, status, tenant="acme")
    given_up, waiting = (item["id"] for item in api.call("GET", "/deliveries").json()["items"])
    with engine.begin() as connection:
        later = datetime(2100, 1, 1, tzinfo=UTC)
        connection.execute(update(ParkedDelivery).values(next_attempt_at=later))
    wait = api.call("GET", f"/deliveries/{waiting}", token="acme").json()["waits_for"]
    assert (wait["reason"], wait["until"], wait["behind"]) == ("schedule", "2100-01-01T00:00:00.000Z", None)
    why = {"state": "disabled", "reason": "10.9.8.7 is down"}
    assert api.call("PATCH", f"/subscriptions/{subscription}", why).status_code == 200
    assert api.call("GET", f"/deliveries/{waiting}").json()["waits_for"] == {
        "reason": "disabled",
        "text": "Its subscription is disabled (10.9.8.7 is down). It is sent once that is enabled.",
        "until": None,
        "behind": None,
    }
    assert "10.9.8.7" not in api.call("GET", f"/deliveries/{waiting}", token="acme").json()["waits_for"]["text"]
    assert api.call("GET", f"/deliveries/{given_up}").json()["waits_for"] is None


def test_deliveries_are_sent_again(api: Api, engine: Engine) -> None:
    """One or many can be. A delivered one is a conflict alone, and skipped among many. Events name the caller."""
    subscription = api.create()["id"]
    for offset, status in enumerate(("exhausted", "exhausted", "parked")):
        stored(engine, subscription, offset, status)
    third, second, first = (item["id"] for item in api.call("GET", "/deliveries").json()["items"])
    assert api.call("POST", f"/deliveries/{first}/redeliver", {}).json() == {"delivery_ids": [first]}
    with engine.begin() as connection:
        connection.execute(text("UPDATE webhook_deliveries SET status = 'delivered' WHERE id = :id"), {"id": third})
    assert api.call("POST", f"/deliveries/{third}/redeliver", {}).status_code == 409
    assert api.call("POST", "/deliveries/redeliver", {"delivery_ids": [first, second, third, 999]}).json() == {
        "delivery_ids": [first, second]
    }
    states = {item["id"]: item["state"] for item in api.call("GET", "/deliveries").json()["items"]}
    assert states == {first: "parked", second: "parked", third: "delivered"}
    told = [(event.type, event.data) for event in api.events() if event.type != "subscription.created"]
    assert told == [
        ("delivery.redelivered", {"actor": "api:all", "delivery_ids": ids, "subscription_ids": [subscription]})
        for ids in ([first], [first, second])
    ]


def test_a_tenant_sees_and_sends_its_own(api: Api, engine: Engine) -> None:
    """Another tenant's delivery is unknown in a search, by its id and in a redelivery.

    So is another tenant's event that was stored while the subscription was of all tenants.
    """
    subscription = api.create()["id"]
    stored(engine, subscription, 1, "exhausted", tenant="acme")
    stored(engine, subscription, 2, "exhausted", tenant="other")
    assert api.call("PATCH", f"/subscriptions/{subscription}", {"tenant": "acme"}).status_code == 200
    foreign, own = (item["id"] for item in api.call("GET", "/deliveries").json()["items"])
    for query in ("", "?tenant=acme", f"?subscription_id={subscription}"):
        assert api.call("GET", f"/deliveries{query}", token="other").json() == {"items": [], "next": None}
        seen = api.call("GET", f"/deliveries{query}", token="acme").json()["items"]
        assert [item["id"] for item in seen] == [own]
    for token, delivery in (("other", own), ("other", foreign), ("acme", foreign)):
        for method, path, body in (("GET", "", None), ("POST", "/redeliver", {})):
            refused = api.call(method, f"/deliveries/{delivery}{path}", body, token=token)
            nothing = api.call(method, f"/deliveries/999{path}", body, token=token)
            assert (refused.status_code, refused.content) == (404, nothing.content)
    both = {"delivery_ids": [own, foreign]}
    assert api.call("POST", "/deliveries/redeliver", both, token="other").json() == {"delivery_ids": []}
    assert api.call("GET", f"/deliveries/{own}", token="acme").json()["state"] == "exhausted"
    assert api.call("POST", "/deliveries/redeliver", both, token="acme").json() == {"delivery_ids": [own]}
