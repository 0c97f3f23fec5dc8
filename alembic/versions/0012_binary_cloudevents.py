"""Subscriptions may get CloudEvents in binary mode."""

from collections.abc import Sequence

from alembic import op

revision: str = "0012"
down_revision: str | None = "0011"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

SUBSCRIPTIONS, FORMATS = "webhook_subscriptions", "ck_webhook_subs_format"
KNOWN = "payload_format IN ('record', 'standard', 'cloudevents', 'cloudevents-binary')"
KNOWN_BEFORE = "payload_format IN ('record', 'standard', 'cloudevents')"
ABOUT_BEFORE = "record: as it came. standard: type, timestamp, data. cloudevents: structured CloudEvent."
ABOUT = f"{ABOUT_BEFORE} cloudevents-binary: ce- headers and the data."
TO_STRUCTURED = """
    UPDATE webhook_subscriptions SET payload_format = 'cloudevents' WHERE payload_format = 'cloudevents-binary'
"""


def upgrade() -> None:
    """No row changes."""
    _allow(KNOWN_BEFORE, KNOWN, ABOUT)


def downgrade() -> None:
    """Such subscriptions get CloudEvents in structured mode."""
    op.execute(TO_STRUCTURED)
    _allow(KNOWN, KNOWN_BEFORE, ABOUT_BEFORE)


def _allow(before: str, after: str, about: str) -> None:
    if op.get_context().dialect.name != "sqlite":
        op.drop_constraint(FORMATS, SUBSCRIPTIONS, type_="check")
        op.create_check_constraint(FORMATS, SUBSCRIPTIONS, after)
        op.alter_column(SUBSCRIPTIONS, "payload_format", comment=about)
        return
    # SQLite cannot change a check. A rebuilt table would keep the checks of 0011's columns apart from these columns,
    # which then could not be dropped again. So this is its own procedure for checks (lang_altertable.html, section 7).
    old, new = (text.replace("'", "''") for text in (before, after))
    op.execute("PRAGMA writable_schema = ON")
    op.execute(f"UPDATE sqlite_master SET sql = replace(sql, '{old}', '{new}') WHERE name = '{SUBSCRIPTIONS}'")  # noqa: S608 (constants)
    op.execute("PRAGMA writable_schema = RESET")
    # Tells open connections that the schema is another one.
    op.execute(f"CREATE INDEX ix_webhook_subs_format ON {SUBSCRIPTIONS} (payload_format)")
    op.execute("DROP INDEX ix_webhook_subs_format")
