"""From the tutorial's table to all tables of version 1. Comments are those of the models."""

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
INT, BIG = sa.Integer, sa.BigInteger
DECIMAL = sa.Numeric(9, 3)
TIME = sa.TIMESTAMP()
NOW = utc_now()
EXTERNAL, TENANT = "ix_webhook_subs_external", "uq_webhook_subs_tenant"
WIDER = {"url": (255, 2048), "event_type": (50, 255)}  # columns of 0001: their lengths before and after
RULES = {
    SUBSCRIPTIONS: {
        "ck_webhook_subs_enabled": "enabled IN (0, 1)",
        "ck_webhook_subs_starts": "starts IN (0, 1)",
        "ck_webhook_subs_ordering": "ordering IN ('none', 'key')",
        "ck_webhook_subs_in_flight": "max_in_flight >= 1",
        "ck_webhook_subs_rate_limit": "rate_limit > 0",
        "ck_webhook_subs_timeout": "timeout_seconds > 0",
        "ck_webhook_subs_format": "payload_format IN ('record', 'standard', 'cloudevents', 'cloudevents-binary')",
        "ck_webhook_subs_batch_size": "batch_size BETWEEN 1 AND 1000",
        "ck_webhook_subs_batch_wait": "batch_wait_ms BETWEEN 0 AND 60000",
        "ck_webhook_subs_gzip": "gzip_above >= 0",
        "ck_webhook_subs_http": "http_version IN ('1.1', '2')",
        "ck_webhook_subs_method": "method IN ('POST', 'PUT', 'PATCH', 'DELETE')",
        "ck_webhook_subs_report": "report_answer IN ('false', 'true')",
    },
    "webhook_secrets": {
        "ck_webhook_secrets_kind": "kind IN ('signing', 'basic', 'bearer', 'header', 'oauth2', 'plugin')",
    },
    "webhook_tls": {
        "ck_webhook_tls_pair": "(certificate IS NULL AND private_key IS NULL) "
        "OR (certificate IS NOT NULL AND private_key IS NOT NULL)",
    },
    "webhook_payloads": {
        "ck_webhook_payloads_has_key": "has_key IN (0, 1)",
    },
    "webhook_deliveries": {
        "ck_webhook_deliveries_due": "status <> 'parked' OR next_attempt_at IS NOT NULL",
        "ck_webhook_deliveries_pending": "filter_pending IN (0, 1)",
        "ck_webhook_deliveries_status": "status IN ('parked', 'blocked', 'held', 'exhausted', 'delivered')",
    },
    "webhook_cursors": {
        "ck_webhook_cursors_reason": "reason IN ('paused', 'behind', 'start', 'replay')",
        "ck_webhook_cursors_next": "next_offset >= first_offset",
        "ck_webhook_cursors_end": "end_offset >= next_offset",
    },
    "webhook_replays": {
        "ck_webhook_replays_ordered": "ordered IN (0, 1)",
    },
    "webhook_marks": {
        "ck_webhook_marks_kind": "kind IN ('look', 'refused', 'published', 'owned')",
    },
}
JSON = {
    SUBSCRIPTIONS: {
        "custom_headers": "ck_webhook_subs_headers",
        "header_expressions": "ck_webhook_subs_computed",
        "metadata": "ck_webhook_subs_metadata",
    },
    "webhook_payloads": {"record_headers": "ck_webhook_payloads_headers"},
    "webhook_operations": {"data": "ck_webhook_operations_data"},
}  # columns whose texts are JSON, with the names of their checks
RECORD = ("group_id", "topic", "partition_no", "record_offset", "record_ts")
TABLES = (
    *("event_types", "secrets", "tls", "payloads", "deliveries", "operations"),
    *("cursors", "replays", "marks", "request_keys"),
)
INDEXES = (
    ("ix_webhook_subs_match", SUBSCRIPTIONS, ("event_type", "tenant", "enabled")),
    ("ix_webhook_subs_failing", SUBSCRIPTIONS, ("failing_since",)),
    ("ix_webhook_subs_paused", SUBSCRIPTIONS, ("paused_at",)),
    ("ix_webhook_subs_probed", SUBSCRIPTIONS, ("probed_at",)),
    ("ix_webhook_subs_tenant", SUBSCRIPTIONS, ("tenant", "id")),
    ("ix_webhook_event_types_match", "webhook_event_types", ("event_type", "tenant")),
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
    ("ix_webhook_deliveries_given_up", "webhook_deliveries", ("unpublished_by",)),
    ("ix_webhook_cursors_sub", "webhook_cursors", ("subscription_id",)),
    ("ix_webhook_cursors_expires", "webhook_cursors", ("expires_at",)),
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
        for check in _checks(SUBSCRIPTIONS):
            table.create_check_constraint(str(check.name), str(check.sqltext))
    if not _on_sqlite():  # which has no comments
        op.create_table_comment(SUBSCRIPTIONS, Base.metadata.tables[SUBSCRIPTIONS].comment)
        for name in ("id", "url", "event_type", "created_at"):
            op.alter_column(SUBSCRIPTIONS, name, comment=_comment(SUBSCRIPTIONS, name))
    _create_indexes(is_made=True)
    _create_keys()
    _create_tables()
    _create_indexes(is_made=False)


def downgrade() -> None:
    """Drop all but the tutorial's table. A url or event type too long for it stops Oracle before the first change."""
    if not _on_sqlite():
        _resume()
        for name, (before, after) in WIDER.items():  # ORA-01441, where a value is longer
            is_now: dict[str, Any] = {"existing_type": sa.String(after), "existing_nullable": False}
            op.alter_column(SUBSCRIPTIONS, name, type_=sa.String(before), **is_now)
        for name in ("id", "url", "event_type", "created_at"):
            op.alter_column(SUBSCRIPTIONS, name, comment=None)
        op.drop_table_comment(SUBSCRIPTIONS)
    for name in reversed(TABLES):
        op.drop_table(f"webhook_{name}")
    _drop_keys()
    for name, table_name, _ in INDEXES:
        if table_name == SUBSCRIPTIONS:
            op.drop_index(name, SUBSCRIPTIONS)
    if _on_sqlite():
        _copy_back()
    else:
        _drop_options()


def _copy_back() -> None:
    """Copy the table without the options on SQLite."""
    with _changing(_tutorials(*_options(), *_checks(SUBSCRIPTIONS))) as table:
        for check in _checks(SUBSCRIPTIONS):
            table.drop_constraint(str(check.name), type_="check")
        for column in reversed(_options()):
            table.drop_column(column.name)
        for name, (before, _) in WIDER.items():
            table.alter_column(name, type_=sa.String(before), existing_nullable=False)


def _drop_options() -> None:
    """Drop the columns and their checks on Oracle, in one pass over the rows that commits, so that undo is small."""
    names = [column.name for column in _options()]
    if context.is_offline_mode() or names[0] in {each["name"] for each in _there()}:
        op.execute(f"ALTER TABLE {SUBSCRIPTIONS} SET UNUSED ({', '.join(names)})")
    op.execute(f"ALTER TABLE {SUBSCRIPTIONS} DROP UNUSED COLUMNS CHECKPOINT 10000")


def _there() -> list[Any]:
    """The columns of subscriptions, as they are."""
    return list(sa.inspect(op.get_bind()).get_columns(SUBSCRIPTIONS))


def _resume() -> None:
    """Finish a downgrade that was stopped between its commits: until then Oracle refuses all else (ORA-12986)."""
    partial = sa.table("all_partial_drop_tabs", sa.column("owner"), sa.column("table_name"))
    ours = partial.c.owner == sa.literal_column("sys_context('userenv', 'current_schema')")
    found = sa.select(partial.c.table_name).where(ours, partial.c.table_name == SUBSCRIPTIONS.upper())
    if not context.is_offline_mode() and op.get_bind().execute(found).first():
        op.execute(f"ALTER TABLE {SUBSCRIPTIONS} DROP COLUMNS CONTINUE CHECKPOINT 10000")


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
    there = {each["name"]: each for each in _there()} if online else {}
    for name, (before, after) in WIDER.items():
        length = getattr(there[name]["type"], "length", None) or after if online else before
        nullable = online and there[name]["nullable"]
        wider = {"type_": sa.String(after)} if length < after else {}
        stricter = {"nullable": False} if nullable else {}
        if wider or stricter:
            yield name, {"existing_type": sa.String(length), "existing_nullable": nullable} | wider | stricter


def _checks(table: str) -> list[sa.CheckConstraint]:
    """The rules of a table. json_valid of SQLite before 3.45 returns 0 for null, failing the check."""
    json = "{0} IS NULL OR json_valid({0})" if _on_sqlite() else "{0} IS JSON"
    rules = RULES.get(table, {}) | {name: json.format(column) for column, name in JSON.get(table, {}).items()}
    return [sa.CheckConstraint(rule, name=name) for name, rule in rules.items()]


def _options() -> tuple[sa.Column[Any], ...]:
    """The columns that subscriptions get."""
    columns = (
        *(must("enabled", FLAG, "1"), may("disabled_reason", 1000), may("paused_at", TIME)),
        *(may("paused_reason", 1000), may("probed_at", TIME), must("starts", FLAG, "0")),
        *(must("ordering", 10, "'none'"), may("max_in_flight", INT), may("rate_limit", DECIMAL)),
        *(may("retry_schedule", 500), may("final_statuses", 255), may("failing_since", TIME)),
        *(must("tenant", 255, "'*'"), may("topics", 1000), may("event_filter", 2000)),
        *(may("timeout_seconds", DECIMAL), must("payload_format", 20, "'record'"), may("projection", 2000)),
        *(may("batch_size", INT), may("batch_wait_ms", INT), must("signature_header", 100, "'x-webhook-signature'")),
        *(may("signature_prefix", 50), may("signature_template", 1000), may("custom_headers", 2000)),
        *(must("method", 10, "'POST'"), may("header_expressions", 2000), may("pass_headers", 1000)),
        *(must("report_answer", 5, "'false'"), may("answer_headers", 1000), may("gzip_above", INT)),
        *(must("http_version", 10, "'1.1'"), may("verified_url", 2048), may("name", 200), may("external_id", 255)),
        may("metadata", 2000),
    )
    for column in columns:
        column.comment = _comment(SUBSCRIPTIONS, column.name)
    return columns


def _create_indexes(*, is_made: bool) -> None:
    """Create the indexes of the table that is there already, or those of the others."""
    for name, table_name, columns in INDEXES:
        if (table_name == SUBSCRIPTIONS) == is_made:
            op.create_index(name, table_name, columns)


def _create_keys() -> None:
    """Create the unique keys of subscriptions. Oracle uses the index of a tenant's list for the one of two columns."""
    if _on_sqlite():  # which adds no constraint without a copy of the table
        op.create_index(TENANT, SUBSCRIPTIONS, ("tenant", "id"), unique=True)
        op.create_index(EXTERNAL, SUBSCRIPTIONS, ("external_id", "tenant"), unique=True)
        return
    op.create_unique_constraint(TENANT, SUBSCRIPTIONS, ["tenant", "id"])
    # The tenant alone, without an external id, must have no entry: two of them would be the same to Oracle.
    tenant = sa.text("CASE WHEN external_id IS NOT NULL THEN tenant END")
    op.create_index(EXTERNAL, SUBSCRIPTIONS, ["external_id", tenant], unique=True)


def _drop_keys() -> None:
    op.drop_index(EXTERNAL, SUBSCRIPTIONS)
    if _on_sqlite():
        op.drop_index(TENANT, SUBSCRIPTIONS)
    else:
        op.drop_constraint(TENANT, SUBSCRIPTIONS, type_="unique")


def _create_tables() -> None:
    """Create the tables that subscriptions, stored deliveries, cursors, replays and requests need."""
    _create(
        "webhook_event_types",
        ("subscription_id", "tenant", "event_type"),
        *(must("subscription_id", ID), must("tenant", 255, "'*'"), must("event_type", 255)),
        _refers(
            "fk_webhook_event_types_sub",
            SUBSCRIPTIONS,
            ("tenant", "subscription_id"),
            ("tenant", "id"),
            ondelete="CASCADE",
        ),
    )
    _create(
        "webhook_secrets",
        ("id",),
        _id(),
        *(must("subscription_id", ID), must("secret", 4000), must("created_at", TIME, NOW), may("expires_at", TIME)),
        must("kind", 10, "'signing'"),
        _refers("fk_webhook_secrets_sub", SUBSCRIPTIONS, ("subscription_id",), ("id",), ondelete="CASCADE"),
    )
    _create(
        "webhook_tls",
        ("subscription_id",),
        *(must("subscription_id", ID), may("certificate", sa.Text), may("private_key", sa.Text)),
        *(may("authorities", sa.Text), must("created_at", TIME, NOW)),
        _refers("fk_webhook_tls_sub", SUBSCRIPTIONS, ("subscription_id",), ("id",), ondelete="CASCADE"),
    )
    _create(
        "webhook_payloads",
        RECORD,
        *_record(),
        *(must("event_type", 1000), must("webhook_id", 255), may("content_type", 1000), may("traceparent", 255)),
        *(must("created_at", TIME, NOW), must("has_key", FLAG, "0"), must("body_size", INT, "0")),
        *(may("record_key", sa.LargeBinary), may("body", sa.LargeBinary), may("tenant", 255)),
        may("record_headers", sa.Text),
    )
    _create(
        "webhook_deliveries",
        ("id",),
        _id(),
        *_record(),
        *(must("subscription_id", ID), must("replay", INT, "0"), must("url", 2048), must("status", 10, "'parked'")),
        *(must("attempt", INT, "0"), may("next_attempt_at", TIME, NOW), may("first_attempt_at", TIME)),
        *(may("last_status", INT), may("last_error", 1000), must("created_at", TIME, NOW)),
        *(must("updated_at", TIME, NOW), may("order_key", 32), must("schedule_start", INT, "0")),
        *(may("first_status", INT), may("first_error", 1000), may("last_attempt_at", TIME)),
        *(may("last_response", 2000), must("filter_pending", FLAG, "0"), may("unpublished_by", 255)),
        may("published_attempt", INT),
        _refers("fk_webhook_deliveries_payload", "webhook_payloads", RECORD, RECORD),
        sa.UniqueConstraint(*RECORD, "subscription_id", "replay", name="uq_webhook_deliveries_record"),
    )
    _create(
        "webhook_operations",
        ("id",),
        _id(),
        *(must("group_id", 255), must("event_id", 255), must("event_type", 255), must("created_at", TIME, NOW)),
        must("data", sa.Text),
        sa.UniqueConstraint("group_id", "event_id", name="uq_webhook_operations_event"),
    )
    _create(
        "webhook_cursors",
        ("id",),
        _id(),
        *_record()[:3],
        *(must("subscription_id", ID), must("replay", INT, "0"), must("reason", 10), must("first_offset", BIG)),
        *(must("next_offset", BIG), may("end_offset", BIG), may("settled_runs", 4000), may("record_ts", BIG)),
        *(may("expires_at", TIME), must("version", INT, "0"), may("topic_identity", 60)),
        *(must("created_at", TIME, NOW), must("updated_at", TIME, NOW)),
        _refers("fk_webhook_cursors_sub", SUBSCRIPTIONS, ("subscription_id",), ("id",), ondelete="CASCADE"),
        sa.UniqueConstraint(*RECORD[:3], "subscription_id", "replay", "first_offset", name="uq_webhook_cursors_place"),
    )
    _create(
        "webhook_replays",
        ("id",),
        _id(),
        *(must("group_id", 255), must("subscription_id", ID), must("since_at", TIME), must("until_at", TIME)),
        *(may("event_type", 1000), must("rate", DECIMAL), must("ordered", FLAG, "0"), must("record_count", BIG)),
        *(must("created_at", TIME, NOW), may("created_by", 100), may("finished_at", TIME), may("cancelled_at", TIME)),
    )
    _create(
        "webhook_marks",
        (*RECORD[:4], "subscription_id"),
        *_record()[:4],
        *(must("subscription_id", ID), must("kind", 20), must("asked", INT, "1"), must("marked_at", TIME, NOW)),
    )
    _create(
        "webhook_request_keys",
        ("key_digest",),
        *(must("key_digest", 64), must("request_digest", 64), must("resource_id", BIG)),
        must("created_at", TIME, NOW),
    )


def _create(name: str, key: Sequence[str], *items: sa.schema.SchemaItem) -> None:
    for item in items:
        if isinstance(item, sa.Column):
            item.comment = _comment(name, item.name)
    # Oracle's checks of JSON come apart: the tests' grammar does not know IS JSON in a table with IDENTITY.
    checks = _checks(name)
    apart = [] if _on_sqlite() else [check for check in checks if check.name in JSON.get(name, {}).values()]
    op.create_table(
        name,
        *items,
        *(check for check in checks if check not in apart),
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
    return sa.Column("id", ID, sa.Identity(cache=1000), nullable=False)


def _record() -> tuple[sa.Column[Any], ...]:
    kinds = (255, 249, INT, BIG, BIG)
    return tuple(must(name, kind) for name, kind in zip(RECORD, kinds, strict=True))


def must(name: str, kind: Any, default: Any = None) -> sa.Column[Any]:
    """A column that is NOT NULL."""
    return may(name, kind, default, nullable=False)


def may(name: str, kind: Any, default: Any = None, *, nullable: bool = True) -> sa.Column[Any]:
    """A column that may be null. An int as its `kind` is the length of a text; a text as its `default` is SQL."""
    given = sa.text(default) if isinstance(default, str) else default
    return sa.Column(name, sa.String(kind) if isinstance(kind, int) else kind, server_default=given, nullable=nullable)


def _refers(
    name: str, table: str, columns: Sequence[str], theirs: Sequence[str], *, ondelete: str | None = None
) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(columns, [f"{table}.{each}" for each in theirs], name=name, ondelete=ondelete)
