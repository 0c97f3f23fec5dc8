"""/v1/subscriptions on the real application."""

import time
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest
from requests import PreparedRequest, Response
from sqlalchemy import Engine, event, update
from structlog.testing import capture_logs

from consumer.api.models import Subscription as Shown
from consumer.api.models import SubscriptionPatch
from consumer.api.tokens import TokenFile
from consumer.ledger import cursors, store
from consumer.ledger.cursors import NewCursor
from consumer.ops.ping import ping
from consumer.sending.trace import ExchangeTrace
from consumer.sending.validation_request import Granted
from consumer.subscriptions import repository
from consumer.subscriptions.endpoint_row import Rules
from models import CursorReason, Subscription
from tests.api.v1_kit import NEW, Api, make_api
from tests.delivery.store_kit import rename
from tests.ledger.rows_kit import GROUP, expire, make_event, parked

BATCHES = {"batch_size", "batch_wait_ms"}
FOLLOWING = {"header_expressions", "pass_headers", "report_answer", "answer_headers"}  # not with these
EXAMPLES: dict[str, Any] = {
    name: field.examples[0]
    for name, field in SubscriptionPatch.model_fields.items()
    if field.examples and name not in {"url", "event_type", "event_types", "state", "reason"}
}
EVERY_OPTION, EVERY_FOLLOWING = (
    {name: value for name, value in EXAMPLES.items() if name not in others} for others in (FOLLOWING, BATCHES)
)


@pytest.mark.parametrize("options", [EVERY_OPTION, EVERY_FOLLOWING])
def test_a_subscription_with_every_option_is_shown_as_it_was_created(api: Api, options: dict[str, Any]) -> None:
    """Creation and Location show the same, the latter with cursors; options left out have their defaults."""
    answer = api.call("POST", "/subscriptions", NEW | options)
    assert answer.status_code == 201
    shown = api.call("GET", answer.headers["location"].removeprefix("/v1"))
    assert shown.json() == {**answer.json(), "cursors": []}
    assert shown.headers["etag"] == answer.headers["etag"]
    assert {name: shown.json()[name] for name in options} == options
    plain = api.create()
    assert (plain["tenant"], plain["payload_format"], plain["topics"]) == ("*", "record", None)
    assert set(plain) == set(Shown.model_fields)


@pytest.mark.parametrize(
    ("body", "place", "said"),
    [
        ({}, "/url", "Field required"),
        ({**NEW, "url": "ftp://example.com"}, "/url", "https://"),
        ({**NEW, "evnt": "x"}, "/evnt", "Extra inputs"),
        ({**NEW, "event_filter": "data.amount >"}, "/event_filter", ""),
        ({**NEW, "batch_size": 0}, "/batch_size", "1 to 1000"),
        ({**NEW, "custom_headers": {"authorization": "s3cret"}}, "/custom_headers", "credential"),
        ({**NEW, "custom_headers": {"x": 1}}, "/custom_headers/x", "valid string"),
        ({**NEW, "secrets": [{"kind": "basic", "secret": "s3cret"}]}, "", "user:password"),
        ({**NEW, "secrets": [{"kind": "other", "secret": "s3cret"}]}, "/secrets/0/kind", "should be"),
        ([], "", "valid dictionary"),
    ],
)
def test_an_invalid_value_is_pointed_at(api: Api, body: Any, place: str, said: str) -> None:
    """The answer is a 422 whose errors have a JSON Pointer and the mistake, but no secret; nothing is stored."""
    answer = api.call("POST", "/subscriptions", body)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    problem = answer.json()
    assert (problem["type"], problem["status"]) == ("urn:kafka-webhooks:problem:invalid", 422)
    assert problem["errors"][0]["pointer"] == place
    assert said in problem["errors"][0]["detail"]
    assert "s3cret" not in answer.text
    assert tuple(repository.walk(api.engine)) == ()
    assert api.events() == []


def test_refused_urls_and_missing_secrets_are_pointed_at(engine: Engine) -> None:
    """The deployment's rules apply before anything is stored."""
    rules = Rules(own_secret=True)
    api = make_api(engine, TokenFile(None), rules, refusal=lambda _: "its address is not allowed")
    own = api.call("POST", "/subscriptions", NEW, token=None).json()
    assert own["errors"][0]["pointer"] == "/generate_secret"
    url = api.call("POST", "/subscriptions", NEW | {"generate_secret": "hmac"}, token=None).json()
    assert url["errors"] == [{"pointer": "/url", "detail": "its address is not allowed"}]
    assert tuple(repository.walk(engine)) == ()


def test_a_merge_patch_changes_its_members(api: Api) -> None:
    """Null sets the default, an absent member stays, and members of the headers are merged (RFC 7396)."""
    created = api.create(**EVERY_OPTION)
    path = f"/subscriptions/{created['id']}"
    patch = {"rate_limit": None, "event_type": "order.*", "custom_headers": {"X-Origin": None, "X-New": "1"}}
    answer = api.call("PATCH", path, patch, headers={"content-type": "application/merge-patch+json"})
    assert answer.status_code == 200
    expected = {
        **created,
        "rate_limit": None,
        "event_type": "order.*",
        "event_types": ["order.*"],
        "custom_headers": {"X-New": "1"},
    }
    assert answer.json() == expected
    assert api.call("GET", path).json() == {**expected, "cursors": []}
    removed = api.call("PATCH", path, {"custom_headers": {"X-New": None}, "ordering": None})
    assert (removed.json()["custom_headers"], removed.json()["ordering"]) == (None, "none")
    refused = api.call("PATCH", path, {"url": None})
    assert refused.json()["errors"][0]["pointer"] == "/url"


def test_several_event_types(api: Api) -> None:
    """They are given as a list in place of `event_type`, and shown as both. A change has another ETag and is reported.

    A patch of `event_type` replaces the first one.
    """
    made = api.call("POST", "/subscriptions", {"url": NEW["url"], "event_types": ["b", "c", "a"]})
    assert made.status_code == 201
    shown = made.json()
    assert (shown["event_type"], shown["event_types"]) == ("b", ["b", "a", "c"])
    path = f"/subscriptions/{shown['id']}"
    changed = api.call("PATCH", path, {"event_types": ["b", "a"]}, headers={"if-match": made.headers["etag"]})
    assert (changed.status_code, changed.json()["event_types"]) == (200, ["b", "a"])
    assert changed.headers["etag"] != made.headers["etag"]
    reported: Any = api.events()[-1].data
    assert (reported["changed"], reported["after"]["event_types"]) == (["event_types"], ["b", "a"])
    assert api.call("PATCH", path, {"event_type": "x"}).json()["event_types"] == ["x", "a"]
    assert [each["id"] for each in api.call("GET", "/subscriptions?event_type=a").json()["items"]] == [shown["id"]]


@pytest.mark.parametrize(
    ("types", "place", "said"),
    [
        ({}, "/event_type", "is required"),
        ({"event_types": []}, "/event_type", "is required"),
        ({"event_type": "a", "event_types": ["b"]}, "/event_types", "leave one of them out"),
        ({"event_types": ["a", "b,c"]}, "/event_types", "holds a comma"),
        ({"event_types": ["a"] * 21}, "/event_types", "at most 20"),
        ({"event_types": ["a", 1]}, "/event_types/1", "valid string"),
    ],
)
def test_types_that_cannot_work_are_pointed_at(api: Api, types: dict[str, Any], place: str, said: str) -> None:
    """Nothing is created."""
    problem = api.call("POST", "/subscriptions", {"url": NEW["url"]} | types).json()
    assert problem["errors"][0]["pointer"] == place
    assert said in problem["errors"][0]["detail"]
    assert tuple(repository.walk(api.engine)) == ()


def test_an_external_id_finds_one_subscription(api: Api) -> None:
    """Of the tenant that asks; taken, it is a conflict for the same tenant alone."""
    mine, theirs = (api.create(token=token, external_id="crm-1")["id"] for token in ("acme", "other"))
    api.create(token="acme")
    found = api.call("GET", "/subscriptions?external_id=crm-1", token="acme").json()["items"]
    assert [each["id"] for each in found] == [mine]
    everyone = api.call("GET", "/subscriptions?external_id=crm-1").json()["items"]
    assert [each["id"] for each in everyone] == [mine, theirs]
    taken = api.call("POST", "/subscriptions", NEW | {"external_id": "crm-1"}, token="acme")
    assert (taken.status_code, taken.json()["type"]) == (409, "urn:kafka-webhooks:problem:conflict")
    assert "another subscription of this tenant has the external_id 'crm-1'" in taken.json()["detail"]


def test_metadata_is_merged(api: Api) -> None:
    """Null removes a member, and an empty object is none; the name is searched in any case."""
    created = api.create(name="To the Warehouse", metadata={"team": "shop", "stage": "live"})
    path = f"/subscriptions/{created['id']}"
    assert api.call("PATCH", path, {"metadata": {"team": None, "x": "y"}}).json()["metadata"] == {
        "stage": "live",
        "x": "y",
    }
    assert api.call("PATCH", path, {"metadata": {"stage": None, "x": None}}).json()["metadata"] is None
    many = api.call("PATCH", path, {"metadata": {str(number): "" for number in range(33)}})
    assert (many.status_code, many.json()["errors"][0]["pointer"]) == (422, "/metadata")
    assert len(api.call("GET", "/subscriptions?name=wareHOUSE").json()["items"]) == 1
    assert api.call("GET", "/subscriptions?name=other").json()["items"] == []


def test_a_patch_sets_the_state(api: Api) -> None:
    """The answer has it, with its time and reason, and another ETag. Repeated, it changes and reports nothing."""
    path = f"/subscriptions/{api.create()['id']}"
    tag = api.call("GET", path).headers["etag"]

    def patch(**body: Any) -> list[Any]:
        answer = api.call("PATCH", path, body)
        assert answer.status_code == 200
        shown = answer.json()
        assert shown["paused_at"] is None or shown["paused_at"].endswith("Z")
        return [shown[name] for name in ("state", "enabled", "disabled_reason", "paused_reason")]

    assert patch(state="paused", reason="moves") == ["paused", True, None, "moves"]
    began = api.call("GET", path).json()["paused_at"]
    assert (again := api.call("GET", path).headers["etag"]) != tag
    assert patch(state="paused") == ["paused", True, None, "moves"]
    assert api.call("GET", path).headers["etag"] == again
    with api.engine.begin() as connection:  # as after days of failures
        connection.exec_driver_sql("UPDATE webhook_subscriptions SET probed_at = paused_at")
    probed = api.call("GET", path)
    assert (probed.json()["probed"], probed.headers["etag"] != again) == (True, True)
    assert patch(state="paused") == ["paused", True, None, "moves"]
    assert api.call("GET", path).headers["etag"] == probed.headers["etag"]
    assert patch(state="paused", reason="still") == ["paused", True, None, "still"]
    assert not api.call("GET", path).json()["probed"]
    assert api.call("GET", path).json()["paused_at"] == began
    assert patch(state="disabled", reason="gone") == ["disabled", False, "gone", "still"]
    assert patch(state="paused") == ["paused", True, None, "still"]
    assert patch(state="enabled", event_type="b") == ["enabled", True, None, None]
    assert patch(state="enabled") == ["enabled", True, None, None]
    kinds = [event.type.removeprefix("subscription.") for event in api.events()]
    assert kinds == ["created", "paused", "paused", "disabled", "enabled", "changed", "resumed"]
    assert [each["id"] for each in api.call("GET", "/subscriptions?state=paused").json()["items"]] == []
    patch(state="paused")
    assert len(api.call("GET", "/subscriptions?state=paused").json()["items"]) == 1


def test_a_pause_and_its_reason_are_of_the_version(api: Api) -> None:
    """Whoever has not seen a pause, or why it is, overwrites neither."""
    path = f"/subscriptions/{api.create()['id']}"
    pause = {"state": "paused"}
    bodies: list[dict[str, str]] = [{}, pause, pause | {"reason": "moves"}, pause | {"reason": "still"}]
    tags = [api.call("PATCH", path, body).headers["etag"] for body in bodies]
    assert len({*tags}) == len(bodies)


@pytest.mark.parametrize(
    ("patch", "place"),
    [
        ({"state": None}, "/state"),
        ({"state": "failing"}, "/state"),
        ({"reason": "x"}, "/reason"),
        ({"state": "enabled", "reason": "x"}, "/reason"),
        ({"state": "paused", "reason": "x" * 1001}, "/reason"),
        ({"state": "paused", "batch_size": 0}, "/batch_size"),
    ],
)
def test_a_state_that_cannot_be_set_changes_nothing(api: Api, patch: dict[str, Any], place: str) -> None:
    """The answer points at the mistake; a patch with another mistake changes no state."""
    path = f"/subscriptions/{api.create()['id']}"
    refused = api.call("PATCH", path, patch)
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, place)
    assert api.call("GET", path).json()["state"] == "enabled"
    assert len(api.events()) == 1


def test_a_subscription_is_shown_with_its_cursors(api: Api) -> None:
    """They say what it is owed, how old that is, and how long Kafka keeps it. Those of others are not shown."""
    mine, other = api.create()["id"], api.create()["id"]
    record = int((time.time() - 60) * 1000)
    owed = [
        NewCursor(("orders", partition, whose), 5, CursorReason.PAUSED, timestamp=at)
        for partition, whose, at in ((1, mine, None), (0, mine, record), (2, other, None))
    ]
    cursors.begin(api.engine, "webhooks", owed, 0.0)
    expire(api.engine, mine, time.time() - 60)
    first, second = api.call("GET", f"/subscriptions/{mine}").json()["cursors"]
    assert (first.pop("expires_at")[-1], first.pop("seconds_left")) == ("Z", 0)
    assert first.pop("record_at").endswith("Z")
    assert 60 <= first.pop("seconds_behind") < 600
    known = {"group": "webhooks", "topic": "orders", "reason": "paused", "replay_id": None, "position": 5, "end": None}
    assert first == {**known, "partition": 0}
    assert second == {
        **known,
        "partition": 1,
        "record_at": None,
        "expires_at": None,
        "seconds_behind": None,
        "seconds_left": None,
    }


@pytest.mark.parametrize(
    ("method", "action", "body"),
    [
        ("PATCH", "", {"rate_limit": 1.0}),
        ("PATCH", "", {"state": "disabled", "reason": "x"}),
        ("PATCH", "", {"state": "paused", "rate_limit": 1.0}),
        ("POST", "/verify", {}),
        ("DELETE", "", None),
        ("POST", "/secrets", {"kind": "bearer", "secret": "t"}),
        ("POST", "/secrets/rotate", {}),
        ("DELETE", "/secrets/1", None),
    ],
)
def test_a_change_of_a_stale_version_is_refused(api: Api, method: str, action: str, body: Any) -> None:
    """If-Match with an older ETag is a 412 without a change; with the present one, or *, the change is made."""
    api.app.state.backing = api.app.state.backing._replace(ask=lambda *_: Granted(None))
    created = api.create(secrets=[{"kind": "header", "secret": "x-key: 1"}])
    path = f"/subscriptions/{created['id']}"
    old = api.call("GET", path).headers["etag"]
    tag = api.call("PATCH", path, {"timeout_seconds": 3.0}, headers={"if-match": old}).headers["etag"]
    assert tag != old
    before, events = api.call("GET", path).json(), len(api.events())
    stale = api.call(method, path + action, body, headers={"if-match": f'{old}, W/{tag}, "x"'})
    assert (stale.status_code, stale.headers["etag"]) == (412, tag)
    assert api.call("GET", path).json() == before
    assert len(api.events()) == events
    assert api.call(method, path + action, body, headers={"if-match": f"{old}, {tag}"}).status_code in {200, 204}


def test_changes_by_workers_leave_the_version(api: Api) -> None:
    """A client can still change a subscription that has begun to fail since it was read."""
    created = api.create()
    path = f"/subscriptions/{created['id']}"
    tag = api.call("GET", path).headers["etag"]
    with api.engine.begin() as connection:
        connection.execute(update(Subscription).values(failing_since=datetime(2026, 7, 1, tzinfo=UTC)))
    assert api.call("PATCH", path, {"rate_limit": 1}, headers={"if-match": tag}).status_code == 200


def test_a_removal_with_open_deliveries_is_a_conflict(api: Api) -> None:
    """It is a 409 with their number, unless the request asks to exhaust them."""
    created = api.create()
    path = f"/subscriptions/{created['id']}"
    with api.engine.begin() as connection:
        store.insert_new(connection, "webhooks", [parked(make_event(1), created["id"])], 0.0)
    refused = api.call("DELETE", path)
    assert (refused.status_code, refused.json()["owed"]) == (409, 1)
    assert api.call("GET", path).status_code == 200
    removed = api.call("DELETE", f"{path}?if_owed=exhaust")
    assert (removed.status_code, removed.content) == (204, b"")
    assert api.call("GET", path).status_code == 404
    assert api.call("DELETE", path).status_code == 404


def test_a_removal_needs_one_connection(api: Api) -> None:
    """Several at once, each waiting for a second connection of the pool, would wait for each other."""
    path, taken = f"/subscriptions/{api.create()['id']}", [0]
    event.listen(api.engine, "checkout", lambda *_: taken.append(taken[-1] + 1))
    event.listen(api.engine, "checkin", lambda *_: taken.append(taken[-1] - 1))
    assert api.call("DELETE", path).status_code == 204
    assert max(taken) == 1


@pytest.mark.parametrize("secret", [{"kind": "bearer", "secret": "t"}, {"kind": "header", "secret": "x-key: v"}])
def test_credentials_go_to_another_server_only_with_the_scope_of_secrets(api: Api, secret: dict[str, str]) -> None:
    """A token that may not read or set them could otherwise have them sent to a server of its own."""
    created = api.create()
    path = f"/subscriptions/{created['id']}"
    assert api.call("PATCH", path, {"url": "https://example.org/"}, token="writer").status_code == 200
    assert api.call("POST", f"{path}/secrets", secret).status_code == 204
    for url in ("https://attacker.example/", "https://example.org:8443/", "http://example.org/"):
        refused = api.call("PATCH", path, {"url": url}, token="writer")
        assert (refused.status_code, refused.json()["type"].rpartition(":")[2]) == (403, "scope")
    assert (
        api.call("PATCH", path, {"url": "https://EXAMPLE.org/new", "rate_limit": 1}, token="writer").status_code == 200
    )
    assert api.call("PATCH", path, {"url": "https://example.net/"}).status_code == 200


def test_pages_are_walked_by_their_cursors(api: Api) -> None:
    """Each subscription is on one page, in order, even if one before the cursor is removed meanwhile."""
    ids = [api.create()["id"] for _ in range(5)]
    page = api.call("GET", "/subscriptions?limit=2").json()
    found = [item["id"] for item in page["items"]]
    api.call("DELETE", f"/subscriptions/{ids[1]}")
    while page["next"]:
        page = api.call("GET", "/subscriptions", params={"limit": 2, "cursor": page["next"]}).json()
        assert len(page["items"]) <= 2
        found += [item["id"] for item in page["items"]]
    assert found == ids
    assert api.call("GET", "/subscriptions?limit=4").json()["next"] is None


@pytest.mark.parametrize("query", ["cursor=x", "cursor=é", "cursor=", "limit=0", "limit=201", "state=x", "url="])
def test_an_invalid_query_is_named(api: Api, query: str) -> None:
    """The answer is a 422 whose error names the parameter."""
    answer = api.call("GET", f"/subscriptions?{query}")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["parameter"] == query.partition("=")[0]


def test_a_token_that_may_only_read_sees_no_query_of_a_url(api: Api) -> None:
    """It may hold the receiver's own token. Whoever may change the URL sees it whole, and can send it back."""
    url = "https://example.com/hooks?token=s3cret"
    made = api.create(url=url)
    store.park(api.engine, GROUP, [parked(make_event(3), made["id"], url=url)], 1.0)
    here = f"/subscriptions/{made['id']}"
    whole = [api.call("GET", path).text for path in ("/subscriptions", here)]
    assert [url in text for text in (made["url"], *whole)] == [True] * 3
    for path in ("/subscriptions", here, "/deliveries", "/deliveries/1", "/search?q=hooks"):
        found = api.call("GET", path, token="reader")
        shown = "/hooks?\u2026" in found.text
        assert (found.status_code, "s3cret" in found.text, shown) == (200, False, True), path
    for text, number in (("/Hooks", 1), ("s3c", 0), ("hooks?t", 0)):  # nor can it guess the query, a letter at a time
        assert len(api.call("GET", f"/subscriptions?url={quote(text)}", token="reader").json()["items"]) == number
        assert len(api.call("GET", f"/search?q={quote(text)}", token="reader").json()["items"]) == number


def test_a_change_shows_nothing_to_a_token_without_read(api: Api) -> None:
    """Its answer has the id, and a new key, which no other answer has."""
    created = api.create(generate_secret="hmac", token="blind")
    assert created.keys() == {"id", "receiver_key"}
    path = f"/subscriptions/{created['id']}"
    for patch in ({}, {"state": "paused"}, {"state": "enabled", "rate_limit": 1}):
        answer = api.call("PATCH", path, patch, token="blind")
        assert (answer.status_code, answer.json()) == (200, {"id": created["id"]})
    assert api.call("GET", path, token="blind").status_code == 403


def test_a_test_event_is_sent(engine: Engine) -> None:
    """The exchange is shown, and an event names the caller; without WEBHOOK_SECRET the answer names it."""
    sent: list[PreparedRequest] = []

    def send(request: PreparedRequest, _: float | None) -> tuple[Response, ExchangeTrace]:
        sent.append(request)
        answer = Response()
        answer.status_code, answer._content = 204, b""
        return answer, ExchangeTrace()

    api = make_api(engine, TokenFile(None), ping=lambda endpoint, event: ping(endpoint, event, send))
    path = f"/subscriptions/{api.create(token='x')['id']}/ping"
    answer = api.call("POST", path, {"event_type": "order.paid", "data": {"a": 1}}, token=None)
    assert (answer.status_code, answer.json()["ok"], answer.json()["status"]) == (200, True, 204)
    assert sent[0].body == b'{"a": 1}'
    assert answer.json()["headers"]["x-webhook-event"] == "order.paid"
    assert (api.events()[-1].type, api.events()[-1].data["actor"]) == ("subscription.pinged", "api:local")
    assert api.call("POST", path, {"event_type": "a b"}, token=None).status_code == 422
    assert api.call("POST", "/subscriptions/99/ping", {}, token=None).status_code == 404
    without = make_api(engine, TokenFile(None)).call("POST", path, {}, token=None)
    assert without.status_code == 409
    assert "WEBHOOK_SECRET" in without.json()["detail"]


def test_every_error_is_a_problem(api: Api) -> None:
    """Errors of paths, methods, media types, sizes, JSON and the database have their status and media type."""
    json_type = {"content-type": "application/json"}
    answers = {
        404: api.call("GET", f"/subscriptions/{2**63}"),
        405: api.call("DELETE", "/subscriptions"),
        415: api.call("POST", "/subscriptions", headers={"content-type": "text/plain"}, data=b"{}"),
        413: api.call("POST", "/subscriptions", headers=json_type, data=b" " * 70_000),
        400: api.call("POST", "/subscriptions", headers=json_type, data=b"{"),
    }
    path = f"/subscriptions/{api.create()['id']}"
    rename(api.engine, "webhook_subscriptions", "away")
    with capture_logs():
        answers[503] = api.call("GET", path)
    for status, answer in answers.items():
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
        assert answer.json()["status"] == status
        assert answer.json()["type"].startswith("urn:kafka-webhooks:problem:")
    assert "retry-after" in answers[503].headers


def test_a_head_is_answered_like_a_get(api: Api) -> None:
    """It has the same headers and no body, and needs the same token."""
    shown, head = (api.call(method, "/subscriptions") for method in ("GET", "HEAD"))
    same = ("content-length", "content-type", "cache-control")
    assert [head.headers[name] for name in same] == [shown.headers[name] for name in same]
    assert (head.status_code, head.content) == (200, b"")
    assert api.call("HEAD", "/subscriptions", token="wrong").status_code == 401


def test_invalid_rows_of_plain_sql_are_shown(api: Api) -> None:
    """Such a row is listed with its problems, and without a password in its URL."""
    created = api.create()
    with api.engine.begin() as connection:
        connection.execute(update(Subscription).values(url="https://u:s3cret@example.com", custom_headers="[]"))
    answer = api.call("GET", "/subscriptions")
    (item,) = answer.json()["items"]
    assert item["id"] == created["id"]
    assert {problem["option"] for problem in item["problems"]} == {"url", "custom_headers"}
    assert "s3cret" not in answer.text


def test_a_405_names_all_methods_of_the_path(api: Api) -> None:
    """A client may follow `Allow` (RFC 9110, 15.5.6)."""
    assert api.call("PUT", f"/subscriptions/{api.create()['id']}", {}).headers["allow"] == "GET, PATCH, DELETE"
