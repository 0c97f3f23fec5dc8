"""The data of the pages, and the views of it that several pages share."""

import re
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import quote

from consumer.api.tokens import Caller, TokenFile
from consumer.config.settings import KafkaSettings
from consumer.console.app import Refusal
from consumer.console.charts import Bar
from consumer.console.rendering import State, iso, percent
from consumer.events.attempt import DELIVERED, Attempt
from consumer.events.event import Event
from consumer.http.urls import redact_url
from consumer.ledger.admin import StoredDelivery
from consumer.ops.attempts import AttemptHistory
from consumer.ops.changes import Registry
from consumer.ops.ping import Ping
from consumer.ops.recent_attempts import Minute, Tried
from consumer.ops.replay_request import NO_KAFKA, Log
from consumer.ops.verification import Ask
from consumer.subscriptions import repository
from consumer.subscriptions.endpoint import Endpoint
from consumer.subscriptions.repository import Subscribed

LATELY = 10  # minutes whose attempts determine a subscription's state
SOME, HALF = 0.05, 0.5  # shares of failed attempts from which a subscription's state is a warning, or bad
_WHOLE = re.compile(r"[0-9]{1,18}")  # below 2^63, the limit of every database
_OF_STATUS = {"parked": "warn", "held": "warn", "exhausted": "bad", "delivered": "good"}


class Sources(NamedTuple):
    """The parts that the pages read and change.

    `kafka` None: this process has no settings for Kafka. `history` None: there is no attempts topic. `refusal` judges a
    new URL; it may wait for a name server. `ping` sends a test event; None: there is no WEBHOOK_SECRET to sign it with.
    `clock` gives unix seconds. `log` is the log that replays read; None: this process has no settings for Kafka. `ask`
    makes a validation request; None: there is no WEBHOOK_ORIGIN, or no WEBHOOK_SECRET. `tokens` seal positions.
    """

    registry: Registry
    kafka: KafkaSettings | None
    history: AttemptHistory | None
    refusal: Callable[[str], str | None]
    ping: Callable[[Endpoint, Event], Ping] | None
    clock: Callable[[], float]
    log: Log | None = None
    ask: Ask | None = None
    tokens: TokenFile = TokenFile(None)


class DeliveryRow(NamedTuple):
    """A stored delivery in a table."""

    id: int
    event_type: str
    place: str
    subscription_id: int
    url: str
    state: State
    attempts: int
    next_at: float | None
    error: str | None


class AttemptRow(NamedTuple):
    """An attempt in a table."""

    at: float
    state: State
    subscription_id: int
    event_type: str
    event_path: str
    webhook_id: str
    attempt: int
    took: float
    status: str
    error: str | None
    response: str | None


def kafka_of(sources: Sources) -> KafkaSettings:
    """The settings of Kafka. Raises Refusal if this process has none."""
    if sources.kafka is None:
        raise Refusal(HTTPStatus.NOT_FOUND, "Set KAFKA_BOOTSTRAP_SERVERS for this process, as workers have it.")
    return sources.kafka


def log_of(sources: Sources) -> Log:
    """The log of this service's topics. Raises Refusal if this process has no settings for Kafka."""
    if sources.log is None:
        raise Refusal(HTTPStatus.CONFLICT, f"{NO_KAFKA[0].upper()}{NO_KAFKA[1:]}.")
    return sources.log


def visible(sources: Sources, caller: Caller, subscription_id: int) -> Subscribed:
    """The subscription. Raises the same Refusal for a missing one and for one that the caller may not see."""
    registry = sources.registry
    found = repository.get(registry.engine, subscription_id, registry.vault, registry.rules)
    if found is None or caller.tenant not in {None, found.tenant}:
        raise Refusal(HTTPStatus.NOT_FOUND, f"There is no subscription {subscription_id}.")
    return found


def for_all_tenants(caller: Caller) -> None:
    """Raise Refusal for a caller who may see one tenant only."""
    if caller.tenant is not None:
        raise Refusal(HTTPStatus.FORBIDDEN, "This page covers all tenants; your token is for one.")


def state_of(item: Subscribed, tried: Tried | None = None) -> State:
    """A subscription's state in one word; `tried` are its attempts of the last minutes."""
    if not item.enabled:
        return State("disabled", "warn")
    if item.broken:
        return State("broken", "bad")
    if item.failing_since is not None:
        return State("failing", "bad")
    if tried is not None and share_failed(tried) >= SOME:
        return state_of_attempts(tried)
    return State("warning", "warn") if item.problems else State("well", "good")


def state_of_attempts(tried: Tried) -> State:
    """The share of these attempts that failed, as a state."""
    return State(f"{percent(share_failed(tried))} fail", "bad" if share_failed(tried) >= HALF else "warn")


def share_failed(tried: Tried) -> float:
    """The share of these attempts that failed; 0 if there were none."""
    return tried.failed / max(1, tried.ok + tried.failed)


def tried_lately(minutes: Sequence[Minute], subscription_id: int) -> Tried:
    """A subscription's attempts of the last minutes, from its summary."""
    last = minutes[-LATELY:]
    return Tried(subscription_id, sum(each.ok for each in last), sum(each.failed for each in last))


def reason_of(item: Subscribed) -> str | None:
    """The reason for a subscription's bad state, in a sentence; its problems have lines of their own."""
    if not item.enabled:
        return item.disabled_reason or "It was disabled. Its stored deliveries are held until it is enabled."
    if item.failing_since is not None:
        return f"No attempt has succeeded since {iso(item.failing_since.timestamp())}."
    return None


def whole(text: str) -> int | None:
    """The whole number that a field or a query holds; None for other text, and for numbers that none can have."""
    return int(text) if _WHOLE.fullmatch(text) else None


def stored_state(status: str) -> State:
    """The state of a stored delivery."""
    return State(status, _OF_STATUS.get(status, ""))


def row_of(item: StoredDelivery) -> DeliveryRow:
    """A stored delivery for a table."""
    topic, partition, offset, _ = item.record
    return DeliveryRow(
        item.id,
        item.event_type,
        f"{topic}[{partition}] @ {offset}",
        item.subscription_id,
        redact_url(item.url),
        stored_state(item.status),
        item.attempt,
        item.next_attempt_at if item.status == "parked" else None,
        item.last.error if item.last else None,
    )


def event_path(topic: str, partition: int, offset: int) -> str:
    """The path of an event's page below the console."""
    return f"/events/{quote(topic, safe='')}/{partition}/{offset}"


def attempt_row(item: Attempt) -> AttemptRow:
    """An attempt for a table."""
    kind = "good" if item.outcome == DELIVERED else "bad" if item.outcome == "exhausted" else "warn"
    status = "no answer" if item.status is None else f"status {item.status}"
    return AttemptRow(
        item.at,
        State(item.outcome, kind),
        item.subscription_id,
        item.event_type,
        event_path(item.topic, item.partition, item.offset),
        item.webhook_id,
        item.attempt,
        item.seconds,
        status,
        item.error,
        item.response,
    )


def by_minute(minutes: Sequence[Minute]) -> list[Bar]:
    """The columns of a chart of an hour."""
    return [Bar(each.ok, each.failed, iso(each.at)) for each in minutes]
