"""The table that many projects start with: the subscriptions."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import context, op

from consumer.errors import WebhooksError
from models import Base

revision: str = "0001"
down_revision: str | None = None
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

SUBSCRIPTIONS = "webhook_subscriptions"
COLUMNS = {"id", "url", "event_type", "created_at"}


def upgrade() -> None:
    """Create the table, or keep an existing one with its rows. Printed SQL cannot tell: print it from 0001 on."""
    if not context.is_offline_mode():
        there = sa.inspect(op.get_bind())
        if there.has_table(SUBSCRIPTIONS):
            if lacks := _lacks(there):
                raise WebhooksError(f"{SUBSCRIPTIONS} exists, and {lacks}; rename or change it, then migrate again")
            return
        if there.dialect.name == "oracle":
            _refuse_synonym(op.get_bind())
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


def _refuse_synonym(connection: sa.Connection) -> None:
    """Raise WebhooksError if Oracle has a synonym of the table's name: the table may be the one of another owner.

    Oracle refuses a table beside a private synonym (ORA-00955). A table hides a public one, and would be empty.
    """
    synonyms = sa.table("all_synonyms", *map(sa.column, ("owner", "synonym_name", "table_owner", "table_name")))
    ours: sa.ColumnElement[str] = sa.literal_column("sys_context('userenv', 'current_schema')")
    of_us = sa.or_(synonyms.c.owner == ours, synonyms.c.owner == "PUBLIC")
    query = sa.select(synonyms.c.owner, synonyms.c.table_owner, synonyms.c.table_name, ours.label("ours")).where(
        of_us, synonyms.c.synonym_name == SUBSCRIPTIONS.upper()
    )
    for owner, its_owner, name, schema in connection.execute(query):
        is_public = owner == "PUBLIC"
        if is_public and (its_owner == schema or connection.get_execution_options().get("db_schema")):
            continue
        instead = f"to {schema} for tables of its own" if is_public else "drop the synonym"
        raise WebhooksError(
            f"{owner} has a synonym {SUBSCRIPTIONS.upper()} for {its_owner}.{name}: "
            f"set DATABASE_SCHEMA to {its_owner} to use that table, or {instead}, then migrate again"
        )


def _lacks(there: sa.Inspector) -> str | None:
    """The reason why 0002 cannot extend an existing table; None if it can."""
    if SUBSCRIPTIONS in there.get_view_names():
        return "is a view"
    # A quoted name is in lower case on Oracle, where plain SQL does not find it.
    types = {
        each["name"]: each["type"] for each in there.get_columns(SUBSCRIPTIONS) if not hasattr(each["name"], "quote")
    }
    if missing := COLUMNS - types.keys():
        return f"lacks these columns: {', '.join(sorted(missing))}"
    if taken := types.keys() & {*Base.metadata.tables[SUBSCRIPTIONS].columns.keys()} - COLUMNS:
        return f"has columns whose names the service needs: {', '.join(sorted(taken))}"
    on_sqlite = op.get_context().dialect.name == "sqlite"
    number = type(types["id"]) is sa.INTEGER if on_sqlite else isinstance(types["id"], sa.Numeric | sa.Integer)
    if not number or there.get_pk_constraint(SUBSCRIPTIONS)["constrained_columns"] != ["id"]:
        return f"its primary key is not id alone, {'INTEGER' if on_sqlite else 'a number'}"
    if not all(on_sqlite or isinstance(types[name], sa.VARCHAR) for name in ("url", "event_type")):
        return "url and event_type are not VARCHAR2"
    return None
