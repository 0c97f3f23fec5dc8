"""Limits, order and failures of a subscription; ordered and replayed deliveries; operational events."""

from collections.abc import Sequence
from typing import Any, Literal, TypedDict

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects import oracle

from models.base import utc_now

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

SUBSCRIPTIONS, DELIVERIES = "webhook_subscriptions", "webhook_deliveries"
ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
FLAG = sa.Integer().with_variant(oracle.NUMBER(1), "oracle")  # type: ignore[no-untyped-call]  # SQLAlchemy's
INSTANT = sa.TIMESTAMP()
NOW = utc_now()
RECORD = ("group_id", "topic", "partition_no", "record_offset", "record_ts")
LIMITS = (
    ("ck_webhook_subs_ordering", "ordering IN ('none', 'key')"),
    ("ck_webhook_subs_in_flight", "max_in_flight >= 1"),
    ("ck_webhook_subs_rate_limit", "rate_limit > 0"),
)
DUE = ["group_id", "status", "next_attempt_at", "id", "topic", "partition_no", "subscription_id"]
HEAD = ["group_id", "status", "topic", "partition_no", "subscription_id", "next_attempt_at", "id"]
STATES = "status IN ('parked', 'blocked', 'held', 'exhausted', 'delivered')"
STATES_BEFORE = "status IN ('parked', 'held', 'exhausted', 'delivered')"


def upgrade() -> None:
    """SQLite rebuilds both tables: it cannot change a check constraint."""
    with op.batch_alter_table(SUBSCRIPTIONS, **_rebuild(_subscriptions())) as table:
        for column in _limits():
            table.add_column(column)
        for name, rule in LIMITS:
            table.create_check_constraint(name, rule)
    with op.batch_alter_table(DELIVERIES, **_rebuild(_deliveries(STATES_BEFORE))) as table:
        for column in _attempts():
            table.add_column(column)
        table.drop_constraint("ck_webhook_deliveries_status", type_="check")
        table.create_check_constraint("ck_webhook_deliveries_status", STATES)
    op.drop_index("ix_webhook_deliveries_due", DELIVERIES)
    op.create_index("ix_webhook_deliveries_head", DELIVERIES, HEAD)
    op.create_index(
        "ix_webhook_deliveries_order",
        DELIVERIES,
        ["group_id", "status", "topic", "partition_no", "order_key", "subscription_id", "record_offset"],
    )
    op.create_table(
        "webhook_operations",
        sa.Column("id", ID, sa.Identity(), nullable=False),
        sa.Column("group_id", sa.String(255), nullable=False),
        sa.Column("event_id", sa.String(255), nullable=False),
        sa.Column("event_type", sa.String(255), nullable=False),
        sa.Column("created_at", INSTANT, server_default=NOW, nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_operations"),
        sa.UniqueConstraint("group_id", "event_id", name="uq_webhook_operations_event"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "webhook_replays",
        sa.Column("id", ID, sa.Identity(), nullable=False),
        sa.Column("group_id", sa.String(255), nullable=False),
        sa.Column("subscription_id", ID, nullable=False),
        sa.Column("since_at", INSTANT, nullable=False),
        sa.Column("until_at", INSTANT, nullable=False),
        sa.Column("event_type", sa.String(1000)),
        sa.Column("rate", sa.Numeric(9, 3), nullable=False),
        sa.Column("matched", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("created_at", INSTANT, server_default=NOW, nullable=False),
        sa.Column("finished_at", INSTANT),
        sa.Column("positions", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_replays"),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    """Replays and operational events are lost. Blocked deliveries become due: the old program knows no order."""
    op.drop_table("webhook_replays")
    op.drop_table("webhook_operations")
    op.drop_index("ix_webhook_deliveries_order", DELIVERIES)
    op.drop_index("ix_webhook_deliveries_head", DELIVERIES)
    op.create_index("ix_webhook_deliveries_due", DELIVERIES, DUE)
    deliveries = sa.table(DELIVERIES, sa.column("status", sa.String()), sa.column("next_attempt_at", INSTANT))
    blocked = deliveries.update().where(deliveries.c.status == "blocked")
    op.execute(blocked.values(status="parked", next_attempt_at=NOW))
    with op.batch_alter_table(DELIVERIES, **_rebuild(_deliveries(STATES, *_attempts()))) as table:
        table.drop_constraint("ck_webhook_deliveries_status", type_="check")
        table.create_check_constraint("ck_webhook_deliveries_status", STATES_BEFORE)
        for column in reversed(_attempts()):
            table.drop_column(column.name)
    limits = [*_limits(), *(sa.CheckConstraint(rule, name=name) for name, rule in LIMITS)]
    with op.batch_alter_table(SUBSCRIPTIONS, **_rebuild(_subscriptions(*limits))) as table:
        for name, _ in LIMITS:
            table.drop_constraint(name, type_="check")
        for column in reversed(_limits()):
            table.drop_column(column.name)


class Rebuild(TypedDict):
    """How a table is changed in place, or on SQLite by copying it."""

    copy_from: sa.Table | None
    recreate: Literal["always", "never"]
    table_kwargs: dict[str, bool]


def _rebuild(table: sa.Table) -> Rebuild:
    """Printed SQL rebuilds `table`. Online, the table is read from the database, and keeps columns of others."""
    return {
        "copy_from": table if context.is_offline_mode() else None,
        "recreate": "always" if op.get_context().dialect.name == "sqlite" else "never",
        "table_kwargs": {"sqlite_autoincrement": True},
    }


def _limits() -> tuple[sa.Column[Any], ...]:
    return (
        sa.Column("ordering", sa.String(10), server_default=sa.text("'none'"), nullable=False),
        sa.Column("max_in_flight", sa.Integer()),
        sa.Column("rate_limit", sa.Numeric(9, 3)),
        sa.Column("retry_schedule", sa.String(500)),
        sa.Column("final_statuses", sa.String(255)),
        sa.Column("failing_since", INSTANT),
    )


def _attempts() -> tuple[sa.Column[Any], ...]:
    return (
        sa.Column("order_key", sa.String(32)),
        sa.Column("schedule_start", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("first_status", sa.Integer()),
        sa.Column("first_error", sa.String(1000)),
        sa.Column("last_attempt_at", INSTANT),
        sa.Column("last_response", sa.String(2000)),
    )


def _subscriptions(*more: sa.schema.SchemaItem) -> sa.Table:
    return sa.Table(
        SUBSCRIPTIONS,
        sa.MetaData(),
        sa.Column("id", ID, sa.Identity(), nullable=False),
        sa.Column("url", sa.String(2048), nullable=False),
        sa.Column("event_type", sa.String(255), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(), server_default=sa.text("CURRENT_TIMESTAMP")),
        sa.Column("enabled", FLAG, server_default=sa.text("1"), nullable=False),
        sa.Column("disabled_reason", sa.String(1000)),
        *more,
        sa.PrimaryKeyConstraint("id", name="pk_webhook_subscriptions"),
        sa.CheckConstraint("enabled IN (0, 1)", name="ck_webhook_subs_enabled"),
        sa.Index("ix_webhook_subs_event_type", "event_type", "enabled"),
    )


def _deliveries(states: str, *more: sa.schema.SchemaItem) -> sa.Table:
    return sa.Table(
        DELIVERIES,
        sa.MetaData(),
        sa.Column("id", ID, sa.Identity(), nullable=False),
        sa.Column("group_id", sa.String(255), nullable=False),
        sa.Column("topic", sa.String(249), nullable=False),
        sa.Column("partition_no", sa.Integer(), nullable=False),
        sa.Column("record_offset", sa.BigInteger(), nullable=False),
        sa.Column("record_ts", sa.BigInteger(), nullable=False),
        sa.Column("subscription_id", ID, nullable=False),
        sa.Column("replay", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("url", sa.String(2048), nullable=False),
        sa.Column("status", sa.String(10), server_default=sa.text("'parked'"), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("next_attempt_at", INSTANT, server_default=NOW),
        sa.Column("first_attempt_at", INSTANT),
        sa.Column("last_status", sa.Integer()),
        sa.Column("last_error", sa.String(1000)),
        sa.Column("created_at", INSTANT, server_default=NOW, nullable=False),
        sa.Column("updated_at", INSTANT, server_default=NOW, nullable=False),
        *more,
        sa.PrimaryKeyConstraint("id", name="pk_webhook_deliveries"),
        sa.UniqueConstraint(*RECORD, "subscription_id", "replay", name="uq_webhook_deliveries_record"),
        sa.ForeignKeyConstraint(
            RECORD, [f"webhook_payloads.{name}" for name in RECORD], name="fk_webhook_deliveries_payload"
        ),
        sa.CheckConstraint(states, name="ck_webhook_deliveries_status"),
        sa.CheckConstraint("status <> 'parked' OR next_attempt_at IS NOT NULL", name="ck_webhook_deliveries_due"),
        sa.Index(
            "ix_webhook_deliveries_due",
            *("group_id", "status", "next_attempt_at", "id", "topic", "partition_no", "subscription_id"),
        ),
        sa.Index("ix_webhook_deliveries_sub", "subscription_id", "status"),
    )
