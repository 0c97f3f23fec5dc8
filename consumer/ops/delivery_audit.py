"""Proves that each event of a stretch of the log was delivered, is still owed, or was given up; or names the missing.

The log says which events there are, and the present subscriptions which ones they get. Then the group's offsets, the
cursors, the stored deliveries and the attempts are read, in this order. A delivery moves in the same order, and each
step is on record before the one before it is undone: so workers may go on meanwhile.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import ceil, inf
from typing import Any, NamedTuple

from consumer.errors import Conflict, Tombstone, Undecodable
from consumer.events.attempt import DELIVERED, EXHAUSTED, parse
from consumer.events.cloud_event import rfc3339, variables_of
from consumer.events.event import Event
from consumer.intake import offsets
from consumer.intake.log_reader import LogReader
from consumer.ledger import cursors, search
from consumer.ledger.cursors import KeptCursor
from consumer.ledger.replays import Span
from consumer.ledger.rows import DueKey
from consumer.ops import events
from consumer.ops.attempt_pages import no_topic
from consumer.ops.attempts import SKEW
from consumer.ops.changes import CHANGED, DISABLED, ENABLED, Deployment
from consumer.ops.cluster import committed_offsets
from consumer.ops.matching import barred, candidates_of, meant_by, refusal
from consumer.ops.replay_request import Log, records
from consumer.ops.story import NO_HISTORY
from consumer.ops.walk import UNBOUNDED, walk
from models import Status

HOUR = 3600
AT_ONCE = 100_000  # records whose deliveries are looked for together
MOST = 1_000_000  # deliveries that are looked for together: some 130 MB
LISTED = 10_000  # missing deliveries that are named; the others are counted
RECEIVERS = 10_000  # subscriptions of one event type
COUNTS_AFTER = 5.0  # seconds after its creation until every worker knows a subscription


class Fate(StrEnum):
    """What has become of a delivery."""

    DELIVERED = "delivered"
    WAITING = "waiting"  # stored, or its record is not committed yet
    GIVEN_UP = "given_up"
    COVERED = "covered"  # a cursor owes it
    CHANGED = "changed"  # nothing is on record; its subscription was changed later, and may not have matched before
    MISSING = "missing"


COLUMNS = ("topic", "hour", "records", "events", "matched", *map(str, Fate))


class Missing(NamedTuple):
    """A delivery that nothing is on record of. `at`: when its record was written (unix seconds)."""

    topic: str
    partition: int
    offset: int
    at: float
    subscription_id: int

    def as_json(self) -> dict[str, object]:
        """The delivery, for people."""
        return self._asdict() | {"at": rfc3339(self.at)}


@dataclass(slots=True)
class DeliveryAudit:
    """What was found so far. `counts`: by topic and hour (unix seconds), of `records`, `events`, `matched` and Fates.

    `faults`: why deliveries may seem to be missing. `left`: records that are still to be read.
    """

    left: int = 0
    counts: dict[tuple[str, int], Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    missing: list[Missing] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def total(self) -> Counter[str]:
        """The counts of all topics and hours together."""
        return sum(self.counts.values(), Counter[str]())

    def rows(self) -> list[dict[str, Any]]:
        """The counts for people, by topic and hour."""
        return [
            {"topic": topic, "hour": rfc3339(hour)} | {name: each[name] for name in COLUMNS[2:]}
            for (topic, hour), each in sorted(self.counts.items())
        ]

    def as_json(self) -> dict[str, object]:
        """All that was found, for people."""
        total, missing = self.total, [each.as_json() for each in self.missing]
        return {"hours": self.rows(), "missing": missing, "not_listed": total["missing"] - len(missing)} | {
            "faults": self.faults
        }


# Deliveries that were not found yet, each with its record's timestamp (milliseconds), by offset.
_Owed = dict[DueKey, dict[int, int]]


def audit(
    log: Log,
    where: Deployment,
    attempts_topic: str | None,
    since: float,
    until: float,
    tenant: str | None = None,
    subscription_id: int | None = None,
) -> Generator[DeliveryAudit, None, None]:
    """Audit the log between two times (unix seconds), an hour after the other. Yields the result as it grows.

    `tenant`, `subscription_id`: the subscriptions that count; None: all. Events before a subscription was registered
    are not its own. Raises NotFound for a subscription that does not exist, Conflict without an attempts topic or if
    more than MOST deliveries or RECEIVERS subscriptions come together, RegistryUnavailable, and as `LogReader` does.
    """
    if attempts_topic is None:
        raise Conflict(NO_HISTORY)
    found, changed = DeliveryAudit(), _changes(log)
    subscribers = _Subscribers(where, tenant, subscription_id)
    with LogReader(log.kafka, name="audit") as reader:
        partitions = reader.partitions(log.topics)
        found.left = records(reader.spans(partitions, since, until))
        found.faults += _too_old(reader, attempts_topic, since)
        while since < until and found.left > 0:
            end = min(until, (since // HOUR + 1) * HOUR)
            hour = reader.spans(partitions, since, end)
            if not hour:  # the time may begin years before the log
                stamps = [each.timestamp for each in reader.firsts(partitions, since).values()]
                end = max(end, min((each / 1000 for each in stamps if each is not None), default=until))
            for spans in _parts(hour):
                owed: _Owed = defaultdict(dict)
                for _ in _match(log, reader, spans, subscribers, owed, found):
                    yield found
                found.left -= records(spans)
                _stored(log, where, spans, owed, found)
                given_up: list[tuple[DueKey, int]] = []
                for _ in _tried(log, attempts_topic, owed, found, given_up):
                    yield found
                _found(given_up, Fate.GIVEN_UP, owed, found)
                _nowhere(owed, changed, found)
            since = end
            yield found
    yield found


def _parts(spans: Sequence[Span]) -> Iterator[list[Span]]:
    """The spans in parts of about AT_ONCE records, each of about the same time in all of them."""
    number = ceil(records(spans) / AT_ONCE)
    for part in range(number):
        cut = (
            span._replace(
                begin=span.begin + (span.end - span.begin) * part // number,
                end=span.begin + (span.end - span.begin) * (part + 1) // number,
            )
            for span in spans
        )
        yield [span for span in cut if span.begin < span.end]


class _Subscribers:
    """The subscriptions that may get events of a type: each with the time from which on it does, and its options."""

    def __init__(self, where: Deployment, tenant: str | None, subscription_id: int | None) -> None:
        self._where, self._tenant = where, tenant
        self._one = None if subscription_id is None else [where.subscription(subscription_id, tenant)]
        self._of: dict[str, list[tuple[int, float, Any]]] = {}

    def of(self, event_type: str) -> list[tuple[int, float, Any]]:
        if (known := self._of.get(event_type)) is not None:
            return known
        items = self._one
        if items is None:
            items = candidates_of(self._where, event_type, RECEIVERS + 1, self._tenant)
            if len(items) > RECEIVERS:
                raise Conflict(f"more than {RECEIVERS:,} subscriptions get {event_type}: audit one, or one tenant")
        found = self._of[event_type] = [
            (item.id, 0.0 if item.created_at is None else item.created_at.timestamp() + COUNTS_AFTER, meant_by(item))
            for item in items
            if barred(item, event_type) is None
        ]
        return found


def _match(
    log: Log, reader: LogReader, spans: Sequence[Span], subscribers: _Subscribers, owed: _Owed, found: DeliveryAudit
) -> Iterator[None]:
    """Read spans: their events are owed to the subscriptions that they match."""
    number = 0
    for batch in walk(reader, spans, UNBOUNDED):
        for record in batch:
            topic, timestamp = record.partition.topic, record.timestamp
            counts = found.counts[topic, _hour(timestamp)]
            counts["records"] += 1
            try:
                event = log.read_event(record)
            except (Tombstone, Undecodable):  # no event, so nobody gets it
                continue
            counts["events"] += 1
            for due_key in _receivers(event, subscribers):
                owed[due_key][record.offset] = timestamp
                counts["matched"] += 1
                number += 1
        if number > MOST:
            raise Conflict(f"more than {MOST:,} deliveries in {AT_ONCE:,} records: audit one tenant or subscription")
        yield


def _receivers(event: Event, subscribers: _Subscribers) -> Iterator[DueKey]:
    variables = None
    for number, begins, meant in subscribers.of(event.type):
        if begins > event.record.timestamp / 1000:
            continue
        if variables is None:
            variables = variables_of(event) if meant["event_filter"] is not None else None
        if refusal(meant, event, variables or {}) is None:
            yield (event.record.topic, event.record.partition, number)


def _stored(log: Log, where: Deployment, spans: Sequence[Span], owed: _Owed, found: DeliveryAudit) -> None:
    """Find deliveries whose records are not committed yet, that cursors owe, and that are stored, in this order."""
    committed = committed_offsets(log.kafka, {due_key[:2] for due_key in owed})
    for due_key, waiting in owed.items():
        mark = committed.get(due_key[:2])
        _found([(due_key, each) for each in waiting if mark is None or each >= mark], Fate.WAITING, owed, found)
    for partition in {due_key[:2] for due_key in owed}:
        for cursor in cursors.of_partition(where.engine, where.group, partition):
            if not cursor.replay and cursor.due_key in owed:
                covers, mine = _coverage(cursor), owed[cursor.due_key]
                _found([(cursor.due_key, each) for each in mine if covers(each)], Fate.COVERED, owed, found)
    for span in spans:
        for row in search.statuses(where.engine, where.group, span):
            due_key = span.topic, span.number, row.subscription_id
            if owed.get(due_key, {}).get(row.offset) == row.timestamp:  # else it is of an earlier topic of this name
                fate = {Status.DELIVERED: Fate.DELIVERED, Status.EXHAUSTED: Fate.GIVEN_UP}.get(row.status, Fate.WAITING)
                _found([(due_key, row.offset)], fate, owed, found)


def _coverage(cursor: KeptCursor) -> Callable[[int], bool]:
    """Whether a cursor owes an offset."""
    end, runs = inf if cursor.end is None else cursor.end, offsets.decode(cursor.next, cursor.runs)
    return lambda offset: cursor.next <= offset < end and not any(start <= offset < stop for start, stop in runs)


def _tried(
    log: Log, topic: str, owed: _Owed, found: DeliveryAudit, given_up: list[tuple[DueKey, int]]
) -> Iterator[None]:
    """Find the deliveries that an attempt has made, until none is left; note the given up ones, whose rows are gone."""
    times = [timestamp for waiting in owed.values() for timestamp in waiting.values()]
    if not times:
        return
    with LogReader(log.kafka, name="attempts") as reader:
        spans = reader.spans(reader.partitions_of(topic), max(0.0, min(times) / 1000 - SKEW), None)
        unfound = len(times)
        for batch in walk(reader, spans, UNBOUNDED):
            for record in batch:
                attempt = parse(record.value, log.kafka.event_source)
                if attempt is None:
                    continue
                due_key = attempt.topic, attempt.partition, attempt.subscription_id
                if attempt.outcome == DELIVERED:
                    unfound -= _found([(due_key, attempt.offset)], Fate.DELIVERED, owed, found)
                elif attempt.outcome == EXHAUSTED and attempt.offset in owed.get(due_key, ()):
                    given_up.append((due_key, attempt.offset))
            if not unfound:
                return
            yield


def _nowhere(owed: _Owed, changed: dict[int, float], found: DeliveryAudit) -> None:
    """The rest is missing, unless its subscription was changed after its record."""
    for due_key, waiting in owed.items():
        for offset, timestamp in sorted(waiting.items()):
            later = changed.get(due_key[2], 0.0) > timestamp / 1000 - COUNTS_AFTER
            _found([(due_key, offset)], Fate.CHANGED if later else Fate.MISSING, owed, found)
            if not later and len(found.missing) < LISTED:
                found.missing.append(Missing(*due_key[:2], offset, timestamp / 1000, due_key[2]))


def _found(places: Sequence[tuple[DueKey, int]], fate: Fate, owed: _Owed, found: DeliveryAudit) -> int:
    """Count deliveries that are still owed, which are now found. Returns how many they are."""
    number = 0
    for due_key, offset in places:
        if (timestamp := owed.get(due_key, {}).pop(offset, None)) is not None:
            found.counts[due_key[0], _hour(timestamp)][fate] += 1
            number += 1
    return number


def _hour(timestamp: int) -> int:
    return max(0, timestamp) // 1000 // HOUR * HOUR


def _changes(log: Log) -> dict[int, float]:
    """When each subscription was last changed so that it matches other events; of the newest operational events."""
    newest = events.audit(log.kafka, events.SEARCHED).found
    return {
        each.subscription_id: each.at
        for each in reversed(newest)
        if each.subscription_id is not None and each.type in {CHANGED, ENABLED, DISABLED}
    }


def _too_old(reader: LogReader, topic: str, since: float) -> list[str]:
    """Why deliveries may seem to be missing: retention has removed attempts since then; or the topic is not there."""
    partitions = reader.partitions_of(topic)
    if not partitions:
        raise Conflict(str(no_topic(topic)))
    firsts = [each for each in reader.firsts(partitions, 0.0).values() if each.offset > 0]
    oldest = max((each.timestamp / 1000 for each in firsts if each.timestamp is not None), default=0.0)
    if oldest <= since:
        return []
    return [f"{topic} has no attempts before {rfc3339(oldest)}: deliveries until then may be listed as missing"]
