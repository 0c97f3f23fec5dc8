"""The page of an event: the record in Kafka, as workers read it, and its stored deliveries."""

from collections.abc import Callable
from http import HTTPStatus

import pytest
from sqlalchemy import Engine

from consumer.ledger import store
from consumer.ops.replay_request import Log
from tests.console.browser import Browser
from tests.kafka_kit import Kafka
from tests.ledger.rows_kit import GROUP, make_event, parked

pytestmark = pytest.mark.kafka  # the mock cluster finds no offsets by time


@pytest.fixture
def topic(real_kafka: Kafka) -> str:
    """A topic that workers consume."""
    return real_kafka.topic()


@pytest.fixture
def browser(real_kafka: Kafka, topic: str, console: Callable[..., Browser]) -> Browser:
    """A browser of a console on this cluster."""
    kafka = real_kafka.settings()
    return console(None, kafka=kafka, log=Log(kafka, [topic]))


def test_an_event_is_shown_with_its_stored_deliveries(
    browser: Browser, real_kafka: Kafka, topic: str, engine: Engine
) -> None:
    """The form leads to it, and its value is escaped."""
    real_kafka.write(
        topic, [b'{"type": "order.paid", "note": "<b>"}'], headers=[("ce_tenant", b"acme"), ("none", None)]
    )
    store.park(engine, GROUP, [parked(make_event(0, topic=topic), 7)], 1.0)
    found = browser.get("/events", params={"topic": topic, "partition": "0", "offset": "0"})
    assert found.url.endswith(f"/events/{topic}/0/0")
    shown = ("order.paid", "msg_", "acme", "header none", "&lt;b&gt;", "parked", "#7")
    assert [text for text in shown if text not in found.text] == []
    assert "<b>" not in found.text


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
