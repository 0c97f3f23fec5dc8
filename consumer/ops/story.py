"""Who got an event, who did not, and why: for its page, the API and `explain`.

The attempts topic knows what was tried, the stored deliveries what waits or was given up, the cursors what is owed from
the log, and the group's committed offset whether a worker is done with the record.
"""

from collections import defaultdict
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from confluent_kafka import KafkaException

from consumer.config.settings import KafkaSettings
from consumer.errors import WebhooksError
from consumer.events.attempt import DELIVERED, EXHAUSTED, Attempt
from consumer.events.cloud_event import rfc3339, variables_of
from consumer.events.event import Event
from consumer.http.urls import redact_url
from consumer.ledger import admin, backlogs
from consumer.ledger.admin import StoredDelivery
from consumer.ops.attempts import AttemptHistory
from consumer.ops.bounded import within
from consumer.ops.changes import Deployment
from consumer.ops.cluster import committed_offsets
from consumer.ops.matching import candidates_of, hindrance, request_for
from consumer.ops.waiting import wait_of
from consumer.subscriptions import repository
from consumer.subscriptions.options import Effect
from consumer.subscriptions.patterns import candidates
from consumer.subscriptions.subscribed import Subscribed
from models import CursorReason, Status
from models.base import BEFORE_IDS
from models.subscription import EVERY_TENANT

MOST = 100  # receivers in a part of a story
MOST_ROWS = 1_000  # stored deliveries that are read for it: replays may have made several for each
SECONDS = 3.0  # for Kafka's answer about the group's offset
NO_HISTORY = "attempts are not on record: set KAFKA_ATTEMPTS_TOPIC for workers and for this process"


class ReceiverState(StrEnum):
    """What has become of an event at a receiver."""

    DELIVERED = "delivered"
    WAITING = "waiting"
    GIVEN_UP = "given_up"
    UNMATCHED = "unmatched"
    REGISTERED_LATER = "registered_later"
    UNKNOWN = "unknown"  # nothing is on record


class Receiver(NamedTuple):
    """A subscription, what has become of an event there, and `why`.

    `url` (redacted), `event_type`, `name` and `tenant` are the subscription's, None if it was removed and nothing says
    them. `matches`: it would get the event now, as `request` (method, URL, and the headers that follow the event) or
    with the reason why there is none. `delivery_id`: its stored delivery. `attempts`: the newest first.
    """

    subscription_id: int
    url: str | None
    event_type: str | None
    name: str | None
    tenant: str | None
    state: ReceiverState
    why: str | None
    matches: bool
    request: str | None
    delivery_id: int | None
    attempts: tuple[Attempt, ...]

    def as_json(self) -> dict[str, object]:
        """The receiver for people, with the times of its attempts as text."""
        attempts = [each._asdict() | {"at": rfc3339(each.at)} for each in self.attempts]
        return self._asdict() | {"attempts": attempts}


Position = tuple[bool, int]  # of the receivers: those with a trace come first; and an id


class Story(NamedTuple):
    """A part of the receivers, by id: MOST at most. `next`: the position after it; None: there are no more.

    `others`: how many subscriptions to its type are for other tenants; None: not told. `missing`: why attempts may be
    missing.
    """

    receivers: tuple[Receiver, ...]
    next: Position | None
    others: int | None
    missing: str | None


class Traces(NamedTuple):
    """All that is known of an event and a subscription (None: it was removed).

    `hindrance`: why it would not get the event now. `settled`: whether the group's workers are done with the record;
    None: not known. `now`: unix seconds.
    """

    item: Subscribed | None
    attempts: Sequence[Attempt]
    stored: StoredDelivery | None
    covered: CursorReason | None
    hindrance: str | None
    settled: bool | None
    now: float


def tell(
    deployment: Deployment,
    event: Event,
    kafka: KafkaSettings,
    history: AttemptHistory | None,
    tenant: str | None = None,
    subscription_id: int | None = None,
    after: Position | None = None,
) -> Story:
    """The story of an event after a position, told to a `tenant` (None: all), perhaps of one subscription alone.

    The event has to be of that tenant. Its receivers are those with a stored delivery or an attempt, and the other
    subscriptions to its type of its tenant or of all tenants. Kafka may not answer: the rest is told all the same.
    """
    place, where = event.record, deployment
    attempts, missing = _attempts(history, event)
    tried = defaultdict[int, list[Attempt]](list)
    for attempt in attempts:
        if attempt.place == place[:3]:
            tried[attempt.subscription_id].append(attempt)
    rows = admin.of_record(where.engine, where.group, place, MOST_ROWS)
    stored = {row.subscription_id: row for row in reversed(rows)}  # the first one of each
    traced = sorted({*tried, *stored})[:MOST_ROWS] if subscription_id is None else [subscription_id]
    found = repository.several(where.engine, traced, where.vault, where.rules)
    items = {item.id: item for item in found if tenant in {None, item.tenant}}
    untraced, last = after or (False, BEFORE_IDS)
    ids = [each for each in traced if (tenant is None or each in items) and (False, each) > (untraced, last)]
    tenants, rest = (tenant or event.tenant or EVERY_TENANT, tenant or EVERY_TENANT), last if untraced else None
    while subscription_id is None and len(ids) <= MOST:
        page = candidates_of(where, event.type, MOST + 1, tenants, rest)
        fresh = {item.id: item for item in page if item.id not in traced}
        items |= fresh
        ids += fresh
        if len(page) <= MOST:
            break
        rest = page[-1].id
    others = None
    if tenant is None and subscription_id is None:
        others = repository.count_others(where.engine, candidates(event.type), tenants)
    shown = sorted(ids[:MOST])
    covered = backlogs.covering(where.engine, where.group, place.topic_partition, place.offset, shown)
    settled, variables = _is_settled(kafka, event), variables_of(event)
    receivers = []
    for each in shown:
        item, row = items.get(each), stored.get(each)
        obstacle = None if item is None else hindrance(item, event, variables)
        traces = Traces(item, tried[each], row, covered.get(each), obstacle, settled, where.clock())
        receivers.append(_receiver(each, traces, event))
    following = (ids[MOST - 1] not in traced, ids[MOST - 1]) if len(ids) > MOST else None
    return Story(tuple(receivers), following, others, missing)


def judge(it: Traces, record_at: float) -> tuple[ReceiverState, str | None]:  # noqa: PLR0911 (one for each case)
    """What has become of an event, whose record was written at `record_at` (unix seconds), and why. Pure."""
    success = next((each for each in it.attempts if each.outcome == DELIVERED), None)
    last = it.attempts[0] if it.attempts else None
    failed = None if last is None else f"attempt {last.attempt} failed: {last.error}"
    if success is not None:
        return ReceiverState.DELIVERED, f"{rfc3339(success.at)}, attempt {success.attempt}, status {success.status}"
    if it.stored is not None:
        return _of_row(it.stored, it.item, it.now)
    if last is not None and last.outcome == EXHAUSTED:
        return ReceiverState.GIVEN_UP, failed
    if it.item is None:
        return ReceiverState.UNKNOWN, "its subscription was removed"
    if it.hindrance is not None:
        return ReceiverState.UNMATCHED, it.hindrance
    broken = next((str(each) for each in it.item.problems if each.effect is Effect.STORED), None)
    if it.covered is not None:
        owed = "it waits in Kafka, behind earlier ones, and is sent in its turn"
        return ReceiverState.WAITING, "; ".join(filter(None, (it.item.pause, broken, owed)))
    if it.settled is False:
        waits = "the group has not committed its record yet"
        return ReceiverState.WAITING, "; ".join(filter(None, (failed, it.item.pause, broken, waits)))
    created = it.item.created_at
    if last is None and created is not None and created.timestamp() > record_at:
        return ReceiverState.REGISTERED_LATER, f"registered {rfc3339(created.timestamp())}"
    return ReceiverState.UNKNOWN, failed or "no attempt is on record"


def _of_row(row: StoredDelivery, item: Subscribed | None, now: float) -> tuple[ReceiverState, str | None]:
    failed = None if row.last is None else f"attempt {row.attempt} failed: {row.last.error}"
    if row.status == Status.DELIVERED:
        return ReceiverState.DELIVERED, f"{rfc3339(row.updated_at)}, attempt {row.attempt}"
    if row.status == Status.EXHAUSTED:
        return ReceiverState.GIVEN_UP, failed
    wait = None if row.status == Status.BLOCKED else wait_of(row, item, now, lambda _: None)
    why = "an earlier event of its key goes first" if wait is None else f"{wait.text[0].lower()}{wait.text[1:-1]}"
    until = None if wait is None or wait.until is None else f"it is due {rfc3339(wait.until)}"
    return ReceiverState.WAITING, "; ".join(filter(None, (failed, why, until)))


def _receiver(subscription_id: int, it: Traces, event: Event) -> Receiver:
    state, why = judge(it, event.record.timestamp / 1000)
    item, row = it.item, it.stored
    return Receiver(
        subscription_id,
        item.url if item is not None else redact_url(row.url) if row is not None else None,
        None if item is None else item.event_type,
        None if item is None else item.options["name"],
        None if item is None else item.tenant,
        state,
        why,
        item is not None and it.hindrance is None,
        None if item is None or it.hindrance is not None else request_for(item, event),
        None if row is None else row.id,
        tuple(it.attempts),
    )


def _attempts(history: AttemptHistory | None, event: Event) -> tuple[list[Attempt], str | None]:
    if history is None:
        return [], NO_HISTORY
    try:
        return history.of_event(event.webhook_id, event.record.timestamp / 1000)
    except WebhooksError as error:
        return [], str(error)


def _is_settled(kafka: KafkaSettings, event: Event) -> bool | None:
    try:
        committed = within(lambda: committed_offsets(kafka, {event.record.topic_partition}), SECONDS)
    except (WebhooksError, KafkaException):
        return None
    return committed.get(event.record.topic_partition, 0) > event.record.offset
