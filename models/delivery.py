"""Deliveries that left memory, and the bytes they will send."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Numeric,
    PrimaryKeyConstraint,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Flag, Id, UtcTimestamp
from models.subscription import URL_LENGTH

GROUP_LENGTH = 255  # Kafka's own limits: a group id here, a topic's name below
TOPIC_LENGTH = 249
ERROR_LENGTH = 1000
RESPONSE_LENGTH = 2000
ORDER_KEY_LENGTH = 32
CONTENT_TYPE_LENGTH = 1000
TRACEPARENT_LENGTH = 255

RECORD = ("group_id", "topic", "partition_no", "record_offset", "record_ts")


class Status(StrEnum):
    """Where a stored delivery stands."""

    PARKED = "parked"  # owed; sent when due
    BLOCKED = "blocked"  # owed; an earlier one of its subscription and key goes first
    HELD = "held"  # owed; its subscription is disabled
    EXHAUSTED = "exhausted"  # given up
    DELIVERED = "delivered"  # kept until the committed offset has passed its record


class Payload(Base):
    """A record, once for each consumer group that stored deliveries of it. `record_ts` is in milliseconds.

    Oracle keeps an empty string as NULL: an empty body reads as NULL, and `has_key` tells an empty key from none.
    """

    __tablename__ = "webhook_payloads"
    __table_args__ = (
        PrimaryKeyConstraint(*RECORD, name="pk_webhook_payloads"),
        CheckConstraint("has_key IN (0, 1)", name="ck_webhook_payloads_has_key"),
    )

    group_id: Mapped[str] = mapped_column(String(GROUP_LENGTH))
    topic: Mapped[str] = mapped_column(String(TOPIC_LENGTH))
    partition_no: Mapped[int] = mapped_column(Integer)
    record_offset: Mapped[int] = mapped_column(BigInteger)
    record_ts: Mapped[int] = mapped_column(BigInteger)
    event_type: Mapped[str] = mapped_column(String(1000))
    webhook_id: Mapped[str] = mapped_column(String(255))
    content_type: Mapped[str | None] = mapped_column(String(CONTENT_TYPE_LENGTH))
    traceparent: Mapped[str | None] = mapped_column(String(TRACEPARENT_LENGTH))
    created_at: Mapped[datetime] = mapped_column(UtcTimestamp, server_default=text("CURRENT_TIMESTAMP"))
    has_key: Mapped[int] = mapped_column(Flag, server_default=text("0"))
    body_size: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    record_key: Mapped[bytes | None] = mapped_column(LargeBinary)
    body: Mapped[bytes | None] = mapped_column(LargeBinary)


class ParkedDelivery(Base):
    """An event owed to a subscription, or given up, or delivered from here.

    No foreign key to the subscription: the row outlives it and says what became of the event.
    `attempt` is the number of attempts made; whoever changes the row names the number it has seen. `schedule_start` of
    them were made before the present retry schedule began: redelivery begins a new one. `order_key` is a digest of the
    record's key where the subscription is ordered. `replay` is 0, or the replay that read the record again.
    """

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        UniqueConstraint(*RECORD, "subscription_id", "replay", name="uq_webhook_deliveries_record"),
        ForeignKeyConstraint(
            RECORD, [f"webhook_payloads.{name}" for name in RECORD], name="fk_webhook_deliveries_payload"
        ),
        CheckConstraint(
            "status IN ('parked', 'blocked', 'held', 'exhausted', 'delivered')", name="ck_webhook_deliveries_status"
        ),
        CheckConstraint("status <> 'parked' OR next_attempt_at IS NOT NULL", name="ck_webhook_deliveries_due"),
        # What is due, by partition and subscription: each worker reads its own, and only what it has room for.
        Index(
            "ix_webhook_deliveries_head",
            *("group_id", "status", "topic", "partition_no", "subscription_id", "next_attempt_at", "id"),
        ),
        Index("ix_webhook_deliveries_sub", "subscription_id", "status"),
        # Where each ordered key stands, and which topics and partitions have rows of a status: found by single seeks.
        Index(
            "ix_webhook_deliveries_order",
            *("group_id", "status", "topic", "partition_no", "order_key", "subscription_id", "record_offset"),
        ),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(Id, Identity(), primary_key=True)
    group_id: Mapped[str] = mapped_column(String(GROUP_LENGTH))
    topic: Mapped[str] = mapped_column(String(TOPIC_LENGTH))
    partition_no: Mapped[int] = mapped_column(Integer)
    record_offset: Mapped[int] = mapped_column(BigInteger)
    record_ts: Mapped[int] = mapped_column(BigInteger)
    subscription_id: Mapped[int] = mapped_column(Id)
    replay: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    url: Mapped[str] = mapped_column(String(URL_LENGTH))
    status: Mapped[str] = mapped_column(String(10), server_default=text("'parked'"))
    attempt: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    next_attempt_at: Mapped[datetime | None] = mapped_column(UtcTimestamp, server_default=text("CURRENT_TIMESTAMP"))
    first_attempt_at: Mapped[datetime | None] = mapped_column(UtcTimestamp)
    last_status: Mapped[int | None] = mapped_column(Integer)
    last_error: Mapped[str | None] = mapped_column(String(ERROR_LENGTH))
    created_at: Mapped[datetime] = mapped_column(UtcTimestamp, server_default=text("CURRENT_TIMESTAMP"))
    updated_at: Mapped[datetime] = mapped_column(UtcTimestamp, server_default=text("CURRENT_TIMESTAMP"))
    order_key: Mapped[str | None] = mapped_column(String(ORDER_KEY_LENGTH))
    schedule_start: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    first_status: Mapped[int | None] = mapped_column(Integer)
    first_error: Mapped[str | None] = mapped_column(String(ERROR_LENGTH))
    last_attempt_at: Mapped[datetime | None] = mapped_column(UtcTimestamp)
    last_response: Mapped[str | None] = mapped_column(String(RESPONSE_LENGTH))


class StoredOperation(Base):
    """An operational event that is not published yet. `data` is JSON."""

    __tablename__ = "webhook_operations"
    __table_args__ = (
        UniqueConstraint("group_id", "event_id", name="uq_webhook_operations_event"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(Id, Identity(), primary_key=True)
    group_id: Mapped[str] = mapped_column(String(GROUP_LENGTH))
    event_id: Mapped[str] = mapped_column(String(255))
    event_type: Mapped[str] = mapped_column(String(255))
    created_at: Mapped[datetime] = mapped_column(UtcTimestamp, server_default=text("CURRENT_TIMESTAMP"))
    data: Mapped[str] = mapped_column(Text)


class StoredReplay(Base):
    """A replay: what it reads, how far it is (`positions`, JSON) and how many deliveries it has stored.

    Ids are never used again: the rows of a replay name it.
    """

    __tablename__ = "webhook_replays"
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[int] = mapped_column(Id, Identity(), primary_key=True)
    group_id: Mapped[str] = mapped_column(String(GROUP_LENGTH))
    subscription_id: Mapped[int] = mapped_column(Id)
    since_at: Mapped[datetime] = mapped_column(UtcTimestamp)
    until_at: Mapped[datetime] = mapped_column(UtcTimestamp)
    event_type: Mapped[str | None] = mapped_column(String(1000))
    rate: Mapped[float] = mapped_column(Numeric(9, 3, asdecimal=False))
    matched: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    created_at: Mapped[datetime] = mapped_column(UtcTimestamp, server_default=text("CURRENT_TIMESTAMP"))
    finished_at: Mapped[datetime | None] = mapped_column(UtcTimestamp)
    positions: Mapped[str] = mapped_column(Text)
