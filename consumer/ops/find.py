"""Finds what a text names: subscriptions, stored deliveries, replays, and events of the log.

The database and the attempts in memory answer at once. The log is searched a stretch at a time, from a time on, for the
ids and keys of events, and for the values of WEBHOOK_SEARCH_FIELDS in them.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Literal, NamedTuple

from consumer.config.settings import SearchSettings
from consumer.errors import NotFound, SettingsError, Tombstone, Undecodable
from consumer.events.cloud_event import cloud_event_of, content_of, rfc3339, variables_of
from consumer.events.event import Event
from consumer.expressions.expression import Expression, ExpressionFailed, compile_projection
from consumer.intake.log_reader import LogReader
from consumer.intake.record import Record
from consumer.ledger.replays import Span
from consumer.ops.attempts import AttemptHistory
from consumer.ops.changes import Deployment
from consumer.ops.replay_request import Log, records
from consumer.ops.walk import Bounds, left, walk
from consumer.subscriptions import naming, repository
from consumer.subscriptions.subscribed import Subscribed

SHORTEST = 3  # characters of a text that is searched in the log
MOST = 20  # hits of a kind, and of a stretch of the log
_PLACE = re.compile(
    r"(?P<topic>[\w.-]+?)(?:\[|[/:])(?P<partition>\d{1,9})\]?(?:\s*@\s*|[/:])(?P<offset>\d{1,18})", re.ASCII
)
_PLAIN = re.compile(
    r"(?!msg_)[\w.:@-]+", re.ASCII
)  # written alike in JSON, in headers and in keys; a webhook-id is not
_NUMBER = re.compile(r"#?([0-9]{1,18})")

_WAYS = ("id", "event type", "external id", "tenant", "name", "url")  # in which a text names a subscription

Kind = Literal["subscription", "delivery", "replay", "event"]


class Hit(NamedTuple):
    """Something that the text names by its field `matched`. `what` says it in words; a record has a place.

    `at`: the record's timestamp (unix seconds).
    """

    kind: Kind
    matched: str
    what: str
    id: int | None = None
    topic: str | None = None
    partition: int | None = None
    offset: int | None = None
    at: float | None = None

    def as_json(self) -> dict[str, object]:
        """The hit for people, with its time as text."""
        return self._asdict() | {"at": None if self.at is None else rfc3339(self.at)}


class Stretch(NamedTuple):
    """The hits in a stretch of the log, MOST at most, and what was not read yet. `more`: the stretch has more hits."""

    hits: tuple[Hit, ...]
    left: tuple[Span, ...]
    more: bool

    @property
    def records_left(self) -> int:
        """The number of offsets that were not read yet."""
        return records(self.left)


def place_of(text: str) -> tuple[str, int, int] | None:
    """The place of a record that a text names, as `orders[3]@1234`, `orders/3/1234` or `orders:3:1234`."""
    found = _PLACE.fullmatch(text)
    return None if found is None else (found["topic"], int(found["partition"]), int(found["offset"]))


def known(where: Deployment, text: str, history: AttemptHistory | None = None, tenant: str | None = None) -> list[Hit]:
    """What the text names without a search of the log, as far as a `tenant` (None: all) may see it.

    A place is not checked. Ids, external ids, tenants and event types are looked up as they are written, a part of a
    name or URL in any case, and attempts in memory.
    """
    found: list[Hit] = []
    if (place := place_of(text)) is not None:
        found.append(Hit("event", "place", text, None, *place))
    number = None if (digits := _NUMBER.fullmatch(text)) is None else int(digits[1])
    known_by = naming.known_by(where.engine, text, MOST, number=number, tenant=tenant)
    named = repository.several(where.engine, known_by, where.vault, where.rules)
    found += sorted(
        (_subscription(item, text, number, tenant) for item in named), key=lambda hit: _WAYS.index(hit.matched)
    )
    if number is not None:
        found += _of_id(where, number, tenant)
    if history is not None:
        attempts = history.recent(None, MOST, _is(text, tenant))
        places = {(each.topic, each.partition, each.offset): each.event_type for each in attempts}
        found += [Hit("event", "webhook-id", kind, None, *place) for place, kind in places.items()]
    return found


def whole(reader: LogReader, log: Log, since: float) -> list[Span]:
    """All of the log since a time (unix seconds), to be searched. Raises KafkaUnavailable."""
    return reader.spans(reader.partitions(log.topics), since, None)


def search(log: Log, text: str, spans: Sequence[Span], bounds: Bounds, tenant: str | None = None) -> Stretch:
    """Search a stretch of the log for events that the text names.

    Raises RegistryUnavailable, and as `LogReader` does.
    """
    matches, hits = matcher(log, text), list[Hit]()
    with LogReader(log.kafka, name="search") as reader:
        for batch in walk(reader, spans, bounds):
            for record in batch:
                if (hit := matches(record, tenant)) is not None:
                    hits.append(hit)
            if len(hits) >= MOST:
                break
        return Stretch(tuple(hits[:MOST]), tuple(left(reader, spans)), len(hits) > MOST)


def matcher(log: Log, text: str) -> Callable[[Record, str | None], Hit | None]:
    """A function that gives the hit of a record that a tenant (None: all) may see, or None."""
    raw = text.encode() if log.is_plain and _PLAIN.fullmatch(text) else None

    def matches(record: Record, tenant: str | None) -> Hit | None:
        # Reading an event takes ten times as long as looking for the text in its bytes.
        if raw is not None and not any(raw in part for part in _bytes_of(record)):
            return None
        try:
            event = log.read_event(record)
        except (Tombstone, Undecodable):
            return None
        if tenant not in {None, event.tenant} or (matched := _matched(event, text, log.search_fields)) is None:
            return None
        return Hit("event", matched, event.type, None, *event.record[:3], event.record.timestamp / 1000)

    return matches


def fields_of(settings: SearchSettings) -> tuple[Expression, ...]:
    """The expressions of WEBHOOK_SEARCH_FIELDS. Raises SettingsError."""
    found = []
    for source in filter(None, map(str.strip, (settings.search_fields or "").split(";"))):
        try:
            found.append(compile_projection(source))
        except ValueError as error:
            raise SettingsError(f"WEBHOOK_SEARCH_FIELDS: {source}: {error}; for example data.order_id") from None
    return tuple(found)


def _matched(event: Event, text: str, fields: Sequence[Expression]) -> str | None:
    if text == event.webhook_id:
        return "webhook-id"
    if event.key is not None and event.key == text.encode():
        return "key"
    content = content_of(event)
    cloud = cloud_event_of(event, content)
    if text == cloud.id:
        return "event id"
    variables = variables_of(event, content) if fields else {}
    for each in fields:
        try:
            value = each.value(variables)
        except ExpressionFailed:  # most events have other fields
            continue
        if text in map(str, value if isinstance(value, list) else (value,)):
            return each.source
    return "value" if not fields and text.encode() in event.body else None


def _bytes_of(record: Record) -> Iterator[bytes]:
    yield record.value or b""
    yield record.key or b""
    if isinstance(record.headers, list):
        yield from (value for _, value in record.headers if value)


def _of_id(where: Deployment, number: int, tenant: str | None) -> Iterator[Hit]:
    with suppress(NotFound):
        delivery = where.delivery(number, tenant).delivery
        yield Hit("delivery", "id", f"{delivery.event_type}, {delivery.status}", number)
    with suppress(NotFound):
        yield Hit("replay", "id", where.replay(number, tenant).state, number)


def _subscription(item: Subscribed, text: str, number: int | None, tenant: str | None) -> Hit:
    """The hit of a subscription that the text names, by the first of _WAYS."""
    fields = {
        "id": item.id == number,
        "event type": text in item.event_types,
        "external id": item.options["external_id"] == text,
        "tenant": tenant is None and item.tenant == text,
        "name": text.casefold() in str(item.options["name"] or "").casefold(),
        "url": True,
    }
    matched, name = next(way for way in _WAYS if fields[way]), item.options["name"]
    shown = f"{name}, {item.url}" if name else item.url
    return Hit("subscription", matched, f"{shown} ({', '.join(item.event_types)})", item.id)


def _is(text: str, tenant: str | None) -> Callable[..., bool]:
    return lambda attempt: attempt.webhook_id == text and tenant in {None, attempt.tenant}
