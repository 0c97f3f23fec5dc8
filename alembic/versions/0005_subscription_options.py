"""Options of subscriptions: tenants, filters, payloads, batches, headers, credentials; headers of records."""

from collections.abc import Sequence
from typing import Any, Literal, TypedDict

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects import oracle

from models.base import utc_now

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

SUBSCRIPTIONS, SECRETS, PAYLOADS = "webhook_subscriptions", "webhook_secrets", "webhook_payloads"
ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
FLAG = sa.Integer().with_variant(oracle.NUMBER(1), "oracle")  # type: ignore[no-untyped-call]  # SQLAlchemy's
INSTANT = sa.TIMESTAMP()
NOW = utc_now()
RECORD = ("group_id", "topic", "partition_no", "record_offset", "record_ts")
MATCH, MATCH_BEFORE = "ix_webhook_subs_match", "ix_webhook_subs_event_type"
RULES = {
    SUBSCRIPTIONS: (
        ("ck_webhook_subs_timeout", "timeout_seconds > 0"),
        ("ck_webhook_subs_format", "payload_format IN ('record', 'standard', 'cloudevents')"),
        ("ck_webhook_subs_batch_size", "batch_size BETWEEN 1 AND 1000"),
        ("ck_webhook_subs_batch_wait", "batch_wait_ms BETWEEN 0 AND 60000"),
    ),
    SECRETS: (("ck_webhook_secrets_kind", "kind IN ('signing', 'basic', 'bearer', 'header')"),),
    PAYLOADS: (),
}
JSON = {
    SUBSCRIPTIONS: (("ck_webhook_subs_headers", "custom_headers"),),
    SECRETS: (),
    PAYLOADS: (("ck_webhook_payloads_headers", "record_headers"),),
}
COMMENTS: dict[str, dict[str, tuple[str, str | None]]] = {
    SUBSCRIPTIONS: {
        "event_type": (
            "Which events: a type, order.* (one level below), order.** (any depth below), or * (all).",
            "Which events, compared as a whole. Upper and lower case differ.",
        ),
        "rate_limit": (
            "Requests a second, of all workers together. Null: no limit.",
            "Deliveries a second, of all workers together. Null: no limit.",
        ),
        "tenant": ("Only events of this tenant. *: of any tenant, and those without one.", None),
        "topics": ("Only records of these topics, comma-separated. Null: of all.", None),
        "event_filter": ("Only events for which this CEL expression is true. Null: all.", None),
        "timeout_seconds": ("Limit of a whole exchange. Null: that of the deployment.", None),
        "payload_format": (
            "record: as it came. standard: type, timestamp, data. cloudevents: structured CloudEvent.",
            None,
        ),
        "projection": ("CEL expression whose value is sent in place of the data. Null: the data.", None),
        "batch_size": ("Events of one request, as an array. Null: each in a request of its own, no array.", None),
        "batch_wait_ms": ("How long a batch waits to be full, in milliseconds. Null: 1000.", None),
        "signature_header": (
            "Name of the header with the hex HMAC-SHA256 of the body. none: it is not sent.",
            None,
        ),
        "signature_prefix": ("Prefix of the hex digits, such as sha256=. Null: none.", None),
        "custom_headers": ("Further request headers, as a JSON object of texts. Null: none.", None),
    },
    SECRETS: {
        "secret": (
            "By kind: as it is, or fernet: and a token (encrypted). Confidential.",
            "whsec_ and base64, any other text, or fernet: and a token (encrypted). Confidential.",
        ),
        "created_at": ("When it was made. The newest goes first.", "When it was made. The newest signs first."),
        "expires_at": ("Good until then. Null: for ever.", "Signs until then. Null: for ever."),
        "kind": ("signing: a key. basic: user:password. bearer: a token. header: name: value.", None),
    },
    PAYLOADS: {
        "body": ("Value of the record. Null: empty.", "Body of the event, as it is sent. Null: empty."),
        "tenant": ("Tenant of the event. Null: none.", None),
        "record_headers": ("Headers of the record that are UTF-8, as a JSON object. Null: none.", None),
    },
}
TABLE_COMMENTS = {
    SUBSCRIPTIONS: (
        "Subscriptions. One row is one receiver of one event type or pattern.",
        "Subscriptions. One row is one receiver of one event type.",
    ),
    SECRETS: (
        "Secrets of subscriptions: signing keys, and credentials at their receivers.",
        "Signing secrets of subscriptions that have their own.",
    ),
}


def upgrade() -> None:
    """SQLite rebuilds the tables: it cannot add a check. Elsewhere the new index is created before the old one goes."""
    for table in (SUBSCRIPTIONS, SECRETS, PAYLOADS):
        with op.batch_alter_table(table, **_rebuild(_stands(table))) as changed:
            for column in _columns(table):
                changed.add_column(column)
            for name, rule in _rules(table):
                changed.create_check_constraint(name, rule)
            if table == SECRETS:
                changed.alter_column(
                    "secret", type_=sa.String(4000), existing_type=sa.String(1000), existing_nullable=False
                )
    op.create_index(MATCH, SUBSCRIPTIONS, ["event_type", "tenant", "enabled"])
    op.drop_index(MATCH_BEFORE, SUBSCRIPTIONS)
    _comment(0)


def downgrade() -> None:
    """The options and credentials of subscriptions are lost; a pattern is then a type that no event has."""
    _comment(1)
    op.create_index(MATCH_BEFORE, SUBSCRIPTIONS, ["event_type", "enabled"])
    op.drop_index(MATCH, SUBSCRIPTIONS)
    if _has_kinds():
        op.execute("DELETE FROM webhook_secrets WHERE kind <> 'signing'")
    for table in (PAYLOADS, SECRETS, SUBSCRIPTIONS):
        checks = [sa.CheckConstraint(rule, name=name) for name, rule in _rules(table)]
        with op.batch_alter_table(table, **_rebuild(_stands(table, *_columns(table), *checks))) as changed:
            if table == SECRETS:
                changed.alter_column(
                    "secret", type_=sa.String(1000), existing_type=sa.String(4000), existing_nullable=False
                )
            for name, _ in _rules(table):
                changed.drop_constraint(name, type_="check")
            for column in reversed(_columns(table)):
                changed.drop_column(column.name)


def _has_kinds() -> bool:
    """Whether the column `kind` exists: on Oracle, a stopped downgrade may have dropped it already."""
    if context.is_offline_mode():
        return True
    return "kind" in {column["name"] for column in sa.inspect(op.get_bind()).get_columns(SECRETS)}


class Rebuild(TypedDict):
    """How a table is changed in place, or on SQLite by copying it."""

    copy_from: sa.Table | None
    recreate: Literal["always", "never"]
    table_kwargs: dict[str, bool]


def _rebuild(table: sa.Table) -> Rebuild:
    """Printed SQL rebuilds `table`. Online, the table is read from the database, and keeps columns of others."""
    return {
        "copy_from": table if context.is_offline_mode() else None,
        "recreate": "always" if _on_sqlite() else "never",
        "table_kwargs": {"sqlite_autoincrement": table.name != PAYLOADS},
    }


def _on_sqlite() -> bool:
    return op.get_context().dialect.name == "sqlite"


def _rules(table: str) -> list[tuple[str, str]]:
    rule = "{0} IS NULL OR json_valid({0})" if _on_sqlite() else "{0} IS JSON"
    return [*RULES[table], *((name, rule.format(column)) for name, column in JSON[table])]


def _comment(which: int) -> None:
    """Set the comments of after (0) or before (1) this revision; SQLite has none."""
    if _on_sqlite():
        return
    for table, texts in TABLE_COMMENTS.items():
        op.create_table_comment(table, texts[which])
    for table, columns in COMMENTS.items():
        for column, both in columns.items():
            if both[which] is not None:
                op.alter_column(table, column, comment=both[which])


def _columns(table: str) -> tuple[sa.Column[Any], ...]:
    match table:
        case "webhook_secrets":
            return (sa.Column("kind", sa.String(10), server_default=sa.text("'signing'"), nullable=False),)
        case "webhook_payloads":
            return (sa.Column("tenant", sa.String(255)), sa.Column("record_headers", sa.Text()))
    return (
        sa.Column("tenant", sa.String(255), server_default=sa.text("'*'"), nullable=False),
        sa.Column("topics", sa.String(1000)),
        sa.Column("event_filter", sa.String(2000)),
        sa.Column("timeout_seconds", sa.Numeric(9, 3)),
        sa.Column("payload_format", sa.String(20), server_default=sa.text("'record'"), nullable=False),
        sa.Column("projection", sa.String(2000)),
        sa.Column("batch_size", sa.Integer()),
        sa.Column("batch_wait_ms", sa.Integer()),
        sa.Column("signature_header", sa.String(100), server_default=sa.text("'x-webhook-signature'"), nullable=False),
        sa.Column("signature_prefix", sa.String(50)),
        sa.Column("custom_headers", sa.String(2000)),
    )


def _stands(table: str, *more: sa.schema.SchemaItem) -> sa.Table:
    """A table as it was before this revision, and `more`."""
    before: tuple[sa.schema.SchemaItem, ...]
    match table:
        case "webhook_subscriptions":
            before = (
                sa.Column("id", ID, sa.Identity(), nullable=False),
                sa.Column("url", sa.String(2048), nullable=False),
                sa.Column("event_type", sa.String(255), nullable=False),
                sa.Column("created_at", sa.TIMESTAMP(), server_default=sa.text("CURRENT_TIMESTAMP")),
                sa.Column("enabled", FLAG, server_default=sa.text("1"), nullable=False),
                sa.Column("disabled_reason", sa.String(1000)),
                sa.Column("ordering", sa.String(10), server_default=sa.text("'none'"), nullable=False),
                sa.Column("max_in_flight", sa.Integer()),
                sa.Column("rate_limit", sa.Numeric(9, 3)),
                sa.Column("retry_schedule", sa.String(500)),
                sa.Column("final_statuses", sa.String(255)),
                sa.Column("failing_since", INSTANT),
                sa.PrimaryKeyConstraint("id", name="pk_webhook_subscriptions"),
                sa.CheckConstraint("enabled IN (0, 1)", name="ck_webhook_subs_enabled"),
                sa.CheckConstraint("ordering IN ('none', 'key')", name="ck_webhook_subs_ordering"),
                sa.CheckConstraint("max_in_flight >= 1", name="ck_webhook_subs_in_flight"),
                sa.CheckConstraint("rate_limit > 0", name="ck_webhook_subs_rate_limit"),
                sa.Index(MATCH_BEFORE, "event_type", "enabled"),
            )
        case "webhook_secrets":
            before = (
                sa.Column("id", ID, sa.Identity(), nullable=False),
                sa.Column("subscription_id", ID, nullable=False),
                sa.Column("secret", sa.String(1000), nullable=False),
                sa.Column("created_at", INSTANT, server_default=NOW, nullable=False),
                sa.Column("expires_at", INSTANT),
                sa.PrimaryKeyConstraint("id", name="pk_webhook_secrets"),
                sa.ForeignKeyConstraint(
                    ["subscription_id"], [f"{SUBSCRIPTIONS}.id"], name="fk_webhook_secrets_sub", ondelete="CASCADE"
                ),
                sa.Index("ix_webhook_secrets_sub", "subscription_id"),
            )
        case _:
            before = (
                sa.Column("group_id", sa.String(255), nullable=False),
                sa.Column("topic", sa.String(249), nullable=False),
                sa.Column("partition_no", sa.Integer(), nullable=False),
                sa.Column("record_offset", sa.BigInteger(), nullable=False),
                sa.Column("record_ts", sa.BigInteger(), nullable=False),
                sa.Column("event_type", sa.String(1000), nullable=False),
                sa.Column("webhook_id", sa.String(255), nullable=False),
                sa.Column("content_type", sa.String(1000)),
                sa.Column("traceparent", sa.String(255)),
                sa.Column("created_at", INSTANT, server_default=NOW, nullable=False),
                sa.Column("has_key", FLAG, server_default=sa.text("0"), nullable=False),
                sa.Column("body_size", sa.Integer(), server_default=sa.text("0"), nullable=False),
                sa.Column("record_key", sa.LargeBinary()),
                sa.Column("body", sa.LargeBinary()),
                sa.PrimaryKeyConstraint(*RECORD, name="pk_webhook_payloads"),
                sa.CheckConstraint("has_key IN (0, 1)", name="ck_webhook_payloads_has_key"),
            )
    return sa.Table(table, sa.MetaData(), *before, *more)
