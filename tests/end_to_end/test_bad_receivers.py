"""A bad receiver slows no other, blocks no partition, and gets its backlog when it recovers."""

import json
import subprocess
import time

import pytest

from tests.end_to_end.command_line import CommandLine
from tests.end_to_end.service_rig import Deployment, assert_in_order, eventually, percentile
from tests.end_to_end.webhook_receiver import Answer, Door, Silence, always
from tests.processes import PROGRAM, environment


def test_bad_receivers_hold_nothing_up_and_get_all_when_they_recover(deployment: Deployment, door: Door) -> None:
    """Absent, hanging, resetting and failing receivers delay neither offsets nor the good one.

    They get the same ids later.
    """
    receiver = deployment.receiver
    deployment.subscribe("calm", "/good")
    for path in ("/good", "/hangs", "/resets", "/fails", "/never"):
        deployment.subscribe("rough", path)
    deployment.subscriptions["/good"] = "rough"
    deployment.subscribe("rough", "/gone", door.url("/gone"))
    never = {row[0] for row in deployment.sql("SELECT id FROM webhook_subscriptions WHERE url LIKE '%/never'")}
    receiver.rules |= {
        "/hangs": always(Silence.HANG),
        "/resets": always(Silence.RESET),
        "/fails": always(Answer(500)),
        "/never": always(Answer(403)),
    }
    deployment.alter(
        "import consumer.delivery.breaker as breaker; breaker.REFUSED_IN_A_ROW = 10**9"
    )  # so that all 400 get a 403
    worker = deployment.start(
        WEBHOOK_TIMEOUT="1s", WEBHOOK_RETRY_SCHEDULE="1s,1s,1s,1s,1s,2s", WEBHOOK_RETRY_IN_MEMORY="0"
    )
    eventually(worker.ready)
    deployment.publish(["calm"] * 300, per_second=200)
    eventually(lambda: len(deployment.latencies("/good")) == 300)
    alone = deployment.latencies("/good")
    for body in list(deployment.published):
        del deployment.published[body]
    receiver.requests.clear()

    begin = time.time()
    deployment.publish(["rough"] * 400, per_second=200)
    eventually(lambda: len(deployment.latencies("/good", begin)) == 400)
    eventually(lambda: not deployment.lag())
    assert len(deployment.rows("parked")) > 1000
    beside_bad_ones = deployment.latencies("/good", begin)
    assert percentile(beside_bad_ones, 0.95) < max(5 * percentile(alone, 0.95), 0.25)

    del receiver.rules["/hangs"], receiver.rules["/resets"], receiver.rules["/fails"]
    receiver.open(door)
    del deployment.subscriptions["/never"]
    eventually(lambda: not deployment.missing())
    eventually(lambda: not deployment.rows("parked"))
    worker.stop()
    assert deployment.duplicates() == 0
    deployment.subscriptions["/never"] = "rough"
    deployment.assert_true_to_what_was_published()
    exhausted = deployment.rows("exhausted")
    assert len(exhausted) == 400
    assert {row.subscription_id for row in exhausted} == never
    assert {(row.attempt, row.last_error, row.last_status) for row in exhausted} == {(7, "status 403", 403)}


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


def broken(deployment: Deployment, networks: str) -> dict[int, str]:
    """The broken states in `subscriptions list --broken`, by subscription, with these networks allowed."""
    shown = subprocess.run(
        [*PROGRAM, "subscriptions", "list", "--broken", "--json"],
        env=environment({"DATABASE_URL": deployment.database.url, "WEBHOOK_ALLOW_NETWORKS": networks}),
        capture_output=True,
        check=False,  # it ends with 1 if there are some
    )
    return {each["id"]: each["state"] for each in json.loads(shown.stdout)}


def test_an_unusable_url_costs_no_event(deployment: Deployment) -> None:
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
    said = broken(deployment, "127.0.0.0/8")
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
    assert broken(deployment, "127.0.0.0/8") == {}
    worker.stop()
    assert deployment.duplicates() == 0
    deployment.assert_true_to_what_was_published()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"], ids=["address", "name"])
def test_a_forgotten_allowance_costs_no_event(deployment: Deployment, host: str) -> None:
    """Events refused by the egress rule, by URL or by a name's address, are stored, and sent once it is allowed."""
    deployment.alter("import consumer.ledger.due as due; due.POSTPONED = 1.0")
    deployment.subscribe("a", "/kept", deployment.receiver.url("/kept").replace("127.0.0.1", host))
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
    assert len(broken(deployment, "10.9.0.0/16")) == (2 if host == "127.0.0.1" else 1)  # the list resolves no name
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


def test_a_password_in_a_url_is_not_shown(deployment: Deployment) -> None:
    """Events are stored. Neither the log, the list nor the reason repeats it, however the URL is written."""
    urls = ("https://user:s3cret@host/", "https://user:s3/cret@host/", "https://user:s3cret@host:99999/", "s3cret@host")
    ids = {deployment.subscribe("a", url, url) for url in urls}
    deployment.subscriptions.clear()
    worker = deployment.start(LOG_LEVEL="DEBUG")
    deployment.publish(["a"])
    eventually(lambda: len(deployment.rows("parked")) == len(urls))
    eventually(lambda: "stored deliveries postponed" in worker.log)
    worker.stop()
    said = broken(deployment, "")
    assert said.keys() == ids
    for text in (worker.log, *said.values()):
        assert "the URL" in text
        assert "s3" not in text
        assert "cret@" not in text
