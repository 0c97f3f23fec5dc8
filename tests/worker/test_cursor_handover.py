"""Cursors when their partitions come and go: positions are saved, and the next owner goes on from there."""

from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine

from consumer.intake.offsets import encode
from consumer.intake.record import AssignedPartition
from consumer.intake.topics import ClusterView
from consumer.worker.ownership import Ownership
from tests.simulation.deployment import URLS, Deployment, result
from tests.simulation.world import TOPIC

HERE = (TOPIC, 0)
(URL,) = URLS["b"]


@pytest.mark.parametrize("how", ["revoke", "stop"])
def test_positions_are_saved_before_a_partition_leaves(deployment: Deployment, how: str) -> None:
    """What was delivered last is not delivered again by the next owner."""
    world = deployment.world
    deployment.fall_behind(URL, 2)
    world.on_wait = world.run_jobs
    for _ in range(2):
        world.transport.answer(0, result("taken"))
    world.turn()
    assert [each.next for each in deployment.cursors()] == [0]
    if how == "revoke":
        world.source.revoke(0)
    else:
        world.stop()
    assert [(each.next, each.end) for each in deployment.cursors()] == [(2, 2)]
    world.start(0, 1)
    world.settle_down(40)
    assert (world.transport.open, deployment.duplicates()) == ([], [])


@pytest.mark.parametrize("how", ["revoke", "lose"])
def test_nothing_more_is_read_for_a_partition_that_leaves(engine: Engine, how: str) -> None:
    """Requests in flight have their time, if the partition was not lost. The next owner goes on behind these."""
    deployment = Deployment(engine, max_in_flight=2)
    world = deployment.world
    world.start(0, 1)
    deployment.fall_behind(URL, 50)
    begun = len(world.sent)

    def serve() -> None:
        world.run_jobs()
        if how == "revoke" and world.transport.open:
            world.transport.answer(0, result("taken"))

    world.on_wait = serve
    getattr(world.source, how)(0)
    world.settle_down(20)
    assert (len(world.sent), world.transport.open, world.worker.parts.catch_up.busy) == (begun, [], False)
    assert world.worker.parts.backlog.of(HERE) == {}
    (cursor,) = deployment.cursors()
    assert [offset for offset in range(50) if not cursor.owes(offset)] == list(range(len(world.taken)))
    world.on_wait = lambda: None
    world.source.assign([0])
    world.settle_down(40)
    while world.transport.open:
        deployment.answer("taken", turns=1)
        world.settle_down(0 if world.transport.open else 20)
    assert sorted(deployment.offsets[identity][1] for identity, _ in world.taken) == list(range(50))


@pytest.mark.parametrize("how", ["revoke", "stop"])
def test_what_settles_during_a_save_is_saved_before_a_partition_leaves(deployment: Deployment, how: str) -> None:
    """A save is under way when the partition leaves; another one follows, and nothing is delivered again."""
    world = deployment.world
    deployment.fall_behind(URL, 3)
    world.transport.answer(0, result("taken"))
    world.turn()
    world.now += 1.1
    world.turn()
    assert [each.is_saving for each in world.worker.parts.backlog] == [True]
    while world.transport.open:
        world.transport.answer(0, result("taken"))
    world.turn()
    world.on_wait = world.run_jobs
    if how == "revoke":
        world.source.revoke(0)
    else:
        world.stop()
    assert [(each.next, each.end) for each in deployment.cursors()] == [(3, 3)]
    world.on_wait = lambda: None
    world.start(0, 1)
    world.settle_down(40)
    assert (world.transport.open, deployment.duplicates()) == ([], [])


@pytest.mark.parametrize("how", ["revoke", "lose", "stop"])
def test_memory_is_released_when_a_partition_leaves(engine: Engine, how: str) -> None:
    """Events that were read for its cursors are held no more, and what ends later of them releases nothing twice."""
    deployment = Deployment(engine, max_in_flight=2)
    world = deployment.world
    world.start(0, 1)
    deployment.fall_behind(URL, 50)
    memory = world.worker.parts.memory
    assert memory.held > 0
    world.on_wait = world.run_jobs
    if how == "stop":
        world.stop()
    else:
        getattr(world.source, how)(0)
        assert memory.held == 0
        world.settle_down(20)
    assert memory.held == 0


def test_live_events_of_a_loaded_cursor_are_left_to_it(deployment: Deployment) -> None:
    """A new process knows the cursors of a partition before it matches the partition's first record."""
    world = deployment.world
    deployment.pause(URL)
    world.settle_down()
    deployment.write(0, "b")
    world.settle_down()
    world.start(0, 1)
    deployment.resume_all()
    deployment.write(0, "b")
    world.settle_down(3)
    assert [each.next for each in deployment.cursors()] == [0]
    world.settle_down(60)
    while world.transport.open:
        deployment.answer("taken")
    assert [deployment.offsets[identity][1] for identity, _ in world.taken] == [0, 1]


offsets = st.none() | st.integers(0, 30)


@given(waiting=offsets, read=st.lists(st.integers(0, 9), max_size=5), settled=st.integers(11, 15))
def test_the_live_stream_stands_behind_all_that_it_has_given_out(
    waiting: int | None, read: list[int], settled: int
) -> None:
    """Records that were settled before a restart, perhaps as they were covered, are not given out again."""
    partition = AssignedPartition(*HERE)
    ownership = Ownership({HERE: partition}, cast("ClusterView", None), lambda: 0.0)
    assert ownership.live_at(HERE, lambda _: waiting) is None
    partition.start(0, encode(0, [(10, settled)]))
    for offset in sorted(set(read)):
        partition.tracker.track(offset)
    assert ownership.live_at(HERE, lambda _: waiting) is None, "its stored deliveries are not known yet"
    partition.opened = True
    seen = max(read, default=-1) + 1
    assert ownership.live_at(HERE, lambda _: waiting) == max(seen if waiting is None else waiting, settled)
    assert ownership.live_at((TOPIC, 1), lambda _: waiting) is None
    assert ownership.settled_to(HERE) == partition.tracker.low_water_mark
