"""The console of a real deployment in a real browser: an incident from its first failure to its last delivery.

CONSOLE_SCREENSHOTS=docs/console keeps screenshots for the documents: `make screenshots`; CONSOLE_GALLERY=/tmp/console
keeps each page at two widths, in light and dark.
"""

from playwright.sync_api import Browser, expect

from tests.chromium import Visitor
from tests.end_to_end.command_line import Api, CommandLine
from tests.end_to_end.service_rig import Deployment
from tests.end_to_end.webhook_receiver import Answer, always
from tests.kafka_kit import Kafka
from tests.waiting import eventually

PAGES = {
    "overview": "/",
    "subscriptions": "/subscriptions",
    "new": "/subscriptions/new",
    "edit": "/subscriptions/{billing}/edit",
    "disable": "/subscriptions/{billing}/disable",
    "remove": "/subscriptions/{billing}/remove",
    "rotate-secret": "/subscriptions/{billing}/rotate-secret",
    "events": "/events",
    "all-deliveries": "/deliveries",
    "types": "/types",
    "dead-letters": "/dead-letters",
    "replays": "/replays",
    "replay-preview": "/replays/preview?subscription=1&since=1h",
    "audit": "/audit",
    "audit-deliveries": "/audit/deliveries?seconds=3600",
    "found": "/search?q=billing&stop=1",
    "not-found": "/nowhere",
}


def test_an_incident_from_the_first_failure_to_the_last_delivery(
    deployment: Deployment, kafka_bootstrap: str, chromium: Browser, command_line: CommandLine
) -> None:
    """When one of twelve receivers fails, the open page shows it with its answers.

    After the repair its backlog drains.
    """
    kafka = Kafka(kafka_bootstrap, real=True)
    topic = kafka.topic()
    settings = {"KAFKA_ATTEMPTS_TOPIC": topic, "KAFKA_OPERATIONS_TOPIC": f"{deployment.group}.operations"}
    for number in range(11):
        deployment.subscribe("order.paid", f"/service-{number}")
    labels = {"name": "Billing", "external_id": "crm-4711", "metadata": '{"team": "finance"}'}
    billing = deployment.subscribe("order.paid", "/billing", retry_schedule="20m,1h", **labels)
    worker = deployment.start(**settings)
    visitor = Visitor(chromium, Api(command_line, WEBHOOK_ALLOW_NETWORKS="127.0.0.0/8", **settings).url)
    eventually(worker.ready)

    # All is well.
    deployment.publish(["order.paid"] * 40)
    deployment.write(b"\xff is no text")
    page = visitor.go("/")
    expect(page.get_by_text("Every receiver is well")).to_be_visible()
    expect(page.locator(".figure .value").first).to_have_text("480")
    visitor.keep("well", documented=True)

    # One fails: the open page shows it.
    deployment.receiver.rules["/billing"] = always(Answer(503, body='{"error": "upstream is away"}'))
    deployment.publish(["order.paid"] * 40)
    row = page.locator(f"#receiver-{billing}")
    expect(row).to_be_visible()
    expect(page.locator("tr", has=row)).to_contain_text("status 503")
    visitor.keep("failing", documented=True)
    row.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Billing")
    look_at_attempts(visitor, billing)

    # It is repaired, and waiting deliveries are sent again.
    eventually(lambda: len(deployment.rows("parked")) == 40)
    del deployment.receiver.rules["/billing"]
    page.get_by_role("link", name="Waiting", exact=True).click()
    page.get_by_role("link", name="All of them").click()
    visitor.keep("deliveries", documented=True)
    visitor.assert_accessible()
    look_at_a_delivery(visitor)
    for box in page.get_by_role("checkbox").all():
        box.check()
    page.get_by_role("button", name="Redeliver the selected ones").click()
    expect(page.get_by_role("status")).to_contain_text("Marked")
    eventually(lambda: not deployment.missing() and not deployment.lag())
    assert deployment.duplicates() == 0

    # Actions are in the audit log.
    page = visitor.go(f"/subscriptions/{billing}")
    page.get_by_role("button", name="Send a test event").click()
    expect(page.get_by_role("heading", name="Test event")).to_be_visible()
    page.get_by_role("link", name="Disable").click()
    visitor.assert_accessible()
    page.get_by_role("button", name="Disable").click()
    expect(page.get_by_role("status")).to_contain_text("Disabled")
    eventually(lambda: "subscription.disabled" in visitor.go("/audit").content())
    visitor.keep("audit", documented=True)

    # Every page is accessible.
    look_at_every_page(visitor, billing)
    assert [each for each in visitor.errors if "404" not in each] == []
    worker.stop()


def look_at_every_page(visitor: Visitor, billing: int) -> None:
    """Opens all pages of the console, and the API's reference."""
    for name, path in PAGES.items():
        visitor.go(path.format(billing=billing))
        visitor.assert_accessible()
        visitor.keep(f"page-{name}")
    asked: set[str] = set()
    visitor.page.on("request", lambda request: asked.add(request.url))
    visitor.go("/reference", below="")
    expect(visitor.page.locator("#operations-subscriptions-list_subscriptions")).to_be_visible()
    visitor.keep("reference", documented=True)
    assert all(each.startswith((visitor.url, "data:")) for each in asked)


def look_at_attempts(visitor: Visitor, billing: int) -> None:
    """From a subscription's page to an attempt's answer, to its event with all attempts, and back."""
    page = visitor.page
    page.get_by_text("status 503").first.click()
    expect(page.get_by_text("upstream is away").first).to_be_visible()
    visitor.keep("subscription", documented=True)
    visitor.assert_accessible()
    page.get_by_role("link", name="order.paid").first.click()
    expect(page.get_by_role("heading", name="Value")).to_be_visible()
    expect(page.locator(f"a[href$='/subscriptions/{billing}']").first).to_be_visible()
    visitor.assert_accessible()
    page.go_back()


def look_at_a_delivery(visitor: Visitor) -> None:
    """From the list to the question before all are sent, and to a delivery with its attempts, its event, and back."""
    page = visitor.page
    there = page.url
    page.get_by_role("button", name="Redeliver all that match").click()
    visitor.keep("page-redeliver-all")
    visitor.assert_accessible()
    page.goto(there)
    page.get_by_role("row").filter(has_text="status 503").get_by_role("link", name="order.paid").first.click()
    attempts = page.get_by_role("region", name="Attempts of the last hour")
    expect(attempts.get_by_text('"error": "upstream is away"')).to_be_visible()
    visitor.keep("delivery", documented=True)
    visitor.assert_accessible()
    page.get_by_role("link", name="@").first.click()
    expect(page.get_by_role("heading", name="Who got it")).to_be_visible()
    page.goto(there)
