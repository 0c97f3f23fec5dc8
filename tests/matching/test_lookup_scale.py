"""The cost of look-ups at full load: bounded by the cache, not by the number of events, types or subscriptions."""

from collections.abc import Callable, Iterator
from itertools import cycle
from random import Random

import pytest
from sqlalchemy import Engine, event, insert

from consumer.database.statements import IN_LIST
from consumer.events.event import Event, RecordId
from consumer.matching.catalog import GAP, GATHER, MOST_ASKED, Catalog, Key, Matches, find_endpoints
from consumer.matching.inbox import Inbox
from models import Subscription
from tests.crypto.vaults import in_the_clear
from tests.ledger.rows_kit import plans

HERE = ("t", 0)
TTL = 1.0
TURN = 0.001  # seconds of a turn
A_TURN = 20  # events in a turn: 20,000 a second, more than a worker sends
SLOW = 3  # turns until an answer comes
URL = "https://example.com/hook"


class Flow:
    """Events pass inbox and catalog as in a worker. The statements are real, the clock is simulated."""

    def __init__(self, engine: Engine, types: Iterator[str]) -> None:
        self.now = 100.0
        self.sent: list[str] = []
        self.binds: list[int] = []
        self.given = self.taken = 0
        self.matched: dict[str, int] = {}
        self._engine = engine
        self._types = types
        self._answers: list[tuple[float, Callable[[], None]]] = []
        self._catalog = Catalog(self._ask, TTL, lambda: self.now)
        self._inbox = Inbox(self._catalog, lambda _place, _offset: None)
        self._inbox.stored(HERE, set())
        event.listen(engine, "before_cursor_execute", self._count)

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / TURN)):
            self.now += TURN
            coming = [next(self._types) for _ in range(min(A_TURN, self._inbox.room))]
            self.given += len(coming)
            for event_type in coming:
                record = RecordId(*HERE, 0, 1)
                self._inbox.put(Event(record, event_type, "msg", b"{}", "", None, None), 2, lambda _: None, self.now)
            self._catalog.want({(each, None) for each in coming})
            while (found := self._inbox.next()) is not None:
                event, _, endpoints, *_ = found
                self.taken += 1
                self.matched[event.type] = len(endpoints)
            while self._answers and self._answers[0][0] <= self.now:
                self._answers.pop(0)[1]()
            self._catalog.want(())

    def _ask(self, keys: tuple[Key, ...], done: Callable[[Matches | Exception], None]) -> None:
        answer = find_endpoints(self._engine, keys, (b"k",), in_the_clear)
        self._answers.append((self.now + SLOW * TURN, lambda: done(answer)))

    def _count(self, _: object, __: object, sql: str, parameters: tuple[object, ...], *___: object) -> None:
        if sql.startswith("SELECT"):
            self.sent.append(sql)
            self.binds.append(len(parameters))


@pytest.fixture
def thousands(sqlite_engine: Engine) -> Engine:
    """Types `t0` to `t9999` with two subscriptions each."""
    with sqlite_engine.begin() as connection:
        rows = [{"url": URL, "event_type": f"t{number % 10_000}"} for number in range(20_000)]
        connection.execute(insert(Subscription), rows)
    return sqlite_engine


@pytest.mark.parametrize("kind", ["t", "nobody"])
@pytest.mark.parametrize(
    ("types", "a_second"), [(1, 2 / TTL), (100, 1 / (GATHER * TTL)), (1000, 1 / (GATHER * TTL)), (10_000, 1 / GAP)]
)
def test_statements_are_bounded_by_the_cache(thousands: Engine, types: int, a_second: float, kind: str) -> None:
    """20,000 events a second need no more statements than 20 do. A type without subscriptions is cached, too.

    Per refresh interval: two statements for one type, ten for a thousand. At most fifty a second in any case.
    """
    flow = Flow(thousands, cycle(f"{kind}{number}" for number in range(types)))
    seconds = 2.0
    flow.run(seconds)
    assert len(flow.sent) <= seconds * a_second + 3  # the first ones find an empty cache
    assert flow.matched == {f"{kind}{number}": 2 if kind == "t" else 0 for number in range(types)}


def test_there_are_ten_different_statements(thousands: Engine) -> None:
    """Oracle parses and caches each. None has more than 512 patterns, however many are looked up together."""
    numbers = Random(5)
    flow = Flow(thousands, (f"t{numbers.randrange(10 ** numbers.randrange(5))}" for _ in iter(int, 1)))
    for amount in (0.02, 0.3, 1.0):
        flow.now += 2 * TTL
        flow.run(amount)
    flow._catalog.want((f"another.{number}.of.{number}", None) for number in range(5000))
    flow.run(0.5)
    flow._catalog.want((f"{number}" + ".x" * 150, f"tenant {number}") for number in range(500))
    flow.run(2.0)
    assert len(set(flow.sent)) <= 10
    assert max(flow.binds) == 2 * (2 * IN_LIST + 1)
    assert {sql.count(" IN (") for sql in flow.sent} == {2}


def test_look_ups_use_the_index(thousands: Engine) -> None:
    """Neither the table nor the secrets are scanned, for one type or many. The index covers all three columns."""
    for keys in ([("t1", None)], [(f"t{number}.a.b", f"tenant {number}") for number in range(MOST_ASKED)]):
        plan, *_ = (
            plan
            for sql, plan in plans(thousands, lambda: find_endpoints(thousands, keys, (b"k",), in_the_clear))  # noqa: B023 (called at once)
            if "webhook_subscriptions" in sql
        )
        index = "USING INDEX ix_webhook_subs_match (event_type=? AND tenant=? AND enabled=?)"
        assert f"SEARCH webhook_subscriptions {index}" in plan
        assert "SEARCH webhook_secrets USING INDEX ix_webhook_secrets_sub (subscription_id=?)" in plan
        assert "SCAN webhook" not in plan
