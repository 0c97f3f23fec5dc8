"""The tables' revision is noted in `webhook_alembic_version`, not in the table that Alembic gives every program."""

from collections.abc import Sequence

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    """Nothing: `env.py` moves it before any revision runs. Printed SQL tells by this one which table a database has."""


def downgrade() -> None:
    """Nothing: it stays where it is."""
