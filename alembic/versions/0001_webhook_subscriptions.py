"""The table that many projects start with: the subscriptions."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.sql import quoted_name

from consumer.errors import WebhooksError

revision: str = "0001"
down_revision: str | None = None
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

SUBSCRIPTIONS = "webhook_subscriptions"
COLUMNS = {"id", "url", "event_type", "created_at"}
# Columns that later revisions add: Oracle would stop at an existing one, with a part of the revisions done.
LATER = {"enabled", "disabled_reason", "ordering", "max_in_flight", "rate_limit"}
LATER |= {"retry_schedule", "final_statuses", "failing_since"}
LATER |= {"tenant", "topics", "event_filter", "timeout_seconds", "payload_format", "projection"}
LATER |= {"batch_size", "batch_wait_ms", "signature_header", "signature_prefix", "custom_headers"}
LATER |= {"gzip_above", "http_version", "verified_url"}
SYNONYM = sa.text("""
    SELECT table_owner || '.' || table_name FROM all_synonyms
    WHERE owner = SYS_CONTEXT('userenv', 'current_schema') AND synonym_name = 'WEBHOOK_SUBSCRIPTIONS'
""")


def upgrade() -> None:
    """Create the table, or keep an existing one with its rows. Printed SQL cannot tell: print it from 0001 on."""
    if not context.is_offline_mode() and _is_there(sa.inspect(op.get_bind())):
        return
    op.create_table(
        SUBSCRIPTIONS,
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), sa.Identity(), nullable=False),
        sa.Column("url", sa.String(255), nullable=False),
        sa.Column("event_type", sa.String(50), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(), server_default=sa.text("CURRENT_TIMESTAMP")),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_subscriptions"),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    """Drop the table."""
    op.drop_table(SUBSCRIPTIONS)


def _is_there(inspector: sa.Inspector) -> bool:
    """Whether the table exists. WebhooksError if it cannot be adopted: nothing has been changed yet."""
    on_oracle = op.get_context().dialect.name == "oracle"
    if not inspector.has_table(SUBSCRIPTIONS):
        if on_oracle:
            _refuse_other_names(inspector)
        return False
    if SUBSCRIPTIONS in map(str.lower, inspector.get_view_names()):
        raise WebhooksError(f"{SUBSCRIPTIONS} is a view, and a table is needed; rename the view, then migrate again")
    names = [column["name"] for column in inspector.get_columns(SUBSCRIPTIONS)]
    for found, wrong in (
        (COLUMNS - {name.lower() for name in names}, "exists, without these columns"),
        ({name for name in names if getattr(name, "quote", None)}, "has columns whose names are in lower case; rename"),
        (LATER.intersection(name.lower() for name in names), "has columns whose names we need; rename"),
    ):
        if found:
            raise WebhooksError(f"{SUBSCRIPTIONS} {wrong}: {', '.join(sorted(found))}")
    if on_oracle:
        _check_for_oracle(inspector)
    else:
        _check_for_sqlite(inspector)
        for name in {name for name in names if name.lower() in COLUMNS} - COLUMNS:
            for old, new in ((name, f"{name}_before"), (f"{name}_before", name.lower())):  # ignores a change of case
                op.execute(f"ALTER TABLE {SUBSCRIPTIONS} RENAME COLUMN {old} TO {new}")
    return True


def _refuse_other_names(inspector: sa.Inspector) -> None:
    """WebhooksError if Oracle would find something else by the table's name, or nothing."""
    if inspector.has_table(quoted_name(SUBSCRIPTIONS, quote=True)):
        raise WebhooksError(
            f'there is a table "{SUBSCRIPTIONS}", in lower case, which plain SQL does not find; '
            f'ALTER TABLE "{SUBSCRIPTIONS}" RENAME TO {SUBSCRIPTIONS}, then migrate again'
        )
    if table := op.get_bind().scalar(SYNONYM):
        raise WebhooksError(
            f"{SUBSCRIPTIONS} is a synonym of {table}, and a table is needed; migrate as the owner of that table, or "
            "drop the synonym, then migrate again"
        )


def _check_for_oracle(inspector: sa.Inspector) -> None:
    """WebhooksError if later revisions could not change the table or refer to it."""
    types = {column["name"]: column["type"] for column in inspector.get_columns(SUBSCRIPTIONS)}
    for name in ("url", "event_type"):
        if not isinstance(types[name], sa.VARCHAR):
            raise WebhooksError(
                f"{name} of {SUBSCRIPTIONS} is {types[name].compile(inspector.dialect)}, and must be VARCHAR2, which "
                "Oracle does not change it to (ORA-01439); copy it into a new column, drop the old one, give the new "
                "one its name, then migrate again"
            )
    if not isinstance(types["id"], sa.Numeric | sa.Integer):
        raise WebhooksError(
            f"id of {SUBSCRIPTIONS} is {types['id'].compile(inspector.dialect)}, and must be a number; rename it, add "
            "id NUMBER(19) GENERATED BY DEFAULT AS IDENTITY as the primary key, then migrate again"
        )
    if inspector.get_pk_constraint(SUBSCRIPTIONS)["constrained_columns"] != ["id"]:
        raise WebhooksError(
            f"{SUBSCRIPTIONS} has no primary key of id alone, to which secrets refer; give it one, such as "
            f"ALTER TABLE {SUBSCRIPTIONS} ADD PRIMARY KEY (id), then migrate again"
        )


def _check_for_sqlite(inspector: sa.Inspector) -> None:
    """WebhooksError if SQLite cannot rebuild the table, or cannot fill its ids then."""
    if SUBSCRIPTIONS not in inspector.get_table_names():
        raise WebhooksError(f"the name of {SUBSCRIPTIONS} is not in lower case; rename it, by way of another name")
    types = {column["name"].lower(): column["type"] for column in inspector.get_columns(SUBSCRIPTIONS)}
    key = [name.lower() for name in inspector.get_pk_constraint(SUBSCRIPTIONS)["constrained_columns"]]
    rowid = inspector.get_table_options(SUBSCRIPTIONS).get("sqlite_with_rowid", True)
    if key != ["id"] or type(types["id"]) is not sa.INTEGER or not rowid:
        raise WebhooksError(
            f"the id of {SUBSCRIPTIONS} is not filled by SQLite; make the table anew with id INTEGER PRIMARY KEY, and "
            "not WITHOUT ROWID, then migrate again"
        )
