"""The metrics of several workers on one page."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from consumer.telemetry.merged import Merged
from consumer.telemetry.metrics import Metrics, Readings, registry

STEPS = st.lists(
    st.tuples(st.integers(1, 3), st.sampled_from(["counts", "counts", "is seen", "dies"]), st.integers(0, 9)),
    max_size=30,
)


def scrape(delivered: int, in_flight: int = 0) -> str:
    """The answer of a worker that has made so many deliveries, of a second each."""
    metrics = Metrics()
    metrics.deliveries["delivered"] = delivered
    for _ in range(delivered):
        metrics.attempt_seconds.observe(1.0)
    return generate_latest(registry(metrics, lambda: Readings(in_flight=in_flight))).decode()


def values(merged: Merged, present: list[int]) -> dict[str, float]:
    """All samples, by name and sorted labels."""
    return {
        ",".join([each.name, *(f"{name}={value}" for name, value in sorted(each.labels.items()))]): each.value
        for family in merged.families(present)
        for each in family.samples
    }


def test_counts_are_added_and_states_are_labelled() -> None:
    """Counters and histograms are sums; gauges, and all about a process, name their worker."""
    merged = Merged()
    merged.take(1, 11, scrape(3, in_flight=5))
    merged.take(2, 12, scrape(4, in_flight=7))
    found = values(merged, [1, 2])
    assert found["webhooks_deliveries_total,outcome=delivered"] == 7
    assert found["webhooks_attempt_seconds_bucket,le=0.5"] == 0
    assert found["webhooks_attempt_seconds_bucket,le=1.0"] == found["webhooks_attempt_seconds_count"] == 7
    assert [found[f"webhooks_in_flight,worker={worker}"] for worker in (1, 2)] == [5, 7]
    assert "process_cpu_seconds_total,worker=2" in found
    assert not any("worker=" in name for name in found if name.startswith("webhooks_deliveries"))


def test_a_worker_that_does_not_answer_has_counts_and_no_state() -> None:
    """Its sums are those of its last answer."""
    merged = Merged()
    merged.take(1, 11, scrape(3, in_flight=5))
    merged.take(2, 12, scrape(4, in_flight=7))
    found = values(merged, [2])
    assert found["webhooks_deliveries_total,outcome=delivered"] == 7
    assert "webhooks_in_flight,worker=1" not in found


def test_the_page_has_each_family_once_with_its_text() -> None:
    """It is the page of one worker, with other values and labels."""
    merged = Merged()
    merged.take(1, 11, scrape(3))
    merged.take(2, 12, scrape(4))

    class Page(Collector):
        def collect(self) -> list[Metric]:
            return list(merged.families([1, 2]))

    def heads(text: str) -> list[str]:
        return sorted(line for line in text.splitlines() if line.startswith("#"))

    assert heads(generate_latest(Page()).decode()) == heads(scrape(1))


@given(STEPS)
def test_sums_never_fall(steps: list[tuple[int, str, int]]) -> None:
    """Over any replacements, they are what the processes had counted when they were last seen."""
    merged, counts, pids = Merged(), Counter[int](), Counter[int]()
    last_seen: dict[tuple[int, int], int] = {}
    before = 0.0
    for worker, what, number in steps:
        if what == "counts":
            counts[worker] += number
        elif what == "dies":
            pids[worker] += 1
            counts[worker] = 0
        else:
            merged.take(worker, pids[worker], scrape(counts[worker]))
            last_seen[worker, pids[worker]] = counts[worker]
        found = values(merged, []).get("webhooks_deliveries_total,outcome=delivered", 0.0)
        assert found == sum(last_seen.values())
        assert found >= before
        before = found
