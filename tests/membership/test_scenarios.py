"""One round of scenarios that no other test covers; `make membership` runs each with each protocol, for longer.

Workers die in `tests/chaos`; topics are recreated in `tests/intake/test_topic_made_anew.py`.
"""

import os

import pytest

from tests.membership.cases import CASES, NewFleet, judge
from tests.membership.conftest import Say

ROUNDS = int(os.environ.get("MEMBERSHIP_ROUNDS", "3"))

pytestmark = pytest.mark.kafka


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("name", "protocol"),
    [
        ("static members restarted one by one", "range"),
        ("static members restarted one by one", "consumer"),
        ("to KIP-848 and back, worker by worker", "range"),
        ("to KIP-848 all at once, back worker by worker", "cooperative-sticky"),
        ("partitions added", "cooperative-sticky"),
        ("transactions: committed, aborted, left open", "cooperative-sticky"),
        ("racks, and the near broker killed", "cooperative-sticky"),
    ],
)
def test_nothing_is_lost(name: str, protocol: str, new_fleet: NewFleet, say: Say) -> None:
    """All records are delivered, and once, unless a worker dies or the topic is recreated."""
    say(judge(name, protocol, 1, new_fleet))


@pytest.mark.chaos
@pytest.mark.timeout(180 + 120 * ROUNDS)
@pytest.mark.parametrize(("name", "protocol"), [(name, each) for name, (_, all_) in CASES.items() for each in all_])
def test_nothing_is_lost_in_several_rounds(name: str, protocol: str, new_fleet: NewFleet, say: Say) -> None:
    """The same, with MEMBERSHIP_ROUNDS."""
    say(judge(name, protocol, ROUNDS, new_fleet))
