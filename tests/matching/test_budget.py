"""The CPU time that expressions may take: usual ones are not charged, and slow ones are paused for a while."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.matching import budget
from consumer.matching.budget import ALL, BURST, FREE, LONGEST_PAUSE, MOST_OF_ONE, OWN, PAUSE, Budget


class Time:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def overspend(spent: Budget, subscription: int) -> None:
    """Charge the longest evaluation that counts, until the subscription is paused."""
    while not spent.is_over(subscription):
        spent.charge(subscription, MOST_OF_ONE)


def test_a_pause_of_the_process_is_not_charged_to_the_filter() -> None:
    """The garbage collector may run during an evaluation, so a single long one is charged only in part."""
    spent = Budget(Time(), lambda *_: None)
    spent.charge(7, 10.0)
    assert not spent.is_over(7)


def test_usual_evaluations_are_free() -> None:
    """A million evaluations of 50 µs are not charged, since each sends a delivery or saves one."""
    over: list[int] = []
    spent = Budget(Time(), lambda subscription, _seconds: over.append(subscription))
    for _ in range(1_000_000):
        spent.charge(1, FREE)
    assert (over, list(spent)) == ([], [])


@pytest.mark.parametrize("took", [0.001, 0.005, MOST_OF_ONE])
def test_a_slow_subscription_is_paused_longer_each_time(took: float) -> None:
    """The first pause comes after 50 ms of CPU time at once. It then begins anew with a full budget. Others go on."""
    time, over = Time(), list[tuple[int, float]]()
    spent = Budget(time, lambda *left_out: over.append(left_out))
    pauses = [PAUSE, 2 * PAUSE, 4 * PAUSE, 8 * PAUSE, LONGEST_PAUSE, LONGEST_PAUSE]
    for pause in pauses:
        before = 0
        while not spent.is_over(7):
            spent.charge(7, took)
            before += 1
        assert OWN * BURST < before * (took - FREE) <= OWN * BURST + took
        assert (spent.is_over(7), spent.is_over(8), list(spent)) == (True, False, [7])
        time.now += pause - 0.001
        assert spent.is_over(7)
        time.now += 0.001
        assert (spent.is_over(7), list(spent)) == (False, [])
    assert over == [(7, pause) for pause in pauses]


def test_after_a_time_within_its_budget_the_pause_is_short_again() -> None:
    """That time is as long as the pause was."""
    time, over = Time(), list[tuple[int, float]]()
    spent = Budget(time, lambda *left_out: over.append(left_out))
    for _ in range(3):
        overspend(spent, 7)
        time.now += 2 * PAUSE
    assert over == [(7, PAUSE)] * 3


def test_a_share_of_the_cpu_may_be_taken_for_ever() -> None:
    """It is a twentieth of a CPU, where the bucket drains as fast as it fills."""
    time, over = Time(), list[int]()
    spent = Budget(time, lambda subscription, _seconds: over.append(subscription))
    for _ in range(10_000):
        spent.charge(1, 0.005 + FREE)
        time.now += 0.005 / OWN
    assert over == []


def test_of_many_slow_subscriptions_the_slowest_is_paused() -> None:
    """Each is within its own budget, but together they take more than a fifth of a CPU."""
    time, over = Time(), list[int]()
    spent = Budget(time, lambda subscription, _seconds: over.append(subscription))
    rates = {number: 0.01 * number for number in range(1, 10)}  # 0.45 s per second
    for _ in range(3000):
        for number, rate in rates.items():
            if not spent.is_over(number):
                spent.charge(number, rate / 2 / 10 + FREE)
        time.now += 0.1
        if over:
            break
    assert over == [9]


@given(st.lists(st.tuples(st.integers(1, 30), st.floats(0, 0.02), st.floats(0, 0.1)), max_size=300))
def test_charges_never_exceed_the_budgets(charges: list[tuple[int, float, float]]) -> None:
    """The charges of subscriptions that are not paused are within the budget of each and of all."""
    time = Time()
    start = time.now
    spent = Budget(time, lambda *_: None)
    charged: dict[int, float] = {}
    for subscription, took, later in charges:
        time.now += later
        if spent.is_over(subscription):
            continue
        spent.charge(subscription, took)
        charged[subscription] = charged.get(subscription, 0.0) + max(0.0, took - FREE)
        for each in spent:
            charged.pop(each, None)
    time_passed = time.now - start
    assert all(value <= OWN * (BURST + time_passed) + 1e-9 for value in charged.values())
    assert sum(charged.values()) <= ALL * (BURST + time_passed) + 1e-9


def test_the_number_of_buckets_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drained buckets make room."""
    monkeypatch.setattr(budget, "MOST", 10)
    time = Time()
    spent = Budget(time, lambda *_: None)
    for number in range(100):
        spent.charge(number, 0.001)
        time.now += 1.0
    assert len(spent._buckets) <= 10
