"""Checks the request of a replay, and begins and cancels replays, for the command line, the API and the console.

A replay that begins or is cancelled writes an operational event in the same transaction, as `ops.changes` does.
"""

from collections.abc import Sequence
from datetime import UTC, tzinfo
from threading import BoundedSemaphore
from typing import NamedTuple

from sqlalchemy import Connection, Engine

from consumer.config.settings import KafkaSettings
from consumer.config.types import moment
from consumer.errors import InvalidReplay, KafkaUnavailable, Unavailable, WebhooksError
from consumer.events.cloud_event import rfc3339
from consumer.intake.decode import decode
from consumer.intake.log_reader import LogReader
from consumer.ledger import outbox, replays
from consumer.ledger.replays import Span
from consumer.ops.bounded import within
from consumer.ops.events import ReadEvent
from consumer.ops.replay import MOST_RATE, check_receiver, default_rate
from consumer.subscriptions.options import LEAST_NUMBER
from consumer.subscriptions.patterns import check_pattern, matches
from consumer.subscriptions.subscribed import Subscribed

CREATED, CANCELLED = "replay.created", "replay.cancelled"
SECONDS = 10.0  # for which a request waits for Kafka
NO_KAFKA = "set KAFKA_BOOTSTRAP_SERVERS and KAFKA_TOPICS for this process, as workers have them"
_LOOKS = BoundedSemaphore(
    4
)  # look-ups of the log in this process: each has a client, and a thread for at most a minute


class Log(NamedTuple):
    """The log of a group's workers: the cluster and the group, the topics as in KAFKA_TOPICS, and their events."""

    kafka: KafkaSettings
    topics: Sequence[str]
    read_event: ReadEvent = decode


class Wanted(NamedTuple):
    """The requested values. Times as in `config.types.moment`; no topic means all; `rate` None: the default."""

    since: str
    until: str | None = None
    event_type: str | None = None
    topics: Sequence[str] = ()
    rate: float | None = None


class Plan(NamedTuple):
    """A valid replay. Times are unix seconds; `until` None: the present end of the log. `rate`: deliveries/s."""

    receiver: Subscribed
    since: float
    until: float | None
    event_type: str | None
    topics: Sequence[str]
    rate: float
    asked_at: float

    @property
    def end(self) -> float:
        """The end of its time."""
        return self.asked_at if self.until is None else self.until


def plan(receiver: Subscribed, wanted: Wanted, now: float, zone: tzinfo | None = UTC) -> Plan:
    """The requested replay, checked. A time without a zone is in `zone`; None: it is refused.

    Raises InvalidReplay, or WebhooksError if the subscription matches nothing.
    """
    since = _moment("since", wanted.since, now, zone)
    until = None if wanted.until is None else _moment("until", wanted.until, now, zone)
    if since >= now:
        raise InvalidReplay("since", "is not in the past")
    if until is not None and until <= since:
        raise InvalidReplay("until", "is not after the beginning")
    _check_type(receiver, wanted.event_type)
    rate = _rate(receiver, wanted.rate)
    check_receiver(receiver)
    return Plan(
        receiver,
        since,
        None if until is None or until >= now else until,
        wanted.event_type,
        tuple(wanted.topics),
        rate,
        now,
    )


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
    if not matches(receiver.event_type, event_type) and not matches(event_type, receiver.event_type):
        raise InvalidReplay("event_type", f"would match nothing: subscription {receiver.id} gets {receiver.event_type}")


def _rate(receiver: Subscribed, rate: float | None) -> float:
    limit = receiver.options["rate_limit"]
    most = limit or MOST_RATE
    if rate is None:
        return default_rate(limit)
    if not LEAST_NUMBER <= rate <= most:
        whose = f", the limit of subscription {receiver.id}" if limit else ""
        raise InvalidReplay("rate", f"is not from {LEAST_NUMBER:g} to {most:g} per second{whose}")
    return rate


def spans(reader: LogReader, topics: Sequence[str], planned: Plan) -> list[Span]:
    """The parts of the log that the replay would read, of `topics` (as in KAFKA_TOPICS).

    Raises InvalidReplay, KafkaUnavailable, or WebhooksError if none of the topics exists.
    """
    partitions = reader.partitions(topics)
    if not partitions:
        raise WebhooksError(f"no topic of KAFKA_TOPICS={','.join(topics)} exists")
    there = {topic for topic, _ in partitions}
    for index, topic in enumerate(planned.topics):
        if topic not in there:
            why = "is a topic that no worker sends from: it is not one of KAFKA_TOPICS, or does not exist"
            raise InvalidReplay("topics", why, index)
    chosen = [each for each in partitions if not planned.topics or each[0] in planned.topics]
    return reader.spans(chosen, planned.since, planned.until)


def spans_soon(log: Log, planned: Plan, seconds: float = SECONDS) -> list[Span]:
    """The same in at most `seconds`, for a request; KafkaUnavailable if it takes longer, or too many run."""
    if not _LOOKS.acquire(blocking=False):
        raise KafkaUnavailable("too many replays are being looked up; try again")

    def look() -> list[Span]:
        try:
            with LogReader(log.kafka) as reader:
                return spans(reader, log.topics, planned)
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


def create(
    connection: Connection, group: str, actor: str, planned: Plan, found: Sequence[Span], *, background: bool
) -> int:
    """Note a replay in the caller's transaction, and return its id. `background`: the API's processes run it."""
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
        background=background,
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
        "records": records(found),
    }
    outbox.tell(connection, group, CREATED, told)
    return number


def cancel(engine: Engine, actor: str | None, replay_id: int, now: float, reason: str | None = None) -> bool:
    """Cancel a replay as `replays.cancel` does. `actor` None: the service itself, for a `reason`."""
    with engine.begin() as connection:
        if not replays.cancel(connection, replay_id, now, reason):
            return False
        cancelled = replays.load(connection, replay_id)
        assert cancelled is not None, "this transaction holds its row"  # noqa: S101 (for mypy, too)
        told = {
            "replay_id": replay_id,
            "subscription_id": cancelled.subscription_id,
            "actor": actor,
            "reason": reason,
            "stored": cancelled.matched,
        }
        outbox.tell(connection, cancelled.group, CANCELLED, told)
        return True
