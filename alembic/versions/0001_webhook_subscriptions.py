"""The table that many start with: who wants which events."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import context, op

revision: str = "0001"
down_revision: str | None = None
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

COLUMNS = {"id", "url", "event_type", "created_at"}


def upgrade() -> None:
    """Create it, or leave one that exists as it is, rows and all. Offline nobody can tell: start from 0001."""
    if not context.is_offline_mode():
        inspector = sa.inspect(op.get_bind())
        if inspector.has_table("webhook_subscriptions"):
            missing = COLUMNS - {column["name"].lower() for column in inspector.get_columns("webhook_subscriptions")}
            if missing:
                raise RuntimeError(f"webhook_subscriptions exists, without these columns: {', '.join(sorted(missing))}")
            return
    op.create_table(
        "webhook_subscriptions",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), sa.Identity(), nullable=False),
        sa.Column("url", sa.String(255), nullable=False),
        sa.Column("event_type", sa.String(50), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(), server_default=sa.text("CURRENT_TIMESTAMP")),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_subscriptions"),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table("webhook_subscriptions")
