"""What the live stream has left to a cursor comes, whatever is edited and whoever writes late meanwhile."""

from typing import Any

import pytest
from sqlalchemy import Engine, update

from consumer.ledger import marks
from models import Subscription
from tests.simulation.deployment import URLS, Deployment, result
from tests.simulation.world import GROUP, THREADS, TOPIC

HERE = (TOPIC, 0)
(URL,) = URLS["b"]


def taken(deployment: Deployment) -> list[int]:
    """All requests are answered; the offsets that the receiver has got, in order."""
    for _ in range(400):
        deployment.world.settle_down(1)
        while deployment.world.transport.open:
            deployment.world.transport.answer(0, result("taken"))
    return sorted(deployment.offsets[identity][1] for identity, url in deployment.world.taken if url == URL)


@pytest.mark.parametrize("looks", ["at once", "late"])
@pytest.mark.parametrize(
    ("filtered", "edit", "kind"),
    [({URL}, {"event_filter": None}, "b"), ((), {"event_type": "*"}, "nobody")],
    ids=["filter", "type"],
)
def test_an_edit_while_a_cursor_reads_counts_for_events_that_come_later(
    engine: Engine, filtered: set[str], edit: dict[str, Any], kind: str, looks: str
) -> None:
    """The cursor judges an event by a subscription that was looked up after the event was left to it."""
    deployment = Deployment(engine, {URL}, filtered)
    world = deployment.world
    world.start(0)
    deployment.fall_behind(URL, 40)
    with engine.begin() as connection:
        connection.execute(update(Subscription).values(edit))
    world.now += world.delivery.subscription_cache
    for _ in range(4):  # the filter left one of them out
        deployment.write(0, kind)
    for _ in range(40 if looks == "late" else 0):  # the live stream knows the edit, the cursor's look-ups do not end
        world.turn()
        for thread in {*THREADS} - {"taking-up"}:
            while world.run_job(thread):
                continue
        if world.transport.open:
            world.transport.answer(0, result("taken"))
        world.now += 0.1
    assert taken(deployment)[-4:] == [40, 41, 42, 43]
    assert [each.end for each in deployment.cursors()] in ([], [44])


def test_a_crash_repeats_nothing_that_was_delivered_above_an_open_record(engine: Engine) -> None:
    """A cursor that begins at the open record knows what the live stream had settled above it."""
    deployment = Deployment(engine, {URL, *URLS["a"]})
    with engine.begin() as connection:
        connection.execute(update(Subscription).where(Subscription.url == URL).values(event_type="*"))
    world = deployment.world
    world.start(0)
    for kind in ("a", *"b" * 20):
        deployment.write(0, kind)
    world.settle_down()
    for _ in range(3):
        mine = [number for number, each in enumerate(world.transport.open) if each.request.url == URL]
        for number in reversed(mine):
            world.transport.answer(number, result("taken"))
        world.settle_down()
    deployment.pause(URL)
    world.now += 6.0
    world.settle_down()
    deployment.write(0, "b")
    world.settle_down()
    assert [(each.first, each.end) for each in deployment.cursors()] == [(21, None)]
    assert world.committed[HERE][0] == 0, "receivers of another subscription have not answered"
    world.start(0)
    world.settle_down()
    deployment.resume_all()
    world.now += 6.0
    assert set(taken(deployment)) == {*range(22)}
    assert taken(deployment).count(0) == 2
    assert len(taken(deployment)) == 23


@pytest.mark.parametrize("begun", ["before", "after"])
def test_a_frozen_owner_begins_no_cursor_once_another_one_has_the_partition(engine: Engine, begun: str) -> None:
    """Its write comes late, after the new owner has looked for cursors: it would repeat all that came since."""
    deployment = Deployment(engine, {URL})
    world = deployment.world
    world.start(0)
    deployment.pause(URL)
    world.settle_down()
    deployment.write(0, "b")
    while not world.jobs["storing"]:
        world.turn()
        for thread in {*THREADS} - {"storing"}:
            while world.run_job(thread):
                continue
    world.start(0)
    if begun == "before":
        world.late.popleft()()
    deployment.resume_all()
    world.now += 6.0
    assert taken(deployment) == [0]
    for _ in range(20):
        deployment.write(0, "b")
    assert taken(deployment) == [*range(21)]
    while world.late:
        world.late.popleft()()
    world.start(0)
    assert taken(deployment) == [*range(21)]
    assert deployment.owed(HERE, lambda _: True) == {}


def test_an_owner_that_was_told_late_takes_its_partition_again(engine: Engine) -> None:
    """A frozen worker has noted an assignment that is over: the cursors of the present owner wait, and begin."""
    deployment = Deployment(engine, {URL})
    world = deployment.world
    world.start(0)
    world.settle_down()
    marks.own(engine, GROUP, HERE)
    deployment.pause(URL)
    world.settle_down()
    deployment.write(0, "b")
    world.settle_down(5)
    assert deployment.cursors() == []
    assert "another worker has taken over partition 0 of topic t" in str(world.worker.reasons())
    world.settle_down(60)
    assert [(each.first, each.next, each.end) for each in deployment.cursors()] == [(0, 0, None)]
    assert world.committed[HERE] == (1, "")
    assert not world.worker.reasons()


def test_a_record_that_a_cursor_cannot_decode_is_dead_lettered_once(engine: Engine) -> None:
    """Its mapping fitted when the live stream left it: the positions of all its cursors wait for the letter."""
    deployment = Deployment(engine, URLS["a"])
    world = deployment.world
    world.start(0)
    for url in URLS["a"]:
        deployment.pause(url)
    world.settle_down()
    for _ in range(3):
        deployment.write(0, "a")
    world.settle_down()
    world.log[HERE][1] = None, b"no JSON"
    world.dead_letters.door_open = False
    deployment.resume_all()
    world.now += 6.0
    taken(deployment)
    assert [(each.next, each.owes(1), each.owes(2)) for each in deployment.cursors()] == [(1, True, False)] * 2
    world.dead_letters.door_open = True
    taken(deployment)
    assert world.buried == {(HERE, 1)}
    assert world.metrics.events["dead_lettered"] == 1
    assert {deployment.offsets[identity][1] for identity, _ in world.taken} == {0, 2}
    assert [(each.next, each.end) for each in deployment.cursors()] in ([], [(3, 3)] * 2)
