"""One round of scenarios that no other test covers, with one or two protocols. `make membership` runs all, for longer.

Workers die in `tests/chaos`; topics are recreated in `tests/intake/test_topic_made_anew.py`.
"""

import pytest

from tests.membership.cases import NewFleet, judge
from tests.membership.conftest import Say

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]


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
