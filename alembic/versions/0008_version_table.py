"""The tables' revision is recorded in `webhook_alembic_version`, not in the table that Alembic gives every program."""

from collections.abc import Sequence

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    """Do nothing: `env.py` moves the record before any revision runs. Printed SQL tells by 0008 where it was."""


def downgrade() -> None:
    """Do nothing: the record stays in the new table."""
