"""The pages in a real browser, without Kafka: what scripts and style sheets do."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser as Chromium
from playwright.sync_api import Route, expect
from sqlalchemy import Engine, update

from consumer.config.settings import KafkaSettings
from consumer.console import deliveries
from consumer.ledger import store
from consumer.ops.replay_request import Log
from consumer.subscriptions import repository
from models import Subscription
from tests.chromium import NARROW, Visitor
from tests.console.browser import Browser
from tests.ledger.rows_kit import GROUP, make_event, parked

OPENS = Callable[..., Browser]
ROOT = "/console"


def visitor_of(browser: Browser, chromium: Chromium, **options: object) -> Visitor:
    """A visitor of the same console."""
    return Visitor(chromium, browser.base.removesuffix(ROOT), **options)


def test_the_sign_in_is_accessible_and_leads_to_the_pages(console: OPENS, chromium: Chromium) -> None:
    """Axe finds no fault in it, in light and dark."""
    visitor = visitor_of(console("all"), chromium)
    page = visitor.go("/subscriptions")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    visitor.assert_accessible()
    page.get_by_label("Token").fill("all")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Subscriptions")
    assert visitor.errors == []


def test_a_phone_reaches_every_page(console: OPENS, chromium: Chromium) -> None:
    """All entries of the menu are on the screen without scrolling sideways, and none lies under another."""
    page = visitor_of(console(None), chromium).go("/")
    page.set_viewport_size({"width": NARROW[0], "height": NARROW[1]})
    entries = page.get_by_role("navigation", name="Pages").get_by_role("link")
    assert entries.count() >= 8
    for entry in entries.all():
        box = entry.bounding_box()
        assert box is not None
        assert 0 <= box["x"] <= box["x"] + box["width"] <= NARROW[0]
        entry.click(trial=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW[0]


def test_long_texts_and_long_lists_stay_short(engine: Engine, console: OPENS, chromium: Chromium) -> None:
    """The whole URL is on its own page, among the options. One key reaches all rows, before the first of them.

    A phone's menu takes a seventh of its screen, and the head of a page with a long URL leaves room for more.
    """
    url = f"https://example.com/{'long-path-segment/' * 60}end"
    for digit in "123":
        number = repository.add(engine, url, "order.paid", name="N" * 200, external_id=digit * 240)
    visitor = visitor_of(console(None), chromium)
    page = visitor.go("/subscriptions")
    page.set_viewport_size({"width": NARROW[0], "height": NARROW[1]})
    height = "each => each.getBoundingClientRect().height"
    assert page.locator(".side").evaluate(height) <= NARROW[1] / 7
    assert max(row.evaluate(height) for row in page.locator("tbody tr").all()) <= NARROW[1] / 2
    first = page.locator("main form[method=post] :is(button, input:not([type=hidden]))").first
    first.press("Enter")
    assert page.locator("[name=id]:checked").count() == 3
    first.press("Enter")
    assert page.locator("[name=id]:checked").count() == 0
    page = visitor.go(f"/subscriptions/{number}?tab=options")
    page.set_viewport_size({"width": NARROW[0], "height": NARROW[1]})
    assert page.locator(".head").first.evaluate(height) <= NARROW[1] * 0.6
    pause = page.locator("form[action*='/pause']")
    reason, button = (pause.locator(each).bounding_box() for each in ("[name=reason]", "button"))
    assert reason is not None
    assert button is not None
    assert abs(reason["y"] - button["y"]) < button["height"] / 2
    expect(page.get_by_role("region", name="Options").get_by_text(url)).to_have_count(1)
    assert visitor.errors == []


def test_times_are_the_visitor_s_own(engine: Engine, console: OPENS, chromium: Chromium) -> None:
    """They are on the page, beside the age, in sentences, and in the fields of forms; without scripts they are UTC."""
    number = repository.add(engine, "https://example.com/hooks", "order.paid")
    repository.pause(engine, number, "until 2026-07-28T22:00:00.500Z")
    with engine.begin() as connection:
        for column, hour in (("created_at", 20), ("paused_at", 21)):
            connection.execute(update(Subscription).values({column: datetime(2026, 7, 28, hour, tzinfo=UTC)}))
    browser = console(None)
    plain = visitor_of(browser, chromium, java_script_enabled=False)
    expect(plain.go(f"/subscriptions/{number}?tab=options").get_by_text("2026-07-28 20:00:00 UTC")).to_be_visible()
    tokyo = visitor_of(browser, chromium, timezone_id="Asia/Tokyo", locale="en-GB")
    expect(tokyo.go(f"/subscriptions/{number}?tab=options").get_by_text("29 Jul 2026, 05:00:00")).to_be_visible()
    fields = tokyo.go("/deliveries?since=2026-07-28T20:00&state=parked").locator("[type=datetime-local]")
    assert [each.input_value() for each in fields.all()] == ["2026-07-29T05:00", ""]
    assert "UTC" not in tokyo.page.locator("main").inner_text()
    fields.last.fill("2026-07-29T06:30")
    tokyo.page.get_by_role("button", name="Search").click()
    tokyo.page.wait_for_url("**since=2026-07-28T20%3A00&until=2026-07-28T21%3A30")
    assert fields.last.input_value() == "2026-07-29T06:30"
    expect(plain.go("/deliveries?since=2026-07-28T20:00").get_by_label("From (UTC)")).to_have_value("2026-07-28T20:00")
    tokyo.go(f"/subscriptions/{number}")
    sentence = tokyo.page.get_by_text("Since 29 Jul 2026, 06:00:00: until 29 Jul 2026, 07:00:00")
    expect(sentence).to_be_visible()
    assert tokyo.errors == []


def test_a_page_that_no_longer_refreshes_itself_says_since_when(console: OPENS, chromium: Chromium) -> None:
    """It is live again with the next answer."""
    visitor = visitor_of(console(None), chromium)
    page = visitor.go("/")
    mark = page.locator("[data-live]")
    expect(mark).to_have_text("live")

    def fail(route: Route) -> None:
        route.fulfill(status=HTTPStatus.BAD_GATEWAY)

    page.route("**/console/", fail)
    expect(mark).to_contain_text("stale since")
    visitor.assert_accessible()
    page.unroute("**/console/", fail)
    expect(mark).to_have_text("live")
    assert visitor.go("/subscriptions").locator("[data-live]").count() == 0


PAGES = ("/", "/subscriptions", "/subscriptions/new", "/deliveries", "/replays", "/events", "/types", "/deliveries/1")
SEARCHES = ("/search", "/search?q=warehouse", "/subscriptions?name=nobody")
TABS = ("attempts", "waiting", "replay", "secrets", "options")
OF_ONE = ("", *(f"?tab={each}" for each in TABS), "/edit", "/disable", "/remove", "/rotate-secret")


@pytest.mark.parametrize("path", [*PAGES, *SEARCHES, *(f"/subscriptions/1{each}" for each in OF_ONE)])
def test_pages_are_accessible(engine: Engine, console: OPENS, chromium: Chromium, path: str) -> None:
    """Axe finds no fault in them, and a phone need not scroll sideways."""
    for number in range(3):
        named = (
            {} if number else {"name": "The warehouse", "external_id": "crm-4711-" * 14, "metadata": '{"team": "shop"}'}
        )
        url, types = f"https://example.com/{'long-path-' * 20}{number}", ("a.*", "b.*", "c.*")
        repository.add(engine, url, "order.paid", tenant="acme", further_types=types, **named)  # type: ignore[arg-type]
    store.park(engine, GROUP, [parked(make_event(3, body=b'{"a": 1}'), 1)], 1.0)
    log = Log(KafkaSettings(bootstrap_servers="127.0.0.1:1"), ["orders"]) if "replay" in path else None
    visitor = visitor_of(console(None, log=log), chromium)
    page = visitor.go(path)
    tab = path.removeprefix("/subscriptions/1")
    assert "?tab=" not in path or page.locator(f"[href='{tab}'][aria-current]").count()
    visitor.assert_accessible()
    visitor.page.emulate_media(forced_colors="active")
    found = Axe().run(visitor.page)
    assert found.violations_count == 0, json.dumps(found.response["violations"], indent=1)
    assert visitor.errors == []


def test_a_payload_is_copied_as_it_came(engine: Engine, console: OPENS, chromium: Chromium) -> None:
    """The page shows it with each member in a line; the button says that it has copied the bytes of the record."""
    body = b'{"b": 1.50, "a": [2, 1]}'
    store.park(engine, GROUP, [parked(make_event(3, body=body), 7)], 1.0)
    visitor = visitor_of(console(None), chromium)
    visitor.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = visitor.go("/deliveries/1")
    page.get_by_role("button", name="Copy the payload").click()
    expect(page.get_by_role("button", name="Copied the payload")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == body.decode()
    page.get_by_role("button", name="Copy the webhook-id").click()
    expect(page.get_by_role("button", name="Copied the webhook-id")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == "msg_3"
    visitor.assert_accessible()
    assert visitor.errors == []


def test_a_long_redelivery_goes_on_by_itself(
    engine: Engine, console: OPENS, chromium: Chromium, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each answer shows how far it is, and asks for the next one, until all deliveries are marked."""
    monkeypatch.setattr(deliveries, "SECONDS", 0.0)
    monkeypatch.setattr(deliveries, "MOST", 2)
    number = repository.add(engine, "https://example.com/hooks", "order.paid")
    store.park(engine, GROUP, [parked(make_event(each), number, status="exhausted") for each in range(9)], 1.0)
    visitor = visitor_of(console(None), chromium)
    page = visitor.go("/deliveries?state=exhausted")
    page.get_by_role("button", name="Redeliver all that match").click()
    visitor.assert_accessible()
    page.get_by_role("button", name="Redeliver").click()
    expect(page.get_by_role("status")).to_contain_text("Marked: 9.")
    expect(page.get_by_text("No stored delivery matches")).to_be_visible()
    assert page.url.endswith("/console/deliveries?state=exhausted")  # to be loaded again
    assert visitor.errors == []
