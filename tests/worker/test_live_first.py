"""Deliveries of the live stream come before those of cursors, and a dead receiver slows nobody who catches up."""

from collections.abc import Callable

import pytest
from sqlalchemy import Engine

from consumer.subscriptions import repository
from tests.simulation.deployment import Deployment, result
from tests.simulation.world import TOPIC

SLOTS = 40
BEHIND = [f"https://behind.example/{number}" for number in range(60)]
LIVE = [f"https://live.example/{number}" for number in range(20)]


@pytest.fixture
def crowded(engine: Engine) -> Callable[[], Deployment]:
    """Sixty subscriptions have resumed over ten events each, and their requests take all slots that they may have."""

    def make() -> Deployment:
        deployment = Deployment(engine, urls=(), max_in_flight=SLOTS)
        world = deployment.world
        for url in (*BEHIND, *LIVE):
            event_type = "b" if url in BEHIND else "a"
            deployment.subscriptions[repository.add(engine, url, event_type, ordering="none")] = url
        for url in BEHIND:
            deployment.pause(url)
        world.start(0, 1)
        world.settle_down()
        for _ in range(10):
            deployment.write(0, "b")
        world.settle_down(40)
        assert world.committed[TOPIC, 0] == (10, "")
        deployment.resume_all()
        world.now += 6.0
        world.settle_down(40)
        assert len(world.transport.open) >= SLOTS - 2
        return deployment

    return make


def opened(deployment: Deployment, turns: int = 6) -> list[str]:
    """The URLs of the requests that begin in so many turns."""
    begun = len(deployment.world.sent)
    deployment.world.settle_down(turns)
    return [url for _, url in deployment.world.sent[begun:]]


def test_live_deliveries_get_the_slots_first(crowded: Callable[[], Deployment]) -> None:
    """A few start though no request of a cursor has ended, and the others as soon as one has, but for few."""
    deployment = crowded()
    deployment.write(1, "a")
    sent = opened(deployment)
    assert sent
    assert set(sent) < set(LIVE)
    for _ in range(len(LIVE)):
        deployment.world.transport.answer(0, result("taken"))
        sent += opened(deployment, 2)
    assert set(LIVE) <= set(sent)
    assert len(set(sent) - set(LIVE)) <= 3


def test_cursors_leave_memory_to_the_live_stream(
    crowded: Callable[[], Deployment], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A burst of live events is queued, and not stored, while those that catch up have queued all that they may."""
    monkeypatch.setattr("consumer.delivery.lanes.ALL_DELIVERIES", 240)
    deployment = crowded()
    for _ in range(5):
        deployment.write(1, "a")
    opened(deployment)
    assert deployment.rows() == {}
