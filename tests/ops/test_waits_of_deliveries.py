"""What a stored delivery waits for."""

from functools import partial

import pytest
from sqlalchemy import Engine

from consumer.ledger import admin, ordering, upkeep
from consumer.ops.waiting import Reason, Wait, wait_of
from consumer.subscriptions import repository
from tests.databases import each_new_engine as new_engine  # noqa: F401 (a fixture)
from tests.ledger.rows_kit import make_event, ordered, park, parked, run

NOW, LATER = 1_000.0, 1_300.0


def subscribed(engine: Engine, **options: str) -> int:
    """A subscription."""
    return repository.add(engine, "https://example.com/hooks", "user.created", **options)  # type: ignore[arg-type]


def wait(engine: Engine, offset: int, now: float = NOW) -> Wait | None:
    """What the delivery of the record at this offset waits for."""
    (found,) = admin.of_record(engine, "webhooks", make_event(offset).record, 9)
    return wait_of(found, repository.get(engine, found.subscription_id), now, partial(ordering.ahead, engine))


def test_a_delivery_waits_for_its_schedule_and_then_for_a_worker(engine: Engine) -> None:
    """The time of its next attempt is known, and which one it is."""
    park(engine, parked(make_event(), subscribed(engine), LATER, attempt=2))
    assert wait(engine, 0) == Wait("schedule", "Attempt 3 follows by its retry schedule.", LATER)
    due = wait(engine, 0, LATER)
    assert due is not None
    assert (due.reason, due.until) == ("worker", None)


def test_a_delivery_waits_for_a_receiver_that_fails(engine: Engine) -> None:
    """The database knows since when no attempt has succeeded, as the workers' breakers have told it."""
    subscription = subscribed(engine)
    park(engine, parked(make_event(), subscription, LATER))
    upkeep.failing(engine, subscription, 900.0)
    for now, until in ((NOW, LATER), (LATER, None)):
        found = wait(engine, 0, now)
        assert found is not None
        assert (found.reason, found.until) == ("receiver", until)
        assert "1970-01-01T00:15:00Z" in found.text


def test_a_delivery_waits_for_an_earlier_event_of_its_key(engine: Engine) -> None:
    """That is the first open one of its key, which waits for its own time; other keys and other states do not count."""
    subscription = subscribed(engine, ordering="key")
    park(engine, ordered(0, subscription, next_attempt_at=LATER), ordered(1, subscription, b"another"))
    park(engine, ordered(2, subscription), ordered(3, subscription))
    (first,) = admin.of_record(engine, "webhooks", make_event(0).record, 9)
    for offset in (2, 3):
        found = wait(engine, offset)
        assert found is not None
        assert (found.reason, found.behind) == ("order", first.id)
    others = [wait(engine, offset) for offset in (0, 1)]
    assert [each and (each.reason, each.behind) for each in others] == [("schedule", None), ("worker", None)]
    run(engine, "UPDATE webhook_deliveries SET status = 'exhausted' WHERE record_offset = 0")
    freed = wait(engine, 2)
    assert freed is not None
    assert freed.reason == "worker"


@pytest.mark.parametrize("status", ["parked", "held", "blocked"])
@pytest.mark.parametrize(
    ("change", "reason", "text"),
    [
        (
            "SET enabled = 0, disabled_reason = 'gone'",
            "disabled",
            "is disabled (gone). It is sent once that is enabled",
        ),
        ("SET enabled = 0", "disabled", "no reason was given"),
        ("SET paused_at = failing_since, paused_reason = 'it moves'", "paused", ": it moves. It is sent once"),
        ("SET event_filter = '(('", "problem", "event_filter: "),
        ("SET retry_schedule = 'soon'", "receiver", "since"),  # the default is used
    ],
)
def test_a_delivery_waits_for_its_subscription(
    engine: Engine, status: str, change: str, reason: Reason, text: str
) -> None:
    """Whatever its own state says, and however its receiver is."""
    subscription = subscribed(engine)
    park(engine, parked(make_event(), subscription, LATER))
    upkeep.failing(engine, subscription, 900.0)
    run(engine, f"UPDATE webhook_subscriptions {change}")
    run(engine, "UPDATE webhook_deliveries SET status = :s", s=status)
    found = wait(engine, 0)
    assert found is not None
    assert (found.reason, text in found.text) == (reason, True)


def test_what_has_ended_waits_for_nothing(engine: Engine) -> None:
    """So does not even a delivery of a removed subscription; an open one is given up."""
    park(engine, parked(make_event(), 99, LATER), parked(make_event(1), 99, None, status="exhausted"))  # type: ignore[arg-type]
    assert wait(engine, 1) is None
    open_one = wait(engine, 0)
    assert open_one is not None
    assert open_one.reason == "removed"
