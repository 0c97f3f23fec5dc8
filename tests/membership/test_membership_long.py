"""Every scenario with every protocol, several rounds each: `make membership`, with MEMBERSHIP_ROUNDS."""

import os
from collections.abc import Callable

import pytest

from tests.membership import scenarios
from tests.membership.conftest import NewFleet, Say
from tests.membership.fleet import Fleet

ROUNDS = int(os.environ.get("MEMBERSHIP_ROUNDS", "3"))

Scenario = Callable[[Fleet, str], None]

CLASSIC = ("cooperative-sticky", "range", "roundrobin")
ALL = (*CLASSIC, "consumer")
DEFAULTS = ("cooperative-sticky", "consumer")
CASES: dict[str, tuple[Scenario, tuple[str, ...]]] = {
    "static members, restarted one by one": (scenarios.static_restart, ALL),
    "workers join and leave": (scenarios.come_and_go, ALL),
    "a worker is killed": (scenarios.killed, ALL),
    "to KIP-848 and back, worker by worker": (scenarios.upgrade, CLASSIC),
    "topic made anew while workers run": (scenarios.made_anew, ALL),
    "topic made anew while workers are down": (scenarios.made_anew_while_down, ALL),
    "partitions added": (scenarios.partitions_added, ALL),
    "transactions: committed, aborted, left open": (scenarios.transactions, DEFAULTS),
    "one broker of three killed": (scenarios.broker_lost, DEFAULTS),
    "racks, and the near broker killed": (scenarios.rack, DEFAULTS),
}
ON_THREE = {scenarios.broker_lost, scenarios.rack}
REPEATS = {scenarios.killed, scenarios.made_anew, scenarios.made_anew_while_down}  # what it repeats is counted

pytestmark = [pytest.mark.chaos, pytest.mark.kafka, pytest.mark.timeout(180 + 120 * ROUNDS)]


@pytest.mark.parametrize(
    ("name", "protocol"), [(name, each) for name, (_, several) in CASES.items() for each in several]
)
def test_nothing_is_lost_and_only_crashes_repeat(name: str, protocol: str, new_fleet: NewFleet, say: Say) -> None:
    """All records are delivered; once, unless a worker dies or the topic is another."""
    scenario, _ = CASES[name]
    fleet = new_fleet(ROUNDS, three=scenario in ON_THREE)
    scenario(fleet, protocol)
    count = fleet.count(name, protocol)
    say(count)
    assert count.lost == 0
    assert count.repeated == 0 or scenario in REPEATS
