"""A URL that cannot be used costs no event: its deliveries are held, and sent once it is corrected."""

import time

from tests.end_to_end.command_line import CommandLine
from tests.end_to_end.service_rig import Deployment, assert_in_order, eventually

UNUSABLE = {  # unusable URLs, and the reason in the list
    "not a url": "visible ASCII",
    "nonsense": "must start with",
    "http://": "no host",
    "http://127.0.0.1:99999/": "port",
    "http://[::1": "brackets",
    "ftp://127.0.0.1/": "http",
    "http://10.0.0.1/": "WEBHOOK_ALLOW_NETWORKS",
    "https://169.254.169.254/": "WEBHOOK_ALLOW_NETWORKS",
    "http://0x0a000001/": "WEBHOOK_ALLOW_NETWORKS",
    "http://93.184.216.34/": "WEBHOOK_ALLOW_HTTP",
}


def test_an_unusable_url_costs_no_event(deployment: Deployment, command_line: CommandLine) -> None:
    """Events for an invalid URL, a private address or plain http are stored untried, and sent once it is corrected.

    Other subscriptions are unaffected.
    """
    deployment.alter("import consumer.ledger.due as due; due.POSTPONED = 1.0")  # a minute is too long for a test
    ids = {deployment.subscribe("a", url, url): reason for url, reason in UNUSABLE.items()}
    deployment.subscriptions.clear()
    deployment.subscribe("a", "/good")
    worker = deployment.start(WEBHOOK_MAX_IN_FLIGHT="4")
    deployment.publish(["a"] * 20)
    eventually(lambda: not deployment.lag(), timeout=120)
    eventually(lambda: not deployment.missing())
    eventually(lambda: len(deployment.rows()) == 20 * len(UNUSABLE))
    assert {(row.status, row.attempt, row.last_error) for row in deployment.rows()} == {("parked", 0, None)}
    said = command_line.broken()
    assert said.keys() == ids.keys()
    for subscription, reason in ids.items():
        assert reason in said[subscription]
        assert said[subscription].endswith("its events are stored, not sent")
        assert worker.log.count(f'"subscription": {subscription}, "reason"') == 1
    assert worker.metric("webhooks_connections_opened_total") <= 20, "16 of the good receiver's may rest"

    for subscription in ids:  # by SQL, while the worker runs
        path = f"/corrected/{subscription}"
        url = deployment.receiver.url(path)
        deployment.sql("UPDATE webhook_subscriptions SET url = ? WHERE id = ?", url, subscription)
        deployment.subscriptions[path] = "a"
    eventually(lambda: not deployment.missing())
    eventually(lambda: {row.status for row in deployment.rows()} <= {"delivered"})
    assert command_line.broken() == {}
    worker.stop()
    assert deployment.duplicates() == 0
    deployment.assert_true_to_what_was_published()


def test_a_forgotten_allowance_costs_no_event(deployment: Deployment, command_line: CommandLine) -> None:
    """Events refused by the egress rule, by URL or by a name's address, are stored, and sent once it is allowed."""
    deployment.alter("import consumer.ledger.due as due; due.POSTPONED = 1.0")
    deployment.subscribe("a", "/kept", deployment.receiver.url("/kept").replace("127.0.0.1", "localhost"))
    deployment.subscribe("a", "/kept-in-order", deployment.receiver.url("/kept-in-order"), ordering="key")
    forgetful = deployment.start(WEBHOOK_ALLOW_NETWORKS="10.9.0.0/16")
    deployment.publish(["a"] * 100, per_second=200, keys=(b"a", b"b", b"c", None))
    eventually(lambda: not deployment.lag(), timeout=120)
    time.sleep(3)  # it has checked again
    assert deployment.receiver.requests == []
    rows = deployment.rows()
    assert len(rows) == 200
    assert {row.attempt for row in rows} == {0}
    assert {row.status for row in rows} == {"parked", "blocked"}
    assert forgetful.metric("webhooks_connections_opened_total") == 0
    assert forgetful.metric('webhooks_attempts_total{status_class="error"}') == 0
    assert forgetful.log.count("a subscription is broken") == 2
    assert "add its network to WEBHOOK_ALLOW_NETWORKS; its events are stored, not sent" in forgetful.log
    assert len(command_line.broken("10.9.0.0/16")) == 1  # the list resolves no name
    forgetful.stop()
    worker = deployment.start()
    eventually(lambda: not deployment.missing())
    eventually(lambda: {row.status for row in deployment.rows()} <= {"delivered"})
    worker.stop()
    assert deployment.duplicates() == 0
    deployment.assert_true_to_what_was_published()
    assert_in_order(deployment, "/kept-in-order")


def test_an_unverified_url_costs_no_event(deployment: Deployment, command_line: CommandLine) -> None:
    """No event is sent to a row of plain SQL until its receiver agrees; then all stored ones are sent in order."""
    deployment.alter("import consumer.ledger.due as due; due.POSTPONED = 1.0")
    rule = {"WEBHOOK_REQUIRE_VERIFICATION": "true", "WEBHOOK_ORIGIN": "events.example.com"}
    verify = ("subscriptions", "verify", str(deployment.subscribe("a", "/asked", ordering="key")))
    worker = deployment.start(**rule)
    deployment.publish(["a"] * 40, keys=(b"a", b"b", b"c", b"d"))
    eventually(lambda: len(deployment.rows()) == 40 and not deployment.lag(), timeout=120)
    assert {(row.status, row.attempt) for row in deployment.rows()} == {("parked", 0), ("blocked", 0)}
    assert worker.log.count("a subscription is broken") == 1
    eventually(lambda: "stored deliveries postponed" in worker.log)  # it has checked the stored rows
    assert deployment.receiver.requests == []
    status, said, _ = command_line.run(*verify, WEBHOOK_ALLOW_NETWORKS="127.0.0.0/8", **rule)
    assert (status, "any rate" in said) == (0, True)
    eventually(lambda: not deployment.missing())
    eventually(lambda: {row.status for row in deployment.rows()} <= {"delivered"})
    worker.stop()
    assert deployment.duplicates() == 0
    deployment.assert_true_to_what_was_published()
    assert_in_order(deployment, "/asked")
    assert {request.headers["webhook-request-origin"] for request in deployment.receiver.requests} == {
        "events.example.com"
    }


def test_a_password_in_a_url_is_not_shown(deployment: Deployment, command_line: CommandLine) -> None:
    """Events are stored. Neither the log, the list nor the reason repeats it, however the URL is written."""
    urls = ("https://user:s3cret@host/", "https://user:s3/cret@host/", "https://user:s3cret@host:99999/", "s3cret@host")
    ids = {deployment.subscribe("a", url, url) for url in urls}
    deployment.subscriptions.clear()
    worker = deployment.start(LOG_LEVEL="DEBUG")
    deployment.publish(["a"])
    eventually(lambda: len(deployment.rows("parked")) == len(urls))
    eventually(lambda: "stored deliveries postponed" in worker.log)
    worker.stop()
    said = command_line.broken("")
    assert said.keys() == ids
    for text in (worker.log, *said.values()):
        assert "the URL" in text
        assert "s3" not in text
        assert "cret@" not in text
