"""Marks: what workers and commands tell each other about the rows of a partition."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import BigInteger, CheckConstraint, Index, Integer, PrimaryKeyConstraint, String, text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Id, UtcTimestamp, utc_now
from models.delivery import GROUP_LENGTH, TOPIC_LENGTH

NO_OFFSET = -1
OWNER_OFFSET = -2
ALL_SUBSCRIPTIONS = 0


class MarkKind(StrEnum):
    """The kinds of marks."""

    LOOK = "look"  # look for stored deliveries that another process has made due
    REFUSED = "refused"  # the database refuses to store a delivery, since `marked_at`
    PUBLISHED = "published"  # a person has published a dead letter again
    OWNED = "owned"  # a worker has taken the partition over, `asked` times


class Mark(Base):
    """A mark about the rows of a partition and a subscription (NO_OFFSET), or about a record.

    A repeated request is the same row with a higher `asked`. A refusal stands until the group's offset has passed its
    record, because a restart before that meets the delivery again.
    """

    __tablename__ = "webhook_marks"
    __table_args__ = (
        PrimaryKeyConstraint(
            *("group_id", "topic", "partition_no", "record_offset", "subscription_id"), name="pk_webhook_marks"
        ),
        CheckConstraint("kind IN ('look', 'refused', 'published', 'owned')", name="ck_webhook_marks_kind"),
        # Each worker looks for recent marks every few seconds.
        Index("ix_webhook_marks_time", "group_id", "marked_at"),
        {"comment": "What workers and commands tell each other about the rows of a partition."},
    )

    group_id: Mapped[str] = mapped_column(String(GROUP_LENGTH), comment="Kafka consumer group of the worker.")
    topic: Mapped[str] = mapped_column(String(TOPIC_LENGTH), comment="Kafka topic.")
    partition_no: Mapped[int] = mapped_column(Integer, comment="Partition of the topic.")
    record_offset: Mapped[int] = mapped_column(
        BigInteger, comment="Offset of the record. -1: about stored deliveries that are due. -2: about the owner."
    )
    subscription_id: Mapped[int] = mapped_column(Id, comment="Id of the subscription. 0: all subscriptions.")
    kind: Mapped[str] = mapped_column(
        String(20),
        comment="look: for due rows. refused: a delivery cannot be stored. published: a dead letter was, again."
        " owned: by the worker that has counted last.",
    )
    asked: Mapped[int] = mapped_column(
        Integer, server_default=text("1"), comment="How often a look was asked for, or the partition assigned."
    )
    marked_at: Mapped[datetime] = mapped_column(
        UtcTimestamp,
        server_default=utc_now(),
        comment="When the look was last asked for, the delivery first refused, or the dead letter last published.",
    )
