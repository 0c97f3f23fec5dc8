"""The checks of the chaos suite can fail: each kind of broken worker violates its rule in the book.

A correct worker, in the same place and at the same time, leaves the book without violations.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from math import inf

import pytest
from sqlalchemy import Engine

from consumer.ops.delivery_audit import COUNTS_AFTER
from tests.chaos import altered_worker as broken
from tests.chaos import database_faults
from tests.chaos.altered_worker import Change
from tests.chaos.book import Book, Rule
from tests.chaos.conductor import conduct
from tests.chaos.conftest import making_worlds
from tests.chaos.faults import BOMBS, OPERATORS, PAUSE, REPLAY
from tests.chaos.watch import WITHOUT_PROGRESS
from tests.chaos.world import Shape, World

pytestmark = pytest.mark.timeout(600)

ENOUGH = 300  # requests, before the worker is disturbed
FOUND_WITHIN = 30.0  # seconds
SOON = 10.0  # seconds without progress, if that is the violation: longer than a handover
AT_ONCE = 4  # worlds
WORLDS = 3  # of a change at most: a violation needs luck, and more of it on a busy machine

Found = Mapping[Change, "Future[Book]"]


def _until_enough(world: World, requests: int = ENOUGH) -> None:
    world.wait(lambda: len(world.deployment.receiver.requests) > requests, FOUND_WITHIN)


def _look_on(_world: World) -> None:
    """Only publish events."""


def _hand_over(world: World) -> None:
    """The worker leaves, and another one takes its place."""
    _until_enough(world)
    world.start()
    world.leave(world.workers[0])


def _kill(world: World) -> None:
    """The worker dies, and another one takes its place."""
    _until_enough(world, 3 * ENOUGH)
    world.kill(world.workers[0])
    world.start()


def _refuse_rows(world: World) -> None:
    """The database refuses all rows of one record, and then of others, until the book is broken."""
    conduct(world, [database_faults.ROW_REFUSED] * 8, 1, (0.1, 0.2))


def _write_bombs(world: World) -> None:
    """Write batches that cannot be decompressed."""
    conduct(world, [BOMBS], 1, (0.1, 0.2))


def _pause(world: World) -> None:
    """A subscription is paused and resumed, twice."""
    conduct(world, [PAUSE] * 2, 1, (0.1, 0.2))


def _pause_and_kill(world: World) -> None:
    """Cursors have sent many events, some seconds ago, when the worker dies.

    A cursor that has met the live stream by then repeats nothing.
    """
    _pause(world)
    world.wait(lambda: world.book.by_cursors() > ENOUGH, 3 * FOUND_WITHIN)
    world.wait(lambda: False, 6.0)
    _kill(world)


def _meet(world: World) -> None:
    """The same, and a cursor has met the live stream: a busy machine takes its time."""
    _pause(world)
    world.wait(lambda: any(cursor[3] < inf for cursor in world.book.cursors.values()), 3 * FOUND_WITHIN)


def _replay(world: World) -> None:
    """The past is sent again, some times."""
    _until_enough(world)
    conduct(world, [REPLAY] * 3, 1, (0.1, 0.2))
    world.end(within=10.0)


def _end(world: World) -> None:
    """Stop all workers and finish the book, as soon as a rule was violated."""
    world.wait(lambda: world.book.violations, FOUND_WITHIN)
    world.end(within=1.0)


def _kill_and_end(world: World) -> None:
    """Replace the worker when it has died, and end when all is delivered.

    The audit counts a subscription five seconds after it was made: the worker dies a moment later.
    """
    _until_enough(world)
    world.wait(lambda: False, COUNTS_AFTER + 2)
    _kill(world)
    world.end()


def _give_up(world: World) -> None:
    """Stop as soon as a delivery was given up."""
    world.wait(lambda: world.deployment.rows("exhausted"), FOUND_WITHIN)
    world.end(within=1.0)


def _end_in_order(world: World) -> None:
    """Leave events to cursors, replace the worker, and end when all is delivered."""
    conduct(world, OPERATORS, 1, (0.1, 0.2))
    _hand_over(world)
    _until_enough(world, 5 * ENOUGH)
    world.end()


CONTROLS: dict[Change, tuple[Rule, Callable[[World], None]]] = {  # the longest first
    broken.stops_after_a_while: (Rule.STUCK, _look_on),
    broken.commits_rarely: (Rule.DUPLICATE, _kill),
    broken.forgets_the_end_of_a_cursor: (Rule.EARLY, _meet),
    broken.settles_before_a_cursor_is_stored: (Rule.EARLY, _pause),
    broken.drops_what_a_replay_reads: (Rule.LOST, _replay),
    broken.drops_what_a_cursor_reads: (Rule.EARLY, _pause),
    broken.saves_no_position: (Rule.DUPLICATE, _pause_and_kill),
    broken.ignores_pauses: (Rule.PAUSED, _pause),
    broken.commits_too_early: (Rule.EARLY, _look_on),
    broken.drops_what_is_set_aside: (Rule.EARLY, _refuse_rows),
    broken.drops_what_cannot_be_read: (Rule.EARLY, _write_bombs),
    broken.drops_a_parked_insert: (Rule.LOST, _end),
    broken.settles_before_its_attempt_is_written: (Rule.UNPROVEN, _kill_and_end),
    broken.uses_an_id_again: (Rule.ONE_ID, _look_on),
    broken.moves_an_offset_back: (Rule.BACKWARDS, _look_on),
    broken.forgets_attempts: (Rule.ATTEMPTS, _look_on),
    broken.ignores_order: (Rule.ORDER, _look_on),
    broken.announces_nothing: (Rule.ANNOUNCED, _give_up),
    broken.commits_nothing_when_it_leaves: (Rule.DUPLICATE, _hand_over),
}


@pytest.fixture(scope="module")
def found(
    new_sqlite_engine: Callable[[], Engine], tmp_path_factory: pytest.TempPathFactory, kafka_bootstrap: str
) -> Iterator[Found]:
    """The book of each change. The worlds mostly wait, so several run at once."""
    with (
        making_worlds(new_sqlite_engine, tmp_path_factory.mktemp("broken")) as new_world,
        ThreadPoolExecutor(AT_ONCE) as threads,
    ):

        def judge(change: Change, rule: Rule | None, happens: Callable[[World], None]) -> Book:
            limit = SOON if rule is Rule.STUCK else WITHOUT_PROGRESS
            program = broken.command(change)
            # So few events that a cursor reads faster than they come, on a busy machine too.
            per_second = 30.0 if happens is _meet else 120.0
            audited = happens in {_kill_and_end, _end_in_order}
            shape = Shape(1, "classic", 1, per_second, program, without_progress=limit, audited=audited)
            world = new_world(shape, kafka_bootstrap, None)
            world.begin()
            happens(world)
            if not world.ended_at:
                world.wait(lambda: rule in +world.book.broken, FOUND_WITHIN)
                world.abandon()
            return world.book

        def judge_again(change: Change, rule: Rule, happens: Callable[[World], None]) -> Book:
            for _ in range(WORLDS):
                book = judge(change, rule, happens)
                if rule in +book.broken:
                    break
            return book

        books = {broken.none: threads.submit(judge, broken.none, None, _end_in_order)}
        yield books | {change: threads.submit(judge_again, change, *control) for change, control in CONTROLS.items()}


@pytest.mark.parametrize("change", CONTROLS, ids=lambda each: each.__name__)
def test_a_broken_worker_is_found(change: Change, found: Found) -> None:
    """The book names the rule that it violates."""
    rule, _ = CONTROLS[change]
    book = found[change].result()
    assert rule in +book.broken, book.violations


def test_a_sound_worker_is_not_accused(found: Found) -> None:
    """After a handover and an orderly stop, no rule is violated."""
    book = found[broken.none].result()
    assert not book.violations, book.violations
