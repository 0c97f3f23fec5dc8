"""Records wait for their schemas in the order of their partition, in bounded memory. Others are not delayed."""

from collections import deque
from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.delivery.limits import LARGEST, Memory
from consumer.errors import RegistryUnavailable, Undecodable
from consumer.events.event import TopicPartition
from consumer.intake.record import AssignedPartition, Headers, Record
from consumer.intake.source import Source
from consumer.schemas.translation import (
    BACK_OFF,
    MOST_ASKED,
    MOST_BYTES,
    MOST_KEPT,
    REFUSED_FOR,
    Answer,
    KnownSchemas,
    Translation,
    in_threads,
)
from consumer.schemas.wire_format import Framed, SchemaId
from tests.records import in_front, refusal

DOWN = RegistryUnavailable("the registry is down")
MANY = 1000


class World:
    """A translation whose requests the test answers, and the resting partitions."""

    def __init__(self) -> None:
        self.now = 0.0
        self.asked: deque[tuple[SchemaId, Callable[[Answer], None]]] = deque()
        self.resting: set[AssignedPartition] = set()
        self.aside: set[TopicPartition] = set()
        self.memory = Memory()
        self.offsets: dict[AssignedPartition, int] = {}
        self.translation = Translation(
            lambda schema, done: self.asked.append((schema, done)),
            self.memory,
            source=cast("Source", self),
            stands_aside=lambda each: each in self.aside,
            monotonic=lambda: self.now,
        )

    def rest(self, partition: AssignedPartition) -> None:
        self.resting.add(partition)

    def wake(self, partition: AssignedPartition) -> None:
        self.resting.discard(partition)

    def record(self, partition: AssignedPartition, value: bytes | int | None, headers: Headers | None = None) -> Record:
        """The next record of a partition. A number as value is the id of its schema."""
        offset = self.offsets[partition] = self.offsets.get(partition, -1) + 1
        if isinstance(value, int):
            value = in_front(value, b"payload")
        return Record(partition, offset, 0, None, value, headers)

    def admit(self, *records: Record, room: int = MANY) -> list[int]:
        """A turn. Returns the offsets that go on."""
        admitted = self.translation.admit(records, room)
        self.translation.poll(self.now)
        return [each.offset for each in admitted]

    def answer(self, answer: Answer) -> SchemaId:
        """Answer the oldest request."""
        schema, done = self.asked.popleft()
        done(answer)
        return schema


def decode(framed: Framed) -> bytes:
    """The decoder of any schema."""
    return b'{"of": "%d"}' % framed.schema if isinstance(framed.schema, int) else b"{}"


@pytest.fixture
def world() -> World:
    """A translation without known schemas."""
    return World()


@pytest.fixture
def orders() -> AssignedPartition:
    """A partition of `orders`."""
    return AssignedPartition("orders", 0)


def test_a_partition_waits_and_others_go_on(world: World, orders: AssignedPartition) -> None:
    """Records behind a waiting one wait too, also plain JSON. Records of other partitions do not."""
    users = AssignedPartition("users", 3)
    first = world.record(orders, 7)
    assert world.admit(world.record(users, b"{}"), first, world.record(orders, b"{}")) == [0]
    assert world.resting == {orders}
    assert world.translation.busy
    assert world.translation.first_offset(orders.topic_partition) == 0
    assert world.translation.first_offset(users.topic_partition) is None
    assert world.admit(world.record(users, b"{}"), world.record(orders, 7, [("a", b"x" * 50_000)])) == [1]
    assert world.memory.held > 50_000
    assert world.answer(decode) == 7
    assert not world.asked
    assert world.admit(world.record(orders, 7)) == [0, 1, 2, 3]
    assert not world.resting
    assert world.memory.held == 0
    assert world.translation.json_of(first).value == b'{"of": "7"}'
    assert not world.translation.busy
    assert world.admit(world.record(orders, 7), world.record(users, 7)) == [4, 2]


def test_a_record_with_an_unusable_schema_is_refused_in_its_turn(world: World, orders: AssignedPartition) -> None:
    """A malformed id needs no request; an unknown schema is requested once. The record is given up with the reason."""
    broken, unknown = world.record(orders, b"\0\0"), world.record(orders, 7)
    assert world.admit(broken, unknown) == [0]
    assert refusal(world.translation.json_of, broken).reason == "bad_schema_id"
    world.answer(Undecodable("unknown_schema", "nobody knows it"))
    assert world.admit() == [1]
    for _ in range(2):
        assert refusal(world.translation.json_of, unknown).reason == "unknown_schema"
    assert world.admit(world.record(orders, 7)) == [2]
    assert not world.asked
    world.now = REFUSED_FOR
    world.translation.poll(world.now)
    assert world.admit(world.record(orders, 7)) == []
    world.answer(Undecodable("unknown_schema", "x"))
    world.admit(room=0)
    world.now += REFUSED_FOR  # the refusal expires while the record behind it waits for room
    world.translation.poll(world.now)
    assert world.admit() == []
    assert len(world.asked) == 1
    world.aside.add(orders.topic_partition)  # its stored deliveries are being read, and the reader will wake it
    world.answer(decode)
    assert world.admit() == [3]
    assert world.resting == {orders}


def test_requests_to_a_registry_that_is_down_are_repeated(world: World, orders: AssignedPartition) -> None:
    """There is a back-off, and a reason in /readyz until it answers. No record goes on or is given up meanwhile."""
    world.admit(world.record(orders, 7))
    for failures in range(9):
        world.answer(DOWN)
        assert world.translation.fault == "the registry is down; orders[0] waits for schemas"
        assert not world.translation.busy
        wait = min(BACK_OFF[0] * 2**failures, BACK_OFF[1])
        world.now += wait * 0.99
        assert world.admit() == []
        assert not world.asked
        world.now += wait * 0.02
        world.admit()
        assert len(world.asked) == 1
    world.admit(world.record(AssignedPartition("users", 1), 8))
    world.answer(DOWN)
    assert world.translation.fault == "the registry is down; 2 partitions wait for schemas"
    world.answer(decode)
    assert world.admit() == [0]
    world.now += BACK_OFF[1]
    world.admit()
    world.answer(decode)
    assert world.translation.fault is None
    assert world.admit() == [0]


def test_a_failing_schema_does_not_delay_others(world: World) -> None:
    """Each schema has its own back-off. A few are requested at once."""
    partitions = [AssignedPartition("orders", number) for number in range(MOST_ASKED + 2)]
    world.admit(*(world.record(each, each.number + 1) for each in partitions))
    assert [schema for schema, _ in world.asked] == list(range(1, MOST_ASKED + 1))
    world.answer(DOWN)
    assert world.admit() == []
    assert [schema for schema, _ in world.asked] == list(range(2, MOST_ASKED + 2))
    while world.asked:
        world.answer(decode)
        world.admit()
    assert set(world.resting) == {partitions[0]}


def test_a_partition_that_leaves_is_forgotten(world: World, orders: AssignedPartition) -> None:
    """Its next owner reads the records again. A late answer and a new assignment do no harm."""
    users = AssignedPartition("users", 0)
    world.admit(world.record(orders, 7), world.record(users, 8))
    world.answer(DOWN)
    world.translation.discard({orders.topic_partition})
    assert world.translation.fault is None
    assert world.translation.first_offset(orders.topic_partition) is None
    assert world.answer(decode) == 8
    assert world.admit() == [0]
    assert world.memory.held == 0
    again = AssignedPartition("orders", 0)
    assert world.admit(world.record(again, 7)) == []
    world.translation.discard({again.topic_partition})
    world.answer(DOWN)
    assert world.translation.fault is None
    assert not world.translation.busy


def test_records_go_on_as_there_is_room(world: World, orders: AssignedPartition) -> None:
    """Records that waited do not overfill the next stage. The number of waiting records is bounded."""
    assert world.translation.room == MOST_BYTES // LARGEST
    world.admit(*(world.record(orders, 7) for _ in range(10)))
    assert world.translation.room == MOST_BYTES // LARGEST - 1
    world.answer(decode)
    assert world.admit(room=0) == []
    assert world.translation.busy
    assert world.admit(world.record(orders, b"{}"), room=4) == [0, 1, 2, 3]
    assert world.admit() == [4, 5, 6, 7, 8, 9, 10]
    assert not world.translation.busy


@given(st.data())
def test_order_is_kept_in_each_partition(data: st.DataObject) -> None:
    """Through answers, failures and lack of room, each record goes on once, in the order of its partition."""
    world = World()
    partitions = [AssignedPartition("orders", number) for number in range(3)]
    seen: dict[AssignedPartition, list[int]] = {each: [] for each in partitions}

    def turn(records: list[Record], room: int) -> None:
        for each in world.translation.admit(records, room):
            world.translation.json_of(each)
            seen[each.partition].append(each.offset)
        world.translation.poll(world.now)

    actions: dict[str, Any] = {"down": DOWN, "known": decode}
    for _ in range(data.draw(st.integers(1, 12))):
        values: st.SearchStrategy[bytes | int] = st.sampled_from([b"{}", 1, 2, 3])
        named = st.tuples(st.sampled_from(partitions), values)
        turn([world.record(*each) for each in data.draw(st.lists(named, max_size=6))], data.draw(st.integers(0, 5)))
        if world.asked and (action := data.draw(st.sampled_from(["down", "known", "later"]))) in actions:
            world.answer(actions[action])
        world.now += data.draw(st.sampled_from([0.0, 0.2, 6.0]))
    while world.asked or world.translation.busy or any(world.resting):
        world.now += 10
        turn([], MANY)
        while world.asked:
            world.answer(decode)
    assert seen == {each: list(range(world.offsets.get(each, -1) + 1)) for each in partitions}
    assert world.memory.held == 0
    assert world.translation.room == MOST_BYTES // LARGEST


def test_requests_run_in_threads() -> None:
    """The result or the error comes back on the loop."""
    posted: deque[Callable[[], None]] = deque()
    answers: list[Answer] = []

    def load(schema: SchemaId) -> Any:
        if schema == 1:
            raise DOWN
        return decode

    ask = in_threads(load, posted.append)
    for schema in (1, 2):
        ask(schema, answers.append)
        while not posted:
            pass
        posted.popleft()()
    assert answers == [DOWN, decode]


def test_remembered_schemas_are_bounded() -> None:
    """The oldest schemas and the oldest refusals leave, counted separately. A refusal is kept for a minute."""
    known = KnownSchemas()
    refusal = Undecodable("bad_schema", "x")
    for number in range(MOST_KEPT + 1):
        known.put(number, decode, 0.0)
        known.put(f"guid {number}", refusal, number / MOST_KEPT)
    assert known.get(0) is known.get("guid 0") is None
    assert known.get(1) is decode
    assert known.get("guid 1") is known.get(f"guid {MOST_KEPT}") is refusal
    known.purge(REFUSED_FOR + 0.5)
    assert known.get(f"guid {MOST_KEPT // 2}") is None
    assert known.get(f"guid {MOST_KEPT // 2 + 1}") is refusal
    known.put("guid 7", decode, 0.0)
    assert known.get("guid 7") is decode
    known.purge(REFUSED_FOR + 1.0)
    assert known.get(f"guid {MOST_KEPT}") is None
    assert known.get(MOST_KEPT) is decode
