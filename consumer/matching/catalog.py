"""Which subscriptions get an event: the look-up, and the cache in front of it."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain, groupby, islice
from math import inf
from operator import attrgetter
from typing import Any

import structlog
from sqlalchemy import Engine, Select, select

from consumer.database import IN_LIST, any_of, reading
from consumer.endpoint import Endpoint
from consumer.endpoint_row import ENDPOINT_COLUMNS, endpoint_of
from consumer.options import Effect
from consumer.secret import SigningKey
from consumer.trouble import Trouble
from models import Subscription, SubscriptionSecret

log = structlog.get_logger(__name__)

MOST_KEPT = 250_000  # types and endpoints in the cache: 120 MB; what was asked for longest ago leaves first
MOST_ASKED = IN_LIST  # types of one statement: as one list, and so ten different statements in all
GAP = 0.02  # seconds between two statements, where they follow one another: fifty a second, whatever comes
GATHER = 0.1  # of the time to live: how long answers that are only growing old wait for others of the kind

Fault = tuple[int, str]  # a subscription, and which of its options it is
Answer = Mapping[str, tuple[Endpoint, ...]]
Ask = Callable[[tuple[str, ...], Callable[[Answer | Exception], None]], None]


class Broken:
    """Subscriptions that are not as they should be, and why. Each is logged when that changes."""

    def __init__(self) -> None:
        self._reasons: dict[str, dict[Fault, str]] = {}  # by event type

    def __len__(self) -> int:
        return sum(map(len, self._reasons.values()))

    def found(self, types: Iterable[str], reasons: Mapping[str, Mapping[Fault, str]]) -> None:
        """A look-up of `types` found `reasons` (event type to fault to why) and no others."""
        for event_type in types:
            before = self._reasons.pop(event_type, {})
            if now := dict(reasons.get(event_type, {})):
                self._reasons[event_type] = now
            for fault, reason in now.items():
                if before.get(fault) != reason:
                    log.error("a subscription is not as it should be", subscription=fault[0], reason=reason)


def find_endpoints(
    engine: Engine,
    types: Sequence[str],
    default_secrets: tuple[SigningKey, ...],
    decrypt: Callable[[str], str],
    *,
    broken: Broken | None = None,
    clock: Callable[[], float] = time.time,
) -> dict[str, tuple[Endpoint, ...]]:
    """The enabled subscriptions of each of `types` (one or more), by id, in one statement; every type is a key.

    `default_secrets` sign for a subscription that has none of its own; `decrypt` opens a stored secret.
    What of a subscription cannot be used is noted in `broken`; one that therefore matches nothing is left out.
    """
    now = datetime.fromtimestamp(clock(), UTC)
    with reading(engine) as connection:
        rows = connection.execute(lookup(types)).all()
    found: dict[str, list[Endpoint]] = {event_type: [] for event_type in types}
    reasons: dict[str, dict[Fault, str]] = {}
    for subscription_id, group in groupby(rows, attrgetter("subscription_id")):
        mine = list(group)
        endpoint, problems = endpoint_of(mine, default_secrets, decrypt, now)
        of_type = reasons.setdefault(mine[0].event_type, {})
        of_type.update({(subscription_id, problem.option): str(problem) for problem in problems})
        if not any(problem.effect is Effect.UNMATCHED for problem in problems):
            found[mine[0].event_type].append(endpoint)
    if broken is not None:
        broken.found(found, reasons)
    return {event_type: tuple(endpoints) for event_type, endpoints in found.items()}


def lookup(types: Sequence[str]) -> Select[*tuple[Any, ...]]:
    """The statement of `find_endpoints`: a row for each subscription and secret, its secrets newest first."""
    secret = SubscriptionSecret
    return (
        select(Subscription.event_type, *ENDPOINT_COLUMNS)
        .outerjoin(secret, secret.subscription_id == Subscription.id)
        .where(any_of(Subscription.event_type.expression, types), Subscription.enabled == 1)
        .order_by(Subscription.id, secret.created_at.desc(), secret.id.desc())
    )


class Catalog:
    """Answers of the look-up, kept for `ttl` seconds. Lives on the loop; at most one look-up is under way.

    An answer's age is the time from when it was asked for to when the record arrived: what was committed `ttl` before a
    record came is seen, however long the look-up takes, and with a `ttl` of 0 it answers those who wait for it. That
    nobody subscribed is an answer too. However many events and types there are, a statement begins `GAP` after the one
    before at the earliest, and those that nobody waits for yet begin together.
    """

    def __init__(
        self,
        ask: Ask,
        ttl: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`ask(types, done)` starts a look-up and calls `done` later, on the loop."""
        self._ask = ask
        self._ttl = ttl
        self._clock = clock
        self._entries: dict[str, tuple[float, tuple[Endpoint, ...]]] = {}  # by when they were asked for
        self._kept = 0
        self._missing: dict[str, None] = {}  # wanted now; sets that keep their order
        self._ageing: dict[str, None] = {}  # wanted soon: what is known still serves
        self._asking = False
        self._asked: frozenset[str] = frozenset()
        self._asked_at = -inf
        self._trouble = Trouble(clock)

    def match(self, event_type: str, arrived: float | None = None) -> tuple[Endpoint, ...] | None:
        """The subscriptions for an event that arrived then (the clock's seconds; None: now).

        None if nothing recent enough is known: say `want`, and ask again in a later turn.
        """
        entry = self._entries.get(event_type)
        if entry is None:
            return None
        age = (self._clock() if arrived is None else arrived) - entry[0]
        if age > self._ttl:
            return None
        if age > self._ttl / 2:  # a steady flow never waits for the database
            self.want((event_type,))
        return entry[1]

    def want(self, types: Iterable[str]) -> None:
        """Look up those of which nothing recent is known, as soon as a statement may begin: call again until then."""
        now = self._clock()
        for event_type in types:
            entry = self._entries.get(event_type)
            if event_type in self._asked or (entry and now - entry[0] <= self._ttl / 2):
                continue
            if entry and now - entry[0] <= self._ttl:
                self._ageing[event_type] = None
            else:
                self._ageing.pop(event_type, None)
                self._missing[event_type] = None
        if (self._missing or self._ageing) and not self._asking and self._trouble.over:
            gap = GAP if self._missing else max(GAP, GATHER * self._ttl)
            if now - self._asked_at >= gap:
                self._start(now)

    @property
    def fault(self) -> str | None:
        """Why the last look-up failed, for /readyz."""
        return self._trouble.fault

    def _start(self, now: float) -> None:
        types = tuple(islice(chain(self._missing, self._ageing), MOST_ASKED))
        for event_type in types:
            self._missing.pop(event_type, None)
            self._ageing.pop(event_type, None)
        self._asking = True
        self._asked = frozenset(types)  # who waits for more than this answer says so when it is there
        self._asked_at = now
        self._ask(types, lambda answer: self._answered(types, answer, now))

    def _answered(self, types: tuple[str, ...], answer: Answer | Exception, asked_at: float) -> None:
        self._asking, self._asked = False, frozenset()
        if not self._trouble.judge(answer, "could not look up subscriptions; events wait"):
            self._missing.update(dict.fromkeys(types))
            return
        for event_type, endpoints in answer.items():
            known = self._forget(event_type)
            # The same objects, so that what was prepared for them is found by identity.
            self._entries[event_type] = (asked_at, known if known == endpoints else endpoints)
            self._kept += 1 + len(endpoints)
        while self._kept > MOST_KEPT and len(self._entries) > len(answer):
            self._forget(next(iter(self._entries)))
        self.want(())

    def _forget(self, event_type: str) -> tuple[Endpoint, ...] | None:
        _, endpoints = self._entries.pop(event_type, (0.0, None))
        if endpoints is not None:
            self._kept -= 1 + len(endpoints)
        return endpoints
