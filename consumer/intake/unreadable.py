"""Batches of records that librdkafka cannot read: damaged, or larger than it decompresses. Pure.

It reports the same batch for ever, and reads nothing behind it. Nobody can tell what is in it, nor how much: so its
records are given up one by one, each as a record that says so, until something can be read again.
"""

from confluent_kafka import KafkaError

from consumer.intake.record import Partition, Record, Unreadable

CODES = frozenset((KafkaError._BAD_COMPRESSION, KafkaError._BAD_MSG))  # noqa: SLF001 (the binding's public names)
READS = 3  # of a batch, before its records are given up: what was damaged on its way is whole the next time
NO_TIMESTAMP = -1


class UnreadableBatches:
    """Remembers, of each partition, the batch that could not be read last, and how often."""

    def __init__(self) -> None:
        self._failed: dict[Partition, tuple[int, int]] = {}

    def failed(self, partition: Partition, base: int, detail: str) -> Record | None:
        """The batch that begins at offset `base` could not be read. The record to give up, or None: read it again.

        That record is not tracked yet. What follows it is to be read from the next offset on.
        """
        known, times = self._failed.get(partition, (base, 0))
        times = times + 1 if known == base else 1
        self._failed[partition] = base, times
        if times < READS:
            return None
        offset = max(partition.tracker.position, base)
        return Record(partition, offset, NO_TIMESTAMP, None, None, Unreadable("unreadable", detail))

    def forget(self, partition: Partition) -> None:
        """It has left."""
        self._failed.pop(partition, None)
