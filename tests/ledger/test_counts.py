"""Counts for the console and the API: exact up to a bound, whatever the table's size."""

from sqlalchemy import Engine

from consumer.ledger import search, store
from consumer.ledger.rows import AttemptFailure
from consumer.subscriptions import repository
from tests.ledger.rows_kit import BOOM, GROUP, URL, make_event, parked, run


def fill(engine: Engine, sub: int, number: int, first: int = 0) -> None:
    store.park(engine, GROUP, [parked(make_event(first + each), sub) for each in range(number)], 96.0)


def test_states_are_counted_up_to_a_bound(engine: Engine) -> None:
    """A count of one above the bound means more; a state without rows counts zero."""
    sub = repository.add(engine, URL, "user.created")
    fill(engine, sub, 8)
    run(engine, "UPDATE webhook_deliveries SET status = 'held' WHERE record_offset < 3")
    assert search.by_state(engine, 3) == {"parked": 4, "blocked": 0, "held": 3, "exhausted": 0, "delivered": 0}


def test_the_most_loaded_subscriptions_come_first(engine: Engine) -> None:
    """The ones with most open rows come first, up to the limit requested; each count stops at its bound."""
    few, many, ended, some = (repository.add(engine, URL, "user.created") for _ in range(4))
    fill(engine, ended, 9)
    run(engine, "UPDATE webhook_deliveries SET status = 'exhausted'")
    for sub, number in ((few, 1), (many, 7), (some, 3)):
        fill(engine, sub, number)
    run(engine, "UPDATE webhook_deliveries SET status = 'held' WHERE subscription_id = :s", s=some)
    assert search.most_loaded(engine, 10) == [many, some, few]
    assert search.most_loaded(engine, 2) == [many, some]
    assert search.loads(engine, [ended, few, many, some, 999], 5) == {ended: 0, few: 1, many: 5, some: 3, 999: 0}
    assert search.loads(engine, [], 5) == {}


def test_the_latest_failure_is_found(engine: Engine) -> None:
    """The latest failure is that of a subscription's rows stored first or last, parked or exhausted.

    An outage stores many without an attempt behind those that failed.
    """
    sub, other = (repository.add(engine, URL, "user.created") for _ in range(2))
    assert search.last_failures(engine, [sub]) == search.last_failures(engine, []) == {}
    late = AttemptFailure("status 500", 500, None, 99.0)
    rows = [
        parked(make_event(1), sub),
        parked(make_event(2), sub)._replace(last=late, first=BOOM),
        parked(make_event(3), sub, attempt=0),
        parked(make_event(4), other)._replace(last=(others := late._replace(error="another's", at=500.0))),
    ]
    untried = [parked(make_event(offset), sub, attempt=0) for offset in range(5, 25)]
    store.park(engine, GROUP, [*rows, *untried], 96.0)
    assert search.last_failures(engine, [sub, 999, other]) == {sub: late, other: others}
    run(engine, "UPDATE webhook_deliveries SET status = 'exhausted' WHERE record_offset = 2")
    assert search.last_failures(engine, [sub]) == {sub: late}
