"""The scenarios by name, each with its protocols: `consumer`, or an assignment strategy of the classic protocol."""

from collections.abc import Callable

from tests.membership import scenarios
from tests.membership.fleet import Count, Fleet

Scenario = Callable[[Fleet, str], None]
NewFleet = Callable[..., Fleet]

EAGER = ("range", "roundrobin")
ALL = ("cooperative-sticky", *EAGER, "consumer")
DEFAULTS = ("cooperative-sticky", "consumer")
CASES: dict[str, tuple[Scenario, tuple[str, ...]]] = {
    "static members restarted one by one": (scenarios.static_restart, ALL),
    "workers join and leave": (scenarios.come_and_go, ALL),
    "a worker is killed": (scenarios.killed, ALL),
    "to KIP-848 and back, worker by worker": (scenarios.upgrade, EAGER),
    "to KIP-848 all at once, back worker by worker": (scenarios.upgrade_at_once, ("cooperative-sticky",)),
    "to cooperative-sticky by way of KIP-848": (scenarios.eager_to_cooperative, EAGER),
    "topic made anew while workers run": (scenarios.made_anew, ALL),
    "topic made anew while a worker stops": (scenarios.made_anew_while_down, ALL),
    "partitions added": (scenarios.partitions_added, ALL),
    "transactions: committed, aborted, left open": (scenarios.transactions, DEFAULTS),
    "one broker of three killed": (scenarios.broker_lost, DEFAULTS),
    "racks, and the near broker killed": (scenarios.rack, DEFAULTS),
}
_ON_THREE = {scenarios.broker_lost, scenarios.rack}
_REPEATS = {scenarios.killed, scenarios.made_anew, scenarios.made_anew_while_down}


def judge(name: str, protocol: str, rounds: int, new_fleet: NewFleet) -> Count:
    """Run a scenario. No event is lost, and none repeated unless a worker dies or the topic is recreated."""
    scenario, _ = CASES[name]
    fleet = new_fleet(rounds, three=scenario in _ON_THREE)
    scenario(fleet, protocol)
    count = fleet.count(name, protocol)
    assert count.lost == 0, count
    assert count.repeated == 0 or scenario in _REPEATS, count
    return count
