"""Committing what is settled: asynchronously in calm times, synchronously when a partition is about to leave."""

import time
from collections.abc import Callable, Iterable
from math import inf

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from consumer.intake.record import Partition

log = structlog.get_logger(__name__)

# The group is between two generations. librdkafka's own thread takes this member into the next, where it still owns
# what it has not been asked to give up.
_BETWEEN_GENERATIONS = frozenset(
    (
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.STALE_MEMBER_EPOCH,
    )
)
_NO_ANSWER = KafkaError(KafkaError._NO_OFFSET)  # noqa: SLF001 (the binding's public name for it)
_PATIENCE = 5.0  # seconds for that; a generation of this project's members takes some 100 ms
_AGAIN_AFTER = 0.05
# Seconds for a round to arrive, or fail: librdkafka sends one again, on a live connection, within retry.backoff.max.ms.
_ARRIVAL = 1.5


class Commits:
    """The one place that moves offsets. Only partitions that are owned now: the broker does not fence commits itself.

    One round at a time: when the coordinator dies, librdkafka sends what was not answered again, and of two rounds the
    earlier one last (seen with every second pair), which would set offsets back.

    `total` counts rounds the broker took; `fault` says why the last one failed.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self.total = 0
        self.fault: str | None = None
        self._failure: int | None = None  # the code of the last one
        self._outstanding: dict[tuple[str, int], Partition] = {}
        self._sent: list[TopicPartition] = []  # for the outstanding ones
        self._begun_at = self._taken_until = -inf
        self._with_metadata = True

    def settled(self, partitions: Iterable[Partition]) -> bool:
        """Whether nothing of these is on its way or waits for the next round."""
        return not self._outstanding and not any(each.owned and each.tracker.dirty for each in partitions)

    def start(self, consumer: Consumer, partitions: Iterable[Partition]) -> float | None:
        """Send what has moved, unless an earlier round is still on its way. Its failures are sent again by the next.

        Returns until when (the clock's seconds) all that was settled then is known to be with the broker; None: now.
        """
        if self._outstanding:
            return self._taken_until
        now = self._clock()
        moved = {(each.topic, each.number): each for each in partitions if each.owned and each.tracker.dirty}
        offsets = self._offsets(moved.values())
        if not offsets:
            self.fault = None  # what failed has left; a failure that matters leaves its partition dirty
            self._taken_until = now
            return None
        self._outstanding, self._sent, self._begun_at = moved, offsets, now
        try:
            consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            self.finish(error.args[0], offsets)
        return self._taken_until

    def finish(self, error: KafkaError | None, offsets: list[TopicPartition]) -> None:
        """The answer to `start`; librdkafka's `on_commit`."""
        outstanding, self._outstanding = self._outstanding, {}
        if self._judge(outstanding, error, offsets) and outstanding:
            self._taken_until = self._begun_at

    def now(self, consumer: Consumer, partitions: Iterable[Partition]) -> bool:
        """Inside a rebalance: send what has moved, and wait for the answer. True if the broker has taken all of it.

        Sent again for some seconds where the group is between two generations: who leaves has no later round.
        """
        partitions = tuple(partitions)
        end = self._clock() + _PATIENCE
        if not self._arrived(consumer, end):
            log.warning("offsets not committed: the coordinator does not answer", seconds=_PATIENCE)
            return False
        while not self._now(consumer, partitions):
            if self._failure not in _BETWEEN_GENERATIONS or self._clock() >= end:
                return False
            self._sleep(_AGAIN_AFTER)
        return True

    def _arrived(self, consumer: Consumer, end: float) -> bool:
        """Wait for the last round to reach the broker. Its answer would come by `poll`, which must not be called here.

        The coordinator is asked what is committed. While it does not answer, a round may still be sent again; one that
        it does not show `_ARRIVAL` seconds after it began to answer has failed. False: no answer until `end`.
        """
        places = [TopicPartition(each.topic, each.partition) for each in self._sent]
        arrival: float | None = None
        while self._outstanding:
            now = self._clock()
            if arrival is not None and now >= arrival:
                return True
            if now >= end:
                return False
            try:
                answers = consumer.committed(places, end - now)
            except KafkaException as error:
                log.debug("no answer about committed offsets yet", error=error.args[0].str())
            else:
                if _images(answers) == _images(self._sent):
                    return True
                arrival = arrival or self._clock() + _ARRIVAL
            self._sleep(_AGAIN_AFTER)
        return True

    def _now(self, consumer: Consumer, partitions: Iterable[Partition]) -> bool:
        moved = {
            (each.topic, each.number): each
            for each in partitions
            if each.owned and (each.tracker.dirty or (each.topic, each.number) in self._outstanding)
        }
        offsets = self._offsets(moved.values())
        if not offsets:
            return True
        try:
            answers = consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            return self._judge(moved, error.args[0], offsets)
        return self._judge(moved, None, answers)

    def _offsets(self, partitions: Iterable[Partition]) -> list[TopicPartition]:
        offsets = []
        for partition in partitions:
            image = partition.tracker.image()
            partition.tracker.dirty = False
            if image is not None:
                mark, metadata = image
                offsets.append(
                    TopicPartition(partition.topic, partition.number, mark, metadata if self._with_metadata else "")
                )
        return offsets

    def _judge(
        self, sent: dict[tuple[str, int], Partition], error: KafkaError | None, answers: list[TopicPartition]
    ) -> bool:
        answered = {(answer.topic, answer.partition): answer for answer in answers}
        failures = {}
        for place, partition in sent.items():
            answer = answered.get(place)
            failure = error or (answer.error if answer is not None else _NO_ANSWER)
            if failure is not None:
                partition.tracker.dirty = True
                failures[str(partition)] = failure
        if not failures:
            if self.fault is not None:
                log.info("offsets are committed again")
            self.total += 1
            self.fault = None
            return True
        self._note(failures)
        return False

    def _note(self, failures: dict[str, KafkaError]) -> None:
        failure = next(iter(failures.values()))
        self._failure = failure.code()
        if failure.code() == KafkaError.OFFSET_METADATA_TOO_LARGE:
            # The broker's offset.metadata.max.bytes was lowered: a restart will send what is settled above the mark.
            self._with_metadata = False
        if self.fault is None:
            log.warning(
                "offsets not committed; the next round tries again", error=failure.str(), partitions=sorted(failures)
            )
        self.fault = f"offsets cannot be committed: {failure.str()}"


def _images(offsets: Iterable[TopicPartition]) -> set[tuple[str, int, int, str]]:
    return {(each.topic, each.partition, each.offset, each.metadata or "") for each in offsets}
