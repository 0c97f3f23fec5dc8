"""Replays, and the idempotency keys of requests."""

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, Identity, Index, Numeric, PrimaryKeyConstraint, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Flag, Id, UtcTimestamp, is_json, utc_now
from models.delivery import ERROR_LENGTH, GROUP_LENGTH

ACTOR_LENGTH = 100
DIGEST_LENGTH = 64  # of SHA-256, in hex


class StoredReplay(Base):
    """A replay: its query, the spans left to read (`positions`, JSON) and the number of deliveries it has stored.

    Ids are never reused, because the rows of a replay refer to it.
    """

    __tablename__ = "webhook_replays"
    __table_args__ = (
        CheckConstraint("background IN (0, 1)", name="ck_webhook_replays_background"),
        *is_json("positions", "ck_webhook_replays_positions"),
        {"sqlite_autoincrement": True, "comment": "Replays: the request and the progress of each."},
    )

    id: Mapped[int] = mapped_column(
        Id, Identity(), primary_key=True, comment="Key, given by the database. Never used again: deliveries name it."
    )
    group_id: Mapped[str] = mapped_column(
        String(GROUP_LENGTH), comment="Kafka consumer group whose workers send the deliveries."
    )
    subscription_id: Mapped[int] = mapped_column(Id, comment="Id of its subscription.")
    since_at: Mapped[datetime] = mapped_column(UtcTimestamp, comment="Records from then on, by their own timestamps.")
    until_at: Mapped[datetime] = mapped_column(UtcTimestamp, comment="Records before then.")
    event_type: Mapped[str | None] = mapped_column(
        String(1000), comment="Only events of this type. Null: that of the subscription."
    )
    rate: Mapped[float] = mapped_column(Numeric(9, 3, asdecimal=False), comment="Deliveries a second.")
    matched: Mapped[int] = mapped_column(BigInteger, server_default=text("0"), comment="Deliveries stored so far.")
    created_at: Mapped[datetime] = mapped_column(UtcTimestamp, server_default=utc_now(), comment="When it began.")
    finished_at: Mapped[datetime | None] = mapped_column(
        UtcTimestamp, comment="When all was read and stored. Null: it can be resumed."
    )
    positions: Mapped[str] = mapped_column(
        Text, comment="Spans left to read, as JSON: topic, partition, next offset and end."
    )
    record_count: Mapped[int | None] = mapped_column(BigInteger, comment="Records to read when it began.")
    cancelled_at: Mapped[datetime | None] = mapped_column(
        UtcTimestamp, comment="When it was cancelled, and reading ended. Null: it was not."
    )
    background: Mapped[int] = mapped_column(
        Flag, server_default=text("0"), comment="1: processes of the API run it. 0: the command that began it does."
    )
    lease_until: Mapped[datetime | None] = mapped_column(
        UtcTimestamp, comment="Until then one API process runs it, and the others leave it alone. Null: none does."
    )
    last_error: Mapped[str | None] = mapped_column(
        String(ERROR_LENGTH), comment="Why it makes no progress. Null: it does."
    )
    created_by: Mapped[str | None] = mapped_column(String(ACTOR_LENGTH), comment="Who began it. Null: not noted.")


class RequestKey(Base):
    """An idempotency key of the API: the request that came with it, and the resource that this created."""

    __tablename__ = "webhook_request_keys"
    __table_args__ = (
        PrimaryKeyConstraint("key_digest", name="pk_webhook_request_keys"),
        Index("ix_webhook_request_keys_age", "created_at"),
        {"comment": "Idempotency keys of the last day, so that a repeated request creates nothing twice."},
    )

    key_digest: Mapped[str] = mapped_column(
        String(DIGEST_LENGTH), comment="SHA-256 of the caller, the path and the key, in hex."
    )
    request_digest: Mapped[str] = mapped_column(
        String(DIGEST_LENGTH), comment="HMAC-SHA256 of the body, keyed by the key, in hex."
    )
    resource_id: Mapped[int] = mapped_column(BigInteger, comment="Id of the resource that it created.")
    created_at: Mapped[datetime] = mapped_column(
        UtcTimestamp, server_default=utc_now(), comment="When the row was made."
    )
