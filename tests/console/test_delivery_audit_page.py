"""The page that audits deliveries, on a real Kafka."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Browser as Chromium
from sqlalchemy import Engine

from consumer.subscriptions import repository
from tests.console.browser import Browser
from tests.console.test_in_chromium import visitor_of
from tests.kafka_kit import Kafka
from tests.ops.audit_scene import EVENTS, Scene

pytestmark = pytest.mark.kafka  # the mock cluster finds no offsets by time

PAGE = "/audit/deliveries"


def test_a_proof_and_what_it_names(
    real_kafka: Kafka, engine: Engine, console: Callable[..., Browser], chromium: Chromium
) -> None:
    """The page asks for a time first; then it says that nothing is missing, or links what is, by name."""
    scene = Scene(real_kafka, engine)
    browser = console(None, kafka=scene.settings, log=scene.log)
    repository.edit(engine, scene.subscription, {"name": "Acme ERP"})
    scene.tried(*range(EVENTS - 1))
    assert "missing" not in browser.get(PAGE).text
    found = browser.get(PAGE, params={"seconds": "3600"}).text
    assert "1 missing" in found
    assert f'href="/console/events/{scene.topic}/0/{EVENTS - 1}"' in found
    assert f'href="/console/subscriptions/{scene.subscription}">Acme ERP</a>' in found
    visitor = visitor_of(browser, chromium)
    visitor.go(f"{PAGE}?seconds=3600")
    visitor.keep("page-audit-missing")
    visitor.assert_accessible()
    scene.tried(EVENTS - 1)
    assert "Nothing is missing" in browser.get(PAGE, params={"seconds": "3600"}).text
    wrong = browser.get(PAGE, params={"seconds": "3600", "subscription": "99"}).text
    assert "There is no subscription 99" in wrong
