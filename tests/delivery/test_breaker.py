"""The circuit breaker, alone and with simulated receivers that fail."""

from collections.abc import Callable
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.delivery.breaker import LONGEST_OPEN, REFUSED_IN_A_ROW, REFUSED_PROBES, Breaker

MOST = 100  # the lane's limit of open requests


def breaker() -> Breaker:
    """A breaker without random stretching of its open periods."""
    return Breaker(lambda: 0.0)


def result(made: Breaker, now: float, *, failed: bool) -> bool:
    """The result of a request that took no time. Returns whether it opened the breaker."""
    if failed:
        return made.failed(now, now)
    made.succeeded(now, now, MOST)
    return False


def opened(at: float = 0.0) -> Breaker:
    """A breaker that ten failures opened at `at`, for a second."""
    made = breaker()
    assert [made.failed(at, at) for _ in range(10)] == [False] * 9 + [True]
    return made


def probed() -> Breaker:
    """A breaker whose probe succeeded at 1.0, after the first open period."""
    made = opened()
    made.succeeded(1.0, 1.0, MOST)
    assert made.window(1.0) == 1
    return made


class Receiver:
    """A lane that always has something to send, and its receiver, which answers after a tick of 10 ms, in any order."""

    def __init__(self, made: Breaker, fails: Callable[[float, int], bool]) -> None:
        self.breaker = made
        self.fails = fails  # by the time and the number of requests before it in this tick
        self.random = Random(1)
        self.tick = 0
        self.open: list[float] = []
        self.windows: list[int | None] = []
        self.started: list[float] = []

    def run(self, seconds: float) -> None:
        """Let time pass."""
        for _ in range(round(seconds * 100)):
            now = self.tick / 100
            answers, self.open = self.open, []
            results = [self.fails(now, place) for place in range(len(answers))]
            self.random.shuffle(results)
            for started, failed in zip(answers, results, strict=True):
                if failed:
                    self.breaker.failed(now, started)
                else:
                    self.breaker.succeeded(now, started, MOST)
            window = self.breaker.window(now)
            self.windows.append(window)
            self.open = [now] * (MOST if window is None else min(window, MOST))
            self.started.extend(self.open)
            self.tick += 1


def test_open_periods_are_stretched_at_random() -> None:
    """The stretch is up to a fifth, so that receivers behind one broken proxy are not all probed at the same moment."""
    for random, until in ((0.0, 1.0), (0.5, 1.1), (1.0, 1.2)):
        made = Breaker(lambda random=random: random)  # type: ignore[misc]
        while not made.failed(0.0, 0.0):
            continue
        assert made.open_until == pytest.approx(until)


def test_permanent_refusals_open_it() -> None:
    """A hundred 404s in a row open it. A 2xx among them resets the count. Afterwards a probe's 404 opens it again."""
    made = breaker()
    for _ in range(REFUSED_IN_A_ROW - 1):
        assert not made.refused(0.0, 0.0, MOST)
    made.succeeded(0.0, 0.0, MOST)
    assert [made.refused(0.0, 0.0, MOST) for _ in range(REFUSED_IN_A_ROW)] == [False] * 99 + [True]
    assert (made.window(0.5), made.open_until) == (0, 1.0)
    assert not made.refused(0.5, 0.0, MOST), "it was started before"
    assert made.window(1.0) == REFUSED_PROBES
    assert [made.refused(1.0, 1.0, MOST) for _ in range(REFUSED_PROBES)] == [True] + [False] * (REFUSED_PROBES - 1)
    assert made.open_until == 3.0, "longer once for all probes"
    assert made.refused(3.0, 3.0, MOST)
    made.succeeded(3.1, 3.0, MOST)
    assert made.window(3.1) == 1, "another probe was accepted"
    assert not made.refused(3.2, 3.2, MOST)
    made.failed(3.2, 3.2)
    assert made.window(3.2) == 1


def test_an_unsendable_request_opens_it() -> None:
    """It opens at once, for longer each time, until a request succeeds. Requests started earlier do not count."""
    made = breaker()
    made.unsendable(0.0, 0.0)
    made.unsendable(0.5, 0.0)
    assert (made.window(0.5), made.open_until) == (0, 1.0)
    for opens, until in ((1.0, 3.0), (3.0, 7.0), (100.0, 108.0)):
        made.unsendable(opens, opens)
        assert made.open_until == until
    made.succeeded(108.0, 108.0, MOST)
    assert made.window(108.0) == 1


def test_it_is_long_open_after_a_minute_without_a_success() -> None:
    """Each failed probe opens it for longer. Once a probe succeeds, requests start, and it is not open."""
    made = opened()
    while made.open_until is not None and made.open_until < LONGEST_OPEN:
        assert not made.is_long_open
        made.failed(made.open_until, made.open_until)
    assert made.open_until == 63.0
    made.failed(63.0, 63.0)
    assert made.is_long_open
    made.succeeded(123.0, 123.0, MOST)
    assert not made.is_long_open


def test_ten_failures_in_a_row_open_it() -> None:
    """A success among them resets the count."""
    made = breaker()
    for _ in range(9):
        assert not made.failed(0.0, 0.0)
    made.succeeded(0.0, 0.0, MOST)
    assert [made.failed(0.0, 0.0) for _ in range(10)] == [False] * 9 + [True]
    assert made.window(0.0) == made.window(0.999) == 0
    assert made.window(1.0) == 1


def test_successes_before_the_first_failure_do_not_count() -> None:
    """A receiver that took a million events and then breaks is noticed as fast as any other."""
    made = breaker()
    for _ in range(100_000):
        made.succeeded(0.0, 0.0, MOST)
    results = [result(made, 0.0, failed=n % 3 > 0) for n in range(1, 51)]
    assert results[-1]
    assert not any(results[:-1])


def test_a_late_failure_counts_only_the_last_two_buckets() -> None:
    """A success just before the end of the second bucket does not bring the first bucket back."""
    made = breaker()
    for now in (0.0, 9.0):
        assert not any(result(made, now, failed=n % 2 == 0) for n in range(20))
    result(made, 19.9, failed=False)
    assert not any(result(made, 25.0, failed=n % 2 == 0) for n in range(40))


def test_half_of_fifty_attempts_open_it() -> None:
    """Exactly half suffices, with the fiftieth attempt; attempts of older buckets do not count."""
    made = breaker()
    results = [True, False] + [False, True] * 24
    assert [result(made, 0.0, failed=failed) for failed in results] == [False] * 49 + [True]
    made = breaker()
    assert not any(result(made, now, failed=failed) for now in (0.0, 30.0) for failed in [True, False] * 20)


def test_old_failures_are_forgotten() -> None:
    """A failure in every third attempt never opens it. After 20 s without a failure no count is left."""
    made, now = breaker(), 0.0
    for _ in range(1000):
        now += 1
        assert not made.failed(now, now)
        for _ in range(2):
            made.succeeded(now, now, MOST)
    assert not made.idle(now)
    made.succeeded(now + 10, now + 10, MOST)
    made.succeeded(now + 20, now + 20, MOST)
    assert made.idle(now + 20)


@given(seed=st.integers(0, 2**32))
def test_an_hour_down_costs_sixty_probes(seed: int) -> None:
    """It opens for 1, 2, 4, … 60 s, each stretched by up to a fifth. Each probe is one request."""
    made = Breaker(Random(seed).random)
    for _ in range(10):
        made.failed(0.0, 0.0)
    probes, now = [0.0], 0.0
    while made.open_until is not None and made.open_until < 3600:
        now = made.open_until
        probes.append(now)
        assert made.window(now) == 1
        assert made.failed(now, now)
        assert made.window(now) == 0
    assert 55 <= len(probes) <= 66
    for number, (before, after) in enumerate(pairwise(probes)):
        least = min(2**number, 60)
        assert least <= after - before <= least * 1.2 + 1e-6


@pytest.mark.parametrize(("asked", "stays"), [(None, 1.0), (0.5, 1.0), (-7.0, 1.0), (30.0, 30.0), (1e9, 600.0)])
def test_retry_after_keeps_it_open(asked: float | None, stays: float) -> None:
    """It stays open as long as the receiver asked, at most ten minutes, and never shorter than its own period."""
    made = breaker()
    for _ in range(9):
        made.failed(0.0, 0.0, asked)
    made.failed(5.0, 5.0, asked)
    assert made.open_until == 5 + stays


def test_late_results_change_nothing() -> None:
    """Requests started earlier neither extend the open period, nor close the breaker, nor count as the probe."""
    made = opened(at=5.0)
    for now in (5.0, 5.5, 6.0, 20.0):
        assert not made.failed(now, 4.9, 60.0)
        made.succeeded(now, 4.9, MOST)
        assert made.open_until == 6.0
    made.succeeded(21.0, 20.0, MOST)
    for _ in range(50):
        assert not made.failed(21.0, 4.9)
        made.succeeded(30.0, 4.9, MOST)
    assert made.window(30.0) == 1


def test_slow_start_doubles_each_second() -> None:
    """The window is 1, 2, 4, … up to the lane's limit. Then it has no bound and the breaker keeps no state."""
    at_work = Receiver(opened(), lambda _now, _place: False)
    at_work.run(10.5)
    seconds = [at_work.windows[n * 100 + 50] for n in range(10)]
    assert seconds == [0, 1, 2, 4, 8, 16, 32, 64, None, None]
    assert at_work.breaker.idle(10.5)


@pytest.mark.parametrize(("most", "seconds"), [(1, 1), (2, 2), (7, 3), (8, 4)])
def test_slow_start_applies_to_a_lane_with_one_request(most: int, seconds: int) -> None:
    """Even a lane with at most one open request stays in slow start for a second."""
    made = probed()
    for second in range(1, seconds + 1):
        assert made.window(1.0 + second - 0.1) == 2 ** (second - 1)
        for _ in range(8):
            made.succeeded(1.0 + second, 1.0 + second, most)
    assert made.window(1.0 + seconds) is None


def test_a_receiver_that_answers_only_its_probe_is_left_alone_for_longer() -> None:
    """A window of one cannot be halved."""
    made = probed()
    assert [made.failed(1.5, 1.5) for _ in range(10)] == [False] * 9 + [True]
    assert (made.window(1.5), made.open_until) == (0, 3.5)


def test_slow_start_waits_for_proof() -> None:
    """The window grows only if it was used up: one success a second does not show that sixty-four at once succeed."""
    made = probed()
    for second in range(2, 62):
        made.succeeded(float(second), float(second), MOST)
    assert made.window(61.0) == 32  # after 1 + 2 + 4 + 8 + 16 successes


def test_slow_start_ends_where_there_is_little_to_send() -> None:
    """Ten minutes without a failure end slow start."""
    made = probed()
    made.succeeded(300.0, 300.0, MOST)
    assert made.window(300.0) is not None
    made.succeeded(601.0, 601.0, MOST)
    assert made.window(601.0) is None
    assert made.idle(601.0)


def test_a_receiver_with_little_capacity_keeps_a_small_window() -> None:
    """A receiver that fails all requests beyond 20 at once keeps getting about 20, and never collapses to none."""
    at_work = Receiver(opened(), lambda _now, place: place >= 20)
    at_work.run(120)
    settled = [window for window in at_work.windows[1000:] if window is not None]
    assert len(settled) == len(at_work.windows) - 1000
    assert max(settled) == 27  # of a window above 25, over a fifth fails
    assert sum(settled) / len(settled) >= 15


@pytest.mark.parametrize("share", [0.01, 0.05, 0.1])
def test_a_few_failures_do_not_hold_slow_start_back(share: float) -> None:
    """A receiver that fails a constant small share of requests returns to its full window."""
    random = Random(1)
    at_work = Receiver(opened(), lambda _now, _place: random.random() < share)
    at_work.run(60)
    assert at_work.windows[-1] is None


def widened(to: int) -> tuple[Breaker, float]:
    """A breaker in slow start whose window has just grown to `to`, and the time."""
    made, now = probed(), 1.0
    while (window := made.window(now)) != to:
        now += 1
        for _ in range(window or 0):
            made.succeeded(now, now, MOST)
    return made, now


def test_a_halved_window_grows_slowly() -> None:
    """It grows by an eighth in each second in which it was used up, since the receiver's capacity is near."""
    made, now = widened(64)
    for _ in range(10):
        made.failed(now, now)
    windows = []
    for _ in range(6):
        now += 1
        window = made.window(now)
        assert window is not None
        windows.append(window)
        for _ in range(window):
            made.succeeded(now, now, MOST)
    assert windows == [32, 36, 40, 45, 50, 56]


def test_idle_breakers() -> None:
    """A breaker is idle if it never failed, or is unused for ten minutes, as after its subscription was removed."""
    made = breaker()
    made.succeeded(0.0, 0.0, MOST)
    assert made.idle(0.0)
    made.failed(0.0, 0.0)
    assert not made.idle(599.0)
    assert made.idle(600.0)
    assert not opened().idle(600.9)
    assert opened().idle(601.0)
