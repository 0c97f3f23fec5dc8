"""Logs how many records a group gets at its first start, and how many retention has removed unread."""

from collections.abc import Mapping

import structlog

log = structlog.get_logger(__name__)

SAID_FOR = 60.0  # seconds that /readyz reports a removal


class Retention:
    """`total` counts the records that retention removed before they were read. Times are monotonic seconds."""

    def __init__(self, now: float) -> None:
        self.total = 0
        self._until = now

    def fault(self, now: float) -> str | None:
        """A recent removal, for /readyz."""
        return f"retention removed {self.total} records before they were read" if now < self._until else None

    def removed(self, partitions: Mapping[str, int], now: float) -> None:
        """Log and count the records, by partition, that retention removed before they were read; 0 is allowed."""
        lost = {name: records for name, records in partitions.items() if records}
        if not lost:
            return
        records = sum(lost.values())
        log.error(
            "retention removed records before they were read; going on with the first that is left",
            records=records,
            partitions=lost,
        )
        self.total += records
        self._until = now + SAID_FOR


def say_first_start(partitions: Mapping[str, int]) -> None:
    """Log the partitions without a committed offset, each with its number of records."""
    if partitions:
        log.info(
            "nothing committed yet for these partitions: starting with their first record",
            partitions=sorted(partitions),
            records_to_send=sum(partitions.values()),
        )
