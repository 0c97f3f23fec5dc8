"""A seeded simulation of a thousand pods and a million receivers, with measured unit costs.

    python -m benchmarks.fleet [--pods 1000] [--receivers 1000000] [--partitions N] [--rate R] [--json FILE]

It computes how many pods a rate needs and which bound decides, how many statements a second the database gets, how many
deliveries a deploy or a kill -9 repeats, and how long it takes to work off an hour's outage. The same seed gives the
same output.

Simulated event by event: three pods, each with all of its receivers that fail, hang or were down (on the product's
breaker, retry policy, and limits of taking up and catching up), pods that are killed (on its offset tracker, metadata
and commit interval), partitions that move, and the requests that moves cut off. Simulated as an aggregate: healthy
receivers, whose rates follow Zipf's law and whose latency is log-normal with a tail. Not modelled: brokers and their
limits, the database's own limits (each statement takes 1 ms, whatever else runs), name resolution, batches, fan-out,
filters, ordering by key, `rate_limit` and `max_in_flight`, memory for bodies, keys that load partitions unevenly,
receivers that slow down under load, pods that fail while others do. A pod's CPU does not slow down storing and taking
up: the table shows the share of its core that they take.
"""

import argparse
import json
import sys
from pathlib import Path

from benchmarks.fleet.capacity import fastest
from benchmarks.fleet.report import simulate, table
from benchmarks.fleet.world import World

EXAMPLE = "example: python -m benchmarks.fleet --pods 200 --receivers 50000 --rate 100000 --json fleet.json"


def parsed(words: list[str]) -> argparse.Namespace:
    """The arguments. The program ends with a message if one of them is impossible."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fleet", description=(__doc__ or "").splitlines()[0], epilog=EXAMPLE
    )
    usual = World()
    parser.add_argument("--pods", type=int, default=usual.pods, help="workers (%(default)s)")
    parser.add_argument(
        "--receivers", type=int, default=usual.receivers, help="subscriptions, each with its own receiver"
    )
    parser.add_argument("--partitions", type=int, help="partitions of all topics together (three for each pod)")
    parser.add_argument("--rate", type=float, help="deliveries a second of all pods (500 for each)")
    parser.add_argument("--https", type=float, default=1.0, help="share of receivers that have TLS (%(default)s)")
    parser.add_argument("--down", type=float, default=0.01, help="share of receivers in an outage (%(default)s)")
    parser.add_argument("--killed", type=int, help="pods that are killed with -9 (a tenth)")
    parser.add_argument("--seed", type=int, default=1, help="a seed always gives the same output (%(default)s)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures to this file too")
    given = parser.parse_args(words)
    if min(given.pods, given.receivers) < 1 or not (0 <= given.down <= 1 and 0 <= given.https <= 1):
        parser.error("--pods and --receivers are 1 or more, --down and --https from 0 to 1")
    given.partitions = 3 * given.pods if given.partitions is None else given.partitions
    given.rate = usual.of_a_pod * given.pods if given.rate is None else given.rate
    given.killed = max(1, given.pods // 10) if given.killed is None else given.killed
    if given.partitions < given.pods:
        parser.error("a pod without a partition does nothing: --partitions is at least --pods")
    if not 0 <= given.killed <= given.pods:
        parser.error("--killed is at most --pods")
    return given


def main(words: list[str]) -> int:
    """Prints the tables. Returns 2 if the pods cannot make the deliveries even without faults."""
    given = parsed(words)
    world = World(given.pods, given.receivers, given.partitions, given.rate, given.https)
    most = fastest(world).rate * world.pods
    if not 0 < world.rate < most:
        print(f"--rate is above 0 and below {most:,.0f} with these pods", file=sys.stderr)
        return 2
    report = simulate(world, given.seed, given.down, given.killed)
    print(table(report))
    if given.json:
        given.json.write_text(json.dumps(report.as_json(), indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
