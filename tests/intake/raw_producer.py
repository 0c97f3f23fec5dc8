"""Records that no ordinary client would write."""

import ctypes
from collections.abc import Sequence
from pathlib import Path

import confluent_kafka
from confluent_kafka import Producer

from tests.kafka_kit import QUIET


def produce_with_header_name(servers: str, topic: str, name: bytes) -> None:
    """Write the record b"poison" to partition 0, acknowledged, with a header of this name."""
    directory = Path(confluent_kafka.__file__).parent.parent / "confluent_kafka.libs"
    library = ctypes.CDLL(str(next(directory.glob("librdkafka*"))))
    for function in (library.rd_kafka_conf_new, library.rd_kafka_new, library.rd_kafka_headers_new):
        function.restype = ctypes.c_void_p
    text = ctypes.create_string_buffer(512)
    size = ctypes.c_size_t(len(text))
    config = ctypes.c_void_p(library.rd_kafka_conf_new())
    library.rd_kafka_conf_set(config, b"bootstrap.servers", servers.encode(), text, size)
    library.rd_kafka_conf_set(config, b"log_level", b"0", text, size)
    client = ctypes.c_void_p(library.rd_kafka_new(0, config, text, size))
    headers = ctypes.c_void_p(library.rd_kafka_headers_new(ctypes.c_size_t(1)))
    library.rd_kafka_header_add(headers, name, ctypes.c_ssize_t(len(name)), b"x", ctypes.c_ssize_t(1))
    # rd_kafka_vtype_t: 1 topic, 3 partition, 4 value, 7 flags (2: copy), 10 headers, 0 end.
    tag = ctypes.c_int
    topic_and_partition = tag(1), topic.encode(), tag(3), ctypes.c_int32(0)
    value = tag(4), b"poison", ctypes.c_size_t(6), tag(7), tag(2)
    assert library.rd_kafka_producev(client, *topic_and_partition, *value, tag(10), headers, tag(0)) == 0
    assert library.rd_kafka_flush(client, 10_000) == 0
    library.rd_kafka_destroy(client)


# A consumer cannot read a batch of `BOMB`: librdkafka decompresses no more than its receive limit.
SMALL_READS = {"fetch_max_bytes": "1000000", "receive_message_max_bytes": "2000000"}
BOMB = bytes(8_000_000)


def write_bomb(servers: str, topic: str, values: Sequence[bytes] = (BOMB,), partition: int = 0) -> int:
    """Write one compressed batch, small on the wire and large when read. Returns the offset of its last record."""
    offsets: list[int | None] = []
    producer = Producer(
        {
            "bootstrap.servers": servers,
            **QUIET,
            "compression.type": "zstd",
            "message.max.bytes": 100_000_000,
            "batch.size": 100_000_000,
            "linger.ms": 60_000,  # one batch on a busy machine too: `flush` does not wait for it
        }
    )
    producer.list_topics(topic, 30)  # else `flush` may send the first record before the others have their partition
    for value in values:
        producer.produce(
            topic, value, partition=partition, on_delivery=lambda _, message: offsets.append(message.offset())
        )
    assert producer.flush(30) == 0
    last = offsets[-1]
    assert last is not None
    return last
