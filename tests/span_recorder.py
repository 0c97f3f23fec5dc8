"""A tracer for tests that keeps its spans."""

from collections.abc import Sequence

from consumer.telemetry.tracer import Attributes, Kind


class RecordedSpan:
    """A span. `ended` counts the calls of `end`."""

    def __init__(
        self, number: int, name: str, kind: Kind, parent: str | None, links: Sequence[str], ago: float
    ) -> None:
        self.traceparent = f"00-{'a' * 32}-{number:016x}-01"
        self.name, self.kind, self.parent, self.links, self.ago = name, kind, parent, list(links), ago
        self.attributes: dict[str, str | int] = {}
        self.error: str | None = None
        self.ended = 0

    def end(self, attributes: Attributes, error: str | None = None) -> None:
        """Record the end."""
        self.attributes |= attributes
        self.error = error
        self.ended += 1


class SpanRecorder:
    """`spans` are in the order of their start. Everything is sampled, unless there is a `traceparent` that `passes`."""

    def __init__(self) -> None:
        self.spans: list[RecordedSpan] = []
        self.passes: str | None = None

    def unsampled(self, _parent: str | None) -> str | None:
        """Whether this one passes."""
        return self.passes

    def start(
        self,
        name: str,
        kind: Kind,
        parent: str | None,
        attributes: Attributes,
        *,
        links: Sequence[str] = (),
        ago: float = 0.0,
    ) -> RecordedSpan:
        """Start a span."""
        span = RecordedSpan(len(self.spans) + 1, name, kind, parent, links, ago)
        span.attributes |= attributes
        self.spans.append(span)
        return span

    def close(self) -> None:
        """There is nothing to export."""
