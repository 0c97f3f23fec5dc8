"""Shared by the commands on subscriptions: the deployment of the settings, its changes, and a subscription as JSON."""

from typing import TYPE_CHECKING, Annotated

import typer

from consumer.cli.console import row_id

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from consumer.crypto.vault import Vault
    from consumer.ops.changes import Changes, Deployment
    from consumer.subscriptions.endpoint_row import Rules
    from consumer.subscriptions.repository import Subscribed

IdArgument = Annotated[int, typer.Argument(metavar="ID", parser=row_id)]


def deployment(engine: "Engine", vault: "Vault | None" = None, default: "tuple[str, ...]" = ()) -> "Deployment":
    """The deployment of the settings. `vault` encrypts new secrets; `default` are those of WEBHOOK_SECRET."""
    from consumer.config.environment import load
    from consumer.config.settings import GroupSettings
    from consumer.ops.changes import Deployment

    return Deployment(engine, load(GroupSettings).group_id, vault or vault_to_read(), rules(), default)


def changes(vault: "Vault | None" = None, default: "tuple[str, ...]" = ()) -> "Changes":
    """The changes that the user of this process makes to DATABASE_URL."""
    from consumer.cli.console import open_database
    from consumer.ops.changes import Changes, command_line_actor

    return Changes(deployment(open_database(), vault, default), command_line_actor())


def vault_to_read() -> "Vault":
    """The vault that decrypts secrets."""
    from consumer.config.environment import load
    from consumer.config.settings import DatabaseSettings
    from consumer.crypto.vault import Vault

    return Vault(load(DatabaseSettings).encryption_keys)


def vault_to_write(*, unencrypted: bool | None) -> "Vault":
    """The vault that encrypts secrets. SettingsError without a key, unless `unencrypted`; None: no such option."""
    from consumer.errors import SettingsError

    vault = vault_to_read()
    if not (vault.encrypts or unencrypted):
        otherwise = "" if unencrypted is None else ". Or give --unencrypted"
        raise SettingsError(
            "WEBHOOK_ENCRYPTION_KEY is not set: secrets would be stored in the clear. Set it for this command "
            'and for all workers, for example: WEBHOOK_ENCRYPTION_KEY="$(openssl rand -base64 32 | tr +/ -_)"'
            f"{otherwise}"
        )
    return vault


def rules() -> "Rules":
    """The rules of the settings for a subscription's values."""
    from consumer.config.environment import load
    from consumer.config.settings import RuleSettings
    from consumer.matching.destinations import rules_of

    return rules_of(load(RuleSettings))


def json_of(item: "Subscribed") -> dict[str, object]:
    """A subscription as JSON."""
    return {
        "id": item.id,
        "state": item.state,
        **item.options,
        "url": item.url,
        "enabled": item.enabled,
        "disabled_reason": item.disabled_reason,
        "secrets": item.secrets,
        "credentials": list(item.credentials),
        "tls": None if item.tls is None else item.tls.as_json(),
        "verified": item.verified,
        "problems": [problem.as_json() for problem in item.problems],
        "failing_since": item.failing_since.isoformat() if item.failing_since else None,
        "created_at": item.created_at.isoformat() if item.created_at else None,
    }
