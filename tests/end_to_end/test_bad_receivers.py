"""URLs that cannot be used, written by plain SQL while a real worker and the command line look at the row."""

from tests.end_to_end.command_line import CommandLine
from tests.end_to_end.service_rig import Deployment
from tests.waiting import eventually

UNUSABLE = {  # unusable URLs, and the reason in the list
    "nonsense": "must start with",
    "http://127.0.0.1:99999/": "port",
    "https://user:s3cret@host/": "the URL",
    "http://10.0.0.1/": "WEBHOOK_ALLOW_NETWORKS",
    "http://93.184.216.34/": "WEBHOOK_ALLOW_HTTP",
}


def test_an_unusable_url_costs_no_event(deployment: Deployment, command_line: CommandLine) -> None:
    """Its events are stored untried, and sent once it is corrected. Other subscriptions are unaffected."""
    deployment.alter("import consumer.ledger.due as due; due.POSTPONED = 1.0")  # a minute is too long for a test
    ids = {deployment.subscribe("a", url, url): reason for url, reason in UNUSABLE.items()}
    deployment.subscriptions.clear()
    deployment.subscribe("a", "/good")
    worker = deployment.start()
    deployment.publish(["a"] * 20)
    eventually(lambda: not deployment.missing() and not deployment.lag())
    eventually(lambda: len(deployment.rows()) == 20 * len(UNUSABLE))
    assert {(row.status, row.attempt, row.last_error) for row in deployment.rows()} == {("parked", 0, None)}
    said = command_line.broken()
    assert said.keys() == ids.keys()
    for subscription, reason in ids.items():
        assert reason in said[subscription]
        assert said[subscription].endswith("its events are stored, not sent")
        assert worker.log.count(f'"subscription": {subscription}, "reason"') == 1
    assert "s3cret" not in worker.log + str(said)

    for subscription in ids:
        path = f"/corrected/{subscription}"
        url = deployment.receiver.url(path)
        deployment.sql("UPDATE webhook_subscriptions SET url = ? WHERE id = ?", url, subscription)
        deployment.subscriptions[path] = "a"
    eventually(deployment.finished)
    assert command_line.broken() == {}
    worker.stop()
    assert deployment.duplicates() == 0
    deployment.assert_true_to_what_was_published()
