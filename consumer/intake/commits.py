"""Commits settled offsets: in rounds, and in a last, verified round when partitions leave."""

import time
from collections.abc import Callable, Iterable
from math import inf

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaTopicPartition

from consumer.intake.record import AssignedPartition
from consumer.kafka.client import explained

log = structlog.get_logger(__name__)

COMMIT_EVERY = 0.25  # seconds: often enough that a crash repeats few deliveries, seldom enough to cost little
COMMIT_RECORDS, COMMIT_REST = 256, 0.01  # settled records that cause an earlier commit; seconds between two at least
_NO_ANSWER = KafkaError(KafkaError._NO_OFFSET)  # noqa: SLF001 (the binding's public name for it)
_PATIENCE = 5.0  # seconds for a last round; the group refuses commits while its generation changes, for some 100 ms
_LOOK = 0.1  # seconds that one request for the committed offsets may block the loop
_AGAIN_AFTER = 0.05
# Seconds for a round to arrive or fail: on a live connection, librdkafka resends it within retry.backoff.max.ms.
_ARRIVAL = 1.5


def is_commit_due(since: float, moved: Callable[[], int]) -> bool:
    """Whether to commit, `since` seconds after the last commit. `moved` counts the records settled since then."""
    return since >= COMMIT_EVERY or (since >= COMMIT_REST and moved() >= COMMIT_RECORDS)


class Commits:
    """The only place that commits offsets, and only for owned partitions: the broker does not fence commits itself.

    One round at a time: when the coordinator dies, librdkafka resends unanswered rounds, and of two rounds it sends the
    earlier one last (seen with every second pair), which would set offsets back.

    `total` counts rounds that the broker accepted; `fault` says why the last round failed.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, wait: Callable[[float], None] = time.sleep, group: str = ""
    ) -> None:
        """`wait(seconds)` runs while a last round is awaited; it may call `start`. `group`: the consumer group."""
        self._group = group
        self._clock = clock
        self._wait = wait
        self.total = 0
        self.fault: str | None = None
        self._outstanding: dict[tuple[str, int], AssignedPartition] = {}
        self._sent: list[KafkaTopicPartition] = []  # the outstanding round's offsets
        self._begun_at = self._taken_until = -inf
        self._with_metadata = True
        self._last = False  # a last round is being sent
        self._unheard: list[set[tuple[str, int, int]]] = []  # last rounds whose answers are ignored when they come

    def settled(self, partitions: Iterable[AssignedPartition]) -> bool:
        """Whether no round is outstanding and no offset of these partitions waits for the next one."""
        return not self._outstanding and not any(each.owned and each.tracker.moved for each in partitions)

    def start(self, consumer: Consumer, partitions: Iterable[AssignedPartition]) -> float | None:
        """Send the offsets that have moved, unless a round is outstanding. The next round sends failed ones again.

        Returns a time (the clock's seconds): the broker has every offset settled by then. None: by now.
        """
        if self._outstanding or self._last:
            return self._taken_until
        now = self._clock()
        moved = {each.topic_partition: each for each in partitions if each.owned and each.tracker.moved}
        offsets = self._offsets(moved.values())
        if not offsets:
            self.fault = None  # the failed partitions have left; a failed partition still owned would have moved
            self._taken_until = now
            return None
        self._outstanding, self._sent, self._begun_at = moved, offsets, now
        try:
            consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            self.finish(error.args[0], offsets)
        return self._taken_until

    def finish(self, error: KafkaError | None, offsets: list[KafkaTopicPartition]) -> None:
        """Take the answer to `start`: librdkafka's `on_commit`, also called for last rounds after they are over."""
        if (marks := _marks(offsets)) in self._unheard:
            self._unheard.remove(marks)
            return
        outstanding, self._outstanding = self._outstanding, {}
        if self._judge(outstanding, error, offsets) and outstanding:
            self._taken_until = self._begun_at

    def now(self, consumer: Consumer, partitions: Iterable[AssignedPartition]) -> bool:
        """Inside a rebalance: send the offsets that have moved, for some seconds at most. True if the broker has them.

        The answer to a round arrives through `poll`, which must not be called here, and a blocking `commit` has no time
        limit. So the coordinator is asked for the committed offsets, on the connection that carried the round and hence
        after it. If it does not show the round, it has refused the round, as it does between two generations of the
        group. The round is then sent again: a leaving member has no later one.
        """
        self._last = True
        try:
            end = self._clock() + _PATIENCE
            return self._arrived(consumer, end) and self._sent_last(consumer, tuple(partitions), end)
        finally:
            self._last = False

    def _arrived(self, consumer: Consumer, end: float) -> bool:
        """Wait until the outstanding round has reached the broker: it must not arrive after the last round.

        While the coordinator does not answer, librdkafka may still resend the round. If the coordinator does not show
        the round `_ARRIVAL` seconds after it began to answer, the round has failed. False: no answer until `end`.
        """
        arrival: float | None = None
        while self._outstanding:
            now = self._clock()
            if arrival is not None and now >= arrival:
                break
            if now >= end:
                return self._given_up("the coordinator does not answer")
            shown = self._shown(consumer, self._sent)
            if shown:
                break
            if shown is not None:
                arrival = arrival or self._clock() + _ARRIVAL
            self._wait(_AGAIN_AFTER)
        return True

    def _sent_last(self, consumer: Consumer, partitions: Iterable[AssignedPartition], end: float) -> bool:
        moved = {
            each.topic_partition: each
            for each in partitions
            if each.owned and (each.tracker.moved or each.topic_partition in self._outstanding)
        }
        offsets = self._offsets(moved.values())
        if not offsets:
            return True
        answered: bool | None = False
        while self._clock() < end:
            if answered is not None:  # else the round may still arrive
                try:
                    consumer.commit(offsets=offsets, asynchronous=True)
                except KafkaException as error:
                    return self._judge(moved, error.args[0], offsets)
                self._unheard.append(_marks(offsets))
            answered = self._shown(consumer, offsets)
            if answered:
                return self._judge(moved, None, offsets)
            self._wait(_AGAIN_AFTER)
        for partition in moved.values():
            partition.tracker.commit_again()
        return self._given_up("the coordinator does not answer" if answered is None else "the group does not take them")

    def _given_up(self, reason: str) -> bool:
        log.warning("offsets of partitions that leave are not committed", reason=reason, seconds=_PATIENCE)
        self.fault = f"offsets cannot be committed: {reason}"
        return False

    def _shown(self, consumer: Consumer, offsets: list[KafkaTopicPartition]) -> bool | None:
        """Whether the coordinator shows these offsets as committed; None: the coordinator does not answer."""
        try:
            answers = consumer.committed([KafkaTopicPartition(each.topic, each.partition) for each in offsets], _LOOK)
        except KafkaException as error:
            log.debug("no answer about committed offsets yet", error=error.args[0].str())
            return None
        return _images(answers) == _images(offsets)

    def _offsets(self, partitions: Iterable[AssignedPartition]) -> list[KafkaTopicPartition]:
        offsets = []
        for partition in partitions:
            committable = partition.tracker.committable()
            partition.tracker.committing()
            if committable is not None:
                mark, metadata = committable
                offsets.append(
                    KafkaTopicPartition(
                        partition.topic,
                        partition.number,
                        mark,
                        metadata if self._with_metadata else "",
                        -1 if partition.tracker.epoch is None else partition.tracker.epoch,
                    )
                )
        return offsets

    def _judge(
        self,
        sent: dict[tuple[str, int], AssignedPartition],
        error: KafkaError | None,
        answers: list[KafkaTopicPartition],
    ) -> bool:
        answered = {(answer.topic, answer.partition): answer for answer in answers}
        failures = {}
        for topic_partition, partition in sent.items():
            answer = answered.get(topic_partition)
            failure = error or (answer.error if answer is not None else _NO_ANSWER)
            if failure is not None:
                partition.tracker.commit_again()
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
        if any(each.code() == KafkaError.OFFSET_METADATA_TOO_LARGE for each in failures.values()):
            # The broker's offset.metadata.max.bytes was lowered: a restart will resend records settled above the mark.
            self._with_metadata = False
        reason = explained(failure, group=self._group)
        if self.fault is None:
            log.warning("offsets not committed; the next round tries again", error=reason, partitions=sorted(failures))
        self.fault = f"offsets cannot be committed: {reason}"


def _images(offsets: Iterable[KafkaTopicPartition]) -> set[tuple[str, int, int, str]]:
    return {(each.topic, each.partition, each.offset, each.metadata or "") for each in offsets}


def _marks(offsets: Iterable[KafkaTopicPartition]) -> set[tuple[str, int, int]]:
    return {(each.topic, each.partition, each.offset) for each in offsets}
