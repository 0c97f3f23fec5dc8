"""The turnover of slots."""

import pytest

from consumer.delivery.limits import MANY, Slots


@pytest.mark.parametrize(
    ("ended", "passed", "quick"), [(3, 0.25, True), (2, 0.25, False), (3, 0.49, True), (3, 0.5, False)]
)
def test_slots_turn_over_when_as_many_requests_end_in_the_interval(ended: int, passed: float, *, quick: bool) -> None:
    """As many as there are slots must end in the interval. If the process stood still, the interval does not count."""
    slots = Slots(3, 0.25)
    slots.look(100.0)
    for _ in range(ended):
        slots.free(slots.take(1, timed_out=False), timed_out=False)
    slots.look(100.0 + passed)
    assert slots.quick is quick


@pytest.mark.parametrize(("ended", "quick"), [(MANY, True), (MANY - 1, False)])
def test_many_requests_are_enough_whatever_the_number_of_slots(ended: int, *, quick: bool) -> None:
    """Ten thousand slots with receivers that take a second turn over once a second, at 10,000 deliveries a second."""
    slots = Slots(10 * MANY, 0.25)
    slots.look(100.0)
    for _ in range(ended):
        slots.free(slots.take(1, timed_out=False), timed_out=False)
    slots.look(100.25)
    assert slots.quick is quick


@pytest.mark.parametrize(
    ("own", "others", "scarce"), [(4, 4, True), (5, 4, False), (3, 4, True), (2, 4, False), (0, 7, True), (0, 6, False)]
)
def test_slots_are_scarce_when_others_have_taken_them(own: int, others: int, *, scarce: bool) -> None:
    """Seven of eight slots are taken, half of these by others."""
    slots = Slots(8, 0.25)
    for _ in range(own + others):
        slots.take(1, timed_out=False)
    assert slots.is_scarce(own) is scarce
