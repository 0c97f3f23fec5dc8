"""Reads records from the log by time. A reader joins no consumer group and commits nothing."""

import time
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import orjson
import structlog
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as KafkaTopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # not said to be exported
    AdminClient,
    ListOffsetsResultInfo,
    OffsetSpec,
)
from tenacity import retry, retry_if_exception, stop_after_delay, wait_fixed

from consumer.config.settings import KafkaSettings
from consumer.errors import Conflict, FatalKafkaError, KafkaUnavailable, WebhooksError
from consumer.events.event import TopicPartition
from consumer.intake.record import UNREADABLE, AssignedPartition, Record, UnreadableBatches, batch, headers_of
from consumer.intake.topics import consumes
from consumer.kafka.client import IS_IT_UP, Reachability, Reported, explained, made, onlooker
from consumer.ledger.replays import Span
from consumer.loop.part import guarded

log = structlog.get_logger(__name__)

_TIMEOUT = 10.0  # seconds for each request before reading begins; afterwards the reader waits for a broker
_NEW_LEADER = {KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE}  # it is known in a moment
_until_leaders_are_known = retry(
    retry=retry_if_exception(lambda error: isinstance(error, KafkaException) and error.args[0].code() in _NEW_LEADER),
    wait=wait_fixed(0.1),
    stop=stop_after_delay(_TIMEOUT),
    reraise=True,
)
FOREVER = 2**63 - 1  # the end of a span that is read as the log grows
_IDLE = 5.0  # seconds without a message, after which the reader checks that the topics still exist
_FIXED: dict[str, Any] = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "isolation.level": "read_committed",
    # If the log has no record at a position, this module reports the missing ones.
    "auto.offset.reset": "error",
    # Reports the end of the log even where a transaction's marker or compaction leaves no record to show it.
    "enable.partition.eof": True,
    # Prefetch, for all partitions together: a slow reader needs no more.
    "queued.min.messages": 5_000,
    "queued.max.messages.kbytes": 16_384,
    "fetch.queue.backoff.ms": 50,
    # An unreadable batch is skipped record by record, with this wait before each.
    "fetch.error.backoff.ms": 100,
    "statistics.interval.ms": 1_000,
}
# For spans of some hundred records: 5 ms each, a fifth of what they take otherwise.
SHORT = _FIXED | {
    "queued.min.messages": 500,
    "max.partition.fetch.bytes": 65_536,
    "fetch.queue.backoff.ms": 2,
    "fetch.wait.max.ms": 10,
}


class Place(NamedTuple):
    """An offset, and the timestamp (milliseconds) of its record; None: it has none, or there is no record yet."""

    offset: int
    timestamp: int | None = None


@_until_leaders_are_known
def offsets_at(consumer: Consumer, partitions: Collection[TopicPartition], moment: int) -> dict[TopicPartition, int]:
    """Offsets at a time (ms); OFFSET_BEGINNING and OFFSET_END mean the ends of the log. Negative: no offset.

    Raises KafkaException.
    """
    if not partitions:
        return {}
    answers = consumer.offsets_for_times([KafkaTopicPartition(*each, moment) for each in partitions], _TIMEOUT)
    for answer in answers:
        if (error := answer.error) is not None:
            raise KafkaException(KafkaError(error.code(), f"{answer.topic}[{answer.partition}]: {error.str()}"))
    return {(answer.topic, answer.partition): answer.offset for answer in answers}


class LogReader:
    """Reads spans of the log to their ends. One thread owns a LogReader; as a context manager, it closes the client.

    `positions` holds the next offset to read of each partition.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        clock: Callable[[], float] = time.monotonic,
        *,
        name: str = "times",
        properties: Mapping[str, Any] = _FIXED,
    ) -> None:
        """Raises SettingsError if librdkafka refuses a setting. Sends no request yet. Brokers log its `name`.

        `properties` is SHORT for reading many short spans.
        """
        self.positions: dict[TopicPartition, int] = {}
        self._kafka = kafka
        self._clock = clock
        self._heard = clock()
        self._left: dict[TopicPartition, Span] = {}
        self._partitions: dict[TopicPartition, AssignedPartition] = {}
        self._reported = Reported("")
        self._unreadable = UnreadableBatches()
        self._failures: list[Exception] = []
        self._reachability = Reachability(kafka, clock, expected=False)
        keep = self._failures.append
        config = {
            **onlooker(kafka, f"kafka-webhooks-{name}", warns=True),
            **properties,
            # The binding requires a group id. This one is unique, and nothing is ever stored under it.
            "group.id": f"kafka-webhooks-{name}-{uuid.uuid4().hex}",
            "error_cb": guarded(keep, self._on_error),
            "stats_cb": guarded(keep, lambda document: self._reachability.statistics(orjson.loads(document))),
        }
        self._consumer = made(Consumer, config, kafka)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer.close()

    @property
    def done(self) -> bool:
        """Whether every span is read to its end."""
        return not self._left

    @property
    def fault(self) -> str | None:
        """Why no records come now, if no broker can be reached."""
        return self._reachability.fault

    def partitions(self, names: Sequence[str]) -> list[TopicPartition]:
        """The partitions that the group's workers consume; `names` as in KAFKA_TOPICS.

        A name without a topic is logged. Raises KafkaUnavailable if no broker answers, and WebhooksError if one may not
        be read.
        """
        try:
            cluster = self._consumer.list_topics(timeout=_TIMEOUT)
        except KafkaException as error:
            raise self._unavailable(error) from None
        wanted = consumes(self._kafka, names)
        found = {name: each for name, each in cluster.topics.items() if each.error is None and wanted(name)}
        for name in names:
            if not name.startswith("^") and name not in found and not self.partitions_of(name):
                log.warning("a topic of KAFKA_TOPICS does not exist", topic=name)
        return [(name, number) for name in sorted(found) for number in sorted(found[name].partitions)]

    def partitions_of(self, topic: str) -> list[TopicPartition]:
        """The partitions of one topic, whether workers consume it or not; empty if it does not exist.

        Raises KafkaUnavailable if no broker answers, and WebhooksError if the topic may not be read.
        """
        try:
            found = self._consumer.list_topics(topic, timeout=_TIMEOUT).topics[topic]
        except KafkaException as error:
            raise self._unavailable(error) from None
        if found.error is not None and found.error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            raise Conflict(f"the topic {topic} may not be read: {explained(found.error, topic=topic)}")
        return [(topic, number) for number in sorted(found.partitions)]

    def spans(self, partitions: Sequence[TopicPartition], since: float, until: float | None) -> list[Span]:
        """The log's spans between two times (unix seconds; `until` None: the current end). Empty spans are left out.

        The records' own timestamps count: a span runs from the first record stamped `since` or later (not above 0: the
        oldest) up to the first one stamped `until` or later. Raises KafkaUnavailable if a partition's leader does not
        answer.
        """
        newest = self.offsets(partitions, OFFSET_END)
        begin = self.offsets(partitions, int(since * 1000) if since > 0 else OFFSET_BEGINNING)
        end = self.offsets(partitions, max(0, int(until * 1000))) if until is not None else {}
        spans = []
        for partition in partitions:
            first = begin[partition]
            last = end.get(partition, -1)
            last = newest[partition] if last < 0 else last
            if 0 <= first < last:
                spans.append(Span(*partition, first, last))
        return spans

    def firsts(self, partitions: Sequence[TopicPartition], since: float) -> dict[TopicPartition, Place]:
        """The first record stamped at a time (unix seconds; not above 0: the oldest) or later; else the log's end.

        Raises KafkaUnavailable if a partition's leader does not answer.
        """
        others = self.offsets(partitions, OFFSET_END if since > 0 else OFFSET_BEGINNING)
        admin = made(AdminClient, onlooker(self._kafka), self._kafka)  # unlike a Consumer, it is told timestamps
        stamped = OffsetSpec.for_timestamp(max(0, int(since * 1000)))
        asked = {KafkaTopicPartition(*partition): stamped for partition in partitions}

        @_until_leaders_are_known
        def answers() -> dict[TopicPartition, ListOffsetsResultInfo]:
            found = admin.list_offsets(asked, request_timeout=_TIMEOUT)
            return {(place.topic, place.partition): answer.result() for place, answer in found.items()}

        try:
            found = answers()
        except KafkaException as error:
            raise self._unavailable(error) from None
        return {
            partition: Place(
                first.offset if since > 0 and first.offset >= 0 else others[partition],
                first.timestamp if first.offset >= 0 else None,
            )
            for partition, first in found.items()
        }

    def start(self, spans: Iterable[Span]) -> None:
        """Begin to read these spans; call it again only when it is `done`."""
        self._left = {(span.topic, span.number): span for span in spans if span.begin < span.end}
        self.positions = {partition: span.begin for partition, span in self._left.items()}
        self._partitions = {partition: AssignedPartition(*partition) for partition in self._left}
        self._consumer.assign([KafkaTopicPartition(*partition, span.begin) for partition, span in self._left.items()])

    def read(self, limit: int, timeout: float) -> list[Record]:
        """Up to `limit` (at least 1) records. Waits for the first at most `timeout` seconds, and never above 0.1.

        Empty if no record came in time, `done` or not. A record that librdkafka cannot read has Unreadable headers and
        no timestamp. Raises WebhooksError when a partition cannot be read any more, and FatalKafkaError: `positions`
        then follow the last record that was returned.
        """
        if self._failures:
            raise self._failures.pop(0)
        messages = batch(self._consumer, limit, timeout)
        now = self._clock()
        if messages or self.done:
            self._heard = now
        elif now - self._heard > _IDLE and self.fault is None:
            self._heard = now
            self._look_for_topics()
        records: list[Record] = []
        moved: set[TopicPartition] = set()
        for message in messages:
            partition: TopicPartition = (message.topic(), message.partition())  # type: ignore[assignment]
            if partition in moved:
                continue  # queued for the old position, like another error of the same batch: it is read again
            record = None
            if (error := message.error()) is not None:
                record = self._on_message_error(partition, message.offset() or 0, error)
                if record is not None:
                    moved.add(partition)
            elif (span := self._left.get(partition)) is not None:
                record = self._taken(span, message)
            if record is not None:
                records.append(record)
        return records

    def _taken(self, span: Span, message: Message) -> Record | None:
        partition, offset = (span.topic, span.number), message.offset() or 0
        if offset >= span.end:
            self._finish(partition)
            return None
        self.positions[partition] = offset + 1
        if offset + 1 == span.end:
            self._finish(partition)
        timestamp = message.timestamp()[1]
        return Record(
            self._partitions[partition], offset, timestamp, message.key(), message.value(), headers_of(message)
        )

    def _finish(self, partition: TopicPartition) -> None:
        self.positions[partition] = self._left.pop(partition).end
        self._consumer.incremental_unassign([KafkaTopicPartition(*partition)])

    def _on_message_error(self, partition: TopicPartition, offset: int, error: KafkaError) -> Record | None:
        """Keep an error for the next `read` to raise: records before it in this batch count as read.

        Returns the record to give up, if the error is the last read of an unreadable one.
        """
        span = self._left.get(partition)
        code = error.code()
        if span is None and not (error.fatal() or code == KafkaError._FATAL):  # noqa: SLF001 (a message's error lacks the flag)
            # The partition is done, or the error concerns the throw-away group, which need not be usable.
            log.debug("Kafka reports", error=error.str())
        elif code == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            reason = explained(error, topic=partition[0])
            self._failures.append(WebhooksError(f"the topic {partition[0]} may not be read: {reason}"))
        elif span is not None and code == KafkaError._PARTITION_EOF:  # noqa: SLF001 (the binding's public name)
            if offset >= span.end:
                self._finish(partition)
            elif span.end != FOREVER:  # a new leader does not expose all of its log at once
                log.warning("the log ends earlier than it did; waiting", topic=partition[0], partition=partition[1])
        elif span is not None and code == KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001 (the same)
            guarded(self._failures.append, self._skip_removed)(span)
        else:
            self._reported.error(partition[0], error)
            if self._reported.fatal is not None:
                self._failures.append(self._reported.fatal)
            if span is not None and code in UNREADABLE:
                return self._given_up(span, offset, error)
        return None

    def _given_up(self, span: Span, base: int, error: KafkaError) -> Record | None:
        """Note that the batch at offset `base` cannot be read. Returns its next record if that is to be given up."""
        partition = (span.topic, span.number)
        position = self.positions[partition]
        record = self._unreadable.failed(self._partitions[partition], base, error.str(), position)
        if record is None:
            return None
        if record.offset < span.end - 1:
            self.positions[partition] = record.offset + 1
            self._consumer.seek(KafkaTopicPartition(*partition, record.offset + 1))
        else:
            self._finish(partition)
        return record if record.offset < span.end else None

    def _look_for_topics(self) -> None:
        """Check that the topics exist: librdkafka 2.16 only logs a deleted topic, and its reader waits for ever."""
        try:
            there = self._consumer.list_topics(timeout=1).topics
        except KafkaException:
            return  # no broker answers: wait for one
        for topic in sorted({topic for topic, _ in self._left}):
            if topic not in there:
                self._failures.append(WebhooksError(f"the topic {topic} is gone"))

    def _skip_removed(self, span: Span) -> None:
        """The log no longer holds the position: go on where the log begins now."""
        partition = (span.topic, span.number)
        position, begin = self.positions[partition], self.offsets([partition], OFFSET_BEGINNING)[partition]
        if begin <= position:
            raise WebhooksError(
                f"{span.topic}[{span.number}] does not reach offset {position} any more: its topic was recreated"
            )
        removed = min(begin, span.end) - position
        log.error(
            "retention removed records before they were read; going on with the first that is left",
            partition=f"{span.topic}[{span.number}]",
            records=removed,
        )
        if begin >= span.end:
            self._finish(partition)
            return
        self.positions[partition] = begin
        self._consumer.incremental_unassign([KafkaTopicPartition(*partition)])
        self._consumer.incremental_assign([KafkaTopicPartition(*partition, begin)])

    def offsets(self, partitions: Sequence[TopicPartition], moment: int) -> Mapping[TopicPartition, int]:
        """The result of `offsets_at`. Raises KafkaUnavailable if a partition's leader does not answer."""
        try:
            return offsets_at(self._consumer, partitions, moment)
        except KafkaException as error:
            raise self._unavailable(error) from None

    def _unavailable(self, error: KafkaException) -> KafkaUnavailable:
        if not self._left:  # a record would be lost; while records are read, callbacks are served anyway
            self._consumer.poll(0)
        detail = self._reachability.detail or error.args[0].str()
        return KafkaUnavailable(f"no answer from Kafka at {self._kafka.bootstrap_servers} ({detail}): {IS_IT_UP}")

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._failures.append(FatalKafkaError(f"Kafka's client cannot go on: {error.str()}"))
        else:
            self._reachability.error(error)
