"""Events wait in order for their subscriptions, and leave without the deliveries that are already stored."""

from collections.abc import Callable
from itertools import count
from math import inf

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from consumer.events.event import Event, RecordId
from consumer.matching.catalog import GAP, Catalog, Key, Matches
from consumer.matching.inbox import INBOX_BYTES, MOST_EVENTS, Inbox
from consumer.subscriptions.endpoint import Endpoint

URL = "https://example.com/hook"
HERE, THERE = ("t", 0), ("t", 1)


class Lookups:
    """A catalog whose look-ups are answered when the test says so. Each type but `nobody` has two subscriptions."""

    def __init__(self, ttl: float = 1.0) -> None:
        self.now = 0.0
        self.asked: list[tuple[tuple[Key, ...], Callable[[Matches | Exception], None]]] = []
        self.catalog = Catalog(lambda keys, done: self.asked.append((keys, done)), ttl, lambda: self.now)
        self.inbox = Inbox(self.catalog, lambda place, offset: self.wanted.append((place, offset)))
        self.settled: list[int] = []
        self.wanted: list[tuple[tuple[str, int], int]] = []

    def put(self, offset: int, event_type: str = "a", place: tuple[str, int] = HERE, body: bytes = b"{}") -> None:
        """Put an event that arrives now."""
        record = RecordId(*place, offset, 5000 + offset)
        event = Event(record, event_type, f"msg_{offset}", body, "application/json", None, None)
        self.inbox.put(event, event.size, self.settled.append, self.now)

    def answer(self) -> None:
        """Answer the oldest look-up."""
        keys, done = self.asked.pop(0)
        both = Endpoint(1, URL, (b"k",)), Endpoint(2, URL, (b"k",))
        done({key: () if key[0] == "nobody" else both for key in keys})

    def know(self) -> None:
        """Look up the type `a`."""
        self.catalog.want([("a", None)])
        self.answer()

    def out(self) -> list[tuple[int, list[int]]]:
        """All events that may go now, with their subscriptions."""
        return [
            (event.record.offset, [endpoint.subscription_id for endpoint in endpoints])
            for event, _, endpoints, *_ in iter(self.inbox.next, None)
        ]


def test_an_unknown_type_is_requested_and_waited_for() -> None:
    """Later events wait too, since order holds within a partition. An expired type is requested again."""
    desk = Lookups()
    desk.inbox.stored(HERE, set())
    desk.put(0, "a")
    desk.put(1, "b")
    assert desk.out() == []
    assert [keys for keys, _ in desk.asked] == [(("a", None),)]
    desk.now = 2 * GAP
    desk.answer()
    assert desk.out() == [(0, [1, 2])]
    assert [keys for keys, _ in desk.asked] == [(("b", None),)]
    desk.answer()
    assert desk.out() == [(1, [1, 2])]
    desk.now = 1.5
    desk.put(2, "a")
    assert desk.out() == []
    assert [keys for keys, _ in desk.asked] == [(("a", None),)]


def test_an_event_of_a_partition_that_is_not_loaded_is_an_error() -> None:
    """Sent without knowledge of the stored deliveries, it might be sent twice or out of order."""
    desk = Lookups()
    with pytest.raises(KeyError):
        desk.put(0)
    desk.inbox.stored(HERE, set())
    desk.inbox.discard({HERE})
    with pytest.raises(KeyError):
        desk.put(0)
    assert desk.inbox.room == MOST_EVENTS


def test_a_stored_delivery_is_left_out_of_exactly_its_record() -> None:
    """Offset, timestamp and subscription must all be equal, since a recreated topic starts its offsets again."""
    desk = Lookups()
    desk.inbox.stored(HERE, {(0, 5000, 1), (1, 4999, 1), (2, 5002, 1), (2, 5002, 2), (3, 5003, 9)})
    desk.inbox.stored(THERE, set())
    for offset in range(4):
        desk.put(offset)
    desk.put(0, place=THERE)
    desk.know()
    assert desk.out() == [(0, [2]), (1, [1, 2]), (2, []), (3, [1, 2]), (0, [1, 2])]


def test_stored_deliveries_at_higher_offsets_are_requested_when_an_event_needs_them() -> None:
    """Once for each part. Until the answer, that partition's events stand aside and those of others go."""
    desk = Lookups()
    desk.inbox.stored(THERE, set())
    desk.inbox.stored(HERE, {(1, 5001, 1)}, 2)
    for offset in (0, 1, 4, 9):
        desk.put(offset)
    desk.put(7, place=THERE)
    assert (desk.wanted, desk.inbox.stands_aside(HERE)) == ([(HERE, 4)], True)
    desk.know()
    assert desk.out() == [(0, [1, 2]), (1, [2]), (7, [1, 2])]
    assert (desk.out(), bool(desk.inbox), desk.inbox.first_offset(HERE)) == ([], True, 4)
    desk.inbox.stored(HERE, {(4, 5004, 2)}, 5)
    assert desk.out() == [(4, [1])]
    assert desk.wanted == [(HERE, 4), (HERE, 9)]
    desk.inbox.stored(HERE, {(9, 5009, 1)})
    assert (desk.out(), desk.inbox.stands_aside(HERE)) == ([(9, [2])], False)
    desk.put(10)
    assert (desk.out(), len(desk.wanted), bool(desk.inbox)) == ([(10, [1, 2])], 2, False)


def test_stored_deliveries_of_waiting_events_are_kept() -> None:
    """Also when a further part is loaded before they go: otherwise they would be sent again."""
    desk = Lookups()
    desk.inbox.stored(HERE, {(0, 5000, 1), (1, 5001, 1)}, 2)
    for offset in (0, 1, 2):
        desk.put(offset)
    desk.inbox.stored(HERE, {(2, 5002, 2)})
    desk.know()
    assert desk.out() == [(0, [2]), (1, [2]), (2, [1])]


def test_stored_deliveries_are_forgotten_once_passed() -> None:
    """Later events are not compared with them. With ten thousand subscriptions each comparison would take 1.5 ms."""
    desk = Lookups()
    desk.inbox.stored(HERE, {(1, 5001, 1), (2, 5002, 2)}, 9)
    desk.know()
    for offset in range(5):
        desk.put(offset)
    found = list(iter(desk.inbox.next, None))
    assert [len(endpoints) for _, _, endpoints, *_ in found] == [2, 1, 1, 2, 2]
    assert [stored for *_, stored in found] == [False, True, True, False, False]
    assert found[3][2] is found[4][2]
    assert desk.inbox._stored[HERE].keys == set()
    desk.put(9)
    assert (desk.out(), desk.wanted) == ([], [(HERE, 9)])
    desk.inbox.stored(HERE, {(9, 5009, 1)})
    assert desk.out() == [(9, [2])]


def test_room_is_bounded_in_events_and_in_bytes() -> None:
    """When events are taken out, there is room again."""
    desk = Lookups()
    desk.inbox.stored(HERE, set())
    assert desk.inbox.room == MOST_EVENTS
    for offset in range(MOST_EVENTS):
        desk.put(offset)
    assert desk.inbox.room == 0
    desk.know()
    desk.inbox.next()
    assert desk.inbox.room == 1
    assert len(desk.out()) == MOST_EVENTS - 1
    body = bytes(INBOX_BYTES // 4)
    for offset in range(4):
        assert desk.inbox.room == MOST_EVENTS - offset
        desk.put(offset, body=body)
    assert desk.inbox.room == 0
    desk.inbox.next()
    assert desk.inbox.room == MOST_EVENTS - 3


PLACES = st.sampled_from([HERE, THERE])


class InboxMachine(RuleBasedStateMachine):
    """Random arrivals, look-ups, assignments and losses, compared with a plain list of the events not discarded."""

    def __init__(self) -> None:
        super().__init__()
        self.desk = Lookups()
        self.waiting: list[tuple[int, tuple[str, int], str]] = []
        self.known: dict[tuple[str, int], float] = {}  # up to this offset the stored deliveries are known
        self.offsets = count()

    @rule(place=PLACES, event_type=st.sampled_from(["a", "b", "nobody"]), ahead=st.none() | st.integers(0, 4))
    def put(self, place: tuple[str, int], event_type: str, ahead: int | None) -> None:
        offset = next(self.offsets)
        if place not in self.known:
            self.load(place, offset, ahead)
        self.desk.put(offset, event_type, place)
        self.waiting.append((offset, place, event_type))

    @precondition(lambda self: self.desk.wanted)
    @rule(ahead=st.none() | st.integers(1, 4))
    def load_more(self, ahead: int | None) -> None:
        place, offset = self.desk.wanted.pop(0)
        assert self.known[place] <= offset
        assert offset == min(
            number for number, where, _ in self.waiting if where == place and number >= self.known[place]
        )
        self.load(place, offset, ahead)

    def load(self, place: tuple[str, int], offset: int, ahead: int | None) -> None:
        self.known[place] = inf if ahead is None else offset + ahead
        self.desk.inbox.stored(place, set(), None if ahead is None else offset + ahead)

    @rule(place=PLACES)
    def discard(self, place: tuple[str, int]) -> None:
        self.desk.inbox.discard({place})
        self.known.pop(place, None)
        self.desk.wanted = [each for each in self.desk.wanted if each[0] != place]
        self.waiting = [each for each in self.waiting if each[1] != place]

    @precondition(lambda self: self.desk.asked)
    @rule()
    def answer(self) -> None:
        self.desk.answer()

    @rule()
    def wait(self) -> None:
        self.desk.now += 0.6

    @rule()
    def take_out(self) -> None:
        for event, _, endpoints, settle, *_ in iter(self.desk.inbox.next, None):
            record = event.record
            expected = next(each for each in self.waiting if each[1] == record.topic_partition)
            self.waiting.remove(expected)
            assert (record.offset, event.type) == (expected[0], expected[2])
            settle(record.offset)
            assert self.desk.settled[-1] == record.offset
            assert record.offset < self.known[record.topic_partition]
            assert len(endpoints) == (0 if event.type == "nobody" else 2)

    @invariant()
    def counts_are_right(self) -> None:
        assert self.desk.inbox.room == MOST_EVENTS - len(self.waiting)
        aside = {place for _, place, _ in self.waiting if self.desk.inbox.stands_aside(place)}
        assert aside == {place for place, _ in self.desk.wanted}

    def teardown(self) -> None:
        """In the end each event comes out, once and in order."""
        while self.desk.wanted:
            self.load_more(None)
        for _ in range(4):  # there are three types, each requested when its first event is next
            self.take_out()
            if self.desk.asked:
                self.answer()
            self.desk.now += 2 * GAP
        self.take_out()
        assert self.waiting == []


TestInbox = InboxMachine.TestCase
