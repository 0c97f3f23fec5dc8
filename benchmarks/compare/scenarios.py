"""The compared scenarios: receivers, bodies, fan-out, plain or TLS, open requests, and duration."""

from dataclasses import dataclass

from benchmarks import rig
from benchmarks.events import PAD

HOSTS = 100  # loopback addresses over which many subscriptions are spread
PARTITIONS = 4
BEFORE_WARM = 0.2  # share of the deliveries: start, connections, compilers
HALF, NEARLY_ALL = (
    0.5,
    0.9,
)  # share of the deliveries: the rate is measured up to the kill, or before the slow last ones


@dataclass(frozen=True)
class Scenario:
    """One table: the same events and the same kind of receiver for each program."""

    name: str
    title: str
    delay_ms: int = 0
    tail: bool = False  # delays are Pareto-distributed, and `delay_ms` is the minimum
    pad: int = PAD  # bytes of an event above 120
    fan_out: int = 1
    tls: bool = False
    concurrency: int = 256  # open requests that each program may have
    most: int = 50_000  # maximum of deliveries a second for which runs are sized
    seconds: float = 6.0  # intended length of a run
    kill: bool = False  # kill -9 at half, then a restart
    latency: bool = False
    quick: bool = False

    def urls(self, base: str) -> list[str]:
        """The URLs of the subscriptions, spread over the receiver's addresses."""
        hosts = min(self.fan_out, HOSTS)
        return [rig.hook(base, number, hosts) for number in range(self.fan_out)]

    def events(self, per_second: float, concurrency: int) -> int:
        """The number of events for a run of about `seconds`, for a program with this maximum rate."""
        rate = min(per_second, self.most)
        if self.delay_ms:
            rate = min(rate, concurrency / self.delay_ms * 1000 / (4 if self.tail else 1))
        return max(10, int(rate * self.seconds / self.fan_out))


SCENARIOS = (
    Scenario("0ms", "Receiver that answers at once", seconds=10, kill=True, latency=True, quick=True),
    Scenario("20ms", "Receiver that takes 20 ms", delay_ms=20, concurrency=1000),
    Scenario(
        "100ms",
        "Receiver that takes 100 ms",
        delay_ms=100,
        concurrency=2000,
        seconds=10,
        kill=True,
        latency=True,
        quick=True,
    ),
    Scenario("1000ms", "Receiver that takes 1 s", delay_ms=1000, concurrency=10_000, seconds=10),
    Scenario(
        "tail",
        "Receiver with a heavy tail (at least 10 ms, p50 19 ms, p99 0.7 s, up to 5 s)",
        delay_ms=10,
        tail=True,
        concurrency=2000,
        latency=True,
    ),
    Scenario("4KB", "4 KB bodies", pad=4096 - 120),
    Scenario("64KB", "64 KB bodies", pad=65_536 - 120, most=2000),
    Scenario("fan-out-10", "to 10 subscriptions", fan_out=10),
    Scenario("fan-out-1000", "to 1,000 subscriptions", fan_out=1000),
    Scenario("tls", "TLS", tls=True),
    Scenario("tls-100ms", "TLS, 100 ms", tls=True, delay_ms=100, concurrency=1000),
)
