"""A delivery that is stored before its filter could be evaluated waits for it."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import oracle

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

FLAG = sa.Integer().with_variant(oracle.NUMBER(1), "oracle")  # type: ignore[no-untyped-call]  # SQLAlchemy's
CHECK, CHECKED = "ck_webhook_deliveries_pending", "filter_pending IN (0, 1)"
PENDING = "1: the filter of its subscription is asked before it is sent."


def upgrade() -> None:
    """No row changes; the default of a new column is kept in the dictionary."""
    if op.get_context().dialect.name == "sqlite":  # which adds a check with its column, or not at all
        op.execute(
            "ALTER TABLE webhook_deliveries ADD COLUMN filter_pending INTEGER DEFAULT 0 NOT NULL"
            f" CONSTRAINT {CHECK} CHECK ({CHECKED})"
        )
        return
    op.add_column("webhook_deliveries", sa.Column("filter_pending", FLAG, server_default=sa.text("0"), nullable=False))
    op.create_check_constraint(CHECK, "webhook_deliveries", CHECKED)
    op.alter_column("webhook_deliveries", "filter_pending", comment=PENDING)


def downgrade() -> None:
    """A stored delivery whose filter was not evaluated is then sent unfiltered."""
    op.drop_column("webhook_deliveries", "filter_pending")
