"""The capacity of a pod, and the number of pods for a rate: by CPU, by open requests, by memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, expm1

from benchmarks.fleet.costs import MEASURED, MIB, Costs
from benchmarks.fleet.world import EVENT_KIB, KEEP_ALIVE, Class, World, mean_open, setting
from consumer.delivery.lanes import BUSY, IDLE_LANES
from consumer.matching.catalog import GAP, GATHER, MOST_ASKED, MOST_KEPT
from consumer.sending.pool import _MAX_IDLE, connections
from consumer.sending.tls import _SESSIONS

PLANNED = 0.7  # planned share of a core, of the slots and of the memory: docs/running.md
CONTAINER_MIB = 768.0  # docs/running.md
FETCH_MIB = 16.0 + 50.0  # prefetched records, and a fetch under way: docs/running.md
SLOTS = int(setting("max_in_flight"))
CONNECTIONS = connections(SLOTS, 2**20)
CACHE = setting("subscription_cache")
STEPS = 40  # of bisection, until the printed figures no longer change


@dataclass(frozen=True, slots=True)
class Load:
    """The work of a pod at a rate, for each second."""

    rate: float
    reused: float  # share of requests that reuse a connection
    resumed: float  # share of the others that resume a TLS session
    lookups: float  # statements
    keys: float  # keys in these statements
    open: float
    cpu: float  # of a core
    memory_mib: float


@dataclass(frozen=True, slots=True)
class Needed:
    """The pods needed for each of three bounds alone."""

    by_cpu: int
    by_slots: int
    by_memory: int

    @property
    def pods(self) -> int:
        """The pods needed for the tightest bound."""
        return max(self.by_cpu, self.by_slots, self.by_memory)

    @property
    def binds(self) -> str:
        """The name of the tightest bound."""
        bounds = {"CPU": self.by_cpu, "open requests": self.by_slots, "memory": self.by_memory}
        return max(bounds, key=lambda name: bounds[name])


def remembered(classes: Sequence[Class], rate: float, room: float, longest: float) -> float:
    """The share of requests to receivers among the `room` most recently used ones, used within `longest` seconds.

    This is Che's approximation of a cache that drops the least recently used.
    """

    def kept(seconds: float) -> float:
        return sum(each.number * -expm1(-each.share * rate * seconds) for each in classes)

    if kept(longest) <= room:
        time = longest
    else:
        low, high = 0.0, longest
        for _ in range(STEPS):
            time = (low + high) / 2
            low, high = (time, high) if kept(time) < room else (low, time)
    return sum(each.number * each.share * -expm1(-each.share * rate * time) for each in classes)


def lookups(classes: Sequence[Class], rate: float, cache: float = CACHE) -> tuple[float, float]:
    """Statements and keys a second of a pod's look-ups of subscriptions; each receiver has a key of its own.

    The first event after half of an answer's lifetime, or a little later to gather more keys, renews it. Statements are
    at least `GAP` apart; keys that arrive meanwhile join the next.
    """
    held = cache * (0.5 + GATHER)
    keys = sum(each.number * each.share * rate / (1 + each.share * rate * held) for each in classes)
    if not keys:
        return 0.0, 0.0
    return max(1 / (GAP + 1 / keys), keys / MOST_ASKED), keys


def load(world: World, rate: float, costs: Costs = MEASURED) -> Load:
    """The work of a pod with `rate` deliveries a second."""
    opened = rate * mean_open()
    idle = max(0.0, CONNECTIONS - opened)
    reused = remembered(world.classes, rate, idle, min(_MAX_IDLE, KEEP_ALIVE))
    resumed = max(0.0, remembered(world.classes, rate, _SESSIONS, 3600.0) - reused) / max(1e-9, 1 - reused)
    statements, keys = lookups(world.classes, rate)
    by_tls = costs.tls_resumed * resumed + costs.tls * (1 - resumed)
    connection = world.https * by_tls + (1 - world.https) * costs.connection
    each = costs.delivery + costs.each_open * opened + (1 - reused) * connection
    asking = statements * costs.lookup + max(0.0, keys - statements) * costs.lookup_key
    known = min(MOST_KEPT, 2 * world.receivers)  # each has a key and one endpoint
    kib = (
        opened * (costs.open_kib + EVENT_KIB)
        + world.https * CONNECTIONS * costs.tls_kib
        + world.https * min(_SESSIONS, world.receivers) * costs.session_kib
        + min(IDLE_LANES, world.receivers) * costs.lane_kib
        + known * costs.endpoint_kib
    )
    return Load(
        rate,
        reused,
        resumed,
        statements,
        keys,
        opened,
        (rate * each + asking) / 1e6,
        costs.worker_mib + FETCH_MIB + kib / MIB,
    )


def most_open(lanes: float) -> float:
    """The open requests that so many busy lanes may have together: each may take four times the free slots."""
    return SLOTS * BUSY * lanes / (BUSY * lanes + 1)


def fastest(world: World, costs: Costs = MEASURED) -> Load:
    """A pod with a backlog: as fast as its core and its slots allow."""
    low, high = 0.0, 1e6 / costs.delivery
    most = most_open(world.receivers)
    for _ in range(STEPS):
        rate = (low + high) / 2
        now = load(world, rate, costs)
        low, high = (rate, high) if now.cpu < 1 and now.open < most else (low, rate)
    return load(world, low, costs)


def needed(world: World, costs: Costs = MEASURED) -> Needed:
    """The pods that the world's rate needs, each used up to the planned share."""
    bounds: tuple[Callable[[Load], bool], ...] = (
        lambda each: each.cpu <= PLANNED,
        lambda each: each.open <= PLANNED * most_open(world.receivers),
        lambda each: each.memory_mib <= CONTAINER_MIB,
    )
    return Needed(*(_fewest(world, costs, bound) for bound in bounds))


def _fewest(world: World, costs: Costs, holds: Callable[[Load], bool]) -> int:
    low, high = 0, max(1, ceil(world.rate))
    while high - low > 1:
        pods = (low + high) // 2
        low, high = (low, pods) if holds(load(world, world.rate / pods, costs)) else (pods, high)
    return high
