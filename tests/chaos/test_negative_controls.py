"""The checks of the chaos suite can fail: each kind of broken worker turns the book red, by the rule that it breaks."""

import sys
from collections.abc import Callable

import pytest

from tests.chaos import altered_worker as broken
from tests.chaos.book import Rule
from tests.chaos.conftest import NewWorld
from tests.chaos.world import Shape, World
from tests.end_to_end.service_rig import eventually

pytestmark = pytest.mark.kafka

ENOUGH = 300  # requests, before the worker is told to hand over
FOUND_WITHIN = 20.0  # seconds

Change = Callable[[], None]
Hurt = Callable[[Change], World]


@pytest.fixture
def hurt(new_world: NewWorld, kafka_bootstrap: str) -> Hurt:
    """Begins a world of one worker that is broken in the way named."""

    def begin(change: Change) -> World:
        program = (sys.executable, "-m", broken.__name__, change.__name__)
        shape = Shape(seed=1, workers=1, per_second=120.0, program=program, without_progress=3.0)
        world = new_world(shape, kafka_bootstrap, None)
        world.begin()
        return world

    return begin


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (broken.commits_too_early, Rule.EARLY),
        (broken.settles_another_offset, Rule.EARLY),
        (broken.uses_an_id_again, Rule.ONE_ID),
        (broken.moves_an_offset_back, Rule.BACKWARDS),
        (broken.forgets_attempts, Rule.ATTEMPTS),
        (broken.ignores_order, Rule.ORDER),
        (broken.stops_after_a_while, Rule.STUCK),
    ],
    ids=lambda each: getattr(each, "__name__", None) or each.name.lower(),
)
def test_a_broken_worker_is_found(change: Change, rule: Rule, hurt: Hurt) -> None:
    """The rule that it breaks is named while it runs."""
    world = hurt(change)
    if rule is Rule.ORDER and not any(each.ordered for each in world.book.subscriptions):
        pytest.skip("no subscription is ordered here yet")
    eventually(lambda: world.book.broken[rule], FOUND_WITHIN)
    world.abandon()


def test_a_lost_event_is_found(hurt: Hurt) -> None:
    """Deliveries that are said to be stored, and are not: seen when their offset passes, and again at the end."""
    world = hurt(broken.drops_a_parked_insert)
    eventually(lambda: world.book.broken[Rule.EARLY], FOUND_WITHIN)
    world.end(within=3.0)
    assert world.book.broken[Rule.LOST]


def test_a_duplicate_of_a_graceful_stop_is_found(hurt: Hurt) -> None:
    """A worker that leaves without committing makes the next one repeat what it did last."""
    world = hurt(broken.commits_nothing_when_it_leaves)
    eventually(lambda: len(world.deployment.receiver.requests) > ENOUGH, FOUND_WITHIN)
    world.start()
    world.leave(world.workers[0])
    eventually(lambda: world.book.broken[Rule.DUPLICATE], FOUND_WITHIN)
    world.abandon()


@pytest.mark.chaos
def test_too_many_duplicates_of_a_kill_are_found(hurt: Hurt) -> None:
    """A worker that commits every ten seconds only makes the next one repeat more than one interval."""
    world = hurt(broken.commits_rarely)
    eventually(lambda: len(world.deployment.receiver.requests) > 3 * ENOUGH, FOUND_WITHIN)
    world.kill(world.workers[0])
    world.start()
    eventually(lambda: world.book.broken[Rule.DUPLICATE], FOUND_WITHIN)
    world.abandon()
