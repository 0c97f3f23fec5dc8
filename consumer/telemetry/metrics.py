"""Declares all metrics.

The loop counts in plain attributes (0.05 µs; a prometheus_client counter takes 1 µs). A scrape turns them into samples.
Native histograms are missing: prometheus_client writes the text format, which has none.
"""

import platform
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from consumer import __version__
from consumer.telemetry.build import is_compiled

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

    # Not `Counter`, whose additions take twice as long.
    events: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))  # by EVENTS
    deliveries: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))  # by DELIVERIES
    attempts: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))  # by ATTEMPTS
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
    held_back: Mapping[tuple[str, int], int] = MappingProxyType({})  # records, by topic and partition
    attempts_dropped: int = 0
    log_lines_dropped: int = 0
    oldest_unsettled: Mapping[tuple[str, int], float] = MappingProxyType({})  # seconds, by topic and partition
    next_attempt: float | None = None  # seconds; None: nothing is stored
    paused: int = 0
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
    behind: int = 0
    backlog_seconds_left: Mapping[tuple[str, int, int], float] = MappingProxyType({})  # by due key
    backlog_lost: int = 0  # offsets that Kafka no longer had
    unpublished: int = 0  # deliveries that were given up
    answers_dropped: int = 0


# Name, text, and the field of `Readings`.
COUNTERS = (
    ("webhooks_commits", "Offset commits acknowledged.", "commits"),
    ("webhooks_connections_opened", "Connections opened to receivers.", "connections_opened"),
    ("webhooks_attempts_dropped", "Attempts missing from the attempt history.", "attempts_dropped"),
    ("webhooks_answers_dropped", "Reported answers missing from the attempts topic.", "answers_dropped"),
    ("webhooks_log_lines_dropped", "Lines missing from the log.", "log_lines_dropped"),
    ("webhooks_retention_overtaken", "Records dropped by retention before they were read.", "retention_overtaken"),
    ("webhooks_backlog_lost", "Offsets that Kafka no longer had when a subscription was to get them.", "backlog_lost"),
    ("webhooks_ops_connections_closed", "Connections to OPS_PORT closed to make room.", "ops_closed"),
)
_PLACE, _LONGEST = ("topic", "partition"), "Time since a subscription began to fail, for those that fail longest."
_EXPIRY = "Time until a certificate of a subscription expires, for those that expire first."
_LEFT = "Time until retention removes the next event of a subscription that is behind, for the most urgent."
_LEFT_OUT = "Subscriptions whose filter or projection is left out as too slow."
_UNSETTLED = "Age of the first record that was read and is not settled."
# Name, text, labels, and the field of `Readings`.
GAUGES: tuple[tuple[str, str, tuple[str, ...], str], ...] = (
    ("webhooks_in_flight", "Requests open now.", (), "in_flight"),
    ("webhooks_parked", "Deliveries of the group that wait in the database.", (), "parked"),
    ("webhooks_breaker_open", "Endpoints whose circuit breaker is open.", (), "breaker_open"),
    ("webhooks_set_aside", "Deliveries that the database refuses.", (), "set_aside"),
    ("webhooks_exhausted_unpublished", "Given up, and not acknowledged by the exhausted topic.", (), "unpublished"),
    ("webhooks_expressions_left_out", _LEFT_OUT, (), "expressions_left_out"),
    ("webhooks_subscriptions_paused", "Subscriptions that were paused since every attempt failed.", (), "paused"),
    ("webhooks_subscriptions_failing", "Subscriptions of which every attempt fails.", (), "failing"),
    ("webhooks_subscriptions_behind", "Subscriptions with a position of their own in a partition.", (), "behind"),
    ("webhooks_backlog_left_seconds", _LEFT, (*_PLACE, "subscription"), "backlog_seconds_left"),
    ("webhooks_consumer_lag", "Records not yet committed.", _PLACE, "lag"),
    ("webhooks_held_back_records", "Records that an open transaction holds back.", _PLACE, "held_back"),
    ("webhooks_oldest_unsettled_age_seconds", _UNSETTLED, _PLACE, "oldest_unsettled"),
    ("webhooks_subscription_failing_seconds", _LONGEST, ("subscription",), "failing_longest"),
    ("webhooks_certificate_expiry_seconds", _EXPIRY, ("subscription", "part"), "certificates"),
    ("webhooks_queue_age_seconds", "How long the first entry of a queue has waited.", ("queue",), "queue_ages"),
    ("webhooks_next_stored_attempt_seconds", "Time until the first stored delivery is due.", (), "next_attempt"),
    (
        "webhooks_database_backoff_seconds",
        "Pause between the tries of database work that fails.",
        ("work",),
        "database_backoff",
    ),
    ("webhooks_loop_turn_age_seconds", "Time since the loop's last turn began.", (), "turn_age"),
    ("webhooks_ready", "Whether the worker can do its work.", (), "ready"),
)


class WorkerCollector(Collector):
    """Turns `Metrics` and `Readings` into Prometheus samples at the moment of a scrape."""

    def __init__(self, metrics: Metrics, readings: Callable[[], Readings]) -> None:
        self._metrics = metrics
        self._readings = readings

    def collect(self) -> Iterable[Metric]:
        """All metric families."""
        metrics, now = self._metrics, self._readings()
        for name, text, label, known, counts in (
            ("webhooks_events", "Records by outcome.", "outcome", EVENTS, metrics.events),
            ("webhooks_deliveries", "Deliveries by outcome.", "outcome", DELIVERIES, metrics.deliveries),
            ("webhooks_attempts", "Requests by the class of the answer.", "status_class", ATTEMPTS, metrics.attempts),
        ):
            # With a sample for each known value: one that appears above 0 has no increase in PromQL.
            yield _family(CounterMetricFamily, name, text, (label,), dict.fromkeys(known, 0) | counts)
        yield _family(
            CounterMetricFamily,
            "webhooks_filter_errors",
            "Events on which a subscription's filter failed.",
            (),
            metrics.filter_errors,
        )
        for name, text, reading in COUNTERS:
            yield _family(CounterMetricFamily, name, text, (), getattr(now, reading))
        for name, text, labels, reading in GAUGES:
            yield _family(GaugeMetricFamily, name, text, labels, getattr(now, reading))
        errors = {
            (thread, each): its.get(each, 0) for thread, its in now.database_errors.items() for each in ERROR_KINDS
        }
        text = "Failed database jobs."
        yield _family(CounterMetricFamily, "webhooks_database_errors", text, ("thread", "kind"), errors)
        lag = LoopLag() if now.loop_lag is None else now.loop_lag
        text = "The longest turn of the last one to two minutes."
        yield _family(GaugeMetricFamily, "webhooks_loop_lag_longest_seconds", text, (), lag.longest)
        build = {(__version__, platform.python_version(), "yes" if is_compiled() else "no"): 1.0}
        names = ("version", "python", "compiled")
        yield _family(GaugeMetricFamily, "webhooks_build_info", "The program.", names, build)
        for name, text, labels, histograms in (
            ("webhooks_attempt_seconds", "Time of one exchange.", (), {(): metrics.attempt_seconds}),
            (
                "webhooks_delivery_latency_seconds",
                "From the record's timestamp to its 2xx.",
                (),
                {(): metrics.delivery_latency_seconds},
            ),
            ("webhooks_loop_lag_seconds", "Time of one turn of the loop, without its wait.", (), {(): lag.histogram}),
            ("webhooks_database_seconds", "Time of one database job.", ("thread",), now.database_seconds),
        ):
            family = HistogramMetricFamily(name, text, labels=labels)
            for key, histogram in histograms.items():
                family.add_metric([key] if isinstance(key, str) else [], histogram.buckets(), histogram.total)
            yield family


def _family(
    kind: type[CounterMetricFamily | GaugeMetricFamily], name: str, text: str, labels: Sequence[str], value: Any
) -> Metric:
    """A metric with one value, none, or a value for each label's value or tuple of values."""
    family = kind(name, text, labels=labels)
    samples = value if isinstance(value, Mapping) else {} if value is None else {(): value}
    for key, number in samples.items():
        family.add_metric([str(each) for each in (key if isinstance(key, tuple) else (key,))], number)
    return family


def registry(metrics: Metrics, readings: Callable[[], Readings]) -> CollectorRegistry:
    """A separate registry for one worker and its process."""
    result = CollectorRegistry()
    ProcessCollector(registry=result)
    result.register(WorkerCollector(metrics, readings))
    return result
