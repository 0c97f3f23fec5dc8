"""Whether a subscription wants an event: topics and filters, their errors, and their share of a turn."""

import itertools

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from consumer.events.cloud_event import EventVariables, variables_of
from consumer.events.event import Event
from consumer.expressions.expression import compile_filter
from consumer.matching.selection import (
    ALL,
    FREE,
    OWN,
    PAUSE,
    SILENCE,
    WINDOW,
    Budget,
    FilterResult,
    Selector,
)
from consumer.subscriptions.endpoint import BrokenFilter, Endpoint, Selection
from consumer.telemetry.metrics import Metrics
from tests.delivery.store_kit import Clock
from tests.ledger.rows_kit import make_event

URL = "https://example.com/hook"
MARK, BROKEN = "a customer's own words", "broken"


def wanting(event_filter: str | None = None, topics: set[str] | None = None, subscription: int = 1) -> Endpoint:
    """A subscription with this selection, if any."""
    expression = BrokenFilter() if event_filter is BROKEN else compile_filter(event_filter) if event_filter else None
    selection = Selection(None if topics is None else frozenset(topics), expression)
    return Endpoint(subscription, URL, (b"k",), selection=selection if topics or expression else None)


def carrying(data: object, topic: str = "orders") -> Event:
    """An event with this body."""
    event = make_event(7, body=orjson.dumps(data))
    return event._replace(record=event.record._replace(topic=topic), type="order.created")


@pytest.mark.parametrize(
    ("event_filter", "topics", "wanted"),
    [
        (None, None, True),
        ("data.amount > 100", None, True),
        ("data.amount > 200", None, False),
        ("data.amount > 100", {"orders"}, True),
        ("data.amount > 100", {"users"}, False),
        (None, {"orders", "users"}, True),
        (None, {"Orders"}, False),
        ('type.startsWith("order.") && topic == "orders" && offset == 7', None, True),
        (BROKEN, {"users"}, False),
        (BROKEN, {"orders"}, None),
    ],
)
def test_topics_and_filter_must_both_match(
    event_filter: str | None, topics: set[str] | None, *, wanted: bool | None
) -> None:
    """Topics match by name, the filter uses the whole event. The result of a broken filter is unknown."""
    assert (
        Selector(Metrics()).ask(wanting(event_filter, topics), carrying({"amount": 150}))
        is ({True: FilterResult.WANTED, False: FilterResult.UNWANTED, None: FilterResult.NOT_ASKED}[wanted])
    )


@pytest.mark.parametrize(
    "event_filter", ["data.missing > 1", "data.text", "data.text > 1", "data[data.text] == 1", "1 / data.none == 1"]
)
def test_an_error_is_no_match_and_is_counted_and_logged(event_filter: str) -> None:
    """Once a minute per subscription, without the event's contents. Other subscriptions' filters run as usual."""
    metrics, clock = Metrics(), Clock()
    selector = Selector(metrics, None, clock)
    event = carrying({"text": MARK, "none": 0})
    with capture_logs() as logs:
        for _ in range(3):
            assert selector.ask(wanting(event_filter), event) is FilterResult.UNWANTED
            assert selector.ask(wanting("data.none == 0", subscription=2), event) is FilterResult.WANTED
        assert [entry["subscription"] for entry in logs] == [1]
        clock.now += SILENCE
        selector.ask(wanting(event_filter), event)
    assert (metrics.filter_errors, len(logs)) == (4, 2)
    assert MARK not in str(logs)
    assert logs[0]["error"]


def test_remembered_errors_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred thousand broken filters take bounded memory: the least recent one is forgotten."""
    monkeypatch.setattr("consumer.matching.selection.MOST_REMEMBERED", 10)
    selector = Selector(Metrics())
    with capture_logs():
        for number in range(100):
            selector.ask(wanting("data.missing == 1", subscription=number), carrying({}))
    assert list(selector._said) == list(range(90, 100))


def test_an_event_is_parsed_once_and_only_if_a_filter_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand filters parse it once. Topics alone do not parse it."""
    read: list[Event] = []

    def noted(event: Event) -> EventVariables:
        read.append(event)
        return variables_of(event)

    monkeypatch.setattr("consumer.matching.selection.variables_of", noted)
    selector = Selector(Metrics())
    events = [carrying({"amount": number}) for number in range(3)]
    for event in events:
        assert selector.ask(wanting(topics={"orders"}), event) is FilterResult.WANTED
    assert read == []
    for event in events:
        for number in range(1000):
            assert selector.ask(wanting(f"data.amount < {number % 7 + 3}"), event) is FilterResult.WANTED
    assert read == events


@pytest.mark.parametrize("step", [0.0, 0.001, 0.01])
def test_the_time_of_a_turn_is_bounded(step: float) -> None:
    """When the time is over, the selector says so, and not before. A new turn has its own time."""
    clock = Clock(step=step)
    selector = Selector(Metrics(), None, clock)
    for _ in range(2):
        selector.begin(0.1)
        done = 0
        while not selector.spent and done < 1000:
            selector.ask(wanting("data.amount > 1"), carrying({"amount": 1}))
            done += 1
        assert done == 1000 if not step else done * step <= 0.1 + step


def test_events_are_distinguished_by_identity() -> None:
    """Two equal records in sequence are both parsed, and no value of one is used for the other."""
    selector = Selector(Metrics())
    for amount in itertools.islice(itertools.cycle((1, 5)), 6):
        answer = FilterResult.WANTED if amount > 3 else FilterResult.UNWANTED
        assert selector.ask(wanting("data.amount > 3"), carrying({"amount": amount})) is answer


def test_a_filter_over_its_budget_does_not_run() -> None:
    """No event is lost, and other filters run. After its pause it runs again."""
    clock, processor = Clock(), Clock(step=0.005)
    selector = Selector(Metrics(), Budget(clock), clock, processor)
    slow, other, event = wanting("data.amount > 1"), wanting("data.amount > 1", subscription=2), carrying({"amount": 5})
    answers = [selector.ask(slow, event) for _ in range(200)]
    assert answers[:10] == [FilterResult.WANTED] * 10
    assert (answers[-1], selector.ask(other, event)) == (FilterResult.NOT_ASKED, FilterResult.WANTED)
    clock.now += PAUSE
    assert selector.ask(slow, event) is FilterResult.WANTED


def test_parsing_the_event_is_not_charged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the first filter of a large event would pay for all."""
    clock, processor = Clock(), Clock()
    budget = Budget(clock)

    def slowly(event: Event) -> EventVariables:
        processor.now += 1.0
        return variables_of(event)

    monkeypatch.setattr("consumer.matching.selection.variables_of", slowly)
    selector = Selector(Metrics(), budget, clock, processor)
    for _ in range(5):
        assert selector.ask(wanting("data.amount > 1"), carrying({"amount": 5})) is FilterResult.WANTED
    assert len(budget) == 0


def charges(budget: Budget, subscription: int, seconds: float) -> int:
    """How many evaluations of so many seconds the subscription makes until it is left out; at most a thousand."""
    for number in range(1000):
        if budget.is_over(subscription):
            return number
        budget.charge(subscription, seconds)
    return 1000


@pytest.mark.parametrize(
    ("took", "least", "most"),
    [(FREE / 2, 1000, 1000), (0.025, 3, 3), (1.9, 1, 1)],
    ids=["usual", "slow", "stopped"],
)
def test_charges_of_one_evaluation(took: float, least: int, most: int) -> None:
    """Usual ones are free: each sends a delivery, which costs as much, or saves one.

    One that takes more than the whole budget is the last one before the pause.
    """
    budget = Budget(Clock())
    assert least <= charges(budget, 1, took) <= most
    assert (len(budget) == 0) is (took < FREE)


@pytest.mark.parametrize("took", [0.001, 0.005, 0.025, 1.9])
def test_a_slow_subscription_is_left_out_for_a_while(took: float) -> None:
    """It is logged once each time. Other subscriptions run, and after the pause it begins with a full budget."""
    clock = Clock()
    budget = Budget(clock)
    with capture_logs() as logs:
        for _ in range(2):
            assert OWN < charges(budget, 7, took) * (took - FREE) <= OWN + took
            assert (budget.is_over(7), budget.is_over(8), len(budget)) == (True, False, 1)
            clock.now += 0.001
            budget.charge(7, took)  # of a request that was begun: the pause does not become longer
            clock.now += PAUSE - 0.002
            assert budget.is_over(7)
            clock.now += 0.001
            assert (budget.is_over(7), len(budget)) == (False, 0)
    assert [entry["subscription"] for entry in logs] == [7, 7]


def test_of_many_slow_subscriptions_the_slowest_are_left_out() -> None:
    """Together they take more than a fifth of a processor. However many there are, the others run."""
    clock = Clock()
    budget = Budget(clock)
    for _ in range(100):
        for number in range(1, 21):
            if not budget.is_over(number):
                budget.charge(number, 0.002 + FREE if number > 12 else FREE + 1e-5)
    assert [number for number in range(1, 21) if budget.is_over(number)] == list(range(13, 21))


@given(st.lists(st.tuples(st.integers(1, 30), st.floats(0, 0.02), st.floats(0, 0.1)), max_size=300))
def test_charges_do_not_exceed_the_budgets(steps: list[tuple[int, float, float]]) -> None:
    """What one subscription, and what all, take in any second is bounded; each may begin one evaluation too many."""
    clock = Clock()
    budget = Budget(clock)
    charged: list[tuple[float, int, float]] = []
    for subscription, took, later in steps:
        clock.now += later
        if not budget.is_over(subscription):
            budget.charge(subscription, took)
            charged.append((clock.now, subscription, max(0.0, took - FREE)))
        recent = [(each, seconds) for at, each, seconds in charged if at > clock.now - WINDOW]
        mine = sum(seconds for each, seconds in recent if each == subscription)
        assert mine <= 2 * (OWN + 0.02) + 1e-9
        assert sum(seconds for _, seconds in recent) <= 2 * (2 * ALL + 0.02 * 30) + 1e-9


def test_what_is_remembered_of_charges_is_bounded_in_time() -> None:
    """Subscriptions that were slow once leave no trace after the pause."""
    clock = Clock()
    budget = Budget(clock)
    for number in range(1000):
        charges(budget, number, OWN)
        clock.now += WINDOW
    assert len(budget._spent) <= 1
    assert len(budget._until) <= PAUSE / WINDOW + 1
