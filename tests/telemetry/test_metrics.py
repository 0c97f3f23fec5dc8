"""Metrics and logs: names that dashboards rely on, exact counts, and log lines without secrets."""

import json
import os
import platform
import pty
import subprocess
import sys
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from consumer import __version__
from consumer.telemetry.metrics import BUCKETS, Histogram, LoopLag, Metrics, Readings, registry
from tests.processes import ROOT, environment

LABELS = {
    "webhooks_events_total": {"outcome"},
    "webhooks_deliveries_total": {"outcome"},
    "webhooks_attempts_total": {"status_class"},
    "webhooks_attempt_seconds": set(),
    "webhooks_delivery_latency_seconds": set(),
    "webhooks_in_flight": set(),
    "webhooks_parked": set(),
    "webhooks_breaker_open": set(),
    "webhooks_set_aside": set(),
    "webhooks_expressions_left_out": set(),
    "webhooks_commits_total": set(),
    "webhooks_connections_opened_total": set(),
    "webhooks_attempts_dropped_total": set(),
    "webhooks_log_lines_dropped_total": set(),
    "webhooks_retention_overtaken_total": set(),
    "webhooks_filter_errors_total": set(),
    "webhooks_ops_connections_closed_total": set(),
    "webhooks_consumer_lag": {"topic", "partition"},
    "webhooks_held_back_records": {"topic", "partition"},
    "webhooks_oldest_unsettled_age_seconds": {"topic", "partition"},
    "webhooks_next_stored_attempt_seconds": set(),
    "webhooks_subscriptions_failing": set(),
    "webhooks_subscription_failing_seconds": {"subscription"},
    "webhooks_certificate_expiry_seconds": {"subscription", "part"},
    "webhooks_queue_age_seconds": {"queue"},
    "webhooks_database_seconds": {"thread"},
    "webhooks_database_errors_total": {"thread", "kind"},
    "webhooks_database_backoff_seconds": {"work"},
    "webhooks_loop_lag_seconds": set(),
    "webhooks_loop_lag_longest_seconds": set(),
    "webhooks_loop_turn_age_seconds": set(),
    "webhooks_ready": set(),
    "webhooks_build_info": {"version", "python", "compiled"},
    "process_cpu_seconds_total": set(),
    "process_max_fds": set(),
    "process_open_fds": set(),
    "process_resident_memory_bytes": set(),
    "process_start_time_seconds": set(),
    "process_virtual_memory_bytes": set(),
}
HISTOGRAMS = {
    "webhooks_attempt_seconds",
    "webhooks_delivery_latency_seconds",
    "webhooks_database_seconds",
    "webhooks_loop_lag_seconds",
}
FULL = Readings(
    lag={("t", 0): 1},
    held_back={("t", 0): 9},
    oldest_unsettled={("t", 0): 2.0},
    next_attempt=3.0,
    failing_longest={7: 4.0},
    certificates={(7, "certificate"): -8.0},
    queue_ages={"lanes": 5.0},
    database_seconds={"lookups": Histogram()},
    database_errors={"lookups": {"refused": 6}},
    database_backoff={"lookups": 0.1},
)
LOG = """
import logging, structlog
from consumer.telemetry.logs import configure_logging
configure_logging({level!r})
log = structlog.get_logger("consumer.test")
log.debug("detail")
log.warning("attempt", topic="t", offset=7, error="a\\nb")
logging.getLogger("elsewhere").info("chatter")
logging.getLogger("elsewhere").warning("a library says %d", 5)
try:
    1 / 0
except ZeroDivisionError:
    log.exception("broken")
    logging.getLogger("sqlalchemy.pool.impl.QueuePool").error("Exception during %s", "reset", exc_info=True)
    logging.getLogger("elsewhere").error("unknown", exc_info=True)
"""
FAULTS = ["broken", "Exception during reset: division by zero", "unknown"]  # a lost session has no traceback

Sample = tuple[str, frozenset[tuple[str, str]]]


def scrape(metrics: Metrics, now: Readings = Readings()) -> dict[Sample, float]:  # noqa: B008 (it cannot change)
    """The samples that Prometheus reads: name and labels to value."""
    text = generate_latest(registry(metrics, lambda: now)).decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def sample(name: str, **labels: str) -> Sample:
    """The key of a sample."""
    return name, frozenset(labels.items())


def test_the_names_are_a_contract_with_dashboards() -> None:
    """Exactly these names, each with its type, help text and labels, even before anything is counted."""
    metrics = Metrics()
    families = {each.name: each for each in registry(metrics, Readings).collect()}
    names = {name.removesuffix("_total") for name in LABELS}
    assert families.keys() == names
    metrics.events["matched"] = metrics.deliveries["delivered"] = metrics.attempts["2xx"] = 1
    text = generate_latest(registry(metrics, lambda: FULL)).decode()
    for name, labels in LABELS.items():
        kind = "counter" if name.endswith("_total") else "histogram" if name in HISTOGRAMS else "gauge"
        assert f"# TYPE {name} {kind}\n" in text
        assert name.startswith("process_") or families[name.removesuffix("_total")].documentation.endswith(".")
        suffixes = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
        for suffix in suffixes:
            found = [set(each[1]) for each in scrape(metrics, FULL) if each[0] == name + suffix]
            assert found
            assert all(
                {key for key, _ in each} == labels | ({"le"} if suffix == "_bucket" else set()) for each in found
            )


def test_counts_of_the_loop_are_scraped() -> None:
    """Each attribute has its own name, and its value at the scrape, not at the registry's creation."""
    metrics = Metrics()
    now = Readings()
    result = registry(metrics, lambda: now)
    metrics.events.update(matched=1, unmatched=2, dead_lettered=3, tombstone=4)
    metrics.deliveries.update(delivered=4, retried=5, parked=6, exhausted=7)
    metrics.attempts.update({"2xx": 8, "error": 9})
    metrics.filter_errors = 16
    lag = {("orders", 0): 5, ("orders", 1): 0}
    now = Readings(10, 11, 12, 3, 2, 13, 14, 15, lag, attempts_dropped=17, log_lines_dropped=18, ops_closed=19)
    families = text_string_to_metric_families(generate_latest(result).decode())
    found = {
        (each.name, *sorted(each.labels.values())): each.value
        for family in families
        for each in family.samples
        if "seconds" not in each.name and not each.name.startswith(("process_", "webhooks_build_info"))
    }
    assert found == {
        ("webhooks_events_total", "matched"): 1,
        ("webhooks_events_total", "unmatched"): 2,
        ("webhooks_events_total", "dead_lettered"): 3,
        ("webhooks_events_total", "tombstone"): 4,
        ("webhooks_deliveries_total", "delivered"): 4,
        ("webhooks_deliveries_total", "retried"): 5,
        ("webhooks_deliveries_total", "parked"): 6,
        ("webhooks_deliveries_total", "exhausted"): 7,
        ("webhooks_deliveries_total", "dead_lettered"): 0,  # an increase from nothing would not be seen
        ("webhooks_attempts_total", "2xx"): 8,
        ("webhooks_attempts_total", "3xx"): 0,
        ("webhooks_attempts_total", "4xx"): 0,
        ("webhooks_attempts_total", "5xx"): 0,
        ("webhooks_attempts_total", "error"): 9,
        ("webhooks_in_flight",): 10,
        ("webhooks_parked",): 11,
        ("webhooks_breaker_open",): 12,
        ("webhooks_set_aside",): 3,
        ("webhooks_expressions_left_out",): 2,
        ("webhooks_commits_total",): 13,
        ("webhooks_connections_opened_total",): 14,
        ("webhooks_attempts_dropped_total",): 17,
        ("webhooks_log_lines_dropped_total",): 18,
        ("webhooks_retention_overtaken_total",): 15,
        ("webhooks_filter_errors_total",): 16,
        ("webhooks_ops_connections_closed_total",): 19,
        ("webhooks_consumer_lag", "0", "orders"): 5,
        ("webhooks_consumer_lag", "1", "orders"): 0,
        ("webhooks_subscriptions_failing",): 0,
        ("webhooks_ready",): 0,
    }


def test_each_partition_has_its_lag() -> None:
    """Topic and partition are labels, even unusual names. Without partitions there is no sample."""
    found = scrape(Metrics(), Readings(lag={('a"b\\c', 3): 7}))
    assert found[sample("webhooks_consumer_lag", topic='a"b\\c', partition="3")] == 7
    assert not [name for name, _ in scrape(Metrics()) if name == "webhooks_consumer_lag"]


TIMES = st.one_of(st.floats(0, 1e6), st.sampled_from(BUCKETS))


@given(st.lists(TIMES, max_size=200))
def test_a_histogram_counts_as_prometheus_defines_it(values: list[float]) -> None:
    """Each bucket holds the values up to and including its bound, the last one all values."""
    metrics = Metrics()
    for value in values:
        metrics.attempt_seconds.observe(value)
    buckets = metrics.attempt_seconds.buckets()
    assert buckets == [
        *((str(bound), float(sum(value <= bound for value in values))) for bound in BUCKETS),
        ("+Inf", float(len(values))),
    ]
    assert metrics.attempt_seconds.total == pytest.approx(sum(values))
    assert [number for _, number in buckets] == list(accumulate(metrics.attempt_seconds.counts))


def test_a_histogram_is_scraped_with_its_sum_and_count() -> None:
    """Both have their own names, and bounds parse as numbers."""
    metrics = Metrics()
    for value in (0.004, 0.3, 1e6):
        metrics.attempt_seconds.observe(value)
        metrics.delivery_latency_seconds.observe(value * 2)
    found = scrape(metrics)
    assert found[sample("webhooks_attempt_seconds_count")] == 3
    assert found[sample("webhooks_attempt_seconds_sum")] == pytest.approx(1e6 + 0.304)
    assert found[sample("webhooks_delivery_latency_seconds_sum")] == pytest.approx(2e6 + 0.608)
    assert found[sample("webhooks_attempt_seconds_bucket", le="0.5")] == 2
    bounds = {float(dict(labels)["le"]) for name, labels in found if name == "webhooks_attempt_seconds_bucket"}
    assert bounds == {*BUCKETS, float("inf")}


def test_an_empty_histogram_is_all_zeros() -> None:
    """It exists from the first scrape on, since a rate needs a first value."""
    assert {number for _, number in Histogram().buckets()} == {0.0}


def test_readings_of_the_loops_parts_have_labels() -> None:
    """Ages, waits and errors are labelled by partition, subscription, queue, thread, kind or work."""
    found = scrape(Metrics(), FULL)
    assert found[sample("webhooks_oldest_unsettled_age_seconds", topic="t", partition="0")] == 2
    assert found[sample("webhooks_next_stored_attempt_seconds")] == 3
    assert found[sample("webhooks_subscription_failing_seconds", subscription="7")] == 4
    assert found[sample("webhooks_queue_age_seconds", queue="lanes")] == 5
    assert found[sample("webhooks_certificate_expiry_seconds", subscription="7", part="certificate")] == -8
    assert found[sample("webhooks_database_errors_total", thread="lookups", kind="refused")] == 6
    assert found[sample("webhooks_database_errors_total", thread="lookups", kind="unavailable")] == 0
    assert found[sample("webhooks_database_backoff_seconds", work="lookups")] == 0.1


def test_without_stored_deliveries_there_is_no_next_attempt() -> None:
    """A zero would mean that one is due now."""
    assert not [name for name, _ in scrape(Metrics()) if name == "webhooks_next_stored_attempt_seconds"]


def test_the_build_information() -> None:
    """Our version, Python's, and whether the hot modules are compiled, which is not so in a checkout."""
    labels = {"version": __version__, "python": platform.python_version(), "compiled": "no"}
    assert scrape(Metrics())[sample("webhooks_build_info", **labels)] == 1


def test_the_longest_turn_is_remembered_for_one_minute_but_not_three() -> None:
    """Reading it changes nothing, whichever process scrapes and how often."""
    lag = LoopLag()
    lag.observe(100.0, 0.01)
    lag.observe(101.0, 2.0)
    for now in (102.0, 161.0):
        lag.observe(now, 0.02)
        assert (lag.longest, lag.longest) == (2.0, 2.0)
    lag.observe(222.0, 0.03)
    assert lag.longest == 0.03
    lag.observe(223.0, 5.0)
    lag.observe(1000.0, 0.04)
    assert lag.longest == 0.04
    assert sum(lag.histogram.counts) == 7


def test_a_negative_lag_counts_as_zero() -> None:
    """The clocks are read one after the other, so a wait may seem longer than its turn."""
    lag = LoopLag()
    lag.observe(1.0, -0.5)
    assert (lag.longest, lag.histogram.total) == (0.0, 0.0)


def run_logging(level: str) -> list[str]:
    """The lines that LOG writes to a pipe."""
    command = [sys.executable, "-c", LOG.format(level=level)]
    process = subprocess.run(command, env=environment({}), cwd=ROOT, capture_output=True, text=True, check=True)
    assert process.stdout == ""
    return process.stderr.splitlines()


def test_logs_are_json_unless_written_to_a_terminal() -> None:
    """One object per line on stderr for any text, ours or a library's. A traceback is a field."""
    lines = [json.loads(line) for line in run_logging("INFO")]
    assert [line["event"] for line in lines] == ["attempt", "a library says 5", *FAULTS]
    assert [line["level"] for line in lines] == ["warning", "warning", "error", "error", "error"]
    assert all(line["timestamp"].endswith("Z") for line in lines)
    assert (lines[0]["topic"], lines[0]["offset"], lines[0]["error"]) == ("t", 7, "a\nb")
    assert ["ZeroDivisionError" in line.get("exception", "") for line in lines] == [False, False, True, False, True]


def test_the_level_is_a_threshold() -> None:
    """DEBUG shows our details, but not the libraries' messages."""
    assert [json.loads(line)["event"] for line in run_logging("DEBUG")] == [
        "detail",
        "attempt",
        "a library says 5",
        *FAULTS,
    ]
    assert [json.loads(line)["event"] for line in run_logging("ERROR")] == FAULTS


def test_logs_are_readable_on_a_terminal() -> None:
    """No JSON is written there."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", LOG.format(level="INFO")]
    process = subprocess.Popen(command, env=environment({"TERM": "xterm"}), cwd=ROOT, stderr=theirs)
    os.close(theirs)
    text = b""
    try:
        while chunk := os.read(ours, 65536):
            text += chunk
    except OSError:
        assert process.wait(120) == 0  # Linux's sign that the other side is closed
    os.close(ours)
    assert process.wait(120) == 0
    assert b"attempt" in text
    assert b"a library says 5" in text
    assert b'{"' not in text
