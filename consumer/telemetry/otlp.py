"""Spans as OTLP. The exporter's own encoder takes several times as long, and holds the loop meanwhile."""

from collections.abc import Sequence
from functools import lru_cache
from time import sleep

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http import trace_exporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span, SpanFlags, Status
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import INVALID_SPAN_CONTEXT

AT_ONCE = 64  # spans; then the exporter's thread lets the loop run
_REMOTE = SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
_PARENT_IS_REMOTE = _REMOTE | SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK


class KeptSpan(ReadableSpan):
    """A span of ours that has ended. Its attributes are strings and integers; it has no links and no events."""


def exporter_with_quick_encoder() -> SpanExporter:
    """OTLP over HTTP, as OTEL_EXPORTER_OTLP_* say. If it does not look its encoder up by this name, it uses its own."""
    vars(trace_exporter)["encode_spans"] = encoded
    return trace_exporter.OTLPSpanExporter()


def encoded(spans: Sequence[ReadableSpan]) -> ExportTraceServiceRequest:
    """The request that carries these spans, which are of one tracer. The SDK encodes those that it has made."""
    request = encode_spans([span for span in spans if not isinstance(span, KeptSpan)])
    kept = [span for span in spans if isinstance(span, KeptSpan)]
    if kept:
        of_resource = _around(kept[0].resource, kept[0].instrumentation_scope)
        found = of_resource.scope_spans[0].spans
        for number, span in enumerate(kept, 1):
            found.append(_span(span))
            if not number % AT_ONCE:
                sleep(0)  # gives the interpreter's lock away
        request.resource_spans.append(of_resource)
    return request


def _span(span: KeptSpan) -> Span:
    own, parent = span.context, span.parent
    return Span(
        trace_id=own.trace_id.to_bytes(16, "big"),
        span_id=own.span_id.to_bytes(8, "big"),
        parent_span_id=b"" if parent is None else parent.span_id.to_bytes(8, "big"),
        flags=_REMOTE if parent is None else _PARENT_IS_REMOTE,
        name=span.name,
        kind=span.kind.value + 1,  # type: ignore[arg-type]  # OTLP counts from 1, as the SDK's encoder says
        start_time_unix_nano=span.start_time or 0,
        end_time_unix_nano=span.end_time or 0,
        attributes=[_attribute(name, value) for name, value in (span.attributes or {}).items()],
        status=Status(code=Status.STATUS_CODE_UNSET if span.status.is_unset else Status.STATUS_CODE_ERROR),
    )


@lru_cache(4096)  # most attributes are those of one topic or subscription
def _attribute(name: str, value: str | int) -> KeyValue:
    typed = AnyValue(string_value=value) if isinstance(value, str) else AnyValue(int_value=value)
    return KeyValue(key=name, value=typed)


def _around(resource: Resource, scope: InstrumentationScope | None) -> ResourceSpans:
    """The message for spans of this resource and scope, without a span."""
    span = ReadableSpan("", INVALID_SPAN_CONTEXT, resource=resource, instrumentation_scope=scope)
    of_resource: ResourceSpans = encode_spans([span]).resource_spans[0]
    del of_resource.scope_spans[0].spans[:]
    return of_resource
