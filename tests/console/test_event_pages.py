"""The page of an event: the record in Kafka, as workers read it, and its stored deliveries."""

import html
import re
from collections.abc import Callable
from http import HTTPStatus

import pytest
from sqlalchemy import Engine, text

from consumer.events.attempt import Attempt
from consumer.events.event import Event
from consumer.ledger import store
from consumer.ops import story
from consumer.ops.events import record_at
from consumer.ops.replay_request import Log
from consumer.subscriptions import repository
from tests.api.test_v1_observed import History
from tests.console.browser import Browser, form_token
from tests.kafka_kit import Kafka
from tests.ledger.rows_kit import GROUP, make_event, parked, plans

pytestmark = pytest.mark.kafka  # the mock cluster finds no offsets by time


@pytest.fixture
def topic(real_kafka: Kafka) -> str:
    """A topic that workers consume."""
    return real_kafka.topic()


class Told(History):
    """A history that has read all attempts at any event."""

    def of_event(self, _: str, __: float) -> tuple[list[Attempt], str | None]:
        """All of them."""
        return self.attempts, None


@pytest.fixture
def history() -> History:
    """The attempts that are on record."""
    return Told([])


@pytest.fixture
def browser(real_kafka: Kafka, topic: str, console: Callable[..., Browser], history: History) -> Browser:
    """A browser of a console on this cluster."""
    kafka = real_kafka.settings()
    return console(None, kafka=kafka, log=Log(kafka, [topic]), history=history)


def test_an_event_is_shown_with_its_receivers(browser: Browser, real_kafka: Kafka, topic: str, engine: Engine) -> None:
    """The form leads to it, its value is escaped, and each subscription says what became of the event there."""
    real_kafka.write(
        topic, [b'{"type": "order.paid", "note": "<b>"}'], headers=[("ce_tenant", b"acme"), ("none", None)]
    )
    refuses = repository.add(engine, "https://refuses.example/", "order.*", event_filter="false", name="Old shop")
    store.park(engine, GROUP, [parked(at_the_place(real_kafka, topic), 7)], 1.0)
    found = browser.get("/events", params={"topic": topic, "partition": "0", "offset": "0"})
    assert found.url.endswith(f"/events/{topic}/0/0")
    shown = ("order.paid", "msg_", "acme", "header none", "&lt;b&gt;", "waiting", "#7", "stored delivery 1")
    refused = (">Old shop</a>", f"#{refuses}", "unmatched", "filter: false for this event")
    assert [text for text in (*shown, *refused) if text not in found.text] == []
    assert "<b>" not in found.text


def test_the_page_of_an_event_takes_ten_statements_at_most(
    browser: Browser, real_kafka: Kafka, topic: str, engine: Engine
) -> None:
    """However many patterns match its type, and whatever its receivers have."""
    real_kafka.write(topic, [b'{"type": "%s"}' % b".".join([b"a"] * 20)])
    one = repository.add(engine, "https://one.example/", "a.*", "its own secret", further_types=["a.a.a.*", "b"])
    repository.add(engine, "https://two.example/", "*")
    store.park(engine, GROUP, [parked(at_the_place(real_kafka, topic), one)], 1.0)
    pages = list[str]()
    counted = plans(engine, lambda: pages.append(browser.get(f"/events/{topic}/0/0").text))
    assert 0 < len(counted) <= 10
    assert "https://one.example/" in pages[0]
    assert "https://two.example/" in pages[0]


def test_the_receivers_of_an_event_have_pages(
    browser: Browser, real_kafka: Kafka, topic: str, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last page has the last one, and leads to the first. Those of other tenants are counted."""
    monkeypatch.setattr(story, "MOST", 1)
    real_kafka.write(topic, [b'{"type": "order.paid"}'])
    for name, tenant in (("one", "*"), ("two", "*"), ("three", "acme")):
        repository.add(engine, f"https://{name}.example/", "order.*", tenant=tenant)
    first = browser.get(f"/events/{topic}/0/0").text
    assert "subscriptions for other tenants: 1" in first
    (following,) = re.findall(r'href="(\?cursor=[^"]+)#receivers" rel="next"', first)
    second = browser.get(f"/events/{topic}/0/0{following}").text
    assert "https://two.example/" in second
    assert "First page" in second
    assert 'rel="next"' not in second


def test_an_event_is_sent_again(
    browser: Browser, real_kafka: Kafka, topic: str, engine: Engine, history: History
) -> None:
    """A button sends it to one subscription; the page follows it until the next attempt, and then says how that ended.

    It says nothing of it without that, as when somebody opens the page later.
    """
    real_kafka.write(topic, [b'{"type": "order.paid"}'])
    store.park(engine, GROUP, [parked(at_the_place(real_kafka, topic), 7, status="exhausted")], 1.0)
    repository.add(engine, "https://refuses.example/", "order.*", event_filter="false")
    here = f"/events/{topic}/0/0"
    page = browser.get(here).text
    assert page.count("Resend to subscription") == 1
    form = {"form_token": form_token(page), "subscription": "7", "newest": "1000500"}
    assert "There is no subscription 7" in browser.post(f"/events/{topic}/0/0/resend", data=form).text
    with engine.begin() as connection:
        connection.execute(text("UPDATE webhook_subscriptions SET id = 7"))
    repository.edit(engine, 7, {"event_filter": None})
    sent = browser.post(f"/events/{topic}/0/0/resend", data=form)
    waiting = "Sending again to subscription 7: no attempt is on record yet."
    assert waiting in sent.text
    assert "given up" not in sent.text
    following = html.unescape(re.findall('hx-get="/console([^"]+)" hx-trigger="every 2s"', sent.text)[0])
    assert waiting not in browser.get(here).text
    before = Attempt(1000.5, 7, "m", "a", None, topic, 0, 0, 1, "delivered", 200, None, 0.1, None)
    history.attempts.append(before)
    assert "hx-refresh" not in browser.get(following).headers
    history.attempts.append(before._replace(at=1001.0, attempt=2, outcome="parked", status=503, error="status 503"))
    assert browser.get(following).headers["hx-refresh"] == "true"
    page = browser.get(sent.url.removeprefix(browser.base)).text
    assert ("Sent again to subscription 7: status 503." in page, "hx-get" in page) == (True, False)


def at_the_place(kafka: Kafka, topic: str) -> Event:
    """The event of the topic's first record, for a row."""
    record = record_at(kafka.settings(), topic, 0, 0)
    assert record is not None
    return make_event(0, topic=topic)._replace(record=record.id)


def test_the_search_finds_places_subscriptions_and_events(
    browser: Browser, real_kafka: Kafka, topic: str, engine: Engine
) -> None:
    """A place leads to its record. The page asks for the log's parts by itself, unless it was stopped."""
    real_kafka.write(topic, [b'{"type": "order.paid", "id": "<i>4711"}'])
    repository.add(engine, "https://acme-4711.example/", "order.*")
    assert browser.get("/search", params={"q": f"{topic}[0]@0"}).url.endswith(f"/events/{topic}/0/0")
    page = browser.get("/search", params={"q": "4711", "hours": "1"}).text
    assert "https://acme-4711.example/" in page
    assert 'hx-get="/console/search/log?q=4711&hours=1"' in page
    part = browser.get("/search/log", params={"q": "<i>4711", "hours": "1"}).text
    assert f'href="/console/events/{topic}/0/0"' in part
    assert "searched to its end" in part
    stopped = browser.get("/search", params={"q": "4711", "stop": "1"}).text
    assert "hx-get" not in stopped
    assert "Nothing has this text" in browser.get("/search", params={"q": "<i>absent"}).text
    assert browser.get("/search", params={"q": ""}).status_code == HTTPStatus.OK


def test_a_record_that_carries_no_event_is_shown_with_the_reason(
    browser: Browser, real_kafka: Kafka, topic: str
) -> None:
    """It is in the dead-letter topic too; this page shows all of it."""
    real_kafka.write(topic, [b"\xffnot JSON"])
    page = browser.get(f"/events/{topic}/0/0").text
    assert "This record carries no event" in page
    assert "not UTF-8" in page
    assert "\\xffnot JSON" in page


@pytest.mark.parametrize(
    ("of", "offset", "status", "text"),
    [
        ("", 5, HTTPStatus.NOT_FOUND, "has no record at offset 5"),
        ("another", 0, HTTPStatus.NOT_FOUND, "not one of KAFKA_TOPICS"),
        ("", 2**63, HTTPStatus.NOT_FOUND, "There is no such page"),
    ],
)
def test_other_records_are_not_read(
    browser: Browser, real_kafka: Kafka, topic: str, of: str, offset: int, status: HTTPStatus, text: str
) -> None:
    """Offsets that the log lacks and topics that no worker consumes are refused."""
    real_kafka.write(topic, [b"{}"])
    found = browser.get(f"/events/{of or topic}/0/{offset}")
    assert found.status_code == status
    assert text in found.text
