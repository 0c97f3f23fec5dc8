"""Records from the log by time, beside the consumer group: what a replay reads. Nothing is joined or committed."""

import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import orjson
import structlog
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as KafkaTopicPartition

from consumer.config.settings import KafkaSettings
from consumer.errors import FatalKafkaError, KafkaUnavailable, SettingsError, WebhooksError
from consumer.events.event import TopicPartition
from consumer.intake.offsets import OffsetTracker
from consumer.intake.record import Partition, Record, batch, headers_of
from consumer.intake.topics import consumes
from consumer.kafka.client import LibrdkafkaLog, Reachability, guarded, usable_properties
from consumer.ledger.replays import Span

log = structlog.get_logger(__name__)

_TIMEOUT = 10.0  # seconds for each question before anything is read; afterwards a broker is waited for
_IDLE = 5.0  # seconds without anything, after which it is asked whether the topics are still there
# What concerns membership of a group, and what librdkafka refuses in a consumer that has none.
_OF_A_MEMBER = (
    "group.protocol",
    "group.instance.id",
    "group.remote.assignor",
    "heartbeat.interval.ms",
    "partition.assignment.strategy",
    "session.timeout.ms",
)
_FIXED: dict[str, Any] = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "isolation.level": "read_committed",
    # Where the log has no record at a position, it is for us to say what is missing.
    "auto.offset.reset": "error",
    # Tells of the end also where it is a transaction's marker, or was compacted away: no record would.
    "enable.partition.eof": True,
    # Prefetch, for all partitions together: a slow replay needs no more.
    "queued.min.messages": 5_000,
    "queued.max.messages.kbytes": 16_384,
    "fetch.queue.backoff.ms": 50,
    "statistics.interval.ms": 1_000,
}


class LogReader:
    """Reads spans of the log to their ends. One thread owns it; a context manager that closes the client.

    `positions`: for each partition the offset before which all is read. `removed_total` counts the offsets that
    retention took from a span before they were read.
    """

    def __init__(self, kafka: KafkaSettings, clock: Callable[[], float] = time.monotonic) -> None:
        """SettingsError: librdkafka refuses a setting. Nothing is asked yet."""
        self.positions: dict[TopicPartition, int] = {}
        self.removed_total = 0
        self._kafka = kafka
        self._clock = clock
        self._heard = clock()
        self._since = 0.0
        self._left: dict[TopicPartition, Span] = {}
        self._partitions: dict[TopicPartition, Partition] = {}
        self._cut: dict[TopicPartition, int] = {}
        self._said: set[tuple[str | None, int]] = set()
        self._failures: list[Exception] = []
        self._reachability = Reachability(kafka, clock)
        self._reachability.fault = None  # who waits at a terminal is told of an outage, not that there is none
        keep = self._failures.append
        try:
            self._consumer = Consumer(
                {
                    **_config(kafka),
                    "error_cb": guarded(keep, self._on_error),
                    "stats_cb": guarded(keep, lambda document: self._reachability.statistics(orjson.loads(document))),
                },
                logger=LibrdkafkaLog(),
            )
        except KafkaException as error:
            raise SettingsError(f"Kafka's client refuses the settings: {error.args[0].str()}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer.close()

    @property
    def done(self) -> bool:
        """Every span is read to its end."""
        return not self._left

    @property
    def fault(self) -> str | None:
        """Why nothing comes now, if no broker can be reached."""
        return self._reachability.fault

    def partitions(self, names: Sequence[str]) -> list[TopicPartition]:
        """The partitions that the group's workers consume; `names` as in KAFKA_TOPICS.

        A name without a topic is logged. KafkaUnavailable if no broker answers.
        """
        try:
            cluster = self._consumer.list_topics(timeout=_TIMEOUT)
        except KafkaException as error:
            raise self._unavailable(error) from None
        wanted = consumes(self._kafka, names)
        found = {name: each for name, each in cluster.topics.items() if each.error is None and wanted(name)}
        for name in names:
            if not name.startswith("^") and name not in found:
                log.warning("a topic of KAFKA_TOPICS does not exist, or may not be read", topic=name)
        return [(name, number) for name in sorted(found) for number in sorted(found[name].partitions)]

    def spans(self, places: Sequence[TopicPartition], since: float, until: float | None) -> list[Span]:
        """What the log holds of a time (unix seconds; `until` None: to its end as of now). Empty spans are left out.

        By the records' own timestamps: from the first stamped `since` or later up to the first stamped `until` or
        later. KafkaUnavailable if a partition's leader does not answer.
        """
        if not places:
            return []
        oldest = self._ask(places, OFFSET_BEGINNING)
        newest = self._ask(places, OFFSET_END)
        begin = self._ask(places, max(0, int(since * 1000)))
        end = self._ask(places, max(0, int(until * 1000))) if until is not None else {}
        spans = []
        for place in places:
            first = begin[place]
            last = end.get(place, -1)
            last = newest[place] if last < 0 else last
            if 0 <= first < last:
                spans.append(Span(*place, first, last))
                if 0 < first == oldest[place]:
                    self._cut[place] = first
        return spans

    def start(self, spans: Iterable[Span], since: float = 0.0) -> None:
        """Begin with these spans; once. Records stamped before `since` (unix seconds) are passed over."""
        self._since = since * 1000
        self._left = {(span.topic, span.number): span for span in spans if span.begin < span.end}
        self.positions = {place: span.begin for place, span in self._left.items()}
        self._partitions = {place: Partition(*place, OffsetTracker(None)) for place in self._left}
        self._consumer.assign([KafkaTopicPartition(*place, span.begin) for place, span in self._left.items()])

    def read(self, limit: int, timeout: float) -> list[Record]:
        """Up to `limit` (at least 1) records. Waits for the first at most `timeout` seconds, and never above 0.1.

        Empty where nothing came in time, `done` or not. WebhooksError when a partition cannot be read any more, and
        FatalKafkaError: `positions` then stand behind the last record that was returned.
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
        records = []
        for message in messages:
            place: TopicPartition = (message.topic(), message.partition())  # type: ignore[assignment]
            if (error := message.error()) is not None:
                self._on_message_error(place, message.offset() or 0, error)
            elif (span := self._left.get(place)) is not None and (record := self._taken(span, message)) is not None:
                records.append(record)
        return records

    def _taken(self, span: Span, message: Message) -> Record | None:
        place, offset = (span.topic, span.number), message.offset() or 0
        if offset >= span.end:
            self._finish(place)
            return None
        self.positions[place] = offset + 1
        if offset + 1 == span.end:
            self._finish(place)
        timestamp = message.timestamp()[1]
        if (cut := self._cut.pop(place, 0)) > 0:
            log.warning(
                "retention has removed the beginning of a partition, perhaps records of the time asked for",
                partition=str(self._partitions[place]),
                records_removed=cut,
                oldest_left=datetime.fromtimestamp(timestamp / 1000, UTC).isoformat(),
            )
        if timestamp < self._since:
            return None
        return Record(self._partitions[place], offset, timestamp, message.key(), message.value(), headers_of(message))

    def _finish(self, place: TopicPartition) -> None:
        self.positions[place] = self._left.pop(place).end
        self._consumer.incremental_unassign([KafkaTopicPartition(*place)])

    def _on_message_error(self, place: TopicPartition, offset: int, error: KafkaError) -> None:
        """What it raises, the next `read` raises: records before it in this batch count as read."""
        span = self._left.get(place)
        code = error.code()
        if error.fatal() or code == KafkaError._FATAL:  # noqa: SLF001 (a message's error lacks the flag)
            self._failures.append(FatalKafkaError(f"Kafka's client cannot go on: {error.str()}"))
        elif code == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            self._failures.append(WebhooksError(f"the topic {place[0]} may not be read: {error.str()}"))
        elif span is None:
            # Of a partition that is done, or of none: the throw-away group may not be usable, and is not used.
            log.debug("Kafka reports", error=error.str())
        elif code == KafkaError._PARTITION_EOF:  # noqa: SLF001 (the binding's public name)
            if offset >= span.end:
                self._finish(place)
            else:  # a new leader does not show all of its log at once
                self._say("the log ends earlier than it did; waiting", place, code)
        elif code == KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001 (the same)
            guarded(self._failures.append, self._skip_removed)(span)
        else:
            self._say(f"Kafka reports: {error.str()}", place, code)

    def _look_for_topics(self) -> None:
        """Look for what librdkafka 2.16 does not tell: it logs a topic that goes, and its reader waits for ever."""
        try:
            there = self._consumer.list_topics(timeout=1).topics
        except KafkaException:
            return  # a broker that does not answer is waited for
        for topic in sorted({topic for topic, _ in self._left}):
            if topic not in there:
                self._failures.append(
                    WebhooksError(
                        f"the topic {topic} is gone; a new replay, with --topic, reads what is left of the others"
                    )
                )

    def _skip_removed(self, span: Span) -> None:
        """The log does not hold the position: go on where it begins now."""
        place = (span.topic, span.number)
        position, begin = self.positions[place], self._ask([place], OFFSET_BEGINNING)[place]
        if begin <= position:
            raise WebhooksError(
                f"{span.topic}[{span.number}] does not reach offset {position} any more: its topic was made anew"
            )
        removed = min(begin, span.end) - position
        self.removed_total += removed
        log.error(
            "retention removed records before they were read; going on with the first that is left",
            partition=f"{span.topic}[{span.number}]",
            records=removed,
        )
        if begin >= span.end:
            self._finish(place)
            return
        self.positions[place] = begin
        self._consumer.incremental_unassign([KafkaTopicPartition(*place)])
        self._consumer.incremental_assign([KafkaTopicPartition(*place, begin)])

    def _say(self, text: str, place: TopicPartition, code: int) -> None:
        if (place[0], code) not in self._said:
            self._said.add((place[0], code))
            log.warning(text, partition=f"{place[0]}[{place[1]}]")

    def _ask(self, places: Sequence[TopicPartition], moment: int) -> Mapping[TopicPartition, int]:
        """Offsets by time (ms); OFFSET_BEGINNING and OFFSET_END stand for the log's ends. Negative: there is none."""
        try:
            answers = self._consumer.offsets_for_times(
                [KafkaTopicPartition(*place, moment) for place in places], _TIMEOUT
            )
        except KafkaException as error:
            raise self._unavailable(error) from None
        for answer in answers:
            if answer.error is not None:
                raise KafkaUnavailable(
                    f"Kafka does not say where {answer.topic}[{answer.partition}] stands: {answer.error.str()}"
                )
        return {(answer.topic, answer.partition): answer.offset for answer in answers}

    def _unavailable(self, error: KafkaException) -> KafkaUnavailable:
        return KafkaUnavailable(
            f"no answer from Kafka at {self._kafka.bootstrap_servers} ({error.args[0].str()}): "
            "is it up, is KAFKA_BOOTSTRAP_SERVERS right?"
        )

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._failures.append(FatalKafkaError(f"Kafka's client cannot go on: {error.str()}"))
        else:
            self._reachability.error(error)


def _config(kafka: KafkaSettings) -> dict[str, Any]:
    properties = usable_properties(kafka.properties)
    for name in _OF_A_MEMBER:
        properties.pop(name, None)
    return {
        "client.id": "kafka-webhooks-replay",
        **properties,
        **_FIXED,
        "bootstrap.servers": kafka.bootstrap_servers,
        # The binding wants one. Nobody else has it, and nothing is ever stored under it.
        "group.id": f"kafka-webhooks-replay-{uuid.uuid4().hex}",
    }
