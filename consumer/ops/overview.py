"""The overview for an operator after an alert: deliveries owed, failing subscriptions, and the group's lag."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Engine

from consumer.config.settings import KafkaSettings
from consumer.crypto.vault import Vault
from consumer.errors import WebhooksError
from consumer.events.event import utc
from consumer.http.urls import without_addresses
from consumer.ledger import search
from consumer.ledger.rows import OPEN, AttemptFailure
from consumer.ops import dead_letters
from consumer.ops.bounded import begin, reason_of
from consumer.ops.changes import Deployment
from consumer.ops.cluster import Lag, group_lag
from consumer.subscriptions import health
from consumer.subscriptions.endpoint_row import Rules
from consumer.subscriptions.health import (
    EXPIRES_SOON,
    ExpiringBacklog,
    FailingSubscription,
    ListedSubscription,
    ProblematicSubscriptions,
)

T = TypeVar("T")

MOST_COUNTED = 10_000  # deliveries of a state or of a subscription; beyond, a count only says that there are more
LISTED = 20  # subscriptions of each kind
LOOKED_AT = 128  # subscriptions that are examined for problems: 10 ms
FRESH = 2.0  # seconds for which an overview is shared
SECONDS = 5.0  # for all parts together, which run at once

_PARTS = {  # for people
    "states": "the numbers of stored deliveries",
    "loaded": "the subscriptions with waiting deliveries",
    "failing": "the failing subscriptions",
    "disabled": "the disabled subscriptions",
    "paused": "the paused subscriptions",
    "expiring": "the events that Kafka soon removes",
    "problematic": "the subscriptions with problems",
    "lag": "the lag",
    "dead_letters": "the dead letters",
}
_TOGETHER = ("failing", "loaded", "disabled", "paused")  # parts that are read as one


class FailingReceiver(NamedTuple):
    """A failing subscription, its latest stored failure, and the number of its open deliveries."""

    subscription: FailingSubscription
    last: AttemptFailure | None
    waiting: int


class LoadedReceiver(NamedTuple):
    """A subscription with open deliveries, their number, and its latest stored failure.

    `subscription` None: it was removed.
    """

    subscription_id: int
    waiting: int
    subscription: ListedSubscription | None
    last: AttemptFailure | None


class Missing(NamedTuple):
    """A part of the overview that is not available, and why."""

    part: str
    reason: str


@dataclass(frozen=True, slots=True)
class Overview:
    """The overview at `at` (unix seconds). A part that is not available is None, and named in `missing`.

    A count above `most_counted` means that there are more. Lists have at most LISTED members.
    """

    at: float
    most_counted: int
    states: Mapping[str, int] | None
    loaded: Sequence[LoadedReceiver] | None
    failing: Sequence[FailingReceiver] | None
    disabled: Sequence[ListedSubscription] | None
    paused: Sequence[ListedSubscription] | None
    expiring: Sequence[ExpiringBacklog] | None
    problematic: ProblematicSubscriptions | None
    lag: Sequence[Lag] | None
    dead_letters: int | None  # written in the last hour
    missing: tuple[Missing, ...]

    @property
    def faults(self) -> list[Missing]:
        """`missing` for people: parts that are missing for the same reason are one."""
        parts: dict[str, list[str]] = {}
        for part, reason in self.missing:
            parts.setdefault(reason, []).append(_PARTS[part])
        return [Missing(" and ".join(names), reason) for reason, names in parts.items()]


def overview(
    engine: Engine,
    kafka: KafkaSettings | None,
    topics: Sequence[str],
    vault: Vault | None = None,
    rules: Rules = Rules(),  # noqa: B008 (immutable)
    *,
    seconds: float = SECONDS,
    clock: Callable[[], float] = time.time,
) -> Overview:
    """Gather all parts in at most `seconds`. A part that fails or takes longer is missing.

    Parts of the database come one after the other: in threads of their own, they need half as much CPU again.

    A part that takes longer keeps its thread and connection until its own time limit; begin no new overview before
    this one has returned.
    """
    stored: dict[str, Callable[[], Any]] = {
        "states": partial(search.by_state, engine, MOST_COUNTED),
        "failing": partial(_receivers, engine),
        "expiring": lambda: health.expiring(engine, utc(clock() + EXPIRES_SOON), LISTED),
        "problematic": partial(_problematic, engine, vault, rules, clock),
    }
    in_kafka: dict[str, Callable[[], Any]] = {
        "lag": lambda: group_lag(_known(kafka, topics), topics),
        "dead_letters": lambda: dead_letters.written(_known(kafka, topics), clock() - dead_letters.HOUR),
    }
    asked = {name: begin(job)[0] for name, job in in_kafka.items()}
    answers = dict(zip(stored, begin(*stored.values()), strict=True)) | asked
    end = time.monotonic() + seconds
    found: dict[str, Any] = dict.fromkeys(_PARTS)
    missing: list[Missing] = []
    for name, answer in answers.items():
        try:
            value = answer(max(0.0, end - time.monotonic()))
            found |= value if name == "failing" else {name: value}
        except Exception as error:
            if (reason := reason_of(error)) is None:
                raise
            missing += [Missing(each, reason) for each in (_TOGETHER if name == "failing" else (name,))]
    return Overview(clock(), MOST_COUNTED, missing=tuple(missing), **found)


def of_tenant(where: Deployment, tenant: str) -> Overview:
    """The overview of a tenant's subscriptions, without parts about all tenants, and without addresses in errors."""
    engine = where.engine
    parts: dict[str, Any] = dict.fromkeys(_PARTS) | {
        **_receivers(engine, tenant),
        "states": search.by_state(engine, MOST_COUNTED, tenant),
        "problematic": _problematic(engine, where.vault, where.rules, where.clock, tenant),
    }
    missing = tuple(Missing(part, "only a token of all tenants shows it") for part in parts if parts[part] is None)
    return Overview(where.clock(), MOST_COUNTED, missing=missing, **parts)


def shared(
    look: Callable[[], T], monotonic: Callable[[], float] = time.monotonic, fresh: float = FRESH
) -> Callable[[], T]:
    """A `look` that is repeated if the last one is older than `fresh` seconds. Callers may be threads.

    Callers that come meanwhile get the last one, so that many callers cost the database as much as one; they wait for
    the new one only if that is older than the time of a slow look.
    """
    lock = Lock()
    last: tuple[float, T] | None = None

    def shared_look() -> T:
        nonlocal last
        known = last
        usable = known is not None and monotonic() - known[0] < fresh + 2 * SECONDS
        if not lock.acquire(blocking=not usable) and known is not None:
            return known[1]
        try:
            if last is None or monotonic() - last[0] >= fresh:
                taken = look()
                last = monotonic(), taken
            return last[1]
        finally:
            lock.release()

    return shared_look


def _known(kafka: KafkaSettings | None, topics: Sequence[str]) -> KafkaSettings:
    if kafka is None or not topics:
        raise WebhooksError("set KAFKA_BOOTSTRAP_SERVERS and KAFKA_TOPICS for this process, as workers have them")
    return kafka


def _receivers(engine: Engine, tenant: str | None = None) -> dict[str, list[Any]]:
    """The parts of _TOGETHER (of a tenant): few statements for all of them."""
    loaded = search.most_loaded(engine, LISTED) if tenant is None else health.storing(engine, LISTED, tenant, OPEN)
    theirs, failing, disabled, paused = health.noticed(engine, loaded, LISTED, tenant)
    ids = {*loaded, *(each.subscription_id for each in failing)}
    waiting, last = search.loads(engine, ids, MOST_COUNTED + 1), search.last_failures(engine, ids)
    if tenant is not None:
        last = {each: found._replace(error=without_addresses(found.error)) for each, found in last.items()}
    return {
        "loaded": [
            LoadedReceiver(each, waiting[each], theirs.get(each), last.get(each))
            for each in sorted(loaded, key=lambda each: (-waiting[each], each))
        ],
        "failing": [
            FailingReceiver(each, last.get(each.subscription_id), waiting[each.subscription_id]) for each in failing
        ],
        "disabled": disabled,
        "paused": paused,
    }


def _problematic(
    engine: Engine, vault: Vault | None, rules: Rules, clock: Callable[[], float], tenant: str | None = None
) -> ProblematicSubscriptions:
    found = health.problematic(engine, LOOKED_AT, vault, rules, clock, tenant)
    return found._replace(subscriptions=found.subscriptions[:LISTED])
