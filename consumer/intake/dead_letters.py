"""Dead letters: records that cannot become deliveries, written unchanged to a topic of their own.

Only headers that begin with `dead-letter-` are replaced. `worker.polling` sends what `decode` refuses. `Letters` writes
events that were given up too.

A record counts as stored only when all in-sync replicas have it. Until then it stays in memory and is sent again with
back-off. Its offset does not move, so nothing is lost while the topic is missing, full or unreachable.
"""

import heapq
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from itertools import chain, count
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from consumer.config.settings import KafkaSettings
from consumer.events.event import RecordId, TopicPartition
from consumer.intake.record import Record, Unreadable
from consumer.kafka.producer import BACK_OFF, AcknowledgedTopic, Headers, Purpose
from consumer.loop.backoff import seconds_after
from consumer.loop.part import Part

OURS = "dead-letter-"  # the prefix of the headers that a dead letter has besides its record's
STUB_BYTES = 64 * 1024
_DETAIL_LENGTH = 1000
_MOST_PENDING = 5000
_MOST_KNOWN = 20_000  # letters that are not sent again: four times what may be pending
_MOST_BYTES = 64 * 2**20  # of the pending records

_PURPOSE = Purpose("dead-letter topic", "KAFKA_DEAD_LETTER_TOPIC", "records")
_DEFAULTS: dict[str, Any] = {
    # The largest max.message.bytes that is common on topics; larger records go as stubs. The broker's limit decides.
    "message.max.bytes": 8 * 1024 * 1024,
    "queue.buffering.max.kbytes": 64 * 1024,
    "delivery.timeout.ms": 30_000,
}


@dataclass(slots=True, eq=False)
class _Letter:
    """A letter that is not stored yet. `size` is an index into `_SIZES`: how much of the record is sent."""

    prefix: str
    record: Record
    headers: Headers
    on_stored: Callable[[], None]
    failures: int = 0
    size: int = 0


_Content = tuple[bytes | None, bytes | None, Headers]


class Letters(Part):
    """Writes records to a topic, with headers of ours, which begin with a `prefix`; used by one thread."""

    def __init__(
        self, kafka: KafkaSettings, topic: str, purpose: Purpose, prefix: str, clock: Callable[[], float]
    ) -> None:
        """Raises SettingsError if librdkafka refuses a setting. Omits unknown properties; Source has warned of them."""
        self._clock = clock
        self._prefix = prefix
        self._topic = AcknowledgedTopic(kafka, topic, purpose, _DEFAULTS, clock)
        self._sent: dict[int, _Letter] = {}
        self._waiting: list[tuple[float, int, _Letter]] = []
        self._numbers = count()
        self._bytes = 0

    @property
    def pending(self) -> int:
        """How many letters are not acknowledged. They are in memory, so callers of `write` keep this bounded."""
        return len(self._sent) + len(self._waiting)

    @property
    def busy(self) -> bool:
        """Whether letters are pending."""
        return self.pending > 0

    def holds(self, topic_partitions: Collection[TopicPartition]) -> bool:
        """Whether a record of these partitions is pending."""
        letters = chain(self._sent.values(), (letter for _, _, letter in self._waiting))
        return any(each.record.partition.topic_partition in topic_partitions for each in letters)

    @property
    def full(self) -> bool:
        """Whether so many are pending that the caller should take in no more records."""
        return self.pending >= _MOST_PENDING or self._bytes >= _MOST_BYTES

    @property
    def fault(self) -> str | None:
        """Why letters do not get through, and what to do; None while they do."""
        return self._topic.fault

    def write(self, record: Record, headers: Headers, on_stored: Callable[[], None]) -> None:
        """Write `record`. `on_stored` runs in a later `poll`, once all in-sync replicas have the record."""
        self._bytes += record.size
        self._produce(_Letter(self._prefix, record, headers, on_stored))

    def poll(self, now: float) -> None:
        """Serve acknowledgements and send due retries. Errors of an `on_stored` propagate."""
        self._topic.poll()
        answers = self._topic.answers
        while answers:
            number, error = answers.popleft()
            letter = self._sent.pop(number, None)
            if letter is None:
                continue
            if error is None:
                self._stored(letter)
            else:
                self._failed(letter, error)
        while self._waiting and self._waiting[0][0] <= now:
            _, _, letter = heapq.heappop(self._waiting)
            self._produce(letter)

    def close(self) -> None:
        """Drop pending letters: they are still owed, and another worker sends them."""
        self._topic.close()
        self._sent.clear()
        self._waiting.clear()
        self._bytes = 0

    def _produce(self, letter: _Letter) -> None:
        number = next(self._numbers)
        key, value, headers = _SIZES[letter.size](letter)
        try:
            self._topic.write(number, value, key, headers)
        except BufferError:
            self._wait(letter)
        except KafkaException as error:
            self._failed(letter, error.args[0])
        else:
            self._sent[number] = letter

    def _stored(self, letter: _Letter) -> None:
        self._topic.got_through()
        self._bytes -= letter.record.size
        letter.on_stored()

    def _failed(self, letter: _Letter, error: KafkaError) -> None:
        if error.code() in _TOO_LARGE:
            letter.size = (letter.size + 1) % len(_SIZES)
            if letter.size:
                self._produce(letter)
                return
            # Even the smallest form is refused. Retry with the whole record: the topic may have been repaired.
        self._topic.failed(error)
        self._wait(letter)

    def _wait(self, letter: _Letter) -> None:
        letter.failures += 1
        wait = seconds_after(letter.failures, *BACK_OFF)
        heapq.heappush(self._waiting, (self._clock() + wait, next(self._numbers), letter))


class DeadLetters(Letters):
    """Sends dead letters."""

    def __init__(self, kafka: KafkaSettings, *, clock: Callable[[], float] = time.monotonic) -> None:
        """SettingsError: librdkafka refuses a setting."""
        super().__init__(kafka, kafka.dead_letter_topic, _PURPOSE, OURS, clock)
        self._group = kafka.group_id
        # Who else waits for a letter; None: it is stored.
        self._known: dict[RecordId, list[Callable[[], None]] | None] = {}

    def send(self, record: Record, reason: str, detail: str, on_stored: Callable[[], None]) -> None:
        """Dead-letter `record`, as `write` does. Its offset moves once it is stored."""
        self._known.setdefault(record.id, [])
        self.write(record, self._describe(record, reason, detail), partial(self._noted, record.id, on_stored))

    def send_once(self, record: Record, reason: str, detail: str, on_stored: Callable[[], None]) -> bool:
        """The same for a cursor. False: it is not sent, since it was before; it may be stored already."""
        waiting = self._known.get(record.id, ())
        if waiting is None:
            on_stored()
        elif isinstance(waiting, list):
            waiting.append(on_stored)
        else:
            self.send(record, reason, detail, on_stored)
        return waiting == ()

    def _noted(self, record: RecordId, on_stored: Callable[[], None]) -> None:
        waiting, self._known[record] = self._known.pop(record, None) or (), None
        if len(self._known) > _MOST_KNOWN:
            del self._known[next(each for each, waits in self._known.items() if waits is None)]
        on_stored()
        for each in waiting:
            each()

    def _describe(self, record: Record, reason: str, detail: str) -> Headers:
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
    original = () if headers is None or isinstance(headers, Unreadable) else headers
    # Without a producer's `dead-letter-size`, say, which would make a whole record look cut.
    kept = [each for each in original if not each[0].startswith(letter.prefix)]
    return letter.record.key, letter.record.value, kept + letter.headers


def _stub(letter: _Letter) -> _Content:
    key, value, headers = _whole(letter)
    return key, (value or b"")[:STUB_BYTES], headers + _measures(letter)


def _bare(letter: _Letter) -> _Content:
    return None, None, letter.headers + _measures(letter)


def _measures(letter: _Letter) -> Headers:
    value, digest = letter.record.value or b"", sha256(letter.record.value or b"").hexdigest()
    return [(f"{letter.prefix}size", b"%d" % len(value)), (f"{letter.prefix}sha256", digest.encode())]


# Tried in this order: the next form follows when the topic or librdkafka calls one too large.
_SIZES: tuple[Callable[[_Letter], _Content], ...] = (_whole, _stub, _bare)
