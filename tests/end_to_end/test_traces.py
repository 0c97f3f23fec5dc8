"""Traces of a real worker, as a collector receives them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.service_rig import SECRET, Deployment
from tests.end_to_end.webhook_receiver import in_turn
from tests.otlp_collector import Collector
from tests.waiting import eventually

TRACE, PRODUCER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SOON = {"OTEL_BSP_SCHEDULE_DELAY": "100"}


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector that listens until the test ends."""
    with Collector() as listening:
        yield listening


def write(deployment: Deployment, body: bytes, flags: str = "01", producer: str = PRODUCER) -> None:
    """Writes a record of type `a` in the producer's trace."""
    deployment.write(
        body,
        headers=[("event-type", b"a"), ("traceparent", f"00-{TRACE}-{producer}-{flags}".encode())],
        key=b"k-secret",
    )
    deployment.flush()


def test_a_record_its_match_and_its_attempts_are_one_trace(
    deployment: Deployment, collector: Collector, tmp_path: Path
) -> None:
    """They are children of the producer's span, also an attempt from the database, and the receiver's parents.

    Failures are errors. OpenTelemetry's own variables may be in a .env file too.
    """
    (tmp_path / ".env").write_text("OTEL_SERVICE_NAME=hooks\n")
    good = deployment.subscribe("a", "/good", deployment.receiver.url("/good?token=hush"))
    bad = deployment.subscribe("a", "/bad")
    deployment.receiver.rules["/bad"] = in_turn(503, 200)
    settings = {"WEBHOOK_RETRY_SCHEDULE": "0.2,0.2", "WEBHOOK_RETRY_IN_MEMORY": "0"}
    worker = deployment.start(OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint, **settings, **SOON)
    write(deployment, b'{"payload": "hush"}')
    eventually(lambda: len(collector.spans) == 5)
    worker.stop()

    (process,), (match,), attempts = collector.named("process"), collector.named("match"), collector.named("POST")
    assert {span.trace for span in collector.spans} == {TRACE}
    assert {span.service for span in collector.spans} == {"hooks"}
    assert (process.name, process.kind, process.parent) == (f"process {deployment.topic}", "CONSUMER", PRODUCER)
    assert process.attributes == {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": deployment.topic,
        "messaging.destination.partition.id": "0",
        "messaging.kafka.offset": 0,
        "messaging.consumer.group.name": deployment.group,
        "messaging.message.id": deployment.receiver.requests[0].webhook_id,
        "messaging.message.body.size": 19,
    }
    assert (match.kind, match.parent, match.attributes["webhooks.subscriptions.matched"]) == ("INTERNAL", process.id, 2)
    assert {(span.kind, span.parent) for span in attempts} == {("CLIENT", process.id)}
    assert abs(process.begin - match.begin) < 1e6  # both since the record's arrival, in nanoseconds
    assert match.begin < match.end < process.end

    by_traceparent = {span.traceparent: span for span in attempts}
    seen = [(request.path, by_traceparent[request.headers["traceparent"]]) for request in deployment.receiver.requests]
    told = {
        (path, span.attributes["webhooks.subscription.id"], span.attributes["http.response.status_code"], span.error)
        for path, span in seen
    }
    assert told == {("/good?token=hush", good, 200, False), ("/bad", bad, 503, True), ("/bad", bad, 200, False)}
    failed = next(span for _, span in seen if span.error)
    assert failed.attributes["error.type"] == "503"
    again = next(span for _, span in seen if span.attributes.get("http.request.resend_count"))
    assert again.attributes["url.full"] == deployment.receiver.url("/bad")
    for secret in (b"hush", SECRET.encode(), SECRET.removeprefix("whsec_").encode(), b"k-secret"):
        assert secret not in collector.bodies


def test_what_is_not_sampled_is_passed_on_with_the_flag_unset(deployment: Deployment, collector: Collector) -> None:
    """A record without a trace gets ids for all its requests; one that its producer has not sampled keeps its ids.

    One that its producer has sampled is traced, whatever the ratio is.
    """
    for path in ("/a", "/b"):
        deployment.subscribe("a", path)
    ratio = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"}
    worker = deployment.start(OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint, **ratio, **SOON)
    write(deployment, b"1", flags="02")
    deployment.write(b"2", headers=[("event-type", b"a")])
    write(deployment, b"3")
    eventually(lambda: len(collector.spans) == 4)
    worker.stop()
    both = {(request.body, request.headers["traceparent"]) for request in deployment.receiver.requests}
    seen = dict(both)
    assert len(both) == 2 + 2
    assert seen[b"1"] == f"00-{TRACE}-{PRODUCER}-02"
    version, trace, span, flags = seen[b"2"].split("-")
    assert (version, len(trace), len(span), int(flags, 16) & 1) == ("00", 32, 16, 0)
    assert TRACE not in trace
    assert {at for body, at in both if body == b"3"} == {each.traceparent for each in collector.named("POST")}
    assert {each.trace for each in collector.spans} == {TRACE}


def test_a_dead_letter_is_a_failed_span_in_its_producers_trace(deployment: Deployment, collector: Collector) -> None:
    """It ends when the dead-letter topic has the record, and its error is the reason."""
    deployment.start(OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint, **SOON)
    write(deployment, b"")
    eventually(lambda: collector.spans)
    (process,) = collector.spans
    assert (process.name, process.kind, process.parent) == (f"process {deployment.topic}", "CONSUMER", PRODUCER)
    assert (process.error, process.attributes["error.type"]) == (True, "empty")
    assert (process.trace, process.attributes["messaging.kafka.offset"]) == (TRACE, 0)
    eventually(lambda: not deployment.lag())
