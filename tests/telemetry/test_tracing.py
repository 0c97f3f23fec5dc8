"""The tracer of OpenTelemetry: parents, sampling, the resource, and outages of the collector."""

import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from consumer.telemetry.tracing import OpenTelemetryTracer
from tests.otlp_collector import Collector
from tests.processes import ROOT, environment

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector, which tracers export to."""
    for name in ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_TRACES_SAMPLER"):
        monkeypatch.delenv(name, raising=False)
    with Collector() as running:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", running.endpoint)
        yield running


def test_sampled_and_unsampled_parents_are_followed(collector: Collector) -> None:
    """A sampled one is continued with a new span id and exported. An unsampled one is passed on unchanged."""
    tracer = OpenTelemetryTracer()
    seen = tracer.start("seen", "client", SAMPLED, {"a": 1}, links=[UNSAMPLED, "x"], ago=2.0)
    unseen = tracer.start("unseen", "client", UNSAMPLED, {})
    for each in (seen, unseen):
        each.end({"b": "c"}, "ReadTimeout")
    tracer.close()
    (span,) = collector.spans
    assert span.traceparent == seen.traceparent
    assert (span.trace, span.parent, span.attributes) == (
        TRACE,
        PARENT,
        {"a": 1, "b": "c", "error.type": "ReadTimeout"},
    )
    assert span.error
    assert len(span.links) == 1
    assert 2e9 < span.end - span.begin < 4e9
    assert unseen.traceparent == UNSAMPLED


def test_a_sampler_that_ignores_parents_is_used(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may sample traces that the producer has not sampled."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_on")
    tracer = OpenTelemetryTracer()
    tracer.start("seen", "client", UNSAMPLED, {}).end({})
    tracer.close()
    assert [span.name for span in collector.spans] == ["seen"]


@pytest.mark.parametrize("parent", [None, "", "x", "00-zz-zz-01", f"00-{'0' * 32}-{'0' * 16}-01", "\r\n", "1-2-3-4-5"])
def test_a_span_without_a_valid_parent_is_a_root(collector: Collector, parent: str | None) -> None:
    """Stored rows may have been edited by SQL."""
    tracer = OpenTelemetryTracer()
    tracer.start("root", "consumer", parent, {}).end({})
    tracer.close()
    (span,) = collector.spans
    assert (span.parent, span.error, span.kind, span.service) == ("", False, "CONSUMER", "kafka-webhooks")


def test_the_standard_variables_name_the_service_and_the_sampler(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in every program with OpenTelemetry. The sampler decides about roots. A sampled parent is followed."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", "hooks")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    tracer = OpenTelemetryTracer()
    tracer.start("root", "consumer", None, {}).end({})
    tracer.start("child", "consumer", SAMPLED, {}).end({})
    tracer.close()
    assert [(span.name, span.service) for span in collector.spans] == [("child", "hooks")]


def test_a_hung_collector_does_not_block() -> None:
    """Spans beyond the queue are dropped at once. Closing takes a second, not the ten of the exporter."""
    code = (
        "import time\n"
        "from consumer.telemetry.tracing import OpenTelemetryTracer\n"
        "tracer, began = OpenTelemetryTracer(), time.monotonic()\n"
        "for _ in range(5000): tracer.start('span', 'client', None, {}).end({})\n"
        "closing = time.monotonic()\n"
        "tracer.close()\n"
        "print(closing - began, time.monotonic() - closing)"
    )
    with socket.create_server(("127.0.0.1", 0)) as hangs:
        endpoint = f"http://127.0.0.1:{hangs.getsockname()[1]}"
        command, variables = [sys.executable, "-c", code], environment({"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint})
        done = subprocess.run(command, check=True, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=200)
    spans, closing = map(float, done.stdout.split())
    assert spans < 60
    assert closing < 8
