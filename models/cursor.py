"""Positions of subscriptions that are behind their partitions."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Identity,
    Index,
    Integer,
    String,
    UniqueConstraint,
    or_,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from models.base import AHEAD, Base, Id, UtcTimestamp, utc_now
from models.delivery import GROUP_LENGTH, TOPIC_LENGTH
from models.subscription import Subscription

RUNS_LENGTH = 4000
TOPIC_IDENTITY_LENGTH = 60


class CursorReason(StrEnum):
    """Why a subscription reads a partition at a position of its own."""

    PAUSED = "paused"  # an operator, or days of failure, paused the subscription
    BEHIND = "behind"  # its receiver takes events more slowly than they come, or not at all
    START = "start"  # it began in the past
    REPLAY = "replay"  # events are sent once more


class StoredCursor(Base):
    """A position in a partition, from which a subscription gets its events apart from the live stream.

    The live stream leaves to it the offsets from `first_offset` to before `end_offset` (null: all that come), unless
    it is a replay's. Offsets below `next_offset`, and those in `settled_runs`, are settled. `record_ts` is the
    timestamp of the record at `next_offset`, as far as known, and retention removes that record at `expires_at`.
    """

    __tablename__ = "webhook_cursors"
    __table_args__ = (
        UniqueConstraint(
            *("group_id", "topic", "partition_no", "subscription_id", "replay", "first_offset"),
            name="uq_webhook_cursors_place",
        ),
        CheckConstraint("reason IN ('paused', 'behind', 'start', 'replay')", name="ck_webhook_cursors_reason"),
        CheckConstraint("next_offset >= first_offset", name="ck_webhook_cursors_next"),
        CheckConstraint("end_offset >= next_offset", name="ck_webhook_cursors_end"),
        # Of a subscription, and for the cascade from it.
        Index("ix_webhook_cursors_sub", "subscription_id"),
        # For those whose next record retention removes soon.
        Index("ix_webhook_cursors_expires", "expires_at"),
        {
            "sqlite_autoincrement": True,
            "comment": "Positions from which subscriptions that are behind get their events from the log.",
        },
    )

    id: Mapped[int] = mapped_column(
        Id, Identity(cache=AHEAD), primary_key=True, comment="Key, given by the database. Never used again."
    )
    group_id: Mapped[str] = mapped_column(String(GROUP_LENGTH), comment="Kafka consumer group whose workers send.")
    topic: Mapped[str] = mapped_column(String(TOPIC_LENGTH), comment="Kafka topic.")
    partition_no: Mapped[int] = mapped_column(Integer, comment="Partition of the topic.")
    subscription_id: Mapped[int] = mapped_column(
        Id,
        ForeignKey(Subscription.id, name="fk_webhook_cursors_sub", ondelete="CASCADE"),
        comment="Id of its subscription.",
    )
    replay: Mapped[int] = mapped_column(
        Integer, server_default=text("0"), comment="webhook_replays.id of the replay that it belongs to. 0: none."
    )
    reason: Mapped[str] = mapped_column(String(10), comment="paused, behind, start or replay.")
    first_offset: Mapped[int] = mapped_column(BigInteger, comment="Where it began.")
    next_offset: Mapped[int] = mapped_column(BigInteger, comment="Events below this offset are settled.")
    end_offset: Mapped[int | None] = mapped_column(
        BigInteger, comment="Where it ends. Null: where it meets the live stream."
    )
    settled_runs: Mapped[str | None] = mapped_column(
        String(RUNS_LENGTH), comment="Settled offsets above next_offset, encoded as in a commit. Null: none."
    )
    record_ts: Mapped[int | None] = mapped_column(
        BigInteger, comment="Timestamp in milliseconds of the record at next_offset. Null: not known."
    )
    expires_at: Mapped[datetime | None] = mapped_column(
        UtcTimestamp, comment="When retention removes that record. Null: not known, or never."
    )
    version: Mapped[int] = mapped_column(
        Integer, server_default=text("0"), comment="Rises with each change. Naming an old one changes nothing."
    )
    topic_identity: Mapped[str | None] = mapped_column(
        String(TOPIC_IDENTITY_LENGTH), comment="Id of the topic and of its cluster. Null: not known."
    )
    created_at: Mapped[datetime] = mapped_column(UtcTimestamp, server_default=utc_now(), comment="When it began.")
    updated_at: Mapped[datetime] = mapped_column(UtcTimestamp, server_default=utc_now(), comment="When it last moved.")


UNFINISHED = or_(StoredCursor.end_offset.is_(None), StoredCursor.end_offset > StoredCursor.next_offset)
"""The cursor owes events."""
