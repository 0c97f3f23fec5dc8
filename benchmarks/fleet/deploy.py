"""All pods are replaced, group by group: the partitions that move, and the requests that this cuts off.

A pod that stops waits WEBHOOK_DRAIN for open requests. A new pod takes partitions of remaining ones, which wait at most
`REVOKE_DRAIN` and store open requests as attempts of unknown outcome, to be sent again.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import exp
from random import Random
from typing import NamedTuple

from benchmarks.fleet.costs import MEASURED, Costs
from benchmarks.fleet.world import TAIL_FROM, TAIL_SHAPE, TIMEOUT, World, later_than, setting
from consumer.worker.ownership import REVOKE_DRAIN

GROUPS = 20  # a twentieth of the pods at a time
DRAIN = setting("drain")

Owned = Mapping[int, Sequence[int]]  # partitions by member


class Moved(NamedTuple):
    """An assignment, and the partitions revoked for it from remaining members."""

    owned: dict[int, list[int]]
    revoked: list[int]
    came: int  # number of partitions with a new owner


@dataclass(frozen=True, slots=True)
class Deploy:
    """The result of a rolling deploy."""

    moved: int  # partitions that changed owners, counted each time
    revoked: int  # of these, revoked from remaining pods
    statements: int  # statements that read their stored deliveries
    repeated: int  # requests cut off that would have been answered: receivers get them twice


def rebalanced(owned: Owned, members: Collection[int], partitions: int) -> Moved:
    """Assigns every partition to a member, evenly, and moves as few as possible (cooperative-sticky)."""
    least, more = divmod(partitions, len(members))
    kept = {each: list(owned.get(each, ())) for each in members}
    with_more = set(sorted(members, key=lambda each: (-len(kept[each]), each))[:more])
    quota = {each: least + (each in with_more) for each in members}
    revoked = [number for each in members for number in kept[each][quota[each] :]]
    result = {each: kept[each][: quota[each]] for each in members}
    taken = {number for mine in result.values() for number in mine}
    free = [number for number in range(partitions) if number not in taken]
    came = len(free)
    for each in sorted(members):
        while len(result[each]) < quota[each]:
            result[each].append(free.pop())
    return Moved(result, revoked, came)


def cut_off(rate: float, drain: float, random: Random) -> int:
    """The number of a partition's open requests that outlast a drain and would have been answered in time.

    Only requests longer than the drain can; each of them is drawn individually.
    """
    if drain >= TIMEOUT:
        return 0
    cut = 0
    for _ in range(poisson(rate * TIMEOUT * later_than(max(drain, TAIL_FROM)), random)):
        took = max(drain, TAIL_FROM) * random.paretovariate(TAIL_SHAPE)
        age = random.random() * TIMEOUT  # time since its start when the drain begins
        cut += age + drain < took < TIMEOUT
    return cut


def poisson(mean: float, random: Random) -> int:
    """A Poisson-distributed number."""
    if mean > 500:  # noqa: PLR2004 (where both are the same for us)
        return max(0, round(random.gauss(mean, mean**0.5)))
    number, product, end = 0, random.random(), exp(-mean)
    while product > end:
        number += 1
        product *= random.random()
    return number


def rolling(world: World, seed: int, drain: float = DRAIN, costs: Costs = MEASURED) -> Deploy:
    """Replaces all pods: a group stops, its partitions go to the others, and new pods take their share."""
    random = Random(f"{seed} deploy")  # noqa: S311 (a simulation)
    rate = world.rate / world.partitions
    owned = rebalanced({}, range(world.pods), world.partitions).owned
    moved = revoked = cut = 0
    group = -(-world.pods // GROUPS)
    for begin in range(0, world.pods, group):
        leaving = range(begin, min(begin + group, world.pods))
        stopped = [number for each in leaving for number in owned[each]]
        cut += sum(cut_off(rate, drain, random) for _ in stopped)
        staying = [each for each in owned if each not in leaving]
        if staying:
            owned, _, came = rebalanced(owned, staying, world.partitions)
            moved += came
        else:
            owned = {}
        members = [*staying, *(each + world.pods for each in leaving)]
        owned, taken, came = rebalanced(owned, members, world.partitions)
        moved, revoked = moved + came, revoked + len(taken)
        cut += sum(cut_off(rate, min(REVOKE_DRAIN, drain), random) for _ in taken)
    return Deploy(moved, revoked, moved * costs.assigned_statements, cut)
