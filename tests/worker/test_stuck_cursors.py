"""Cursors whose writes the database refuses alone, or whose log has changed: they stop nobody else."""

import pytest
from sqlalchemy import Engine, text

from consumer.ledger import cursors
from consumer.ledger.cursors import NewCursor
from consumer.subscriptions import repository
from models import CursorReason
from tests.simulation.deployment import URLS, Deployment, result
from tests.simulation.world import BORN, GROUP, TOPIC, WRITING

(URL,) = URLS["b"]


def refuse(engine: Engine, subscription: int, *writes: str) -> None:
    """The database refuses this subscription's cursors."""
    with engine.begin() as connection:
        for write in writes:
            connection.execute(
                text(
                    f"CREATE TRIGGER no_{write} BEFORE {write} ON webhook_cursors"
                    f" WHEN NEW.subscription_id = {subscription} BEGIN SELECT RAISE(ABORT, 'refused'); END"
                )
            )


@pytest.mark.parametrize("writes", [("INSERT",), ("UPDATE",)])
def test_a_cursor_whose_writes_are_refused_does_not_stop_intake(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, writes: tuple[str, ...]
) -> None:
    """Its subscription's events are stored, beyond a bound, and those of others are sent. Each is sent once."""
    monkeypatch.setattr("consumer.delivery.parking.BACKLOG", 60)
    deployment = Deployment(engine, backlog_rows=20)
    (subscription,) = (number for number, url in deployment.subscriptions.items() if url == URL)
    world = deployment.world
    world.start(0, 1)
    deployment.pause(URL)
    world.settle_down(20)
    if "UPDATE" in writes:  # the cursor exists, and a new assignment has to confirm it
        deployment.write(0, "b")
        world.settle_down(20)
        world.start(0, 1)
        world.settle_down(20)
    refuse(engine, subscription, *writes)
    for _ in range(100):
        deployment.write(0, "b")
        world.settle_down(2)
    deployment.write(1, "a")
    world.settle_down(40)
    assert sorted(url for _, url in world.sent) == sorted(URLS["a"])
    with engine.begin() as connection:
        for write in writes:
            connection.execute(text(f"DROP TRIGGER no_{write}"))
    world.now += 61.0
    deployment.finish()
    assert len(world.taken) == len(set(world.taken)) == len(deployment.records) + 1
    assert world.committed[TOPIC, 0][0] == len(world.log[TOPIC, 0])


def test_an_event_that_was_judged_before_a_subscription_began_is_the_cursors(engine: Engine) -> None:
    """It sat in the inbox, for longer than look-ups are cached, while the cursor from the past read all before it."""
    deployment = Deployment(engine)
    world = deployment.world
    world.start(0, 1)
    world.settle_down()
    deployment.write(0, "a")
    world.settle_down(4)
    deployment.write(0, "b")  # its subscriptions are not known, and the database does not say
    deployment.write(0, "a")
    world.turn()
    new = repository.add(engine, "https://new.example/", "a", ordering="none")
    start = NewCursor((TOPIC, 0, new), 0, CursorReason.START)
    cursors.begin(engine, GROUP, [start], BORN + world.now)
    world.worker.parts.catch_up.looks.look_at([start.due_key])
    for _ in range(60):
        world.turn()
        for thread in (*WRITING, "taking-up"):
            while world.run_job(thread):
                continue
        while world.transport.open:
            world.transport.answer(0, result("taken"))
        world.now += 0.1
    assert [url for _, url in world.taken].count("https://new.example/") == 1
    for _ in range(60):
        world.settle_down(1)
        while world.transport.open:
            world.transport.answer(0, result("taken"))
    assert [url for _, url in world.taken].count("https://new.example/") == 2
