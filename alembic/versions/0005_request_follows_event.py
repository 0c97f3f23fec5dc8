"""The request follows the event: its method, computed headers, and record headers that go on; another signature.

Answers are reported on the attempts topic. Deliveries that are given up wait for the exhausted topic; the leader of a
group lets its earlier ones wait too. No table is copied: the new columns have a default or may be null. Comments are
those of the models.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import CreateIndex

from models import Base

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

SUBSCRIPTIONS, PAYLOADS, DELIVERIES = "webhook_subscriptions", "webhook_payloads", "webhook_deliveries"
GIVEN_UP = "ix_webhook_deliveries_given_up"
METHOD, COMPUTED, REPORT = "ck_webhook_subs_method", "ck_webhook_subs_computed", "ck_webhook_subs_report"
TEXTS = ("pass_headers", "signature_template", "answer_headers")
METHODS = "method IN ('POST', 'PUT', 'PATCH', 'DELETE')"
REPORTS = "report_answer IN ('false', 'true')"


class CreateOnline(CreateIndex):
    """On Oracle workers go on writing meanwhile: the table may be large."""


@compiles(CreateOnline, "oracle")
def _online(create: CreateOnline, compiler: Any, **more: Any) -> str:
    return f"{compiler.visit_create_index(create, **more)} ONLINE"


def upgrade() -> None:
    """Add the columns."""
    if _on_sqlite():  # which adds no constraint without a copy of the table
        rules = f"CONSTRAINT {METHOD} CHECK ({METHODS})"
        op.execute(f"ALTER TABLE {SUBSCRIPTIONS} ADD COLUMN method VARCHAR(10) DEFAULT 'POST' NOT NULL {rules}")
        rules = f"CONSTRAINT {REPORT} CHECK ({REPORTS})"
        op.execute(f"ALTER TABLE {SUBSCRIPTIONS} ADD COLUMN report_answer VARCHAR(5) DEFAULT 'false' NOT NULL {rules}")
        rule = f"CONSTRAINT {COMPUTED} CHECK (header_expressions IS NULL OR json_valid(header_expressions))"
        op.execute(f"ALTER TABLE {SUBSCRIPTIONS} ADD COLUMN header_expressions VARCHAR(2000) {rule}")
    else:
        for name, length, default in (("method", 10, "'POST'"), ("report_answer", 5, "'false'")):
            usual, about = sa.text(default), _comment(name)
            column = sa.Column(name, sa.String(length), server_default=usual, nullable=False, comment=about)
            op.add_column(SUBSCRIPTIONS, column)
        op.add_column(
            SUBSCRIPTIONS, sa.Column("header_expressions", sa.String(2000), comment=_comment("header_expressions"))
        )
        op.create_check_constraint(METHOD, SUBSCRIPTIONS, METHODS)
        op.create_check_constraint(REPORT, SUBSCRIPTIONS, REPORTS)
        op.create_check_constraint(COMPUTED, SUBSCRIPTIONS, "header_expressions IS JSON")
        op.alter_column(SUBSCRIPTIONS, "url", comment=_comment("url"), existing_type=sa.String(2048))
        about = Base.metadata.tables[PAYLOADS].columns["record_headers"].comment
        op.alter_column(PAYLOADS, "record_headers", comment=about, existing_type=sa.Text())
    for name in TEXTS:
        op.add_column(SUBSCRIPTIONS, sa.Column(name, sa.String(1000), comment=_comment(name)))
    for name, kind in (("unpublished_by", sa.String(255)), ("published_attempt", sa.Integer())):
        op.add_column(DELIVERIES, sa.Column(name, kind, comment=Base.metadata.tables[DELIVERIES].columns[name].comment))
    try:
        op.execute(CreateOnline(sa.Index(GIVEN_UP, _table().c.unpublished_by)))
    except sa.exc.DBAPIError as error:
        if "ORA-00439" not in str(error):  # Standard Edition builds none online
            raise
        op.create_index(GIVEN_UP, DELIVERIES, ("unpublished_by",))


def downgrade() -> None:
    """Drop them. Requests are then the same for each event."""
    op.drop_index(GIVEN_UP, DELIVERIES)
    op.drop_column(DELIVERIES, "published_attempt")
    op.drop_column(DELIVERIES, "unpublished_by")
    if not _on_sqlite():  # which drops a check with its column
        for rule in (COMPUTED, REPORT, METHOD):
            op.drop_constraint(rule, SUBSCRIPTIONS, type_="check")
    for name in (*TEXTS, "header_expressions", "report_answer", "method"):
        op.drop_column(SUBSCRIPTIONS, name)


def _on_sqlite() -> bool:
    return op.get_context().dialect.name == "sqlite"


def _table() -> sa.Table:
    return sa.Table(DELIVERIES, sa.MetaData(), sa.Column("unpublished_by", sa.String(255)))


def _comment(column: str) -> str | None:
    return Base.metadata.tables[SUBSCRIPTIONS].columns[column].comment
