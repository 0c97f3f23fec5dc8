"""The request follows the event: its method, computed headers, and record headers that go on; another signature.

No table is copied: the new columns have a default or may be null. Comments are those of the models.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from models import Base

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

SUBSCRIPTIONS, PAYLOADS = "webhook_subscriptions", "webhook_payloads"
METHOD, COMPUTED = "ck_webhook_subs_method", "ck_webhook_subs_computed"
TEXTS = ("pass_headers", "signature_template")
METHODS = "method IN ('POST', 'PUT', 'PATCH', 'DELETE')"


def upgrade() -> None:
    """Add the columns."""
    if _on_sqlite():  # which adds no constraint without a copy of the table
        rules = f"CONSTRAINT {METHOD} CHECK ({METHODS})"
        op.execute(f"ALTER TABLE {SUBSCRIPTIONS} ADD COLUMN method VARCHAR(10) DEFAULT 'POST' NOT NULL {rules}")
        rule = f"CONSTRAINT {COMPUTED} CHECK (header_expressions IS NULL OR json_valid(header_expressions))"
        op.execute(f"ALTER TABLE {SUBSCRIPTIONS} ADD COLUMN header_expressions VARCHAR(2000) {rule}")
    else:
        post = sa.text("'POST'")
        op.add_column(
            SUBSCRIPTIONS,
            sa.Column("method", sa.String(10), server_default=post, nullable=False, comment=_comment("method")),
        )
        op.add_column(
            SUBSCRIPTIONS, sa.Column("header_expressions", sa.String(2000), comment=_comment("header_expressions"))
        )
        op.create_check_constraint(METHOD, SUBSCRIPTIONS, METHODS)
        op.create_check_constraint(COMPUTED, SUBSCRIPTIONS, "header_expressions IS JSON")
        op.alter_column(SUBSCRIPTIONS, "url", comment=_comment("url"), existing_type=sa.String(2048))
        about = Base.metadata.tables[PAYLOADS].columns["record_headers"].comment
        op.alter_column(PAYLOADS, "record_headers", comment=about, existing_type=sa.Text())
    for name in TEXTS:
        op.add_column(SUBSCRIPTIONS, sa.Column(name, sa.String(1000), comment=_comment(name)))


def downgrade() -> None:
    """Drop them. Requests are then the same for each event."""
    if not _on_sqlite():  # which drops a check with its column
        op.drop_constraint(COMPUTED, SUBSCRIPTIONS, type_="check")
        op.drop_constraint(METHOD, SUBSCRIPTIONS, type_="check")
    for name in (*TEXTS, "header_expressions", "method"):
        op.drop_column(SUBSCRIPTIONS, name)


def _on_sqlite() -> bool:
    return op.get_context().dialect.name == "sqlite"


def _comment(column: str) -> str | None:
    return Base.metadata.tables[SUBSCRIPTIONS].columns[column].comment
