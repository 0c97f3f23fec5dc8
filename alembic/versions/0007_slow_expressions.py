"""Filters and projections that are too slow are left out for a while, and stored deliveries wait for their filter."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import oracle

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

FLAG = sa.Integer().with_variant(oracle.NUMBER(1), "oracle")  # type: ignore[no-untyped-call]  # SQLAlchemy's
SLOW = "Until then its filter or projection is left out as too slow. Written by workers."
CHECK, CHECKED = "ck_webhook_deliveries_pending", "filter_pending IN (0, 1)"
PENDING = "1: the filter of its subscription is asked before it is sent."


def upgrade() -> None:
    """No row changes; the default of a new column is kept in the dictionary."""
    op.add_column("webhook_subscriptions", sa.Column("slow_until", sa.TIMESTAMP()))
    if op.get_context().dialect.name == "sqlite":  # which adds a check with its column, or not at all
        op.execute(
            "ALTER TABLE webhook_deliveries ADD COLUMN filter_pending INTEGER DEFAULT 0 NOT NULL"
            f" CONSTRAINT {CHECK} CHECK ({CHECKED})"
        )
        return
    op.add_column("webhook_deliveries", sa.Column("filter_pending", FLAG, server_default=sa.text("0"), nullable=False))
    op.create_check_constraint(CHECK, "webhook_deliveries", CHECKED)
    op.alter_column("webhook_subscriptions", "slow_until", comment=SLOW)
    op.alter_column("webhook_deliveries", "filter_pending", comment=PENDING)


def downgrade() -> None:
    """A stored delivery whose filter was not evaluated is then sent unfiltered."""
    op.drop_column("webhook_deliveries", "filter_pending")
    op.drop_column("webhook_subscriptions", "slow_until")
