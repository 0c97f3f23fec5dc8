"""Records that are no events, kept as they are on a topic of their own.

A record counts as stored only when all in-sync replicas have it. Until then it is held here and sent again with
back-off: its offset does not move, and nothing is lost while the topic is missing, full or out of reach.
"""

import heapq
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from itertools import count
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from consumer.intake.client import LibrdkafkaLog, known_properties
from consumer.intake.record import Record, UnreadableHeaders
from consumer.settings import KafkaSettings

log = structlog.get_logger(__name__)

STUB_BYTES = 64 * 1024
_DETAIL_LENGTH = 1000
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0
_MOST_PENDING = 5000
_MOST_BYTES = 64 * 2**20  # of their records' values
# An acknowledgement takes milliseconds; after this the topic is said to be at fault, while librdkafka still tries.
_SLOW_SECONDS = 10.0

_DEFAULTS: dict[str, Any] = {
    "client.id": "kafka-webhooks",
    # The largest max.message.bytes that is common on topics; larger records go as stubs. The broker has the last word.
    "message.max.bytes": 8 * 1024 * 1024,
    "queue.buffering.max.kbytes": 64 * 1024,
    "delivery.timeout.ms": 30_000,
    # How long a topic may be unknown before its records fail, and `fault` says so.
    "topic.metadata.propagation.max.ms": 5_000,
}
_FIXED: dict[str, Any] = {"acks": "all", "enable.idempotence": True}


class _Letter:
    """A dead letter on its way. `size` says how much of the record is sent: see `_SIZES`."""

    __slots__ = ("attempt", "headers", "on_stored", "record", "since", "size")

    def __init__(self, record: Record, headers: "_Headers", on_stored: Callable[[], None], since: float) -> None:
        self.record = record
        self.headers = headers
        self.on_stored = on_stored
        self.since = since
        self.attempt = 0
        self.size = 0


_Headers = list[tuple[str, str | bytes | None]]
_Content = tuple[bytes | None, bytes | None, _Headers]


class DeadLetters:
    """Sends dead letters; used by one thread. `fault` says what to do when they do not get through."""

    def __init__(self, kafka: KafkaSettings, *, clock: Callable[[], float] = time.monotonic) -> None:
        """SettingsError: librdkafka refuses a setting. What it does not know is left out; Source has warned of it."""
        self._topic = kafka.dead_letter_topic
        self._group = kafka.group_id
        self._clock = clock
        self._sent: dict[int, _Letter] = {}
        self._answers: deque[tuple[int, KafkaError | None]] = deque()
        self._waiting: list[tuple[float, int, _Letter]] = []
        self._numbers = count()
        self._failure: KafkaError | None = None
        properties, _unknown = known_properties(kafka.properties)
        self._config = {**_DEFAULTS, **properties, **_FIXED, "bootstrap.servers": kafka.bootstrap_servers}
        self._bytes = 0
        self._fatal: KafkaError | None = None
        self._again_at = 0.0
        self._producer = Producer(self._config, logger=LibrdkafkaLog())

    @property
    def pending(self) -> int:
        """Dead letters that no broker has acknowledged; they are in memory, so whoever sends keeps this bounded."""
        return len(self._sent) + len(self._waiting)

    @property
    def full(self) -> bool:
        """Nothing should be taken in that could add to what is pending."""
        return self.pending >= _MOST_PENDING or self._bytes >= _MOST_BYTES

    @property
    def fault(self) -> str | None:
        """Why dead letters do not get through, and what to do; None while they do."""
        if self._failure is not None:
            return _advice(self._topic, self._failure)
        oldest = next(iter(self._sent.values()), None)
        if oldest is not None and self._clock() - oldest.since > _SLOW_SECONDS:
            return f"dead-letter topic {self._topic}: no acknowledgement for {_SLOW_SECONDS:.0f} s; records wait for it"
        return None

    def send(self, record: Record, reason: str, detail: str, on_stored: Callable[[], None]) -> None:
        """Keep `record`. `on_stored` runs in a later `poll` or `flush`, once all in-sync replicas have it."""
        self._bytes += len(record.value or b"")
        self._produce(_Letter(record, self._describe(record, reason, detail), on_stored, self._clock()))

    def poll(self) -> None:
        """Serve acknowledgements and send again what is due. Raises what an `on_stored` raises."""
        self._turn(0.0)

    def flush(self, timeout: float) -> int:
        """Poll until nothing is pending, at most `timeout` seconds. How many still are."""
        deadline = self._clock() + timeout
        while self.pending and (left := deadline - self._clock()) > 0:
            self._turn(min(left, 0.1))
        return self.pending

    def close(self) -> None:
        """Let go of what is pending: its offsets were not committed, so its next owner sends it again."""
        self._producer.purge()
        self._producer.poll(0)
        self._sent.clear()
        self._waiting.clear()
        self._bytes = 0

    def _turn(self, timeout: float) -> None:
        try:
            self._producer.poll(timeout)
        except KafkaException as failure:  # the binding raises what is fatal to this producer
            self._fatal = failure.args[0]
        while self._answers:
            number, error = self._answers.popleft()
            letter = self._sent.pop(number, None)
            if letter is None:
                continue
            if error is None:
                self._stored(letter)
            else:
                self._failed(letter, error)
        if self._fatal is not None:
            self._begin_again(self._fatal)
        while self._waiting and self._waiting[0][0] <= self._clock():
            _, _, letter = heapq.heappop(self._waiting)
            self._produce(letter)

    def _begin_again(self, error: KafkaError) -> None:
        """This producer is of no more use; what it has not got through goes with the next."""
        self._failure = error
        if self._clock() < self._again_at:
            return
        self._again_at = self._clock() + _LONGEST_WAIT
        self._fatal = None
        self._answers.clear()
        for letter in self._sent.values():
            self._wait(letter)
        self._sent.clear()
        self._producer = Producer(self._config, logger=LibrdkafkaLog())

    def _produce(self, letter: _Letter) -> None:
        number = next(self._numbers)
        key, value, headers = _SIZES[letter.size](letter)
        try:
            self._producer.produce(
                self._topic, value, key, headers=headers, on_delivery=partial(self._answered, number)
            )
        except BufferError:
            self._wait(letter)
        except KafkaException as error:
            self._failed(letter, error.args[0])
        else:
            self._sent[number] = letter

    def _answered(self, number: int, error: KafkaError | None, _message: Message) -> None:
        # Only noted: an exception here, inside librdkafka's poll, would drop the answers that follow.
        self._answers.append((number, error))

    def _stored(self, letter: _Letter) -> None:
        if self._failure is not None:
            log.info("dead letters get through again", topic=self._topic)
            self._failure = None
        self._bytes -= len(letter.record.value or b"")
        letter.on_stored()

    def _failed(self, letter: _Letter, error: KafkaError) -> None:
        if error.code() in _TOO_LARGE and letter.size < len(_SIZES) - 1:
            letter.size += 1
            self._produce(letter)
            return
        if self._failure is None:
            log.warning("dead letter not stored; it is sent again", topic=self._topic, error=error.str())
        self._failure = error
        self._wait(letter)

    def _wait(self, letter: _Letter) -> None:
        wait = min(_FIRST_WAIT * 2 ** min(letter.attempt, 10), _LONGEST_WAIT)
        letter.attempt += 1
        heapq.heappush(self._waiting, (self._clock() + wait, next(self._numbers), letter))

    def _describe(self, record: Record, reason: str, detail: str) -> _Headers:
        return [
            ("dead-letter-topic", record.partition.topic.encode()),
            ("dead-letter-partition", b"%d" % record.partition.number),
            ("dead-letter-offset", b"%d" % record.offset),
            ("dead-letter-timestamp", b"%d" % record.timestamp),
            ("dead-letter-reason", reason.encode()),
            ("dead-letter-detail", detail[:_DETAIL_LENGTH].encode(errors="replace")),
            ("dead-letter-group", self._group.encode()),
        ]


_TOO_LARGE = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG_SIZE, KafkaError.RECORD_LIST_TOO_LARGE)


def _whole(letter: _Letter) -> _Content:
    headers = letter.record.headers
    original = () if headers is None or isinstance(headers, UnreadableHeaders) else headers
    # Ours come last, and the last of a name counts: a letter that is dead a second time says where it died then.
    return letter.record.key, letter.record.value, [*original, *letter.headers]


def _stub(letter: _Letter) -> _Content:
    key, value, headers = _whole(letter)
    return key, (value or b"")[:STUB_BYTES], headers + _measures(letter)


def _bare(letter: _Letter) -> _Content:
    return None, None, letter.headers + _measures(letter)


def _measures(letter: _Letter) -> _Headers:
    value = letter.record.value or b""
    return [("dead-letter-size", b"%d" % len(value)), ("dead-letter-sha256", sha256(value).hexdigest().encode())]


# The next is taken when the topic, or librdkafka, says that the last is too large.
_SIZES: tuple[Callable[[_Letter], _Content], ...] = (_whole, _stub, _bare)


def _advice(topic: str, error: KafkaError) -> str:
    codes = {
        KafkaError._UNKNOWN_TOPIC: "create it, or set KAFKA_DEAD_LETTER_TOPIC to one that exists",  # noqa: SLF001 (public)
        KafkaError.UNKNOWN_TOPIC_OR_PART: "create it, or set KAFKA_DEAD_LETTER_TOPIC to one that exists",
        KafkaError.TOPIC_AUTHORIZATION_FAILED: "allow this service's user to write to it",
        KafkaError.CLUSTER_AUTHORIZATION_FAILED: "allow this service's user the cluster's IdempotentWrite",
        KafkaError.NOT_ENOUGH_REPLICAS: "bring its replicas back, or lower its min.insync.replicas",
    }
    what = codes.get(error.code(), "records wait until it takes them")
    return f"dead-letter topic {topic}: {error.str()}; {what}"
