"""What a worker knows of its rows: which ordering keys have some, compared with the database."""

import itertools
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from math import inf

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from consumer.delivery.known_rows import RowsReading, StoredKeys, ordering_key_of
from consumer.events.event import TopicPartition
from consumer.ledger.rows import OrderingKey
from consumer.subscriptions.endpoint import Endpoint
from tests.ledger.rows_kit import URL, make_event

PLACES = [("t", 0), ("t", 1)]
ALL = [OrderingKey(subscription, *place, key) for subscription in (1, 2) for place in PLACES for key in "abc"]
PAIRS = st.sampled_from(ALL)


def test_only_ordered_subscriptions_and_records_with_a_key_are_ordered() -> None:
    """A null key is no key; an empty one is. Subscriptions, partitions and keys are independent."""
    ordered, plain, other = (Endpoint(number, URL, (b"key",), ordered=number != 2) for number in (1, 2, 3))
    assert ordering_key_of(make_event(key=b"k"), plain) is None
    assert ordering_key_of(make_event(key=None), ordered) is None
    ordering_keys = {
        ordering_key_of(make_event(key=b"k"), ordered),
        ordering_key_of(make_event(key=b"k"), other),
        ordering_key_of(make_event(key=b""), ordered),
        ordering_key_of(make_event(key=b"l"), ordered),
        ordering_key_of(make_event(key=b"k", partition=1), ordered),
        ordering_key_of(make_event(key=b"k", topic="u"), ordered),
    }
    assert None not in ordering_keys
    assert len(ordering_keys) == 6
    assert ordering_key_of(make_event(1, key=b"k"), ordered) in ordering_keys


def test_one_subscription_with_many_stored_keys_displaces_no_other() -> None:
    """Its keys in a partition are no longer tracked beyond the bound, and are tracked again once they are few."""
    ordering_keys = StoredKeys(most=100)
    healthy = [OrderingKey(2, "t", number, "k") for number in (0, 1)]
    for ordering_key in healthy:
        ordering_keys.seen(ordering_key)
    for number in range(1000):
        ordering_keys.seen(OrderingKey(1, "t", number % 2, str(number)))
        assert kept(ordering_keys) <= 100
    assert all(OrderingKey(1, "t", number % 2, "any") in ordering_keys for number in range(2))
    assert [OrderingKey(2, "t", number, key) in ordering_keys for number in (0, 1) for key in ("k", "l")] == [
        True,
        False,
    ] * 2
    assert ordering_keys.unknown == {("t", 0): 50, ("t", 1): 50}
    for number in (0, 1):
        ordering_keys.loaded(("t", number), [healthy[number], OrderingKey(1, "t", number, "left")], RowsReading())
    assert [OrderingKey(1, "t", 0, key) in ordering_keys for key in ("left", "any")] == [True, False]
    assert (ordering_keys.unknown, kept(ordering_keys)) == ({}, 4)


def test_very_many_subscriptions_take_no_room() -> None:
    """Where even one key for each is too many, all keys of their partition count as stored."""
    ordering_keys = StoredKeys(most=100)
    for number, key in itertools.product(range(1000), "ab"):
        ordering_keys.seen(OrderingKey(number, "t", 0, key))
        assert sum(len(known or ()) for known in ordering_keys._known.values()) <= 100
    assert all(OrderingKey(number, "t", 0, "c") in ordering_keys for number in (0, 999))


def test_keys_that_come_and_go_take_no_room() -> None:
    """A key is forgotten with its last row, a subscription with its last key, and a partition with all of its keys."""
    ordering_keys = StoredKeys(most=10)
    for number in range(100):
        ordering_key = OrderingKey(number, "t", 0, str(number))
        ordering_keys.seen(ordering_key)
        assert ordering_key in ordering_keys
        ordering_keys.cleared([ordering_key])
        ordering_keys.seen(ordering_key._replace(partition=1))
        ordering_keys.leave([("t", 1)])
    assert (ordering_keys.unknown, ordering_keys._known) == ({}, {("t", 0): {}})


def test_a_row_that_a_reading_may_have_missed_is_known() -> None:
    """It was written since the reading began, or is being written. A later reading has it."""
    ordering_keys, ordering_key = StoredKeys(), OrderingKey(1, "t", 0, "k")
    before = ordering_keys.begin_reading()
    ordering_keys.began(ordering_key, 7)
    ordering_keys.written(ordering_key, 7, is_open=True)
    after = ordering_keys.begin_reading()
    assert [ordering_keys.first_unseen(ordering_key, each) for each in (before, after)] == [7, inf]
    ordering_keys.began(ordering_key, 5)
    assert [ordering_keys.first_unseen(ordering_key, each) for each in (before, after)] == [5, 5]
    ordering_keys.end_reading(before)
    ordering_keys.written(ordering_key, 5, is_open=False)
    assert ordering_keys.first_unseen(ordering_key, after) == inf, "a delivery that was given up holds up no other"


def kept(ordering_keys: StoredKeys) -> int:
    """The number of known keys."""
    return sum(len(keys or ()) for each in ordering_keys._known.values() for keys in (each or {}).values())


class StoredPairsMachine(RuleBasedStateMachine):
    """One write and one read at a time, each on its database thread. Answers arrive in order, some of them later."""

    def __init__(self) -> None:
        super().__init__()
        self.ordering_keys = StoredKeys()
        self.open: Counter[OrderingKey] = Counter()  # rows in the database
        self.ending: Counter[OrderingKey] = Counter()
        self.unwritten: Counter[tuple[OrderingKey, int]] = Counter()  # rows whose write has not been answered
        self.jobs: deque[Callable[[], Callable[[], None]]] = deque()
        self.answers: deque[Callable[[], None]] = deque()
        self.loads: deque[Callable[[], Callable[[], None]]] = deque()
        self.begun: Callable[[], Callable[[], None]] | None = None  # the load that is under way, before its snapshot
        self.found: Callable[[], None] | None = None  # its answer
        self.life = 0  # number of the assignment
        self.loaded: set[TopicPartition] = set()
        self.load(most=99)

    @initialize(most=st.integers(0, 12))
    def bound(self, most: int) -> None:
        self.ordering_keys.most = most

    @rule(ordering_key=PAIRS, waits=st.booleans(), offset=st.integers(0, 5))
    def write(self, ordering_key: OrderingKey, offset: int, *, waits: bool) -> None:
        """A row that waits or is given up."""
        life = self.life
        self.ordering_keys.began(ordering_key, offset)
        self.unwritten[ordering_key, offset] += 1

        def answer() -> None:
            if life == self.life:
                self.unwritten[ordering_key, offset] -= 1
                self.ordering_keys.written(ordering_key, offset, is_open=waits)

        def job() -> Callable[[], None]:
            if life == self.life:  # else the assignment was forgotten
                self.open[ordering_key] += waits
            return answer

        self.jobs.append(job)

    @rule(ordering_key=PAIRS)
    def end(self, ordering_key: OrderingKey) -> None:
        """A stored row ends."""
        if self.open[ordering_key] <= self.ending[ordering_key]:
            return
        self.ending[ordering_key] += 1

        def job() -> Callable[[], None]:
            self.open[ordering_key] -= 1
            self.ending[ordering_key] -= 1
            cleared = [] if self.open[ordering_key] else [ordering_key]
            return lambda: self.ordering_keys.cleared(cleared)

        self.jobs.append(job)

    @rule(most=st.integers(0, 3))
    def load(self, most: int) -> None:
        """Load both partitions, one after the other."""
        for place in PLACES:
            self.loads.append(partial(self.look, place, most, self.life))

    def look(self, place: TopicPartition, most: int, life: int) -> Callable[[], None]:
        found = {ordering_key for ordering_key, rows in self.open.items() if rows and ordering_key[1:3] == place}

        def answer() -> None:
            if life == self.life:
                self.ordering_keys.loaded(place, found if len(found) <= most else None, self.reading)
                self.loaded.add(place)
            self.ordering_keys.end_reading(self.reading)

        return answer

    @precondition(lambda self: self.loads and self.begun is None and self.found is None)
    @rule()
    def begin_load(self) -> None:
        self.begun = self.loads.popleft()
        self.reading = self.ordering_keys.begin_reading()

    @precondition(lambda self: self.begun is not None)
    @rule()
    def read(self) -> None:
        assert self.begun is not None
        self.found, self.begun = self.begun(), None

    @precondition(lambda self: self.found is not None)
    @rule()
    def answer_load(self) -> None:
        assert self.found is not None
        answer, self.found = self.found, None
        answer()

    @precondition(lambda self: self.jobs)
    @rule()
    def work(self) -> None:
        self.answers.append(self.jobs.popleft()())

    @precondition(lambda self: self.answers)
    @rule()
    def answer(self) -> None:
        self.answers.popleft()()

    @rule()
    def leave_and_come_back(self) -> None:
        """Unwritten rows are forgotten, and the database is read anew."""
        self.ordering_keys.leave(PLACES)
        self.life += 1
        self.unwritten.clear()
        self.loaded.clear()
        self.loads.clear()
        self.load(most=99)

    @invariant()
    def it_is_never_too_little(self) -> None:
        for ordering_key in ALL:
            unwritten = [offset for (whose, offset), rows in self.unwritten.items() if whose == ordering_key and rows]
            assert self.ordering_keys.first_unseen(ordering_key, RowsReading()) == min(unwritten, default=inf)
            if ordering_key[1:3] in self.loaded and (self.open[ordering_key] or unwritten):
                assert ordering_key in self.ordering_keys

    @invariant()
    def it_is_never_more_than_the_bound(self) -> None:
        assert self.ordering_keys._count == kept(self.ordering_keys) <= self.ordering_keys.most

    def teardown(self) -> None:
        """After a load without writes meanwhile, the known keys equal those in the database."""
        while self.jobs:
            self.work()
        while self.answers:
            self.answer()
        self.finish_loads()
        self.it_is_never_too_little()
        self.ordering_keys.most = 99
        self.load(most=99)
        self.finish_loads()
        assert not self.ordering_keys.unknown
        assert [ordering_key for ordering_key in ALL if ordering_key in self.ordering_keys] == [
            ordering_key for ordering_key in ALL if self.open[ordering_key]
        ]
        self.ordering_keys.leave(PLACES)
        assert not any(ordering_key in self.ordering_keys for ordering_key in self.open)

    def finish_loads(self) -> None:
        while self.begun or self.found or self.loads:
            if self.found:
                self.answer_load()
            elif self.begun:
                self.read()
            else:
                self.begin_load()


TestStoredPairs = StoredPairsMachine.TestCase
