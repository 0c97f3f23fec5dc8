"""Declares all metrics.

The loop counts in plain attributes (0.05 µs; a prometheus_client counter takes 1 µs). A scrape turns them into samples.
Native histograms are missing: prometheus_client writes the text format, which has none.
"""

import platform
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FunctionType, MappingProxyType
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from consumer import __version__

# Seconds: from the fastest receivers over those at the time limit to deliveries that used the whole retry schedule.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 600.0, 3600.0, 86400.0, 345600.0)
# Seconds: a turn takes 20 ms at most if all is well; a worker that stands still for 30 s is not alive.
LAG_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
ERROR_KINDS = "unavailable", "too_slow", "refused", "other"  # of the database
LONGEST_SINCE = 60.0  # seconds; the longest turn of one to two such periods is shown


class Histogram:
    """A histogram; `observe` costs one bisect and two additions."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...] = BUCKETS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts by upper bound, in the form of Prometheus."""
        running, result = 0, []
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            running += count
            result.append((bound, float(running)))
        return result


class LoopLag:
    """Seconds of the loop's turns, without their waits: a socket that has just missed its turn waits as long."""

    __slots__ = ("_before", "_ends", "_now", "histogram")

    def __init__(self) -> None:
        self.histogram = Histogram(LAG_BUCKETS)
        self._before = self._now = 0.0  # the longest of the last period, and of the present one
        self._ends = 0.0

    def observe(self, now: float, seconds: float) -> None:
        """A turn that ended at `now` (monotonic seconds) took so many seconds."""
        if now >= self._ends:
            self._before = self._now if now < self._ends + LONGEST_SINCE else 0.0
            self._now, self._ends = 0.0, now + LONGEST_SINCE
        self.histogram.observe(max(0.0, seconds))
        self._now = max(self._now, seconds)

    @property
    def longest(self) -> float:
        """Seconds of the longest turn of the last one to two minutes."""
        return max(self._before, self._now)


EVENTS = "matched", "unmatched", "dead_lettered", "tombstone"
DELIVERIES = "delivered", "retried", "parked", "exhausted", "dead_lettered"
ATTEMPTS = "2xx", "3xx", "4xx", "5xx", "error"


@dataclass(slots=True)
class Metrics:
    """The loop's counters since its start."""

    events: Counter[str] = field(default_factory=Counter)  # by EVENTS
    deliveries: Counter[str] = field(default_factory=Counter)  # by DELIVERIES
    attempts: Counter[str] = field(default_factory=Counter)  # by ATTEMPTS
    attempt_seconds: Histogram = field(default_factory=Histogram)
    delivery_latency_seconds: Histogram = field(default_factory=Histogram)
    filter_errors: int = 0


class Readings(NamedTuple):
    """Values at the moment of a scrape, and counters that parts of the loop keep themselves."""

    in_flight: int = 0
    parked: int = 0
    breaker_open: int = 0
    set_aside: int = 0
    expressions_left_out: int = 0
    commits: int = 0
    connections_opened: int = 0
    retention_overtaken: int = 0  # records dropped by retention before they were consumed
    lag: Mapping[tuple[str, int], int] = MappingProxyType({})  # by topic and partition
    attempts_dropped: int = 0
    oldest_unsettled: Mapping[tuple[str, int], float] = MappingProxyType({})  # seconds, by topic and partition
    next_attempt: float | None = None  # seconds; None: nothing is stored
    failing: int = 0
    failing_longest: Mapping[int, float] = MappingProxyType({})  # seconds, by subscription
    certificates: Mapping[tuple[int, str], float] = MappingProxyType({})  # seconds, by subscription and part
    queue_ages: Mapping[str, float] = MappingProxyType({})  # seconds, by queue
    database_seconds: Mapping[str, Histogram] = MappingProxyType({})  # by thread
    database_errors: Mapping[str, Mapping[str, int]] = MappingProxyType({})  # by thread and kind
    database_backoff: Mapping[str, float] = MappingProxyType({})  # seconds, by kind of work
    loop_lag: LoopLag | None = None
    turn_age: float = 0.0
    ready: bool = False
    ops_closed: int = 0  # connections to the worker's own port


class WorkerCollector(Collector):
    """Turns `Metrics` and `Readings` into Prometheus samples at the moment of a scrape."""

    def __init__(self, metrics: Metrics, readings: Callable[[], Readings]) -> None:
        self._metrics = metrics
        self._readings = readings

    def collect(self) -> Iterable[Metric]:
        """All metric families."""
        metrics, now = self._metrics, self._readings()
        yield from _totals(metrics, now)
        yield from _gauges(now)
        yield from _database(now)
        yield from _loop(now)


def _totals(metrics: Metrics, now: Readings) -> Iterable[Metric]:
    yield _counts("webhooks_events", "Records by outcome.", "outcome", EVENTS, metrics.events)
    yield _counts("webhooks_deliveries", "Deliveries by outcome.", "outcome", DELIVERIES, metrics.deliveries)
    text = "Requests by the class of the answer."
    yield _counts("webhooks_attempts", text, "status_class", ATTEMPTS, metrics.attempts)
    for name, text, histogram in (
        ("webhooks_attempt_seconds", "Time of one exchange.", metrics.attempt_seconds),
        (
            "webhooks_delivery_latency_seconds",
            "From the record's timestamp to its 2xx.",
            metrics.delivery_latency_seconds,
        ),
    ):
        yield HistogramMetricFamily(name, text, buckets=histogram.buckets(), sum_value=histogram.total)
    for name, text, value in (
        ("webhooks_commits", "Offset commits acknowledged.", now.commits),
        ("webhooks_connections_opened", "Connections opened to receivers.", now.connections_opened),
        ("webhooks_attempts_dropped", "Attempts missing from the attempt history.", now.attempts_dropped),
        (
            "webhooks_retention_overtaken",
            "Records dropped by retention before they were read.",
            now.retention_overtaken,
        ),
        ("webhooks_filter_errors", "Events on which a subscription's filter failed.", metrics.filter_errors),
        ("webhooks_ops_connections_closed", "Connections to OPS_PORT closed to make room.", now.ops_closed),
    ):
        yield CounterMetricFamily(name, text, value=value)


def _gauges(now: Readings) -> Iterable[Metric]:
    for name, text, value in (
        ("webhooks_in_flight", "Requests open now.", now.in_flight),
        ("webhooks_parked", "Deliveries of the group that wait in the database.", now.parked),
        ("webhooks_breaker_open", "Endpoints whose circuit breaker is open.", now.breaker_open),
        ("webhooks_set_aside", "Deliveries that the database refuses.", now.set_aside),
        (
            "webhooks_expressions_left_out",
            "Subscriptions whose filter or projection is left out as too slow.",
            now.expressions_left_out,
        ),
        ("webhooks_subscriptions_failing", "Subscriptions of which every attempt fails.", now.failing),
    ):
        yield GaugeMetricFamily(name, text, value=value)
    places = "topic", "partition"
    yield _gauge("webhooks_consumer_lag", "Records not yet committed.", places, now.lag)
    yield _gauge(
        "webhooks_oldest_unsettled_age_seconds",
        "Age of the first record that was read and is not settled.",
        places,
        now.oldest_unsettled,
    )
    yield _gauge(
        "webhooks_subscription_failing_seconds",
        "Time since a subscription began to fail, for those that fail longest.",
        ("subscription",),
        {(key,): seconds for key, seconds in now.failing_longest.items()},
    )
    yield _gauge(
        "webhooks_certificate_expiry_seconds",
        "Time until a certificate of a subscription expires, for those that expire first.",
        ("subscription", "part"),
        now.certificates,
    )
    yield _gauge(
        "webhooks_queue_age_seconds",
        "How long the first entry of a queue has waited.",
        ("queue",),
        {(queue,): seconds for queue, seconds in now.queue_ages.items()},
    )
    yield _gauge(
        "webhooks_next_stored_attempt_seconds",
        "Time until the first stored delivery is due.",
        (),
        {} if now.next_attempt is None else {(): now.next_attempt},
    )


def _database(now: Readings) -> Iterable[Metric]:
    seconds = HistogramMetricFamily("webhooks_database_seconds", "Time of one database job.", labels=["thread"])
    for thread, histogram in now.database_seconds.items():
        seconds.add_metric([thread], histogram.buckets(), histogram.total)
    yield seconds
    errors = CounterMetricFamily("webhooks_database_errors", "Failed database jobs.", labels=["thread", "kind"])
    for thread, its in now.database_errors.items():
        for kind in ERROR_KINDS:
            errors.add_metric([thread, kind], its.get(kind, 0))
    yield errors
    yield _gauge(
        "webhooks_database_backoff_seconds",
        "Pause between the tries of database work that fails.",
        ("work",),
        {(work,): wait for work, wait in now.database_backoff.items()},
    )


def _loop(now: Readings) -> Iterable[Metric]:
    lag = LoopLag() if now.loop_lag is None else now.loop_lag
    yield HistogramMetricFamily(
        "webhooks_loop_lag_seconds",
        "Time of one turn of the loop, without its wait.",
        buckets=lag.histogram.buckets(),
        sum_value=lag.histogram.total,
    )
    for name, text, value in (
        ("webhooks_loop_lag_longest_seconds", "The longest turn of the last one to two minutes.", lag.longest),
        ("webhooks_loop_turn_age_seconds", "Time since the loop's last turn began.", now.turn_age),
        ("webhooks_ready", "Whether the worker can do its work.", float(now.ready)),
    ):
        yield GaugeMetricFamily(name, text, value=value)
    build = (__version__, platform.python_version(), "no" if isinstance(Histogram.observe, FunctionType) else "yes")
    yield _gauge("webhooks_build_info", "The program.", ("version", "python", "compiled"), {build: 1.0})


def registry(metrics: Metrics, readings: Callable[[], Readings]) -> CollectorRegistry:
    """A separate registry for one worker and its process."""
    result = CollectorRegistry()
    ProcessCollector(registry=result)
    result.register(WorkerCollector(metrics, readings))
    return result


def _counts(name: str, text: str, label: str, known: Sequence[str], counts: Mapping[str, int]) -> Metric:
    """A counter with a sample for each known label value: one that appears above 0 has no increase in PromQL."""
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in (dict.fromkeys(known, 0) | dict(counts)).items():
        family.add_metric([value], count)
    return family


def _gauge(name: str, text: str, labels: Sequence[str], values: Mapping[Any, float]) -> Metric:
    """A gauge with a sample for each tuple of label values."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric([str(each) for each in key], value)
    return family
