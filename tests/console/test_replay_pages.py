"""The pages of replays: a preview, then a button that begins one for those who may, and the progress."""

import html
import re
import time
from collections.abc import Callable
from functools import partial
from http import HTTPStatus

import pytest
from sqlalchemy import Engine

from consumer.console.assembly import SAID
from consumer.ledger import cursors, outbox, replays
from consumer.ledger.cursors import CursorMove
from consumer.ledger.replays import Span
from consumer.ops.replay_request import Log
from consumer.subscriptions import repository
from tests.console.browser import Browser, form_token
from tests.kafka_kit import Kafka
from tests.ledger.rows_kit import GROUP

FORM = 'action="/console/replays/preview"'


@pytest.fixture
def log(request: pytest.FixtureRequest) -> Log:
    """A topic of three records; the mock cluster finds none of them by time."""
    real = "kafka_bootstrap" in request.fixturenames
    kafka = Kafka(request.getfixturevalue("kafka_bootstrap" if real else "mock_kafka"), real=real)
    topic = kafka.topic()
    kafka.write(topic, [b'{"type": "order.paid"}'] * 3)
    return Log(kafka.settings(group=GROUP), [topic])


Visit = Callable[..., Browser]


@pytest.fixture
def visit(console: Visit, log: Log) -> Visit:
    """Opens a browser for a token, of a console that knows Kafka."""
    return partial(console, log=log)


@pytest.fixture
def subscription(engine: Engine) -> int:
    return repository.add(engine, "https://example.com/hook", "order.paid", tenant="acme", rate_limit=50.0)


def send(browser: Browser, path: str, **fields: str) -> tuple[int, str]:
    """Sends a form; returns status and text of the next page. A preview is a page of its own."""
    if path == "/replays/preview":
        answer = browser.get(path, params=fields)
        return answer.status_code, answer.text
    token = form_token(browser.get("/replays").text)
    answer = browser.post(path, data={**fields, "form_token": token})
    return answer.status_code, answer.text


def hidden(page: str) -> dict[str, str]:
    """The hidden fields of the form that begins a replay."""
    form = re.search(r'<form[^>]*action="/console/replays">(.*?)</form>', page, re.DOTALL)
    assert form is not None
    return {name: html.unescape(value) for name, value in re.findall(r'name="(\w+)" value="([^"]*)"', form[1])}


@pytest.mark.usefixtures("kafka_bootstrap")
def test_a_replay_is_previewed_then_begun(engine: Engine, visit: Visit, subscription: int) -> None:
    """The preview stores nothing, and the replay reads the previewed records."""
    browser = visit("all")
    page = browser.get(f"/subscriptions/{subscription}?tab=replay").text
    assert FORM in page
    assert f'name="subscription" value="{subscription}"' in page
    status, page = send(browser, "/replays/preview", subscription=str(subscription), since="2h", rate="20")
    assert (status, "3 records would be read" in page, "up to 20 a second" in page) == (200, True, True)
    assert replays.find(engine, limit=1) == []
    fields = hidden(page)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", fields["since"])
    status, page = send(browser, "/replays", **fields)
    assert (status, SAID["replaying"].text in page) == (200, True)
    (begun,) = replays.find(engine, limit=2)
    assert (begun.subscription_id, begun.rate, begun.records_left, begun.ordered) == (subscription, 20.0, 3, False)
    assert begun.until - begun.since == pytest.approx(7200, abs=0.01)
    assert [(each.type, each.data["actor"]) for _, each, _ in outbox.pending(engine, GROUP, 9)] == [
        ("replay.created", "console:all")
    ]


def test_an_empty_replay_cannot_be_begun(visit: Visit, subscription: int) -> None:
    """The preview says so and has no button."""
    status, page = send(visit("all"), "/replays/preview", subscription=str(subscription), since="2h")
    assert (status, "hold no record of that time" in page, "Start the replay" in page) == (200, True, False)


@pytest.mark.parametrize(
    ("field", "value", "text", "status"),
    [
        ("since", "soon", "neither a time", HTTPStatus.BAD_REQUEST),
        ("until", "3h", "not after the beginning", HTTPStatus.BAD_REQUEST),
        ("event_type", '"><script>', "would match nothing", HTTPStatus.BAD_REQUEST),
        ("rate", "fast", "not a number", HTTPStatus.BAD_REQUEST),
        ("rate", "51", "to 50 per second", HTTPStatus.BAD_REQUEST),
        ("subscription", "x", "not the number", HTTPStatus.BAD_REQUEST),
        ("subscription", "99", "no subscription 99", HTTPStatus.NOT_FOUND),
    ],
)
@pytest.mark.parametrize("path", ["/replays/preview", "/replays"])
def test_a_mistake_is_shown_at_its_field(
    engine: Engine,
    visit: Visit,
    subscription: int,
    path: str,
    field: str,
    value: str,
    text: str,
    status: HTTPStatus,
) -> None:
    """The field keeps its input, escaped, and the page leads back to the subscription's tab."""
    typed = {"subscription": str(subscription), "since": "2h", field: value}
    answered, page = send(visit("all"), path, **typed)
    wrong = re.search(rf'id="wrong-{field}">([^<]+)</span><input name="{field}" value="([^"]*)"', page)
    assert wrong is not None
    assert (answered, text in wrong[1], html.unescape(wrong[2])) == (status, True, value)
    assert (f'href="/console/subscriptions/{subscription}?tab=replay"' in page) == (field != "subscription")
    assert page.count("aria-invalid") == 1
    assert replays.find(engine, limit=1) == []


def test_the_form_is_only_for_those_who_may_begin_one(engine: Engine, visit: Visit, subscription: int) -> None:
    """Tokens that only read see none. Without Kafka's settings the page names them."""
    browser = visit("reader")
    page = browser.get(f"/subscriptions/{subscription}?tab=replay")
    assert (page.status_code, FORM in page.text) == (200, False)
    token_of_form = form_token(page.text)
    for path in ("/replays/preview", "/replays"):
        fields = {"subscription": str(subscription), "since": "2h", "form_token": token_of_form}
        method, sent = ("GET", "params") if path.endswith("preview") else ("POST", "data")
        assert browser.request(method, path, **{sent: fields}).status_code == HTTPStatus.FORBIDDEN
    assert FORM not in visit("reader").get("/replays").text
    text = visit("all", log=None).get("/replays").text
    assert (FORM in text, "set KAFKA_BOOTSTRAP_SERVERS and KAFKA_TOPICS" in text) == (False, True)
    repository.set_enabled(engine, subscription, False)
    assert FORM not in visit("all").get(f"/subscriptions/{subscription}?tab=replay").text
    assert replays.find(engine, limit=1) == []


@pytest.mark.usefixtures("kafka_bootstrap")
def test_a_visitor_of_a_tenant_replays_to_its_own_subscriptions(
    engine: Engine, visit: Visit, subscription: int
) -> None:
    """Another's is as one that is not there. No page says how many records all tenants have, nor who began one."""
    theirs = repository.add(engine, "https://example.com/theirs", "order.paid", tenant="other")
    replays.create(
        engine, GROUP, theirs, 1000.0, 2000.0, None, 10.0, [Span("t", 0, 0, 77)], 1.0, created_by="cli:joanna"
    )
    mine = replays.create(
        engine, GROUP, subscription, 0.0, 9.0, None, 1.0, [Span("t", 0, 0, 7654321)], 1.0, created_by="cli:joanna"
    )
    browser = visit("acme")
    assert FORM in browser.get(f"/subscriptions/{subscription}?tab=replay").text
    asked = {"since": "2h", "subscription": str(subscription)}
    for path in ("/replays/preview", "/replays"):
        wrong = [send(browser, path, **asked | {"subscription": str(number)}) for number in (theirs, 99)]
        assert [status for status, _ in wrong] == [404, 404]
        texts = [re.search(r'id="wrong-subscription">([^<]+)', page) for _, page in wrong]
        assert [text and text[1] for text in texts] == [f"There is no subscription {each}." for each in (theirs, 99)]
    status, page = send(browser, "/replays/preview", **asked)
    assert (status, "3 records" in page, "partitions" in page) == (200, False, False)
    status, page = send(browser, "/replays", **hidden(page))
    assert (status, SAID["replaying"].text in page, f'href="/console/subscriptions/{theirs}"' in page) == (
        200,
        True,
        False,
    )
    assert [text in page for text in ("7,654,321", "joanna", "records", "<progress")] == [False] * 4
    begun, *_ = replays.find(engine, limit=9)
    assert (begun.subscription_id, begun.created_by) == (subscription, "console:acme")
    for number, word, answer in ((1, "cancel", 404), (99, "cancel", 404), (mine, "cancel", 200), (mine, "resume", 200)):
        assert send(browser, f"/replays/{number}/{word}")[0] == answer
    assert [each.state for each in replays.find(engine, limit=9)] == ["running"] * 3


def test_a_form_of_another_site_begins_nothing(engine: Engine, visit: Visit, subscription: int) -> None:
    """Nor does one without the session's token."""
    fields = {"subscription": str(subscription), "since": "2h"}
    assert visit("all").post("/replays", data=fields).status_code == HTTPStatus.FORBIDDEN
    assert replays.find(engine, limit=1) == []


def test_the_list_shows_who_began_each_and_refreshes_while_one_runs(
    engine: Engine, visit: Visit, subscription: int
) -> None:
    """It shows the reason for a replay that stands still, and stops refreshing once all have ended."""
    browser, now = visit("all"), time.time()
    spans = [Span("t", 0, 0, 4)]
    replay = replays.create(engine, GROUP, subscription, 0.0, 1.0, None, 1.0, spans, now, created_by="api:<b>")
    (cursor,) = cursors.of_partition(engine, GROUP, ("t", 0))
    cursors.save(engine, [CursorMove(cursor.id, cursor.version, 1, 4, "", None)], now)
    repository.set_enabled(engine, subscription, False)
    page = browser.get("/replays").text
    assert 'hx-trigger="every 2s"' in page
    assert all(text in page for text in ("waiting", "is disabled", "by api:&lt;b&gt;", "25.0 % read", "1 of 4 records"))
    status, page = send(browser, f"/replays/{replay}/cancel")
    assert (status, SAID["cancelled"].text in page, "hx-trigger" in page) == (200, True, False)
    assert send(browser, f"/replays/{replay}/cancel")[0] == HTTPStatus.CONFLICT
    assert f'id="resume-{replay}"' not in page  # its subscription is disabled
    repository.set_enabled(engine, subscription, True)
    assert f'id="resume-{replay}"' in browser.get("/replays").text
    status, page = send(browser, f"/replays/{replay}/resume")
    assert (status, SAID["goes-on"].text in page, "hx-trigger" in page) == (200, True, True)
    assert send(browser, f"/replays/{replay}/resume")[0] == HTTPStatus.CONFLICT
    other = replays.create(engine, "another", subscription, 0.0, 1.0, None, 1.0, spans, now)
    for action in ("cancel", "resume"):
        assert send(browser, f"/replays/{other}/{action}")[0] == HTTPStatus.NOT_FOUND


@pytest.mark.usefixtures("log")
def test_only_a_subscription_in_order_is_replayed_in_order(engine: Engine, visit: Visit, subscription: int) -> None:
    """A box asks for it; the preview of another replay to such a subscription says that it keeps no order."""
    typed = {"since": "2h", "ordered": "yes"}
    status, page = send(visit("all"), "/replays/preview", subscription=str(subscription), **typed)
    assert (status, "ordered by key" in page, 'id="wrong-ordered"' in page) == (HTTPStatus.BAD_REQUEST, True, True)
    in_order = repository.add(engine, "https://example.com/other", "order.paid", ordering="key")
    for ordered in ("", "yes"):
        asked = {"subscription": str(in_order), "since": "2h", "ordered": ordered}
        status, page = send(visit("all"), "/replays/preview", **asked)
        assert (status, "does not keep that order" in page) == (200, not ordered)
