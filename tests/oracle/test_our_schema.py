"""Our migrations and our SQL on each profile: a first look, before the suites of the database follow."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, func, select

from consumer import schema
from consumer.database import unavailable
from consumer.errors import DatabaseUnavailable
from consumer.ledger import store
from consumer.matching import subscriptions
from models import Base, ParkedDelivery
from tests.databases import connect_to
from tests.ledger.rows_kit import GROUP, URL, find, make_event, ordered, parked, result
from tests.oracle_emulator import OracleEmulator, OracleError

AT = 1000.000_001  # seconds: a microsecond that a DATE would lose


@pytest.fixture
def engine(oracle: OracleEmulator) -> Iterator[Engine]:
    """As the program makes it, on a migrated database."""
    result = connect_to(oracle.url)
    schema.upgrade(result)
    yield result
    result.dispose()


def test_the_migrations_make_what_the_models_say(engine: Engine) -> None:
    """Nothing is left to migrate, and nothing is there that the models do not know."""
    assert not schema.state(engine).behind
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_a_delivery_is_stored_once_and_comes_back_as_it_was(engine: Engine) -> None:
    """Also if it is stored again; not before it is due, and to the microsecond."""
    subscription = subscriptions.add(engine, URL, "user.created")
    event = make_event(7, body=b'{"\xc3\xbc": 1}', key=b"\x00\xff")
    for _ in range(2):
        store.park(engine, GROUP, [parked(event, subscription, AT)], 1.0)
    with engine.connect() as connection:
        (due,) = connection.execute(select(ParkedDelivery.next_attempt_at)).scalars()
    assert due == datetime.fromtimestamp(AT, UTC)
    assert find(engine, AT - 0.001) == []
    (row,) = find(engine, AT)
    assert row.event == event
    store.record(engine, GROUP, [result(row, "delivered")])
    assert find(engine, AT) == []


def test_a_key_goes_in_order(engine: Engine) -> None:
    """The second of a key comes when the first is done with, however they were stored."""
    subscription = subscriptions.add(engine, URL, "user.created", ordering="key")
    store.park(engine, GROUP, [ordered(offset, subscription) for offset in (2, 1)], 1.0)
    rows = find(engine, room=1)
    assert [row.event.record.offset for row in rows] == [1]
    store.record(engine, GROUP, [result(rows[0], "exhausted")])
    assert [row.event.record.offset for row in find(engine, room=1)] == [2]


@pytest.mark.parametrize("drop", ["before", "after"])
def test_a_connection_that_breaks_at_the_commit_is_trouble_and_the_batch_can_be_written_again(
    oracle: OracleEmulator, engine: Engine, drop: str
) -> None:
    """Whether or not the database had committed: each row is there once."""
    subscription = subscriptions.add(engine, URL, "user.created")
    rows = [parked(make_event(offset), subscription) for offset in range(20)]
    oracle.inject("^COMMIT$", drop="after" if drop == "after" else "before")
    with pytest.raises(Exception) as lost:  # noqa: PT011 (what it means is judged below)
        store.park(engine, GROUP, rows, 1.0)
    assert isinstance(unavailable(lost.value), DatabaseUnavailable)
    store.park(engine, GROUP, rows, 1.0)
    with engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(ParkedDelivery)) == 20


def test_a_deadlock_is_trouble(oracle: OracleEmulator, engine: Engine) -> None:
    """And nothing of the batch is stored."""
    subscription = subscriptions.add(engine, URL, "user.created")
    oracle.inject("INSERT INTO webhook_deliveries", OracleError(60, "deadlock detected"))
    with pytest.raises(Exception) as refused:  # noqa: PT011 (what it means is judged below)
        store.park(engine, GROUP, [parked(make_event(1), subscription)], 1.0)
    assert isinstance(unavailable(refused.value), DatabaseUnavailable)
    assert find(engine) == []
