"""Which keys have rows: what is known of it in the process, against what the database has."""

from collections import Counter, deque
from collections.abc import Callable
from math import inf

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from consumer.delivery.order import StoredPairs, pair_of
from consumer.endpoint import Endpoint
from consumer.ledger.rows import Pair
from tests.delivery.store_kit import URL, make_event

PLACE = ("t", 0)
PAIRS = st.sampled_from([Pair(1, *PLACE, key) for key in "abc"])


def test_only_what_asked_for_order_and_has_a_key_goes_in_order() -> None:
    """A null key is none; an empty one is a key like others. Subscriptions, partitions and keys are apart."""
    ordered, plain, other = (Endpoint(number, URL, (b"key",), ordered=number != 2) for number in (1, 2, 3))
    assert pair_of(make_event(key=b"k"), plain) is None
    assert pair_of(make_event(key=None), ordered) is None
    pairs = {
        pair_of(make_event(key=b"k"), ordered),
        pair_of(make_event(key=b"k"), other),
        pair_of(make_event(key=b""), ordered),
        pair_of(make_event(key=b"l"), ordered),
        pair_of(make_event(key=b"k", partition=1), ordered),
        pair_of(make_event(key=b"k", topic="u"), ordered),
    }
    assert None not in pairs
    assert len(pairs) == 6
    assert pair_of(make_event(1, key=b"k"), ordered) in pairs


class StoredPairsMachine(RuleBasedStateMachine):
    """One job at a time on the database thread, its answers in order, some of them still on their way."""

    def __init__(self) -> None:
        super().__init__()
        self.pairs = StoredPairs()
        self.open: Counter[Pair] = Counter()  # rows in the database
        self.ending: Counter[Pair] = Counter()
        self.unwritten: Counter[tuple[Pair, int]] = Counter()  # rows whose writing has not been answered
        self.jobs: deque[Callable[[], Callable[[], None]]] = deque()
        self.answers: deque[Callable[[], None]] = deque()
        self.life = 0  # of the assignment
        self.loaded = False
        self.load(most=9)

    @rule(pair=PAIRS, waits=st.booleans(), offset=st.integers(0, 5))
    def write(self, pair: Pair, offset: int, *, waits: bool) -> None:
        """A row, which waits or is given up."""
        life = self.life
        self.pairs.began(pair, offset)
        self.unwritten[pair, offset] += 1

        def answer() -> None:
            if life == self.life:
                self.unwritten[pair, offset] -= 1
                (self.pairs.written if waits else self.pairs.given_up)(pair, offset)

        def job() -> Callable[[], None]:
            if life == self.life:  # else it was forgotten
                self.open[pair] += waits
            return answer

        self.jobs.append(job)

    @rule(pair=PAIRS)
    def end(self, pair: Pair) -> None:
        """A stored row is done with."""
        if self.open[pair] <= self.ending[pair]:
            return
        self.ending[pair] += 1

        def job() -> Callable[[], None]:
            self.open[pair] -= 1
            self.ending[pair] -= 1
            cleared = [] if self.open[pair] else [pair]
            return lambda: self.pairs.cleared(cleared)

        self.jobs.append(job)

    @rule(most=st.integers(0, 3))
    def load(self, most: int) -> None:
        life = self.life

        def job() -> Callable[[], None]:
            found = {pair for pair, rows in self.open.items() if rows}

            def answer() -> None:
                self.pairs.loaded(PLACE, found if len(found) <= most else None)
                self.loaded = self.loaded or life == self.life

            return answer

        self.jobs.append(job)

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
        """What was not written is forgotten; what the database has is asked for anew."""
        self.pairs.leave([PLACE])
        self.life += 1
        self.unwritten.clear()
        self.loaded = False
        self.load(most=9)

    @invariant()
    def it_is_never_too_little(self) -> None:
        for pair in (Pair(1, *PLACE, key) for key in "abc"):
            unwritten = [offset for (whose, offset), rows in self.unwritten.items() if whose == pair and rows]
            assert self.pairs.first_writing(pair) == min(unwritten, default=inf)
            if self.loaded and (self.open[pair] or unwritten):
                assert pair in self.pairs

    def teardown(self) -> None:
        """When all is answered it is no more than there is, unless that was too much to know."""
        while self.jobs:
            self.work()
        while self.answers:
            self.answer()
        self.it_is_never_too_little()
        if not self.pairs.unknown:
            assert [pair for pair in self.open if pair in self.pairs] == [
                pair for pair, rows in self.open.items() if rows
            ]
        self.load(most=9)
        self.work()
        self.answer()
        assert not self.pairs.unknown
        self.pairs.leave([PLACE])
        assert not any(pair in self.pairs for pair in self.open)


TestStoredPairs = StoredPairsMachine.TestCase
