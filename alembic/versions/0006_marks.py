"""What workers and commands tell each other about the rows of a partition."""

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
            comment="Offset of the record. -1: about stored deliveries that are due.",
        ),
        sa.Column("subscription_id", ID, nullable=False, comment="Id of the subscription. 0: all subscriptions."),
        sa.Column(
            "kind",
            sa.String(20),
            nullable=False,
            comment="look: for due rows. refused: a delivery cannot be stored. published: a dead letter was, again.",
        ),
        sa.Column(
            "asked",
            sa.Integer(),
            server_default=sa.text("1"),
            nullable=False,
            comment="How often a look was asked for.",
        ),
        sa.Column(
            "marked_at",
            INSTANT,
            server_default=NOW,
            nullable=False,
            comment="When the look was last asked for, the delivery first refused, or the dead letter last published.",
        ),
        sa.PrimaryKeyConstraint(*KEY, name="pk_webhook_marks"),
        sa.CheckConstraint("kind IN ('look', 'refused', 'published')", name="ck_webhook_marks_kind"),
        comment="What workers and commands tell each other about the rows of a partition.",
    )
    op.create_index("ix_webhook_marks_time", "webhook_marks", ["group_id", "marked_at"])


def downgrade() -> None:
    """Since when deliveries are refused is forgotten: their time begins again."""
    op.drop_table("webhook_marks")
