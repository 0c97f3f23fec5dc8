"""A replay reads the log again for one subscription, and stores the matching events for the workers to send.

Rows and the positions after them are written in one transaction. However a replay is interrupted, it therefore
continues where it stopped, and stores each matching record once. It does not touch the group's offsets.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeVar

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from consumer.database.engine import unavailable
from consumer.errors import RegistryUnavailable, Tombstone, Unavailable, Undecodable, Unstorable, WebhooksError
from consumer.events.event import Event
from consumer.intake.log_reader import LogReader
from consumer.intake.record import Record
from consumer.ledger import replays, store
from consumer.ledger.replays import Lease, Replay
from consumer.ledger.rows import NewDelivery
from consumer.ledger.search import last_of_replay
from consumer.matching.selection import FilterResult, Selector
from consumer.ops.events import ReadEvent
from consumer.subscriptions.endpoint import Endpoint, Selection
from consumer.subscriptions.options import LEAST_NUMBER, Effect, read
from consumer.subscriptions.patterns import matches
from consumer.subscriptions.subscribed import Subscribed
from consumer.telemetry.metrics import Metrics
from models.subscription import EVERY_TENANT

log = structlog.get_logger(__name__)

T = TypeVar("T")

PART_OF_LIMIT = 10  # a replay takes a tenth of the rate limit; the rest is left for new events
RATE_WITHOUT_LIMIT = 100.0  # deliveries per second, if the subscription has no rate limit
MOST_RATE = 100_000.0  # deliveries per second, the highest rate that can be set
SOONEST = 7.0  # seconds from storing a row until it is due: workers scan every 5 s, and so send no burst
AHEAD = 10.0  # seconds from storing a row until it is due, at most: no table fills with far-off rows
ROWS_AT_ONCE = 500  # rows per transaction
BYTES_AT_ONCE = 4 * 2**20  # of bodies per transaction, about
FLUSH = 1.0  # seconds between two transactions
_WAIT = 0.1  # seconds for which a signal may go unnoticed
_RETRY = 2.0  # seconds between two tries while the database, or the registry, does not answer


def default_rate(limit: float | None) -> float:
    """Deliveries per second of a replay for a subscription with this rate limit."""
    return RATE_WITHOUT_LIMIT if limit is None else max(LEAST_NUMBER, limit / PART_OF_LIMIT)


class DueSchedule:
    """Due times at a rate: each 1/rate after the last, none before `begin` or `SOONEST` from now. Unix seconds."""

    def __init__(self, rate: float, begin: float = 0.0) -> None:
        self._step = 1 / rate
        self._next = begin

    def due(self, now: float) -> float:
        """The next due time."""
        due = max(now + SOONEST, self._next)
        self._next = due + self._step
        return due

    def room(self, now: float) -> int:
        """The number of the next due times that are within `AHEAD` of now."""
        left = now + AHEAD - max(now + SOONEST, self._next)
        return int(left / self._step) + 1 if left >= 0 else 0


class Progress(NamedTuple):
    """A replay's progress: offsets read in this run, records matched in all runs, undecodable records in this run."""

    read: int
    matched: int
    undecodable: int
    finished: bool


@dataclass
class Hold:
    """A process's lease on a background replay: it ends `until` (unix seconds); each transaction adds `seconds`."""

    until: float
    seconds: float


def check_receiver(subscription: Subscribed) -> None:
    """Raise WebhooksError if the subscription matches nothing, because an option of it cannot be used."""
    for problem in subscription.problems:
        if problem.effect is Effect.UNMATCHED or problem.option == "event_filter":
            raise WebhooksError(f"subscription {subscription.id} cannot be replayed to: {problem}")


class Choice:
    """Chooses the events of the log for a subscription: those that a worker would send it now."""

    def __init__(self, subscription: Subscribed, read_event: ReadEvent, event_type: str | None = None) -> None:
        """`event_type`, a type or a pattern, narrows the choice. Raises as `check_receiver` does."""
        check_receiver(subscription)
        meant, _ = read(subscription.options)
        selection = Selection(meant["topics"], meant["event_filter"])
        self.subscription = subscription
        self._read_event = read_event
        self._types = [subscription.event_type] if event_type is None else [subscription.event_type, event_type]
        self._endpoint = Endpoint(subscription.id, subscription.url, (), selection=selection)
        self._metrics = Metrics()
        self._selector = Selector(self._metrics)

    @property
    def filter_errors(self) -> int:
        """The number of events on which the filter failed; they are not chosen."""
        return self._metrics.filter_errors

    def event_of(self, record: Record) -> Event | None:
        """The event that a record carries, or None. After RegistryUnavailable the call may be repeated."""
        try:
            return self._read_event(record)
        except (Tombstone, Undecodable):
            return None

    def has(self, event: Event) -> bool:
        """Whether the event is for the subscription; False if the filter fails on it."""
        return (
            all(matches(each, event.type) for each in self._types)
            and self.subscription.tenant in {EVERY_TENANT, event.tenant}
            and self._selector.ask(self._endpoint, event) is FilterResult.WANTED
        )


_Ask = Callable[[Callable[[], Event | None]], tuple[Event | None] | tuple[()]]


class _Chosen(NamedTuple):
    events: list[Event]
    undecodable: int


def run(
    engine: Engine,
    replay: Replay,
    choice: Choice,
    reader: LogReader,
    stopped: Callable[[], bool],
    *,
    hold: Hold | None = None,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Progress]:
    """Store the rest of a replay at its rate, each row at most `AHEAD` seconds before it is due.

    Yields after each transaction. Ends when all is stored, or soon after `stopped()`: the replay can then be resumed.
    Waits for Kafka, the database and the schema registry if they do not answer. Each transaction renews `hold`, the
    lease on a background replay, and notes why no records come; with one, RegistryUnavailable is raised instead of
    waiting. Raises the errors of `LogReader.read` and `replays.advance`.
    """
    last_due = last_of_replay(engine, replay.id) if replay.matched else None
    pace = DueSchedule(replay.rate, _next_due(last_due, replay.rate, clock()))
    rows: list[NewDelivery] = []
    matched, undecodable, size = replay.matched, 0, 0
    reader.start(replay.spans, replay.since)
    begin = sum(reader.positions.values())
    flushed = clock()
    ask = partial(_insist, stopped=stopped, sleep=sleep) if hold is None else _once
    while True:
        ended = reader.done or stopped()
        room = 0 if ended else min(ROWS_AT_ONCE - len(rows), pace.room(clock()))
        found = _chosen(choice, reader.read(room, _WAIT) if room else (), ask)
        if found is None:
            return
        undecodable += found.undecodable
        for event in found.events:
            try:
                store.check(engine, event)
            except Unstorable as error:  # a worker that meets it makes a dead letter of it
                log.warning(
                    "a replay leaves out an event that cannot be stored", **event.record._asdict(), error=str(error)
                )
                continue
            rows.append(_delivery(event, choice.subscription, pace.due(clock()), replay.id))
            size += event.size
        full = len(rows) >= ROWS_AT_ONCE or size >= BYTES_AT_ONCE
        if ended or full or not 0 <= clock() - flushed < FLUSH:
            matched += len(rows)
            advance = partial(_advance, engine, replay, rows, reader, clock(), hold)
            if not _insist(advance, stopped, sleep):
                return
            rows, size, flushed = [], 0, clock()
            yield Progress(sum(reader.positions.values()) - begin, matched, undecodable, finished=False)
        if ended:
            break
        if not room:
            sleep(_WAIT)
    if reader.done and _insist(partial(replays.finish, engine, replay.id, clock()), stopped, sleep):
        yield Progress(sum(reader.positions.values()) - begin, matched, undecodable, finished=True)


def _advance(
    engine: Engine,
    replay: Replay,
    rows: Sequence[NewDelivery],
    reader: LogReader,
    now: float,
    hold: Hold | None,
) -> None:
    lease = None if hold is None else Lease(hold.until, now + hold.seconds, reader.fault)
    replays.advance(engine, replay.id, replay.group, rows, reader.positions, now, lease)
    if hold is not None:
        hold.until = now + hold.seconds


def _next_due(last_due: float | None, rate: float, now: float) -> float:
    """The first due time after the rows of an earlier run.

    Those were stored at most AHEAD seconds before they were due; workers or a clock may have moved them further since.
    """
    return 0.0 if last_due is None else min(last_due, now + AHEAD) + 1 / rate


def _chosen(choice: Choice, records: Iterable[Record], ask: _Ask) -> _Chosen | None:
    """The events to store, and the number of records that are not events. None: `ask` has given up."""
    events, undecodable = [], 0
    for record in records:
        answer = ask(partial(choice.event_of, record))
        if not answer:
            return None
        (event,) = answer
        if event is None:
            undecodable += 1
        elif choice.has(event):
            events.append(event)
    return _Chosen(events, undecodable)


def _once(job: Callable[[], T]) -> tuple[T]:
    """The result of `job`, alone in a tuple: a background replay notes an error and is tried again later."""
    return (job(),)


def _insist(job: Callable[[], T], stopped: Callable[[], bool], sleep: Callable[[float], None]) -> tuple[T] | tuple[()]:
    """Retry `job` until the database or the registry answers; returns its result, alone in a tuple.

    Empty, with nothing written, if `stopped()` comes first.
    """
    said = False
    while True:
        known: Unavailable | None
        try:
            return (job(),)
        except RegistryUnavailable as error:
            known = error
        except SQLAlchemyError as error:
            if (known := unavailable(error)) is None:
                raise
        if not said:
            log.warning(
                "the schema registry does not answer; the replay waits"
                if isinstance(known, RegistryUnavailable)
                else "the database does not answer; the replay waits",
                error=str(known),
            )
            said = True
        for _ in range(int(_RETRY / _WAIT)):
            if stopped():
                return ()
            sleep(_WAIT)


def _delivery(event: Event, subscription: Subscribed, due: float, replay: int) -> NewDelivery:
    return NewDelivery(event, subscription.id, subscription.options["url"], 0, "parked", due, replay=replay)
