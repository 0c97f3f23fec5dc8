"""One worker, the loop of a tutorial, and a loop that only sends.

    python -m benchmarks.throughput [EVENTS]

In one run, on one real Kafka and one receiver: events a second, CPU for each delivery, memory, and the ratios.
"""

import json
import subprocess
import sys
import uuid

from benchmarks import rig
from benchmarks.events import TYPE, create_topic, fill

WARM = 0.1  # share of the events before the measurement
TUTORIAL = 50  # times fewer events for the tutorial's loop


def main(events: int) -> None:
    """Runs all three and prints the table."""
    with rig.kafka() as bootstrap, rig.sink() as receiver, rig.database([receiver.url + "/hook"], TYPE) as database:
        topic, short = (f"bench-{uuid.uuid4().hex[:8]}" for _ in range(2))
        print(f"publishing {events} events of 450 bytes …", flush=True)
        create_topic(bootstrap, topic)
        create_topic(bootstrap, short)
        fill(bootstrap, topic, events)
        fill(bootstrap, short, events // TUTORIAL)

        print("one worker …", flush=True)
        with rig.worker(bootstrap, topic, database) as child:
            ours = rig.measure(child, receiver, int(events * WARM), events)
        stats = receiver.stats()
        duplicates = stats["total"] - stats["distinct"]

        print("the tutorial's loop …", flush=True)
        receiver.reset()
        arguments = [sys.executable, "benchmarks/tutorial_loop.py", bootstrap, short, database, rig.SECRET]
        with rig.process(arguments) as child:
            tutorial = rig.measure(child, receiver, int(events // TUTORIAL * WARM), events // TUTORIAL)

        print("bare sockets …", flush=True)
        command = [sys.executable, "-m", "benchmarks.bare_loop", receiver.url + "/hook", str(events), "500"]
        bare = json.loads(subprocess.run(command, cwd=rig.ROOT, check=True, capture_output=True).stdout)

    print(f"\n{'':22}{'events/s':>10}{'CPU/delivery':>14}{'memory':>10}")
    for name, used in (("one worker", ours), ("tutorial's loop", tutorial)):
        print(f"{name:22}{used.per_second:>10,.0f}{used.cpu_us:>11,.0f} µs{used.memory_mib:>6,.0f} MiB")
    print(f"{'bare sockets':22}{bare['per_second']:>10,.0f}{bare['cpu_us']:>11,.0f} µs")
    print(f"\nworker : tutorial   {ours.per_second / tutorial.per_second:.1f} times the events")
    print(f"worker : sockets    {ours.cpu_us / bare['cpu_us']:.2f} times the CPU of a delivery")
    print(f"duplicates          {duplicates}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200_000)
