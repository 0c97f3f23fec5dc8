"""The number of statements of each kind of work: of one pod, counted as it runs, and of all pods."""

from collections import Counter
from collections.abc import Iterable
from math import ceil

from benchmarks.fleet.capacity import load
from benchmarks.fleet.costs import Costs
from benchmarks.fleet.world import World
from consumer.database.statements import PARTS
from consumer.delivery.recall import LOOK_EVERY
from consumer.ledger.assigned import SEEKS
from consumer.worker.maintenance import TIDY_EVERY
from consumer.worker.outbox_relay import SELDOM

MINUTE = 60.0
KINDS = ("look-ups", "storing", "results", "taking up", "cursors", "polling", "upkeep")
STORED, SETTLED, TAKEN_UP, DELIVERED = "rows stored", "rows settled", "rows taken up", "rows delivered"


class Tally:
    """Counts by purpose in each minute of a run."""

    def __init__(self) -> None:
        self.minutes: list[Counter[str]] = []

    def add(self, now: float, what: str, number: int) -> None:
        """Adds a number at `now` (seconds from the beginning)."""
        while len(self.minutes) <= now / MINUTE:
            self.minutes.append(Counter())
        self.minutes[int(now / MINUTE)][what] += number

    def before(self, now: float, what: str) -> int:
        """The count in the minute before that of `now`."""
        minute = int(now / MINUTE) - 1
        return self.minutes[minute][what] if 0 <= minute < len(self.minutes) else 0


def storing(costs: Costs, partitions: int) -> int:
    """The statements of a transaction that stores rows of so many partitions."""
    return costs.store_statements + costs.store_partition_statements * partitions if partitions else 0


def results(costs: Costs, outcomes: int) -> int:
    """The statements of a transaction that writes results with so many outcomes."""
    return costs.result_statements * outcomes


def taking_up(costs: Costs, heads: int, *, found: bool) -> int:
    """The statements of a fetch of so many due keys."""
    return costs.fetch_part_statements * ceil(heads / PARTS) + costs.fetch_statements * found


def polling(costs: Costs, heads: int, partitions: int) -> int:
    """The statements of a minute of polling marks and looking for changes by hand, one scan step each time."""
    each = costs.marks_statements + scanning(costs, heads, partitions)
    return round(each * MINUTE / LOOK_EVERY)


def scanning(costs: Costs, heads: int, partitions: int) -> int:
    """The statements of a step of the scan, of one topic."""
    if not heads:
        return costs.scan_statements
    reached = min(SEEKS, heads)
    return (
        costs.scan_statements
        + costs.scan_topic_statements
        + costs.scan_partition_statements * ceil(min(heads, partitions) * reached / heads)
        + costs.scan_part_statements * ceil(reached / PARTS)
    )


def tidying(costs: Costs, with_rows: int, ended: int) -> int:
    """The statements of a minute of upkeep: partitions with rows are found, and so many delivered rows deleted."""
    found = costs.prune_found_statements * min(with_rows, ended)
    each = costs.find_partition_statements + costs.repair_statements + costs.prune_statements
    return round((costs.find_statements + with_rows * each + found) * MINUTE / TIDY_EVERY)


def leading(costs: Costs, world: World, subscriptions: int) -> float:
    """Statements a second of the leading worker, if so many subscriptions have rows."""
    topics = 2 * (costs.topics_statements + costs.topics_found_statements * min(1, subscriptions))
    minutely = (
        (costs.reconcile_leap_statements + costs.reconcile_statements) * ceil((subscriptions + 1) / SEEKS)
        + costs.expire_statements
        + costs.count_statements * (world.partitions if subscriptions else 0)
        + topics
    )
    return minutely / TIDY_EVERY + costs.relay_statements / SELDOM


def of_all(costs: Costs, world: World, minutes: Iterable[Counter[str]], subscriptions: int) -> dict[str, float]:
    """Statements a second of all pods, of which some had these minutes."""
    seen = list(minutes)
    total = sum(seen, Counter[str]())
    each = {kind: total[kind] * world.pods / MINUTE / max(1, len(seen)) for kind in KINDS}
    each["look-ups"] = world.pods * load(world, world.of_a_pod, costs).lookups * costs.lookup_statements
    each["upkeep"] += leading(costs, world, subscriptions)
    return each


def core(costs: Costs, minutes: Iterable[Counter[str]]) -> float:
    """The share of its core that a pod needs for its statements and rows in these minutes, without look-ups."""
    seen = list(minutes)
    total = sum(seen, Counter[str]())
    rows = {STORED: costs.row_stored, SETTLED: costs.row_settled, TAKEN_UP: costs.row_taken_up}
    micros = costs.statement * sum(total[kind] for kind in KINDS) + sum(total[each] * rows[each] for each in rows)
    return micros / 1e6 / MINUTE / max(1, len(seen))
