"""Looks up the subscriptions that get an event, with a cache in front of the database."""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache, partial
from itertools import chain, groupby
from math import inf
from operator import itemgetter
from typing import Any
from weakref import WeakValueDictionary

import structlog
from sqlalchemy import BindParameter, Connection, Engine, Row, Select, and_, bindparam, select, union_all

from consumer.crypto.keys import SigningKey
from consumer.crypto.vault import Decrypt
from consumer.database.engine import reading
from consumer.database.job import Batch, DatabaseJob
from consumer.database.statements import IN_LIST, any_tuple_of, lists_of
from consumer.errors import DatabaseTooSlow
from consumer.loop.part import Part
from consumer.subscriptions import tls
from consumer.subscriptions.endpoint import Endpoint
from consumer.subscriptions.endpoint_row import Rules, endpoint_of, endpoint_rows
from consumer.subscriptions.event_types import refusal
from consumer.subscriptions.options import Effect, OptionProblem
from consumer.subscriptions.patterns import candidates
from consumer.subscriptions.tls import StoredTls
from models import Subscription, SubscriptionSecret, SubscriptionType
from models.subscription import EVENT_TYPE_LENGTH, EVERY_TENANT, TENANT_LENGTH

log = structlog.get_logger(__name__)

MOST_KEPT = 250_000  # keys and endpoints in the cache: 190 MB; the answers looked up longest ago leave first
MOST_ASKED = 512  # keys of one look-up
MOST_PATTERNS = 4096  # patterns of one look-up that can match its keys, IN_LIST of them in a statement
GAP = 0.02  # seconds between the starts of two statements: at most fifty a second
GATHER = 0.1  # share of the time to live for which refreshes of ageing answers wait for each other

_NEVER = datetime.max.replace(tzinfo=UTC)

Key = tuple[str, str | None]  # of events: their type and their tenant
Pattern = tuple[str, str]  # of subscriptions: `event_type` and `tenant` as stored
AnyRow = Row[*tuple[Any, ...]]
Fault = tuple[int, str]  # a subscription's id, and the option at fault
Matches = Mapping[Key, tuple[Endpoint, ...]]
Ask = Callable[[tuple[Key, ...], Callable[[Matches | Exception], None]], None]


class SubscriptionProblems:
    """Broken subscriptions and the reasons. Each reason is logged when it is new or has changed."""

    def __init__(self) -> None:
        self._reasons: dict[Pattern, dict[Fault, str]] = {}

    def __len__(self) -> int:
        return len({fault for reasons in self._reasons.values() for fault in reasons})

    def found(self, patterns: Iterable[Pattern], reasons: Mapping[Pattern, Mapping[Fault, str]]) -> None:
        """Note that a look-up of `patterns` found these `reasons`, by fault, and no others."""
        for pattern in patterns:
            before = self._reasons.pop(pattern, {})
            now = dict(reasons.get(pattern, {}))
            for fault, reason in now.items():
                # A subscription with several types may be known by another one.
                if all(known.get(fault) != reason for known in (before, *self._reasons.values())):
                    log.error("a subscription is broken", subscription=fault[0], reason=reason)
            if now:
                self._reasons[pattern] = now


class EndpointCache:
    """Endpoints still in use, by subscription: unchanged rows are not parsed again, and equal endpoints are kept once.

    Rows are compared by their hash. Used by one thread; other threads may drop an endpoint at any time.
    """

    def __init__(self) -> None:
        self._endpoints: WeakValueDictionary[int, Endpoint] = WeakValueDictionary()
        self._rows: dict[int, tuple[int, datetime]] = {}  # the hash of an endpoint's rows, and until when they give it

    def __len__(self) -> int:
        return len(self._endpoints)

    def get(self, subscription_id: int, rows: Sequence[AnyRow], now: datetime) -> Endpoint | None:
        """The endpoint that these rows gave before and give at `now`, if any."""
        before, until = self._rows.get(subscription_id, (None, now))
        return self._endpoints.get(subscription_id) if now < until and before == hash(tuple(rows)) else None

    def keep(self, endpoint: Endpoint, rows: Sequence[AnyRow], until: datetime | None) -> Endpoint:
        """The endpoint to use: the earlier one if it is equal. These rows give an equal one `until` then."""
        number = endpoint.subscription_id
        kept = self._endpoints.get(number)
        if kept is None or kept != endpoint:
            kept = self._endpoints[number] = endpoint
        if until is not None:
            self._rows[number] = hash(tuple(rows)), until
        else:
            self._rows.pop(number, None)
        if len(self._rows) > 2 * len(self._endpoints) + 1000:
            self._rows = {each: value for each, value in self._rows.items() if each in self._endpoints}
        return kept


def patterns_of(key: Key) -> tuple[Pattern, ...]:
    """The subscription patterns that match an event's type and tenant: any tenant's first, then the tenant's own.

    A tenant longer than its column is left out, since no row can hold it.
    """
    event_type, tenant = key
    tenants: tuple[str, ...] = (EVERY_TENANT,)
    if tenant is not None and tenant != EVERY_TENANT and len(tenant) <= TENANT_LENGTH:
        tenants = (EVERY_TENANT, tenant)
    return tuple((text, each) for each in tenants for text in candidates(event_type))


def find_endpoints(
    engine: Engine,
    keys: Sequence[Key],
    default_secrets: tuple[SigningKey, ...],
    decrypt: Decrypt,
    *,
    rules: Rules = Rules(),  # noqa: B008 (immutable)
    known: EndpointCache | None = None,
    broken: SubscriptionProblems | None = None,
    clock: Callable[[], float] = time.time,
) -> dict[Key, tuple[Endpoint, ...]]:
    """The enabled subscriptions of each of `keys` (one or more), by id; every key is answered.

    One statement answers as many keys as have at most IN_LIST patterns together. All patterns of a key are in one, so
    that no edit hides a subscription that matched before and after it.

    `default_secrets` sign for a subscription without secrets of its own; `decrypt` opens a stored secret. Endpoints in
    `known` are used again. `broken` notes unusable values of subscriptions, and values that `rules` refuse; a
    subscription that therefore matches nothing is left out.
    """
    now = datetime.fromtimestamp(clock(), UTC)
    with reading(engine) as connection:
        found = [(asked, *_rows(connection, asked)) for asked in _statements(keys)]
    read = partial(endpoint_of, default=default_secrets, decrypt=decrypt, now=now, rules=rules)
    answer: dict[Key, tuple[Endpoint, ...]] = {}
    for asked, rows, identities in found:
        answer |= _matches(asked, rows, identities, read, now, known, broken)
    return answer


def _statements(keys: Iterable[Key]) -> Iterator[dict[Key, tuple[Pattern, ...]]]:
    """The keys of each statement, with their patterns. The most that a key can have are IN_LIST."""
    asked: dict[Key, tuple[Pattern, ...]] = {}
    together: set[Pattern] = set()
    for key in keys:
        patterns = patterns_of(key)
        if asked and len(together.union(patterns)) > IN_LIST:
            yield asked
            asked, together = {}, set()
        asked[key] = patterns
        together.update(patterns)
    yield asked


def _rows(
    connection: Connection, asked: Mapping[Key, tuple[Pattern, ...]]
) -> tuple[Sequence[AnyRow], Mapping[int, StoredTls]]:
    (patterns,) = lists_of(list(dict.fromkeys(chain.from_iterable(asked.values()))))
    rows = connection.execute(_lookup(), {"patterns": patterns}).all()
    return rows, tls.stored(connection, rows)


def _matches(
    asked: Mapping[Key, tuple[Pattern, ...]],
    rows: Sequence[AnyRow],
    identities: Mapping[int, StoredTls],
    read: Callable[..., tuple[Endpoint, Sequence[OptionProblem]]],
    now: datetime,
    known: EndpointCache | None,
    broken: SubscriptionProblems | None,
) -> Matches:
    found: dict[Pattern, list[Endpoint]] = {}
    reasons: dict[Pattern, dict[Fault, str]] = {}
    for (subscription_id, matched), group in groupby(rows, itemgetter(0, -1)):
        mine = list(group)
        pattern = matched, mine[0].tenant
        if matched != mine[0].event_type and (why := refusal(matched)) is not None:
            reasons.setdefault(pattern, {})[subscription_id, "event_types"] = f"event_types: {matched!r:.60} {why}"
            continue
        endpoint = None if known is None else known.get(subscription_id, mine, now)
        if endpoint is None:
            endpoint, problems = read(mine, tls=identities.get(subscription_id))
            if problems:
                reasons.setdefault(pattern, {}).update({(subscription_id, each.option): str(each) for each in problems})
            if any(problem.effect is Effect.UNMATCHED for problem in problems):
                continue
            if known is not None:
                steady = not problems and mine[0].tls_of is None
                ends = (row.expires_at for row in mine if row.expires_at is not None and row.expires_at > now)
                endpoint = known.keep(endpoint, mine, min(ends, default=_NEVER) if steady else None)
        found.setdefault(pattern, []).append(endpoint)
    if broken is not None:
        broken.found(dict.fromkeys(chain.from_iterable(asked.values())), reasons)
    merged: dict[tuple[Pattern, ...], tuple[Endpoint, ...]] = {(): ()}
    answer = {}
    for key, wanted in asked.items():
        there = tuple(pattern for pattern in wanted if pattern in found)
        if there not in merged:
            endpoints = chain.from_iterable(found[pattern] for pattern in there)
            by_id = {each.subscription_id: each for each in endpoints}  # several of its types may match
            merged[there] = tuple(by_id[each] for each in sorted(by_id))
        answer[key] = merged[there]
    return answer


@cache  # building one takes long
def _lookup() -> Select[*tuple[Any, ...]]:
    """The statement of `find_endpoints`: a row for each subscription, type that matches, and secret, newest first.

    Two seeks for each pattern: of the subscriptions whose first type it is, and of those whose further type it is. The
    first column is the subscription, and the last one the type. The bind `patterns` is a list of them.
    """
    lists: list[BindParameter[Any]] = [bindparam("patterns", expanding=True)]
    named, further = Subscription, SubscriptionType
    secret = SubscriptionSecret.created_at.label("secret_made_at"), SubscriptionSecret.id.label("secret_id")
    first = endpoint_rows(named.event_type.label("matched"), *secret).where(
        any_tuple_of((named.event_type.expression, named.tenant.expression), lists), named.enabled == 1
    )
    mine = and_(further.subscription_id == named.id, further.tenant == named.tenant)
    others = (
        endpoint_rows(further.event_type.label("matched"), *secret)
        .join(further, mine)
        .where(
            any_tuple_of((further.event_type.expression, further.tenant.expression), lists),
            further.event_type != named.event_type,
            named.enabled == 1,
        )
    )
    both = union_all(first.order_by(None), others.order_by(None)).subquery()
    *shown, made_at, secret_id = both.c
    return select(*shown).order_by(both.c.subscription_id, both.c.matched, made_at.desc(), secret_id.desc())


class Catalog(Part):
    """Caches the look-up's answers for `ttl` seconds. Lives on the loop; at most one look-up is under way.

    An answer's age runs from the start of its look-up to the arrival of the record. So a record sees every change that
    was committed `ttl` before it arrived, however long the look-up takes, and with a `ttl` of 0 an answer serves the
    records that wait for it. The absence of subscriptions is an answer too. However many events and keys there are, a
    statement begins no sooner than `GAP` after the one before, and refreshes that no record waits for begin together.
    """

    def __init__(
        self,
        ask: Ask,
        ttl: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`ask(keys, done)` starts a look-up and calls `done` later, on the loop."""
        self._ttl = ttl
        self._clock = clock
        self._entries: dict[Key, tuple[float, tuple[Endpoint, ...]]] = {}  # by start of look-up, oldest first
        self._kept = 0
        self._missing: dict[Key, None] = {}  # wanted now; a set that keeps its order
        self._ageing: dict[Key, None] = {}  # wanted soon: the cached answer still serves
        self._asked: frozenset[Key] = frozenset()
        self._asked_at = -inf
        self._most = Batch(MOST_ASKED)
        self._job = DatabaseJob(ask, "could not look up subscriptions; events wait", clock)

    def match(self, key: Key, arrived: float | None = None) -> tuple[Endpoint, ...] | None:
        """The subscriptions for an event that `arrived` at a time (the clock's seconds; None: now).

        None if no recent enough answer is cached: call `want`, and ask again in a later turn.
        """
        entry = self._entries.get(key)
        if entry is None:
            return None
        age = (self._clock() if arrived is None else arrived) - entry[0]
        if age > self._ttl:
            return None
        if age > self._ttl / 2:  # a steady flow never waits for the database
            self.want((key,))
        return entry[1]

    def want(self, keys: Iterable[Key]) -> None:
        """Look up keys without a recent answer, as soon as a statement may begin: call it again until then."""
        now = self._clock()
        for key in keys:
            entry = self._entries.get(key)
            if key in self._asked or (entry and now - entry[0] <= self._ttl / 2):
                continue
            if entry and now - entry[0] <= self._ttl:
                self._ageing[key] = None
            else:
                self._ageing.pop(key, None)
                self._missing[key] = None
        if (self._missing or self._ageing) and self._job.ready:
            gap = GAP if self._missing else max(GAP, GATHER * self._ttl)
            if now - self._asked_at >= gap:
                self._start(now)

    def poll(self, _now: float) -> None:
        """Repeat a failed look-up, even if no event waits for its keys any more."""
        self.want(())

    @property
    def fault(self) -> str | None:
        """Why the last look-up failed, for /readyz."""
        return self._job.fault

    @property
    def backoff(self) -> float:
        """Seconds that the look-up pauses after an error; 0 after a success."""
        return self._job.backoff

    def _start(self, now: float) -> None:
        keys: list[Key] = []
        patterns = 0
        for key in chain(self._missing, self._ageing):
            patterns += _most_patterns(key)
            if len(keys) == self._most.size or patterns > MOST_PATTERNS:
                break
            keys.append(key)
        for key in keys:
            self._missing.pop(key, None)
            self._ageing.pop(key, None)
        self._asked = frozenset(keys)  # for events that need a newer answer, `want` is called once this one is there
        self._asked_at = now
        self._job.start(tuple(keys), partial(self._found, now), partial(self._failed, keys))

    def _failed(self, keys: Collection[Key], error: Exception) -> None:
        self._asked = frozenset()
        self._missing.update(dict.fromkeys(keys))
        if isinstance(error, DatabaseTooSlow):
            self._most.was_too_large(len(keys))

    def _found(self, asked_at: float, answer: Matches) -> None:
        self._asked = frozenset()
        self._most.succeeded(len(answer))
        for key, endpoints in answer.items():
            known = self._forget(key)
            # Keep the same objects: data prepared for them is found by identity.
            self._entries[key] = (asked_at, known if known == endpoints else endpoints)
            self._kept += 1 + len(endpoints)
        while self._kept > MOST_KEPT and len(self._entries) > len(answer):
            self._forget(next(iter(self._entries)))
        self.want(())

    def _forget(self, key: Key) -> tuple[Endpoint, ...] | None:
        _, endpoints = self._entries.pop(key, (0.0, None))
        if endpoints is not None:
            self._kept -= 1 + len(endpoints)
        return endpoints


def _most_patterns(key: Key) -> int:
    """The most patterns that `patterns_of` can return for a key, without building them."""
    event_type, tenant = key
    return (min(event_type.count("."), EVENT_TYPE_LENGTH) + 3) * (1 if tenant is None else 2)
