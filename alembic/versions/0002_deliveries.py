"""Longer urls, disabled subscriptions, secrets, and stored deliveries."""

from collections.abc import Sequence
from typing import Literal

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects import oracle

from consumer.errors import WebhooksError
from models.base import utc_now

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

SUBSCRIPTIONS = "webhook_subscriptions"
ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
FLAG = sa.Integer().with_variant(oracle.NUMBER(1), "oracle")  # type: ignore[no-untyped-call]  # SQLAlchemy's
INSTANT = sa.TIMESTAMP()
NOW = utc_now()
NARROWED = (("event_type", 255, 50), ("url", 2048, 255))  # by the downgrade
RECORD = ("group_id", "topic", "partition_no", "record_offset", "record_ts")


def upgrade() -> None:
    """SQLite rebuilds the table of subscriptions, also with AUTOINCREMENT, so that no id is used again."""
    with op.batch_alter_table(
        SUBSCRIPTIONS, copy_from=_before(), recreate=_on_sqlite(), table_kwargs={"sqlite_autoincrement": True}
    ) as table:
        for name, length, before in (("url", 2048, 255), ("event_type", 255, 50)):
            if _narrower(name, length):
                table.alter_column(
                    name, type_=sa.String(length), existing_type=sa.String(before), existing_nullable=False
                )
        table.add_column(sa.Column("enabled", FLAG, server_default=sa.text("1"), nullable=False))
        table.add_column(sa.Column("disabled_reason", sa.String(1000)))
        table.create_check_constraint("ck_webhook_subs_enabled", "enabled IN (0, 1)")
    op.create_index("ix_webhook_subs_event_type", SUBSCRIPTIONS, ["event_type", "enabled"])
    op.create_table(
        "webhook_secrets",
        sa.Column("id", ID, sa.Identity(), nullable=False),
        sa.Column("subscription_id", ID, nullable=False),
        sa.Column("secret", sa.String(1000), nullable=False),
        sa.Column("created_at", INSTANT, server_default=NOW, nullable=False),
        sa.Column("expires_at", INSTANT),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_secrets"),
        sa.ForeignKeyConstraint(
            ["subscription_id"], [f"{SUBSCRIPTIONS}.id"], name="fk_webhook_secrets_sub", ondelete="CASCADE"
        ),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_webhook_secrets_sub", "webhook_secrets", ["subscription_id"])
    op.create_table(
        "webhook_payloads",
        *_record(),
        sa.Column("event_type", sa.String(1000), nullable=False),
        sa.Column("webhook_id", sa.String(255), nullable=False),
        sa.Column("content_type", sa.String(1000)),
        sa.Column("traceparent", sa.String(255)),
        sa.Column("created_at", INSTANT, server_default=NOW, nullable=False),
        sa.Column("has_key", FLAG, server_default=sa.text("0"), nullable=False),
        sa.Column("body_size", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("record_key", sa.LargeBinary()),
        sa.Column("body", sa.LargeBinary()),
        sa.PrimaryKeyConstraint(*RECORD, name="pk_webhook_payloads"),
        sa.CheckConstraint("has_key IN (0, 1)", name="ck_webhook_payloads_has_key"),
    )
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", ID, sa.Identity(), nullable=False),
        *_record(),
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
        sa.PrimaryKeyConstraint("id", name="pk_webhook_deliveries"),
        sa.UniqueConstraint(*RECORD, "subscription_id", "replay", name="uq_webhook_deliveries_record"),
        sa.ForeignKeyConstraint(
            RECORD, [f"webhook_payloads.{name}" for name in RECORD], name="fk_webhook_deliveries_payload"
        ),
        sa.CheckConstraint(
            "status IN ('parked', 'held', 'exhausted', 'delivered')", name="ck_webhook_deliveries_status"
        ),
        sa.CheckConstraint("status <> 'parked' OR next_attempt_at IS NOT NULL", name="ck_webhook_deliveries_due"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_webhook_deliveries_due",
        "webhook_deliveries",
        ["group_id", "status", "next_attempt_at", "id", "topic", "partition_no", "subscription_id"],
    )
    op.create_index("ix_webhook_deliveries_sub", "webhook_deliveries", ["subscription_id", "status"])


def downgrade() -> None:
    """Parked deliveries and secrets are lost. A url or event type too long for its old column stops the downgrade.

    On Oracle, DDL commits by itself: it stops before the first change, and a printed script (ORA-01441) before a loss.
    """
    on_sqlite = _on_sqlite() == "always"  # which keeps text of any length
    if not on_sqlite:
        if not context.is_offline_mode():
            _refuse_long_values()
        for name, length, before in NARROWED:
            op.alter_column(
                SUBSCRIPTIONS,
                name,
                type_=sa.String(before),
                existing_type=sa.String(length),
                existing_nullable=False,
            )
    op.drop_table("webhook_deliveries")
    op.drop_table("webhook_payloads")
    op.drop_table("webhook_secrets")
    op.drop_index("ix_webhook_subs_event_type", SUBSCRIPTIONS)
    with op.batch_alter_table(
        SUBSCRIPTIONS, copy_from=_after(), recreate=_on_sqlite(), table_kwargs={"sqlite_autoincrement": True}
    ) as table:
        table.drop_constraint("ck_webhook_subs_enabled", type_="check")
        table.drop_column("disabled_reason")
        table.drop_column("enabled")
        for name, length, before in NARROWED if on_sqlite else ():
            table.alter_column(name, type_=sa.String(before), existing_type=sa.String(length), existing_nullable=False)


def _refuse_long_values() -> None:
    for name, _, length in NARROWED:
        column: sa.ColumnClause[str] = sa.column(name, sa.String())
        long = sa.select(sa.func.count()).select_from(sa.table(SUBSCRIPTIONS)).where(sa.func.length(column) > length)
        if number := op.get_bind().scalar(long):
            raise WebhooksError(
                f"{SUBSCRIPTIONS} has {number} row(s) whose {name} has more than {length} characters; "
                "shorten or delete them, then downgrade again"
            )


def _record() -> tuple[sa.Column[str] | sa.Column[int], ...]:
    return (
        sa.Column("group_id", sa.String(255), nullable=False),
        sa.Column("topic", sa.String(249), nullable=False),
        sa.Column("partition_no", sa.Integer(), nullable=False),
        sa.Column("record_offset", sa.BigInteger(), nullable=False),
        sa.Column("record_ts", sa.BigInteger(), nullable=False),
    )


def _on_sqlite() -> Literal["always", "never"]:
    return "always" if op.get_context().dialect.name == "sqlite" else "never"


def _narrower(name: str, length: int) -> bool:
    """Whether a column is to be widened: an adopted table may have a longer one."""
    if context.is_offline_mode():
        return True
    columns = {
        column["name"].lower(): column["type"] for column in sa.inspect(op.get_bind()).get_columns(SUBSCRIPTIONS)
    }
    is_length = getattr(columns[name], "length", None)
    return is_length is not None and is_length < length


def _before(url: int = 255, event_type: int = 50, *more: sa.schema.SchemaItem) -> sa.Table | None:
    """The table as SQLite has it, for rebuilding it in printed SQL; None online, where the database is asked for it."""
    if not context.is_offline_mode():
        return None
    return sa.Table(
        SUBSCRIPTIONS,
        sa.MetaData(),
        sa.Column("id", ID, sa.Identity(), nullable=False),
        sa.Column("url", sa.String(url), nullable=False),
        sa.Column("event_type", sa.String(event_type), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(), server_default=sa.text("CURRENT_TIMESTAMP")),
        *more,
        sa.PrimaryKeyConstraint("id", name="pk_webhook_subscriptions"),
    )


def _after() -> sa.Table | None:
    return _before(
        2048,
        255,
        sa.Column("enabled", FLAG, server_default=sa.text("1"), nullable=False),
        sa.Column("disabled_reason", sa.String(1000)),
        sa.CheckConstraint("enabled IN (0, 1)", name="ck_webhook_subs_enabled"),
    )
