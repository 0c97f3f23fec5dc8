"""The tracer decides on samples as the SDK does, and encodes spans as it does; what is not sampled costs no span."""

from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    DEFAULT_OFF,
    DEFAULT_ON,
    Decision,
    ParentBased,
    ParentBasedTraceIdRatio,
    Sampler,
    SamplingResult,
    StaticSampler,
    TraceIdRatioBased,
)
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from consumer.telemetry import tracing
from consumer.telemetry.otlp import encoded
from consumer.telemetry.tracing import OpenTelemetryTracer

SAMPLED = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
RATIOS = (0.0, 0.01, 1 / 3, 1.0)
SAMPLERS: Sequence[Sampler] = (
    *(ALWAYS_ON, ALWAYS_OFF, DEFAULT_ON, DEFAULT_OFF),
    *map(TraceIdRatioBased, RATIOS),
    *map(ParentBasedTraceIdRatio, RATIOS),
)
CONTEXTS = st.builds(
    SpanContext,
    st.integers(1, 2**128 - 1) | st.integers(1, 2**64 - 1),
    st.integers(1, 2**64 - 1),
    st.just(value=True),
    st.integers(0, 255).map(TraceFlags),
)
BELOW, AT = (SpanContext(round(0.01 * 2**64) - below, 1, is_remote=True, trace_flags=TraceFlags(1)) for below in (1, 0))
VALUES = st.text(st.characters(codec="utf-8"), max_size=300) | st.integers(-(2**63), 2**63 - 1)
ATTRIBUTES = st.dictionaries(st.text(st.characters(codec="utf-8"), min_size=1), VALUES, max_size=5)


class Kept(SpanExporter):
    """Keeps the spans."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.spans += spans
        return SpanExportResult.SUCCESS


def text(context: SpanContext) -> str:
    """Its `traceparent`."""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def parts(traceparent: str) -> tuple[int, int, int]:
    """Trace id, span id and flags."""
    _, trace, span, flags = traceparent.split("-")
    assert list(map(len, (trace, span, flags))) == [32, 16, 2]
    return int(trace, 16), int(span, 16), int(flags, 16)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=Sampler.get_description)
def test_decisions_and_flags_are_those_of_the_sdk(sampler: Sampler) -> None:
    """With each of its samplers, for any parent and for roots. An unsampled parent that is followed is passed on."""
    tracer, sdk = OpenTelemetryTracer(Kept(), sampler), TracerProvider(sampler).get_tracer("sdk")

    @given(CONTEXTS)
    @example(BELOW)
    @example(AT)
    def under(parent: SpanContext) -> None:
        context = set_span_in_context(NonRecordingSpan(parent), Context())
        expected = sdk.start_span("x", context).get_span_context()
        passed = tracer.unsampled(text(parent))
        assert (passed is None) == expected.trace_flags.sampled
        if passed is not None and isinstance(sampler, ParentBased):
            assert passed == text(parent)
        else:
            started = tracer.start("x", "client", text(parent), {}).traceparent
            for found in (passed or started, started):
                trace, span, flags = parts(found)
                assert (trace, flags) == (expected.trace_id, expected.trace_flags)
                assert span not in {0, parent.span_id}

    under()
    flags = sdk.start_span("x", Context()).get_span_context().trace_flags & ~1
    for _ in range(300):
        passed = tracer.unsampled(None)
        found = parts(passed or tracer.start("x", "consumer", None, {}).traceparent)
        sampled = sampler.should_sample(None, found[0], "x").decision is Decision.RECORD_AND_SAMPLE
        assert (passed is None, found[2]) == (sampled, flags | sampled)
    tracer.close()


def test_unsampled_deliveries_build_no_span(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the SDK nor the tracer starts one, and no sampler is asked."""
    tracer, built = OpenTelemetryTracer(Kept(), ParentBasedTraceIdRatio(0.01)), list[object]()
    monkeypatch.setattr(tracer._tracer, "start_span", lambda *_, **__: built.append("SDK"))
    monkeypatch.setattr(tracing, "SpanContext", lambda *_, **__: built.append("context"))
    monkeypatch.setattr(TraceIdRatioBased, "should_sample", lambda *_: built.append("sampler"))
    passed = [found for _ in range(1000) if (found := tracer.unsampled(None)) is not None]
    assert len(passed) > 900
    assert [tracer.unsampled(each) for each in passed] == passed
    assert not built
    tracer.close()


def test_another_sampler_is_asked() -> None:
    """With all that samplers are told; its roots are sampled once, not by two decisions."""
    asked = []

    class Own(StaticSampler):
        def should_sample(self, *told: object, **_: object) -> SamplingResult:
            asked.append(told[2])
            return SamplingResult(Decision.RECORD_AND_SAMPLE)

        def get_description(self) -> str:
            return "Own"

    exporter = Kept()
    tracer = OpenTelemetryTracer(exporter, Own(Decision.DROP))
    for parent in (None, SAMPLED, SAMPLED[:-1] + "0"):
        assert tracer.unsampled(parent) is None
        tracer.start("x", "client", parent, {"a": 1}).end({})
    tracer.close()
    assert (asked, len(exporter.spans)) == (["x"] * 3, 3)


def test_limits_of_spans_apply(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK then makes the sampled ones, roots with the trace id that was decided on."""
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "3")
    exporter, sampler = Kept(), ParentBasedTraceIdRatio(0.2)
    tracer = OpenTelemetryTracer(exporter, sampler)
    spans = [tracer.start("x", "client", None, {"a": "abcd"}) for _ in range(200) if tracer.unsampled(None) is None]
    for span in spans:
        span.end({})
    tracer.close()
    assert len(exporter.spans) == len(spans) > 5
    assert [each.attributes for each in exporter.spans] == [{"a": "abc"}] * len(spans)


@given(
    st.lists(
        st.tuples(st.none() | CONTEXTS, ATTRIBUTES, st.text(max_size=9), st.none() | st.just("503"), st.booleans())
    )
)
def test_spans_are_encoded_as_by_the_sdk(
    found: list[tuple[SpanContext | None, dict[str, str | int], str, str | None, bool]],
) -> None:
    """Also with spans of the SDK among them, as those with links are."""
    exporter = Kept()
    tracer = OpenTelemetryTracer(exporter, ALWAYS_ON)
    for parent, attributes, name, error, links in found:
        above = None if parent is None else text(parent)
        span = tracer.start(name, "client", above, attributes, links=[SAMPLED] if links else (), ago=1.0)
        span.end({"end": len(name)}, error)
    tracer.close()
    ours = sorted(exporter.spans, key=lambda span: type(span).__name__, reverse=True)  # the SDK's come first
    request, expected = encoded(ours), encode_spans(ours)
    spans = [each for resource in request.resource_spans for scope in resource.scope_spans for each in scope.spans]
    assert spans == [
        each for resource in expected.resource_spans for scope in resource.scope_spans for each in scope.spans
    ]
    assert all(each.resource == expected.resource_spans[0].resource for each in request.resource_spans)
