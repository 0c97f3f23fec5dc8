"""The protocol of a tracer. It imports no tracing library, so that tracing costs nothing while it is off."""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

Attributes = Mapping[str, str | int]
Kind = Literal["consumer", "internal", "client"]


class TraceSpan(Protocol):
    """A unit of work that is traced. `traceparent` makes it the parent of other spans (W3C Trace Context)."""

    @property
    def traceparent(self) -> str:
        """The value of a `traceparent` header."""

    def end(self, attributes: Attributes, error: str | None = None) -> None:
        """The work has ended. `error` is its `error.type`: a class of errors, never a message."""


class Tracer(Protocol):
    """Starts spans. It never blocks and never raises: spans that cannot be exported are dropped."""

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
        """Start a span, as of `ago` seconds. `parent` and `links` are `traceparent` values; no `parent`: a root."""

    def close(self) -> None:
        """Export ended spans, for a second at most."""
