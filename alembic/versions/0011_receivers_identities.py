"""Receivers behind OAuth2, plug-ins and TLS of their own; verified URLs; compressed bodies; HTTP/2."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import context, op

from models.base import utc_now

revision: str = "0011"
down_revision: str | None = "0010"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

SUBSCRIPTIONS, SECRETS, TLS = "webhook_subscriptions", "webhook_secrets", "webhook_tls"
ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
INSTANT = sa.TIMESTAMP()
NOW = utc_now()
KINDS = "ck_webhook_secrets_kind"
KNOWN_BEFORE = "kind IN ('signing', 'basic', 'bearer', 'header')"
KNOWN = "kind IN ('signing', 'basic', 'bearer', 'header', 'oauth2', 'plugin')"
KIND = (
    "signing: a key. basic: user:password. bearer: a token. header: name: value. oauth2, plugin: a JSON object.",
    "signing: a key. basic: user:password. bearer: a token. header: name: value.",
)
CHECKS = {
    "gzip_above": ("ck_webhook_subs_gzip", "gzip_above >= 0"),
    "http_version": ("ck_webhook_subs_http", "http_version IN ('1.1', '2')"),
}
COMMENTS = {
    "gzip_above": "Bodies of more bytes are sent gzip-compressed. Null: none is.",
    "http_version": "1.1, or 2: HTTP/2 if the receiver offers it.",
    "verified_url": "The URL that has answered the validation request. Null, or another one than url: not verified.",
}


def upgrade() -> None:
    """No row changes. SQLite rebuilds the table of secrets: it cannot change a check."""
    if _on_sqlite():  # which adds a check with its column, or not at all
        for definition in ("gzip_above INTEGER", "http_version VARCHAR(10) DEFAULT '1.1' NOT NULL"):
            name, rule = CHECKS[definition.partition(" ")[0]]
            op.execute(f"ALTER TABLE {SUBSCRIPTIONS} ADD COLUMN {definition} CONSTRAINT {name} CHECK ({rule})")
    else:
        op.add_column(SUBSCRIPTIONS, sa.Column("gzip_above", sa.Integer()))
        op.add_column(
            SUBSCRIPTIONS,
            sa.Column("http_version", sa.String(10), server_default=sa.text("'1.1'"), nullable=False),
        )
        for name, rule in CHECKS.values():
            op.create_check_constraint(name, SUBSCRIPTIONS, rule)
    op.add_column(SUBSCRIPTIONS, sa.Column("verified_url", sa.String(2048)))
    _allow_kinds(KNOWN_BEFORE, KNOWN)
    op.create_table(
        TLS,
        sa.Column(
            "subscription_id", ID, nullable=False, comment="Id of its subscription. Deleted with the subscription."
        ),
        sa.Column("certificate", sa.Text(), comment="Client certificate and its intermediates, PEM. Null: none."),
        sa.Column(
            "private_key",
            sa.Text(),
            comment="Key of the client certificate, PEM, or fernet: and a token (encrypted). Confidential.",
        ),
        sa.Column(
            "authorities", sa.Text(), comment="The only authorities trusted, PEM. Null: those of the deployment."
        ),
        sa.Column("created_at", INSTANT, server_default=NOW, nullable=False, comment="When the row was made."),
        sa.PrimaryKeyConstraint("subscription_id", name="pk_webhook_tls"),
        sa.ForeignKeyConstraint(
            ["subscription_id"], [f"{SUBSCRIPTIONS}.id"], name="fk_webhook_tls_sub", ondelete="CASCADE"
        ),
        sa.CheckConstraint(
            "(certificate IS NULL AND private_key IS NULL) OR (certificate IS NOT NULL AND private_key IS NOT NULL)",
            name="ck_webhook_tls_pair",
        ),
        comment="TLS of subscriptions with a client certificate, or with authorities of their own.",
    )
    if not _on_sqlite():  # which has no comments
        for column, comment in COMMENTS.items():
            op.alter_column(SUBSCRIPTIONS, column, comment=comment)
        op.alter_column(SECRETS, "kind", comment=KIND[0])


def downgrade() -> None:
    """Certificates, OAuth2 and plug-in credentials are lost: their receivers then refuse the requests."""
    op.drop_table(TLS)
    op.execute("DELETE FROM webhook_secrets WHERE kind IN ('oauth2', 'plugin')")
    _allow_kinds(KNOWN, KNOWN_BEFORE)
    for column in reversed(COMMENTS):
        op.drop_column(SUBSCRIPTIONS, column)
    if not _on_sqlite():
        op.alter_column(SECRETS, "kind", comment=KIND[1])


def _allow_kinds(before: str, after: str) -> None:
    with op.batch_alter_table(
        SECRETS,
        copy_from=_secrets(before) if context.is_offline_mode() else None,
        recreate="always" if _on_sqlite() else "never",
        table_kwargs={"sqlite_autoincrement": True},
    ) as changed:
        changed.drop_constraint(KINDS, type_="check")
        changed.create_check_constraint(KINDS, after)


def _on_sqlite() -> bool:
    return op.get_context().dialect.name == "sqlite"


def _secrets(known: str) -> sa.Table:
    """The table's definition, for printed SQL; online it is read from the database."""
    return sa.Table(
        SECRETS,
        sa.MetaData(),
        sa.Column("id", ID, sa.Identity(), nullable=False),
        sa.Column("subscription_id", ID, nullable=False),
        sa.Column("secret", sa.String(4000), nullable=False),
        sa.Column("created_at", INSTANT, server_default=NOW, nullable=False),
        sa.Column("expires_at", INSTANT),
        sa.Column("kind", sa.String(10), server_default=sa.text("'signing'"), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_secrets"),
        sa.ForeignKeyConstraint(
            ["subscription_id"], [f"{SUBSCRIPTIONS}.id"], name="fk_webhook_secrets_sub", ondelete="CASCADE"
        ),
        sa.CheckConstraint(known, name=KINDS),
        sa.Index("ix_webhook_secrets_sub", "subscription_id"),
    )
