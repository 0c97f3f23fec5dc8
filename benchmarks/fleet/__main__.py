"""A seeded simulation, on measured unit costs, of a thousand pods and a million receivers.

    python -m benchmarks.fleet [--pods 1000] [--receivers 1000000] [--partitions N] [--rate R] [--json FILE]

It says how many pods a rate needs and which bound decides, how many statements a second the database gets, how many
deliveries a deploy or a kill -9 repeats, and how long an hour's outage takes to be worked off. The same seed gives the
same output.

Event by event: three pods, each with all receivers that fail, hang or were down (on the product's breaker, retry
policy and bounds of take-up), pods that are killed (on its offset tracker, metadata and cadence of commits), partitions
that move, and the requests that this cuts off. As an aggregate: receivers that are well, whose rates follow Zipf's law
and whose answers are log-normal with a tail. Not modelled: brokers and what they can take, the database's own limits
(each statement takes 1 ms, whatever else runs), names that are resolved, batches, fan-out, filters, order by key,
`rate_limit` and `max_in_flight`, memory by bodies, keys that make one partition busier than another, receivers that are
slower because more comes, pods that fail while others do. What a pod stores and takes up is not slowed by its CPU: the
table says how much of its core that takes.
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
    """The arguments; the program ends with a message if one of them is impossible."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fleet", description=(__doc__ or "").splitlines()[0], epilog=EXAMPLE
    )
    usual = World()
    parser.add_argument("--pods", type=int, default=usual.pods, help="workers (%(default)s)")
    parser.add_argument(
        "--receivers", type=int, default=usual.receivers, help="subscriptions, each of its own receiver"
    )
    parser.add_argument("--partitions", type=int, help="of all topics together (three for each pod)")
    parser.add_argument("--rate", type=float, help="deliveries a second of all pods (500 for each)")
    parser.add_argument("--https", type=float, default=1.0, help="share of receivers that have TLS (%(default)s)")
    parser.add_argument("--down", type=float, default=0.01, help="share of receivers in an outage (%(default)s)")
    parser.add_argument("--killed", type=int, help="pods that are killed with -9 (a tenth)")
    parser.add_argument("--seed", type=int, default=1, help="the same one gives the same output (%(default)s)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures there too")
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
    """Print the tables. 2: the pods cannot make the deliveries, whatever else happens."""
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
