"""A replay's pace and steps, on a real Kafka and database, with a clock that the test moves."""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, event, select, text, update
from sqlalchemy.exc import IntegrityError
from structlog.testing import capture_logs

from consumer.errors import RegistryUnavailable, WebhooksError
from consumer.events.event import Event
from consumer.intake.decode import decode
from consumer.intake.log_reader import LogReader
from consumer.intake.offsets import OffsetTracker
from consumer.intake.record import AssignedPartition, Headers, Record
from consumer.ledger import replays
from consumer.ledger.replays import Replay
from consumer.ops.replay import (
    AHEAD,
    ROWS_AT_ONCE,
    SOONEST,
    Choice,
    DueSchedule,
    Progress,
    default_rate,
    run,
)
from consumer.subscriptions import repository
from consumer.subscriptions.subscribed import Subscribed
from models import ParkedDelivery, StoredReplay
from tests.faults import refusing
from tests.kafka_kit import Kafka
from tests.oracle_emulator import OracleEmulator

NOW = 1_700_000_000.0
TENANTS: list[Headers] = [[("tenant", name.encode())] for name in ("größe", "заказ", "acme")]
URL = "https://example.com/hook"


class Clock:
    """A clock that moves only during sleeps. `slept` is their sum."""

    def __init__(self) -> None:
        self.now = NOW
        self.slept = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept += seconds


@given(
    rate=st.floats(0.001, 100_000),
    steps=st.lists(st.tuples(st.floats(0, 100), st.integers(0, 50)), max_size=20),
)
def test_a_pace_keeps_its_rate(rate: float, steps: list[tuple[float, int]]) -> None:
    """Due times are at least 1/rate apart, not before workers know of them, and not far ahead while there is room."""
    pace, now, last = DueSchedule(rate), NOW, -math.inf
    for passed, wanted in steps:
        now += passed
        for _ in range(min(wanted, pace.room(now))):
            due = pace.due(now)
            assert now + SOONEST <= due <= now + AHEAD + 1e-6
            assert due - last >= 1 / rate - 1e-6
            last = due


@given(rate=st.floats(0.001, 100_000))
def test_a_pace_makes_progress(rate: float) -> None:
    """There is always room for the first, and again once its time is near."""
    pace = DueSchedule(rate)
    assert pace.room(NOW) >= 1
    for _ in range(min(pace.room(NOW), 1000)):
        pace.due(NOW)
    assert pace.room(NOW + 1 / rate + AHEAD) >= 1


def test_the_default_rate_is_a_tenth_of_the_limit() -> None:
    """It is a fixed rate without a limit, and never zero."""
    assert (default_rate(50.0), default_rate(None), default_rate(0.001)) == (5.0, 100.0, 0.001)


@pytest.fixture
def kafka(kafka_bootstrap: str) -> Kafka:
    return Kafka(kafka_bootstrap, real=True)


@pytest.fixture
def receiver(engine: Engine) -> Subscribed:
    found = repository.get(engine, repository.add(engine, URL, "a"))
    assert found is not None
    return found


def write(kafka: Kafka, topic: str, types: str) -> None:
    """Writes a record of each type, one letter each; `!` is not an event."""
    values = [f'{{"type": "{each}", "n": {n}}}'.encode() if each != "!" else b"{" for n, each in enumerate(types)]
    kafka.write(topic, values)


def choice(receiver: Subscribed, event_type: str | None = None) -> Choice:
    """The selection of a replay to this subscription."""
    return Choice(receiver, decode, event_type)


Open = Callable[..., tuple[Replay, LogReader]]


@pytest.fixture
def begin(engine: Engine, kafka: Kafka, receiver: Subscribed) -> Iterator[Open]:
    """Creates or resumes a replay of the whole topic, and returns it with a reader."""
    readers = []

    def make(topic: str = "", *, rate: float = 100.0, again: int = 0) -> tuple[Replay, LogReader]:
        reader = LogReader(kafka.settings())
        readers.append(reader)
        if not again:
            spans = reader.spans(reader.partitions([topic]), 0, None)
            again = replays.create(engine, "webhooks", receiver.id, 0, NOW, None, rate, spans)
        found = replays.load(engine, again)
        assert found is not None
        return found, reader

    yield make
    for reader in readers:
        reader.__exit__(None, None, None)


def stored(engine: Engine) -> list[tuple[int, float]]:
    """Offset and due time, after NOW, of replayed rows, none of them tried yet."""
    with engine.connect() as connection:
        rows = connection.execute(
            select(ParkedDelivery.record_offset, ParkedDelivery.next_attempt_at)
            .where(text("status = 'parked' AND attempt = 0 AND replay > 0 AND order_key IS NULL"))
            .order_by(ParkedDelivery.record_offset)
        )
        return [(offset, due.timestamp() - NOW) for offset, due in rows if due is not None]


CHOSEN = [
    ({"event_type": "a.*"}, None, ["a.x"]),
    ({"event_type": "a.**"}, None, ["a.x", "a.x.y"]),
    ({"event_type": "*"}, None, ["a", "a.x", "a.x.y", "b"]),
    ({"event_type": "*"}, "a.**", ["a.x", "a.x.y"]),
    ({"event_type": "a.*"}, "a.x", ["a.x"]),
    ({"event_type": "a.*"}, "a.x.*", []),
    ({"event_type": "*", "tenant": "acme"}, None, ["a.x"]),
    ({"event_type": "*", "topics": "orders,users"}, None, ["a", "a.x", "a.x.y", "b"]),
    ({"event_type": "*", "topics": "users"}, None, []),
    ({"event_type": "*", "event_filter": "data.n > 1"}, None, ["a.x.y", "b"]),
    ({"event_type": "a", "event_filter": "data.missing > 1"}, None, []),
]


@pytest.mark.parametrize(("options", "event_type", "chosen"), CHOSEN)
def test_the_log_is_matched_like_live_events(
    engine: Engine, options: dict[str, str], event_type: str | None, chosen: list[str]
) -> None:
    """Pattern, tenant, topics and filter apply, `--event-type` narrows them, and a filter's error is no match."""
    number = repository.add(engine, URL, **options)  # type: ignore[arg-type]  # a test's shorthand
    receiver = repository.get(engine, number)
    assert receiver is not None
    each = choice(receiver, event_type)
    headers: dict[str, Headers] = {"a.x": [("tenant", b"acme")], "b": [("tenant", b"other")]}
    place = AssignedPartition("orders", 0, OffsetTracker(None))
    records = [
        Record(place, n, 1, None, b'{"type": "%b", "n": %d}' % (name.encode(), n), headers.get(name))
        for n, name in enumerate(["a", "a.x", "a.x.y", "b"])
    ]
    events = [event for record in records if (event := each.event_of(record)) is not None]
    with capture_logs():
        assert [event.type for event in events if each.has(event)] == chosen
    assert each.filter_errors == ("missing" in options.get("event_filter", ""))


def test_a_replay_waits_for_the_schema_registry(
    engine: Engine, kafka: Kafka, receiver: Subscribed, begin: Open
) -> None:
    """No record is skipped while it does not answer, and a replay stopped meanwhile can be resumed."""
    topic, down = kafka.topic(), True

    def read_event(record: Record) -> Event:
        if down and record.offset == 2:
            raise RegistryUnavailable("the registry is down")
        return decode(record._replace(value=b'{"type": "a"}'))

    kafka.write(topic, [b"\0avro"] * 4)
    replay, reader = begin(topic)
    clock = Clock()
    with capture_logs() as lines:
        found = Choice(receiver, read_event)
        list(run(engine, replay, found, reader, lambda: clock.slept > 5, clock=clock, sleep=clock.sleep))
    assert [line["event"] for line in lines] == ["the schema registry does not answer; the replay waits"]
    assert stored(engine) == []
    down = False
    replay, reader = begin(again=replay.id)
    *_, last = run(engine, replay, found, reader, lambda: False, clock=clock, sleep=clock.sleep)
    assert (last.matched, last.undecodable, last.finished) == (4, 0, True)
    assert [offset for offset, _ in stored(engine)] == [0, 1, 2, 3]


def test_an_event_that_the_database_cannot_hold_is_left_out(
    engine: Engine, kafka: Kafka, receiver: Subscribed, begin: Open
) -> None:
    """The others are stored, and a line names its record: as a new event it became a dead letter."""
    topic = kafka.topic()
    engine.update_execution_options(character_set="WE8MSWIN1252")
    kafka.write(topic, [b"{}"] * 3)
    found = Choice(
        receiver, lambda record: decode(record._replace(value=b'{"type": "a"}', headers=TENANTS[record.offset]))
    )
    replay, reader = begin(topic)
    clock = Clock()
    with capture_logs() as lines:
        *_, last = run(engine, replay, found, reader, lambda: False, clock=clock, sleep=clock.sleep)
    assert (last.matched, last.finished, [offset for offset, _ in stored(engine)]) == (2, True, [0, 2])
    assert [line["offset"] for line in lines if "cannot be stored" in line["event"]] == [1]


def test_an_invalid_filter_is_refused(engine: Engine) -> None:
    """It would match no event; the error says what is wrong with it."""
    number = repository.add(engine, URL, "a")
    with engine.begin() as connection:
        connection.execute(text("UPDATE webhook_subscriptions SET event_filter = 'data.n >'"))
    receiver = repository.get(engine, number)
    assert receiver is not None
    with pytest.raises(WebhooksError, match=f"subscription {number} cannot be replayed to: event_filter: "):
        choice(receiver)


def test_matching_events_are_stored_at_the_pace(
    engine: Engine, kafka: Kafka, receiver: Subscribed, begin: Open
) -> None:
    """Rows have their original offsets and evenly spaced times; records that are not events are counted."""
    topic = kafka.topic()
    write(kafka, topic, "abaa!a")
    replay, reader = begin(topic, rate=2.0)
    clock = Clock()
    *_, last = run(engine, replay, choice(receiver), reader, lambda: False, clock=clock, sleep=clock.sleep)
    assert last == Progress(6, 4, 1, finished=True)
    rows = stored(engine)
    assert [offset for offset, _ in rows] == [0, 2, 3, 5]
    assert [round(due - SOONEST, 1) for _, due in rows] == [0.0, 0.5, 1.0, 1.5]
    found = replays.load(engine, replay.id)
    assert found is not None
    assert (found.matched, found.finished_at, found.spans[0].begin) == (4, clock.now, 6)


def test_little_is_stored_ahead(engine: Engine, kafka: Kafka, receiver: Subscribed, begin: Open) -> None:
    """At most ten seconds' worth is stored, in batches of at most 500; the rest stays in Kafka."""
    topic = kafka.topic()
    write(kafka, topic, "a" * 4000)
    replay, reader = begin(topic, rate=200.0)
    clock, before = Clock(), 0
    for step in run(engine, replay, choice(receiver), reader, lambda: False, clock=clock, sleep=clock.sleep):
        assert step.matched <= (clock.now - NOW + AHEAD) * 200 + 1
        assert step.matched - before <= ROWS_AT_ONCE
        before = step.matched
    assert before == 4000
    assert 16.0 < clock.slept < 19.0
    dues = sorted(due for _, due in stored(engine))
    assert all(later - earlier > 0.0045 for earlier, later in pairwise(dues))


@pytest.mark.parametrize("way", ["asked to stop", "killed in a transaction"])
def test_an_interrupted_replay_continues_where_it_stopped(
    engine: Engine, kafka: Kafka, receiver: Subscribed, begin: Open, way: str
) -> None:
    """Every matching record is stored exactly once, and the count and the pace continue."""
    topic = kafka.topic()
    write(kafka, topic, "ab" * 1500)
    replay, reader = begin(topic, rate=200.0)
    clock, seen = Clock(), [0]
    steps = run(engine, replay, choice(receiver), reader, lambda: seen[-1] >= 500, clock=clock, sleep=clock.sleep)
    if way == "asked to stop":
        for step in steps:
            seen.append(step.matched)  # noqa: PERF401 (the condition to stop looks at it)
    else:
        next(steps)
        with killed_before(engine, "UPDATE webhook_replays"), pytest.raises(KeyboardInterrupt):
            next(steps)
    halfway = len(stored(engine))
    assert 0 < halfway < 1500
    again, other = begin(again=replay.id)
    assert (again.matched, again.finished_at) == (halfway, None)
    *_, last = run(engine, again, choice(receiver), other, lambda: False, clock=clock, sleep=clock.sleep)
    assert (last.matched, last.finished) == (1500, True)
    rows = stored(engine)
    assert [offset for offset, _ in rows] == list(range(0, 3000, 2))
    assert all(later - earlier > 0.0045 for earlier, later in pairwise(sorted(due for _, due in rows)))


def test_a_resumed_pace_ignores_unusual_rows(engine: Engine, kafka: Kafka, receiver: Subscribed, begin: Open) -> None:
    """Neither a row postponed by a breaker or a changed clock nor one long due affects it."""
    topic = kafka.topic()
    write(kafka, topic, "aaa")
    for moved, first in ((3600, AHEAD + 0.5), (-3600, SOONEST)):
        replay, reader = begin(topic, rate=2.0)
        clock = Clock()
        list(run(engine, replay, choice(receiver), reader, lambda: False, clock=clock, sleep=clock.sleep))
        with engine.begin() as connection:
            at = datetime.fromtimestamp(NOW + moved, UTC)
            connection.execute(update(ParkedDelivery).values(next_attempt_at=at))
            connection.execute(text("DELETE FROM webhook_deliveries WHERE record_offset > 0"))
            positions = select(StoredReplay.positions).order_by(StoredReplay.id)
            ((name, partition, _, *rest),) = json.loads(connection.scalars(positions).all()[-1])
            read = json.dumps([[name, partition, 1, *rest]])
            connection.execute(update(StoredReplay).values(positions=read, finished_at=None))
        again, other = begin(again=replay.id)
        clock = Clock()
        list(run(engine, again, choice(receiver), other, lambda: False, clock=clock, sleep=clock.sleep))
        assert [round(due, 1) for offset, due in stored(engine) if offset > 0] == [first, first + 0.5]
        with engine.begin() as connection:
            connection.execute(text("DELETE FROM webhook_deliveries"))


@pytest.mark.parametrize(
    "change", ["UPDATE webhook_subscriptions SET enabled = 0", "DELETE FROM webhook_subscriptions"]
)
def test_nothing_is_stored_for_a_disabled_subscription(
    engine: Engine, kafka: Kafka, receiver: Subscribed, begin: Open, change: str
) -> None:
    """A running replay ends with an error that says so, and can be resumed."""
    topic = kafka.topic()
    write(kafka, topic, "a" * 1000)
    replay, reader = begin(topic, rate=10.0)
    clock = Clock()
    steps = run(engine, replay, choice(receiver), reader, lambda: False, clock=clock, sleep=clock.sleep)
    next(steps)
    before = stored(engine)
    with engine.begin() as connection:
        connection.execute(text(change))
    with pytest.raises(WebhooksError, match=f"was disabled or removed meanwhile.*--resume {replay.id}"):
        list(steps)
    assert stored(engine) == before
    found = replays.load(engine, replay.id)
    assert found is not None
    assert (found.matched, found.finished_at) == (len(before), None)
    assert found.spans[0].begin == len(before) < 1000


@contextmanager
def killed_before(engine: Engine, beginning: str) -> Iterator[None]:
    """Kills the process, within a transaction, before the statement that starts so."""

    def die(_: Connection, __: object, statement: str, *___: object) -> None:
        if statement.startswith(beginning):
            raise KeyboardInterrupt

    event.listen(engine, "before_cursor_execute", die)
    try:
        yield
    finally:
        event.remove(engine, "before_cursor_execute", die)


def test_a_lost_database_is_waited_for(engine: Engine, kafka: Kafka, receiver: Subscribed, begin: Open) -> None:
    """The outage is reported once, and the batch is stored when the database is back."""
    topic = kafka.topic()
    write(kafka, topic, "aaa")
    replay, reader = begin(topic)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE webhook_replays RENAME TO away"))
    clock = Clock()

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        if clock.slept > 30 and not back:
            back.append(True)
            with engine.begin() as connection:
                connection.execute(text("ALTER TABLE away RENAME TO webhook_replays"))

    back: list[bool] = []
    with capture_logs() as logs:
        *_, last = run(engine, replay, choice(receiver), reader, lambda: False, clock=clock, sleep=sleep)
    assert (last.matched, last.finished) == (3, True)
    assert [line["event"] for line in logs if "database" in line["event"]] == [
        "the database does not answer; the replay waits"
    ]


def test_a_stop_does_not_wait_for_the_database(engine: Engine, kafka: Kafka, receiver: Subscribed, begin: Open) -> None:
    """Records that are not stored do not count as read, and are stored by the resumed replay."""
    topic = kafka.topic()
    write(kafka, topic, "aaa")
    replay, reader = begin(topic)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE webhook_deliveries RENAME TO away"))
    clock = Clock()
    assert (
        list(run(engine, replay, choice(receiver), reader, lambda: clock.slept > 5, clock=clock, sleep=clock.sleep))
        == []
    )
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE away RENAME TO webhook_deliveries"))
    found = replays.load(engine, replay.id)
    assert found is not None
    assert (found.spans[0].begin, found.matched) == (0, 0)


def test_a_mistake_of_ours_is_not_waited_for(
    engine: Engine, emulator: OracleEmulator | None, kafka: Kafka, receiver: Subscribed, begin: Open
) -> None:
    """An error that waiting cannot resolve is raised."""
    topic = kafka.topic()
    write(kafka, topic, "a")
    replay, reader = begin(topic)
    never = "INSERT INTO webhook_deliveries"
    with refusing(engine, emulator, never, error=2290), pytest.raises(IntegrityError):
        list(run(engine, replay, choice(receiver), reader, lambda: False, clock=Clock(), sleep=Clock().sleep))


def test_an_event_is_stored_as_a_worker_would_have_sent_it(
    engine: Engine, kafka: Kafka, receiver: Subscribed, begin: Open
) -> None:
    """The row has the producer's id, the bytes, the key and the content type."""
    topic = kafka.topic()
    body = json.dumps({"ü": 1}, ensure_ascii=False).encode()
    kafka.write(topic, [body], headers=[("event-type", b"a"), ("event-id", b"e-1"), ("content-type", b"text/x")])
    replay, reader = begin(topic)
    clock = Clock()
    list(run(engine, replay, choice(receiver), reader, lambda: False, clock=clock, sleep=clock.sleep))
    with engine.connect() as connection:
        row = connection.execute(text("SELECT webhook_id, body, record_key, content_type FROM webhook_payloads")).one()
    assert row[0].startswith("msg_")
    assert tuple(row[1:]) == (body, b"key", "text/x")
