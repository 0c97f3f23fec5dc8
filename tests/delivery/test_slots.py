"""How fast slots turn over."""

import pytest

from consumer.delivery.slots import Slots


@pytest.mark.parametrize(
    ("ended", "passed", "quick"), [(3, 0.25, True), (2, 0.25, False), (3, 0.49, True), (3, 0.5, False)]
)
def test_slots_turn_over_when_as_many_requests_end_in_time(ended: int, passed: float, *, quick: bool) -> None:
    """As many as there are slots, within the time that is counted; a process that stood still says nothing of that."""
    slots = Slots(3, 0.25)
    slots.look(100.0)
    for _ in range(ended):
        slots.free(slots.take(1, timed_out=False), timed_out=False)
    slots.look(100.0 + passed)
    assert slots.quick is quick
