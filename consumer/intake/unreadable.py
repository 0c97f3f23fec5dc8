"""Batches of records that librdkafka cannot read: damaged, or larger than it decompresses. Pure.

librdkafka reports such a batch for ever and reads nothing behind it. Neither its content nor its size is known. So its
records are given up one by one, each as a Record with Unreadable headers, until a record can be read again.
"""

from confluent_kafka import KafkaError

from consumer.intake.record import Partition, Record, Unreadable

CODES = frozenset((KafkaError._BAD_COMPRESSION, KafkaError._BAD_MSG))  # noqa: SLF001 (the binding's public names)
READS = 3  # reads of a batch before its records are given up: a batch damaged in transit is whole the next time
NO_TIMESTAMP = -1


class UnreadableBatches:
    """Remembers each partition's last unreadable batch, and how often it was read."""

    def __init__(self) -> None:
        self._failed: dict[Partition, tuple[int, int]] = {}

    def failed(self, partition: Partition, base: int, detail: str, position: int) -> Record | None:
        """Note a failed read of the batch that begins at offset `base`. The record to give up; None: read it again.

        That record is not tracked yet. Reading has to continue at the offset after it. `position` is the next offset to
        read.
        """
        known, times = self._failed.get(partition, (base, 0))
        times = times + 1 if known == base else 1
        self._failed[partition] = base, times
        if times < READS:
            return None
        offset = max(position, base)
        return Record(partition, offset, NO_TIMESTAMP, None, None, Unreadable("unreadable", detail))

    def forget(self, partition: Partition) -> None:
        """Forget a partition that has left."""
        self._failed.pop(partition, None)
