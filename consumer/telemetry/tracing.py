"""The tracer of OpenTelemetry. Needs the extra `otel`; only `worker/service.py` imports it, when tracing is on.

The SDK reads its own variables (OTEL_*) from the process's environment: the endpoint, headers, sampler, limits and
resource. Spans are exported by a thread of its own, in batches. If its queue is full, spans are dropped.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from threading import Thread
from time import time_ns
from types import MappingProxyType

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from consumer import __version__
from consumer.telemetry.tracer import Attributes, Kind, TraceSpan

FLUSH = 1.0  # seconds for the last spans; a stopping worker has few to spare
_KINDS: Mapping[Kind, SpanKind] = MappingProxyType(
    {"consumer": SpanKind.CONSUMER, "internal": SpanKind.INTERNAL, "client": SpanKind.CLIENT}
)
_ROOT = Context()
_FAILED = Status(StatusCode.ERROR)


class OpenTelemetrySpan:
    """A `TraceSpan` of OpenTelemetry."""

    __slots__ = ("_span", "traceparent")

    def __init__(self, span: Span) -> None:
        self._span = span
        context = span.get_span_context()
        self.traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    def end(self, attributes: Attributes, error: str | None = None) -> None:
        """End the span."""
        span = self._span
        if span.is_recording():
            span.set_attributes(attributes)
            if error is not None:
                span.set_attribute("error.type", error)
                span.set_status(_FAILED)
        span.end()


class _Unsampled:
    """A `TraceSpan` of a trace that its parent has not sampled: it stands for the parent, and costs next to nothing."""

    __slots__ = ("traceparent",)

    def __init__(self, traceparent: str) -> None:
        self.traceparent = traceparent

    def end(self, attributes: Attributes, error: str | None = None) -> None:
        """Nothing is recorded."""


class OpenTelemetryTracer:
    """A `Tracer` of OpenTelemetry."""

    def __init__(self, exporter: SpanExporter | None = None) -> None:
        """`exporter`: OTLP over HTTP by default, as OTEL_EXPORTER_OTLP_* say."""
        resource = Resource.create({"service.version": __version__})
        if str(resource.attributes["service.name"]).startswith("unknown_service"):  # the SDK's default
            resource = resource.merge(Resource({"service.name": "kafka-webhooks"}))
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("kafka-webhooks", __version__)
        self._follows_parents = isinstance(self._provider.sampler, ParentBased)  # the default, and parentbased_*

    def start(
        self,
        name: str,
        kind: Kind,
        parent: str | None,
        attributes: Attributes,
        *,
        links: Sequence[str] = (),
        ago: float = 0.0,
    ) -> TraceSpan:
        """Start a span; the sampler decides whether it is recorded."""
        context = None if parent is None else _context(parent)
        if parent is not None and context is not None and self._follows_parents and not context.trace_flags.sampled:
            return _Unsampled(parent)
        span = self._tracer.start_span(
            name,
            _ROOT if context is None else set_span_in_context(NonRecordingSpan(context), _ROOT),
            _KINDS[kind],
            attributes,
            [Link(linked) for link in links if (linked := _context(link)) is not None],
            time_ns() - int(ago * 1e9) if ago else None,
        )
        return OpenTelemetrySpan(span)

    def close(self) -> None:
        """Export ended spans. The SDK would wait for half a minute: after a second, the remaining spans are lost."""
        closing = Thread(target=self._provider.shutdown, name="traces-closing", daemon=True)
        closing.start()
        closing.join(FLUSH)


@lru_cache(1024)  # a fan-out starts many spans with the same parent
def _context(traceparent: str) -> SpanContext | None:
    """The span that a `traceparent` names. None: it has another form, as a row edited by hand may have."""
    try:
        _, trace_id, span_id, flags = traceparent.split("-")
        return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))
    except ValueError:
        return None
