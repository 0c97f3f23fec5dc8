"""librdkafka's consumer: its configuration, and how it leaves the group without hanging."""

import threading
from collections.abc import Callable, Collection, Mapping
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, OFFSET_INVALID, Consumer, KafkaException

from consumer.config.settings import KafkaSettings
from consumer.intake.topics import hidden
from consumer.kafka.client import client_properties

_QUIET = 0.05  # after so many seconds without a rebalance, none is due
_DROPPED = 1000  # records that one call discards; the partitions' next owners read them
_NOT_OF_KIP_848 = ("session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy")

_DEFAULTS: dict[str, Any] = {
    "client.id": "kafka-webhooks",
    # A new partition must not lose its first events.
    "auto.offset.reset": "earliest",
    "partition.assignment.strategy": "cooperative-sticky",
    # A new topic that matches a pattern is consumed within this time.
    "topic.metadata.refresh.interval.ms": 30_000,
    # Prefetch. At 40,000 records/s, 2,000 are consumed between two fetches 50 ms apart, so 5,000 suffice. Events of 450
    # bytes then take 2 MB; larger ones stop at 16 MiB for all partitions together. No more, because pausing discards
    # prefetched records.
    "queued.min.messages": 5_000,
    "queued.max.messages.kbytes": 16_384,
    "fetch.queue.backoff.ms": 50,
    # An unreadable batch is skipped record by record, with this wait before each.
    "fetch.error.backoff.ms": 100,
    "statistics.interval.ms": 1_000,
}
_FIXED: dict[str, Any] = {
    "enable.auto.commit": False,
    # Otherwise lag would count records in flight as done.
    "enable.auto.offset.store": False,
    "isolation.level": "read_committed",
    # An ordered row may wait for a record that never comes: see Partition.passed.
    "enable.partition.eof": True,
}
_FIRST = {
    **dict.fromkeys(("smallest", "earliest", "beginning"), OFFSET_BEGINNING),
    **dict.fromkeys(("largest", "latest", "end"), OFFSET_END),
}


def consumer_config(kafka: KafkaSettings, topics: Collection[str]) -> dict[str, Any]:
    """The consumer's configuration: defaults, then users' properties, then the settings that the guarantee needs."""
    properties = client_properties(kafka, warns=True)
    defaults = dict(_DEFAULTS)
    if properties.get("group.protocol") == "consumer":
        for name in _NOT_OF_KIP_848:
            defaults.pop(name, None)
            properties.pop(name, None)
    # librdkafka treats these topics as absent, so no pattern matches them.
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
    """The logical offset where a partition without a committed one begins; `config` is from `consumer_config`.

    OFFSET_INVALID has librdkafka apply auto.offset.reset itself, and is used only where that is `error`: if the
    partition is resumed before its leader has answered, librdkafka asks twice, and at the second answer it goes back
    or skips the records that have come since the first.
    """
    return _FIRST.get(config["auto.offset.reset"], OFFSET_INVALID)


def leave(consumer: Consumer, rebalances: Callable[[], int], *, static: bool) -> None:
    """Leave the group and close the consumer; returns when both are done.

    `rebalances` counts the calls of the consumer's rebalance callbacks. A `static` member (it has a group.instance.id)
    closes without leaving: its partitions wait for it.

    If the group assigns partitions to a member while it closes, librdkafka waits for ever, holding the GIL, so that no
    watchdog written in Python notices (librdkafka's issue 4884; measured with an assignment due: 2 of 220 closings).
    So the consumer unsubscribes first, and takes and gives back any due assignment before it closes.
    """
    if not static:
        try:
            consumer.unsubscribe()
        except (KafkaException, RuntimeError):  # after a fatal error, or once closed, there is no group to leave
            consumer.close()
            return
    while True:
        before = rebalances()
        consumer.consume(_DROPPED, _QUIET)
        if rebalances() == before and (static or not consumer.assignment()):
            break
    consumer.close()


def within(seconds: float, name: str, call: Callable[[], object]) -> bool:
    """Run a call that has no time limit of its own in a thread; the consumer's owner waits and makes no other call.

    False if the call has not ended after `seconds`: it is left to end by itself.
    """
    thread = threading.Thread(target=call, name=name, daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()
