"""Subscriptions as people see them, and their states."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from consumer.http.urls import redact_url, without_password
from consumer.subscriptions.options import Effect, OptionProblem
from consumer.subscriptions.tls import TlsSummary
from models.base import UNREADABLE

Mode = Literal["enabled", "paused", "disabled"]  # the states that people set


@dataclass(frozen=True, slots=True)
class Subscribed:
    """A subscription as shown to people: without its secrets.

    `probed`: failures have paused it, and workers probe it. `options`: the stored value of each column of OPTIONS.
    `event_types`: all of its types and patterns, of which `event_type` is the first. `secrets`: the number of its own
    signing secrets. `credentials`: the kinds of its other secrets. `tls`: its certificates, if it has any of its own.
    `problems`: its unusable or inadvisable values. `verified`: the receiver at its present URL has given permission.
    """

    id: int
    enabled: bool
    disabled_reason: str | None
    paused_at: datetime | None
    paused_reason: str | None
    probed: bool
    created_at: datetime | None
    failing_since: datetime | None
    options: Mapping[str, Any]
    event_types: tuple[str, ...]
    secrets: int
    credentials: tuple[str, ...]
    tls: TlsSummary | None
    problems: tuple[OptionProblem, ...]
    verified: bool

    @property
    def url(self) -> str:
        """The URL in a form that anyone may see."""
        return redact_url(str(self.options["url"]))

    @property
    def whole_url(self) -> str:
        """The URL with its query, without a password, for those who may change it."""
        return without_password(str(self.options["url"]))

    @property
    def event_type(self) -> str:
        """An event type or a pattern: the first one of several."""
        return str(self.options["event_type"])

    @property
    def tenant(self) -> str:
        """The tenant whose events it gets, or `*` for all."""
        return str(self.options["tenant"])

    @property
    def mode(self) -> Mode:
        """The state that people have set."""
        return mode_of(self.enabled, self.paused_at)

    @property
    def state(self) -> str:
        """Its state (enabled, disabled, paused, broken, warning, failing), with the reason."""
        more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
        kind = "broken" if self.broken else "warning"
        problem = f"{kind}: {self.problems[0]}{more}" if self.problems else ""
        failing = f"failing since {self.failing_since:%Y-%m-%dT%H:%M:%SZ}" if self.failing_since else ""
        if self.mode != "enabled":
            disabled = "" if self.enabled else _told("disabled", self.disabled_reason)
            return "; ".join(filter(None, (disabled, self.pause, problem)))
        return (problem if self.broken else failing or problem) or "enabled"

    @property
    def pause(self) -> str | None:
        """Since when it is paused, and why; None: it is not."""
        since = self.paused_at
        if since is None:
            return None
        moment = "" if since == UNREADABLE else f" since {since:%Y-%m-%dT%H:%M:%SZ}"
        return _told(f"paused{moment}{', and probed' if self.probed else ''}", self.paused_reason)

    @property
    def broken(self) -> bool:
        """Whether a value of it is unusable."""
        return any(problem.effect is not Effect.SENT for problem in self.problems)

    @property
    def warned(self) -> bool:
        """Whether a value of it is unusable or inadvisable. That it shares WEBHOOK_SECRET alone is no fault of it."""
        return any(problem.option != "secret" or problem.effect is not Effect.SENT for problem in self.problems)


def mode_of(enabled: bool, paused_at: datetime | None) -> Mode:  # noqa: FBT001 (as in the table)
    """Whether it gets events now (enabled), later (paused) or not at all (disabled, even if it is paused too)."""
    return "disabled" if not enabled else "enabled" if paused_at is None else "paused"


def is_probed(enabled: bool, paused_at: datetime | None, probed_at: datetime | None) -> bool:  # noqa: FBT001 (as in the table)
    """Whether workers probe it, as `ledger.pauses` does: failures have paused it, and it is not disabled."""
    return enabled and paused_at is not None and probed_at is not None and probed_at >= paused_at


def _told(state: str, reason: str | None) -> str:
    return f"{state}: {reason}" if reason else state
