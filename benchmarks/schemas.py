"""The cost of decoding: an order of ten fields in Avro, Protobuf and JSON Schema, relative to plain JSON.

    python -m benchmarks.schemas

CPU time of `decode` for each event, and of the conversion before it with a schema, which is known already.
"""

import io
import struct
import time
from collections.abc import Callable

import orjson
from fastavro import parse_schema, schemaless_writer

from consumer.intake.decode import decode
from consumer.intake.record import AssignedPartition, Record
from consumer.schemas.avro import avro_decoder
from consumer.schemas.protobuf import protobuf_decoder
from consumer.schemas.translation import translator
from consumer.schemas.wire_format import Decode, SchemaId
from tests.schemas.descriptors import text_of
from tests.schemas.orders import AVRO, as_json, message_class, order, protobuf_file

EVENTS = 20_000
ROUNDS = 7  # the best run counts


def records() -> tuple[dict[str, Record], Callable[[Record], Record]]:
    """The same order in each format, with the function that converts it to JSON."""
    plain, avro = orjson.dumps(as_json(5)), io.BytesIO()
    schemaless_writer(avro, parse_schema(AVRO), order(5))
    values = {name: value for name, value in as_json(5).items() if name != "notes"}
    message = message_class()(**values | {"created": 1_772_281_800, "notes": ["blue"]})
    decoders: dict[SchemaId, Decode] = {
        1: avro_decoder(AVRO),
        2: protobuf_decoder(text_of(protobuf_file())),
        3: lambda framed: framed.payload,
    }
    payloads = {"Avro": avro.getvalue(), "Protobuf": b"\0" + message.SerializeToString(), "JSON Schema": plain}
    framed = {name: struct.pack(">bI", 0, at) + each for at, (name, each) in enumerate(payloads.items(), 1)}
    place = AssignedPartition("orders", 0)
    found = {name: Record(place, 7, 0, b"key", value, None) for name, value in {"plain JSON": plain, **framed}.items()}
    return found, translator(decoders.__getitem__)


def cost(work: Callable[[], object]) -> float:
    """Microseconds of one call."""
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(EVENTS):
            work()
        best = min(best, time.process_time() - began)
    return best / EVENTS * 1e6


def main() -> None:
    """Prints the table."""
    found, json_of = records()
    print(f"{'value':<12} {'bytes':>6} {'JSON':>6} {'µs':>6}")
    for name, record in found.items():
        body = decode(json_of(record)).body
        spent = cost(lambda record=record: decode(json_of(record)))  # type: ignore[misc]
        print(f"{name:<12} {len(record.value or b''):>6} {len(body):>6} {spent:>6.1f}")
    plain = found["plain JSON"]
    print(f"\n{cost(lambda: decode(plain)):.1f} µs for plain JSON without a registry")


if __name__ == "__main__":
    main()
