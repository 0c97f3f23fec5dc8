"""The guarantees for plain SQL, and column types that mean the same on both databases."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Column, Engine, MetaData, Table, insert, select
from sqlalchemy.exc import IntegrityError

from models import Subscription, SubscriptionSecret
from models.base import UNREADABLE, UtcTimestamp
from tests.databases import on_oracle

INSERT = "INSERT INTO webhook_subscriptions (url, event_type) VALUES ('https://example.com/hook', 'user.created')"


def test_url_and_event_type_make_a_subscription(engine: Engine) -> None:
    """Every other column has a default in the database, and the row is enabled."""
    with engine.begin() as connection:
        connection.exec_driver_sql(INSERT)
        row = connection.execute(select(Subscription.__table__)).one()
    assert (row.id, row.url, row.event_type) == (1, "https://example.com/hook", "user.created")
    assert (row.enabled, row.disabled_reason) == (1, None)
    assert abs(datetime.now(UTC) - row.created_at.replace(tzinfo=UTC)) < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ("url = NULL", r"webhook_subscriptions.url|ORA-01407|ORA-01400"),
        ("event_type = NULL", r"webhook_subscriptions.event_type|ORA-01407|ORA-01400"),
        ("enabled = 2", "ck_webhook_subs_enabled"),
        ("ordering = 'Key'", "ck_webhook_subs_ordering"),
        ("max_in_flight = 0", "ck_webhook_subs_in_flight"),
        ("rate_limit = 0", "ck_webhook_subs_rate_limit"),
        ("timeout_seconds = 0", "ck_webhook_subs_timeout"),
        ("payload_format = 'xml'", "ck_webhook_subs_format"),
        ("batch_size = 0", "ck_webhook_subs_batch_size"),
        ("batch_size = 1001", "ck_webhook_subs_batch_size"),
        ("batch_wait_ms = -1", "ck_webhook_subs_batch_wait"),
        ("batch_wait_ms = 60001", "ck_webhook_subs_batch_wait"),
        ("custom_headers = 'X-A: b'", "ck_webhook_subs_headers"),
        ("tenant = NULL", r"webhook_subscriptions.tenant|ORA-01407|ORA-01400"),
        ("signature_header = NULL", r"webhook_subscriptions.signature_header|ORA-01407|ORA-01400"),
        ("payload_format = NULL", r"webhook_subscriptions.payload_format|ORA-01407|ORA-01400"),
    ],
)
def test_invalid_values_are_refused(engine: Engine, change: str, constraint: str) -> None:
    """The database refuses values by constraints whose names state the rule."""
    with engine.begin() as connection:
        connection.exec_driver_sql(INSERT)
        with pytest.raises(IntegrityError, match=f"(?i){constraint}"):
            connection.exec_driver_sql(f"UPDATE webhook_subscriptions SET {change}")  # noqa: S608 (from above)


def test_secrets_go_with_their_subscription(engine: Engine) -> None:
    """A secret inserted by plain SQL gets defaults, as to sign, and removing its subscription deletes it."""
    with engine.begin() as connection:
        connection.exec_driver_sql(INSERT)
        connection.exec_driver_sql("INSERT INTO webhook_secrets (subscription_id, secret) VALUES (1, 'plain')")
        row = connection.execute(select(SubscriptionSecret.__table__)).one()
        assert (row.secret, row.kind, row.expires_at) == ("plain", "signing", None)
        assert row.created_at.tzinfo is UTC
    with engine.begin() as connection, pytest.raises(IntegrityError, match=r"(?i)ck_webhook_secrets_kind"):
        connection.exec_driver_sql("UPDATE webhook_secrets SET kind = 'cookie'")
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM webhook_subscriptions")
        assert connection.execute(select(SubscriptionSecret.__table__)).all() == []


def test_ids_are_never_reused(engine: Engine) -> None:
    """Rows stored for a removed subscription must not go to a later one."""
    with engine.begin() as connection:
        connection.exec_driver_sql(INSERT)
        connection.exec_driver_sql("DELETE FROM webhook_subscriptions")
        connection.exec_driver_sql(INSERT)
        assert connection.execute(select(Subscription.id)).scalars().all() == [2]


@pytest.fixture
def moments(engine: Engine) -> Iterator[tuple[Engine, Table]]:
    table = Table("moments", MetaData(), Column("moment", UtcTimestamp))
    table.create(engine)
    yield engine, table
    table.drop(engine)


ZONES = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.datetimes(datetime(1971, 1, 2), datetime(9998, 12, 30), timezones=ZONES))  # noqa: DTZ001 (the strategy adds zones)
def test_an_instant_is_read_back_unchanged(moments: tuple[Engine, Table], at: datetime) -> None:
    """A datetime of any zone is read back as the same instant in UTC, to the microsecond."""
    engine, table = moments
    with engine.connect() as connection:
        connection.execute(insert(table), {"moment": at})
        read = connection.execute(select(table.c.moment)).scalar_one()
        connection.rollback()
    assert read == at
    assert read.tzinfo is UTC


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("'2026-12-01'", datetime(2026, 12, 1, tzinfo=UTC)),
        ("'2026-12-01T05:00:00+02:00'", datetime(2026, 12, 1, 3, tzinfo=UTC)),
        ("'soon'", UNREADABLE),
        ("1796083200", UNREADABLE),
        ("x'00'", UNREADABLE),
    ],
)
def test_sqlite_reads_invalid_times(sqlite_engine: Engine, written: str, read: datetime) -> None:
    """An invalid time in SQLite is read as UNREADABLE, and the rows beside it are read."""
    with sqlite_engine.begin() as connection:
        connection.exec_driver_sql(INSERT)
        connection.exec_driver_sql(INSERT)
        connection.exec_driver_sql(f"UPDATE webhook_subscriptions SET failing_since = {written} WHERE id = 1")  # noqa: S608 (from above)
        found = connection.scalars(select(Subscription.failing_since).order_by(Subscription.id)).all()
    assert found == [read, None]


@on_oracle
@pytest.mark.parametrize("zone", ["+05:30", "-08:00", "+00:00"])
def test_a_row_of_a_session_in_another_zone_is_read_as_its_instant(engine: Engine, zone: str) -> None:
    """Defaults are in UTC: CURRENT_TIMESTAMP would keep the local time of the SQL*Plus session."""
    made = datetime.now(UTC)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"ALTER SESSION SET TIME_ZONE = '{zone}'")
        connection.exec_driver_sql(INSERT)
        connection.exec_driver_sql("INSERT INTO webhook_secrets (subscription_id, secret) VALUES (1, 'plain')")
        connection.exec_driver_sql("ALTER SESSION SET TIME_ZONE = '+00:00'")
    with engine.connect() as connection:
        read = connection.scalars(select(SubscriptionSecret.created_at)).one()
    assert abs(read - made) < timedelta(minutes=1)


def test_a_naive_datetime_is_refused(moments: tuple[Engine, Table]) -> None:
    """Its instant is unknown, so it is an error."""
    engine, table = moments
    with engine.connect() as connection, pytest.raises(Exception, match="naive datetime"):
        connection.execute(insert(table), {"moment": datetime(2026, 1, 1)})  # noqa: DTZ001 (what is refused)
