"""A worker's reads at their largest, the redo of storing, and several processes on the same rows."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count, cycle, islice

import sqlalchemy as sa
from sqlalchemy import Engine, event
from sqlalchemy.exc import DBAPIError

from consumer.database.statements import PARTS
from consumer.ledger import admin, assigned, due, pauses, store, upkeep
from consumer.ledger.rows import time_of
from consumer.matching.catalog import MOST_ASKED, find_endpoints
from consumer.subscriptions import repository
from models import Status, Subscription
from tests.crypto.vaults import in_the_clear
from tests.first_hour.estate import ORDERED, RECEIVERS, TENANTS, TYPES
from tests.first_hour.verdicts import LOOK, PROGRESS, Finding, judged, reads_of, sent_by, timed, unseen, view
from tests.ledger.rows_kit import DEFAULT, GROUP, PLACES, Result, make_event, parked, result

MOST_SECONDS = 5.0  # of a worker's call, the first time
MOST_REDO = 6000  # bytes for a stored delivery with its record: docs/oracle.md estimates 3 KB
STORED = 500  # deliveries of a batch
MOST_WAITS = 60  # of one kind on a segment, for each minute of contention
_REDO = "SELECT s.value FROM v$mystat s JOIN v$statname n ON n.statistic# = s.statistic# WHERE n.name = 'redo size'"
_WAITS = (
    "SELECT object_name, statistic_name, value FROM v$segment_statistics WHERE owner = USER AND"
    " object_name LIKE '%WEBHOOK%' AND statistic_name IN ('ITL waits', 'row lock waits', 'buffer busy waits')"
)


def looked_up(engine: Engine) -> Iterator[Finding]:
    """Look-ups of several sizes: the time of the first one, and the blocks that one reads."""
    for number in (8, MOST_ASKED, 8 * MOST_ASKED):
        keys = [(f"type.{at % TYPES}", f"tenant-{at // TYPES % TENANTS}") for at in range(number)]
        work = partial(find_endpoints, engine, keys, DEFAULT, in_the_clear)
        most = MOST_SECONDS * max(1, number // MOST_ASKED)  # the time of each statement
        yield timed(f"a look-up of {number:,} types and tenants", most, work)
        if number == MOST_ASKED:
            with engine.connect() as connection:
                for at, sent in enumerate(sent_by(engine, work), 1):
                    rows = len(connection.exec_driver_sql(*sent).all())
                    yield reads_of(f"a look-up of {number:,}, statement {at}", connection, sent, 20 * number + 4 * rows)


def fetched(engine: Engine) -> Iterator[Finding]:
    """The largest texts of taking up rows: a fetch of all parts, what follows in order, and a probe."""
    keys = assigned.scan(engine, GROUP, PLACES, None).due_keys
    wants = [due.FetchRequest(key, 10, frozenset()) for key in keys]
    fetch = partial(due.fetch, engine, GROUP, wants, 9e9, default_secrets=DEFAULT, decrypt=in_the_clear)
    yield timed(f"a fetch of {len(keys)} due keys, {PARTS} in a statement", MOST_SECONDS, fetch)
    if not any(row.event.record.partition == 1 for row in fetch().rows):
        yield Finding(LOOK, "the fetch found no row of an ordering key")
    receivers = sa.update(Subscription).where(Subscription.id <= RECEIVERS[-1])
    with engine.begin() as connection:
        connection.execute(
            receivers.values(paused_at=time_of(100.0), probed_at=time_of(100.0), paused_reason="it fails")
        )
    yield timed("a probe", MOST_SECONDS, partial(pauses.claim, engine, GROUP, PLACES, 1000.0, 1.0))
    with engine.begin() as connection:
        connection.execute(receivers.values(paused_at=None, probed_at=None, paused_reason=None))


def redo(engine: Engine) -> Iterator[Finding]:
    """Bytes of redo for each stored delivery."""
    rows = [parked(make_event(at, partition=7), 1) for at in range(STORED)]
    with engine.connect() as connection:
        try:
            before = connection.exec_driver_sql(_REDO).scalar_one()
        except DBAPIError as error:
            yield unseen("redo of a stored delivery", error)
            return
        store.insert_new(connection, GROUP, rows, 96.0)
        each = (connection.exec_driver_sql(_REDO).scalar_one() - before) // STORED
        connection.commit()
    text = f"{each:,} bytes of redo for each stored delivery"
    yield judged(each <= MOST_REDO, text, f"{text}; {MOST_REDO:,} would do: is supplemental logging on?")


def contended(engine: Engine, seconds: float) -> Iterator[Finding]:
    """Two workers, a redelivery, passes over all rows and a purge at the same time: waits, and no deadlock."""
    before = view(engine, "waits for blocks and rows", _WAITS)
    codes, turns = Counter[str](), Counter[str]()

    def note(context: sa.engine.ExceptionContext) -> None:
        codes[str(context.original_exception)] += 1

    event.listen(engine, "handle_error", note)
    until = time.monotonic() + seconds
    jobs: dict[str, Callable[[int], object]] = {
        "worker 1": partial(_worker, engine, 2),
        "worker 2": partial(_worker, engine, 3),
        "redelivery": partial(_redelivery, engine),
        "reconcile": partial(_reconcile, engine),
        "purge": partial(_purge, engine),
    }

    def run(name: str) -> None:
        for turn in count():
            jobs[name](turn)
            turns[name] += 1
            if time.monotonic() >= until:
                return

    try:
        with ThreadPoolExecutor(len(jobs)) as pool:
            ends = {name: pool.submit(run, name) for name in jobs}
        for name, end in ends.items():
            if error := end.exception():
                yield Finding(LOOK, f"{name}, beside the others: {error}")
    finally:
        event.remove(engine, "handle_error", note)
    yield Finding(PROGRESS, f"turns beside each other: {', '.join(f'{each} {turns[each]}' for each in jobs)}")
    errors = "; ".join(f"{number} times {text}" for text, number in codes.items())
    yield judged(not codes, "no deadlock and no other error beside each other", f"errors beside each other: {errors}")
    after = view(engine, "waits for blocks and rows", _WAITS)
    if isinstance(before, Finding) or isinstance(after, Finding):
        yield before if isinstance(before, Finding) else after  # type: ignore[misc]  # one of them is
        return
    known = {row[:2]: row.value for row in before}
    most = MOST_WAITS * max(1, seconds / 60)
    more = {row[:2]: row.value - known.get(row[:2], 0) for row in after}
    said = ", ".join(f"{what} of {name} {number}" for (name, what), number in sorted(more.items()) if number) or "none"
    remedy = "docs/oracle.md, What sessions wait for, has the remedies"
    yield judged(max(more.values(), default=0) <= most, f"waits: {said}", f"waits: {said}; {remedy}")


def _worker(engine: Engine, partition: int, turn: int) -> None:
    """A worker's turn: it stores deliveries, sends those that are due, and deletes delivered ones."""
    events = [make_event(turn * 10 + at, partition=partition) for at in range(10)]
    store.park(engine, GROUP, [parked(each, its) for each in events for its in RECEIVERS], 96.0)
    keys = assigned.scan(engine, GROUP, [("t", partition)], None).due_keys
    wants = [due.FetchRequest(key, 10, frozenset()) for key in keys]
    rows = due.fetch(engine, GROUP, wants, 9e9, default_secrets=DEFAULT, decrypt=in_the_clear).rows
    ends: tuple[Result, ...] = ("delivered", "delivered", "exhausted", "parked")
    results = [
        result(row, end, 5000.0 if end == "parked" else None) for row, end in zip(rows, cycle(ends), strict=False)
    ]
    store.record(engine, GROUP, results)
    upkeep.prune(engine, GROUP, "t", partition, turn * 10)


def _redelivery(engine: Engine, turn: int) -> None:
    selection = admin.DeliveryQuery(group=GROUP, subscription=1 + turn % len(RECEIVERS))
    for _ in islice(admin.redeliver(engine, selection, time.time()), ORDERED):
        pass


def _reconcile(engine: Engine, turn: int) -> None:
    """A subscription is disabled or enabled again, and its rows follow."""
    repository.set_enabled(engine, RECEIVERS[turn // 2 % len(RECEIVERS)], turn % 2 == 1)
    upkeep.reconcile(engine, time.time())


def _purge(engine: Engine, turn: int) -> None:
    for _ in islice(upkeep.purge(engine, {Status.EXHAUSTED}, time.time()), ORDERED + turn % 2):
        pass
