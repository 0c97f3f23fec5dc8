"""Notes on subscriptions whose filter or projection exceeds its budget of CPU time."""

from datetime import UTC, datetime

from sqlalchemy import Engine, select

from consumer.delivery.slow_expressions import SlowExpressions
from models import Subscription
from tests.delivery.desk_kit import Desk
from tests.delivery.store_kit import NOW


def test_a_note_that_is_being_written_is_not_added_again(engine: Engine) -> None:
    """The subscription's row may be locked for hours, while its expression is slow again and again."""
    desk = Desk(engine)
    slow = SlowExpressions(desk.lanes, desk.settling, desk.store.notes, desk.clock, desk.store.monotonic)
    for seconds in (5.0, 10.0, 20.0):
        slow(desk.subscription, seconds)
    assert desk.store.notes.pending == 1
    for seconds in (20.0, 60.0):
        slow(desk.subscription, seconds)
        desk.store.write_notes()
        with engine.connect() as connection:
            until = connection.execute(select(Subscription.slow_until)).scalar_one()
        assert until == datetime.fromtimestamp(NOW + seconds, UTC)
    assert desk.store.thread.close(20)
