"""The worker under any order of events, faults and crashes: a committed record is delivered or stored."""

import sqlite3
from collections.abc import Callable, Collection, Sequence
from functools import partial, wraps
from pathlib import Path
from typing import Concatenate, ParamSpec

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
from sqlalchemy import Engine, event
from structlog.testing import capture_logs

from consumer.delivery.known_rows import StoredKeys
from tests.databases import database
from tests.simulation.deployment import (
    ALL_URLS,
    BATCHED,
    BATCHES,
    FAULTS,
    OBSTACLES,
    ORDERED,
    URLS,
    VALUES,
    Deployment,
    result,
)
from tests.simulation.watch import Watch
from tests.simulation.world import THREADS, TOPIC, Crash

MIXED, KEYED_ONLY, BATCHED_ONLY = (*VALUES, "a", "x"), ("x", "x", "x", "y", "keyless"), ("c", "c", "c", "x", "y")
PARTITIONS = 3
NUMBERS = st.integers(0, PARTITIONS - 1)
KINDS = st.lists(st.integers(0, 99), min_size=1, max_size=4)  # each stands for one of a machine's kinds
JOBS = st.lists(st.lists(st.sampled_from(THREADS), max_size=3), min_size=1, max_size=5)  # between two turns
ASKED = st.lists(st.tuples(st.sampled_from(["revoke", "lose", "assign"]), NUMBERS), max_size=2)  # by the group
OUTCOMES = st.sampled_from(["taken"] * 4 + ["fails"] * 3 + ["disputed", "refused", "hopeless", "gone"])
OBSTACLE = st.none() | st.sampled_from(list(OBSTACLES))
STEPS = st.integers(0, 25)  # a round of the worker takes one or two steps, more if it stores or sends
REFUSED_AFTER = 90.0
PROBE = 6.0  # seconds between two probes of a subscription that failures have paused
P = ParamSpec("P")


def mortal(body: Callable[Concatenate["WorkerMachine", P], None]) -> Callable[Concatenate["WorkerMachine", P], None]:
    """A rule in which the process may die. The rest of the rule is skipped, and a new process starts."""

    @wraps(body)
    def rule(machine: "WorkerMachine", /, *values: P.args, **named: P.kwargs) -> None:
        try:
            body(machine, *values, **named)
        except Crash:
            machine.start()

    return rule


class WorkerMachine(RuleBasedStateMachine):
    """Records, answers, rebalances and disabled subscriptions in any order; unless `calm`, faults and crashes, too."""

    def __init__(
        self,
        engine: Engine,
        *,
        calm: bool,
        kinds: Sequence[str],
        filtered: Sequence[str],
        urls: Collection[str] = ALL_URLS,
    ) -> None:
        super().__init__()
        self.calm = calm
        self.kinds = kinds
        self.urls = sorted(urls)
        self.filtered = filtered
        # With few slots and a short cache, deliveries queue and events wait.
        self.deployment = Deployment(
            engine,
            urls,
            filtered,
            max_in_flight=3,
            subscription_cache=0.2,
            refused_after=REFUSED_AFTER,
            backlog_rows=3,
            resume_probe=PROBE,
            partitions=PARTITIONS,
        )
        self.world = self.deployment.world
        self.watch = Watch(self.deployment)

    @initialize()
    def begin(self) -> None:
        self.world.start(*range(PARTITIONS))

    # Records come, receivers answer, time passes.

    @rule(number=NUMBERS, kinds=KINDS)
    def write(self, number: int, kinds: list[int]) -> None:
        for kind in kinds:
            self.deployment.write(number, self.kinds[kind % len(self.kinds)])

    @rule(jobs=JOBS, crossing=st.booleans())
    @mortal
    def turn(self, jobs: list[list[str]], *, crossing: bool) -> None:
        """Run jobs and handle their answers in order. If `crossing`, the first job's answer comes last."""
        for threads in jobs:
            self.world.turn()
            if crossing and threads:
                self.world.run_job_slowly(threads[0], threads[1:])
                continue
            for thread in threads:
                self.world.run_job(thread)
            self.world.now += 0.05

    @rule()
    @mortal
    def all_goes_well(self) -> None:
        self.deployment.mend()
        self.world.settle_down(6)

    @rule(outcomes=st.lists(st.tuples(st.integers(0, 9), OUTCOMES), min_size=1, max_size=4))
    @mortal
    def answer(self, outcomes: list[tuple[int, str]]) -> None:
        if not self.world.transport.open:
            self.world.settle_down(3)
        for number, outcome in outcomes[: len(self.world.transport.open)]:
            self.world.transport.answer(number, result(outcome))

    @rule(number=NUMBERS, kinds=KINDS)
    @mortal
    def fail_until_due(self, number: int, kinds: list[int]) -> None:
        """New records fail twice within a second and are stored. When they are due, they are sent."""
        self.write(number, kinds)
        self.all_goes_well()
        for seconds in (1.0, 31.0):
            for _ in range(len(self.world.transport.open)):
                self.world.transport.answer(0, result("fails"))
            self.world.settle_down(3)
            self.world.now += seconds
            self.world.settle_down(5)

    @rule(seconds=st.sampled_from([0.3, 1.0, 5.0, 31.0, 61.0]))
    def pass_time(self, seconds: float) -> None:
        self.world.now += seconds

    # Delays that lose and repeat nothing.

    @rule(number=st.integers(0, 9))
    def filter_is_over_its_budget(self, number: int) -> None:
        self.deployment.over_its_budget(self.filtered[number % len(self.filtered)])

    @rule(number=NUMBERS, kinds=KINDS, which=st.integers(0, 9))
    @mortal
    def filter_is_asked_later(self, number: int, kinds: list[int], which: int) -> None:
        """New events are stored, and filtered when their subscription is within its budget again."""
        self.all_goes_well()
        self.filter_is_over_its_budget(which)
        self.write(number, kinds)
        self.world.settle_down(6)
        self.world.now += 61.0
        self.world.settle_down(3)

    @rule(silent=st.booleans())
    def coordinator_is_silent(self, *, silent: bool) -> None:
        if silent:
            self.world.silent = True
        else:
            self.world.speak()

    @rule()
    def statistics_are_stale(self) -> None:
        for partition in self.world.source.partitions.values():
            partition.lag = 0

    @rule(
        answers=st.lists(OUTCOMES, max_size=4),
        jobs=st.lists(st.sampled_from(THREADS), max_size=4),
        seconds=st.sampled_from([20.0, 45.0, 90.0]),
        lost=st.sets(NUMBERS),
    )
    @mortal
    def stand_still(self, answers: list[str], jobs: list[str], seconds: float, lost: set[int]) -> None:
        """The process is paused. Receivers and the database have answered, and partitions may have been lost."""
        self.world.turn()
        for outcome in answers[: len(self.world.transport.open)]:
            self.world.transport.answer(0, result(outcome))
        for thread in jobs:
            self.world.run_job(thread)
        self.world.now += seconds
        for number in lost:
            if not self.calm and (TOPIC, number) in self.world.source.partitions:
                self.lost(number)
        self.world.turn()

    # Operators and receivers change subscriptions.

    @rule(number=st.integers(0, 9))
    def disable(self, number: int) -> None:
        self.deployment.disable(self.urls[number % len(self.urls)])

    @rule()
    def enable(self) -> None:
        self.deployment.enable_all()

    @rule(number=st.integers(0, 9), by_failure=st.booleans())
    def pause(self, number: int, *, by_failure: bool = False) -> None:
        self.deployment.pause(self.urls[number % len(self.urls)], by_failure=by_failure)

    @rule()
    def resume(self) -> None:
        self.deployment.resume_all()

    @rule(
        number=NUMBERS,
        kinds=KINDS,
        more=KINDS,
        which=st.integers(0, 9),
        turns=st.integers(0, 12),
        probed=st.lists(OUTCOMES, max_size=3),
    )
    @mortal
    def pause_for_a_while(
        self, number: int, kinds: list[int], more: list[int], which: int, turns: int, *, probed: list[str]
    ) -> None:
        """Events come while a subscription is paused, perhaps by failure and probed, and while it catches up."""
        self.all_goes_well()
        self.pause(which, by_failure=bool(probed))
        self.world.settle_down(5)
        self.write(number, kinds)
        self.world.settle_down(5)
        for outcome in probed:
            self.world.now += PROBE
            self.world.settle_down(8)
            self.answer([(0, outcome)])
        if not probed:
            self.deployment.resume_all()
        self.world.now += 6.0
        self.world.settle_down(turns)
        self.write(number, more)
        self.world.settle_down(3)

    @rule(number=NUMBERS, which=st.integers(0, 9), back=st.integers(1, 8), ordered=st.booleans())
    def replay(self, number: int, which: int, back: int, *, ordered: bool) -> None:
        url = self.urls[which % len(self.urls)]
        self.watch.replayed(self.deployment.replay(number, url, back, ordered=ordered))

    @rule()
    def hold_replays(self) -> None:
        self.deployment.hold_replays()

    @rule()
    def go_on_with_replays(self) -> None:
        self.deployment.go_on_with_replays()

    @rule(number=NUMBERS, kinds=KINDS, more=KINDS, which=st.integers(0, 9), turns=st.integers(0, 12))
    @mortal
    def replay_beside_new_events(self, number: int, kinds: list[int], more: list[int], which: int, turns: int) -> None:
        """A replay of events that were just committed, while others come."""
        self.write(number, kinds)
        self.all_goes_well()
        self.answer([(0, "taken")] * 4)
        self.all_goes_well()
        self.replay(number, which, len(kinds), ordered=bool(turns % 2))
        self.world.now += 6.0
        self.world.settle_down(turns)
        self.write(number, more)
        self.world.settle_down(3)

    @rule(number=NUMBERS, kinds=KINDS, more=KINDS, which=st.none() | st.integers(0, 9), redeliver=st.booleans())
    @mortal
    def disable_for_a_minute(
        self, number: int, kinds: list[int], more: list[int], which: int | None, *, redeliver: bool
    ) -> None:
        """Stored deliveries are held. After the subscription is enabled, new ones come before those are resumed."""
        self.fail_until_due(number, kinds)
        if which is None:
            self.answer([(0, "gone")])
        else:
            self.disable(which)
        self.world.settle_down(3)
        self.world.now += 61.0
        self.world.settle_down(3)
        if redeliver:
            self.redeliver(["exhausted"])
        self.deployment.enable_all()
        self.write(number, more)
        self.world.settle_down(3)

    @precondition(lambda self: self.deployment.is_sound and "exhausted" in self.deployment.statuses())
    @rule(statuses=st.sampled_from([["exhausted"], ["exhausted", "parked", "held"]]))
    def redeliver(self, statuses: list[str]) -> None:
        self.watch.check_rows()
        self.deployment.redeliver(statuses)
        self.watch.redelivered()

    # Partitions come and go.

    @rule(numbers=st.sets(NUMBERS, min_size=1))
    def assign(self, numbers: set[int]) -> None:
        self.world.source.assign(numbers)

    @precondition(lambda self: self.world.source.partitions)
    @rule(data=st.data(), answers=st.lists(OUTCOMES, max_size=6), database=st.booleans())
    @mortal
    def revoke(self, data: st.DataObject, answers: list[str], *, database: bool) -> None:
        _, number = data.draw(st.sampled_from(sorted(self.world.source.partitions)))
        self.meanwhile(answers, database=database)
        self.revoked(number)

    @rule(answers=st.lists(OUTCOMES, max_size=6), database=st.booleans(), asked=ASKED)
    @mortal
    def stop_and_start(self, answers: list[str], asked: list[tuple[str, int]], *, database: bool) -> None:
        self.stop(answers, asked, database=database)

    @precondition(lambda self: not self.calm and self.world.source.partitions)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        _, number = data.draw(st.sampled_from(sorted(self.world.source.partitions)))
        self.lost(number)

    @rule(
        number=NUMBERS,
        kinds=KINDS,
        stored=st.booleans(),
        jobs=JOBS,
        before=st.lists(OUTCOMES, max_size=3),
        database=st.booleans(),
        fault=st.sampled_from([None, *FAULTS]),
        obstacle=OBSTACLE,
        steps=st.none() | STEPS,
        how=st.sampled_from(["stay", "revoke", "lose", "stop"]),
        asked=ASKED,
    )
    @mortal
    def trouble_in_the_middle(
        self,
        number: int,
        kinds: list[int],
        jobs: list[list[str]],
        before: list[str],
        fault: str | None,
        obstacle: str | None,
        steps: int | None,
        how: str,
        asked: list[tuple[str, int]],
        *,
        stored: bool,
        database: bool,
    ) -> None:
        """With deliveries under way, the database fails, a partition leaves, or the process dies."""
        if stored:
            self.fail_until_due(number, kinds)
        else:
            self.all_goes_well()
            self.write(number, kinds)
            self.turn(jobs, crossing=False)
        self.answer([(0, outcome) for outcome in before])
        self.meanwhile([], database=database)
        if not self.calm:
            self.obstruct(obstacle, number, len(kinds) - 1)
            self.deployment.database_fails(fault)
            self.world.dies_after = steps
        if how == "stay":
            self.world.on_wait = lambda: None
        elif how == "stop":
            self.stop([], asked, database=database)
        else:
            (self.revoked if self.calm or how == "revoke" else self.lost)(number)
            self.world.source.assign([number])
        self.world.settle_down(5)

    # Faults.

    @precondition(lambda self: not self.calm)
    @rule(steps=STEPS)
    def die(self, steps: int) -> None:
        self.world.dies_after = steps

    @precondition(lambda self: not self.calm and self.world.late)
    @rule()
    def come_back_from_the_dead(self) -> None:
        """The last process was wrongly taken for dead, and completes a statement."""
        self.world.late.popleft()()
        self.watch.written_late()

    @precondition(lambda self: not self.calm)
    @rule(how=st.none() | st.sampled_from(list(FAULTS)))
    def database_fails(self, how: str | None) -> None:
        self.deployment.database_fails(how)

    @precondition(lambda self: not self.calm)
    @rule(how=OBSTACLE, number=NUMBERS, back=st.integers(-2, 7))
    def obstruct(self, how: str | None, number: int, back: int) -> None:
        """One record's rows are locked or never accepted. They may be stored already or be new."""
        offset = len(self.world.log[TOPIC, number]) - 1 - back
        self.deployment.obstruct(how, f"{{0}}.partition_no = {number} AND {{0}}.record_offset = {offset}")

    @precondition(lambda self: not self.calm)
    @rule(
        number=NUMBERS,
        kinds=KINDS,
        stored=st.booleans(),
        how=st.sampled_from(list(OBSTACLES)),
        back=st.integers(0, 3),
        outcomes=st.lists(OUTCOMES, max_size=6),
        seconds=st.sampled_from([0.0, 3.0, 61.0, REFUSED_AFTER + 1]),
    )
    @mortal
    def obstruct_what_is_to_be_stored(
        self,
        number: int,
        kinds: list[int],
        how: str,
        back: int,
        outcomes: list[str],
        seconds: float,
        *,
        stored: bool,
    ) -> None:
        """The results of one record cannot be written. This ends after unknown time, or at the dead-letter topic."""
        if stored:
            self.fail_until_due(number, kinds)
        else:
            self.all_goes_well()
            self.write(number, kinds)
            self.world.settle_down(3)
        back = min(back, len(kinds) - 1)
        self.obstruct(how, number, back)
        for outcome in (*outcomes, *["hopeless"] * len(self.world.transport.open)):
            if self.world.transport.open:
                self.world.transport.answer(0, result(outcome))
        self.world.settle_down(5)
        self.world.now += seconds
        self.world.settle_down(3)

    @precondition(lambda self: not self.calm)
    @rule(how=OBSTACLE, number=st.integers(0, 9))
    def obstruct_a_subscription(self, how: str | None, number: int) -> None:
        url = self.urls[number % len(self.urls)]
        (subscription,) = (each for each, its in self.deployment.subscriptions.items() if its == url)
        self.deployment.obstruct(how, f"{{0}}.subscription_id = {subscription}")

    @precondition(lambda self: not self.calm)
    @rule(takes_commits=st.booleans())
    def commits_fail(self, *, takes_commits: bool) -> None:
        self.world.takes_commits = takes_commits

    @precondition(lambda self: not self.calm)
    @rule(number=st.integers(1, 3))
    def lose_answers(self, number: int) -> None:
        self.world.database.lost_answers = number

    @rule(door_open=st.booleans())
    def dead_letters_fail(self, *, door_open: bool) -> None:
        self.world.dead_letters.door_open = door_open

    def meanwhile(self, answers: list[str], *, database: bool) -> None:
        """While the worker drains, some receivers answer, and the database works or, unless calm, does not."""

        def go_on() -> None:
            if answers and self.world.transport.open:
                self.world.transport.answer(0, result(answers.pop()))
            if database or self.calm:
                self.world.run_jobs()

        self.world.on_wait = go_on

    def stop(self, answers: list[str], asked: list[tuple[str, int]], *, database: bool) -> None:
        """Stop and start. During the drain the group revokes or assigns partitions."""

        def serve() -> None:
            how, number = asked.pop() if asked else ("", 0)
            if how == "assign":
                self.world.source.assign([number])
            elif how and (TOPIC, number) in self.world.source.partitions:
                (self.revoked if self.calm or how == "revoke" else self.lost)(number)
                self.meanwhile(answers, database=database)

        self.meanwhile(answers, database=database)
        self.world.on_serve = serve
        self.world.stop()
        self.start()

    def start(self) -> None:
        """Start a new process. In a calm run the last one has completed all its writes."""
        if not self.calm:
            self.watch.process_ended()
        self.world.on_wait = self.world.on_serve = lambda: None
        self.world.start(*range(PARTITIONS))

    def revoked(self, number: int) -> None:
        self.world.source.revoke(number)
        self.watch.requests_stay_open(number)
        if not self.calm:
            self.watch.partition_left(number, cut_off=False)
        self.world.on_wait = lambda: None

    def lost(self, number: int) -> None:
        self.watch.partition_left(number, cut_off=True)
        self.world.source.lose(number)
        self.watch.requests_stay_open(number)
        self.world.on_wait = lambda: None

    @invariant()
    def nothing_comes_twice_in_a_calm_run(self) -> None:
        assert not (self.calm and self.watch.twice())

    @invariant()
    def stored_deliveries_are_in_order(self) -> None:
        self.watch.check_rows()

    def teardown(self) -> None:
        """In the end no delivery is lost: each is taken by its receiver, or given up with a row that says so."""
        try:
            if not self.watch.broken:
                self.deployment.finish()
                self.watch.check_the_end()
                self.nothing_comes_twice_in_a_calm_run()
        finally:
            self.deployment.engine.dispose()


MACHINES = {
    "calm": partial(WorkerMachine, calm=True, kinds=MIXED, filtered=(*URLS["b"], ORDERED)),
    "stormy": partial(WorkerMachine, calm=False, kinds=MIXED, filtered=(*URLS["b"], ORDERED)),
    "ordered": partial(WorkerMachine, calm=False, kinds=KEYED_ONLY, filtered=(ORDERED,), urls=(ORDERED,)),
    "batched": partial(WorkerMachine, calm=False, kinds=BATCHED_ONLY, filtered=(BATCHES,), urls=tuple(BATCHED)),
}


@pytest.mark.timeout(400)  # shrinking a failure takes minutes
@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
def test_no_order_of_events_loses_a_delivery(
    new_engine: Callable[[], Engine], monkeypatch: pytest.MonkeyPatch, machine: Callable[[Engine], WorkerMachine]
) -> None:
    """Committed means delivered, stored, dead-lettered or unwanted. In the end all has arrived, once in a calm run.

    An ordered key's events arrive one at a time and in order.
    """
    for module in ("delivery", "lanes"):  # so that fan-outs wait and deliveries are parked
        monkeypatch.setattr(f"consumer.delivery.{module}.LANE_DELIVERIES", 2)
    monkeypatch.setattr("consumer.delivery.breaker.IN_A_ROW", 3)
    monkeypatch.setattr("consumer.worker.reading_pass.LENGTH", 3)
    monkeypatch.setattr("consumer.delivery.parking.STORE_BATCH", 4)  # rows of a record take several transactions
    monkeypatch.setattr("consumer.delivery.parking.StoredKeys", partial(StoredKeys, 2))  # so that keys are untracked

    def make() -> WorkerMachine:
        path = Path(str(new_engine().url.database))
        engine = database(path)  # another one: with each statement checked as Oracle's, it would take half of the time
        event.listen(engine, "connect", _without_waiting_for_the_disk)
        return machine(engine)

    with capture_logs():  # writing the log would take half of the time
        run_state_machine_as_test(
            make,  # type: ignore[arg-type]  # any factory will do, its documentation says
            settings=settings(
                max_examples=30, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
            ),
        )


def _without_waiting_for_the_disk(connection: sqlite3.Connection, _: object) -> None:
    connection.execute("PRAGMA synchronous = OFF").close()  # the process dies here, never the machine
