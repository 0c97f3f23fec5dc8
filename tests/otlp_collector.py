"""An OpenTelemetry collector for tests: it accepts OTLP over HTTP and keeps the spans."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import NamedTuple, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtoSpan


class Span(NamedTuple):
    """An exported span; times are nanoseconds since 1970."""

    name: str
    kind: str
    trace: str
    id: str
    parent: str
    links: tuple[str, ...]
    attributes: dict[str, str | int]
    error: bool
    begin: int
    end: int
    service: str

    @property
    def traceparent(self) -> str:
        """The traceparent that a receiver sees for this span, sampled."""
        return f"00-{self.trace}-{self.id}-01"


class Collector:
    """Listens on a port of its own until the context ends. `spans` are in the order of their export."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.bodies = b""
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.take(body)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="collector")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def take(self, body: bytes) -> None:
        """Keep the spans of a request."""
        self.bodies += body
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = _attributes(resource.resource.attributes)["service.name"]
            for scope in resource.scope_spans:
                self.spans += [_span(span, str(service)) for span in scope.spans]

    def named(self, start: str) -> list[Span]:
        """The spans whose names begin with `name`, in the order of their start."""
        return sorted((span for span in list(self.spans) if span.name.startswith(start)), key=lambda span: span.begin)


def _span(span: ProtoSpan, service: str) -> Span:
    return Span(
        span.name,
        ProtoSpan.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        tuple(f"00-{link.trace_id.hex()}-{link.span_id.hex()}-01" for link in span.links),
        _attributes(span.attributes),
        span.status.code == span.status.STATUS_CODE_ERROR,
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        service,
    )


def _attributes(pairs: object) -> dict[str, str | int]:
    return {pair.key: _value(pair.value) for pair in pairs}  # type: ignore[attr-defined]  # a container of protobuf


def _value(value: AnyValue) -> str | int:
    return value.int_value if value.HasField("int_value") else value.string_value
