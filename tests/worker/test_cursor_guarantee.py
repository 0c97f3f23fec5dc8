"""What the live stream has left to a cursor comes, whatever is edited and whoever writes late meanwhile."""

from typing import Any

import pytest
from sqlalchemy import Engine, update

from models import Subscription
from tests.simulation.deployment import URLS, Deployment, result
from tests.simulation.world import THREADS, TOPIC

HERE = (TOPIC, 0)
(URL,) = URLS["b"]


def behind(deployment: Deployment, events: int) -> None:
    """The subscription is paused while these events come, and resumes. Its first events are being sent."""
    deployment.pause(URL)
    deployment.world.settle_down()
    for _ in range(events):
        deployment.write(0, "b")
    deployment.world.settle_down()
    assert [(each.first, each.next, each.end) for each in deployment.cursors()] == [(0, 0, None)]
    deployment.resume_all()
    deployment.world.now += 6.0
    for _ in range(20):
        if not deployment.world.transport.open:
            deployment.world.settle_down(1)
    assert deployment.world.transport.open


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
    behind(deployment, 40)
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
