"""From the tutorial's table to all tables of the service. Comments are those of the models."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import sqlalchemy as sa
from alembic import context, op
from alembic.operations import BatchOperations
from sqlalchemy.dialects import oracle

from models import Base
from models.base import utc_now

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

SUBSCRIPTIONS = "webhook_subscriptions"
ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
FLAG = sa.Integer().with_variant(oracle.NUMBER(1), "oracle")  # type: ignore[no-untyped-call]  # SQLAlchemy's
DECIMAL = sa.Numeric(9, 3)
TIME = sa.TIMESTAMP()
NOW = utc_now()
WIDER = {"url": (255, 2048), "event_type": (50, 255)}  # columns of 0001: their lengths before and after
RULES = {
    "ck_webhook_subs_enabled": "enabled IN (0, 1)",
    "ck_webhook_subs_ordering": "ordering IN ('none', 'key')",
    "ck_webhook_subs_in_flight": "max_in_flight >= 1",
    "ck_webhook_subs_rate_limit": "rate_limit > 0",
    "ck_webhook_subs_timeout": "timeout_seconds > 0",
    "ck_webhook_subs_format": "payload_format IN ('record', 'standard', 'cloudevents', 'cloudevents-binary')",
    "ck_webhook_subs_batch_size": "batch_size BETWEEN 1 AND 1000",
    "ck_webhook_subs_batch_wait": "batch_wait_ms BETWEEN 0 AND 60000",
    "ck_webhook_subs_gzip": "gzip_above >= 0",
    "ck_webhook_subs_http": "http_version IN ('1.1', '2')",
}
RECORD = ("group_id", "topic", "partition_no", "record_offset", "record_ts")
TABLES = ("secrets", "tls", "payloads", "deliveries", "operations", "replays", "marks", "request_keys")
INDEXES = (
    ("ix_webhook_subs_match", SUBSCRIPTIONS, ("event_type", "tenant", "enabled")),
    ("ix_webhook_subs_failing", SUBSCRIPTIONS, ("failing_since",)),
    ("ix_webhook_subs_tenant", SUBSCRIPTIONS, ("tenant", "id")),
    ("ix_webhook_secrets_sub", "webhook_secrets", ("subscription_id",)),
    (
        "ix_webhook_deliveries_head",
        "webhook_deliveries",
        ("group_id", "status", "topic", "partition_no", "subscription_id", "next_attempt_at", "id"),
    ),
    (
        "ix_webhook_deliveries_order",
        "webhook_deliveries",
        ("group_id", "status", "topic", "partition_no", "order_key", "subscription_id", "record_offset"),
    ),
    ("ix_webhook_deliveries_receiver", "webhook_deliveries", ("subscription_id", "status", "id")),
    ("ix_webhook_deliveries_state", "webhook_deliveries", ("status", "id", "subscription_id")),
    ("ix_webhook_marks_time", "webhook_marks", ("group_id", "marked_at")),
    ("ix_webhook_request_keys_age", "webhook_request_keys", ("created_at",)),
)


def upgrade() -> None:
    """Extend the table of subscriptions, whose rows get the defaults, and create the others.

    SQLite copies the table, also to give it AUTOINCREMENT, so that no id is used again.
    """
    with _changing(_tutorials()) as table:
        for name, change in _changes():
            table.alter_column(name, **change)
        for column in _options():
            table.add_column(column)
        for name, rule in _rules():
            table.create_check_constraint(name, rule)
    if not _on_sqlite():  # which has no comments
        op.create_table_comment(SUBSCRIPTIONS, Base.metadata.tables[SUBSCRIPTIONS].comment)
        for name in ("id", "url", "event_type", "created_at"):
            op.alter_column(SUBSCRIPTIONS, name, comment=_comment(SUBSCRIPTIONS, name))
    _create_tables()
    for name, table_name, columns in INDEXES:
        op.create_index(name, table_name, columns)


def downgrade() -> None:
    """Drop all but the tutorial's table. A url or event type too long for it stops Oracle before the first change."""
    if not _on_sqlite():
        for name, (before, after) in WIDER.items():  # ORA-01441, where a value is longer
            is_now: dict[str, Any] = {"existing_type": sa.String(after), "existing_nullable": False}
            op.alter_column(SUBSCRIPTIONS, name, type_=sa.String(before), **is_now)
        for name in ("id", "url", "event_type", "created_at"):
            op.alter_column(SUBSCRIPTIONS, name, comment=None)
        op.drop_table_comment(SUBSCRIPTIONS)
    for name in reversed(TABLES):
        op.drop_table(f"webhook_{name}")
    for name, table_name, _ in INDEXES:
        if table_name == SUBSCRIPTIONS:
            op.drop_index(name, SUBSCRIPTIONS)
    with _changing(_tutorials(*_options(), *(sa.CheckConstraint(rule, name=name) for name, rule in _rules()))) as table:
        for name, _ in _rules():
            table.drop_constraint(name, type_="check")
        for column in reversed(_options()):
            table.drop_column(column.name)
        for name, (before, _) in WIDER.items() if _on_sqlite() else ():
            table.alter_column(name, type_=sa.String(before), existing_nullable=False)


def _on_sqlite() -> bool:
    return op.get_context().dialect.name == "sqlite"


def _changing(table: sa.Table) -> AbstractContextManager[BatchOperations]:
    """A change of the table. Printed SQL copies `table` on SQLite; online it is read, with columns of others."""
    return op.batch_alter_table(
        SUBSCRIPTIONS,
        copy_from=table if context.is_offline_mode() else None,
        recreate="always" if _on_sqlite() else "never",
        table_kwargs={"sqlite_autoincrement": True},
    )


def _tutorials(*more: sa.schema.SchemaItem) -> sa.Table:
    """The table of 0001, and `more`."""
    return sa.Table(
        SUBSCRIPTIONS,
        sa.MetaData(),
        _id(),
        must("url", 255),
        must("event_type", 50),
        may("created_at", TIME, "CURRENT_TIMESTAMP"),
        *more,
        sa.PrimaryKeyConstraint("id", name="pk_webhook_subscriptions"),
    )


def _changes() -> Iterator[tuple[str, dict[str, Any]]]:
    """How `url` and `event_type` become longer and NOT NULL, unless an existing table has them so already."""
    online = not context.is_offline_mode()
    there = {each["name"]: each for each in sa.inspect(op.get_bind()).get_columns(SUBSCRIPTIONS)} if online else {}
    for name, (before, after) in WIDER.items():
        length = getattr(there[name]["type"], "length", None) or after if online else before
        nullable = online and there[name]["nullable"]
        wider = {"type_": sa.String(after)} if length < after else {}
        stricter = {"nullable": False} if nullable else {}
        if wider or stricter:
            yield name, {"existing_type": sa.String(length), "existing_nullable": nullable} | wider | stricter


def _rules() -> Iterator[tuple[str, str]]:
    yield from RULES.items()
    yield "ck_webhook_subs_headers", str(_is_json("custom_headers", "ck_webhook_subs_headers").sqltext)


def _options() -> tuple[sa.Column[Any], ...]:
    """The columns that subscriptions get."""
    columns = (
        must("enabled", FLAG, "1"),
        may("disabled_reason", 1000),
        must("ordering", 10, "'none'"),
        may("max_in_flight", sa.Integer),
        may("rate_limit", DECIMAL),
        may("retry_schedule", 500),
        may("final_statuses", 255),
        may("failing_since", TIME),
        must("tenant", 255, "'*'"),
        may("topics", 1000),
        may("event_filter", 2000),
        may("timeout_seconds", DECIMAL),
        must("payload_format", 20, "'record'"),
        may("projection", 2000),
        may("batch_size", sa.Integer),
        may("batch_wait_ms", sa.Integer),
        must("signature_header", 100, "'x-webhook-signature'"),
        may("signature_prefix", 50),
        may("custom_headers", 2000),
        may("gzip_above", sa.Integer),
        must("http_version", 10, "'1.1'"),
        may("verified_url", 2048),
    )
    for column in columns:
        column.comment = _comment(SUBSCRIPTIONS, column.name)
    return columns


def _create_tables() -> None:
    """Create the tables that subscriptions, stored deliveries, replays and requests need."""
    _create(
        "webhook_secrets",
        ("id",),
        _id(),
        must("subscription_id", ID),
        must("secret", 4000),
        must("created_at", TIME, NOW),
        may("expires_at", TIME),
        must("kind", 10, "'signing'"),
        sa.ForeignKeyConstraint(
            ["subscription_id"], [f"{SUBSCRIPTIONS}.id"], name="fk_webhook_secrets_sub", ondelete="CASCADE"
        ),
        sa.CheckConstraint(
            "kind IN ('signing', 'basic', 'bearer', 'header', 'oauth2', 'plugin')", name="ck_webhook_secrets_kind"
        ),
    )
    _create(
        "webhook_tls",
        ("subscription_id",),
        must("subscription_id", ID),
        may("certificate", sa.Text),
        may("private_key", sa.Text),
        may("authorities", sa.Text),
        must("created_at", TIME, NOW),
        sa.ForeignKeyConstraint(
            ["subscription_id"], [f"{SUBSCRIPTIONS}.id"], name="fk_webhook_tls_sub", ondelete="CASCADE"
        ),
        sa.CheckConstraint(
            "(certificate IS NULL AND private_key IS NULL) OR (certificate IS NOT NULL AND private_key IS NOT NULL)",
            name="ck_webhook_tls_pair",
        ),
    )
    _create(
        "webhook_payloads",
        RECORD,
        *_record(),
        must("event_type", 1000),
        must("webhook_id", 255),
        may("content_type", 1000),
        may("traceparent", 255),
        must("created_at", TIME, NOW),
        must("has_key", FLAG, "0"),
        must("body_size", sa.Integer, "0"),
        may("record_key", sa.LargeBinary),
        may("body", sa.LargeBinary),
        may("tenant", 255),
        may("record_headers", sa.Text),
        _is_json("record_headers", "ck_webhook_payloads_headers"),
        sa.CheckConstraint("has_key IN (0, 1)", name="ck_webhook_payloads_has_key"),
    )
    _create(
        "webhook_deliveries",
        ("id",),
        _id(),
        *_record(),
        must("subscription_id", ID),
        must("replay", sa.Integer, "0"),
        must("url", 2048),
        must("status", 10, "'parked'"),
        must("attempt", sa.Integer, "0"),
        may("next_attempt_at", TIME, NOW),
        may("first_attempt_at", TIME),
        may("last_status", sa.Integer),
        may("last_error", 1000),
        must("created_at", TIME, NOW),
        must("updated_at", TIME, NOW),
        may("order_key", 32),
        must("schedule_start", sa.Integer, "0"),
        may("first_status", sa.Integer),
        may("first_error", 1000),
        may("last_attempt_at", TIME),
        may("last_response", 2000),
        must("filter_pending", FLAG, "0"),
        sa.CheckConstraint("status <> 'parked' OR next_attempt_at IS NOT NULL", name="ck_webhook_deliveries_due"),
        sa.ForeignKeyConstraint(
            RECORD, [f"webhook_payloads.{name}" for name in RECORD], name="fk_webhook_deliveries_payload"
        ),
        sa.CheckConstraint("filter_pending IN (0, 1)", name="ck_webhook_deliveries_pending"),
        sa.UniqueConstraint(*RECORD, "subscription_id", "replay", name="uq_webhook_deliveries_record"),
        sa.CheckConstraint(
            "status IN ('parked', 'blocked', 'held', 'exhausted', 'delivered')", name="ck_webhook_deliveries_status"
        ),
    )
    _create(
        "webhook_operations",
        ("id",),
        _id(),
        must("group_id", 255),
        must("event_id", 255),
        must("event_type", 255),
        must("created_at", TIME, NOW),
        must("data", sa.Text),
        _is_json("data", "ck_webhook_operations_data", nullable=False),
        sa.UniqueConstraint("group_id", "event_id", name="uq_webhook_operations_event"),
    )
    _create(
        "webhook_replays",
        ("id",),
        _id(),
        must("group_id", 255),
        must("subscription_id", ID),
        must("since_at", TIME),
        must("until_at", TIME),
        may("event_type", 1000),
        must("rate", DECIMAL),
        must("matched", sa.BigInteger, "0"),
        must("created_at", TIME, NOW),
        may("finished_at", TIME),
        must("positions", sa.Text),
        may("record_count", sa.BigInteger),
        may("cancelled_at", TIME),
        must("background", FLAG, "0"),
        may("lease_until", TIME),
        may("last_error", 1000),
        may("created_by", 100),
        sa.CheckConstraint("background IN (0, 1)", name="ck_webhook_replays_background"),
        _is_json("positions", "ck_webhook_replays_positions", nullable=False),
    )
    _create(
        "webhook_marks",
        (*RECORD[:4], "subscription_id"),
        must("group_id", 255),
        must("topic", 249),
        must("partition_no", sa.Integer),
        must("record_offset", sa.BigInteger),
        must("subscription_id", ID),
        must("kind", 20),
        must("asked", sa.Integer, "1"),
        must("marked_at", TIME, NOW),
        sa.CheckConstraint("kind IN ('look', 'refused', 'published')", name="ck_webhook_marks_kind"),
    )
    _create(
        "webhook_request_keys",
        ("key_digest",),
        must("key_digest", 64),
        must("request_digest", 64),
        must("resource_id", sa.BigInteger),
        must("created_at", TIME, NOW),
    )


def _create(name: str, key: Sequence[str], *items: sa.schema.SchemaItem) -> None:
    for item in items:
        if isinstance(item, sa.Column):
            item.comment = _comment(name, item.name)
    # Oracle's checks come apart: the tests' grammar does not know IS JSON in a table with IDENTITY.
    apart = [item for item in items if isinstance(item, sa.CheckConstraint) and " IS JSON" in str(item.sqltext)]
    op.create_table(
        name,
        *(item for item in items if not any(item is check for check in apart)),
        sa.PrimaryKeyConstraint(*key, name=f"pk_{name}"),
        comment=Base.metadata.tables[name].comment,
        sqlite_autoincrement=key == ("id",),
    )
    for check in apart:
        op.create_check_constraint(str(check.name), name, str(check.sqltext))


def _comment(table: str, column: str) -> str | None:
    """The comment of the model, if it still has this column."""
    found = Base.metadata.tables[table].columns.get(column)
    return None if found is None else found.comment


def _id() -> sa.Column[Any]:
    return sa.Column("id", ID, sa.Identity(), nullable=False)


def _record() -> tuple[sa.Column[Any], ...]:
    kinds = (255, 249, sa.Integer, sa.BigInteger, sa.BigInteger)
    return tuple(must(name, kind) for name, kind in zip(RECORD, kinds, strict=True))


def must(name: str, kind: Any, default: Any = None) -> sa.Column[Any]:
    """A column that is NOT NULL."""
    return may(name, kind, default, nullable=False)


def may(name: str, kind: Any, default: Any = None, *, nullable: bool = True) -> sa.Column[Any]:
    """A column that may be null. An int as its `kind` is the length of a text; a text as its `default` is SQL."""
    given = sa.text(default) if isinstance(default, str) else default
    return sa.Column(name, sa.String(kind) if isinstance(kind, int) else kind, server_default=given, nullable=nullable)


def _is_json(column: str, name: str, *, nullable: bool = True) -> sa.CheckConstraint:
    """A check that a text is JSON; json_valid of SQLite before 3.45 returns 0 for null, failing the check."""
    valid = f"{column} IS NULL OR json_valid({column})" if nullable else f"json_valid({column})"
    return sa.CheckConstraint(valid if _on_sqlite() else f"{column} IS JSON", name=name)
