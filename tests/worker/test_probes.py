"""Probes of subscriptions that failures have paused: one event an hour, until one succeeds."""

import pytest
from sqlalchemy import Engine

from tests.ledger.rows_kit import query
from tests.simulation.deployment import SCHEDULE, URLS, Deployment

(URL,) = URLS["b"]
HOUR = 3600.0


def rows(deployment: Deployment) -> list[tuple[str, int]]:
    """The status and attempts of each stored delivery."""
    return [(row.status, row.attempt) for row in deployment.rows().values()]


def passes(deployment: Deployment, seconds: float) -> None:
    """Time passes, and the worker does what is due. Only then anything is sent."""
    assert not deployment.world.transport.open
    deployment.world.now += seconds
    deployment.world.settle_down(80)


def paused(deployment: Deployment) -> bool:
    """Whether the subscription is paused."""
    ((at,),) = query(deployment.engine, "SELECT paused_at FROM webhook_subscriptions WHERE url = :url", url=URL)
    return at is not None


def all_is_taken(deployment: Deployment) -> None:
    """The receiver takes all events, each once, and they are all that it is owed."""
    while deployment.world.transport.open:
        deployment.answer("taken", turns=40)
    owed = [sent for record in deployment.records for sent in deployment.deliveries_of(*record)]
    assert sorted(deployment.world.taken) == sorted(owed)
    assert set(rows(deployment)) <= {("delivered", 1), ("delivered", 2), ("delivered", 3), ("delivered", 4)}


def test_a_stored_delivery_is_the_probe(deployment: Deployment) -> None:
    """It is held before and after a failed probe, which is an attempt of it. A success brings all the others."""
    deployment.write(0, "b")
    deployment.write(0, "b")
    deployment.world.settle_down()
    deployment.answer("fails", "fails", "fails", "fails", turns=20)
    assert rows(deployment) == [("parked", 2)] * 2
    deployment.pause(URL, by_failure=True)
    for _ in range(3):
        deployment.write(0, "b")
    passes(deployment, 61.0)
    assert rows(deployment) == [("held", 2)] * 2
    passes(deployment, HOUR)
    assert len(deployment.world.transport.open) == 1
    deployment.answer("fails", turns=60)
    assert rows(deployment) == [("held", 3), ("held", 2)]
    passes(deployment, HOUR / 2)
    passes(deployment, HOUR / 2)
    assert len(deployment.world.transport.open) == 1
    assert paused(deployment)
    deployment.answer("taken", turns=80)
    assert not paused(deployment)
    all_is_taken(deployment)
    assert [told.type for told in deployment.world.announced] == ["subscription.resumed"]


def test_a_probe_gives_nothing_up(deployment: Deployment) -> None:
    """However many fail, the delivery is still owed: its schedule ends while the receiver is not paused."""
    deployment.write(0, "b")
    deployment.world.settle_down()
    deployment.answer("fails", "fails", turns=20)
    deployment.pause(URL, by_failure=True)
    passes(deployment, 61.0)
    for _ in range(len(SCHEDULE) + 2):
        passes(deployment, HOUR)
        deployment.answer("fails", turns=60)
    assert [status for status, _ in rows(deployment)] == ["held"]


def test_the_first_event_in_the_log_is_the_probe_if_no_row_is_left(deployment: Deployment) -> None:
    """A failed one is stored, is held, and is the next probe."""
    deployment.pause(URL, by_failure=True)
    for _ in range(4):
        deployment.write(0, "b")
    passes(deployment, 5.0)
    assert rows(deployment) == []
    passes(deployment, HOUR)
    assert len(deployment.world.transport.open) == 1
    deployment.answer("fails", turns=60)
    passes(deployment, 61.0)
    assert rows(deployment) == [("held", 1)]
    passes(deployment, HOUR)
    assert len(deployment.world.transport.open) == 1
    deployment.answer("taken", turns=80)
    assert not paused(deployment)
    all_is_taken(deployment)


def test_an_event_that_comes_late_is_the_probe(deployment: Deployment) -> None:
    """While nothing waits for the subscription, no probe is used up."""
    deployment.pause(URL, by_failure=True)
    passes(deployment, 2 * HOUR)
    deployment.write(1, "b")
    passes(deployment, 1.0)
    passes(deployment, 61.0)
    all_is_taken(deployment)
    assert not paused(deployment)


def test_a_look_that_failed_is_repeated_soon(deployment: Deployment) -> None:
    """The worker is ready again when the database is, not a minute later."""
    deployment.write(0, "b")
    deployment.world.settle_down()
    deployment.answer("fails", "fails", turns=20)
    deployment.pause(URL, by_failure=True)
    passes(deployment, 61.0)
    deployment.database_fails("no deliveries")
    passes(deployment, HOUR)
    assert deployment.world.worker.reasons()
    deployment.database_fails(None)
    passes(deployment, 6.0)
    assert deployment.world.worker.reasons() == []


@pytest.mark.parametrize("by_failure", [True, False])
def test_not_every_pause_is_probed(engine: Engine, by_failure: bool) -> None:  # noqa: FBT001 (a parameter of the test)
    """A person has paused it, or WEBHOOK_RESUME_PROBE is 0."""
    deployment = Deployment(engine, resume_probe=0.0 if by_failure else HOUR)
    deployment.world.start(0, 1)
    deployment.pause(URL, by_failure=by_failure)
    deployment.write(0, "b")
    for _ in range(3):
        passes(deployment, HOUR)
    passes(deployment, HOUR)
    assert paused(deployment)
