"""Replays that API processes run, and the keys that make the creation of a resource repeatable."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import oracle

from models.base import utc_now

revision: str = "0010"
down_revision: str | None = "0009"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

REPLAYS, KEYS = "webhook_replays", "webhook_request_keys"
INSTANT = sa.TIMESTAMP()
FLAG = sa.Integer().with_variant(oracle.NUMBER(1), "oracle")  # type: ignore[no-untyped-call]  # SQLAlchemy's
NOW = utc_now()
CHECK, CHECKED = "ck_webhook_replays_background", "background IN (0, 1)"
ABOUT = "Replays: the request and the progress of each."
ABOUT_BEFORE = "Replays: the command and the progress of each."
COMMENTS = {
    "background": "1: processes of the API run it. 0: the command that began it does.",
    "lease_until": "Until then one API process runs it, and the others leave it alone. Null: none does.",
    "last_error": "Why it makes no progress. Null: it does.",
    "created_by": "Who began it. Null: not noted.",
}


def upgrade() -> None:
    """No row changes: the replays that exist belong to the command line."""
    on_sqlite = op.get_context().dialect.name == "sqlite"
    if on_sqlite:  # which adds a check with its column, or not at all
        op.execute(
            f"ALTER TABLE {REPLAYS} ADD COLUMN background INTEGER DEFAULT 0 NOT NULL"
            f" CONSTRAINT {CHECK} CHECK ({CHECKED})"
        )
    else:
        op.add_column(REPLAYS, sa.Column("background", FLAG, server_default=sa.text("0"), nullable=False))
        op.create_check_constraint(CHECK, REPLAYS, CHECKED)
    op.add_column(REPLAYS, sa.Column("lease_until", INSTANT))
    op.add_column(REPLAYS, sa.Column("last_error", sa.String(1000)))
    op.add_column(REPLAYS, sa.Column("created_by", sa.String(100)))
    op.create_table(
        KEYS,
        sa.Column("key_digest", sa.String(64), comment="SHA-256 of the caller, the path and the key, in hex."),
        sa.Column(
            "request_digest",
            sa.String(64),
            nullable=False,
            comment="HMAC-SHA256 of the body, keyed by the key, in hex.",
        ),
        sa.Column("resource_id", sa.BigInteger(), nullable=False, comment="Id of the resource that it created."),
        sa.Column("created_at", INSTANT, server_default=NOW, nullable=False, comment="When the row was made."),
        sa.PrimaryKeyConstraint("key_digest", name="pk_webhook_request_keys"),
        comment="Idempotency keys of the last day, so that a repeated request creates nothing twice.",
    )
    op.create_index("ix_webhook_request_keys_age", KEYS, ["created_at"])
    if not on_sqlite:  # which has no comments
        for column, comment in COMMENTS.items():
            op.alter_column(REPLAYS, column, comment=comment)
        op.create_table_comment(REPLAYS, ABOUT, existing_comment=ABOUT_BEFORE)


def downgrade() -> None:
    """Replays of the API then belong to the command line: `replay --resume` continues them."""
    op.drop_table(KEYS)
    for column in reversed(COMMENTS):
        op.drop_column(REPLAYS, column)
    if op.get_context().dialect.name != "sqlite":
        op.create_table_comment(REPLAYS, ABOUT_BEFORE, existing_comment=ABOUT)
