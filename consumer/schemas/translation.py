"""Turns records into JSON as they come: on the loop, where records wait for their schemas, or in any thread."""

import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Lock

import structlog

from consumer.delivery.limits import LARGEST, Memory
from consumer.errors import RegistryUnavailable, Undecodable
from consumer.events.event import TopicPartition
from consumer.intake.record import AssignedPartition, Record
from consumer.intake.source import Source
from consumer.loop.backoff import seconds_after
from consumer.loop.part import Part, beside
from consumer.schemas.wire_format import Decode, Framed, SchemaId, framed, in_json

log = structlog.get_logger(__name__)

# Intake stops at these limits. Memory stops it only beyond them: waiting records must not prevent their own release.
MOST_WAITING = 20_000  # records
MOST_BYTES = 128 * 2**20  # of them
MOST_RELEASED = 500  # of one turn
MOST_ASKED = 4  # requests at once: a request that hangs must not hold up the others
BACK_OFF = (0.1, 5.0)  # seconds until a failed request is repeated: the first wait, the longest
MOST_KEPT = 1000  # schemas, and as many refusals; the oldest leaves first
REFUSED_FOR = 60.0  # seconds for which an unknown or unusable schema is not requested again
_RECORD = 500  # bytes of a record in memory besides its value, key and headers

Answer = Decode | Exception
Ask = Callable[[SchemaId, Callable[[Answer], None]], None]


class KnownSchemas:
    """The answers by schema. A schema never changes under its id, so a decoder stays; a refusal is kept for a minute.

    Answers leave only in `put` and `purge`, so an answer of `get` stays valid until then. Unknown ids, however many,
    displace no schema.
    """

    def __init__(self) -> None:
        self._decoders: dict[SchemaId, Decode] = {}
        self._refusals: dict[SchemaId, tuple[Undecodable, float]] = {}  # each with its end, soonest first

    def get(self, schema_id: SchemaId) -> Decode | Undecodable | None:
        """The decoder of this schema's values, or the reason why there is none; None: ask the registry."""
        found = self._decoders.get(schema_id)
        if found is None and schema_id in self._refusals:
            return self._refusals[schema_id][0]
        return found

    def put(self, schema_id: SchemaId, answer: Decode | Undecodable, now: float) -> None:
        """Note an answer of the registry."""
        if isinstance(answer, Undecodable):
            self._refusals.pop(schema_id, None)
            self._refusals[schema_id] = answer, now + REFUSED_FOR
            if len(self._refusals) > MOST_KEPT:
                del self._refusals[next(iter(self._refusals))]
            return
        self._decoders[schema_id] = answer
        if len(self._decoders) > MOST_KEPT:
            del self._decoders[next(iter(self._decoders))]

    def purge(self, now: float) -> None:
        """Forget refusals that are over."""
        while self._refusals:
            schema_id, (_, until) = next(iter(self._refusals.items()))
            if now < until:
                return
            del self._refusals[schema_id]


def translator(
    load: Callable[[SchemaId], Decode], clock: Callable[[], float] = time.monotonic
) -> Callable[[Record], Record]:
    """A function that returns a record with its value as JSON, as workers decode it; unchanged if it names no schema.

    Any thread may call it, and waits for the registry. It raises Undecodable, and RegistryUnavailable: call it again
    later.
    """
    known, lock = KnownSchemas(), Lock()

    def json_of(record: Record) -> Record:
        found = framed(record)
        if found is None:
            return record
        now = clock()
        with lock:
            known.purge(now)
            answer = known.get(found.schema)
        if answer is None:
            try:
                answer = load(found.schema)  # several threads may request the same schema
            except Undecodable as refused:
                answer = refused
            with lock:
                known.put(found.schema, answer, now)
        return _converted(record, found, answer)

    return json_of


def _converted(record: Record, found: Framed, answer: Decode | Undecodable | None) -> Record:
    """The record with its value as JSON by the registry's answer. Raises Undecodable."""
    if isinstance(answer, Undecodable):
        raise Undecodable(answer.reason, str(answer))
    return record if answer is None else in_json(record, found, answer)


def in_threads(load: Callable[[SchemaId], Decode], post: Callable[[Callable[[], None]], None]) -> Ask:
    """An `ask` that runs each `load` in a thread of its own, and answers on the loop by `post`."""

    def ask(schema_id: SchemaId, done: Callable[[Answer], None]) -> None:
        beside(partial(load, schema_id), done, post, f"schema-{schema_id}")

    return ask


@dataclass(slots=True, eq=False)
class _Question:
    """A schema that records wait for."""

    asked: bool = False
    failures: int = 0
    reason: str | None = None
    retry_at: float = 0.0


class Translation(Part):
    """Used on the loop's thread. While a record's schema is not known, only its partition waits, in order.

    A partition whose next record waits is not fetched from meanwhile.
    """

    def __init__(
        self,
        ask: Ask,
        memory: Memory,
        *,
        source: Source,
        stands_aside: Callable[[TopicPartition], bool],
        monotonic: Callable[[], float],
    ) -> None:
        """`ask(schema, done)` starts a request and calls `done` later, on the loop.

        `stands_aside`: whether a partition rests for another reason; the part that paused it then wakes it.
        """
        self._ask = ask
        self._memory = memory
        self._source = source
        self._stands_aside = stands_aside
        self._monotonic = monotonic
        self._known = KnownSchemas()
        self._questions: dict[SchemaId, _Question] = {}
        self._waiting: dict[AssignedPartition, deque[Record]] = {}
        self._number = self._bytes = 0
        self._more = False
        self._fault: str | None = None

    @property
    def busy(self) -> bool:
        """A request to the registry is open, or records may go on."""
        return self._more or any(each.asked for each in self._questions.values())

    @property
    def fault(self) -> str | None:
        """Why schemas are not known, and which partitions wait for them."""
        return self._fault

    @property
    def room(self) -> int:
        """How many more records of the largest size may be read, and may wait."""
        return max(0, min(MOST_WAITING - self._number, (MOST_BYTES - self._bytes) // LARGEST))

    def admit(self, records: Sequence[Record], room: int) -> Sequence[Record]:
        """The records that may go on now, in order within each partition; at most `room` of them have waited."""
        if not self._waiting and all(self._missing(record) is None for record in records):
            return records
        admitted = self._released(min(room, MOST_RELEASED))
        resting = set()
        for record in records:
            partition = record.partition
            if partition not in self._waiting and self._missing(record) is None:
                admitted.append(record)
                continue
            self._waiting.setdefault(partition, deque()).append(record)
            self._count(record, 1)
            self._want(self._missing(record))
            resting.add(partition)
        for partition in resting:
            self._source.rest(partition)
        return admitted

    def knows(self, record: Record) -> bool:
        """Whether the schema of a record is known, so that `json_of` takes it; if not, the registry is asked."""
        missing = self._missing(record)
        self._want(missing)
        return missing is None

    def json_of(self, record: Record) -> Record:
        """An admitted record with its value as JSON; unchanged if its value names no schema. Raises Undecodable."""
        found = framed(record)
        return record if found is None else _converted(record, found, self._known.get(found.schema))

    def first_offset(self, topic_partition: TopicPartition) -> int | None:
        """The lowest offset of a partition's waiting records; None if none waits."""
        for partition, queue in self._waiting.items():
            if partition.topic_partition == topic_partition:
                return queue[0].offset
        return None

    def discard(self, topic_partitions: Collection[TopicPartition]) -> None:
        """Forget the records of partitions that leave: their next owner reads them again."""
        for partition in [each for each in self._waiting if each.topic_partition in topic_partitions]:
            for record in self._waiting.pop(partition):
                self._count(record, -1)
        wanted = {self._missing(record) for queue in self._waiting.values() for record in queue}
        self._questions = {each: question for each, question in self._questions.items() if each in wanted}
        self._report()

    def poll(self, now: float) -> None:
        """Request schemas that records wait for, as soon as their back-off is over."""
        self._known.purge(now)
        asked = sum(each.asked for each in self._questions.values()) if self._questions else 0
        for schema_id, question in list(self._questions.items()):
            if asked >= MOST_ASKED:
                return
            if not question.asked and now >= question.retry_at:
                question.asked = True
                asked += 1
                self._ask(schema_id, partial(self._answered, schema_id))

    def _released(self, room: int) -> list[Record]:
        """Take out the waiting records that may go on."""
        released: list[Record] = []
        self._more = False
        for partition, queue in list(self._waiting.items()):
            while queue and (missing := self._missing(queue[0])) is None:
                if len(released) >= room:
                    self._more = True
                    return released
                record = queue.popleft()
                self._count(record, -1)
                released.append(record)
            if queue:
                self._want(missing)  # its answer may have been forgotten meanwhile
                continue
            del self._waiting[partition]
            if not self._stands_aside(partition.topic_partition):
                self._source.wake(partition)
        return released

    def _count(self, record: Record, number: int) -> None:
        """Note that a record begins (1) or ends (-1) to wait."""
        size = record.size + _RECORD
        self._number += number
        self._bytes += number * size
        if number > 0:
            self._memory.hold(record.partition, size)
        else:
            self._memory.release(record.partition, size)

    def _missing(self, record: Record) -> SchemaId | None:
        """The id of a record's schema if the schema is not known; else None."""
        try:
            found = framed(record)
        except Undecodable:  # `json_of` raises it again
            return None
        return None if found is None or self._known.get(found.schema) is not None else found.schema

    def _want(self, schema_id: SchemaId | None) -> None:
        if schema_id is not None and schema_id not in self._questions:
            self._questions[schema_id] = _Question()

    def _answered(self, schema_id: SchemaId, answer: Answer) -> None:
        now = self._monotonic()
        question = self._questions.get(schema_id)
        if isinstance(answer, RegistryUnavailable):
            if question is None:
                return  # the records that waited for it have left
            question.asked = False
            question.failures += 1
            question.retry_at = now + seconds_after(question.failures, *BACK_OFF)
            question.reason = str(answer)
        elif isinstance(answer, Exception) and not isinstance(answer, Undecodable):
            raise answer
        else:
            self._known.put(schema_id, answer, now)
            self._questions.pop(schema_id, None)
        self._report()

    def _report(self) -> None:
        """Note why records wait; logs it if it is new."""
        reasons = (each.reason for each in self._questions.values())
        reason = next((each for each in reasons if each is not None), None)
        fault = None
        if reason is not None:
            partition, *others = map(str, self._waiting) if self._waiting else ("a partition",)
            fault = f"{reason}; {f'{len(others) + 1} partitions wait' if others else f'{partition} waits'} for schemas"
        if reason is not None and self._fault is None:
            log.error("schemas cannot be fetched; records wait", reason=reason)
        elif reason is None and self._fault is not None:
            log.info("the schema registry answers again")
        self._fault = fault
