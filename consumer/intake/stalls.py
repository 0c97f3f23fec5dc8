"""Notices partitions that are not read although their logs have records, whatever the cause. Pure."""

from collections.abc import Iterable, Mapping

from consumer.errors import FatalKafkaError
from consumer.events.event import TopicPartition
from consumer.intake.record import AssignedPartition

STALLED_AFTER = 25.0  # seconds between two looks that find the same position: below the 30 s between two answers


class Stalls:
    """Compares positions with the ends of the logs, which another client of Kafka's has asked for.

    `outlived`: Kafka's client does not read a topic that has replaced one that it knows. librdkafka 2.16 ignores the
    leader of a topic that was made anew if the one before had a higher leader epoch, and only another client reads it.
    """

    def __init__(self) -> None:
        self.outlived: FatalKafkaError | None = None
        # Where each partition rests before its log's end, and when it was first and last seen there.
        self._resting: dict[AssignedPartition, tuple[int, float, float]] = {}

    def look(self, readable: Iterable[AssignedPartition], ends: Mapping[TopicPartition, int], now: float) -> None:
        """`ends` have just come. The `readable` partitions are held by nothing, and all that was fetched was taken."""
        before, self._resting = self._resting, {}
        for each in readable:
            at, end = max(each.position, 0), ends.get(each.topic_partition, -1)
            if at < end:
                was, since, _ = before.get(each, (at, now, now))
                self._resting[each] = at, since if was == at else now, now
                each.lag = end - at  # librdkafka tells none of a partition that it does not fetch
        if (known := next((each for each in self.since() if each.replaces and each.position < 0), None)) is not None:
            self.outlived = FatalKafkaError(
                f"Kafka's client cannot go on: it does not read {known}, whose topic was deleted and made anew; "
                "only another process does: start it again"
            )

    def excuse(self, partition: AssignedPartition | None = None) -> None:
        """Something of ours holds the partition, or all of them."""
        self._resting = {} if partition is None else {k: v for k, v in self._resting.items() if k is not partition}

    def since(self) -> dict[AssignedPartition, float]:
        """Since when the stalled partitions have rested. Safe to call from another thread."""
        return {
            each: since
            for each, (at, since, last) in list(self._resting.items())
            if last - since >= STALLED_AFTER and each.owned and max(each.position, 0) == at
        }

    def fault(self, now: float) -> str | None:
        """The first stall, for /readyz."""
        for each, since in self.since().items():
            return f"{each} has not been read for {now - since:.0f} s, although its log has {each.lag} more records"
        return None
