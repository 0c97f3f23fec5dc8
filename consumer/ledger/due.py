"""Reads the stored deliveries that are due, with their events and endpoints.

The cost depends on the number of due keys and of fetched rows, not of waiting rows: a million rows behind an open
circuit breaker, or in other workers' partitions, are never read.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import groupby, takewhile
from operator import attrgetter
from typing import Any, NamedTuple

import structlog
from sqlalchemy import ColumnElement, Connection, Engine, Row, bindparam, select, update

from consumer.crypto.keys import SigningKey
from consumer.crypto.vault import Decrypt
from consumer.database.engine import reading, unavailable
from consumer.database.errors import line
from consumer.database.statements import AnySelect, any_of, of_each, padded
from consumer.errors import DatabaseRefused
from consumer.events.event import Event, RecordId
from consumer.ledger.assigned import first_rows
from consumer.ledger.ordering import behind
from consumer.ledger.rows import (
    ATTEMPTS,
    DUE_KEY,
    OF_PAYLOAD,
    PAYLOAD,
    RECORD,
    DueDelivery,
    DueKey,
    OrderingKey,
    bind,
    due_key_of_row,
    event_of,
    first_of,
    last_of,
    pair_of,
    record_of,
    time_of,
)
from consumer.subscriptions import tls
from consumer.subscriptions.endpoint import Endpoint
from consumer.subscriptions.endpoint_row import Rules, endpoint_of, endpoint_rows
from models import ParkedDelivery, Payload, Status, Subscription

log = structlog.get_logger(__name__)

RUNS = 50  # ordering keys of one `fetch` whose following rows are looked for, but at least one of each due key
FETCH_BYTES = 16 * 2**20  # of bodies that one `fetch` reads
POSTPONED = 60.0  # seconds by which faulty rows are postponed
LATER = 30.0  # seconds until a disabled subscription's due key is fetched again: its rows are about to be held

_TYPES = dict.fromkeys(("attempt", "schedule_start", "replay", "first_status", "last_status"), int) | dict.fromkeys(
    ("first_error", "last_error", "last_response", "order_key"), str
)
_SENDS = Subscription.enabled == 1, Subscription.paused_at.is_(None)
_Pairs = list[tuple[Row[Any], DueDelivery | None]]  # None: its subscription has no endpoint
_Reader = Callable[[Sequence[int], Sequence["FetchRequest"]], tuple[_Pairs, list[Row[Any]]]]


class FetchRequest(NamedTuple):
    """A request for at most `room` rows (1 or more) of a due key, besides the ids that the process has `here`."""

    due_key: DueKey
    room: int
    here: frozenset[int]


class Fetched(NamedTuple):
    """Rows to send, and when to fetch due keys with more rows again (unix seconds).

    `faulty` are due rows that cannot be sent, with their due keys: the caller postpones them. `unreadable` says why
    some of these cannot be read.
    """

    rows: list[DueDelivery]
    next_due: dict[DueKey, float]
    faulty: dict[int, DueKey] = {}  # noqa: RUF012 (the default is never changed)
    unreadable: dict[int, str] = {}  # noqa: RUF012 (the default is never changed)


_POSTPONE = (
    update(ParkedDelivery)
    .where(ParkedDelivery.id == bindparam("b_id"), ParkedDelivery.status == Status.PARKED)
    .values(next_attempt_at=bind(ParkedDelivery.next_attempt_at))
)


def fetch(
    engine: Engine,
    group: str,
    wants: Sequence[FetchRequest],
    now: float,
    *,
    default_secrets: tuple[SigningKey, ...],
    decrypt: Decrypt,
    rules: Rules = Rules(),  # noqa: B008 (immutable)
    said: dict[int, str] | None = None,
    most_bytes: int = FETCH_BYTES,
) -> Fetched:
    """Rows of some due keys that are due at `now`, the earliest of each first.

    None of a disabled or paused subscription.

    The first row of an ordering key is followed by the rows that may go right after it, in their order. Fewer rows are
    returned if their bodies together exceed `most_bytes` (a record's body is shared and counts once). A row is faulty
    if it cannot be read or its subscription has a fault. A fault is logged unless it is in `said`, which is updated for
    the next call.
    """
    with reading(engine) as connection:
        ids, next_due = _due(connection, group, wants, now)
        if not ids:
            return Fetched([], next_due)
        subscriptions = sorted({want.due_key[2] for want in wants})
        read = partial(endpoint_of, default=default_secrets, decrypt=decrypt, now=time_of(now), rules=rules)
        endpoints, unusable = _endpoints(connection, subscriptions, read, *_SENDS)
        read_rows = partial(_read, connection, group, now, most_bytes, endpoints)
        rows, rest, unreadable = _read_all(read_rows, list(ids), wants)
    for row in rest:
        next_due[due_key_of_row(row)] = now
    faulty = {row: ids[row] for row in unreadable}
    for row, _ in rows:
        if row.subscription_id in unusable:
            faulty[row.id] = due_key_of_row(row)
    if news := _news(unusable, endpoints, {} if said is None else said):
        log.error("stored deliveries postponed", reasons=news)
    if unreadable:
        log.error("stored deliveries cannot be read; tried again in a minute", rows=unreadable)
    for want in wants:
        if want.due_key[2] not in endpoints:
            next_due[want.due_key] = now + (POSTPONED if want.due_key[2] in unusable else LATER)
        elif unreadable:
            next_due.setdefault(want.due_key, now + POSTPONED)
    return Fetched([delivery for _, delivery in rows if delivery is not None], next_due, faulty, unreadable)


def fetch_to_probe(
    engine: Engine,
    group: str,
    rows: Mapping[int, DueKey],
    now: float,
    *,
    default_secrets: tuple[SigningKey, ...],
    decrypt: Decrypt,
    rules: Rules = Rules(),  # noqa: B008 (immutable)
) -> list[DueDelivery]:
    """These rows, due or not, though their subscriptions are paused; none that cannot be sent."""
    if not rows:
        return []
    with reading(engine) as connection:
        subscriptions = sorted({due_key[2] for due_key in rows.values()})
        read = partial(endpoint_of, default=default_secrets, decrypt=decrypt, now=time_of(now), rules=rules)
        endpoints, _ = _endpoints(connection, subscriptions, read, Subscription.enabled == 1)
        found, *_ = _read_all(partial(_read, connection, group, now, FETCH_BYTES, endpoints), sorted(rows), ())
    return [delivery for _, delivery in found if delivery is not None]


def postpone(engine: Engine, ids: Iterable[int], until: float) -> None:
    """Postpone parked rows until a time (unix seconds).

    Does not wait for rows that another session has locked: raises DatabaseRefused after postponing the others.
    """
    rows = sorted(ids)
    there = select(ParkedDelivery.id).where(any_of(ParkedDelivery.id.expression, rows))
    locked = 0
    with engine.begin() as connection:
        free = sorted(connection.scalars(there.with_for_update(skip_locked=True)))
        if free:
            connection.execute(_POSTPONE, [{"b_id": row, "b_next_attempt_at": time_of(until)} for row in free])
        if len(free) < len(rows):  # the others are locked, or have ended meanwhile
            locked = len(connection.scalars(there).all()) - len(free)
    if locked:
        raise DatabaseRefused(f"rows locked by another session: {locked}")


def _news(faults: Mapping[int, str], sound: Iterable[int], said: dict[int, str]) -> dict[int, str]:
    """The faults that `said` does not have yet. Adds them to it, and removes the `sound` subscriptions."""
    news = {subscription: fault for subscription, fault in faults.items() if said.get(subscription) != fault}
    said.update(news)
    for subscription in sound:
        said.pop(subscription, None)
    return news


def _due(
    connection: Connection, group: str, wants: Sequence[FetchRequest], now: float
) -> tuple[dict[int, DueKey], dict[DueKey, float]]:
    """The ids of due rows with their due keys, and when the next row of each due key is due."""
    ids: dict[int, DueKey] = {}
    next_due: dict[DueKey, float] = {}
    listed: dict[DueKey, list[tuple[float, int]]] = {want.due_key: [] for want in wants}
    by_limit: dict[int, list[tuple[object, ...]]] = {}  # few limits, so that there are few statements
    for want in wants:
        by_limit.setdefault(padded(len(want.here) + want.room + 1), []).append((group, *want.due_key))
    for limit, keys in by_limit.items():
        for row in of_each(connection, first_rows, DUE_KEY, keys, limit):
            listed[due_key_of_row(row)].append((row.next_attempt_at.timestamp(), row.id))
    for want in wants:
        others = [each for each in sorted(listed[want.due_key]) if each[1] not in want.here]
        due = [row for due_at, row in others[: want.room] if due_at <= now]
        ids |= dict.fromkeys(due, want.due_key)
        if len(others) > len(due):
            next_due[want.due_key] = others[len(due)][0]
    return ids, next_due


def _read(
    connection: Connection,
    group: str,
    now: float,
    most_bytes: int,
    endpoints: Mapping[int, Endpoint],
    ids: Sequence[int],
    wants: Sequence[FetchRequest],
) -> tuple[_Pairs, list[Row[Any]]]:
    """These rows and the rows that may follow them, with their deliveries; and the rows beyond `most_bytes`."""
    found = {row.id: row for row in connection.execute(_details(sorted(ids), Status.PARKED, Status.HELD))}
    runs = _runs(connection, group, wants, found.values(), now) if wants else []
    if runs:
        found |= {row.id: row for row in connection.execute(_details(sorted(runs), Status.PARKED, Status.BLOCKED))}
    rows = _within([found[row] for row in [*ids, *runs] if row in found], most_bytes)
    events = _events(connection, {record_of(row): row.id for row in rows}) if rows else {}
    kept = {row.id for row in rows}
    return (
        # A delivery may have ended meanwhile and its event been deleted.
        [
            (row, _delivery(row, event, endpoints.get(row.subscription_id)))
            for row in rows
            if (event := events.get(record_of(row))) is not None
        ],
        [row for row in found.values() if row.id not in kept],
    )


def _delivery(row: Row[Any], event: Event, endpoint: Endpoint | None) -> DueDelivery | None:
    """The delivery of a row. Raises ValueError for a value of a wrong type, which SQLite keeps in any column."""
    if endpoint is None:
        return None
    for name, kind in _TYPES.items():
        value = getattr(row, name)
        if value is not None and not isinstance(value, kind):
            raise ValueError(f"{name} is of the wrong type ({type(value).__name__})")
    return DueDelivery(
        row.id,
        event,
        endpoint,
        row.attempt,
        row.schedule_start,
        first_of(row),
        last_of(row),
        pair_of(row),
        row.replay,
        filter_pending=bool(row.filter_pending) and not row.attempt,
    )


def _read_all(
    read: _Reader, ids: Sequence[int], wants: Sequence[FetchRequest]
) -> tuple[_Pairs, list[Row[Any]], dict[int, str]]:
    """The result of `read`, and why some rows cannot be read: if one cannot, each is read alone, without followers."""
    try:
        return *read(ids, wants), {}
    except Exception as error:
        if unavailable(error) is not None:
            raise
    rows: _Pairs = []
    rest: list[Row[Any]] = []
    unreadable: dict[int, str] = {}
    for each in ids:
        try:
            found, more = read([each], ())
        except Exception as error:
            if unavailable(error) is not None:
                raise
            unreadable[each] = line(error)
        else:
            rows += found
            rest += more
    return rows, rest, unreadable


def _runs(
    connection: Connection, group: str, wants: Sequence[FetchRequest], due: Iterable[Row[Any]], now: float
) -> list[int]:
    """The rows that may follow the ordered rows in `due`, as far as there is room, shared equally by ordering keys.

    A run ends at a row that is already here: its attempt began before the first row was made due again, and may have
    ended by the time this result is used.
    """
    room = {want.due_key: want.room for want in wants}
    here = {want.due_key: want.here for want in wants}
    first: dict[DueKey, list[tuple[OrderingKey, int]]] = {}
    for row in due:
        due_key = due_key_of_row(row)
        room[due_key] -= 1
        if (ordering_key := pair_of(row)) is not None:
            first.setdefault(due_key, []).append((ordering_key, row.record_offset))
    shares = {due_key: room[due_key] // len(ordering_keys) for due_key, ordering_keys in first.items()}
    chosen = {
        due_key: ordering_keys[: max(1, RUNS // len(first))]
        for due_key, ordering_keys in first.items()
        if shares[due_key]
    }
    most = max(shares.values(), default=0)
    found = behind(connection, group, [each for several in chosen.values() for each in several], most, now)
    return [
        row
        for due_key, ordering_keys in chosen.items()
        for ordering_key, _ in ordering_keys
        for row in takewhile(lambda row: row not in here[due_key], found[ordering_key][: shares[due_key]])  # noqa: B023 (it is read at once)
    ]


def _details(ids: Sequence[int], *statuses: Status) -> AnySelect:
    return (
        select(
            ParkedDelivery.id,
            *RECORD[1:],
            ParkedDelivery.subscription_id,
            ParkedDelivery.replay,
            ParkedDelivery.order_key,
            ParkedDelivery.filter_pending,
            ParkedDelivery.updated_at,
            *ATTEMPTS,
            Payload.body_size,
        )
        .join(Payload, OF_PAYLOAD)
        .where(any_of(ParkedDelivery.id.expression, ids), ParkedDelivery.status.in_(statuses))
    )


def _endpoints(
    connection: Connection,
    subscriptions: Sequence[int],
    read: Callable[..., tuple[Endpoint, object]],
    *which: ColumnElement[bool],
) -> tuple[dict[int, Endpoint], dict[int, str]]:
    """The endpoints of those subscriptions that are as `which` says, and why some of these cannot be sent to."""
    theirs = any_of(Subscription.id.expression, subscriptions)
    rows = connection.execute(endpoint_rows().where(theirs, *which)).all()
    identities = tls.stored(connection, rows)
    endpoints: dict[int, Endpoint] = {}
    unusable: dict[int, str] = {}
    for subscription_id, group in groupby(rows, attrgetter("subscription_id")):
        endpoint, _ = read(list(group), tls=identities.get(subscription_id))  # the look-up of events reports problems
        if endpoint.fault is None:
            endpoints[subscription_id] = endpoint
        else:
            unusable[subscription_id] = endpoint.fault
    return endpoints, unusable


def _events(connection: Connection, deliveries: Mapping[RecordId, int]) -> dict[RecordId, Event]:
    """The events of records, each named by one of its deliveries."""
    statement = (
        select(*PAYLOAD[1:])
        .join(ParkedDelivery, OF_PAYLOAD)
        .where(any_of(ParkedDelivery.id.expression, sorted(deliveries.values())))
    )
    return {record_of(row): event_of(row) for row in connection.execute(statement)}


def _within(rows: Sequence[Row[Any]], most_bytes: int) -> Sequence[Row[Any]]:
    """The first rows whose bodies together have at most `most_bytes`; at least one row."""
    total, counted = 0, set()
    for position, row in enumerate(rows):
        if record_of(row) not in counted:
            counted.add(record_of(row))
            total += row.body_size
            if position and total > most_bytes:
                return rows[:position]
    return rows
