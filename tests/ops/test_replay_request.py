"""Requests for replays: the command line, the API and the console accept and refuse the same ones."""

import time
from threading import BoundedSemaphore

import pytest
from sqlalchemy import Engine, text

from consumer.errors import InvalidReplay, KafkaUnavailable, WebhooksError
from consumer.ledger import outbox, replays
from consumer.ledger.replays import Span
from consumer.ops import replay_request
from consumer.ops.replay_request import Log, Plan, Wanted, cancel, create, default_rate, plan, resume, spans_soon
from consumer.subscriptions import repository
from consumer.subscriptions.subscribed import Subscribed
from tests.databases import each_new_engine as new_engine  # noqa: F401 (a fixture)
from tests.kafka_kit import Kafka, await_looks

NOW = 1_785_247_200.0  # 2026-07-28T14:00Z
HOUR = 3600.0
URL = "https://example.com/hook"


@pytest.fixture
def receiver(engine: Engine) -> Subscribed:
    """A subscription to `a.*`, at most 20 deliveries a second."""
    found = repository.get(engine, repository.add(engine, URL, "a.*", rate_limit=20.0))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("since", "until", "meant"),
    [
        ("2h", None, (NOW - 2 * HOUR, None)),
        ("2026-07-28T12:00+02:00", "2026-07-28T11:00", (NOW - 4 * HOUR, NOW - 3 * HOUR)),
        ("3d", "1h", (NOW - 72 * HOUR, NOW - HOUR)),
        ("1h", "2026-07-28T15:00Z", (NOW - HOUR, None)),
        ("99999999999d", None, (0.0, None)),
        ("0001-01-01T00:00Z", None, (0.0, None)),
    ],
)
def test_times_are_absolute_or_ages(
    receiver: Subscribed, since: str, until: str | None, meant: tuple[float, float | None]
) -> None:
    """An end in the future is the log's end, and no time is before 1970."""
    planned = plan(receiver, Wanted(since, until), NOW)
    assert (planned.since, planned.until) == meant
    assert planned.end == (NOW if planned.until is None else planned.until)


@pytest.mark.parametrize(
    ("wanted", "option", "why"),
    [
        (Wanted("yesterday"), "since", "is neither a time such as"),
        (Wanted("1.2.3h"), "since", "is neither a time such as"),
        (Wanted("9999-12-31T23:59:59-23:59"), "since", "is not in the past"),
        (Wanted("0h"), "since", "is not in the past"),
        (Wanted("1h", "2h"), "until", "is not after the beginning"),
        (Wanted("1h", "soon"), "until", "is neither a time such as"),
        (Wanted("1h", event_type="b"), "event_type", "gets a.*"),
        (Wanted("1h", event_type="a b"), "event_type", "must be visible ASCII"),
        (Wanted("1h", rate=20.5), "rate", "is not from 0.001 to 20 per second, the limit of subscription"),
        (Wanted("1h", rate=0.0), "rate", "is not from"),
        (Wanted("1h", ordered=True), "ordered", "is for subscriptions that are ordered by key"),
        (Wanted("1h", rate=float("nan")), "rate", "is not from"),
    ],
)
def test_an_invalid_request_names_its_option(receiver: Subscribed, wanted: Wanted, option: str, why: str) -> None:
    """The error does not repeat the given text."""
    with pytest.raises(InvalidReplay) as refused:
        plan(receiver, wanted, NOW)
    assert refused.value.option == option
    assert why in refused.value.why
    assert wanted.since not in refused.value.why


def test_a_replay_may_ask_for_any_type_of_its_subscription(engine: Engine) -> None:
    """The refusal of another one names all."""
    receiver = repository.get(engine, repository.add(engine, URL, "a.*", further_types=["b.**"]))
    assert receiver is not None
    assert plan(receiver, Wanted("1h", event_type="b.c.d"), NOW).event_type == "b.c.d"
    with pytest.raises(InvalidReplay, match=r"gets a\.\*, b\.\*\*"):
        plan(receiver, Wanted("1h", event_type="c"), NOW)


def test_a_time_without_a_zone_is_accepted_or_refused(receiver: Subscribed) -> None:
    """Programs must name the zone; people may leave it out."""
    assert plan(receiver, Wanted("2026-07-28T13:00"), NOW).since == NOW - HOUR
    assert plan(receiver, Wanted("2026-07-28T13:00Z"), NOW, None).since == NOW - HOUR
    assert plan(receiver, Wanted("1h"), NOW, None).since == NOW - HOUR
    with pytest.raises(InvalidReplay):
        plan(receiver, Wanted("2026-07-28T13:00"), NOW, None)


def test_a_subscription_that_matches_nothing_is_refused(engine: Engine, receiver: Subscribed) -> None:
    """This is an error of the subscription, not of the request."""
    with engine.begin() as connection:
        connection.execute(text("UPDATE webhook_subscriptions SET event_filter = 'data.n >'"))
    broken = repository.get(engine, receiver.id)
    assert broken is not None
    with pytest.raises(WebhooksError, match="cannot be replayed to: event_filter"):
        plan(broken, Wanted("1h"), NOW)


def test_the_start_and_end_of_a_replay_are_reported_with_their_actors(engine: Engine, receiver: Subscribed) -> None:
    """Events are written in the same transactions: a rolled back one leaves neither."""
    planned = plan(receiver, Wanted("2h", "1h", "a.b", ("t",)), NOW)
    spans = [Span("t", 0, 5, 15)]
    with engine.connect() as connection:
        create(connection, "g", "api:all", planned, spans)
        connection.rollback()
    with engine.begin() as connection:
        number = create(connection, "g", "api:all", planned, spans)
    assert cancel(engine, "cli:me", number, NOW)
    assert not cancel(engine, "cli:me", number, NOW + 1)
    assert not cancel(engine, "cli:me", number + 1, NOW)
    assert resume(engine, "cli:me", number)
    assert not resume(engine, "cli:me", number)
    (found,) = replays.find(engine, limit=10)
    assert (found.created_by, found.records_left, found.rate, found.event_type) == ("api:all", 10, 2.0, "a.b")
    created, cancelled, resumed = [operation for _, operation, _ in outbox.pending(engine, "g", 10)]
    assert [each.type for each in (created, cancelled, resumed)] == [
        "replay.created",
        "replay.cancelled",
        "replay.resumed",
    ]
    assert created.data == {
        "replay_id": number,
        "subscription_id": receiver.id,
        "url": URL,
        "actor": "api:all",
        "since": "2026-07-28T12:00:00.000Z",
        "until": "2026-07-28T13:00:00.000Z",
        "event_type": "a.b",
        "topics": ["t"],
        "rate": 2.0,
        "ordered": False,
        "records": 10,
    }
    told = {"replay_id": number, "subscription_id": receiver.id, "actor": "cli:me", "records_left": 10}
    assert cancelled.data == resumed.data == told


def test_the_default_rate_is_a_tenth_of_the_limit() -> None:
    """It is a fixed rate without a limit, and never zero."""
    assert (default_rate(50.0), default_rate(None), default_rate(0.001)) == (5.0, 100.0, 0.001)


def planned_now(receiver: Subscribed, *topics: str) -> Plan:
    return plan(receiver, Wanted("1h", topics=topics), time.time())


def test_reading_the_log_has_a_time_limit(receiver: Subscribed) -> None:
    """An unreachable Kafka is reported within it, and the next request is served."""
    log = Log(Kafka("127.0.0.1:1", real=True).settings(), ["t"])
    with pytest.raises(KafkaUnavailable, match=r"127\.0\.0\.1:1 gave no answer within 0.3 s"):
        spans_soon(log, planned_now(receiver), 0.3)
    await_looks()


def test_few_requests_read_the_log_at_once(
    receiver: Subscribed, mock_kafka: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each needs a Kafka client. One above the limit is told to retry, and an ended one frees its place."""
    log = Log(Kafka(mock_kafka, real=False).settings(), ["away"])
    for _ in range(6):
        with pytest.raises(WebhooksError, match="KAFKA_TOPICS=away"):
            spans_soon(log, planned_now(receiver))
    monkeypatch.setattr(replay_request, "within", lambda *_: None)  # the thread never begins, so it keeps its place
    monkeypatch.setattr(replay_request, "_LOOKS", BoundedSemaphore(1))
    spans_soon(log, planned_now(receiver))
    with pytest.raises(KafkaUnavailable, match="too many"):
        spans_soon(log, planned_now(receiver))


def test_a_topic_that_workers_do_not_consume_is_refused(receiver: Subscribed, mock_kafka: str) -> None:
    """The error has its position in the list."""
    kafka = Kafka(mock_kafka, real=False)
    topic = kafka.topic()
    kafka.write(topic, [b"{}"])
    with pytest.raises(InvalidReplay) as refused:
        spans_soon(Log(kafka.settings(), [topic]), planned_now(receiver, topic, "another"))
    assert (refused.value.option, refused.value.index) == ("topics", 1)
