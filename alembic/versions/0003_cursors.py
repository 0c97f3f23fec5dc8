"""Positions of subscriptions that are behind, and replays that are such positions. Comments are those of the models.

Tables with a row for each event stay as they are; those that change have a row for each subscription or replay.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects import oracle

from models import Base
from models.base import utc_now

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

SUBSCRIPTIONS = "webhook_subscriptions"
REPLAYS = "webhook_replays"
CURSORS = "webhook_cursors"
NEW = "webhook_replays_new"  # on SQLite, until it has the old one's name
ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
FLAG = sa.Integer().with_variant(oracle.NUMBER(1), "oracle")  # type: ignore[no-untyped-call]  # SQLAlchemy's
DECIMAL = sa.Numeric(9, 3)
TIME = sa.TIMESTAMP()
NOW = utc_now()
STARTS = ("ck_webhook_subs_starts", "starts IN (0, 1)")
ORDERED = ("ck_webhook_replays_ordered", "ordered IN (0, 1)")
BACKGROUND = ("ck_webhook_replays_background", "background IN (0, 1)")
INDEXES = (
    ("ix_webhook_subs_paused", SUBSCRIPTIONS, ("paused_at",)),
    ("ix_webhook_subs_probed", SUBSCRIPTIONS, ("probed_at",)),
    ("ix_webhook_cursors_sub", CURSORS, ("subscription_id",)),
    ("ix_webhook_cursors_expires", CURSORS, ("expires_at",)),
)
KEPT = (
    *("id", "group_id", "subscription_id", "since_at", "until_at", "event_type", "rate", "record_count"),
    *("created_at", "created_by", "finished_at", "cancelled_at"),
)  # columns of replays that both revisions have

# The elements of positions: [[topic, partition, next offset, end offset], ...].
ELEMENTS_OF_SQLITE = "json_each(r.positions) j"
ELEMENTS_OF_ORACLE = """JSON_TABLE(r.positions, '$[*]' COLUMNS (
        topic VARCHAR2(249) PATH '$[0]', partition_no NUMBER PATH '$[1]',
        next_offset NUMBER PATH '$[2]', end_offset NUMBER PATH '$[3]')) j"""
SPAN = {"topic": "text", "partition_no": "integer", "next_offset": "integer", "end_offset": "integer"}
# A cancelled one can be resumed where it stopped. Repeated, this adds nothing: an old process may have read on.
BEGIN_CURSORS = """
INSERT INTO webhook_cursors
    (group_id, topic, partition_no, subscription_id, replay, reason, first_offset, next_offset, end_offset)
SELECT r.group_id, s.topic, s.partition_no, r.subscription_id, r.id,
    'replay', s.next_offset, s.next_offset, s.end_offset
FROM webhook_replays r JOIN ({spans}) s ON s.id = r.id
WHERE r.finished_at IS NULL AND s.topic IS NOT NULL AND s.partition_no >= 0 AND s.next_offset >= 0
AND s.next_offset < s.end_offset
AND EXISTS (SELECT 1 FROM webhook_subscriptions w WHERE w.id = r.subscription_id)
AND NOT EXISTS (SELECT 1 FROM webhook_cursors c WHERE c.replay = r.id
    AND c.topic = s.topic AND c.partition_no = s.partition_no)"""
# Those that a command ran stop as it does: `replay --resume` goes on with them. So do those that cannot be read whole.
CANCEL = """
UPDATE webhook_replays SET cancelled_at = {now} WHERE finished_at IS NULL AND cancelled_at IS NULL
AND (background = 0 AND EXISTS (SELECT 1 FROM webhook_cursors c WHERE c.replay = webhook_replays.id)
    OR EXISTS (SELECT 1 FROM ({spans}) s WHERE s.id = webhook_replays.id
        AND (s.topic IS NULL OR s.partition_no IS NULL OR s.next_offset IS NULL OR s.end_offset IS NULL)))"""
COUNT_RECORDS = """
UPDATE webhook_replays SET record_count = matched + COALESCE((SELECT SUM(c.end_offset - c.next_offset)
    FROM webhook_cursors c WHERE c.replay = webhook_replays.id), 0)
WHERE record_count IS NULL"""
SEQUENCE = """
INSERT INTO sqlite_sequence (name, seq)
SELECT 'webhook_replays_new', seq FROM sqlite_sequence WHERE name = 'webhook_replays'"""

DISABLE_PAUSED = """
UPDATE webhook_subscriptions SET enabled = 0, disabled_reason = COALESCE(paused_reason, 'it was paused')
WHERE paused_at IS NOT NULL AND enabled = 1"""
END_REPLAYS = """
UPDATE webhook_replays
SET cancelled_at = {now}, last_error = 'begin another replay: the tables went back to revision 0002'
WHERE finished_at IS NULL AND cancelled_at IS NULL"""


def upgrade() -> None:
    """Add what cursors need. What replays have left to read becomes cursors, and so the partitions' owners run it."""
    for column in _options():
        column.comment = _comment(SUBSCRIPTIONS, column.name)
        op.add_column(SUBSCRIPTIONS, column)
    if _on_sqlite():  # not by a copy of the table, which would have no triggers
        rule = f"CONSTRAINT {STARTS[0]} CHECK ({STARTS[1]})"
        op.execute(f"ALTER TABLE {SUBSCRIPTIONS} ADD COLUMN starts INTEGER DEFAULT 0 NOT NULL {rule}")
    else:
        starts = must("starts", FLAG, "0")
        starts.comment = _comment(SUBSCRIPTIONS, "starts")
        op.add_column(SUBSCRIPTIONS, starts)
        op.create_check_constraint(STARTS[0], SUBSCRIPTIONS, STARTS[1])
    _create_cursors()
    for name, table, columns in INDEXES:
        op.create_index(name, table, columns)
    if _has(REPLAYS, "positions"):
        for statement in (BEGIN_CURSORS, CANCEL, COUNT_RECORDS):
            _execute(statement)
    if _on_sqlite():
        _copy_replays(must("ordered", FLAG, "0"), must("record_count", sa.BigInteger), _check(*ORDERED))
        return
    op.add_column(REPLAYS, must("ordered", FLAG, "0"))
    op.create_check_constraint(ORDERED[0], REPLAYS, ORDERED[1])
    op.alter_column(REPLAYS, "record_count", existing_type=sa.BigInteger(), existing_nullable=True, nullable=False)
    for name in ("ck_webhook_replays_positions", BACKGROUND[0]):
        op.drop_constraint(name, REPLAYS, type_="check")
    for column in reversed(_former()):  # positions first: without them, nothing is left to read
        op.drop_column(REPLAYS, column.name)
    op.create_table_comment(REPLAYS, Base.metadata.tables[REPLAYS].comment)
    for column in Base.metadata.tables[REPLAYS].columns:
        op.alter_column(REPLAYS, column.name, comment=column.comment)


def downgrade() -> None:
    """Drop what cursors need, and so what they owe. Paused subscriptions are disabled, and open replays cancelled."""
    if _has(SUBSCRIPTIONS, "paused_at"):
        _execute(DISABLE_PAUSED)
    if _on_sqlite():
        _copy_replays(*_former(), may("record_count", sa.BigInteger), _check(*BACKGROUND), _is_json(), positions="'[]'")
    else:
        for column in _former():
            column.nullable = column.nullable or column.server_default is None  # until it is filled
            if not _has(REPLAYS, column.name, printed=False):
                op.add_column(REPLAYS, column)
        op.execute("UPDATE webhook_replays SET positions = '[]' WHERE positions IS NULL")
        op.alter_column(REPLAYS, "positions", existing_type=sa.Text(), existing_nullable=True, nullable=False)
        op.create_check_constraint("ck_webhook_replays_positions", REPLAYS, "positions IS JSON")
        op.create_check_constraint(BACKGROUND[0], REPLAYS, BACKGROUND[1])
        op.alter_column(REPLAYS, "record_count", existing_type=sa.BigInteger(), existing_nullable=False, nullable=True)
        op.drop_constraint(ORDERED[0], REPLAYS, type_="check")
        op.drop_column(REPLAYS, "ordered")
    _execute(END_REPLAYS)
    op.drop_table(CURSORS)
    for name, table, _ in INDEXES:
        if table == SUBSCRIPTIONS:
            op.drop_index(name, SUBSCRIPTIONS)
    if not _on_sqlite():  # which drops it with the column
        op.drop_constraint(STARTS[0], SUBSCRIPTIONS, type_="check")
    for name in (*(column.name for column in _options()), "starts"):  # paused_at first: no other run disables again
        op.drop_column(SUBSCRIPTIONS, name)


def _options() -> tuple[sa.Column[Any], ...]:
    """The columns that subscriptions get, but for `starts`."""
    return may("paused_at", TIME), may("paused_reason", 1000), may("probed_at", TIME)


def _former() -> tuple[sa.Column[Any], ...]:
    """The columns that replays lose."""
    return (
        must("matched", sa.BigInteger, "0"),
        must("background", FLAG, "0"),
        may("lease_until", TIME),
        may("last_error", 1000),
        must("positions", sa.Text),
    )


def _create_cursors() -> None:
    columns = (
        sa.Column("id", ID, sa.Identity(), nullable=False),
        must("group_id", 255),
        must("topic", 249),
        must("partition_no", sa.Integer),
        must("subscription_id", ID),
        must("replay", sa.Integer, "0"),
        must("reason", 10),
        must("first_offset", sa.BigInteger),
        must("next_offset", sa.BigInteger),
        may("end_offset", sa.BigInteger),
        may("settled_runs", 4000),
        must("version", sa.Integer, "0"),
        may("record_ts", sa.BigInteger),
        may("expires_at", TIME),
        may("topic_identity", 60),
        must("created_at", TIME, NOW),
        must("updated_at", TIME, NOW),
    )
    for column in columns:
        column.comment = _comment(CURSORS, column.name)
    op.create_table(
        CURSORS,
        *columns,
        sa.ForeignKeyConstraint(
            ["subscription_id"], [f"{SUBSCRIPTIONS}.id"], name="fk_webhook_cursors_sub", ondelete="CASCADE"
        ),
        sa.UniqueConstraint(
            *("group_id", "topic", "partition_no", "subscription_id", "replay", "first_offset"),
            name="uq_webhook_cursors_place",
        ),
        _check("ck_webhook_cursors_reason", "reason IN ('paused', 'behind', 'start', 'replay')"),
        _check("ck_webhook_cursors_next", "next_offset >= first_offset"),
        _check("ck_webhook_cursors_end", "end_offset >= next_offset"),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_cursors"),
        comment=Base.metadata.tables[CURSORS].comment,
        sqlite_autoincrement=True,
    )


def _copy_replays(*items: sa.schema.SchemaItem, **more: str) -> None:
    """Replays with other columns, by a copy, because SQLite drops no column that a rule of the table names.

    `more` has the values, in SQL, of added columns without a default. The sequence goes on: no id is used again.
    """
    op.create_table(
        NEW,
        sa.Column("id", ID, sa.Identity(), nullable=False),
        must("group_id", 255),
        must("subscription_id", ID),
        must("since_at", TIME),
        must("until_at", TIME),
        may("event_type", 1000),
        must("rate", DECIMAL),
        must("created_at", TIME, NOW),
        may("created_by", 100),
        may("finished_at", TIME),
        may("cancelled_at", TIME),
        *items,
        sa.PrimaryKeyConstraint("id", name=f"pk_{REPLAYS}"),
        sqlite_autoincrement=True,
    )
    kept = ", ".join(KEPT)
    names, values = ", ".join((kept, *more)), ", ".join((kept, *more.values()))
    op.execute(f"INSERT INTO {NEW} ({names}) SELECT {values} FROM {REPLAYS}")  # noqa: S608 (from above)
    op.execute("DELETE FROM sqlite_sequence WHERE name = 'webhook_replays_new'")
    op.execute(SEQUENCE.strip())
    op.drop_table(REPLAYS)
    op.rename_table(NEW, REPLAYS)


def _execute(statement: str) -> None:
    """Execute a change of rows that may name the spans or the time."""
    now = NOW.compile(dialect=op.get_context().dialect)
    op.execute(statement.format(now=now, spans=_spans()).strip())


def _spans() -> str:
    """A query of what replays have left to read. A value of another type, as after an edit by hand, is null."""
    elements, values = ELEMENTS_OF_ORACLE, {name: f"j.{name}" for name in SPAN}
    if _on_sqlite():
        elements = ELEMENTS_OF_SQLITE
        for place, (name, kind) in enumerate(SPAN.items()):
            value = f"(r.positions, j.fullkey || '[{place}]')"
            values[name] = f"CASE json_type{value} WHEN '{kind}' THEN json_extract{value} END"
    columns = ",\n        ".join(f"{value} AS {name}" for name, value in values.items())
    return f"\n    SELECT r.id, {columns}\n    FROM webhook_replays r, {elements}"  # noqa: S608 (from above)


def _has(table: str, column: str, *, printed: bool = True) -> bool:
    """Whether a table has a column now: an earlier run may have changed it. `printed`: so for SQL that is printed."""
    if context.is_offline_mode():
        return printed
    return column in {each["name"] for each in sa.inspect(op.get_bind()).get_columns(table)}


def _on_sqlite() -> bool:
    return op.get_context().dialect.name == "sqlite"


def _comment(table: str, column: str) -> str | None:
    """The comment of the model, if it still has this column."""
    found = Base.metadata.tables[table].columns.get(column)
    return None if found is None else found.comment


def must(name: str, kind: Any, default: Any = None) -> sa.Column[Any]:
    """A column that is NOT NULL."""
    return may(name, kind, default, nullable=False)


def may(name: str, kind: Any, default: Any = None, *, nullable: bool = True) -> sa.Column[Any]:
    """A column that may be null. An int as its `kind` is the length of a text; a text as its `default` is SQL."""
    given = sa.text(default) if isinstance(default, str) else default
    return sa.Column(name, sa.String(kind) if isinstance(kind, int) else kind, server_default=given, nullable=nullable)


def _check(name: str, rule: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(rule, name=name)


def _is_json() -> sa.CheckConstraint:
    return _check("ck_webhook_replays_positions", "json_valid(positions)")
