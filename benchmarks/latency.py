"""The latency from `produce` to the receiver, at a steady rate, through one worker.

python -m benchmarks.latency [EVENTS_PER_SECOND] [SECONDS]
"""

import sys
import time
import uuid

from benchmarks import rig
from benchmarks.events import TYPE, create_topic, fill, stream


def main(per_second: int, seconds: float) -> None:
    """Warms up, streams events and prints the percentiles."""
    with rig.kafka() as bootstrap, rig.sink() as receiver, rig.database([receiver.url + "/hook"], TYPE) as database:
        topic = f"bench-{uuid.uuid4().hex[:8]}"
        create_topic(bootstrap, topic)
        fill(bootstrap, topic, 100)
        with rig.worker(bootstrap, topic, database):
            while receiver.count() < 100:  # noqa: PLR2004 (the events above: the worker is up)
                time.sleep(0.05)
            receiver.reset()
            sent = stream(bootstrap, topic, per_second, seconds)
            limit = time.monotonic() + 10
            while receiver.count() < sent and time.monotonic() < limit:
                time.sleep(0.05)
            stats = receiver.stats()
    print(f"{sent} events at {per_second}/s, {stats['distinct']} received, {stats['total'] - stats['distinct']} twice")
    print(
        "produce to receiver:",
        "  ".join(f"{name[:3]} {stats[name]:.1f} ms" for name in ("p50_ms", "p95_ms", "p99_ms", "max_ms")),
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 500, float(sys.argv[2]) if len(sys.argv) > 2 else 20.0)  # noqa: PLR2004
