"""A backtest, on a real Kafka: the events of the log that options would match."""

from collections import Counter

import pytest

from consumer.errors import InvalidSubscription
from consumer.intake.log_reader import LogReader
from consumer.ops import backtest as module
from consumer.ops.backtest import Backtest, added, backtest, options_of
from consumer.ops.find import whole
from consumer.ops.replay_request import Log
from consumer.ops.walk import Bounds
from tests.kafka_kit import Kafka

pytestmark = pytest.mark.kafka  # the mock cluster finds no offsets by time


@pytest.fixture
def log(real_kafka: Kafka) -> Log:
    """A topic with thirty orders, of which every third is paid, and a dead letter."""
    topic = real_kafka.topic()
    for number in range(30):
        kind = "paid" if number % 3 == 0 else "created"
        tenant = [("tenant", b"acme")] if number % 2 else []
        value = b'{"type": "order.%s", "amount": %d}' % (kind.encode(), number)
        real_kafka.write(topic, [value], headers=tenant)
    real_kafka.write(topic, [b"\xff", b'{"type": "user.created"}'])
    return Log(real_kafka.settings(), [topic])


def tried(log: Log, bounds: Bounds = Bounds(), **given: object) -> Backtest:  # noqa: B008 (immutable)
    """The options, tried on the whole log."""
    with LogReader(log.kafka) as reader:
        found = Backtest(whole(reader, log, 0.0))
    meant = options_of(given)
    while found.left:
        backtest(log, meant, found, bounds)
    return found


def test_matching_events_are_counted_by_type_and_hour(log: Log) -> None:
    """The others of the type are counted by the reason; the first ones are rendered."""
    found = tried(log, event_type="order.*", event_filter="data.amount >= 20", projection='{"n": data.amount}')
    assert (found.records, found.events, found.matched) == (32, 30, 10)
    assert found.by_type == {"order.created": 7, "order.paid": 3}
    assert found.refused == {"filter: false for this event": 20}
    assert sum(found.by_hour.values()) == 10
    assert all(hour % 3600 == 0 for hour in found.by_hour)
    assert [each.body for each in found.samples] == [b'{"n":%d}' % number for number in range(20, 30)]
    assert {each.content_type for each in found.samples} == {"application/json"}
    told = found.as_json()
    assert (told["matched"], told["records_left"]) == (10, 0)


def test_a_backtest_goes_on_where_its_bounds_have_ended_it(log: Log) -> None:
    """Each record counts once."""
    found = tried(log, Bounds(records=7), event_type="order.paid")
    assert (found.records, found.events, found.matched) == (32, 10, 10)


def test_events_of_several_types_count_once(log: Log) -> None:
    """Though two patterns match them; one type that cannot be used refuses all."""
    found = tried(log, event_types=["order.paid", "order.*", "user.created"])
    assert (found.events, found.by_type) == (31, {"order.created": 20, "order.paid": 10, "user.created": 1})
    with pytest.raises(InvalidSubscription, match="event_types"):
        options_of({"event_types": ["a", "b.*.c"]})


def test_parts_add_up(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the numbers and the first bodies of the whole; kinds stay few."""
    whole = tried(log, event_type="order.*", event_filter="data.amount >= 20")
    halves = Backtest(whole.left, 16, 15, 0, refused=Counter({"filter: false for this event": 15}))
    rest = Backtest(whole.left, 16, 15, 10, whole.by_type, whole.by_hour, Counter({"filter: false for this event": 5}))
    rest.samples = whole.samples
    told = whole.as_json()
    assert added(halves.as_json(), rest.as_json()) == told
    assert sum(added(told, told)["by_hour"].values()) == 20
    monkeypatch.setattr(module, "KINDS", 1)
    assert added(told, told)["by_type"] == {"order.created": 14, "order.paid": 6}


def test_a_tenant_gets_its_own_events(log: Log) -> None:
    """Others are not even counted."""
    found = tried(log, event_type="*", tenant="acme")
    assert (found.events, found.matched) == (15, 15)


def test_what_cannot_be_rendered_says_why(log: Log) -> None:
    """The event matches: its delivery would be given up."""
    found = tried(log, event_type="order.paid", projection="data.absent")
    assert found.matched == 10
    assert {each.body for each in found.samples} == {None}
    assert all((each.wrong or "").startswith("projection: ") for each in found.samples)


def test_few_kinds_are_counted_apart(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """A topic may have any number of types."""
    monkeypatch.setattr(module, "KINDS", 1)
    found = tried(log, event_type="*")
    assert found.by_type == {"order.paid": 10, "others": 21}


def test_options_that_no_subscription_may_have_are_refused() -> None:
    """As when they are saved."""
    for given in ({"event_type": "**"}, {"event_type": "a", "event_filter": "data."}, {}):
        with pytest.raises(InvalidSubscription):
            options_of(given)
