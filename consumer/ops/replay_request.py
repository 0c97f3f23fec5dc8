"""Checks the request of a replay, and begins, cancels and resumes replays, for the command line, the API, the console.

The group's workers run it. A replay that begins, is cancelled or goes on writes an operational event in the same
transaction, as `ops.changes` does.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, tzinfo
from threading import BoundedSemaphore
from typing import NamedTuple, TypeVar

from sqlalchemy import Connection, Engine

from consumer.config.settings import KafkaSettings
from consumer.config.types import moment
from consumer.errors import Conflict, InvalidReplay, KafkaUnavailable, Unavailable
from consumer.events.cloud_event import rfc3339
from consumer.expressions.expression import Expression
from consumer.intake.decode import decode
from consumer.intake.log_reader import LogReader
from consumer.ledger import outbox, replays
from consumer.ledger.replays import Replay, Span
from consumer.ops.bounded import within
from consumer.ops.changes import Changes
from consumer.ops.events import ReadEvent
from consumer.subscriptions.options import LEAST_NUMBER, Effect
from consumer.subscriptions.patterns import check_pattern, matches
from consumer.subscriptions.subscribed import Subscribed

T = TypeVar("T")

CREATED, CANCELLED, RESUMED = "replay.created", "replay.cancelled", "replay.resumed"
PART_OF_LIMIT = 10  # a replay takes a tenth of the rate limit; the rest is left for new events
RATE_WITHOUT_LIMIT = 100.0  # deliveries per second, if the subscription has no rate limit
MOST_RATE = 100_000.0  # deliveries per second, the highest rate that can be set
OF_TENANT = 10  # replays that go on at once, of those that a tenant may begin
SECONDS = 10.0  # for which a request waits for Kafka
NO_KAFKA = "set KAFKA_BOOTSTRAP_SERVERS and KAFKA_TOPICS for this process, as workers have them"
_LOOKS = BoundedSemaphore(
    4
)  # look-ups of the log in this process: each has a client, and a thread for at most a minute


class Log(NamedTuple):
    """The log of a group's workers: the cluster and the group, the topics as in KAFKA_TOPICS, and their events.

    `search_fields`: those of WEBHOOK_SEARCH_FIELDS. `is_plain`: values are as written, without a schema registry.
    """

    kafka: KafkaSettings
    topics: Sequence[str]
    read_event: ReadEvent = decode
    search_fields: Sequence[Expression] = ()
    is_plain: bool = True


class Wanted(NamedTuple):
    """The requested values. Times as in `config.types.moment`; no topic means all; `rate` None: the default.

    `ordered`: keep the order of each record key.
    """

    since: str
    until: str | None = None
    event_type: str | None = None
    topics: Sequence[str] = ()
    rate: float | None = None
    ordered: bool = False


class Plan(NamedTuple):
    """A valid replay. Times are unix seconds; `until` None: the present end of the log. `rate`: deliveries/s."""

    receiver: Subscribed
    since: float
    until: float | None
    event_type: str | None
    topics: Sequence[str]
    rate: float
    asked_at: float
    ordered: bool = False

    @property
    def end(self) -> float:
        """The end of its time."""
        return self.asked_at if self.until is None else self.until


def prepare(
    by: Changes, log: Log, subscription_id: int, wanted: Wanted, zone: tzinfo | None = UTC
) -> tuple[Plan, list[Span]]:
    """The requested replay, checked as by `plan`, and what it would read, as by `spans_soon`, for a request.

    Raises NotFound, and Conflict if the subscription is disabled, or its tenant has begun as many replays as it may. A
    tenant's replay of a subscription without a rate limit has the default rate at most.
    """
    where, tenant = by.deployment, by.tenant
    receiver = where.subscription(subscription_id, tenant)
    if not receiver.enabled:
        raise Conflict("the subscription is disabled; enable it first")
    if (
        tenant is not None
        and len(replays.find(where.engine, limit=OF_TENANT, tenant=tenant, is_open=True)) == OF_TENANT
    ):
        raise Conflict(f"{OF_TENANT} replays go on; wait until one has finished, or cancel it")
    planned = plan(receiver, wanted, where.clock(), zone, MOST_RATE if tenant is None else RATE_WITHOUT_LIMIT)
    return planned, spans_soon(log, planned)


def plan(receiver: Subscribed, wanted: Wanted, now: float, zone: tzinfo | None = UTC, most: float = MOST_RATE) -> Plan:
    """The requested replay, checked. A time without a zone is in `zone`; None: it is refused.

    `most`: the highest rate if the subscription has no limit. Raises InvalidReplay, or Conflict if the subscription
    matches nothing.
    """
    since = _moment("since", wanted.since, now, zone)
    until = None if wanted.until is None else _moment("until", wanted.until, now, zone)
    if since >= now:
        raise InvalidReplay("since", "is not in the past")
    if until is not None and until <= since:
        raise InvalidReplay("until", "is not after the beginning")
    _check_type(receiver, wanted.event_type)
    rate = _rate(receiver, wanted.rate, most)
    if wanted.ordered and receiver.options["ordering"] != "key":
        raise InvalidReplay("ordered", f"is for subscriptions that are ordered by key; {receiver.id} is not")
    check_receiver(receiver)
    return Plan(
        receiver,
        since,
        None if until is None or until >= now else until,
        wanted.event_type,
        tuple(wanted.topics),
        rate,
        now,
        wanted.ordered,
    )


def default_rate(limit: float | None) -> float:
    """Deliveries per second of a replay for a subscription with this rate limit."""
    return RATE_WITHOUT_LIMIT if limit is None else max(LEAST_NUMBER, limit / PART_OF_LIMIT)


def check_receiver(subscription: Subscribed) -> None:
    """Raise Conflict if the subscription matches nothing, or its filter cannot be used."""
    for problem in subscription.problems:
        if problem.effect is Effect.UNMATCHED or problem.option == "event_filter":
            raise Conflict(f"subscription {subscription.id} cannot be replayed to: {problem}")


def _moment(option: str, text: str, now: float, zone: tzinfo | None) -> float:
    try:
        return moment(text, now, zone)
    except ValueError as error:
        raise InvalidReplay("since" if option == "since" else "until", str(error)) from None


def _check_type(receiver: Subscribed, event_type: str | None) -> None:
    if event_type is None:
        return
    try:
        check_pattern(event_type)
    except ValueError as error:
        raise InvalidReplay("event_type", str(error)) from None
    # If two patterns have a type in common, one of them matches every type that the other does.
    if not any(matches(each, event_type) or matches(event_type, each) for each in receiver.event_types):
        names = ", ".join(receiver.event_types)
        raise InvalidReplay("event_type", f"would match nothing: subscription {receiver.id} gets {names}")


def _rate(receiver: Subscribed, rate: float | None, most: float) -> float:
    limit = receiver.options["rate_limit"]
    most = limit or most
    if rate is None:
        return default_rate(limit)
    if not LEAST_NUMBER <= rate <= most:
        whose = f", the limit of subscription {receiver.id}" if limit else ""
        raise InvalidReplay("rate", f"is not from {LEAST_NUMBER:g} to {most:g} per second{whose}")
    return rate


def spans(reader: LogReader, topics: Sequence[str], planned: Plan) -> list[Span]:
    """The parts of the log that the replay would read, of `topics` (as in KAFKA_TOPICS).

    Raises InvalidReplay, KafkaUnavailable, or Conflict if none of the topics exists.
    """
    partitions = reader.partitions(topics)
    if not partitions:
        raise Conflict(f"no topic of KAFKA_TOPICS={','.join(topics)} exists")
    there = {topic for topic, _ in partitions}
    for index, topic in enumerate(planned.topics):
        if topic not in there:
            why = "is a topic that no worker sends from: it is not one of KAFKA_TOPICS, or does not exist"
            raise InvalidReplay("topics", why, index)
    chosen = [each for each in partitions if not planned.topics or each[0] in planned.topics]
    return reader.spans(chosen, planned.since, planned.until)


def spans_soon(log: Log, planned: Plan, seconds: float = SECONDS) -> list[Span]:
    """The same in at most `seconds`, for a request; KafkaUnavailable if it takes longer, or too many run."""
    return soon(log, lambda reader: spans(reader, log.topics, planned), seconds)


def soon(log: Log, read: Callable[[LogReader], T], seconds: float = SECONDS) -> T:
    """What is read of the log's positions, as by `spans_soon`."""
    if not _LOOKS.acquire(blocking=False):
        raise KafkaUnavailable("too many requests look for places in the log; try again")

    def look() -> T:
        try:
            with LogReader(log.kafka) as reader:
                return read(reader)
        finally:
            _LOOKS.release()

    try:
        return within(look, seconds)
    except KafkaUnavailable:
        raise
    except Unavailable as error:
        raise KafkaUnavailable(f"Kafka at {log.kafka.bootstrap_servers} gave {error}") from None


def parts(found: Sequence[Span]) -> list[dict[str, object]]:
    """Spans as a preview lists them: the offsets that would be read, by partition."""
    return [
        {
            "topic": each.topic,
            "partition": each.number,
            "first_offset": each.begin,
            "last_offset": each.end - 1,
            "records": each.end - each.begin,
        }
        for each in found
    ]


def records(found: Sequence[Span]) -> int:
    """The number of offsets in spans."""
    return sum(span.end - span.begin for span in found)


def create(connection: Connection, group: str, actor: str, planned: Plan, found: Sequence[Span]) -> int:
    """Begin a replay in the caller's transaction, and return its id: the group's workers run it."""
    receiver = planned.receiver
    number = replays.create(
        connection,
        group,
        receiver.id,
        planned.since,
        planned.end,
        planned.event_type,
        planned.rate,
        found,
        planned.asked_at,
        ordered=planned.ordered,
        created_by=actor,
    )
    told = {
        "replay_id": number,
        "subscription_id": receiver.id,
        "url": receiver.url,
        "actor": actor,
        "since": rfc3339(planned.since),
        "until": rfc3339(planned.end),
        "event_type": planned.event_type,
        "topics": list(planned.topics) or None,
        "rate": planned.rate,
        "ordered": planned.ordered,
        "records": records(found),
    }
    outbox.tell(connection, group, CREATED, told)
    return number


def cancel(engine: Engine, actor: str, replay_id: int, now: float) -> bool:
    """Cancel a replay as `replays.cancel` does."""
    with engine.begin() as connection:
        return replays.cancel(connection, replay_id, now) and _told(connection, CANCELLED, actor, replay_id)


def end(by: Changes, replay_id: int) -> Replay:
    """Cancel one of the tenant's replays. Raises NotFound, and Conflict if it has ended."""
    where = by.deployment
    where.replay(replay_id, by.tenant)
    if not cancel(where.engine, by.actor, replay_id, where.clock()):
        raise Conflict("the replay has ended")
    return where.replay(replay_id, by.tenant)


def go_on(by: Changes, replay_id: int) -> Replay:
    """Resume one of the tenant's replays. Raises NotFound, and Conflict if it is not cancelled, or cannot go on."""
    where = by.deployment
    found = where.replay(replay_id, by.tenant)
    if not resume(where.engine, by.actor, replay_id):
        raise Conflict((found.state == "cancelled" and found.last_error) or "the replay is not cancelled")
    return where.replay(replay_id, by.tenant)


def resume(engine: Engine, actor: str, replay_id: int) -> bool:
    """Go on with a cancelled replay as `replays.resume` does."""
    with engine.begin() as connection:
        return replays.resume(connection, replay_id) and _told(connection, RESUMED, actor, replay_id)


def _told(connection: Connection, what: str, actor: str, replay_id: int) -> bool:
    changed = replays.load(connection, replay_id)
    assert changed is not None, "this transaction holds its row"  # noqa: S101 (for mypy, too)
    told = {
        "replay_id": replay_id,
        "subscription_id": changed.subscription_id,
        "actor": actor,
        "records_left": changed.records_left,
    }
    outbox.tell(connection, changed.group, what, told)
    return True
