"""One bad receiver slows no other, holds no partition, and gets what it is owed when it recovers."""

import time

from tests.end_to_end.service_rig import Deployment, eventually, percentile
from tests.end_to_end.test_bad_records import read_all
from tests.end_to_end.webhook_receiver import Answer, Door, Silence, always
from tests.kafka_kit import Kafka


def test_bad_receivers_hold_nothing_up_and_get_all_when_they_recover(deployment: Deployment, door: Door) -> None:
    """Gone, hanging, resetting, failing: offsets move on, the good one is as fast as alone, the same ids come later."""
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
    deployment.alter("import consumer.delivery.breaker as breaker; breaker.REFUSED_IN_A_ROW = 10**9")  # 403 to all 400
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


def test_what_no_attempt_can_deliver_ends_with_its_reason(deployment: Deployment) -> None:
    """Nonsense for a url, a private address, plain http: exhausted at once, nothing connected, others untouched."""
    reasons = {
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
    ids = {deployment.subscribe("a", url, url): reason for url, reason in reasons.items()}
    deployment.subscriptions.clear()
    deployment.subscribe("a", "/good")
    worker = deployment.start(WEBHOOK_MAX_IN_FLIGHT="4")
    deployment.publish(["a"] * 20)
    eventually(lambda: not deployment.lag(), timeout=20)
    eventually(lambda: len(deployment.rows()) == 20 * len(reasons))
    assert worker.metric("webhooks_connections_opened_total") <= 4
    worker.stop()
    assert deployment.accepted() == deployment.expected()
    for row in deployment.rows():
        assert (row.status, row.last_status) == ("exhausted", None)
        assert ids[row.subscription_id] in (row.last_error or ""), row
    assert {row.attempt for row in deployment.rows()} == {1}


def test_a_password_in_a_url_is_not_told(deployment: Deployment, kafka_bootstrap: str) -> None:
    """It is given up, and neither the log, the reason nor the event of it repeats it, however the url is written."""
    urls = ("https://user:s3cret@host/", "https://user:s3/cret@host/", "https://user:s3cret@host:99999/", "s3cret@host")
    for url in urls:
        deployment.subscribe("a", url, url)
    deployment.subscriptions.clear()
    operations = Kafka(kafka_bootstrap, real=True).topic()
    worker = deployment.start(LOG_LEVEL="DEBUG", KAFKA_OPERATIONS_TOPIC=operations)
    deployment.publish(["a"])
    eventually(lambda: len(read_all(kafka_bootstrap, operations)) == len(urls))
    worker.stop()
    told = [(message.value() or b"").decode() for message in read_all(kafka_bootstrap, operations)]
    assert worker.log.count('"event": "attempt"') == len(urls)
    for text in (worker.log, *told, *(row.last_error or "" for row in deployment.rows())):
        assert "the URL" in text
        assert "s3" not in text
        assert "cret@" not in text
