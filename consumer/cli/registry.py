"""Shared by the commands on subscriptions: finding, changing and showing one."""

from typing import TYPE_CHECKING, Annotated

import typer

from consumer.cli.console import row_id

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from consumer.crypto.vault import Vault
    from consumer.errors import WebhooksError
    from consumer.ops.changes import Registry
    from consumer.subscriptions.endpoint_row import Rules
    from consumer.subscriptions.repository import Subscribed

IdArgument = Annotated[int, typer.Argument(metavar="ID", parser=row_id)]


def registry(engine: "Engine", vault: "Vault | None" = None, default: "tuple[str, ...]" = ()) -> "Registry":
    """The registry of the settings, for a change. `vault` encrypts new secrets."""
    from consumer.config.environment import load
    from consumer.config.settings import GroupSettings
    from consumer.ops.changes import Registry

    return Registry(engine, load(GroupSettings).group_id, vault or vault_to_read(), rules(), default)


def absent(subscription_id: int) -> "WebhooksError":
    """The error for an id that no subscription has."""
    from consumer.errors import WebhooksError

    return WebhooksError(f"there is no subscription {subscription_id}; `subscriptions list` shows them")


def existing(engine: "Engine", subscription_id: int) -> "Subscribed":
    """A subscription, with its problems under these settings. WebhooksError if there is none."""
    from consumer.subscriptions import repository as store

    found = store.get(engine, subscription_id, vault_to_read(), rules())
    if found is None:
        raise absent(subscription_id)
    return found


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
    from consumer.subscriptions.tls import described

    return {
        "id": item.id,
        "state": item.state,
        **item.options,
        "url": item.url,
        "enabled": item.enabled,
        "disabled_reason": item.disabled_reason,
        "secrets": item.secrets,
        "credentials": list(item.credentials),
        "tls": None if item.tls is None else described(item.tls),
        "verified": item.verified,
        "problems": [problem.as_json() for problem in item.problems],
        "failing_since": item.failing_since.isoformat() if item.failing_since else None,
        "created_at": item.created_at.isoformat() if item.created_at else None,
    }
