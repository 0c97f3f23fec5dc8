"""Indexes for searches and statistics; replays store their number of records, and can be cancelled."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0009"
down_revision: str | None = "0008"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

SUBSCRIPTIONS, DELIVERIES, REPLAYS = "webhook_subscriptions", "webhook_deliveries", "webhook_replays"
INSTANT = sa.TIMESTAMP()
COUNT = "Records to read when it began. Null: begun by a release before 0009."
CANCELLED = "When it was cancelled, and reading ended. Null: it was not."


def upgrade() -> None:
    """No row changes. The new index of a subscription's deliveries is created before the old one goes."""
    op.create_index("ix_webhook_deliveries_receiver", DELIVERIES, ["subscription_id", "status", "id"])
    op.drop_index("ix_webhook_deliveries_sub", DELIVERIES)
    op.create_index("ix_webhook_deliveries_state", DELIVERIES, ["status", "id", "subscription_id"])
    op.create_index("ix_webhook_subs_failing", SUBSCRIPTIONS, ["failing_since"])
    op.add_column(REPLAYS, sa.Column("record_count", sa.BigInteger()))
    op.add_column(REPLAYS, sa.Column("cancelled_at", INSTANT))
    if op.get_context().dialect.name != "sqlite":  # which has no comments
        op.alter_column(REPLAYS, "record_count", comment=COUNT)
        op.alter_column(REPLAYS, "cancelled_at", comment=CANCELLED)


def downgrade() -> None:
    """A cancelled replay can then be resumed."""
    op.drop_column(REPLAYS, "cancelled_at")
    op.drop_column(REPLAYS, "record_count")
    op.drop_index("ix_webhook_subs_failing", SUBSCRIPTIONS)
    op.drop_index("ix_webhook_deliveries_state", DELIVERIES)
    op.create_index("ix_webhook_deliveries_sub", DELIVERIES, ["subscription_id", "status"])
    op.drop_index("ix_webhook_deliveries_receiver", DELIVERIES)
