"""`explain`: how a worker would read a record, field by field, and which subscriptions would get the event."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from sqlalchemy import Engine

from consumer.config.settings import KafkaSettings, RuleSettings
from consumer.crypto.vault import Vault
from consumer.errors import Tombstone, Undecodable, WebhooksError
from consumer.events.cloud_event import variables_of
from consumer.events.event import Event, RecordId
from consumer.expressions import EventTooLarge, Expression, ExpressionFailed
from consumer.intake.decode import decode
from consumer.intake.decoding import decoded
from consumer.intake.mapping import Step
from consumer.intake.mapping_file import Mappings, default_decoder
from consumer.intake.record import Record
from consumer.matching.destinations import rules_of
from consumer.matching.selection import FILTER_TOO_LARGE
from consumer.ops.events import newest, record_at
from consumer.subscriptions import repository
from consumer.subscriptions.options import Effect, read
from consumer.subscriptions.patterns import candidates
from consumer.subscriptions.repository import Subscribed
from models.subscription import EVERY_TENANT

MOST = 100  # subscriptions that are listed
SHOWN = 500  # bytes of a body
_LAST = 10  # offsets at a partition's end, some of which may be markers of transactions


class Explained(NamedTuple):
    """The `outcome` of the record at `place`: an event, a tombstone or a dead_letter.

    `mapping` names the rules; `steps` explain each field, up to the one at fault. `reason` and `detail` are a dead
    letter's.
    """

    place: RecordId
    mapping: str
    steps: tuple[Step, ...]
    outcome: str
    event: Event | None = None
    reason: str | None = None
    detail: str | None = None


class Candidate(NamedTuple):
    """A subscription to the event's type, and whether it `gets` the event; its url is redacted.

    `why`: the reason why it does not, or why the event is not sent at once.
    """

    id: int
    url: str
    event_type: str
    gets: bool
    why: str | None


class Candidates(NamedTuple):
    """Subscriptions by id, MOST at most; `more`: there are others."""

    found: tuple[Candidate, ...]
    more: bool


def record_of(kafka: KafkaSettings, topic: str, partition: int | None, offset: int | None) -> Record:
    """The record at an offset of a partition, or the newest one of a partition or topic.

    Raises WebhooksError if there is none, and as `events.newest` does.
    """
    if offset is not None and partition is not None:
        found = record_at(kafka, topic, partition, offset)
        where = f"{topic}[{partition}] has no record at offset {offset}"
    else:
        found = next(iter(newest(kafka, topic, _LAST, partition)), None)
        where = f"{topic}{'' if partition is None else f'[{partition}]'} has no record"
    if found is None:
        raise WebhooksError(f"{where}: is the name right, and does the log still hold it?")
    return found


def explain(
    record: Record,
    tenant_name: str,
    mapped: Mappings | None,
    json_of: Callable[[Record], Record] = lambda record: record,
) -> Explained:
    """Read a record as a worker with these rules does. `json_of`: from `events.json_reader`.

    Raises RegistryUnavailable.
    """
    decoder = (None if mapped is None else mapped.of(record.partition.topic)) or default_decoder(tenant_name)
    try:
        record = decoded(json_of, record)
    except Undecodable as error:
        return Explained(record.id, decoder.name, (), "dead_letter", None, error.reason, str(error))
    steps: list[Step] = []
    with suppress(Tombstone, Undecodable):  # `decode` raises them again below
        decoded(lambda each: steps.extend(decoder.explain(each)), record)
    so_far = Explained(record.id, decoder.name, tuple(steps), "event")
    try:
        return so_far._replace(event=decoded(partial(decode, tenant_name=tenant_name, mapped=mapped), record))
    except Tombstone:
        return so_far._replace(outcome="tombstone")
    except Undecodable as error:
        return so_far._replace(outcome="dead_letter", reason=error.reason, detail=str(error))


def candidates_of(engine: Engine, event: Event, vault: Vault, settings: RuleSettings) -> Candidates:
    """The subscriptions whose type or pattern matches the event's type, and whether each would get it now."""
    rules = rules_of(settings)
    found: list[Subscribed] = []
    for pattern in candidates(event.type):
        room = MOST + 1 - len(found)
        if room > 0:
            found += repository.page(engine, vault, after=None, limit=room, event_type=pattern, rules=rules)
    variables = variables_of(event)
    receivers = [_receiver(item, event, variables) for item in sorted(found, key=lambda item: item.id)[:MOST]]
    return Candidates(tuple(receivers), len(found) > MOST)


def _receiver(item: Subscribed, event: Event, variables: Mapping[str, object]) -> Candidate:
    why = _hindrance(item, event, variables)
    stored = next((str(problem) for problem in item.problems if problem.effect is Effect.STORED), None)
    return Candidate(item.id, item.url, item.event_type, why is None, stored if why is None else why)


def _hindrance(item: Subscribed, event: Event, variables: Mapping[str, object]) -> str | None:
    """The reason why a subscription does not get an event of its type, or None."""
    unmatched = next((str(problem) for problem in item.problems if problem.effect is Effect.UNMATCHED), None)
    if not item.enabled:
        return f"disabled: {item.disabled_reason}" if item.disabled_reason else "disabled"
    if item.tenant not in {EVERY_TENANT, event.tenant}:
        return f"tenant: it gets events of {item.tenant}; the tenant of this event is {event.tenant or 'none'}"
    if unmatched is not None:
        return unmatched
    meant, _ = read(item.options)
    if meant["topics"] is not None and event.record.topic not in meant["topics"]:
        return f"topics: it gets events of {', '.join(sorted(meant['topics']))}"
    broken = any(problem.option == "event_filter" for problem in item.problems)  # then its events are stored
    return None if broken or meant["event_filter"] is None else _refusal(meant["event_filter"], variables)


def _refusal(chosen: Expression, variables: Mapping[str, object]) -> str | None:
    """Why a filter does not choose an event; None if it does."""
    try:
        value = chosen.value(variables)
    except EventTooLarge:
        return f"{FILTER_TOO_LARGE}; its delivery is given up"
    except ExpressionFailed as error:
        return f"filter: it fails on this event: {error}"
    if not isinstance(value, bool):
        return "filter: its value is neither true nor false"
    return None if value else "filter: false for this event"
