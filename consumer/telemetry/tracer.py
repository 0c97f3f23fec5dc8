"""The protocol of a tracer. It imports no tracing library, so that tracing costs nothing while it is off."""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

Attributes = Mapping[str, str | int]
Kind = Literal["consumer", "internal", "client"]

SAMPLED = "13579bdf"  # the last digit of a `traceparent` whose sampled flag is set


class TraceSpan(Protocol):
    """A unit of work that is traced. `traceparent` makes it the parent of other spans (W3C Trace Context)."""

    @property
    def traceparent(self) -> str:
        """The value of a `traceparent` header."""

    def end(self, attributes: Attributes, error: str | None = None) -> None:
        """The work has ended. `error` is its `error.type`: a class of errors, never a message."""


class Tracer(Protocol):
    """Starts spans. It never blocks and never raises: spans that cannot be exported are dropped."""

    def unsampled(self, parent: str | None) -> str | None:
        """The `traceparent` to send if no span is to be recorded under `parent`, so that none need be started.

        None: start one. If it is a root, do so before the next call, because this one has decided on it.
        """

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
