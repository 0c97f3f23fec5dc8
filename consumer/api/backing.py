"""The parts that the API and the console share: the deployment's parts, and the rules for a caller of one tenant."""

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from consumer.api import log_parts
from consumer.api.log_parts import LogPart, part_of
from consumer.api.problems import RETRY_AFTER, Code, RequestRefused
from consumer.api.tokens import Caller, TokenFile
from consumer.config.settings import KafkaSettings
from consumer.errors import Conflict, InvalidPosition, InvalidSubscription, Tombstone, Undecodable
from consumer.events.attempt import Attempt
from consumer.events.event import Event
from consumer.http.urls import Target, parse_target, without_addresses
from consumer.intake.record import Record
from consumer.intake.topics import consumes
from consumer.ledger import backlogs
from consumer.ledger.admin import DeliveryQuery
from consumer.ledger.backlogs import OwedPart
from consumer.ledger.replays import Span
from consumer.ledger.search import Page, search
from consumer.ops import attempt_pages, events, find, story, verification
from consumer.ops.attempt_pages import FAR, Position, Wanted
from consumer.ops.attempt_statistics import AttemptStatistics
from consumer.ops.attempts import AttemptHistory
from consumer.ops.backtest import Backtest, backtest, options_of
from consumer.ops.changes import Changes, Deployment
from consumer.ops.find import Hit, Stretch
from consumer.ops.overview import Overview, of_tenant
from consumer.ops.ping import Ping, ping_subscription
from consumer.ops.replay_request import NO_KAFKA, Log, records
from consumer.ops.resend import Resent, resend
from consumer.ops.story import Story, tell
from consumer.ops.verification import Ask
from consumer.ops.walk import Bounds
from consumer.subscriptions.endpoint import Endpoint
from consumer.subscriptions.health import ListedSubscription, named
from consumer.subscriptions.subscribed import Subscribed

Times = tuple[float | None, float | None]  # unix seconds
OF_TENANT = 2  # requests of one tenant at once: with many tenants, none has all of them


class Backing(NamedTuple):
    """The parts that resources and pages work with.

    The rules of `deployment` must not wait, since they are applied in a transaction; `refusal`, which judges a new URL
    before it, may wait. `ping` sends a test event; None: there is no WEBHOOK_SECRET to sign it with. `ask` makes a
    validation request; None: there is no WEBHOOK_ORIGIN, or no WEBHOOK_SECRET. `history` None: there is no attempts
    topic. `look` takes the overview. `kafka`, and `log`, which replays read, are None if this process has no settings
    for them. `tokens` seal positions.
    """

    deployment: Deployment
    refusal: Callable[[str], str | None] = lambda _: None
    ping: Callable[[Endpoint, Event], Ping] | None = None
    ask: Ask | None = None
    history: AttemptHistory | None = None
    look: Callable[[], Overview] | None = None
    kafka: KafkaSettings | None = None
    log: Log | None = None
    tokens: TokenFile = TokenFile(None)

    def changes(self, caller: Caller, condition: Callable[[Subscribed], object] = lambda _: None) -> Changes:
        """The changes that the caller makes."""
        return Changes(self.deployment, caller.actor, caller.tenant, condition)

    def replayed(self) -> Log:
        """The log that replays read. Raises Conflict if this process has no settings for Kafka."""
        if self.log is None:
            raise Conflict(NO_KAFKA)
        return self.log

    def cluster(self) -> KafkaSettings:
        """The settings of Kafka. Raises RequestRefused if this process has none."""
        if self.kafka is None:
            raise RequestRefused(Code.NOT_FOUND, "Set KAFKA_BOOTSTRAP_SERVERS for this process, as workers have it.")
        return self.kafka

    def check_url(self, caller: Caller, url: object) -> None:
        """Raise InvalidSubscription if `refusal` refuses the URL. An invalid URL is refused elsewhere."""
        if isinstance(url, str):
            try:
                refused = self.refusal(url)
            except ValueError:
                return
            if refused is not None:
                raise InvalidSubscription(told(caller, {"why": refused}, "why")["why"], "url")

    def cursor(self, listed: str, position: object) -> str | None:
        """The cursor of a list's next page, which begins after `position` (JSON); None: there is none.

        It is sealed: a position may have ids of all tenants' rows, which tell how many there are.
        """
        return None if position is None else self.tokens.sealed(json.dumps([listed, position]))

    def position(self, listed: str, cursor: str | None, shape: Any) -> Any:
        """The position in a cursor, of a type. Raises InvalidPosition for a text that no page of the list has given."""
        if cursor is None:
            return None
        try:
            found, position = _positions(shape).validate_json(self.tokens.opened(cursor))
        except ValueError:
            found = None
        if found != listed:
            raise InvalidPosition("the position is none that a page has given; begin without one")
        return position

    def search(self, caller: Caller, query: DeliveryQuery, limit: int, cursor: str | None) -> Page:
        """A page of the caller's stored deliveries, after `cursor`, with the next cursor as its position.

        Raises InvalidPosition, as `position` does.
        """
        query = query._replace(tenant=caller.tenant or query.tenant)
        found = search(self.deployment.engine, query, limit, self.position("deliveries", cursor, str))
        return found._replace(position=self.cursor("deliveries", found.position))

    def record(self, caller: Caller, topic: str, partition: int, offset: int) -> "Found":
        """The record at a place of the log that workers read, if the caller may see it.

        Raises RequestRefused if there is none, Conflict if this process has no settings for Kafka, and as `record_at`.
        """
        log = self.replayed()
        if not consumes(log.kafka, log.topics)(topic):
            raise RequestRefused(Code.NOT_FOUND, f"No worker consumes {topic}: it is not one of KAFKA_TOPICS.")
        with reading_log(caller):
            record = events.record_at(log.kafka, topic, partition, offset)
        event, reason = None, None
        if record is not None:
            try:
                event = log.read_event(record)
            except (Undecodable, Tombstone) as error:
                reason = str(error)
        if record is None or (caller.tenant is not None and (event is None or event.tenant != caller.tenant)):
            raise RequestRefused(Code.NOT_FOUND, f"{topic}[{partition}] has no record at offset {offset} any more.")
        return Found(record, event, reason)

    def story(self, caller: Caller, event: Event, cursor: str | None = None) -> tuple[Story, str | None]:
        """Who got an event, as far as the caller may see it: a part, after `cursor`; and the next cursor.

        Raises InvalidPosition, as `position` does.
        """
        listed = "receivers of " + event.webhook_id
        after = self.position(listed, cursor, story.Position)
        with reading_log(caller):
            found = tell(self.deployment, event, self.replayed().kafka, self.history, caller.tenant, after=after)
        return found._replace(missing=told_fault(caller, found.missing)), self.cursor(listed, found.next)

    def resend(self, caller: Caller, event: Event, subscription_id: int) -> Resent:
        """Send an event again, as `ops.resend`."""
        return resend(self.changes(caller), event, self.replayed().kafka, subscription_id)

    def own(self, caller: Caller, attempts: Sequence[Attempt]) -> Sequence[Attempt]:
        """Those of the attempts whose subscription is the caller's now."""
        if caller.tenant is None:
            return attempts
        theirs = self.receivers(caller, {each.subscription_id for each in attempts})
        return [each for each in attempts if each.subscription_id in theirs]

    def receivers(self, caller: Caller, ids: Collection[int]) -> dict[int, ListedSubscription]:
        """Those of these subscriptions that the caller may see, by id."""
        found = named(self.deployment.engine, ids)
        return {number: each for number, each in found.items() if caller.tenant in {None, each.tenant}}

    def find(self, caller: Caller, text: str) -> list[Hit]:
        """What a text names without a search of the log, as far as the caller may see it."""
        return find.known(self.deployment, text, self.history, caller.tenant)

    def find_in_log(self, caller: Caller, text: str, since: float, cursor: str | None) -> "LogSearch":
        """Search a part of the log since a time (unix seconds), or the part at a `cursor`.

        Raises InvalidPosition, and as `ops.find.search`.
        """
        log = self.replayed()
        with reading_log(caller):
            part = part_of(log, since, self.deployment.clock(), self.position("log", cursor, log_parts.Position))
            stretch = find.search(log, text, part.spans, Bounds(), caller.tenant)
        return LogSearch(stretch, *self._rest(part, stretch.left, caller))

    def backtest(
        self, caller: Caller, given: Mapping[str, Any], since: float, cursor: str | None
    ) -> tuple[Backtest, int | None, str | None]:
        """Try options on a part of the log since a time (unix seconds); the records that are left, and the next cursor.

        A tenant's options are for its own events. Raises InvalidSubscription, InvalidPosition, and as `backtest` does.
        """
        log, meant = self.replayed(), options_of(given if caller.tenant is None else {**given, "tenant": caller.tenant})
        with reading_log(caller):
            part = part_of(log, since, self.deployment.clock(), self.position("log", cursor, log_parts.Position))
            found = Backtest(part.spans)
            backtest(log, meant, found, Bounds())
        return found, *self._rest(part, found.left, caller)

    def _rest(self, part: LogPart, left: Sequence[Span], caller: Caller) -> tuple[int | None, str | None]:
        """How many records are left, for a caller who may see all tenants', and the cursor of the next part."""
        number = records([*left, *part.others]) if caller.tenant is None else None
        return number, self.cursor("log", part.rest(left))

    def overview(self, caller: Caller) -> Overview:
        """The overview, as far as the caller may see it. RequestRefused if this process has none."""
        if self.look is None:
            raise RequestRefused(Code.NOT_FOUND, "this process has no statistics")
        if caller.tenant is None:
            return self.look()
        with counting(caller):
            return of_tenant(self.deployment, caller.tenant)

    def owed(self, caller: Caller, subscription_id: int) -> list[OwedPart]:
        """What cursors owe one of the caller's subscriptions, as far as the caller may see it."""
        found = backlogs.of_subscription(self.deployment.engine, subscription_id)
        return found if caller.tenant is None else [each.for_tenant() for each in found]

    def attempted(self, caller: Caller, subscription_id: int | None) -> AttemptHistory:
        """The attempt history, if the caller may see the subscription, or None. RequestRefused without a history."""
        if self.history is None:
            raise RequestRefused(Code.NOT_FOUND, "there is no attempt history: set KAFKA_ATTEMPTS_TOPIC")
        if subscription_id is not None and caller.tenant is not None:
            self.deployment.subscription(subscription_id, caller.tenant)
        return self.history

    def attempts(
        self,
        caller: Caller,
        subscription_id: int | None,
        times: Times,
        cursor: str | None,
        limit: int,
        webhook_id: str | None = None,
        outcome: str | None = None,
    ) -> tuple[Sequence[Attempt], str | None, str | None]:
        """A page of past attempts (at one event, with one outcome), newest first, and the next cursor.

        Also why the newest ones may be missing.

        The first page without a time is from memory. Raises InvalidPosition, and as `attempted` and `read_page`.
        """
        history, place = self.attempted(caller, None), self.position("attempts", cursor, Position)
        sees = seeing(caller, webhook_id, outcome)
        if times == (None, None) and place is None:
            newest = history.recent(subscription_id, limit, sees)
            missing = told_fault(caller, history.fault)
            found = attempt_pages.AttemptPage(newest, attempt_pages.after(newest, self.deployment.clock()))
        else:
            with reading_back(caller):
                wanted = Wanted(subscription_id, times[0] or 0.0, FAR if times[1] is None else times[1], sees)
                found, missing = history.page(wanted, limit, place), None
        shown = self.own(caller, found.attempts)
        return shown, self.cursor("attempts", found.position), missing

    def statistics(self, caller: Caller, subscription_id: int) -> AttemptStatistics:
        """The statistics of a subscription's attempts. Raises as `attempted` and `read_page`."""
        self.deployment.subscription(subscription_id, caller.tenant)
        with reading_back(caller):
            return self.attempted(caller, subscription_id).statistics(subscription_id, caller.tenant)

    def send_test_event(self, caller: Caller, subscription_id: int, event: Event) -> dict[str, Any]:
        """Send a subscription an event; returns the exchange. Conflict if this process lacks a setting for it."""
        if self.ping is None:
            raise Conflict("set WEBHOOK_SECRET for this process, as workers have it: the test event has to be signed")
        with exchanging(caller):
            _, made = ping_subscription(self.changes(caller), subscription_id, event, self.ping)
        return told(caller, made, "verdict", "advice")

    @contextmanager
    def verifying(self, caller: Caller) -> Iterator[Callable[..., tuple[dict[str, Any], Subscribed]]]:
        """A function that asks a subscription's receiver, as `verification.verify`; it returns the answer, described.

        Raises Conflict if this process lacks a setting for it.
        """
        if self.ask is None:
            raise Conflict("set WEBHOOK_ORIGIN and WEBHOOK_SECRET for this process, as workers have them")
        ask = self.ask

        def verify(
            changes: Changes, subscription_id: int, rate: int | None = None
        ) -> tuple[dict[str, Any], Subscribed]:
            permission, after = verification.verify(changes, subscription_id, ask, rate)
            return told(caller, verification.describe(permission), "reason", "advice"), after

        with exchanging(caller):
            yield verify


class Found(NamedTuple):
    """A record, and its event, or the `reason` why it carries none."""

    record: Record
    event: Event | None
    reason: str | None


class LogSearch(NamedTuple):
    """What was found in a part of the log, the records that are left (None: not for a tenant), and the next cursor."""

    stretch: Stretch
    records_left: int | None
    next: str | None


class Quota:
    """Admits requests that hold one of the 40 threads for long: `most` at once, and OF_TENANT of a tenant.

    Called with a caller, it gives the context for a request; RequestRefused if as many are under way. Used by any
    thread.
    """

    def __init__(self, most: int, what: str) -> None:
        self.most, self._why = most, f"too many requests {what}; try again"
        self._admitted: Counter[str | None] = Counter()  # by tenant
        self._lock = Lock()

    @contextmanager
    def __call__(self, caller: Caller) -> Iterator[None]:
        """The context for a request of the caller."""
        tenant, admitted = caller.tenant, self._admitted
        with self._lock:
            if admitted.total() >= self.most or (tenant is not None and admitted[tenant] >= OF_TENANT):
                raise RequestRefused(Code.BUSY, self._why, headers=RETRY_AFTER)
            admitted[tenant] += 1
        try:
            yield
        finally:
            with self._lock:
                admitted[tenant] -= 1


# In this process: for up to minutes, 10 s, 8 s, 5 s, 20 s, and 5 s; the last one for milliseconds, but for anybody.
exchanging = Quota(8, "to receivers are under way")
reading_back = Quota(4, "read older attempts")
reading_log = Quota(8, "read the log")
redelivering = Quota(4, "redeliver")
changing_many = Quota(4, "change many subscriptions")
counting = Quota(4, "count deliveries")
reading_keys = Quota(2, "read public keys without a token")


def seeing(caller: Caller, webhook_id: str | None = None, outcome: str | None = None) -> Callable[[Attempt], bool]:
    """Whether the caller may see an attempt, perhaps at one event: its subscription may have had another tenant."""
    return lambda attempt: (
        caller.tenant in {None, attempt.tenant}
        and webhook_id in {None, attempt.webhook_id}
        and outcome in {None, attempt.outcome}
    )


def of_all_tenants(caller: Caller) -> None:
    """Raise RequestRefused for a token of one tenant, where all tenants' data is shown or changed."""
    if caller.tenant is not None:
        raise RequestRefused(Code.TENANT, "this covers all tenants; the token is for one")


def check_move(caller: Caller, item: Subscribed, url: object) -> None:
    """Raise RequestRefused if a new URL would take credentials to another server, and the token may not set them."""
    moves = _target(str(url)) != _target(item.whole_url)
    if moves and (item.credentials or item.tls) and "secrets" not in caller.scopes:
        why = "its credentials would go to another server: the token needs the scope secrets"
        raise RequestRefused(Code.SCOPE, why)


def _target(url: str) -> Target | None:
    try:
        return parse_target(url)
    except ValueError:
        return None


@cache
def _positions(shape: Any) -> TypeAdapter[tuple[str, Any]]:
    return TypeAdapter(tuple[str, shape])


def told_fault(caller: Caller, fault: str | None) -> str | None:
    """Why attempts are missing. A tenant's token does not get the text, which names brokers."""
    return fault if fault is None or caller.tenant is None else "attempts cannot all be read now; try again later"


def told(caller: Caller, described: Mapping[str, Any], *texts: str) -> dict[str, Any]:
    """The description of an exchange. A tenant's token gets these `texts` without the addresses that names have here.

    The addresses may show what the deployment's own network looks like.
    """
    hidden = {} if caller.tenant is None else {each: described[each] for each in texts if described[each] is not None}
    return {**described, **{each: without_addresses(text) for each, text in hidden.items()}}
