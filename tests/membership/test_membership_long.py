"""Every scenario with every protocol, in several rounds: `make membership`, with MEMBERSHIP_ROUNDS."""

import os

import pytest

from tests.membership.cases import CASES, NewFleet, judge
from tests.membership.conftest import Say

ROUNDS = int(os.environ.get("MEMBERSHIP_ROUNDS", "3"))

pytestmark = [pytest.mark.chaos, pytest.mark.kafka, pytest.mark.timeout(180 + 120 * ROUNDS)]


@pytest.mark.parametrize(
    ("name", "protocol"), [(name, protocol) for name, (_, protocols) in CASES.items() for protocol in protocols]
)
def test_nothing_is_lost_and_only_crashes_repeat(name: str, protocol: str, new_fleet: NewFleet, say: Say) -> None:
    """All records are delivered, and once, unless a worker dies or the topic is recreated."""
    say(judge(name, protocol, ROUNDS, new_fleet))
