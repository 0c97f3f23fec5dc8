"""Events wait in order until their subscriptions are known, and go without those deliveries that are stored."""

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
    """A catalog whose look-ups are answered when the test says so. Two subscriptions for each type but `nobody`."""

    def __init__(self, ttl: float = 1.0) -> None:
        self.now = 0.0
        self.asked: list[tuple[tuple[Key, ...], Callable[[Matches | Exception], None]]] = []
        self.catalog = Catalog(lambda keys, done: self.asked.append((keys, done)), ttl, lambda: self.now)
        self.inbox = Inbox(self.catalog, lambda place, offset: self.wanted.append((place, offset)))
        self.settled: list[int] = []
        self.wanted: list[tuple[tuple[str, int], int]] = []

    def put(self, offset: int, event_type: str = "a", place: tuple[str, int] = HERE, body: bytes = b"{}") -> None:
        """An event that arrives now."""
        record = RecordId(*place, offset, 5000 + offset)
        event = Event(record, event_type, f"msg_{offset}", body, "application/json", None, None)
        self.inbox.put(event, self.settled.append, self.now)

    def answer(self) -> None:
        """The oldest look-up comes back."""
        keys, done = self.asked.pop(0)
        both = Endpoint(1, URL, (b"k",)), Endpoint(2, URL, (b"k",))
        done({key: () if key[0] == "nobody" else both for key in keys})

    def out(self) -> list[tuple[int, list[int]]]:
        """All events that may go now, with their subscriptions."""
        return [
            (matched.event.record.offset, [endpoint.subscription_id for endpoint in matched.endpoints])
            for matched in iter(self.inbox.next, None)
        ]


def test_events_come_out_as_they_came() -> None:
    """In one order over all partitions and types, each with whom it goes to; nobody is an answer too."""
    desk = Lookups()
    desk.inbox.stored(HERE, set())
    desk.inbox.stored(THERE, set())
    for offset, event_type in enumerate(["a", "nobody", "b", "a"]):
        desk.put(offset, event_type, (HERE, THERE)[offset % 2])
    desk.catalog.want([("a", None), ("nobody", None), ("b", None)])
    assert desk.out() == []
    assert bool(desk.inbox)
    desk.answer()
    assert desk.out() == [(0, [1, 2]), (1, []), (2, [1, 2]), (3, [1, 2])]
    assert not desk.inbox


def test_an_event_carries_what_settles_it() -> None:
    """The function that came with it, for its own partition's tracker."""
    desk = Lookups()
    desk.inbox.stored(HERE, set())
    desk.put(7)
    desk.inbox.next()
    desk.answer()
    matched = desk.inbox.next()
    assert matched is not None
    matched.settle(7)
    assert desk.settled == [7]


def test_a_type_that_is_not_known_is_asked_for_and_waited_for() -> None:
    """Also those behind it wait: order holds within a partition. What is known too long is asked for again."""
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


def test_an_answer_counts_for_events_that_came_before_it() -> None:
    """However long the look-up takes, and without a cache: no event is looked up for twice."""
    desk = Lookups(ttl=0)
    desk.inbox.stored(HERE, set())
    desk.put(0)
    assert desk.out() == []
    desk.now = 60.0
    desk.answer()
    assert desk.out() == [(0, [1, 2])]
    assert desk.asked == []


def test_no_event_is_taken_of_a_partition_that_is_not_loaded() -> None:
    """None should come: sent without a look at what is stored, it might be sent twice, and before its turn."""
    desk = Lookups()
    with pytest.raises(KeyError):
        desk.put(0)
    desk.inbox.stored(HERE, set())
    desk.inbox.discard({HERE})
    with pytest.raises(KeyError):
        desk.put(0)
    assert desk.inbox.room == MOST_EVENTS


def test_what_is_stored_is_left_out_of_exactly_its_record() -> None:
    """Offset, timestamp and subscription must all agree: a topic made anew starts its offsets again."""
    desk = Lookups()
    desk.inbox.stored(HERE, {(0, 5000, 1), (1, 4999, 1), (2, 5002, 1), (2, 5002, 2), (3, 5003, 9)})
    desk.inbox.stored(THERE, set())
    for offset in range(4):
        desk.put(offset)
    desk.put(0, place=THERE)
    desk.catalog.want([("a", None)])
    desk.answer()
    assert desk.out() == [(0, [2]), (1, [1, 2]), (2, []), (3, [1, 2]), (0, [1, 2])]


def test_what_is_stored_further_up_is_asked_for_when_an_event_comes_to_it() -> None:
    """Once for each part. Until it is known, that partition's events stand aside, and those of others go."""
    desk = Lookups()
    desk.inbox.stored(THERE, set())
    desk.inbox.stored(HERE, {(1, 5001, 1)}, 2)
    for offset in (0, 1, 4, 9):
        desk.put(offset)
    desk.put(7, place=THERE)
    assert (desk.wanted, desk.inbox.stands_aside(HERE)) == ([(HERE, 4)], True)
    desk.catalog.want([("a", None)])
    desk.answer()
    assert desk.out() == [(0, [1, 2]), (1, [2]), (7, [1, 2])]
    assert (desk.out(), bool(desk.inbox), desk.inbox.first_offset(HERE)) == ([], True, 4)
    desk.inbox.stored(HERE, {(4, 5004, 2)}, 5)
    assert desk.out() == [(4, [1])]
    assert desk.wanted == [(HERE, 4), (HERE, 9)]
    desk.inbox.stored(HERE, {(9, 5009, 1)})
    assert (desk.out(), desk.inbox.stands_aside(HERE)) == ([(9, [2])], False)
    desk.put(10)
    assert (desk.out(), len(desk.wanted), bool(desk.inbox)) == ([(10, [1, 2])], 2, False)


def test_what_is_stored_of_events_that_wait_is_kept() -> None:
    """Also when more is known before they go out: they would be sent again."""
    desk = Lookups()
    desk.inbox.stored(HERE, {(0, 5000, 1), (1, 5001, 1)}, 2)
    for offset in (0, 1, 2):
        desk.put(offset)
    desk.inbox.stored(HERE, {(2, 5002, 2)})
    desk.catalog.want([("a", None)])
    desk.answer()
    assert desk.out() == [(0, [2]), (1, [2]), (2, [1])]


def test_events_that_stand_aside_leave_with_their_partition() -> None:
    """And take up room until then."""
    desk = Lookups()
    desk.inbox.stored(HERE, set(), 2)
    desk.inbox.stored(THERE, set())
    desk.put(2)
    desk.put(3)
    desk.put(0, place=THERE)
    assert desk.inbox.room == MOST_EVENTS - 3
    desk.inbox.discard({HERE})
    assert (desk.inbox.room, desk.inbox.first_offset(HERE), desk.inbox.stands_aside(HERE)) == (
        MOST_EVENTS - 1,
        None,
        False,
    )


def test_what_is_stored_is_forgotten_once_it_is_passed() -> None:
    """An event above it is not compared with it, nor kept for it: ten thousand subscriptions are 1.5 ms each time."""
    desk = Lookups()
    desk.inbox.stored(HERE, {(1, 5001, 1), (2, 5002, 2)})
    desk.catalog.want([("a", None)])
    desk.answer()
    for offset in range(5):
        desk.put(offset)
    found = list(iter(desk.inbox.next, None))
    assert [len(matched.endpoints) for matched in found] == [2, 1, 1, 2, 2]
    assert [matched.stored for matched in found] == [False, True, True, False, False]
    assert found[3].endpoints is found[4].endpoints
    assert desk.inbox._stored[HERE].keys == set()
    desk.inbox.stored(HERE, {(9, 5009, 1)})
    desk.put(9)
    assert desk.out() == [(9, [2])]


def test_room_is_bounded_in_events_and_in_bytes() -> None:
    """Taken out, there is room again."""
    desk = Lookups()
    desk.inbox.stored(HERE, set())
    assert desk.inbox.room == MOST_EVENTS
    for offset in range(MOST_EVENTS):
        desk.put(offset)
    assert desk.inbox.room == 0
    desk.catalog.want([("a", None)])
    desk.answer()
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


def test_a_partition_that_leaves_takes_its_events_with_it() -> None:
    """Its next owner reads them again; others stay in order; assigned again, it has to be loaded again."""
    desk = Lookups()
    desk.inbox.stored(HERE, {(9, 9, 9)})
    desk.inbox.stored(THERE, set())
    for offset in range(4):
        desk.put(offset, place=(HERE, THERE)[offset % 2], body=bytes(INBOX_BYTES // 3))
    assert desk.inbox.room == 0
    desk.inbox.discard({HERE})
    assert desk.inbox.room == MOST_EVENTS - 2
    desk.catalog.want([("a", None)])
    desk.answer()
    assert desk.out() == [(1, [1, 2]), (3, [1, 2])]
    desk.inbox.stored(HERE, set())
    desk.put(0)
    assert desk.out() == [(0, [1, 2])]


PLACES = st.sampled_from([HERE, THERE])


class InboxMachine(RuleBasedStateMachine):
    """Random arrivals, look-ups, assignments and losses against a plain list of what was put in and not discarded."""

    def __init__(self) -> None:
        super().__init__()
        self.desk = Lookups()
        self.waiting: list[tuple[int, tuple[str, int], str]] = []
        self.known: dict[tuple[str, int], float] = {}  # to which offset it is known what is stored
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
        for matched in iter(self.desk.inbox.next, None):
            record = matched.event.record
            expected = next(each for each in self.waiting if each[1] == record.topic_partition)
            self.waiting.remove(expected)
            assert (record.offset, matched.event.type) == (expected[0], expected[2])
            assert record.offset < self.known[record.topic_partition]
            assert len(matched.endpoints) == (0 if matched.event.type == "nobody" else 2)

    @invariant()
    def counts_are_right(self) -> None:
        assert self.desk.inbox.room == MOST_EVENTS - len(self.waiting)
        aside = {place for _, place, _ in self.waiting if self.desk.inbox.stands_aside(place)}
        assert aside == {place for place, _ in self.desk.wanted}

    def teardown(self) -> None:
        """In the end each event comes out, once and in order."""
        while self.desk.wanted:
            self.load_more(None)
        for _ in range(4):  # three types, each asked for when its first event is next
            self.take_out()
            if self.desk.asked:
                self.answer()
            self.desk.now += 2 * GAP
        self.take_out()
        assert self.waiting == []


TestInbox = InboxMachine.TestCase
