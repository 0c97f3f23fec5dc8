"""Several event types of a subscription; its name, external id and metadata. Comments are those of the models.

No table is copied: the new columns may be null, and so the rows stay as they are.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

from models import Base

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

SUBSCRIPTIONS = "webhook_subscriptions"
TYPES = "webhook_event_types"
EXTERNAL = "ix_webhook_subs_external"
TENANT = "uq_webhook_subs_tenant"
METADATA = "ck_webhook_subs_metadata"
ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Add the columns, and the table of further types.

    Its foreign key refers to a key of two columns: Oracle uses the index of a tenant's list for it.
    """
    for column in (may("name", 200), may("external_id", 255)):
        op.add_column(SUBSCRIPTIONS, column)
    if _on_sqlite():  # which adds no constraint without a copy of the table
        rule = f"CONSTRAINT {METADATA} CHECK (metadata IS NULL OR json_valid(metadata))"
        op.execute(f"ALTER TABLE {SUBSCRIPTIONS} ADD COLUMN metadata VARCHAR(2000) {rule}")
        op.create_index(TENANT, SUBSCRIPTIONS, ("tenant", "id"), unique=True)
        op.create_index(EXTERNAL, SUBSCRIPTIONS, ("external_id", "tenant"), unique=True)
    else:
        op.add_column(SUBSCRIPTIONS, may("metadata", 2000))
        op.create_check_constraint(METADATA, SUBSCRIPTIONS, "metadata IS JSON")
        op.create_unique_constraint(TENANT, SUBSCRIPTIONS, ["tenant", "id"])
        # The tenant alone, without an external id, must have no entry: two of them would be the same to Oracle.
        tenant = sa.text("CASE WHEN external_id IS NOT NULL THEN tenant END")
        op.create_index(EXTERNAL, SUBSCRIPTIONS, ["external_id", tenant], unique=True)
        op.create_table_comment(SUBSCRIPTIONS, Base.metadata.tables[SUBSCRIPTIONS].comment)
    op.create_table(
        TYPES,
        sa.Column(
            "subscription_id", ID, autoincrement=False, nullable=False, comment=_comment(TYPES, "subscription_id")
        ),
        sa.Column(
            "tenant", sa.String(255), server_default=sa.text("'*'"), nullable=False, comment=_comment(TYPES, "tenant")
        ),
        sa.Column("event_type", sa.String(255), nullable=False, comment=_comment(TYPES, "event_type")),
        sa.ForeignKeyConstraint(
            ["tenant", "subscription_id"],
            [f"{SUBSCRIPTIONS}.tenant", f"{SUBSCRIPTIONS}.id"],
            name="fk_webhook_event_types_sub",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("subscription_id", "tenant", "event_type", name="pk_webhook_event_types"),
        comment=Base.metadata.tables[TYPES].comment,
    )
    op.create_index("ix_webhook_event_types_match", TYPES, ("event_type", "tenant"))


def downgrade() -> None:
    """Drop them. A subscription then gets the events of its first type alone."""
    op.drop_table(TYPES)
    op.drop_index(EXTERNAL, SUBSCRIPTIONS)
    if _on_sqlite():  # which drops the check with its column
        op.drop_index(TENANT, SUBSCRIPTIONS)
    else:
        op.drop_constraint(TENANT, SUBSCRIPTIONS, type_="unique")
        op.drop_constraint(METADATA, SUBSCRIPTIONS, type_="check")
    for name in ("metadata", "external_id", "name"):
        op.drop_column(SUBSCRIPTIONS, name)


def may(name: str, length: int) -> sa.Column[Any]:
    """A column of texts that may be null."""
    return sa.Column(name, sa.String(length), comment=_comment(SUBSCRIPTIONS, name))


def _on_sqlite() -> bool:
    return op.get_context().dialect.name == "sqlite"


def _comment(table: str, column: str) -> str | None:
    return Base.metadata.tables[table].columns[column].comment
