"""Which events of its type and tenant a subscription wants: those of its topics for which its filter is true."""

import time
from collections.abc import Callable, Mapping
from math import inf

import structlog

from consumer.cloud_event import variables_of
from consumer.endpoint import Endpoint
from consumer.event import Event
from consumer.expressions import EventTooLarge, Expression, ExpressionFailed
from consumer.telemetry import Metrics

log = structlog.get_logger(__name__)

TURN = 0.005  # seconds of a turn that filters may take, some 500 evaluations: all others wait for them
SILENCE = 60.0  # seconds between two lines on one subscription's filter
MOST_REMEMBERED = 10_000  # subscriptions whose filter has failed lately


class Selector:
    """Decides for one event after the other. `spent`: the time that `begin` gave, if it did, is over.

    What a filter makes of an event depends on both alone, and never on time: an event that is read again, after a crash
    or by the next owner of its partition, goes to the same subscriptions. A filter that has no value for an event, or
    one that is neither true nor false, does not want it: that is counted, and logged once a minute for each
    subscription. An event that is too large for the filter is one of which nobody knows whether it is wanted.
    """

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self.spent = False
        self._metrics = metrics
        self._clock = clock
        self._until = inf
        self._event: Event | None = None
        self._variables: Mapping[str, object] = {}
        self._said: dict[int, float] = {}  # by subscription, the oldest first

    def begin(self, seconds: float) -> None:
        """Filters may take so long from now on."""
        self.spent = False
        self._until = self._clock() + seconds

    def wants(self, endpoint: Endpoint, event: Event) -> bool:
        """Whether it goes there. EventTooLarge where its filter cannot say that."""
        if endpoint.selection is None:
            return True
        topics, expression = endpoint.selection
        if topics is not None and event.record.topic not in topics:
            self.spent = self._clock() >= self._until
            return False
        return expression is None or self._is_true(expression, event, endpoint.subscription_id)

    def _is_true(self, expression: Expression, event: Event, subscription: int) -> bool:
        if event is not self._event:
            self._event, self._variables = event, variables_of(event)
        try:
            value = expression.value(self._variables)
            if isinstance(value, bool):
                return value
            self._failed(subscription, "its value is neither true nor false")
        except EventTooLarge:
            self._metrics.filter_errors += 1
            raise
        except ExpressionFailed as error:
            self._failed(subscription, str(error))
        finally:
            self.spent = self._clock() >= self._until
        return False

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
