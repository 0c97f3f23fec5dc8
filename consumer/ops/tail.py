"""Reads the newest records of a topic, for display. Joins no group and commits nothing."""

import time
from heapq import heappop, heappush

from consumer.config.settings import KafkaSettings
from consumer.intake.log_reader import LogReader
from consumer.intake.record import Record
from consumer.ledger.replays import Span

SECONDS = 5.0  # of one reading
MOST_BYTES = 16 * 2**20  # of the records


def newest(kafka: KafkaSettings, topic: str, limit: int, partition: int | None = None) -> list[Record]:
    """At most `limit` records of a topic, or of one `partition`, newest first.

    Fewer if they do not arrive within 5 s, and without the oldest ones if all together have more than 16 MiB. Raises
    KafkaUnavailable, WebhooksError if the topic may not be read, and SettingsError if librdkafka refuses a setting. A
    topic that does not exist has no records.
    """
    with LogReader(kafka, name="tail") as reader:
        wanted = [each for each in reader.partitions_of(topic) if partition in {None, each[1]}]
        spans = reader.spans(wanted, 0.0, None, quietly=True)
        reader.start([span._replace(begin=max(span.begin, span.end - limit)) for span in spans])
        records = _read(reader, limit)
    return sorted(records, key=lambda record: (record.timestamp, record.offset), reverse=True)[:limit]


def record_at(kafka: KafkaSettings, topic: str, partition: int, offset: int) -> Record | None:
    """The record at an offset, or None if the log does not have it. Raises as `newest` does."""
    with LogReader(kafka, name="tail") as reader:
        whole = next(
            (
                span
                for span in reader.spans(reader.partitions_of(topic), 0.0, None, quietly=True)
                if span.number == partition
            ),
            None,
        )
        if whole is None or not whole.begin <= offset < whole.end:
            return None
        reader.start([Span(topic, partition, offset, offset + 1)])
        return next((record for record in _read(reader, 1) if record.offset == offset), None)


def _read(reader: LogReader, at_once: int) -> list[Record]:
    """The records, without the oldest ones if all together are too large."""
    records: list[tuple[int, int, int, Record]] = []
    end, size = time.monotonic() + SECONDS, 0
    while not reader.done and time.monotonic() < end:
        for record in reader.read(max(1, at_once), 0.1):
            heappush(records, (record.timestamp, record.offset, record.partition.number, record))
            size += record.size
        while size > MOST_BYTES and len(records) > 1:
            size -= heappop(records)[3].size
    return [record for *_, record in records]
