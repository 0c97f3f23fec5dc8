"""Requests (wishes) of operators and of other workers to the worker that owns a partition."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import BigInteger, CheckConstraint, Index, Integer, PrimaryKeyConstraint, String, text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Id, UtcTimestamp, utc_now
from models.delivery import GROUP_LENGTH, TOPIC_LENGTH

NO_OFFSET = -1
ALL_SUBSCRIPTIONS = 0


class Wish(StrEnum):
    """The kind of a wish."""

    LOOK = "look"  # look for stored deliveries that another process has made due
    DEAD_LETTER = "dead_letter"  # write the record of a delivery that the database refuses to the dead-letter topic
    GIVE_UP = "give_up"  # do not deliver a delivery that the database refuses


class Mark(Base):
    """A wish about the rows of a partition and a subscription (NO_OFFSET), or about a delivery that cannot be stored.

    A repeated wish is the same row with a higher `asked`. A decision stands until the group's offset has passed its
    record, because a restart before that meets the delivery again.
    """

    __tablename__ = "webhook_marks"
    __table_args__ = (
        PrimaryKeyConstraint(
            *("group_id", "topic", "partition_no", "record_offset", "subscription_id"), name="pk_webhook_marks"
        ),
        CheckConstraint("wish IN ('look', 'dead_letter', 'give_up')", name="ck_webhook_marks_wish"),
        # Each worker looks for recent marks every few seconds.
        Index("ix_webhook_marks_time", "group_id", "marked_at"),
        {"comment": "Requests to the worker of a partition: to look for rows, or to end a delivery."},
    )

    group_id: Mapped[str] = mapped_column(String(GROUP_LENGTH), comment="Kafka consumer group of the worker.")
    topic: Mapped[str] = mapped_column(String(TOPIC_LENGTH), comment="Kafka topic.")
    partition_no: Mapped[int] = mapped_column(Integer, comment="Partition of the topic.")
    record_offset: Mapped[int] = mapped_column(
        BigInteger, comment="Offset of the record that is decided on. -1: about stored deliveries that are due."
    )
    subscription_id: Mapped[int] = mapped_column(Id, comment="Id of the subscription. 0: all subscriptions.")
    wish: Mapped[str] = mapped_column(
        String(20),
        comment="look: for due rows. dead_letter, give_up: the decision on a delivery that cannot be stored.",
    )
    asked: Mapped[int] = mapped_column(Integer, server_default=text("1"), comment="How often the request was made.")
    marked_at: Mapped[datetime] = mapped_column(
        UtcTimestamp, server_default=utc_now(), comment="When the request was last made."
    )
    done_at: Mapped[datetime | None] = mapped_column(
        UtcTimestamp, comment="When a worker last acted on a decision. Null: not yet."
    )
