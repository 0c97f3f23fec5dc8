"""The cost of compressed bodies for the sender, and the bytes saved, without Kafka and the database.

    python -m benchmarks.compression [DELIVERIES]

JSON of typical orders, all different, is sent by plain HTTP to a receiver that answers at once: plain and compressed in
turn, and compressed in a fan-out of 50, where each body is compressed once. The CPU includes writing to the socket.
"""

import json
import random
import sys
import time
from statistics import median

from benchmarks import rig
from benchmarks.sending import Run

SIZES = {"450 B": 450, "1 KiB": 2**10, "10 KiB": 10 * 2**10, "100 KiB": 100 * 2**10, "1 MiB": 2**20}
OPEN = 32
FAN_OUT = 50
VARIANTS = 8  # bodies of each size
ROUNDS = 3


def order(random_source: random.Random) -> dict[str, object]:
    """The order of an event: names and words repeat, ids and tokens do not."""
    return {
        "id": random_source.randrange(10**9),
        "sku": f"SKU-{random_source.randrange(10**5):05}",
        "name": random_source.choice(["Ada Lovelace", "Grace Hopper", "Barbara Liskov"]),
        "email": f"user{random_source.randrange(10**6)}@example.com",
        "price": random_source.randrange(10**5) / 100,
        "currency": "EUR",
        "created_at": f"2026-11-{random_source.randrange(1, 28):02}T12:{random_source.randrange(60):02}:00.123Z",
        "tags": random_source.sample(["new", "sale", "b2b", "gift", "fragile", "eu"], 2),
        "token": f"{random_source.getrandbits(128):032x}",
    }


def body_of(size: int, seed: int) -> bytes:
    """A JSON body of about this size."""
    random_source = random.Random(seed)  # noqa: S311 (a seed, no secret)
    orders = [order(random_source)]
    each = len(json.dumps(orders[0])) + 2
    orders += [order(random_source) for _ in range(size // each)]
    return json.dumps({"type": "order.paid", "orders": orders}).encode()[:size]


def measure(url: str, bodies: list[bytes], deliveries: int, *, above: int | None, fan_out: bool) -> tuple[float, float]:
    """CPU in microseconds and bytes of each delivery."""
    run = Run([f"{url}/hook{number}" for number in range(FAN_OUT)], gzip_above=above, fan_out=fan_out)
    count = max(FAN_OUT, deliveries // FAN_OUT * FAN_OUT)
    run.until(FAN_OUT, OPEN, lambda number: bodies[number % VARIANTS])
    cpu, sent, first = time.process_time(), run.bytes, run.done
    run.until(first + count, OPEN, lambda number: bytes(bytearray(bodies[number % VARIANTS])))
    cpu, size = (time.process_time() - cpu) / count, (run.bytes - sent) / count
    run.adapter.close()
    return cpu * 1e6, size


def main(deliveries: int) -> None:
    """Prints the table of docs/payloads.md."""
    print("| body | plain, CPU µs | compressed, CPU µs | in a fan-out, CPU µs | compressed, bytes | saved |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    with rig.sink() as receiver:
        for name, size in SIZES.items():
            bodies = [body_of(size, seed) for seed in range(VARIANTS)]
            count = max(200, min(deliveries, deliveries * 2**10 // size))
            runs: list[list[tuple[float, float]]] = [[], [], []]
            for _ in range(ROUNDS):
                for found, (above, fan_out) in zip(runs, ((None, False), (0, False), (0, True)), strict=True):
                    found.append(measure(receiver.url, bodies, count, above=above, fan_out=fan_out))
            plain, packed, shared = (median(cpu for cpu, _ in found) for found in runs)
            sent = runs[1][0][1]
            saved = 1 - sent / runs[0][0][1]
            print(f"| {name} | {plain:,.0f} | {packed:,.0f} | {shared:,.0f} | {sent:,.0f} | {saved:.0%} |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5_000)
