"""Whether a subscription wants an event: topics and filters, their errors, and their share of a turn."""

import itertools
from collections.abc import Callable

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from consumer.events.cloud_event import variables_of
from consumer.events.event import Event, RecordId
from consumer.expressions import compile_filter
from consumer.matching.budget import PAUSE, Budget
from consumer.matching.selection import SILENCE, FilterResult, Selector
from consumer.subscriptions.endpoint import BrokenFilter, Endpoint, Selection
from consumer.telemetry.metrics import Metrics

URL = "https://example.com/hook"
MARK = "a customer's own words"


def wanting(event_filter: str | None = None, topics: set[str] | None = None, subscription: int = 1) -> Endpoint:
    """A subscription with this selection."""
    expression = None if event_filter is None else compile_filter(event_filter)
    return Endpoint(
        subscription, URL, (b"k",), selection=Selection(None if topics is None else frozenset(topics), expression)
    )


def carrying(data: object, topic: str = "orders") -> Event:
    """An event with this body."""
    return Event(
        RecordId(topic, 0, 7, 5000), "order.created", "msg_7", orjson.dumps(data), "application/json", None, None
    )


class Ticking:
    """A clock that moves by `step` at each reading."""

    def __init__(self, step: float = 0.0) -> None:
        self.now = 100.0
        self.step = step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


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
    ],
)
def test_topics_and_filter_must_both_match(event_filter: str | None, topics: set[str] | None, *, wanted: bool) -> None:
    """Topics match by name, the filter uses the whole event."""
    assert Selector(Metrics()).ask(wanting(event_filter, topics), carrying({"amount": 150})) is (
        FilterResult.WANTED if wanted else FilterResult.UNWANTED
    )


def test_without_a_selection_all_events_are_wanted() -> None:
    """The event is not read."""
    assert Selector(Metrics()).ask(Endpoint(1, URL, (b"k",)), carrying([])) is FilterResult.WANTED


@pytest.mark.parametrize(
    "event_filter", ["data.missing > 1", "data.text", "data.text > 1", "data[data.text] == 1", "1 / data.none == 1"]
)
def test_an_error_is_no_match_and_is_counted_and_logged(event_filter: str) -> None:
    """Once a minute per subscription, without the event's contents. Other subscriptions' filters run as usual."""
    metrics, clock = Metrics(), Ticking()
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

    def noted(event: Event) -> dict[str, object]:
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
    clock = Ticking(step)
    selector = Selector(Metrics(), None, clock)
    for _ in range(2):
        selector.begin(0.1)
        done = 0
        while not selector.spent and done < 1000:
            selector.ask(wanting("data.amount > 1"), carrying({"amount": 1}))
            done += 1
        assert done == 1000 if not step else done * step <= 0.1 + step


NUMBERS = st.integers(-5, 5)
Rule = tuple[str, Callable[[dict[str, int]], bool]]


def compared(name: str, sign: str, number: int) -> Rule:
    """A comparison, as CEL text and as a Python function."""
    signs: dict[str, Callable[[int, int], bool]] = {
        "==": int.__eq__, "!=": int.__ne__, "<": int.__lt__, "<=": int.__le__, ">": int.__gt__, ">=": int.__ge__,
    }  # fmt: skip
    return f"data.{name} {sign} {number}", lambda data: signs[sign](data[name], number)


def both(left: Rule, right: Rule) -> Rule:
    return f"({left[0]} && {right[0]})", lambda data: left[1](data) and right[1](data)


def either(left: Rule, right: Rule) -> Rule:
    return f"({left[0]} || {right[0]})", lambda data: left[1](data) or right[1](data)


def neither(rule: Rule) -> Rule:
    return f"!({rule[0]})", lambda data: not rule[1](data)


RULES = st.recursive(
    st.builds(compared, st.sampled_from("abc"), st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), NUMBERS),
    lambda rules: st.builds(both, rules, rules) | st.builds(either, rules, rules) | st.builds(neither, rules),
    max_leaves=6,
)


@settings(deadline=None)
@given(rule=RULES, values=st.tuples(NUMBERS, NUMBERS, NUMBERS))
def test_a_filter_agrees_with_python(rule: Rule, values: tuple[int, int, int]) -> None:
    """Comparisons and their combinations, on numbers of an event."""
    text, judge = rule
    data = dict(zip("abc", values, strict=True))
    assert Selector(Metrics()).ask(wanting(text), carrying(data)) is (
        FilterResult.WANTED if judge(data) else FilterResult.UNWANTED
    )


def test_events_are_distinguished_by_identity() -> None:
    """Two equal records in sequence are both parsed, and no value of one is used for the other."""
    selector = Selector(Metrics())
    for amount in itertools.islice(itertools.cycle((1, 5)), 6):
        answer = FilterResult.WANTED if amount > 3 else FilterResult.UNWANTED
        assert selector.ask(wanting("data.amount > 3"), carrying({"amount": amount})) is answer


def test_a_filter_over_its_budget_does_not_run() -> None:
    """No event is lost, and other filters run. After its pause it runs again."""
    clock, processor, over = Ticking(), Ticking(0.005), list[int]()
    budget = Budget(clock, lambda subscription, _seconds: over.append(subscription))
    selector = Selector(Metrics(), budget, clock, processor)
    slow, other, event = wanting("data.amount > 1"), wanting("data.amount > 1", subscription=2), carrying({"amount": 5})
    answers = [selector.ask(slow, event) for _ in range(200)]
    assert answers[:10] == [FilterResult.WANTED] * 10
    assert (answers[-1], over, selector.ask(other, event)) == (FilterResult.NOT_ASKED, [1], FilterResult.WANTED)
    clock.now += PAUSE
    assert selector.ask(slow, event) is FilterResult.WANTED


def test_a_broken_filter_does_not_run() -> None:
    """Its result is unknown until it is corrected."""
    endpoint = Endpoint(1, URL, (b"k",), selection=Selection(frozenset({"orders"}), BrokenFilter()))
    assert Selector(Metrics()).ask(endpoint, carrying({})) is FilterResult.NOT_ASKED
    assert Selector(Metrics()).ask(endpoint, carrying({}, topic="users")) is FilterResult.UNWANTED


def test_parsing_the_event_is_not_charged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the first filter of a large event would pay for all."""
    clock, processor, over = Ticking(), Ticking(), list[int]()

    def slowly(event: Event) -> dict[str, object]:
        processor.now += 1.0
        return variables_of(event)

    monkeypatch.setattr("consumer.matching.selection.variables_of", slowly)
    selector = Selector(
        Metrics(), Budget(clock, lambda subscription, _seconds: over.append(subscription)), clock, processor
    )
    for _ in range(5):
        assert selector.ask(wanting("data.amount > 1"), carrying({"amount": 5})) is FilterResult.WANTED
    assert over == []
