"""Authorisation of each route: no token, a wrong one, a missing scope, and another tenant's id."""

from typing import Any, get_args

import pytest
import requests
import trustme
from requests.exceptions import ConnectionError as RequestsConnectionError
from sqlalchemy import Engine

from consumer.api.tokens import TokenFile
from consumer.ledger import cursors, replays, store, upkeep
from consumer.ledger.cursors import NewCursor
from consumer.ledger.replays import Span
from consumer.ledger.rows import AttemptFailure
from consumer.ops.bulk import Action
from consumer.ops.overview import overview
from consumer.ops.ping import ping
from consumer.sending.trace import ExchangeTrace
from consumer.sending.validation_request import Declined
from models import CursorReason
from tests.api.test_v1_observed import History, attempt
from tests.api.v1_kit import NEW, Api, make_api
from tests.ledger.rows_kit import GROUP, make_event, parked

S, D = "/subscriptions", "/deliveries"
CA = trustme.CA().cert_pem.bytes().decode()
# Each route of /v1: method, path, a valid body, and the required scope.
ROUTES: list[tuple[str, str, Any, str]] = [
    ("GET", S, None, "read"),
    ("POST", S, NEW, "write"),
    ("GET", f"{S}/{{subscription_id}}", None, "read"),
    ("PATCH", f"{S}/{{subscription_id}}", {"rate_limit": 1}, "write"),
    ("DELETE", f"{S}/{{subscription_id}}", None, "write"),
    ("PATCH", f"{S}/{{subscription_id}}", {"state": "paused"}, "write"),
    ("POST", f"{S}/{{subscription_id}}/ping", {}, "write"),
    ("POST", f"{S}/{{subscription_id}}/verify", {}, "write"),
    ("GET", f"{S}/{{subscription_id}}/secrets", None, "read"),
    ("POST", f"{S}/{{subscription_id}}/secrets", {"kind": "bearer", "secret": "t"}, "secrets"),
    ("POST", f"{S}/{{subscription_id}}/secrets/rotate", {}, "secrets"),
    ("DELETE", f"{S}/{{subscription_id}}/secrets/{{secret_id}}", None, "secrets"),
    ("PUT", f"{S}/{{subscription_id}}/tls", {"authorities": CA}, "secrets"),
    ("DELETE", f"{S}/{{subscription_id}}/tls", None, "secrets"),
    ("GET", "/jwks", None, "read"),
    ("GET", D, None, "read"),
    ("GET", f"{D}/{{delivery_id}}", None, "read"),
    ("POST", f"{D}/{{delivery_id}}/redeliver", {}, "write"),
    ("POST", f"{D}/redeliver", {"delivery_ids": [1]}, "write"),
    ("GET", "/events/{topic}/{partition}/{offset}", None, "read"),
    ("POST", "/events/{topic}/{partition}/{offset}/resend", {"subscription_id": 1}, "write"),
    ("GET", "/search", None, "read"),
    ("POST", f"{S}/backtest", {"event_type": "a"}, "read"),
    ("POST", f"{S}/bulk", {"subscription_ids": [1], "action": "pause"}, "write"),
    ("GET", "/attempts", None, "read"),
    ("GET", f"{S}/{{subscription_id}}/statistics", None, "read"),
    ("GET", "/statistics", None, "read"),
    ("GET", "/audit/deliveries", None, "read"),
    ("GET", "/event-types", None, "read"),
    ("GET", "/replays", None, "read"),
    ("POST", "/replays", {"subscription_id": 1, "since": "1h"}, "write"),
    ("GET", "/replays/{replay_id}", None, "read"),
    ("POST", "/replays/{replay_id}/cancel", {}, "write"),
    ("POST", "/replays/{replay_id}/resume", {}, "write"),
    ("GET", "/dead-letters", None, "read"),
    ("GET", "/dead-letters/{partition}/{offset}", None, "read"),
    ("POST", "/dead-letters/{partition}/{offset}/publish", {}, "write"),
    ("GET", "/audit", None, "read"),
    ("GET", "/audit/deliveries", None, "read"),
]
OF_ONE = [
    route for route in ROUTES if any(each in route[1] for each in ("{subscription_id}", "{delivery_id}", "{replay_id}"))
]
ABOUT_ALL = [route for route in ROUTES if route[1].split("/")[1] in {"event-types", "dead-letters", "audit"}]
names = [f"{method} {path}" for method, path, _, _ in ROUTES]


@pytest.fixture
def theirs(api: Api) -> str:
    """The id of a failing subscription of the tenant acme, with a secret, and a delivery, attempt and replay."""
    created = api.create(tenant="acme", secrets=[{"kind": "bearer", "secret": "t"}])
    number = created["id"]
    store.park(api.engine, GROUP, [parked(make_event(1, tenant="acme"), number, status="exhausted")], 1.0)
    upkeep.failing(api.engine, number, 1.0)
    replays.create(api.engine, GROUP, number, 0.0, 1.0, None, 1.0, [Span("t", 0, 0, 9)], 1.0)
    api.app.state.backing = api.app.state.backing._replace(
        ping=lambda *_: pytest.fail("a test event was sent"),
        ask=lambda *_: pytest.fail("its receiver was asked"),
        history=History([attempt(number, "acme")]),
        look=lambda: overview(api.engine, None, ()),
    )
    return str(number)


def filled(path: str, theirs: str, api: Api, **ids: int) -> str:
    """The path with their ids, but for these `ids`."""
    listed = api.call("GET", f"/subscriptions/{theirs}/secrets").json()["items"]
    made = {"subscription_id": theirs, "secret_id": listed[0]["id"], "delivery_id": 1, "replay_id": 1}
    return path.format(**made | {"topic": "t", "partition": 0, "offset": 0} | ids)


def everything(api: Api) -> list[Any]:
    """What all tenants have."""
    return [api.call("GET", path).json() for path in (S, D, "/replays")] + [len(api.events())]


def test_the_table_has_every_route(api: Api) -> None:
    """Each route of /v1 is in this table, with the scope that its description names."""
    there = requests.get(f"{api.url}/openapi.json", timeout=60).json()["paths"]
    described = {
        (method.upper(), path.removeprefix("/v1"), *operation["security"][0]["HTTPBearer"])
        for path, methods in there.items()
        for method, operation in methods.items()
        if path.startswith("/v1/")
    }
    assert described == {(method, path, scope) for method, path, _, scope in ROUTES}


@pytest.mark.parametrize(("method", "path", "body", "scope"), ROUTES, ids=names)
def test_unauthorised_requests_are_refused(
    api: Api, theirs: str, method: str, path: str, body: Any, scope: str
) -> None:
    """Without a valid token the answer is 401, without the scope 403, each a problem document, and nothing changes."""
    before, events = api.call("GET", S).json(), len(api.events())
    place = filled(path, theirs, api)
    refusals = [(None, 401), ("wrong", 401), ("allx", 401), ("al", 401), ("", 401)]
    if scope != "read":
        refusals.append(("reader", 403))
    if scope == "secrets":
        refusals.append(("writer", 403))
    for token, status in refusals:
        answer = api.call(method, place, body, token=token)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
        assert ("www-authenticate" in answer.headers) == (status == 401)
    assert api.call("GET", S).json() == before
    assert len(api.events()) == events


@pytest.mark.parametrize(("method", "path", "body", "scope"), OF_ONE, ids=[f"{r[0]} {r[1]}" for r in OF_ONE])
def test_another_tenants_id_is_unknown(api: Api, theirs: str, method: str, path: str, body: Any, scope: str) -> None:
    """The answer equals that for an unknown id to the byte, and nothing is changed or sent."""
    del scope
    before, place = everything(api), filled(path, theirs, api)
    absent = filled(path, theirs, api, subscription_id=99999, delivery_id=99999, replay_id=99999)
    foreign, nothing = (api.call(method, each, body, token="other") for each in (place, absent))
    assert (foreign.status_code, nothing.status_code) == (404, 404)
    assert foreign.content == nothing.content
    assert {**foreign.headers, "date": ""} == {**nothing.headers, "date": ""}  # a second may pass between the two
    stale = api.call(method, place, body, token="other", headers={"if-match": '"x"'})
    assert stale.status_code == 404
    assert everything(api) == before


@pytest.mark.parametrize("path", [S, D, "/attempts", "/attempts?since=2027-01-15T07:00:00Z", "/replays", "/search?q=1"])
def test_a_list_has_nothing_of_another_tenant(api: Api, theirs: str, path: str) -> None:
    """It has what is the tenant's own."""
    assert (mine := api.call("GET", path, token="acme").json()["items"])
    assert api.call("GET", path, token="other").json()["items"] == []
    assert theirs in {str(each.get("subscription_id", each.get("id"))) for each in mine}


def test_statistics_count_nothing_of_another_tenant(api: Api, theirs: str) -> None:
    """Nor do they name it."""
    mine, nothing = (api.call("GET", "/statistics", token=token).json() for token in ("acme", "other"))
    assert (mine["states"]["exhausted"], [each["subscription_id"] for each in mine["failing"]]) == (1, [int(theirs)])
    assert (set(nothing["states"].values()), nothing["failing"]) == ({0}, [])


def test_many_subscriptions_of_another_tenant_are_unknown(api: Api, theirs: str) -> None:
    """One request changes none of them, whatever the action."""
    before = everything(api)
    for action in get_args(Action):
        wanted = {"subscription_ids": [int(theirs), 99999], "action": action}
        outcomes = api.call("POST", f"{S}/bulk", wanted, token="other").json()["items"]
        assert [each["result"] for each in outcomes] == ["not_found"] * 2
    assert everything(api) == before


@pytest.mark.parametrize(("method", "path", "body", "scope"), ABOUT_ALL, ids=[f"{r[0]} {r[1]}" for r in ABOUT_ALL])
def test_requests_about_all_tenants_are_refused_for_one(
    api: Api, method: str, path: str, body: Any, scope: str
) -> None:
    """A tenant's token gets a 403, whatever its scopes."""
    del scope
    since = {"since": "2026-07-28T14:00:00Z"} if path == "/audit/deliveries" else {}
    refused = api.call(method, path.format(partition=0, offset=0), body, token="other", params=since)
    assert (refused.status_code, refused.json()["type"]) == (403, "urn:kafka-webhooks:problem:tenant")


def test_a_tenant_creates_and_lists_only_its_own(api: Api, theirs: str) -> None:
    """Its tenant is the default.

    Another one, or all, is a 403 on creation and change, and an empty list in a filter.
    """
    mine = api.create(token="other")
    assert mine["tenant"] == "other"
    api.create()  # of all tenants: only for tokens of all tenants
    for tenant in ("acme", "*", None):
        refused = api.call("POST", S, NEW | {"tenant": tenant}, token="other")
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (403, "/tenant")
        patched = api.call("PATCH", f"{S}/{mine['id']}", {"tenant": tenant}, token="other")
        assert patched.status_code == 403
    assert [item["id"] for item in api.call("GET", S, token="other").json()["items"]] == [mine["id"]]
    assert api.call("GET", f"{S}?tenant=acme", token="other").json() == {"items": [], "next": None}
    assert [str(item["id"]) for item in api.call("GET", S, token="acme").json()["items"]] == [theirs]
    assert len(api.call("GET", S).json()["items"]) == 3
    changed = api.call("PATCH", f"{S}/{mine['id']}", {"tenant": "other", "rate_limit": 2}, token="other")
    assert changed.status_code == 200


def test_offsets_are_not_for_tenants(api: Api, theirs: str) -> None:
    """They count the events of all tenants: a tenant's subscription does not begin in the past, nor show positions."""
    begun = api.call("POST", S, NEW | {"tenant": "acme", "start": "1h"}, token="acme")
    assert (begun.status_code, begun.json()["type"]) == (403, "urn:kafka-webhooks:problem:tenant")
    owed = NewCursor(("orders", 0, int(theirs)), 5, CursorReason.PAUSED, 9)
    cursors.begin(api.engine, GROUP, [owed], 0.0)
    mine, full = (api.call("GET", f"{S}/{theirs}", token=token).json()["cursors"][0] for token in ("acme", "all"))
    where = "group", "position", "end"
    assert ([mine[name] for name in where], [full[name] for name in where]) == ([None] * 3, [GROUP, 5, 9])
    assert mine["topic"] == "orders"


def test_the_old_token_may_do_everything(engine: Engine) -> None:
    """API_TOKEN has all scopes and all tenants."""
    api = make_api(engine, TokenFile(None, "single"))
    created = api.create(token="single", tenant="acme")
    path = f"{S}/{created['id']}"
    assert api.call("POST", f"{path}/secrets/rotate", {}, token="single").status_code == 200
    assert api.call("DELETE", path, token="single").status_code == 204
    assert [event.data["actor"] for event in api.events()] == ["api:API_TOKEN"] * 3


def test_a_tenant_does_not_learn_what_names_resolve_to(api: Api, engine: Engine) -> None:
    """No answer has an address of the deployment's network, in errors of any kind; a token of all tenants sees them."""
    inner = "10.9.8.7"
    error = RequestsConnectionError(f"connecting to {inner}:443: refused")
    seen = ExchangeTrace(started=True, addresses=(inner,), connected=f"{inner}:443")
    number = api.create(tenant="acme")["id"]
    failure = AttemptFailure(str(error), None, None, 1.0)
    event = make_event(1, tenant="acme")
    store.park(engine, GROUP, [parked(event, number, first=failure, last=failure)], 1.0)
    api.app.state.backing = api.app.state.backing._replace(
        refusal=lambda _: f"its host resolves to {inner}; {inner} is not a public address",
        ping=lambda endpoint, event: ping(endpoint, event, lambda *_: (error, seen)),
        ask=lambda *_: Declined(f"no answer: {error}"),
        history=History([attempt(number, "acme")._replace(error=failure.error)]),
    )
    path = f"/subscriptions/{number}"
    for token in ("acme", "all"):
        answers = [
            api.call("POST", "/subscriptions", NEW, token=token),
            api.call("PATCH", path, {"url": NEW["url"]}, token=token),
            *(api.call("POST", f"{path}/{action}", {}, token=token) for action in ("ping", "verify")),
            api.call("GET", "/deliveries", token=token),
            api.call("GET", f"/attempts?subscription_id={number}", token=token),
        ]
        assert [each.status_code for each in answers] == [422, 422, 200, 200, 200, 200]
        assert [inner in each.text for each in answers] == [token == "all"] * len(answers)
