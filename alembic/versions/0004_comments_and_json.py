"""Comments on tables and columns, where the database keeps them; texts that hold JSON are checked."""

from collections.abc import Sequence
from contextlib import AbstractContextManager

import sqlalchemy as sa
from alembic import context, op
from alembic.operations import BatchOperations
from sqlalchemy.engine.interfaces import ReflectedColumn

from consumer.errors import WebhooksError
from models.base import utc_now

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

SUBSCRIPTIONS = "webhook_subscriptions"
ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
INSTANT = sa.TIMESTAMP()
NOW = utc_now()
CHECKS = (
    ("webhook_operations", "data", "ck_webhook_operations_data"),
    ("webhook_replays", "positions", "ck_webhook_replays_positions"),
)
COMMENTS: dict[str, tuple[str, dict[str, str]]] = {
    "webhook_subscriptions": (
        "Subscriptions. One row is one receiver of one event type.",
        {
            "id": "Key, given by the database. Never used again.",
            "url": "Where to POST. Visible ASCII.",
            "event_type": "Which events, compared as a whole. Upper and lower case differ.",
            "created_at": "When the row was made, in the time zone of the session that made it.",
            "enabled": "1: gets events. 0: matches nothing, and its stored deliveries are held.",
            "disabled_reason": "Why it was disabled.",
            "ordering": "none, or key: the events of one key go one at a time, in order.",
            "max_in_flight": "Requests open at once, of all workers together. Null: no limit.",
            "rate_limit": "Deliveries a second, of all workers together. Null: no limit.",
            "retry_schedule": "Waits between attempts, such as 5s,5m,1h. Null: those of the deployment.",
            "final_statuses": "Answers after which there is no further attempt, such as 400,422,4xx.",
            "failing_since": "No attempt has succeeded since then. Written by workers.",
        },
    ),
    "webhook_secrets": (
        "Signing secrets of subscriptions that have their own.",
        {
            "id": "Key, given by the database.",
            "subscription_id": "Id of its subscription. Deleted with the subscription.",
            "secret": "whsec_ and base64, any other text, or fernet: and a token (encrypted). Confidential.",
            "created_at": "When it was made. The newest signs first.",
            "expires_at": "Signs until then. Null: for ever.",
        },
    ),
    "webhook_payloads": (
        "Kafka records that stored deliveries will send, once for each consumer group.",
        {
            "group_id": "Kafka consumer group.",
            "topic": "Kafka topic of the record.",
            "partition_no": "Partition of the record.",
            "record_offset": "Offset of the record.",
            "record_ts": "Timestamp of the record in milliseconds. Tells a topic that was made anew from the old.",
            "event_type": "Type of the event.",
            "webhook_id": "Id of the event as receivers see it.",
            "content_type": "Content type of the body. Null: none.",
            "traceparent": "W3C trace context. Null: none.",
            "created_at": "When the row was made.",
            "has_key": "1: the record has a key, which may be empty. 0: it has none.",
            "body_size": "Bytes of the body.",
            "record_key": "Key of the record. Null: none, or empty.",
            "body": "Body of the event, as it is sent. Null: empty.",
        },
    ),
    "webhook_deliveries": (
        "Deliveries that left memory: owed, given up, or delivered from here.",
        {
            "id": "Key, given by the database. Never used again.",
            "group_id": "Kafka consumer group whose workers send it.",
            "topic": "Kafka topic of its record.",
            "partition_no": "Partition of its record.",
            "record_offset": "Offset of its record.",
            "record_ts": "Timestamp of its record in milliseconds.",
            "subscription_id": "Id of its subscription. No foreign key: the row outlives the subscription.",
            "replay": "webhook_replays.id of the replay that read its record again. 0: none.",
            "url": "URL of its subscription when it was stored. It is sent to the present URL.",
            "status": "parked, blocked and held: owed. exhausted: given up. delivered: done.",
            "attempt": "Attempts made.",
            "next_attempt_at": "When a parked delivery is due.",
            "first_attempt_at": "When it was tried first.",
            "last_status": "HTTP status of the last attempt. Null: no answer.",
            "last_error": "Why the last attempt failed, or why it was given up.",
            "created_at": "When the row was made.",
            "updated_at": "When the row was changed last.",
            "order_key": "Digest of the key of its record, where the subscription was ordered. Null: not ordered.",
            "schedule_start": "Attempts made before the present retry schedule began.",
            "first_status": "HTTP status of the first attempt. Null: no answer.",
            "first_error": "Why the first attempt failed.",
            "last_attempt_at": "When it was tried last.",
            "last_response": "Start of the last failed answer, escaped to ASCII. Untrusted: the receiver wrote it.",
        },
    ),
    "webhook_operations": (
        "Operational events that are not published to Kafka yet.",
        {
            "id": "Key, given by the database. Published in their order, as far as ids have one.",
            "group_id": "Kafka consumer group whose workers publish it.",
            "event_id": "Id of the CloudEvent.",
            "event_type": "Type of the CloudEvent, such as subscription.disabled.",
            "created_at": "When it was written down.",
            "data": "Its data, as JSON.",
        },
    ),
    "webhook_replays": (
        "Replays: the command and the progress of each.",
        {
            "id": "Key, given by the database. Never used again: deliveries name it.",
            "group_id": "Kafka consumer group whose workers send the deliveries.",
            "subscription_id": "Id of its subscription.",
            "since_at": "Records from then on, by their own timestamps.",
            "until_at": "Records before then.",
            "event_type": "Only events of this type. Null: that of the subscription.",
            "rate": "Deliveries a second.",
            "matched": "Deliveries stored so far.",
            "created_at": "When it began.",
            "finished_at": "When all was read and stored. Null: it can be resumed.",
            "positions": "Spans left to read, as JSON: topic, partition, next offset and end.",
        },
    ),
}


def upgrade() -> None:
    """SQLite has no comments, and copies the two small tables to check them.

    An adopted table may have had rows without a url or an event type; nothing could be sent for them, or stored.
    """
    for missing in () if context.is_offline_mode() else _nullable():
        with op.batch_alter_table(
            SUBSCRIPTIONS, recreate="auto", table_kwargs={"sqlite_autoincrement": True}
        ) as subscriptions:
            subscriptions.alter_column(missing["name"], existing_type=missing["type"], nullable=False)
    for table, column, name in CHECKS:
        if _on_sqlite():
            with _rebuilding(table) as rebuilt:
                rebuilt.create_check_constraint(name, f"json_valid({column})")
        else:
            op.create_check_constraint(name, table, f"{column} IS JSON")
    if not _on_sqlite():
        for table, (about, columns) in COMMENTS.items():
            op.create_table_comment(table, about)
            for column, text in columns.items():
                op.alter_column(table, column, comment=text)


def downgrade() -> None:
    """Drop the comments, also changed ones, and the checks."""
    if not _on_sqlite():
        for table, (_, columns) in COMMENTS.items():
            op.drop_table_comment(table)
            for column in columns:
                op.alter_column(table, column, comment=None)
    for table, column, name in CHECKS:
        if _on_sqlite():
            with _rebuilding(table, sa.CheckConstraint(f"json_valid({column})", name=name)) as rebuilt:
                rebuilt.drop_constraint(name, type_="check")
        else:
            op.drop_constraint(name, table, type_="check")


def _nullable() -> list[ReflectedColumn]:
    """The required columns that are still nullable. WebhooksError if one of them has rows without a value."""
    connection = op.get_bind()
    found = []
    for column in sa.inspect(connection).get_columns(SUBSCRIPTIONS):
        if column["name"].lower() in {"url", "event_type"} and column["nullable"]:
            table = sa.table(SUBSCRIPTIONS, sa.column(column["name"]))
            empty = sa.select(sa.func.count()).select_from(table).where(table.c[column["name"]].is_(None))
            if number := connection.scalar(empty):
                raise WebhooksError(
                    f"{SUBSCRIPTIONS} has {number} row(s) without {column['name']}, which get nothing; "
                    "delete or complete them, then migrate again"
                )
            found.append(column)
    return found


def _on_sqlite() -> bool:
    return op.get_context().dialect.name == "sqlite"


def _rebuilding(table: str, *checks: sa.CheckConstraint) -> AbstractContextManager[BatchOperations]:
    """Copy a table on SQLite. Printed SQL has its definition; online it is read from the database."""
    return op.batch_alter_table(
        table,
        copy_from=_stands(table, *checks) if context.is_offline_mode() else None,
        recreate="always",
        table_kwargs={"sqlite_autoincrement": True},
    )


def _stands(table: str, *checks: sa.CheckConstraint) -> sa.Table:
    own: tuple[sa.schema.SchemaItem, ...]
    if table == "webhook_operations":
        own = (
            sa.Column("event_id", sa.String(255), nullable=False),
            sa.Column("event_type", sa.String(255), nullable=False),
            sa.Column("created_at", INSTANT, server_default=NOW, nullable=False),
            sa.Column("data", sa.Text(), nullable=False),
            sa.UniqueConstraint("group_id", "event_id", name="uq_webhook_operations_event"),
        )
    else:
        own = (
            sa.Column("subscription_id", ID, nullable=False),
            sa.Column("since_at", INSTANT, nullable=False),
            sa.Column("until_at", INSTANT, nullable=False),
            sa.Column("event_type", sa.String(1000)),
            sa.Column("rate", sa.Numeric(9, 3), nullable=False),
            sa.Column("matched", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
            sa.Column("created_at", INSTANT, server_default=NOW, nullable=False),
            sa.Column("finished_at", INSTANT),
            sa.Column("positions", sa.Text(), nullable=False),
        )
    return sa.Table(
        table,
        sa.MetaData(),
        sa.Column("id", ID, sa.Identity(), nullable=False),
        sa.Column("group_id", sa.String(255), nullable=False),
        *own,
        sa.PrimaryKeyConstraint("id", name=f"pk_{table}"),
        *checks,
    )
