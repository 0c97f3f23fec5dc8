"""Declares all metrics.

The loop counts in plain attributes (0.05 µs; a prometheus_client counter takes 1 µs). A scrape turns them into samples.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

# Seconds: from the fastest receivers over those at the time limit to deliveries that used the whole retry schedule.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 600.0, 3600.0, 86400.0, 345600.0)


class Histogram:
    """A histogram; `observe` costs one bisect and two additions."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count one value."""
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.total += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts by upper bound, in the form of Prometheus."""
        running, result = 0, []
        for bound, count in zip((*map(str, BUCKETS), "+Inf"), self.counts, strict=True):
            running += count
            result.append((bound, float(running)))
        return result


@dataclass(slots=True)
class Metrics:
    """The loop's counters since its start."""

    events: Counter[str] = field(default_factory=Counter)  # matched, unmatched, dead_lettered
    deliveries: Counter[str] = field(default_factory=Counter)  # delivered, retried, parked, exhausted, dead_lettered
    attempts: Counter[str] = field(default_factory=Counter)  # 2xx, 3xx, 4xx, 5xx, error
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


class WorkerCollector(Collector):
    """Turns `Metrics` and `Readings` into Prometheus samples at the moment of a scrape."""

    def __init__(self, metrics: Metrics, readings: Callable[[], Readings]) -> None:
        self._metrics = metrics
        self._readings = readings

    def collect(self) -> Iterable[Metric]:
        """All metric families, in the order of an event's path."""
        metrics, now = self._metrics, self._readings()
        yield _counts("webhooks_events", "Records by outcome.", "outcome", metrics.events)
        yield _counts("webhooks_deliveries", "Deliveries by outcome.", "outcome", metrics.deliveries)
        yield _counts("webhooks_attempts", "Requests by the class of the answer.", "status_class", metrics.attempts)
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
            ("webhooks_in_flight", "Requests open now.", now.in_flight),
            ("webhooks_parked", "Deliveries of the group that wait in the database.", now.parked),
            ("webhooks_breaker_open", "Endpoints whose circuit breaker is open.", now.breaker_open),
            ("webhooks_set_aside", "Deliveries that the database refuses.", now.set_aside),
            (
                "webhooks_expressions_left_out",
                "Subscriptions whose filter or projection is left out as too slow.",
                now.expressions_left_out,
            ),
        ):
            yield GaugeMetricFamily(name, text, value=value)
        for name, text, value in (
            ("webhooks_commits", "Offset commits acknowledged.", now.commits),
            ("webhooks_connections_opened", "Connections opened to receivers.", now.connections_opened),
            ("webhooks_attempts_dropped", "Attempts missing from the attempt history.", now.attempts_dropped),
            (
                "webhooks_retention_overtaken",
                "Records dropped by retention before they were read.",
                now.retention_overtaken,
            ),
            (
                "webhooks_filter_errors",
                "Events on which a subscription's filter failed.",
                metrics.filter_errors,
            ),
        ):
            yield CounterMetricFamily(name, text, value=value)
        lag = GaugeMetricFamily("webhooks_consumer_lag", "Records not yet committed.", labels=["topic", "partition"])
        for (topic, partition), records in now.lag.items():
            lag.add_metric([topic, str(partition)], records)
        yield lag


def registry(metrics: Metrics, readings: Callable[[], Readings]) -> CollectorRegistry:
    """A separate registry for one worker."""
    result = CollectorRegistry()
    result.register(WorkerCollector(metrics, readings))
    return result


def _counts(name: str, text: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in dict(counts).items():
        family.add_metric([value], count)
    return family
