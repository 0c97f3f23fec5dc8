"""Says how much of the log a group gets: what is there at its first start, and what retention has removed unread."""

from collections.abc import Mapping

import structlog

log = structlog.get_logger(__name__)

SAID_FOR = 60.0  # seconds


class Retention:
    """`total` counts the records that retention removed before they were read. Times are monotonic seconds."""

    def __init__(self, now: float) -> None:
        self.total = 0
        self._until = now

    def fault(self, now: float) -> str | None:
        """That it was so lately, for /readyz."""
        return f"retention removed {self.total} records before they were read" if now < self._until else None

    def removed(self, partitions: Mapping[str, int], now: float) -> None:
        """So many records of each of these are gone, if any."""
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
    """For these partitions, with so many records each, the group has committed nothing yet."""
    if partitions:
        log.info(
            "nothing committed yet for these partitions: starting with their first record",
            partitions=sorted(partitions),
            records_to_send=sum(partitions.values()),
        )
