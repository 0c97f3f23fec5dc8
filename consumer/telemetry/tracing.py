"""The tracer of OpenTelemetry. Needs the extra `otel`; only `worker/service.py` imports it, when tracing is on.

The SDK reads its own variables (OTEL_*) from the process's environment: the endpoint, headers, sampler, limits and
resource. Spans are exported by a thread of its own, in batches. If its queue is full, spans are dropped.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from random import getrandbits
from threading import Thread
from time import time_ns
from types import MappingProxyType

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Sampler, TraceIdRatioBased
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
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
from consumer.telemetry.otlp import KeptSpan, exporter_with_quick_encoder
from consumer.telemetry.tracer import SAMPLED, Attributes, Kind, TraceSpan

FLUSH = 1.0  # seconds for the last spans; a stopping worker has few to spare
_KINDS: Mapping[Kind, SpanKind] = MappingProxyType(
    {"consumer": SpanKind.CONSUMER, "internal": SpanKind.INTERNAL, "client": SpanKind.CLIENT}
)
_ROOT = Context()
_SUCCEEDED, _FAILED = Status(StatusCode.UNSET), Status(StatusCode.ERROR)
_MOST_ATTRIBUTES = 16  # of a span of ours
_LENGTH = 55  # of a valid `traceparent`
_RANDOM = 2 if hasattr(RandomIdGenerator, "is_trace_id_random") else 0  # the flag of random trace ids (SDK 1.41)
_ROOT_FLAGS = f"-0{_RANDOM}"
_VALID = re.compile(r"[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}").fullmatch
_FOLLOWS_PARENTS = re.compile(
    r"ParentBased\{root:(.*),remoteParentSampled:AlwaysOnSampler,remoteParentNotSampled:AlwaysOffSampler,"
    r"localParentSampled:AlwaysOnSampler,localParentNotSampled:AlwaysOffSampler\}"
).fullmatch
_RATIO = re.compile(r"TraceIdRatioBased\{(.*)\}|(AlwaysOn|AlwaysOff)Sampler").fullmatch


class OpenTelemetrySpan:
    """A `TraceSpan` of OpenTelemetry."""

    __slots__ = ("_span", "traceparent")

    def __init__(self, span: Span) -> None:
        self._span = span
        self.traceparent = _traceparent(span.get_span_context())

    def end(self, attributes: Attributes, error: str | None = None) -> None:
        """End the span."""
        span = self._span
        if span.is_recording():
            span.set_attributes(attributes)
            if error is not None:
                span.set_attribute("error.type", error)
                span.set_status(_FAILED)
        span.end()


class _Recorded:
    """A `TraceSpan` that is put together when it ends: it takes a fifth of the time of the SDK's own."""

    __slots__ = ("_begun", "_tracer", "traceparent")

    def __init__(
        self,
        tracer: "OpenTelemetryTracer",
        begun: tuple[str, SpanKind, SpanContext, SpanContext | None, Attributes, int],
    ) -> None:
        self._tracer = tracer
        self._begun = begun
        self.traceparent = _traceparent(begun[2])

    def end(self, attributes: Attributes, error: str | None = None) -> None:
        """Hand the span to the exporter's queue."""
        name, kind, context, parent, first, start = self._begun
        more = attributes if error is None else {**attributes, "error.type": error}
        self._tracer.keep(
            KeptSpan(
                name,
                context,
                parent,
                self._tracer.resource,
                {**first, **more},
                kind=kind,
                status=_SUCCEEDED if error is None else _FAILED,
                start_time=start,
                end_time=time_ns(),
                instrumentation_scope=self._tracer.scope,
            )
        )


class _Unsampled:
    """A `TraceSpan` that is not recorded: it costs next to nothing."""

    __slots__ = ("traceparent",)

    def __init__(self, traceparent: str) -> None:
        self.traceparent = traceparent

    def end(self, attributes: Attributes, error: str | None = None) -> None:
        """Nothing is recorded."""


class _Ids(RandomIdGenerator):
    """Gives the SDK the trace id of a root that the tracer has decided on."""

    root: int | None = None

    def generate_trace_id(self) -> int:
        root, self.root = self.root, None
        return super().generate_trace_id() if root is None else root


class OpenTelemetryTracer:
    """A `Tracer` of OpenTelemetry. It decides on samples by itself, before there is a span, as the SDK would."""

    def __init__(self, exporter: SpanExporter | None = None, sampler: Sampler | None = None) -> None:
        """`exporter`: OTLP over HTTP by default, as OTEL_EXPORTER_OTLP_* say; `sampler`: as OTEL_TRACES_* say."""
        resource = Resource.create({"service.version": __version__})
        if str(resource.attributes["service.name"]).startswith("unknown_service"):  # the SDK's default
            resource = resource.merge(Resource({"service.name": "kafka-webhooks"}))
        self.resource, self.scope = resource, InstrumentationScope("kafka-webhooks", __version__)
        self._ids = _Ids()
        self._provider = TracerProvider(sampler, resource, shutdown_on_exit=False, id_generator=self._ids)
        processor = BatchSpanProcessor(exporter or exporter_with_quick_encoder())
        self.keep = processor.on_end
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("kafka-webhooks", __version__)
        self._follows_parents, self._below = _rule(self._provider.sampler)
        limits = SpanLimits()
        most, longest = limits.max_span_attributes, limits.max_span_attribute_length
        self._is_limited = longest is not None or (most is not None and most < _MOST_ATTRIBUTES)

    def unsampled(self, parent: str | None) -> str | None:
        """See `Tracer`. It asks no sampler: those of the SDK are arithmetic. None if `start` is to ask another one."""
        if parent is not None and self._follows_parents and len(parent) == _LENGTH:
            return None if parent[-1] in SAMPLED else parent  # it was valid when its record was read
        if self._below is None:
            return None
        if parent is None or _context(parent) is None:
            drawn = (getrandbits(192) | 1).to_bytes(24, "big").hex("-", -16)  # both ids; that of a span is never 0
            if drawn[16:32] < self._below:
                self._ids.root = int(drawn[:32], 16)
                return None
            return "00-" + drawn + _ROOT_FLAGS
        if parent[19:35] < self._below:
            return None
        return f"{parent[:36]}{getrandbits(64) | 1:016x}-0{int(parent[-1], 16) & _RANDOM}"

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
        if context is None:
            parent = None
        if (parent or self._ids.root is None) and (passed := self.unsampled(parent)) is not None:
            return _Unsampled(passed)
        start = time_ns() - int(ago * 1e9)
        if self._below is None or self._is_limited or links:
            span = self._tracer.start_span(
                name,
                _ROOT if context is None else set_span_in_context(NonRecordingSpan(context), _ROOT),
                _KINDS[kind],
                attributes,
                [Link(linked) for link in links if (linked := _context(link)) is not None],
                start,
            )
            return OpenTelemetrySpan(span)
        trace_id = self._ids.generate_trace_id() if context is None else context.trace_id
        flags = TraceFlags(_RANDOM & (_RANDOM if context is None else context.trace_flags) | TraceFlags.SAMPLED)
        own = SpanContext(trace_id, self._ids.generate_span_id(), is_remote=False, trace_flags=flags)
        return _Recorded(self, (name, _KINDS[kind], own, context, attributes, start))

    def close(self) -> None:
        """Export ended spans. The SDK would wait for half a minute: after a second, the remaining spans are lost."""
        closing = Thread(target=self._provider.shutdown, name="traces-closing", daemon=True)
        closing.start()
        closing.join(FLUSH)


def _rule(sampler: Sampler) -> tuple[bool, str | None]:
    """Whether a sampler follows parents, and below which text it samples the last 16 digits of other trace ids.

    It is known by its description, which the specification defines. None: it is another one.
    """
    description = sampler.get_description()
    follows = _FOLLOWS_PARENTS(description)
    found = _RATIO(description if follows is None else follows[1])
    if found is None:
        return follows is not None, None
    bound = TraceIdRatioBased(float(found[1] or found[2] == "AlwaysOn")).bound
    return follows is not None, "g" if bound >> 64 else f"{bound:016x}"  # each hexadecimal digit is below "g"


def _traceparent(context: SpanContext) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


@lru_cache(1024)  # a fan-out starts many spans with the same parent
def _context(traceparent: str) -> SpanContext | None:
    """The span that a `traceparent` names. None: it has another form, as a row edited by hand may have."""
    if _VALID(traceparent) is None:
        return None
    _, trace_id, span_id, flags = traceparent.split("-")
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))
