"""The page of the changes, on the topic of operational events."""

import json
import re
from collections.abc import Callable

import pytest
from sqlalchemy import Engine

from consumer.subscriptions import repository
from tests.console.browser import Browser
from tests.kafka_kit import Kafka, unique

Written = tuple[str, str | None, dict[str, object]]
ENTRIES: tuple[Written, ...] = (
    ("subscription.created", "console:anne", {"subscription_id": 7, "url": "https://example.com/7"}),
    ("subscription.paused", "api:grafana", {"subscription_id": 8, "changed": ["paused_at"]}),
    ("delivery.redelivered", "cli:anne", {"delivery_ids": [1, 2], "subscription_ids": [7, [9]]}),
    ("subscription.disabled", None, {"subscription_id": 8, "url": "https://example.com/8"}),
)


@pytest.fixture
def browser(mock_kafka: str, console: Callable[..., Browser]) -> Browser:
    """A browser of a console whose topic has ENTRIES, and one of another deployment."""
    kafka = Kafka(mock_kafka, real=False)
    settings = kafka.settings().model_copy(update={"operations_topic": unique("operations")})
    entries = [(settings.event_source, *entry) for entry in ENTRIES]
    for number, (source, kind, actor, data) in enumerate([*entries, ("elsewhere", *ENTRIES[0])]):
        told = data if actor is None else data | {"actor": actor}
        event = {"source": source, "type": kind, "time": f"2026-07-28T14:00:0{number}Z", "data": told}
        kafka.write(settings.operations_topic, [json.dumps(event).encode()])
    return console(None, kafka=settings)


def types(page: str) -> list[str]:
    """The types of the changes on the page."""
    return re.findall(r'<td class="mono">([a-z_.]+)</td>', page)


def test_a_change_says_by_which_way_it_came(browser: Browser) -> None:
    """It is the console, the API or the command line, with the name; what the service did has none."""
    page = browser.get("/audit").text
    assert types(page) == [kind for kind, *_ in reversed(ENTRIES)]
    by = re.findall(r'<td>([a-z ]+)(?:<div class="sub">([^<]+)</div>)?</td>', page)
    assert by == [("the service", ""), ("anne", "command line"), ("grafana", "API"), ("anne", "console")]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("type=subscription", [3, 1, 0]),
        ("type=subscription.paused", [1]),
        ("type=sub", []),
        ("actor=anne", [2, 0]),
        ("actor=console", [0]),
        ("actor=cli:anne", [2]),
        ("actor=service", [3]),
        ("subscription=7", [2, 0]),
        ("subscription=8&type=subscription.disabled&actor=service", [3]),
    ],
)
def test_changes_are_filtered(browser: Browser, query: str, found: list[int]) -> None:
    """The type may be its first part, the actor a way or a name; several deliveries are of several subscriptions."""
    page = browser.get(f"/audit?{query}").text
    assert types(page) == [ENTRIES[number][0] for number in found]
    assert ("None of the newest 2,000 changes does" in page) == (not found)


def test_a_filter_that_is_wrong_says_so(browser: Browser) -> None:
    """It is not an error of the server."""
    page = browser.get("/audit?subscription=x")
    assert page.ok
    assert "A subscription is named by its number" in page.text


def test_a_change_names_its_subscription(engine: Engine, browser: Browser) -> None:
    """By its name, with its tenant; one that is removed by now is said to be."""
    for number in range(1, 8):  # ENTRIES have an 8 too
        assert repository.add(engine, f"https://{number}.example.com/", "a", name="Acme ERP", tenant="acme") == number
    page = browser.get("/audit").text
    named = re.findall(r'href="/console/subscriptions/(\d)">([^<]+)</a><div class="sub">([^<]+)</div>', page)
    assert named == [("8", "removed", "#8"), ("8", "removed", "#8"), ("7", "Acme ERP", "#7 · acme")]
