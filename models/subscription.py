"""Who wants which events, and the secrets that sign for them."""

from datetime import datetime

from sqlalchemy import TIMESTAMP, CheckConstraint, ForeignKey, Identity, Index, Integer, Numeric, String, text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Flag, Id, UtcTimestamp

URL_LENGTH = 2048
EVENT_TYPE_LENGTH = 255
REASON_LENGTH = 1000
SECRET_LENGTH = 1000
SCHEDULE_LENGTH = 500
STATUSES_LENGTH = 255


class Subscription(Base):
    """A url that gets every event of one type. `url` and `event_type` alone make a working one.

    Ids are never used again (AUTOINCREMENT on SQLite): deliveries stored for a removed subscription must not go to a
    later one. Null in `max_in_flight`, `rate_limit` (deliveries per second), `retry_schedule` or `final_statuses`: as
    the deployment has it. `failing_since`: no attempt has succeeded since.
    """

    __tablename__ = "webhook_subscriptions"
    __table_args__ = (
        CheckConstraint("enabled IN (0, 1)", name="ck_webhook_subs_enabled"),
        CheckConstraint("ordering IN ('none', 'key')", name="ck_webhook_subs_ordering"),
        CheckConstraint("max_in_flight >= 1", name="ck_webhook_subs_in_flight"),
        CheckConstraint("rate_limit > 0", name="ck_webhook_subs_rate_limit"),
        Index("ix_webhook_subs_event_type", "event_type", "enabled"),
        {
            "sqlite_autoincrement": True,
            "comment": "Who wants which events. One row is one receiver of one event type.",
        },
    )

    id: Mapped[int] = mapped_column(
        Id, Identity(), primary_key=True, comment="Key, given by the database. Never used again."
    )
    url: Mapped[str] = mapped_column(String(URL_LENGTH), comment="Where to POST. Visible ASCII.")
    event_type: Mapped[str] = mapped_column(
        String(EVENT_TYPE_LENGTH), comment="Which events, compared as a whole. Upper and lower case differ."
    )
    created_at: Mapped[datetime | None] = mapped_column(
        TIMESTAMP,
        server_default=text("CURRENT_TIMESTAMP"),
        comment="When the row was made, in the time zone of the session that made it.",
    )
    enabled: Mapped[int] = mapped_column(
        Flag, server_default=text("1"), comment="1: gets events. 0: matches nothing, and what is stored for it is held."
    )
    disabled_reason: Mapped[str | None] = mapped_column(String(REASON_LENGTH), comment="Why it was disabled.")
    ordering: Mapped[str] = mapped_column(
        String(10),
        server_default=text("'none'"),
        comment="none, or key: the events of one key go one at a time, in order.",
    )
    max_in_flight: Mapped[int | None] = mapped_column(
        Integer, comment="Requests open at once, of all workers together. Null: no limit."
    )
    rate_limit: Mapped[float | None] = mapped_column(
        Numeric(9, 3, asdecimal=False), comment="Deliveries a second, of all workers together. Null: no limit."
    )
    retry_schedule: Mapped[str | None] = mapped_column(
        String(SCHEDULE_LENGTH), comment="Waits between attempts, such as 5s,5m,1h. Null: those of the deployment."
    )
    final_statuses: Mapped[str | None] = mapped_column(
        String(STATUSES_LENGTH), comment="Answers after which there is no further attempt, such as 400,422,4xx."
    )
    failing_since: Mapped[datetime | None] = mapped_column(
        UtcTimestamp, comment="No attempt has succeeded since then. Written by workers."
    )


class SubscriptionSecret(Base):
    """A signing secret of one subscription: `fernet:` and a token, or as it is. It signs until `expires_at`."""

    __tablename__ = "webhook_secrets"
    __table_args__ = (
        Index("ix_webhook_secrets_sub", "subscription_id"),
        {"sqlite_autoincrement": True, "comment": "Signing secrets of subscriptions that have their own."},
    )

    id: Mapped[int] = mapped_column(Id, Identity(), primary_key=True, comment="Key, given by the database.")
    subscription_id: Mapped[int] = mapped_column(
        Id,
        ForeignKey(Subscription.id, name="fk_webhook_secrets_sub", ondelete="CASCADE"),
        comment="Whose secret it is. Goes with its subscription.",
    )
    secret: Mapped[str] = mapped_column(
        String(SECRET_LENGTH),
        comment="whsec_ and base64, any other text, or fernet: and a token (encrypted). Confidential.",
    )
    created_at: Mapped[datetime] = mapped_column(
        UtcTimestamp, server_default=text("CURRENT_TIMESTAMP"), comment="When it was made. The newest signs first."
    )
    expires_at: Mapped[datetime | None] = mapped_column(UtcTimestamp, comment="Signs until then. Null: for ever.")
