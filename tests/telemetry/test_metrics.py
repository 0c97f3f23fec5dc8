"""Metrics and logs: names that dashboards rely on, exact counts, and log lines without secrets."""

import json
import os
import platform
import pty
import re
import subprocess
import sys
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest

from consumer import __version__
from consumer.telemetry.metrics import BUCKETS, Histogram, LoopLag, Metrics, Readings, registry
from tests.processes import OTHER, ROOT, environment

SECONDS = Histogram()
SECONDS.observe(2.0)
FULL = Readings(
    *(10, 11, 12, 3, 2, 13, 14, 15, {('a"b\\c', 0): 5}, {("t", 0): 9}, 17, 18, {("t", 0): 2.5}, 3.5, 6, 20, {7: 4.5}),
    *(
        {(7, "certificate"): -8.0},
        {"lanes": 5.5},
        {"lookups": SECONDS},
        {"lookups": {"refused": 6}},
        {"lookups": 0.125},
    ),
    turn_age=21.0,
    ready=True,
    ops_closed=19,
    behind=4,
    backlog_seconds_left={("t", 0, 7): 60.5},
    backlog_lost=23,
    unpublished=8,
    answers_dropped=24,
)
SAMPLES = r"""
counter webhooks_events_total{outcome="matched"} 1.0
counter webhooks_events_total{outcome="unmatched"} 2.0
counter webhooks_events_total{outcome="dead_lettered"} 3.0
counter webhooks_events_total{outcome="tombstone"} 4.0
counter webhooks_deliveries_total{outcome="delivered"} 4.0
counter webhooks_deliveries_total{outcome="retried"} 5.0
counter webhooks_deliveries_total{outcome="parked"} 6.0
counter webhooks_deliveries_total{outcome="exhausted"} 7.0
counter webhooks_deliveries_total{outcome="dead_lettered"} 0.0
counter webhooks_attempts_total{status_class="2xx"} 8.0
counter webhooks_attempts_total{status_class="3xx"} 0.0
counter webhooks_attempts_total{status_class="4xx"} 0.0
counter webhooks_attempts_total{status_class="5xx"} 0.0
counter webhooks_attempts_total{status_class="error"} 9.0
histogram webhooks_attempt_seconds_sum 0.5
histogram webhooks_delivery_latency_seconds_sum 0.25
gauge webhooks_in_flight 10.0
gauge webhooks_parked 11.0
gauge webhooks_breaker_open 12.0
gauge webhooks_set_aside 3.0
gauge webhooks_exhausted_unpublished 8.0
gauge webhooks_expressions_left_out 2.0
counter webhooks_commits_total 13.0
counter webhooks_connections_opened_total 14.0
counter webhooks_retention_overtaken_total 15.0
counter webhooks_filter_errors_total 16.0
counter webhooks_attempts_dropped_total 17.0
counter webhooks_answers_dropped_total 24.0
counter webhooks_log_lines_dropped_total 18.0
counter webhooks_ops_connections_closed_total 19.0
counter webhooks_backlog_lost_total 23.0
gauge webhooks_subscriptions_behind 4.0
gauge webhooks_backlog_left_seconds{partition="0",subscription="7",topic="t"} 60.5
gauge webhooks_consumer_lag{partition="0",topic="a\"b\\c"} 5.0
gauge webhooks_held_back_records{partition="0",topic="t"} 9.0
gauge webhooks_oldest_unsettled_age_seconds{partition="0",topic="t"} 2.5
gauge webhooks_next_stored_attempt_seconds 3.5
gauge webhooks_subscriptions_paused 6.0
gauge webhooks_subscriptions_failing 20.0
gauge webhooks_subscription_failing_seconds{subscription="7"} 4.5
gauge webhooks_certificate_expiry_seconds{part="certificate",subscription="7"} -8.0
gauge webhooks_queue_age_seconds{queue="lanes"} 5.5
histogram webhooks_database_seconds_sum{thread="lookups"} 2.0
counter webhooks_database_errors_total{kind="refused",thread="lookups"} 6.0
counter webhooks_database_errors_total{kind="unavailable",thread="lookups"} 0.0
gauge webhooks_database_backoff_seconds{work="lookups"} 0.125
histogram webhooks_loop_lag_seconds_sum 0.0
gauge webhooks_loop_lag_longest_seconds 0.0
gauge webhooks_loop_turn_age_seconds 21.0
gauge webhooks_ready 1.0
"""
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


def test_the_names_are_a_contract_with_dashboards() -> None:
    """Exactly these names, each with its type, help text, labels and its value at the scrape; counters begin at 0."""
    metrics, now = Metrics(), Readings()
    result = registry(metrics, lambda: now)
    families = {each.name: each for each in result.collect() if not each.name.startswith("process_")}
    before = generate_latest(result).decode()
    metrics.events.update(matched=1, unmatched=2, dead_lettered=3, tombstone=4)
    metrics.deliveries.update(delivered=4, retried=5, parked=6, exhausted=7)
    metrics.attempts.update({"2xx": 8, "error": 9})
    metrics.filter_errors = 16
    metrics.attempt_seconds.observe(0.5)
    metrics.delivery_latency_seconds.observe(0.25)
    now = FULL
    text = generate_latest(result).decode().splitlines()
    named = {"webhooks_build_info"}
    for kind, line in (each.split(" ", 1) for each in SAMPLES.strip().splitlines()):
        name = re.split("[{ ]", line)[0].removesuffix("_sum")
        assert f"# TYPE {name} {kind}" in text
        assert line in text
        assert families[name.removesuffix("_total")].documentation.endswith(".")
        if kind == "counter" and "database" not in name:
            assert f"{line.rpartition(' ')[0]} 0.0\n" in before, "an increase from nothing would not be seen"
        named.add(name.removesuffix("_total"))
    assert families.keys() == named
    assert "process_cpu_seconds_total" in before
    assert "\nwebhooks_next_stored_attempt_seconds " not in before, "a zero would mean that one is due now"


def test_the_build_information() -> None:
    """Our version, Python's, and whether the hot modules are compiled, which is not so in a checkout."""
    text = generate_latest(registry(Metrics(), Readings)).decode()
    build = f'{{compiled="{"yes" if OTHER else "no"}",python="{platform.python_version()}",version="{__version__}"}}'
    assert f"webhooks_build_info{build} 1.0" in text


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


def test_the_longest_turn_is_remembered_for_one_minute_but_not_three() -> None:
    """Reading it changes nothing, whichever process scrapes and how often."""
    lag = LoopLag()
    lag.observe(100.0, -0.01)  # the clocks are read one after the other, so a wait may seem longer than its turn
    assert (lag.longest, lag.histogram.total) == (0.0, 0.0)
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
