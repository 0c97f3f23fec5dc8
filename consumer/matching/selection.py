"""Selects a subscription's events, by its topics and its filter, from the events that match its type and tenant.

The loop waits for each evaluation. So a budget limits the CPU time of each subscription's filter and projection.
"""

import time
from collections.abc import Callable, Mapping
from enum import Enum
from math import inf

import structlog

from consumer.events.cloud_event import variables_of
from consumer.events.event import Event
from consumer.expressions.expression import TOO_LARGE, EventTooLarge, Expression, ExpressionFailed
from consumer.subscriptions.endpoint import BrokenFilter, Endpoint
from consumer.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

FREE = 50e-6  # seconds of an evaluation that are not charged: a delivery costs as much
WINDOW = 1.0  # seconds after which the charges begin at zero
OWN, ALL = 0.05, 0.2  # seconds charged in a window, to one subscription and to all together
PAUSE = 10.0  # seconds that a subscription over its budget is left out
TURN = 0.005  # seconds of a turn that fanning out may take, some 500 filters: the rest of the loop waits for it
SILENCE = 60.0  # seconds between two log lines about one subscription's filter
FILTER_TOO_LARGE = f"filter: {TOO_LARGE}"
MOST_REMEMBERED = 10_000  # subscriptions whose filter has failed recently


class Budget:
    """Leaves a subscription out for PAUSE seconds if what it lets the loop do takes too much CPU time.

    Once all subscriptions together have taken ALL in a window, the one that has taken most is left out.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` is monotonic."""
        self._clock = clock
        self._ends = -inf
        self._spent: dict[int, float] = {}  # in this window, by subscription
        self._all = 0.0
        self._until: dict[int, float] = {}  # when the pause of a subscription ends

    def __len__(self) -> int:
        """The number of subscriptions left out now. Other threads may call it."""
        now = self._clock()
        return sum(now < until for until in list(self._until.values()))

    def is_over(self, subscription: int) -> bool:
        """Whether the subscription is left out: none of its expressions may run now."""
        until = self._until.get(subscription)
        return until is not None and self._clock() < until

    def charge(self, subscription: int, seconds: float) -> None:
        """Charge a subscription for all the time that was spent: a run of the garbage collector may be in it."""
        if seconds <= FREE:
            return
        now = self._clock()
        if now >= self._ends:
            self._ends = now + WINDOW
            self._spent, self._all = {}, 0.0
            self._until = {each: until for each, until in self._until.items() if now < until}
        charged = seconds - FREE
        self._spent[subscription] = self._spent.get(subscription, 0.0) + charged
        self._all += charged
        if self._spent[subscription] > OWN:
            self._leave_out(subscription, now)
        elif self._all > ALL:
            self._leave_out(max(self._spent, key=self._spent.__getitem__), now)

    def _leave_out(self, subscription: int, now: float) -> None:
        self._all -= self._spent.pop(subscription)
        if subscription not in self._until or now >= self._until[subscription]:
            log.error(
                "a subscription takes too much CPU time; its events are stored",
                subscription=subscription,
                seconds=PAUSE,
            )
            self._until[subscription] = now + PAUSE


class FilterResult(Enum):
    """The verdict of a subscription's topics and filter on an event."""

    WANTED = 1
    UNWANTED = 2
    TOO_LARGE = 3  # the filter may not run for an event of this size
    NOT_ASKED = 4  # the filter is broken, or over its budget: it is evaluated later


class Selector:
    """Decides for one event after the other. `spent`: at the last check, the time that `begin` granted was over.

    A filter's verdict depends on the filter and the event alone, and never on time. So an event that is read again,
    after a crash or by the next owner of its partition, goes to the same subscriptions. A filter that fails on an
    event, or whose value is neither true nor false, refuses the event. This is counted, and logged once a minute for
    each subscription.
    """

    def __init__(
        self,
        metrics: Metrics,
        budget: Budget | None = None,
        clock: Callable[[], float] = time.monotonic,
        processor: Callable[[], float] = time.thread_time,
    ) -> None:
        """`budget` None: no limit, for callers that hold up nothing. `processor` returns the thread's CPU seconds."""
        self.spent = False
        self._metrics = metrics
        self._budget = budget
        self._clock = clock
        self._processor = processor
        self._until = inf
        self._event: Event | None = None
        self._variables: Mapping[str, object] = {}
        self._said: dict[int, float] = {}  # when a failure was last logged, by subscription, the oldest first

    def begin(self, seconds: float) -> None:
        """Grant `seconds` from now on."""
        self.spent = False
        self._until = self._clock() + seconds

    def is_spent(self) -> bool:
        """Check the clock: whether the granted time is over. Each evaluation checks it too."""
        self.spent = self._clock() >= self._until
        return self.spent

    def is_over(self, subscription: int) -> bool:
        """Whether a subscription's filter and projection are over their budget."""
        return self._budget is not None and self._budget.is_over(subscription)

    def ask(self, endpoint: Endpoint, event: Event) -> FilterResult:
        """Whether the endpoint's subscription wants the event."""
        if endpoint.selection is None:
            return FilterResult.WANTED
        topics, chosen = endpoint.selection
        if topics is not None and event.record.topic not in topics:
            self.is_spent()
            return FilterResult.UNWANTED
        return FilterResult.WANTED if chosen is None else self._chooses(chosen, event, endpoint.subscription_id)

    def _chooses(self, chosen: Expression | BrokenFilter, event: Event, subscription: int) -> FilterResult:
        if isinstance(chosen, BrokenFilter) or self.is_over(subscription):
            return FilterResult.NOT_ASKED
        if event is not self._event:
            self._event, self._variables = event, variables_of(event)
        began = self._processor()
        answer = self._evaluate(chosen, subscription)
        if self._budget is not None:
            self._budget.charge(subscription, self._processor() - began)
        self.is_spent()
        return answer

    def _evaluate(self, expression: Expression, subscription: int) -> FilterResult:
        try:
            value = expression.value(self._variables)
        except EventTooLarge:
            self._metrics.filter_errors += 1
            return FilterResult.TOO_LARGE
        except ExpressionFailed as error:
            self._failed(subscription, str(error))
            return FilterResult.UNWANTED
        if not isinstance(value, bool):
            self._failed(subscription, "its value is neither true nor false")
        return FilterResult.WANTED if value is True else FilterResult.UNWANTED

    def _failed(self, subscription: int, why: str) -> None:
        self._metrics.filter_errors += 1
        now = self._clock()
        said = self._said.get(subscription)
        if said is not None and now - said < SILENCE:
            return
        self._said.pop(subscription, None)
        self._said[subscription] = now
        if len(self._said) > MOST_REMEMBERED:
            del self._said[next(iter(self._said))]
        log.warning(
            "a filter has failed; its subscription does not get the event", subscription=subscription, error=why
        )
