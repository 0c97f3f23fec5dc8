"""Support's question, in a real browser on a real deployment: which event did a receiver not get, why, and once more.

Each case begins at the overview with a business id, and counts what a person does: a search, a click or a button.
"""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.chromium import Visitor
from tests.end_to_end.command_line import Api, CommandLine
from tests.end_to_end.service_rig import Deployment
from tests.end_to_end.webhook_receiver import Answer, always
from tests.waiting import eventually

ORDER = "A-4711"
SETTINGS = {"WEBHOOK_ALLOW_NETWORKS": "127.0.0.0/8", "WEBHOOK_SEARCH_FIELDS": "data.order"}


class Support:
    """A person at the console; `actions` counts what they did since the question came up."""

    def __init__(self, visitor: Visitor) -> None:
        self.visitor = visitor
        self.actions = 0

    def looks_up(self, text: str) -> Page:
        """From the overview to what has this text."""
        self.actions = 1
        page = self.visitor.go("/")
        box = page.get_by_role("search").get_by_role("searchbox")
        box.fill(text)
        box.press("Enter")
        return page

    def opens_the_event(self) -> Page:
        """The event that the search has found."""
        self.actions += 1
        page = self.visitor.page
        page.get_by_role("link", name="order.paid").click()
        expect(page.get_by_role("heading", name="Who got it")).to_be_visible()
        return page


@pytest.fixture
def told(deployment: Deployment, command_line: CommandLine, chromium: Browser) -> Iterator[tuple[Support, list[int]]]:
    """A deployment in which an order's event went five ways, by the subscriptions' ids, and a person at its console."""
    settings = SETTINGS | {"KAFKA_ATTEMPTS_TOPIC": f"{deployment.group}.attempts"}
    failed = deployment.subscribe("order.paid", "/failed", retry_schedule="20m,1h")
    delivered = deployment.subscribe("order.paid", "/delivered")
    filtered = deployment.subscribe("order.paid", "/filtered", event_filter="data.amount > 100")
    paused = deployment.subscribe("order.paid", "/paused")
    deployment.receiver.rules["/failed"] = always(Answer(503, body="upstream is away"))
    status, _, errors = command_line.run("subscriptions", "pause", str(paused), "--reason", "it moves", **settings)
    assert status == 0, errors
    worker = deployment.start(**settings)
    eventually(worker.ready)
    deployment.write(b'{"type": "order.paid", "order": "%s", "amount": 50}' % ORDER.encode(), partition=2)
    deployment.flush()
    eventually(lambda: len(deployment.rows("parked")) == 1 and len(deployment.receiver.at("/delivered")) == 1)
    eventually(lambda: not deployment.lag())
    later = deployment.subscribe("order.paid", "/later")
    visitor = Visitor(chromium, Api(command_line, **settings).url)
    yield Support(visitor), [failed, delivered, filtered, paused, later]
    assert visitor.errors == []
    worker.stop()


def test_the_question_is_answered_in_three_actions(told: tuple[Support, list[int]], deployment: Deployment) -> None:
    """The event failed, was delivered, was left out by a filter, waits for a pause, or came before the receiver.

    The third action sends it again, to a receiver that has it too; an id that nobody has is answered by the first one.
    """
    support, (failed, delivered, filtered, paused, later) = told
    page = support.looks_up(ORDER)
    expect(page.get_by_text("The log was searched to its end")).to_be_visible()
    support.visitor.keep("page-search")
    page = support.opens_the_event()
    support.visitor.keep("event", documented=True)
    support.visitor.assert_accessible()
    for number, answer in {
        failed: r"waiting attempt 1 failed: status 503; attempt 2 follows by its retry schedule",
        delivered: r"delivered .*attempt 1, status 200",
        filtered: r"unmatched filter: false for this event",
        paused: r"waiting paused since .*: it moves; it waits in Kafka",
        later: r"registered later registered ",
    }.items():
        row = (
            page.get_by_role("region", name="Who got it")
            .get_by_role("row")
            .filter(has=page.locator(f"a[href$='/subscriptions/{number}']"))
        )
        expect(row).to_have_text(re.compile(answer.replace(" ", r"\s+")))
    assert support.actions == 2

    # Once more, to the receiver that has it and to the new one.
    for number, path, requests in ((delivered, "/delivered", 2), (later, "/later", 1)):
        support.looks_up(ORDER)
        page = support.opens_the_event()
        page.get_by_role("button", name=f"Resend to subscription {number}", exact=True).click()
        support.actions += 1
        expect(page.get_by_role("status")).to_contain_text(re.compile("Sen(ding|t) again to subscription"))
        eventually(lambda path=path, requests=requests: len(deployment.receiver.at(path)) == requests)  # type: ignore[misc]
        assert support.actions == 3
    assert len({each.webhook_id for each in deployment.receiver.requests}) == 1

    # An id that nobody has.
    page = support.looks_up("A-9999")
    expect(page.get_by_text("The log was searched to its end")).to_be_visible()
    expect(page.get_by_text("Nothing has this text")).to_be_visible()
    assert support.actions == 1
