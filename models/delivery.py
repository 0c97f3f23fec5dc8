"""Stored deliveries, their payloads, and operational events."""

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
    PrimaryKeyConstraint,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from models.base import AHEAD, Base, Flag, Id, UtcTimestamp, is_json, utc_now
from models.subscription import TENANT_LENGTH, URL_LENGTH

GROUP_LENGTH = 255  # Kafka's own limits: a group id here, a topic's name below
TOPIC_LENGTH = 249
ERROR_LENGTH = 1000
RESPONSE_LENGTH = 2000
ORDER_KEY_LENGTH = 32
CONTENT_TYPE_LENGTH = 1000
TRACEPARENT_LENGTH = 255

RECORD = ("group_id", "topic", "partition_no", "record_offset", "record_ts")


class Status(StrEnum):
    """The state of a stored delivery."""

    PARKED = "parked"  # open; sent when due
    BLOCKED = "blocked"  # open; an earlier delivery of its subscription and key goes first
    HELD = "held"  # open; its subscription is disabled
    EXHAUSTED = "exhausted"  # given up
    DELIVERED = "delivered"  # kept until the committed offset has passed its record


class Payload(Base):
    """A record, stored once for each consumer group with deliveries of it. `record_ts` is in milliseconds.

    Oracle keeps an empty string as NULL: an empty body reads as NULL, and `has_key` tells an empty key from none.
    """

    __tablename__ = "webhook_payloads"
    __table_args__ = (
        PrimaryKeyConstraint(*RECORD, name="pk_webhook_payloads"),
        CheckConstraint("has_key IN (0, 1)", name="ck_webhook_payloads_has_key"),
        *is_json("record_headers", "ck_webhook_payloads_headers"),
        {"comment": "Kafka records that stored deliveries will send, once for each consumer group."},
    )

    group_id: Mapped[str] = mapped_column(String(GROUP_LENGTH), comment="Kafka consumer group.")
    topic: Mapped[str] = mapped_column(String(TOPIC_LENGTH), comment="Kafka topic of the record.")
    partition_no: Mapped[int] = mapped_column(Integer, comment="Partition of the record.")
    record_offset: Mapped[int] = mapped_column(BigInteger, comment="Offset of the record.")
    record_ts: Mapped[int] = mapped_column(
        BigInteger, comment="Timestamp of the record in milliseconds. Tells a topic that was made anew from the old."
    )
    event_type: Mapped[str] = mapped_column(String(1000), comment="Type of the event.")
    webhook_id: Mapped[str] = mapped_column(String(255), comment="Id of the event as receivers see it.")
    content_type: Mapped[str | None] = mapped_column(
        String(CONTENT_TYPE_LENGTH), comment="Content type of the body. Null: none."
    )
    traceparent: Mapped[str | None] = mapped_column(
        String(TRACEPARENT_LENGTH), comment="W3C trace context. Null: none."
    )
    created_at: Mapped[datetime] = mapped_column(
        UtcTimestamp, server_default=utc_now(), comment="When the row was made."
    )
    has_key: Mapped[int] = mapped_column(
        Flag, server_default=text("0"), comment="1: the record has a key, which may be empty. 0: it has none."
    )
    body_size: Mapped[int] = mapped_column(Integer, server_default=text("0"), comment="Bytes of the body.")
    record_key: Mapped[bytes | None] = mapped_column(LargeBinary, comment="Key of the record. Null: none, or empty.")
    body: Mapped[bytes | None] = mapped_column(LargeBinary, comment="Value of the record. Null: empty.")
    tenant: Mapped[str | None] = mapped_column(String(TENANT_LENGTH), comment="Tenant of the event. Null: none.")
    record_headers: Mapped[str | None] = mapped_column(
        Text, comment="Headers of the record, as a JSON object: texts, nulls, and objects with base64. Null: none."
    )


class ParkedDelivery(Base):
    """A stored delivery of an event to a subscription: open, given up, or delivered.

    There is no foreign key to the subscription: the row outlives it and records the outcome.
    `attempt` is the number of attempts made; each change of the row names the number that its writer has seen.
    `schedule_start` of them were made before the present retry schedule began: a redelivery begins a new one.
    `order_key` is a digest of the record's key if the subscription is ordered. `replay` is the id of the replay that
    read the record again, or 0.
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
        CheckConstraint("filter_pending IN (0, 1)", name="ck_webhook_deliveries_pending"),
        # Due rows by partition and subscription: each worker reads its own ones, and only as many as it has room for.
        Index(
            "ix_webhook_deliveries_head",
            *("group_id", "status", "topic", "partition_no", "subscription_id", "next_attempt_at", "id"),
        ),
        # Searches, newest first: of a subscription, and of a status.
        Index("ix_webhook_deliveries_receiver", "subscription_id", "status", "id"),
        Index("ix_webhook_deliveries_state", "status", "id", "subscription_id"),
        # Single seeks find the first rows of an ordered key, and the topics and partitions with rows of a status.
        Index(
            "ix_webhook_deliveries_order",
            *("group_id", "status", "topic", "partition_no", "order_key", "subscription_id", "record_offset"),
        ),
        # Oracle leaves null out: what the exhausted topic lacks is found without a search. While none is set: all that
        # were given up.
        Index("ix_webhook_deliveries_given_up", "unpublished_by"),
        {
            "sqlite_autoincrement": True,
            "comment": "Deliveries that left memory: owed, given up, or delivered from here.",
        },
    )

    id: Mapped[int] = mapped_column(
        Id, Identity(cache=AHEAD), primary_key=True, comment="Key, given by the database. Never used again."
    )
    group_id: Mapped[str] = mapped_column(String(GROUP_LENGTH), comment="Kafka consumer group whose workers send it.")
    topic: Mapped[str] = mapped_column(String(TOPIC_LENGTH), comment="Kafka topic of its record.")
    partition_no: Mapped[int] = mapped_column(Integer, comment="Partition of its record.")
    record_offset: Mapped[int] = mapped_column(BigInteger, comment="Offset of its record.")
    record_ts: Mapped[int] = mapped_column(BigInteger, comment="Timestamp of its record in milliseconds.")
    subscription_id: Mapped[int] = mapped_column(
        Id, comment="Id of its subscription. No foreign key: the row outlives the subscription."
    )
    replay: Mapped[int] = mapped_column(
        Integer,
        server_default=text("0"),
        comment="webhook_replays.id of the replay that read its record again. 0: none.",
    )
    url: Mapped[str] = mapped_column(
        String(URL_LENGTH), comment="URL of its subscription when it was stored. It is sent to the present URL."
    )
    status: Mapped[str] = mapped_column(
        String(10),
        server_default=text("'parked'"),
        comment="parked, blocked and held: owed. exhausted: given up. delivered: done.",
    )
    attempt: Mapped[int] = mapped_column(Integer, server_default=text("0"), comment="Attempts made.")
    next_attempt_at: Mapped[datetime | None] = mapped_column(
        UtcTimestamp, server_default=utc_now(), comment="When a parked delivery is due."
    )
    first_attempt_at: Mapped[datetime | None] = mapped_column(UtcTimestamp, comment="When it was tried first.")
    last_status: Mapped[int | None] = mapped_column(
        Integer, comment="HTTP status of the last attempt. Null: no answer."
    )
    last_error: Mapped[str | None] = mapped_column(
        String(ERROR_LENGTH), comment="Why the last attempt failed, or why it was given up."
    )
    created_at: Mapped[datetime] = mapped_column(
        UtcTimestamp, server_default=utc_now(), comment="When the row was made."
    )
    updated_at: Mapped[datetime] = mapped_column(
        UtcTimestamp, server_default=utc_now(), comment="When the row was changed last."
    )
    order_key: Mapped[str | None] = mapped_column(
        String(ORDER_KEY_LENGTH),
        comment="Digest of the key of its record, where the subscription was ordered. Null: not ordered.",
    )
    schedule_start: Mapped[int] = mapped_column(
        Integer, server_default=text("0"), comment="Attempts made before the present retry schedule began."
    )
    filter_pending: Mapped[int] = mapped_column(
        Flag, server_default=text("0"), comment="1: the filter of its subscription is asked before it is sent."
    )
    first_status: Mapped[int | None] = mapped_column(
        Integer, comment="HTTP status of the first attempt. Null: no answer."
    )
    first_error: Mapped[str | None] = mapped_column(String(ERROR_LENGTH), comment="Why the first attempt failed.")
    last_attempt_at: Mapped[datetime | None] = mapped_column(UtcTimestamp, comment="When it was tried last.")
    last_response: Mapped[str | None] = mapped_column(
        String(RESPONSE_LENGTH),
        comment="Start of the last failed answer, escaped to ASCII. Untrusted: the receiver wrote it.",
    )
    unpublished_by: Mapped[str | None] = mapped_column(
        String(GROUP_LENGTH),
        comment="Its group, from when it is given up until KAFKA_EXHAUSTED_TOPIC has its event. Null: else.",
    )
    published_attempt: Mapped[int | None] = mapped_column(
        Integer, comment="Attempts made when KAFKA_EXHAUSTED_TOPIC got its event last. Null: never."
    )


class StoredOperation(Base):
    """An operational event that is not published yet. `data` is JSON."""

    __tablename__ = "webhook_operations"
    __table_args__ = (
        UniqueConstraint("group_id", "event_id", name="uq_webhook_operations_event"),
        *is_json("data", "ck_webhook_operations_data"),
        {"sqlite_autoincrement": True, "comment": "Operational events that are not published to Kafka yet."},
    )

    id: Mapped[int] = mapped_column(
        Id,
        Identity(cache=AHEAD),
        primary_key=True,
        comment="Key, given by the database. Published in their order, as far as ids have one.",
    )
    group_id: Mapped[str] = mapped_column(
        String(GROUP_LENGTH), comment="Kafka consumer group whose workers publish it."
    )
    event_id: Mapped[str] = mapped_column(String(255), comment="Id of the CloudEvent.")
    event_type: Mapped[str] = mapped_column(
        String(255), comment="Type of the CloudEvent, such as subscription.disabled."
    )
    created_at: Mapped[datetime] = mapped_column(
        UtcTimestamp, server_default=utc_now(), comment="When it was written down."
    )
    data: Mapped[str] = mapped_column(Text, comment="Its data, as JSON.")
