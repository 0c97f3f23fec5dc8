"""Requests to the worker that owns a partition, by commands and by other workers."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from models.base import utc_now

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
INSTANT = sa.TIMESTAMP()
NOW = utc_now()
KEY = ("group_id", "topic", "partition_no", "record_offset", "subscription_id")


def upgrade() -> None:
    """Create a table; no other table changes."""
    op.create_table(
        "webhook_marks",
        sa.Column("group_id", sa.String(255), nullable=False, comment="Kafka consumer group of the worker."),
        sa.Column("topic", sa.String(249), nullable=False, comment="Kafka topic."),
        sa.Column("partition_no", sa.Integer(), nullable=False, comment="Partition of the topic."),
        sa.Column(
            "record_offset",
            sa.BigInteger(),
            nullable=False,
            comment="Offset of the record that is decided on. -1: about stored deliveries that are due.",
        ),
        sa.Column("subscription_id", ID, nullable=False, comment="Id of the subscription. 0: all subscriptions."),
        sa.Column(
            "wish",
            sa.String(20),
            nullable=False,
            comment="look: for due rows. dead_letter, give_up: the decision on a delivery that cannot be stored.",
        ),
        sa.Column(
            "asked",
            sa.Integer(),
            server_default=sa.text("1"),
            nullable=False,
            comment="How often the request was made.",
        ),
        sa.Column("marked_at", INSTANT, server_default=NOW, nullable=False, comment="When the request was last made."),
        sa.Column("done_at", INSTANT, comment="When a worker last acted on a decision. Null: not yet."),
        sa.PrimaryKeyConstraint(*KEY, name="pk_webhook_marks"),
        sa.CheckConstraint("wish IN ('look', 'dead_letter', 'give_up')", name="ck_webhook_marks_wish"),
        comment="Requests to the worker of a partition: to look for rows, or to end a delivery.",
    )
    op.create_index("ix_webhook_marks_time", "webhook_marks", ["group_id", "marked_at"])


def downgrade() -> None:
    """Decisions that no worker has acted on are lost: the deliveries that cannot be stored hold their offsets."""
    op.drop_table("webhook_marks")
