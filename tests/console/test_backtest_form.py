"""The backtest of the form: its options, tried on the log of a real Kafka before they are saved."""

import re
from collections.abc import Callable
from http import HTTPStatus

import pytest
from playwright.sync_api import Browser as Chromium
from playwright.sync_api import expect
from sqlalchemy import Engine

from consumer.api import backing
from consumer.ops.replay_request import Log
from consumer.ops.walk import Bounds
from consumer.subscriptions import repository
from tests.console.browser import Browser, form_token
from tests.console.test_forms import texts
from tests.console.test_in_chromium import visitor_of
from tests.kafka_kit import Kafka

pytestmark = pytest.mark.kafka  # the mock cluster finds no offsets by time

OPENS = Callable[..., Browser]
NEW = "/subscriptions/new"
TYPES = "order.*\ninvoice.paid"


@pytest.fixture
def log(real_kafka: Kafka) -> Log:
    """A log of twenty orders and ten invoices of two tenants, and one other event."""
    topic = real_kafka.topic()
    for number in range(30):
        kind = b"invoice.paid" if number % 3 == 0 else b"order.created"
        value = b'{"type": "%s", "n": %d, "note": "<b>"}' % (kind, number)
        real_kafka.write(topic, [value], headers=[("tenant", b"acme" if number % 2 else b"globex")])
    real_kafka.write(topic, [b'{"type": "user.created"}'])
    return Log(real_kafka.settings(), [topic])


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of seven records."""
    monkeypatch.setattr(backing, "Bounds", lambda: Bounds(records=7))


def state_of(page: str, name: str = "backtest") -> str | None:
    """The state in the button that goes on, or stops."""
    found = re.search(rf'name="{name}" value="([^"]+)"', page)
    return None if found is None else found[1]


def test_options_are_tried_before_they_are_saved(engine: Engine, console: OPENS, log: Log) -> None:
    """Of several types, with the first bodies as they would be sent; the form keeps what was typed."""
    browser = console(None, log=log)
    given = texts(browser.get(NEW).text) | {
        "name": "Typed & kept",
        "event_type": TYPES,
        "event_filter": "data.n >= 20",
        "projection": '{"n": data.n, "note": data.note}',
    }
    page = browser.post(NEW, data=given | {"backtest": ""}).text
    assert "10 of 30 events of these types match" in page
    assert "in 31 records. The log was read to its end." in page
    assert re.findall(r'<td class="mono">([a-z.]+)</td><td class="number">(\d+)<', page) == [
        ("order.created", "7"),
        ("invoice.paid", "3"),
    ]
    assert '<td class="mono">filter: false for this event</td><td class="number">20</td>' in page
    assert "&#34;n&#34;: 20,\n" in page
    assert "&lt;b&gt;" in page
    assert texts(page).items() >= given.items()
    assert list(repository.walk(engine)) == []


@pytest.mark.usefixtures("small")
def test_the_log_is_read_in_parts(engine: Engine, console: OPENS, log: Log) -> None:
    """Each page shows how far it is, and asks for the next part unless it was stopped. Fields that changed wait."""
    number = repository.add(engine, "https://example.com/hooks", "order.*", further_types=["invoice.paid"])
    browser, path = console(None, log=log), f"/subscriptions/{number}/edit"
    given, read = texts(browser.get(path).text), []
    page = browser.post(path, data=given | {"backtest": ""}).text
    stopped = browser.post(path, data=given | {"stop": state_of(page, "stop") or ""}).text
    assert "7 of 7 events of these types match" in stopped
    assert ("hx-post" in page, "hx-post" in stopped) == (True, False)
    while (state := state_of(page)) is not None:
        read.append(int(re.findall(r"(\d+) are left to read", page)[0]))
        page = browser.post(path, data=given | {"event_filter": "data.", "backtest": state}).text
    assert read == [24, 17, 10, 3]
    assert "30 of 30 events of these types match" in page
    assert page.count('class="sample"') == 10
    assert browser.post(path, data=given | {"backtest": "x"}).status_code == HTTPStatus.UNPROCESSABLE_ENTITY


def test_a_filter_that_cannot_be_tried_is_marked(console: OPENS, log: Log) -> None:
    """At its field, as when it is saved."""
    browser = console(None, log=log)
    given = texts(browser.get(NEW).text)
    for field, text in (("event_filter", "data."), ("event_type", "order.*.x"), ("event_type", "")):
        answer = browser.post(NEW, data=given | {"event_type": "a"} | {field: text, "backtest": ""})
        assert answer.status_code == HTTPStatus.BAD_REQUEST
        assert re.findall(r'id="wrong-(\w+)"', answer.text) == [field]


def test_a_tenant_tries_options_on_its_own_events(engine: Engine, console: OPENS, log: Log) -> None:
    """And sees no number of others' records, nor another's subscription."""
    browser = console("acme", log=log)
    other = repository.add(engine, "https://example.com/other", "order.*", tenant="globex")
    form = {"form_token": form_token(browser.get(NEW).text), "event_type": "*", "tenant": "globex", "backtest": ""}
    assert browser.post(f"/subscriptions/{other}/edit", data=form).status_code == HTTPStatus.NOT_FOUND
    assert "15 of 15 events" in browser.post(NEW, data=form).text
    page = browser.post(NEW, data=texts(browser.get(NEW).text) | {"event_type": TYPES, "backtest": ""}).text
    assert "15 of 15 events of these types match</strong>." in page
    tried = page.partition('id="tried"')[2].replace(log.topics[0], "")  # a random name
    assert "31" not in re.sub(r"<[^>]*>", "", tried)


def test_what_is_typed_survives_an_outage(console: OPENS, log: Log) -> None:
    """The page says why the log is not read, and which setting is missing."""
    away = console(None, log=log._replace(kafka=log.kafka.model_copy(update={"bootstrap_servers": "127.0.0.1:1"})))
    form = {"form_token": form_token(away.get(NEW).text), "event_type": "a.b", "backtest": ""}
    page = away.post(NEW, data=form).text
    assert "The log cannot be read now." in page
    assert texts(page)["event_type"] == "a.b"
    assert "KAFKA_BOOTSTRAP_SERVERS" in console(None).get(NEW).text


@pytest.mark.usefixtures("small")
def test_a_backtest_in_a_browser(console: OPENS, chromium: Chromium, log: Log) -> None:
    """It reads to the end by itself, and the page is accessible, on a phone too."""
    visitor = visitor_of(console(None, log=log), chromium)
    page = visitor.go(NEW)
    page.get_by_label("Event types").fill(TYPES)
    page.get_by_label("Event filter").fill("data.n >= 20 && data.n < 29")
    page.get_by_role("button", name="Try these options").click()
    expect(page.get_by_text("The log was read to its end")).to_be_visible()
    expect(page.get_by_text("9 of 30 events of these types match")).to_be_visible()
    visitor.keep("backtest", documented=True)
    visitor.assert_accessible()
    page.get_by_label("Event filter").fill("data.")
    page.get_by_role("button", name="Try these options").click()
    expect(page.locator("#wrong-event_filter")).to_be_visible()
    visitor.keep("backtest-wrong")
    visitor.assert_accessible()
    assert [each for each in visitor.errors if "400" not in each] == []
