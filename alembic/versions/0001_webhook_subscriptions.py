"""The table that many projects start with: the subscriptions."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.sql import quoted_name

from consumer.errors import WebhooksError

revision: str = "0001"
down_revision: str | None = None
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

SUBSCRIPTIONS = "webhook_subscriptions"
COLUMNS = {"id", "url", "event_type", "created_at"}
# Columns that later revisions add: Oracle would stop at an existing one, with a part of the revisions done.
LATER = {"enabled", "disabled_reason", "ordering", "max_in_flight", "rate_limit"}
LATER |= {"retry_schedule", "final_statuses", "failing_since"}
LATER |= {"tenant", "topics", "event_filter", "timeout_seconds", "payload_format", "projection"}
LATER |= {"batch_size", "batch_wait_ms", "signature_header", "signature_prefix", "custom_headers", "slow_until"}
LATER |= {"gzip_above", "http_version", "verified_url"}


def upgrade() -> None:
    """Create the table, or keep an existing one with its rows. Printed SQL cannot tell: print it from 0001 on."""
    if not context.is_offline_mode() and _is_there(sa.inspect(op.get_bind())):
        return
    op.create_table(
        SUBSCRIPTIONS,
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), sa.Identity(), nullable=False),
        sa.Column("url", sa.String(255), nullable=False),
        sa.Column("event_type", sa.String(50), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(), server_default=sa.text("CURRENT_TIMESTAMP")),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_subscriptions"),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    """Drop the table."""
    op.drop_table(SUBSCRIPTIONS)


def _is_there(inspector: sa.Inspector) -> bool:
    """Whether the table exists. WebhooksError if it cannot be adopted: nothing has been changed yet."""
    if not inspector.has_table(SUBSCRIPTIONS):
        if op.get_context().dialect.name == "oracle" and inspector.has_table(quoted_name(SUBSCRIPTIONS, quote=True)):
            raise WebhooksError(
                f'there is a table "{SUBSCRIPTIONS}", in lower case, which plain SQL does not find; '
                f'ALTER TABLE "{SUBSCRIPTIONS}" RENAME TO {SUBSCRIPTIONS}, then migrate again'
            )
        return False
    names = [column["name"] for column in inspector.get_columns(SUBSCRIPTIONS)]
    for found, wrong in (
        (COLUMNS - {name.lower() for name in names}, "exists, without these columns"),
        ({name for name in names if getattr(name, "quote", None)}, "has columns whose names are in lower case; rename"),
        (LATER.intersection(name.lower() for name in names), "has columns whose names we need; rename"),
    ):
        if found:
            raise WebhooksError(f"{SUBSCRIPTIONS} {wrong}: {', '.join(sorted(found))}")
    return True
