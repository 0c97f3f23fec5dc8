"""Subscriptions to events, and the secrets that sign for them."""

from datetime import datetime

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    Numeric,
    String,
    Text,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from models.base import AHEAD, Base, Flag, Id, LocalTimestamp, UtcTimestamp, is_json, utc_now

URL_LENGTH = 2048
EVENT_TYPE_LENGTH = 255
REASON_LENGTH = 1000
SECRET_LENGTH = 4000  # bytes of a VARCHAR2; a token of some 2,900 characters, encrypted
SCHEDULE_LENGTH = 500
STATUSES_LENGTH = 255
TENANT_LENGTH = 255
TOPICS_LENGTH = 1000
EXPRESSION_LENGTH = 2000  # characters; Oracle keeps 4000 bytes of them
HEADER_NAME_LENGTH = 100
PREFIX_LENGTH = 50
HEADERS_LENGTH = 2000
NAMES_LENGTH = 1000
TEMPLATE_LENGTH = 1000
NAME_LENGTH = 200
EXTERNAL_ID_LENGTH = 255
METADATA_LENGTH = 2000
EVERY_TENANT = "*"
# Only migrations have these keys, as each database writes them in its own way: (external_id, tenant) where there is an
# external id, which an index of Oracle leaves out only if all is null; (tenant, id), for SubscriptionType.
UNIQUE = frozenset(("ix_webhook_subs_external", "uq_webhook_subs_tenant"))


class Subscription(Base):
    """A URL that gets the events of a type or a pattern. `url` and `event_type` alone make a working subscription.

    Ids are never reused (AUTOINCREMENT on SQLite): deliveries stored for a removed subscription must not go to a later
    one. Null in `max_in_flight`, `rate_limit` (requests per second), `retry_schedule`, `final_statuses` or
    `timeout_seconds` means the deployment's setting. No attempt has succeeded since `failing_since`.
    Days of failure have paused it, and a success resumes it, if `probed_at` is not before `paused_at`. Its further
    types are rows of SubscriptionType.
    """

    __tablename__ = "webhook_subscriptions"
    __table_args__ = (
        CheckConstraint("enabled IN (0, 1)", name="ck_webhook_subs_enabled"),
        CheckConstraint("ordering IN ('none', 'key')", name="ck_webhook_subs_ordering"),
        CheckConstraint("max_in_flight >= 1", name="ck_webhook_subs_in_flight"),
        CheckConstraint("rate_limit > 0", name="ck_webhook_subs_rate_limit"),
        CheckConstraint("timeout_seconds > 0", name="ck_webhook_subs_timeout"),
        CheckConstraint(
            "payload_format IN ('record', 'standard', 'cloudevents', 'cloudevents-binary')",
            name="ck_webhook_subs_format",
        ),
        CheckConstraint("batch_size BETWEEN 1 AND 1000", name="ck_webhook_subs_batch_size"),
        CheckConstraint("batch_wait_ms BETWEEN 0 AND 60000", name="ck_webhook_subs_batch_wait"),
        CheckConstraint("gzip_above >= 0", name="ck_webhook_subs_gzip"),
        CheckConstraint("http_version IN ('1.1', '2')", name="ck_webhook_subs_http"),
        CheckConstraint("method IN ('POST', 'PUT', 'PATCH', 'DELETE')", name="ck_webhook_subs_method"),
        CheckConstraint("starts IN (0, 1)", name="ck_webhook_subs_starts"),
        CheckConstraint("report_answer IN ('false', 'true')", name="ck_webhook_subs_report"),
        *is_json("custom_headers", "ck_webhook_subs_headers"),
        *is_json("header_expressions", "ck_webhook_subs_computed"),
        *is_json("metadata", "ck_webhook_subs_metadata"),
        Index("ix_webhook_subs_match", "event_type", "tenant", "enabled"),
        Index("ix_webhook_subs_failing", "failing_since"),  # few rows: Oracle leaves null out
        Index("ix_webhook_subs_paused", "paused_at"),  # the same
        Index("ix_webhook_subs_probed", "probed_at"),  # few rows, too
        Index("ix_webhook_subs_tenant", "tenant", "id"),  # a tenant's list, by id
        {
            "sqlite_autoincrement": True,
            "comment": "Subscriptions. One row is one receiver of an event type or pattern, or of several.",
        },
    )

    id: Mapped[int] = mapped_column(
        Id, Identity(), primary_key=True, comment="Key, given by the database. Never used again."
    )
    url: Mapped[str] = mapped_column(
        String(URL_LENGTH),
        comment="Where to send. Visible ASCII. Its path and query may have CEL expressions in braces.",
    )
    event_type: Mapped[str] = mapped_column(
        String(EVENT_TYPE_LENGTH),
        comment="Which events: a type, order.* (one level below), order.** (any depth below), or * (all).",
    )
    created_at: Mapped[datetime | None] = mapped_column(
        LocalTimestamp,
        server_default=text("CURRENT_TIMESTAMP"),
        comment="When the row was made, in the time zone of the session that made it.",
    )
    enabled: Mapped[int] = mapped_column(
        Flag,
        server_default=text("1"),
        comment="1: gets events. 0: matches nothing, and its stored deliveries are held.",
    )
    disabled_reason: Mapped[str | None] = mapped_column(String(REASON_LENGTH), comment="Why it was disabled.")
    paused_at: Mapped[datetime | None] = mapped_column(
        UtcTimestamp,
        comment="Since when nothing is sent, while its events are owed. Null: it is not paused.",
    )
    paused_reason: Mapped[str | None] = mapped_column(String(REASON_LENGTH), comment="Why it was paused.")
    probed_at: Mapped[datetime | None] = mapped_column(
        UtcTimestamp,
        comment="When failures paused it, or its receiver was last probed since. Before paused_at or null: not probed.",
    )
    starts: Mapped[int] = mapped_column(
        Flag,
        server_default=text("0"),
        comment="1: it began in the past, and a cursor of this may be left. 0: it did not.",
    )
    ordering: Mapped[str] = mapped_column(
        String(10),
        server_default=text("'none'"),
        comment="none, or key: the events of one key go one at a time, in order.",
    )
    max_in_flight: Mapped[int | None] = mapped_column(
        Integer, comment="Requests open at once, of all workers together. Null: no limit."
    )
    rate_limit: Mapped[float | None] = mapped_column(
        Numeric(9, 3, asdecimal=False), comment="Requests a second, of all workers together. Null: no limit."
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
    tenant: Mapped[str] = mapped_column(
        String(TENANT_LENGTH),
        server_default=text(f"'{EVERY_TENANT}'"),
        comment="Only events of this tenant. *: of any tenant, and those without one.",
    )
    topics: Mapped[str | None] = mapped_column(
        String(TOPICS_LENGTH), comment="Only records of these topics, comma-separated. Null: of all."
    )
    event_filter: Mapped[str | None] = mapped_column(
        String(EXPRESSION_LENGTH), comment="Only events for which this CEL expression is true. Null: all."
    )
    timeout_seconds: Mapped[float | None] = mapped_column(
        Numeric(9, 3, asdecimal=False), comment="Limit of a whole exchange. Null: that of the deployment."
    )
    payload_format: Mapped[str] = mapped_column(
        String(20),
        server_default=text("'record'"),
        comment="record: as it came. standard: type, timestamp, data. cloudevents: structured CloudEvent. "
        "cloudevents-binary: ce- headers and the data.",
    )
    projection: Mapped[str | None] = mapped_column(
        String(EXPRESSION_LENGTH), comment="CEL expression whose value is sent in place of the data. Null: the data."
    )
    batch_size: Mapped[int | None] = mapped_column(
        Integer, comment="Events of one request, as an array. Null: each in a request of its own, no array."
    )
    batch_wait_ms: Mapped[int | None] = mapped_column(
        Integer, comment="How long a batch waits to be full, in milliseconds. Null: 1000."
    )
    signature_header: Mapped[str] = mapped_column(
        String(HEADER_NAME_LENGTH),
        server_default=text("'x-webhook-signature'"),
        comment="Name of the header with the hex HMAC-SHA256 of the body. none: it is not sent.",
    )
    signature_prefix: Mapped[str | None] = mapped_column(
        String(PREFIX_LENGTH), comment="Prefix of the hex digits, such as sha256=. Null: none."
    )
    signature_template: Mapped[str | None] = mapped_column(
        String(TEMPLATE_LENGTH),
        comment="Another signature: stripe, github, shopify, slack, paddle, or a JSON object. Null: none.",
    )
    custom_headers: Mapped[str | None] = mapped_column(
        String(HEADERS_LENGTH), comment="Further request headers, as a JSON object of texts. Null: none."
    )
    method: Mapped[str] = mapped_column(
        String(10), server_default=text("'POST'"), comment="POST, PUT, PATCH or DELETE."
    )
    header_expressions: Mapped[str | None] = mapped_column(
        String(HEADERS_LENGTH),
        comment="Request headers whose values are CEL expressions, as a JSON object. Null: none.",
    )
    pass_headers: Mapped[str | None] = mapped_column(
        String(NAMES_LENGTH),
        comment="Record headers that go on, such as x-*,correlation-id. Null: none.",
    )
    report_answer: Mapped[str] = mapped_column(
        String(5),
        server_default=text("'false'"),
        comment="true: the attempts topic gets each answer, with its body. false: it does not.",
    )
    answer_headers: Mapped[str | None] = mapped_column(
        String(NAMES_LENGTH),
        comment="Headers of reported answers, such as etag,x-*. Null: content-type.",
    )
    gzip_above: Mapped[int | None] = mapped_column(
        Integer, comment="Bodies of more bytes are sent gzip-compressed. Null: none is."
    )
    http_version: Mapped[str] = mapped_column(
        String(10), server_default=text("'1.1'"), comment="1.1, or 2: HTTP/2 if the receiver offers it."
    )
    verified_url: Mapped[str | None] = mapped_column(
        String(URL_LENGTH),
        comment="The URL that has answered the validation request. Null, or another one than url: not verified.",
    )
    name: Mapped[str | None] = mapped_column(String(NAME_LENGTH), comment="A name for people. Null: none.")
    external_id: Mapped[str | None] = mapped_column(
        String(EXTERNAL_ID_LENGTH), comment="Its id in another system, unique for a tenant. Null: none."
    )
    metadata_: Mapped[str | None] = mapped_column(  # `metadata` is SQLAlchemy's
        "metadata", String(METADATA_LENGTH), comment="Up to 32 labels, as a JSON object of texts. Null: none."
    )


class SubscriptionType(Base):
    """A further event type or pattern of a subscription, beside `event_type` of its row.

    `tenant` is the subscription's: so one index finds the subscriptions that match an event, and the foreign key keeps
    it so. Who changes a subscription's tenant removes its further types first.
    """

    __tablename__ = "webhook_event_types"
    __table_args__ = (
        ForeignKeyConstraint(
            ("tenant", "subscription_id"),
            ("webhook_subscriptions.tenant", "webhook_subscriptions.id"),
            name="fk_webhook_event_types_sub",
            ondelete="CASCADE",
        ),
        Index("ix_webhook_event_types_match", "event_type", "tenant"),
        {"comment": "Further event types of subscriptions, beside webhook_subscriptions.event_type."},
    )

    subscription_id: Mapped[int] = mapped_column(
        Id, primary_key=True, autoincrement=False, comment="Id of its subscription. Deleted with the subscription."
    )
    tenant: Mapped[str] = mapped_column(
        String(TENANT_LENGTH),
        primary_key=True,
        server_default=text(f"'{EVERY_TENANT}'"),
        comment="The tenant of its subscription.",
    )
    event_type: Mapped[str] = mapped_column(
        String(EVENT_TYPE_LENGTH),
        primary_key=True,
        comment="An event type or pattern, as in the row of its subscription.",
    )


class SubscriptionSecret(Base):
    """A subscription's secret for signing or authentication: `fernet:` and a token, or plain. Valid until `expires_at`.

    By `kind`: `signing` (a key), `basic` (user:password), `bearer` (a token), `header` (name: value), `oauth2` and
    `plugin` (a JSON object).
    """

    __tablename__ = "webhook_secrets"
    __table_args__ = (
        CheckConstraint(
            "kind IN ('signing', 'basic', 'bearer', 'header', 'oauth2', 'plugin')", name="ck_webhook_secrets_kind"
        ),
        Index("ix_webhook_secrets_sub", "subscription_id"),
        {
            "sqlite_autoincrement": True,
            "comment": "Secrets of subscriptions: signing keys, and credentials at their receivers.",
        },
    )

    id: Mapped[int] = mapped_column(Id, Identity(cache=AHEAD), primary_key=True, comment="Key, given by the database.")
    subscription_id: Mapped[int] = mapped_column(
        Id,
        ForeignKey(Subscription.id, name="fk_webhook_secrets_sub", ondelete="CASCADE"),
        comment="Id of its subscription. Deleted with the subscription.",
    )
    secret: Mapped[str] = mapped_column(
        String(SECRET_LENGTH),
        comment="By kind: as it is, or fernet: and a token (encrypted). Confidential.",
    )
    created_at: Mapped[datetime] = mapped_column(
        UtcTimestamp, server_default=utc_now(), comment="When it was made. The newest goes first."
    )
    expires_at: Mapped[datetime | None] = mapped_column(UtcTimestamp, comment="Good until then. Null: for ever.")
    kind: Mapped[str] = mapped_column(
        String(10),
        server_default=text("'signing'"),
        comment=(
            "signing: a key. basic: user:password. bearer: a token. header: name: value. oauth2, plugin: a JSON object."
        ),
    )


class SubscriptionTls(Base):
    """The TLS of a subscription that shows a client certificate, or whose receiver has its own authorities.

    The private key is `fernet:` and a token, or plain PEM. The other two columns are not confidential.
    """

    __tablename__ = "webhook_tls"
    __table_args__ = (
        CheckConstraint(
            "(certificate IS NULL AND private_key IS NULL) OR (certificate IS NOT NULL AND private_key IS NOT NULL)",
            name="ck_webhook_tls_pair",
        ),
        {"comment": "TLS of subscriptions with a client certificate, or with authorities of their own."},
    )

    subscription_id: Mapped[int] = mapped_column(
        Id,
        ForeignKey(Subscription.id, name="fk_webhook_tls_sub", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
        comment="Id of its subscription. Deleted with the subscription.",
    )
    certificate: Mapped[str | None] = mapped_column(
        Text, comment="Client certificate and its intermediates, PEM. Null: none."
    )
    private_key: Mapped[str | None] = mapped_column(
        Text, comment="Key of the client certificate, PEM, or fernet: and a token (encrypted). Confidential."
    )
    authorities: Mapped[str | None] = mapped_column(
        Text, comment="The only authorities trusted, PEM. Null: those of the deployment."
    )
    created_at: Mapped[datetime] = mapped_column(
        UtcTimestamp, server_default=utc_now(), comment="When the row was made."
    )
