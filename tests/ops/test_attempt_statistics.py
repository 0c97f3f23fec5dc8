"""The estimate of a subscription's success: which records are read, and what follows from those."""

from collections import Counter
from itertools import pairwise
from random import Random

from hypothesis import example, given
from hypothesis import strategies as st

from consumer.ops import attempt_statistics
from consumer.ops.attempt_statistics import (
    HOUR,
    RUNS,
    SAMPLE,
    WHOLE,
    WINDOWS,
    Bucket,
    is_complete,
    runs_of,
    success,
    summarised,
    times_of_buckets,
)

NOWS = st.floats(1_000_000_000, 2_000_000_000)
COUNTED = st.dictionaries(
    st.tuples(st.booleans(), st.integers(0, 120)), st.integers(1, 1000), min_size=0, max_size=8
).map(Counter)


@given(NOWS)
@example(1_700_000_000 // HOUR * HOUR)
@example(1_700_000_000 // HOUR * HOUR + 1)
def test_buckets_cover_each_window_exactly(now: float) -> None:
    """Each begins where the one before it ends, none is longer than an hour, and windows begin with a bucket."""
    times = times_of_buckets(now)
    assert times[0][1] == now
    assert all(later[0] == earlier[1] for later, earlier in pairwise(times))
    assert all(0 < end - begin <= HOUR for begin, end in times)
    assert {now - hours * HOUR for hours in WINDOWS} <= {begin for begin, _ in times}
    assert times[-1][0] == now - WINDOWS[-1] * HOUR
    kept = [each for each in times if is_complete(each, now)]
    assert len(kept) >= WINDOWS[-1] - 2 - len(WINDOWS)
    assert all(begin % HOUR == 0 and end == begin + HOUR and end + 60 <= now for begin, end in kept)


@given(st.integers(0, 2**40), st.integers(0, 100 * WHOLE))
def test_the_runs_of_a_bucket_are_bounded_and_spread_over_it(begin: int, size: int) -> None:
    """A small bucket is read whole; of another one a run of each equal part, together SAMPLE records."""
    found = runs_of(begin, begin + size)
    assert found == runs_of(begin, begin + size)
    read = sum(end - start for start, end in found)
    if size <= WHOLE:
        assert read == size
        return
    assert (len(found), SAMPLE - RUNS < read <= SAMPLE) == (RUNS, True)
    part = size / RUNS
    for number, (start, end) in enumerate(found):
        assert begin + int(number * part) <= start < end <= begin + int((number + 1) * part) + 1


@given(st.lists(COUNTED, max_size=6))
def test_what_is_read_whole_is_exact(runs: list[Counter[tuple[bool, int]]]) -> None:
    """The counts and the share are the attempts' own, without an interval."""
    found = success(24, 5.0, [Bucket(float(at), 1.0, [run]) for at, run in enumerate(runs)])
    ok = sum(number for run in runs for (good, _), number in run.items() if good)
    total = sum(run.total() for run in runs)
    assert (found.delivered, found.failed, found.sample, found.exact) == (ok, total - ok, total, True)
    if total:
        assert found.share == found.low == found.high == ok / total
        assert found.median is not None
        assert found.p95 is not None
        assert found.median <= found.p95
    else:
        assert found[6:] == (None,) * 5


@given(st.lists(st.tuples(st.floats(1, 1000), st.lists(COUNTED, min_size=1, max_size=3)), min_size=1, max_size=6))
def test_an_estimate_lies_in_its_interval(given_buckets: list[tuple[float, list[Counter[tuple[bool, int]]]]]) -> None:
    """Each attempt stands for its bucket's weight; the interval is a part of 0 to 1 and has the share."""
    buckets = [Bucket(float(at), weight, runs) for at, (weight, runs) in enumerate(given_buckets)]
    found = success(24, 5.0, buckets)
    total = sum(weight * run.total() for weight, runs in given_buckets for run in runs)
    assert abs(found.delivered + found.failed - total) <= 1
    assert found.exact == all(weight == 1 for weight, _ in given_buckets)
    if found.share is not None and found.low is not None and found.high is not None:
        assert 0 <= found.low <= found.share + 1e-9
        assert found.share <= found.high + 1e-9 <= 1 + 1e-9


def test_the_interval_has_the_true_share_nearly_always() -> None:
    """Also if failures come together, as in an outage, so that a run of records has many or none."""
    random, hits, rounds = Random(7), 0, 100
    for _ in range(rounds):
        buckets, ok = [], 0
        for hour in range(24):
            outage = random.random() < 0.1
            begins = random.uniform(0, 30_000)
            good = [
                not (outage and begins <= record < begins + 15_000) and random.random() < 0.98
                for record in range(0, 45_000, 15)
            ]
            ok += sum(good)
            runs = [
                Counter((good[record], 10) for record in range(start // 15, end // 15))
                for start, end in runs_of(hour * 45_000, (hour + 1) * 45_000)
                for start, end in [(start - hour * 45_000, end - hour * 45_000)]
            ]
            buckets.append(Bucket(float(hour), 45_000 / SAMPLE, runs))
        found = success(24, 0.0, buckets)
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= ok / (24 * 3_000) <= found.high
    assert hits >= 0.92 * rounds


def test_times_are_correct_to_a_twentieth() -> None:
    """The median and the 95th percentile of the attempts, whatever their weights."""
    seconds = [0.01 * number for number in range(1, 101)]
    steps = Counter((True, attempt_statistics.step_of(each)) for each in seconds)
    found = success(1, 0.0, [Bucket(0.0, 3.0, [steps])])
    assert found.median is not None
    assert found.p95 is not None
    assert abs(found.median / 0.5 - 1) < 0.05
    assert abs(found.p95 / 0.95 - 1) < 0.05


@given(NOWS, st.integers(0, 3) | st.integers(0, 200))
def test_parts_that_are_not_read_are_left_out(now: float, read: int) -> None:
    """A window and an hour is shown once all of its buckets are read, so that it never has too small a number."""
    times = times_of_buckets(now)
    one = [Counter({(True, 0): 1})]
    found = summarised(
        [Bucket(begin, 1.0, one) for begin, _ in times[:read]], [begin for begin, _ in times[read:]], now
    )
    begins = {hours: now - hours * HOUR for hours in WINDOWS}
    whole = [hours for hours, at in begins.items() if all(begin < at for begin, _ in times[read:])]
    assert [each.hours for each in found.windows] == whole
    for each in found.windows:
        assert each.delivered == sum(begin >= begins[each.hours] for begin, _ in times)
    assert found.unread == len(times[read:])
    of_day = {begin // HOUR for begin, _ in times if begin >= begins[24]}
    assert {each.since / HOUR for each in found.by_hour} == of_day - {begin // HOUR for begin, _ in times[read:]}
