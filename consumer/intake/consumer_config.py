"""What librdkafka's consumer is told."""

from collections.abc import Collection, Mapping
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, OFFSET_INVALID

from consumer.config.settings import KafkaSettings
from consumer.intake.topics import hidden
from consumer.kafka.client import usable_properties

_NOT_OF_KIP_848 = ("session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy")

_DEFAULTS: dict[str, Any] = {
    "client.id": "kafka-webhooks",
    # A new partition must not lose its first events.
    "auto.offset.reset": "earliest",
    "partition.assignment.strategy": "cooperative-sticky",
    # A topic made later that matches a pattern is consumed within this.
    "topic.metadata.refresh.interval.ms": 30_000,
    # Prefetch. At 40,000 records/s a look every 50 ms finds 2,000 gone: 5,000 last. Events of 450 bytes make it 2 MB;
    # larger ones stop at 16 MiB for all partitions together. No more than this: pausing throws prefetched records away.
    "queued.min.messages": 5_000,
    "queued.max.messages.kbytes": 16_384,
    "fetch.queue.backoff.ms": 50,
    # A batch that cannot be read is passed record by record, each after this.
    "fetch.error.backoff.ms": 100,
    "statistics.interval.ms": 1_000,
}
_FIXED: dict[str, Any] = {
    "enable.auto.commit": False,
    # Else lag would count records in flight as done.
    "enable.auto.offset.store": False,
    "isolation.level": "read_committed",
}
_FIRST = {
    **dict.fromkeys(("smallest", "earliest", "beginning"), OFFSET_BEGINNING),
    **dict.fromkeys(("largest", "latest", "end"), OFFSET_END),
}


def consumer_config(kafka: KafkaSettings, topics: Collection[str]) -> dict[str, Any]:
    """The consumer's configuration: defaults, users' properties over them, and over all what the guarantee rests on."""
    properties = usable_properties(kafka.properties)
    defaults = dict(_DEFAULTS)
    if properties.get("group.protocol") == "consumer":
        for name in _NOT_OF_KIP_848:
            defaults.pop(name, None)
            properties.pop(name, None)
    # To librdkafka these topics do not exist, so that no pattern finds them.
    properties.pop("topic.blacklist", None)
    return {
        **defaults,
        **properties,
        **_FIXED,
        "topic.blacklist": ",".join(hidden(kafka, topics)),
        "bootstrap.servers": kafka.bootstrap_servers,
        "group.id": kafka.group_id,
    }


def first_offset(config: Mapping[str, Any]) -> int:
    """Where a partition begins for which nothing is committed, as a logical offset, of what `consumer_config` gives.

    OFFSET_INVALID, which has librdkafka apply auto.offset.reset itself, only where that is an error: where the
    partition is resumed before its leader has answered, librdkafka would ask twice, and at the second answer go back
    or skip what has come since the first.
    """
    return _FIRST.get(config["auto.offset.reset"], OFFSET_INVALID)
