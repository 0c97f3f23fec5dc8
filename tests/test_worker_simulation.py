"""The worker under every order of events: an offset is committed only when all of its record is delivered or stored."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from requests import Response
from sqlalchemy import Engine, text
from structlog.testing import capture_logs

from consumer.errors import EgressRefused
from consumer.intake.decode import decode
from consumer.intake.offsets import OffsetTracker
from consumer.intake.offsets import decode as settled_above
from consumer.intake.record import Partition, Record
from consumer.matching import subscriptions
from consumer.matching.inbox import MOST_EVENTS
from consumer.worker import PAUSE_AFTER, SLOW_DATABASE
from tests.databases import database
from tests.simulation import BORN, THREADS, TOPIC, Place, Result, World, who

KEYED = b'{"type": "keyed"}'
VALUES = {
    "a": b'{"type": "a"}',
    "b": b'{"type": "b"}',
    "x": KEYED,
    "y": KEYED,
    "keyless": KEYED,
    "nobody": b'{"type": "nobody"}',
    "bad": b"no JSON",
}
KEYS = {"a": b"x", "b": b"x", "x": b"x", "y": b"y"}  # of those subscribed to, "keyed" alone asks for order
ORDERED = "https://two.example/keyed"
URLS = {
    "a": ("https://one.example/", "https://two.example/"),
    "b": ("https://one.example/b",),
    "keyed": ("https://one.example/keyed", ORDERED),
}
ALL_URLS = tuple(url for urls in URLS.values() for url in urls)
NUMBERS = st.integers(0, 1)
MIXED, KEYED_ONLY = (*VALUES, "a", "x"), ("x", "x", "x", "y", "keyless")
KINDS = st.lists(st.integers(0, 99), min_size=1, max_size=6)  # each stands for one of a machine's kinds
OUTCOMES = st.sampled_from(["taken", "taken", "fails", "refused"])
SCHEDULE = (1.0, 30.0, 30.0)
LOST_ATTEMPTS = 2  # the most that one interruption can keep from being counted: those made in memory


def result(outcome: str) -> Result:
    """What a request ends with."""
    if outcome == "refused":
        return EgressRefused("a private address")
    response = Response()
    response.status_code = 200 if outcome == "taken" else 500
    return response


@cache
def webhook_id(place: Place, offset: int, value: bytes) -> str:
    """The id under which receivers see a record."""
    record = Record(Partition(*place, OffsetTracker(None)), offset, int(BORN * 1000) + offset, None, value, None)
    return decode(record).webhook_id


def urls_of(kind: str) -> tuple[str, ...]:
    """Whom a record of this kind goes to."""
    return URLS.get("keyed" if VALUES[kind] == KEYED else kind, ())


class Deployment:
    """A world with subscriptions, and what may be asked of it."""

    def __init__(self, engine: Engine, urls: Collection[str] = ALL_URLS, **delivery: Any) -> None:
        self.engine = engine
        self.urls = urls
        self.subscriptions = {
            subscriptions.add(engine, url, event_type, ordering="key" if url == ORDERED else "none"): url
            for event_type, its in URLS.items()
            for url in its
            if url in urls
        }
        self.world = World(engine, retry_schedule=SCHEDULE, **delivery)
        self.world.on_commit = self.check
        self.world.on_send = self.check_order
        self.interruptions = 0
        self.broken = False  # a rule has been: the worker was stopped where it stood, and tells nothing more
        self.kinds: dict[tuple[Place, int], str] = {}
        self.offsets: dict[str, tuple[Place, int]] = {}  # by webhook id
        self.down = False

    def write(self, number: int, kind: str) -> None:
        """A record of this kind."""
        place = TOPIC, number
        offset = self.world.write(number, VALUES[kind], KEYS.get(kind))
        self.kinds[place, offset] = kind
        if kind != "bad":
            self.offsets[webhook_id(place, offset, VALUES[kind])] = place, offset

    def database_fails(self, *, down: bool) -> None:
        """The ledger's table is away, or back."""
        if down != self.down:
            old, new = ("webhook_deliveries", "away") if down else ("away", "webhook_deliveries")
            with self.engine.begin() as connection:
                connection.execute(text(f"ALTER TABLE {old} RENAME TO {new}"))
        self.down = down

    def rows(self) -> dict[tuple[Place, int], dict[str, str]]:
        """By record: url to status."""
        table = "away" if self.down else "webhook_deliveries"
        found: dict[tuple[Place, int], dict[str, str]] = {}
        with self.engine.connect() as connection:
            statement = f"SELECT partition_no, record_offset, subscription_id, status FROM {table}"  # noqa: S608 (constants)
            for number, offset, subscription, status in connection.exec_driver_sql(statement):
                found.setdefault(((TOPIC, number), offset), {})[self.subscriptions[subscription]] = status
        return found

    def owed(self) -> dict[tuple[Place, int], set[str]]:
        """By record: the urls that have neither taken it nor have it stored; for a bad one, that it is not buried."""
        rows, taken = self.rows(), set(self.world.taken)
        owed = {}
        for (place, offset), kind in self.kinds.items():
            key = place, offset
            if kind == "bad":
                owed[key] = set() if key in self.world.buried else {"burial"}
            else:
                identity = webhook_id(place, offset, VALUES[kind])
                urls = [url for url in urls_of(kind) if url in self.urls and (identity, url) not in taken]
                owed[key] = set(urls) - rows.get(key, {}).keys()
        return owed

    def demand(self, rule: object, otherwise: str) -> None:
        """A rule that must hold."""
        if not rule:
            self.broken = True
            pytest.fail(otherwise)

    def check(self, place: Place, mark: int, metadata: str) -> None:
        """The rule: what a commit calls settled is delivered, stored, buried, or nobody's."""
        above = {offset for start, stop in settled_above(mark, metadata) for offset in range(start, stop)}
        for (where, offset), urls in self.owed().items():
            if where == place and (offset < mark or offset in above):
                self.demand(not urls, f"{place} committed at {mark} {sorted(above)}: {offset} is owed to {urls}")

    def check_rows(self) -> None:
        """The rule of stored order: of a key's open rows the first is not blocked, and no other is parked."""
        table = "away" if self.down else "webhook_deliveries"
        open_rows: dict[tuple[int, str], list[str]] = {}
        with self.engine.connect() as connection:
            statement = (
                f"SELECT partition_no, order_key, status FROM {table} "  # noqa: S608 (constants)
                "WHERE order_key IS NOT NULL AND status IN ('parked', 'blocked', 'held') ORDER BY record_offset"
            )
            for number, key, status in connection.exec_driver_sql(statement):
                open_rows.setdefault((number, key), []).append(status)
        for pair, (first, *others) in open_rows.items():
            self.demand(first != "blocked" and "parked" not in others, f"{pair}: {first}, {others}")

    def check_order(self, identity: str, url: str) -> None:
        """The rule of order: what is sent has no earlier one of its key that is open, or neither taken nor given up.

        And for all: no delivery is attempted more often than the schedule says and interruptions explain.
        """
        attempts = 1 + self.world.sent.count((identity, url))
        most = 1 + len(SCHEDULE) + LOST_ATTEMPTS * self.interruptions
        self.demand(attempts <= most, f"{attempts} attempts, with {self.interruptions} interruptions")
        place, offset = self.offsets[identity]
        kind = self.kinds[place, offset]
        if url != ORDERED or kind not in KEYS:
            return
        requests = [who(transfer.request) for transfer in self.world.transport.open]
        busy = {self.offsets[other] for other, where in requests if where == url}
        rows, taken = self.rows(), set(self.world.taken)
        for number in range(len(self.world.log[place])):
            if self.kinds[place, number] != kind:
                continue
            self.demand((place, number) not in busy, f"{place} {offset} is sent while {number} is open")
            if number < offset:
                state = rows.get((place, number), {}).get(url)
                over = state == "exhausted" or (webhook_id(place, number, VALUES[kind]), url) in taken
                self.demand(over, f"{place} {offset} is sent before {number}, which is {state}")

    def finish(self) -> None:
        """All is well again, and time passes until nothing is left to do."""
        world = self.world
        self.database_fails(down=False)
        world.dead_letters.door_open = True
        world.source.assign([0, 1])
        for _ in range(60 + 2 * len(self.kinds)):  # lanes hold two, and what they do not hold waits to be due
            world.settle_down(4)
            while world.transport.open:
                world.transport.answer(0, result("taken"))
            world.settle_down(4)
            world.now += 15.0
            if self.at_rest():
                return
        pytest.fail(f"not at rest: {world.committed} {self.rows()} {world.worker.reasons()}")

    def at_rest(self) -> bool:
        """All is committed and nothing is parked or under way."""
        ends = {place: len(log) for place, log in self.world.log.items() if log}
        marks = {place: self.world.committed.get(place, (0, ""))[0] for place in ends}
        waiting = any({"parked", "blocked", "held"} & set(urls.values()) for urls in self.rows().values())
        return marks == ends and not waiting and not self.world.transport.open

    def duplicates(self) -> list[tuple[str, str]]:
        """What a receiver has taken more than once."""
        return [each for each, number in Counter(self.world.taken).items() if number > 1]


@pytest.fixture
def deployment(engine: Engine) -> Deployment:
    """Two partitions and three subscriptions, and a worker that owns both partitions."""
    result = Deployment(engine)
    result.world.start(0, 1)
    return result


def test_without_room_partitions_are_paused_and_polled_on(deployment: Deployment) -> None:
    """Full for a second, they are paused, once; with room again they are resumed, and nothing is lost."""
    world = deployment.world
    for _ in range(MOST_EVENTS + 10):
        deployment.write(0, "nobody")
    for _ in range(4):  # no look-up is answered: the inbox fills
        world.turn()
    assert world.worker._inbox.room == 0
    assert world.source.pauses == 0
    world.now += PAUSE_AFTER
    for _ in range(3):
        world.turn()
    assert (world.source.paused, world.source.pauses) == (True, 1)
    world.settle_down()
    assert not world.source.paused
    assert world.committed[TOPIC, 0] == (MOST_EVENTS + 10, "")


def test_a_database_that_does_not_answer_is_told(deployment: Deployment) -> None:
    """A call is given up after half a minute only: /readyz says sooner that events wait, and forgets it after."""
    world = deployment.world
    deployment.write(0, "nobody")
    world.turn()
    world.turn()
    assert world.worker.reasons() == []
    world.now += SLOW_DATABASE
    assert "no answer for 5 s" in world.worker.reasons()[0]
    world.settle_down()
    assert world.worker.reasons() == []


def test_a_record_is_held_until_its_dead_letter_is_acknowledged(deployment: Deployment) -> None:
    """Those behind it are settled above the mark; with the acknowledgement the mark passes all of them."""
    world = deployment.world
    world.dead_letters.door_open = False
    for kind in ("nobody", "bad", "nobody"):
        deployment.write(0, kind)
    world.settle_down()
    mark, metadata = world.committed[TOPIC, 0]
    assert (mark, settled_above(mark, metadata)) == (1, [(2, 3)])
    world.dead_letters.door_open = True
    world.settle_down()
    assert world.committed[TOPIC, 0] == (3, "")


def test_what_was_settled_above_the_mark_is_not_sent_after_a_crash(deployment: Deployment) -> None:
    """The commit's metadata names it; only what was open is sent again."""
    world = deployment.world
    for kind in ("b", "a", "b"):
        deployment.write(0, kind)
    world.settle_down()
    assert len(world.transport.open) == 4
    for _ in range(3):  # the second record's two, and the third's
        world.transport.answer(1, result("taken"))
    world.settle_down()
    assert world.committed[TOPIC, 0][0] == 0
    before = len(world.sent)
    world.start(0, 1)
    world.settle_down()
    assert world.sent[before:] == [world.sent[0]]


def test_a_lost_partition_says_nothing_of_its_new_life(deployment: Deployment) -> None:
    """Answers for deliveries of the earlier assignment settle nothing in the later one."""
    world = deployment.world
    deployment.write(0, "b")
    world.settle_down()
    world.transport.answer(0, result("taken"))
    world.source.lose(0)
    world.source.assign([0])
    world.settle_down()
    assert (TOPIC, 0) not in world.committed
    assert len(world.transport.open) == 1
    world.transport.answer(0, result("taken"))
    world.settle_down()
    assert world.committed[TOPIC, 0] == (1, "")


def test_a_record_that_is_partly_sent_is_stored_with_the_rest_of_it(deployment: Deployment) -> None:
    """One of two has it when the partition leaves: the delivery to the other is stored, and the record committed."""
    world = deployment.world
    deployment.write(0, "a")
    world.settle_down()
    world.transport.answer(0, result("taken"))
    world.transport.answer(0, result("fails"))
    world.turn()
    assert (TOPIC, 0) not in world.committed
    world.on_wait = world.run_jobs
    world.source.revoke(0)
    assert world.committed[TOPIC, 0] == (1, "")
    assert list(deployment.rows().values()) == [{URLS["a"][1]: "parked"}]


def test_a_stored_delivery_is_sent_when_it_is_due_and_by_its_owner(deployment: Deployment) -> None:
    """Not before, once, and not while the partition is another's."""
    world = deployment.world
    deployment.write(0, "b")
    world.settle_down()
    for _ in range(2):
        world.transport.answer(0, result("fails"))
        world.settle_down(20)
    assert [set(urls.values()) for urls in deployment.rows().values()] == [{"parked"}]
    world.source.revoke(0)
    world.now += 60
    world.settle_down()
    assert world.transport.open == []
    world.source.assign([0])
    world.settle_down(40)
    assert len(world.transport.open) == 1
    world.transport.answer(0, result("taken"))
    world.settle_down()
    assert [set(urls.values()) for urls in deployment.rows().values()] == [{"delivered"}]
    assert len(world.sent) == 3


def test_a_row_whose_result_is_not_written_yet_is_not_sent_again(deployment: Deployment) -> None:
    """Its partition leaves and comes back while the database reads and does not write: the attempt made counts."""
    world = deployment.world
    deployment.write(0, "b")
    world.settle_down()
    for _ in range(2):
        world.transport.answer(0, result("fails"))
        world.settle_down(20)
    world.now += 30
    world.settle_down()
    assert len(world.transport.open) == 1
    with deployment.engine.begin() as connection:
        connection.execute(
            text("CREATE TRIGGER full BEFORE UPDATE ON webhook_deliveries BEGIN SELECT RAISE(ABORT, 'full'); END")
        )
    world.on_wait = world.run_jobs
    world.source.revoke(0)
    world.on_wait = lambda: None
    world.source.assign([0])
    world.settle_down()
    assert world.transport.open == []
    with deployment.engine.begin() as connection:
        connection.execute(text("DROP TRIGGER full"))
    for _ in range(5):
        world.now += 10
        world.settle_down()
    assert len(world.transport.open) == 1
    world.transport.answer(0, result("taken"))
    world.settle_down()
    assert [set(urls.values()) for urls in deployment.rows().values()] == [{"delivered"}]
    assert len(world.sent) == 4


def test_an_ordered_row_goes_out_though_kafka_did_not_say_where_its_partition_stands(engine: Engine) -> None:
    """No record comes that would show it: the statistics do, once they say that nothing is left to read."""
    deployment = Deployment(engine, (ORDERED,))
    world = deployment.world
    world.start(0)
    deployment.write(0, "x")
    world.settle_down()
    for _ in range(2):
        world.transport.answer(0, result("fails"))
        world.settle_down(20)
    assert world.committed[TOPIC, 0] == (1, "")
    world.start()
    partition = Partition(TOPIC, 0, OffsetTracker(None))
    world.source.partitions[TOPIC, 0] = partition
    world.source._positions[TOPIC, 0] = 1  # librdkafka knows what the group has committed
    world.source._on_assign([partition])
    world.now += 60
    world.settle_down()
    assert world.transport.open == []
    partition.lag = 0
    world.settle_down()
    assert len(world.transport.open) == 1


class WorkerMachine(RuleBasedStateMachine):
    """Records, answers and rebalances in any order; unless `calm`, crashes, outages and lost partitions too."""

    def __init__(self, engine: Engine, *, calm: bool, kinds: Sequence[str], urls: Collection[str] = ALL_URLS) -> None:
        super().__init__()
        self.calm = calm
        self.kinds = kinds
        # Few slots and a short cache: deliveries queue, events wait.
        self.deployment = Deployment(engine, urls, max_in_flight=3, subscription_cache=0.2)
        self.world = self.deployment.world

    @initialize()
    def begin(self) -> None:
        self.world.start(0, 1)

    @rule(number=NUMBERS, kinds=KINDS)
    def write(self, number: int, kinds: list[int]) -> None:
        for kind in kinds:
            self.deployment.write(number, self.kinds[kind % len(self.kinds)])

    @rule(jobs=st.lists(st.lists(st.sampled_from(THREADS), max_size=3), min_size=1, max_size=5))
    def turn(self, jobs: list[list[str]]) -> None:
        for threads in jobs:
            self.world.turn()
            for thread in threads:
                self.world.run_job(thread)
            self.world.now += 0.05

    @rule()
    def all_goes_well(self) -> None:
        self.world.settle_down(6)

    @precondition(lambda self: self.world.transport.open)
    @rule(outcomes=st.lists(st.tuples(st.integers(0, 9), OUTCOMES), min_size=1, max_size=4))
    def answer(self, outcomes: list[tuple[int, str]]) -> None:
        for number, outcome in outcomes[: len(self.world.transport.open)]:
            self.world.transport.answer(number, result(outcome))

    @rule(
        number=NUMBERS,
        kinds=KINDS,
        lookups=st.booleans(),
        before=st.lists(OUTCOMES, max_size=3),
        how=st.sampled_from(["revoke", "stop", "lose", "crash"]),
    )
    def hand_over_in_the_middle(
        self, number: int, kinds: list[int], before: list[str], how: str, *, lookups: bool
    ) -> None:
        """New records, some of them begun, some of those answered; then they leave, and come back."""
        self.world.source.assign([0, 1])
        self.all_goes_well()
        self.write(number, kinds)
        for _ in range(3):
            self.world.turn()
            if lookups:
                self.world.run_job("lookups")
        self.answer([(0, outcome) for outcome in before])
        self.meanwhile([], database=True)
        if how == "stop":
            self.world.worker._close()
            self.world.start(0, 1)
        elif how == "crash" and not self.calm:
            self.crash_and_start()
        else:
            (self.world.source.revoke if self.calm or how != "lose" else self.world.source.lose)(number)
            self.world.source.assign([number])
        self.world.on_wait = lambda: None

    @rule(seconds=st.sampled_from([0.3, 1.0, 5.0, 31.0, 61.0]))
    def pass_time(self, seconds: float) -> None:
        self.world.now += seconds

    @precondition(lambda self: not self.calm)
    @rule(down=st.booleans())
    def database_fails(self, *, down: bool) -> None:
        self.deployment.database_fails(down=down)

    @precondition(lambda self: not self.calm)
    @rule(number=NUMBERS, kinds=KINDS, outcomes=st.lists(OUTCOMES, min_size=1, max_size=6))
    def database_fails_in_the_middle(self, number: int, kinds: list[int], outcomes: list[str]) -> None:
        """Requests are open when the database goes; some end, and time passes."""
        self.database_fails(down=False)
        self.world.source.assign([number])
        self.write(number, kinds)
        self.all_goes_well()
        self.database_fails(down=True)
        self.answer([(0, outcome) for outcome in outcomes])
        self.all_goes_well()

    @rule(door_open=st.booleans())
    def dead_letters_fail(self, *, door_open: bool) -> None:
        self.world.dead_letters.door_open = door_open

    @rule(numbers=st.sets(NUMBERS, min_size=1))
    def assign(self, numbers: set[int]) -> None:
        self.world.source.assign(numbers)

    @precondition(lambda self: self.world.source.partitions)
    @rule(answers=st.lists(OUTCOMES, max_size=6), database=st.booleans(), data=st.data())
    def revoke(self, answers: list[str], data: st.DataObject, *, database: bool) -> None:
        _, number = data.draw(st.sampled_from(sorted(self.world.source.partitions)))
        self.meanwhile(answers, database=database)
        self.world.source.revoke(number)
        self.world.on_wait = lambda: None

    @precondition(lambda self: self.world.source.partitions and not self.calm)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        _, number = data.draw(st.sampled_from(sorted(self.world.source.partitions)))
        self.deployment.interruptions += 1
        self.world.source.lose(number)

    @rule(answers=st.lists(OUTCOMES, max_size=6), database=st.booleans())
    def stop_and_start(self, answers: list[str], *, database: bool) -> None:
        self.meanwhile(answers, database=database)
        self.world.worker._close()
        self.world.on_wait = lambda: None
        self.world.start(0, 1)

    @precondition(lambda self: not self.calm)
    @rule()
    def crash_and_start(self) -> None:
        self.deployment.interruptions += 1
        self.world.start(0, 1)

    def meanwhile(self, answers: list[str], *, database: bool) -> None:
        """While the worker drains, some receivers answer, and the database works; or, unless calm, it does not."""
        self.deployment.interruptions += not self.calm

        def go_on() -> None:
            if answers and self.world.transport.open:
                self.world.transport.answer(0, result(answers.pop()))
            if database or self.calm:
                self.world.run_jobs()

        self.world.on_wait = go_on

    @invariant()
    def nothing_comes_twice_in_a_calm_run(self) -> None:
        assert not (self.calm and self.deployment.duplicates())

    @invariant()
    def stored_keys_are_in_order(self) -> None:
        self.deployment.check_rows()

    def teardown(self) -> None:
        """In the end nothing is lost: each delivery is taken, or given up with a row that says so."""
        try:
            if self.deployment.broken:
                return
            self.deployment.finish()
            rows = self.deployment.rows()
            assert not any(self.deployment.owed().values())
            assert {status for urls in rows.values() for status in urls.values()} <= {"delivered", "exhausted"}
            self.nothing_comes_twice_in_a_calm_run()
        finally:
            self.deployment.engine.dispose()


MACHINES = {
    "calm": partial(WorkerMachine, calm=True, kinds=MIXED),
    "stormy": partial(WorkerMachine, calm=False, kinds=MIXED),
    "ordered": partial(WorkerMachine, calm=False, kinds=KEYED_ONLY, urls=(ORDERED,)),
}


@pytest.mark.timeout(400)  # a failure takes minutes to shrink
@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
def test_no_order_of_events_loses_a_delivery(
    new_engine: Callable[[], Engine], monkeypatch: pytest.MonkeyPatch, machine: Callable[[Engine], WorkerMachine]
) -> None:
    """Committed means delivered, stored, buried or nobody's; in the end all has arrived, in a calm run once.

    And of a key, where it was asked for, one at a time and in order.
    """
    for module in ("lane", "lanes"):  # fan-outs wait, and are parked
        monkeypatch.setattr(f"consumer.delivery.{module}.LANE_DELIVERIES", 2)
    monkeypatch.setattr("consumer.delivery.breaker.IN_A_ROW", 3)
    monkeypatch.setattr("consumer.delivery.parking.BATCH", 4)  # what belongs together takes several transactions

    def make() -> WorkerMachine:
        path = Path(str(new_engine().url.database))
        return machine(database(path))  # each statement read as Oracle's would take half of the time

    with capture_logs():  # written out, they would take half of the time
        run_state_machine_as_test(
            make,  # type: ignore[arg-type]  # any factory will do, its documentation says
            settings=settings(
                max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
            ),
        )
