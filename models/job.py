"""Replays, and the idempotency keys of requests."""

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, Identity, Index, Numeric, PrimaryKeyConstraint, String, text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import AHEAD, Base, Flag, Id, UtcTimestamp, utc_now
from models.delivery import GROUP_LENGTH

ACTOR_LENGTH = 100
DIGEST_LENGTH = 64  # of SHA-256, in hex


class StoredReplay(Base):
    """The request of a replay. Its cursors in webhook_cursors say how far it has come; they go when they end.

    Ids are never reused, because cursors and stored deliveries name them.
    """

    __tablename__ = "webhook_replays"
    __table_args__ = (
        CheckConstraint("ordered IN (0, 1)", name="ck_webhook_replays_ordered"),
        {"sqlite_autoincrement": True, "comment": "Replays: the request of each, and when it ended."},
    )

    id: Mapped[int] = mapped_column(
        Id,
        Identity(cache=AHEAD),
        primary_key=True,
        comment="Key, given by the database. Never used again: deliveries name it.",
    )
    group_id: Mapped[str] = mapped_column(
        String(GROUP_LENGTH), comment="Kafka consumer group whose workers read and send."
    )
    subscription_id: Mapped[int] = mapped_column(Id, comment="Id of its subscription.")
    since_at: Mapped[datetime] = mapped_column(UtcTimestamp, comment="Records from then on, by their own timestamps.")
    until_at: Mapped[datetime] = mapped_column(UtcTimestamp, comment="Records before then.")
    event_type: Mapped[str | None] = mapped_column(
        String(1000), comment="Only events of this type. Null: that of the subscription."
    )
    rate: Mapped[float] = mapped_column(Numeric(9, 3, asdecimal=False), comment="Deliveries a second.")
    ordered: Mapped[int] = mapped_column(
        Flag, server_default=text("0"), comment="1: it keeps the order of each record key. 0: it keeps none."
    )
    record_count: Mapped[int] = mapped_column(BigInteger, comment="Records to read when it began.")
    created_at: Mapped[datetime] = mapped_column(UtcTimestamp, server_default=utc_now(), comment="When it began.")
    created_by: Mapped[str | None] = mapped_column(String(ACTOR_LENGTH), comment="Who began it. Null: not noted.")
    finished_at: Mapped[datetime | None] = mapped_column(
        UtcTimestamp, comment="When all was read, and delivered or stored. Null: it was not."
    )
    cancelled_at: Mapped[datetime | None] = mapped_column(
        UtcTimestamp, comment="When it was cancelled, and reading ended. Null: it was not, or goes on again."
    )


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
