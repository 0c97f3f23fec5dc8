"""One action on many subscriptions."""

import re
from itertools import count

import pytest
from sqlalchemy import Engine, update
from structlog.testing import capture_logs

from consumer.crypto.vault import Vault
from consumer.ledger import outbox, store
from consumer.ops.bulk import Action, Outcome, act_on_all
from consumer.ops.changes import Changes, Deployment
from consumer.subscriptions import repository
from consumer.subscriptions.subscribed import Mode
from models import Subscription
from tests.ledger.rows_kit import make_event, parked

GROUP = "webhooks"


@pytest.fixture
def changes(engine: Engine) -> Changes:
    """What acme's Anna may change: the subscriptions 1 to 3, of which 2 is owed a delivery; 4 is another tenant's."""
    for tenant in ("acme", "acme", "acme", "other"):
        repository.add(engine, "https://example.com/hooks", "a", tenant=tenant)
    store.park(engine, GROUP, [parked(make_event(1), 2)], 1.0)
    return Changes(Deployment(engine, GROUP, Vault()), "anna", "acme")


@pytest.mark.parametrize(
    ("actions", "states", "told"),
    [
        (["disable"], ["disabled"], ["disabled"]),
        (["disable", "enable"], ["enabled"], ["disabled", "enabled"]),
        (["pause", "enable"], ["paused"], ["paused"]),
        (["pause", "resume", "resume"], ["enabled"], ["paused", "resumed"]),
        (["remove"], [], ["removed"]),
    ],
)
def test_an_action_does_what_its_command_does(
    changes: Changes, actions: list[Action], states: list[Mode], told: list[str]
) -> None:
    """Each subscription is changed once, and each change writes its event with the actor."""
    for action in actions:
        found = list(act_on_all(changes, action, [3, 1, 3], "why"))
    assert found == [Outcome(3, "done"), Outcome(1, "done")]
    assert [each.mode for each in repository.walk(changes.deployment.engine) if each.id in {1, 3}] == states * 2
    events = [event for _, event, _ in outbox.pending(changes.deployment.engine, GROUP, 99)]
    assert [event.type for event in events] == [f"subscription.{each}" for each in told for _ in range(2)]
    assert {event.data["actor"] for event in events} == {"anna"}


def test_one_that_fails_stops_no_other(changes: Changes) -> None:
    """It says why: it is owed a delivery, is another tenant's, is not there, or the database refuses its change."""
    engine = changes.deployment.engine
    with engine.begin() as connection:
        refusal = "WHEN OLD.id = 1 BEGIN SELECT RAISE(ABORT, 'no'); END"
        connection.exec_driver_sql(f"CREATE TRIGGER t BEFORE DELETE ON webhook_subscriptions {refusal}")
    with capture_logs() as logs:
        found = {each.subscription_id: each for each in act_on_all(changes, "remove", [1, 2, 3, 4, 5])}
    results = {number: each.result for number, each in found.items()}
    assert results == {1: "failed", 2: "refused", 3: "done", 4: "not_found", 5: "not_found"}
    assert found[4]._replace(subscription_id=5) == found[5]
    assert "deliveries are stored for it" in str(found[2].why)
    assert [entry["subscription_id"] for entry in logs] == [1]
    assert [each.id for each in repository.walk(engine)] == [1, 2, 4]
    assert list(act_on_all(changes, "exhaust", [2])) == [Outcome(2, "done")]


def test_a_pause_with_a_reason_of_its_own_stays(changes: Changes) -> None:
    """A later pause of many and its end leave it; what failures have paused, or nobody gave a reason for, goes on."""
    engine = changes.deployment.engine
    repository.pause(engine, 1, "moves")
    repository.pause(engine, 2, "each attempt failed")
    with engine.begin() as connection:
        connection.execute(update(Subscription).where(Subscription.id == 2).values(probed_at=Subscription.paused_at))
    paused, *others = act_on_all(changes, "pause", [1, 3], "incident")
    assert (paused.result, others) == ("refused", [Outcome(3, "done")])
    assert re.fullmatch("subscription 1 was paused since .*: moves already; nothing is changed", str(paused.why))
    for reason in (None, "other"):
        assert [each.result for each in act_on_all(changes, "resume", [1, 3], reason)] == ["refused"] * 2
    assert [each.result for each in act_on_all(changes, "resume", [1, 2, 3], "incident")] == ["refused", "done", "done"]
    assert changes.deployment.subscription(1).paused_reason == "moves"
    assert list(act_on_all(changes, "resume", [1], "moves")) == [Outcome(1, "done")]


def test_slow_changes_do_not_hold_the_request(changes: Changes) -> None:
    """After 20 s no further one is begun, and the answer says so."""
    ticks = count(step=7)
    found = list(act_on_all(changes, "pause", [1, 2, 3], monotonic=lambda: float(next(ticks))))
    assert [each.result for each in found] == ["done", "done", "failed"]
    assert changes.deployment.subscription(3).mode == "enabled"
