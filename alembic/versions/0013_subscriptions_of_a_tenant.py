"""An index for the subscriptions of a tenant, which lists and searches of stored deliveries begin with."""

from collections.abc import Sequence

from alembic import op

revision: str = "0013"
down_revision: str | None = "0012"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

INDEX, SUBSCRIPTIONS = "ix_webhook_subs_tenant", "webhook_subscriptions"


def upgrade() -> None:
    """No row changes."""
    op.create_index(INDEX, SUBSCRIPTIONS, ["tenant", "id"])


def downgrade() -> None:
    """Lists of a tenant read the whole table again."""
    op.drop_index(INDEX, SUBSCRIPTIONS)
