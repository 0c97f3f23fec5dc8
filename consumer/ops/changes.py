"""Changes of subscriptions by people: each writes, in its own transaction, the operational event that reports it.

The command line and the HTTP API change subscriptions here, so that the operations topic is the audit log of both. An
event names its actor, and the subscription before and after, without secrets. A change that changes nothing writes no
event.
"""

import getpass
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Unpack

import orjson
from sqlalchemy import Connection, Engine

from consumer.crypto.certificates import TlsIdentity
from consumer.crypto.keys import Algorithm
from consumer.crypto.vault import Vault
from consumer.http.urls import redact_url
from consumer.ledger import outbox, request_keys
from consumer.ledger.request_keys import RequestDigests
from consumer.sending.masking import MASK
from consumer.sending.validation_request import lowered
from consumer.subscriptions import repository, secrets, tls
from consumer.subscriptions.endpoint_row import Rules
from consumer.subscriptions.repository import Subscribed
from consumer.subscriptions.secrets import Credential, Rotation, SecretEntry
from consumer.subscriptions.validation import Options

CREATED, CHANGED, REMOVED = "subscription.created", "subscription.changed", "subscription.removed"
ENABLED, DISABLED, ROTATED = "subscription.enabled", "subscription.disabled", "subscription.secret_rotated"
VERIFIED, PINGED = "subscription.verified", "subscription.pinged"

Condition = Callable[[Subscribed], object]  # gets the subscription before a change; raises to prevent it


class Registry(NamedTuple):
    """The database of subscriptions. `group` (KAFKA_GROUP_ID): its workers publish the operational events.

    `vault` encrypts new secrets, and `rules` refuse subscriptions. `default`: the deployment's signing secrets, newest
    first, for a rotation.
    """

    engine: Engine
    group: str
    vault: Vault
    rules: Rules = Rules()
    default: tuple[str, ...] = ()


def _always(_: Subscribed) -> None:
    return None


def command_line_actor() -> str:
    """`cli:` and the name of the user who runs this process."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):  # a container's user id without a name
        return "cli:unknown"


def add(
    registry: Registry,
    actor: str,
    url: str,
    event_type: str,
    *,
    new_secrets: Sequence[tuple[str, str]] = (),
    key: RequestDigests | None = None,
    disabled: str | None = None,
    **options: Unpack[Options],
) -> Subscribed:
    """Add a subscription as `repository.add` does, with secrets (kind and text).

    With the `key` of the request its secrets are made `key.at`. KeyTaken (see `request_keys`): nothing is added.
    """
    with registry.engine.begin() as connection:
        added = repository.add(
            connection,
            url,
            event_type,
            secrets=new_secrets,
            vault=registry.vault,
            rules=registry.rules,
            clock=time.time if key is None else lambda: key.at,
            disabled=disabled,
            **options,
        )
        after = _get(connection, registry, added)
        _record(connection, registry, actor, CREATED, None, after)
        if key is not None:
            request_keys.note(connection, key, added)
        return after


def edit(
    registry: Registry,
    actor: str,
    subscription_id: int,
    changes: Callable[[Subscribed], Mapping[str, Any]],
    condition: Condition = _always,
) -> Subscribed | None:
    """Apply `changes`, computed from the present subscription, as `repository.edit` does. None: no such one."""
    with registry.engine.begin() as connection:
        before = _locked(connection, registry, subscription_id, condition)
        if before is None:
            return None
        repository.edit(connection, subscription_id, changes(before), registry.rules)
        after = _get(connection, registry, subscription_id)
        _record(connection, registry, actor, CHANGED, before, after)
        return after


def set_enabled(
    registry: Registry,
    actor: str,
    subscription_id: int,
    enabled: bool,  # noqa: FBT001 (reads as in the repository)
    reason: str | None = None,
    condition: Condition = _always,
) -> tuple[Subscribed, Subscribed] | None:
    """Enable or disable, as `repository.set_enabled` does. Returns the subscription before and after, or None."""
    with registry.engine.begin() as connection:
        before = _locked(connection, registry, subscription_id, condition)
        if before is None:
            return None
        repository.set_enabled(connection, subscription_id, enabled, reason)
        after = _get(connection, registry, subscription_id)
        _record(connection, registry, actor, ENABLED if enabled else DISABLED, before, after)
        return before, after


def set_verified(
    registry: Registry, actor: str, subscription_id: int, rate: int | None, condition: Condition = _always
) -> Subscribed | None:
    """Note that a subscription's receiver permits its events, at most `rate` a minute (None: any).

    Lowers the rate limit to that, and enables a subscription that awaits verification. None: no such subscription.
    """
    with registry.engine.begin() as connection:
        before = _locked(connection, registry, subscription_id, condition)
        if before is None:
            return None
        rate_limit = lowered(before.options["rate_limit"], rate)
        repository.set_verified(connection, subscription_id, before.options["url"], rate_limit)
        if not before.enabled and before.disabled_reason == repository.AWAITS_VERIFICATION:
            repository.set_enabled(connection, subscription_id, True)
        after = _get(connection, registry, subscription_id)
        _record(connection, registry, actor, VERIFIED, before, after)
        return after


def note_ping(registry: Registry, actor: str, item: Subscribed, event_type: str) -> None:
    """Write the event of a test event, before it is sent."""
    told = {"subscription_id": item.id, "url": item.url, "actor": actor, "event_type": event_type}
    with registry.engine.begin() as connection:
        outbox.tell(connection, registry.group, PINGED, told)


def remove(
    registry: Registry,
    actor: str,
    subscription_id: int,
    condition: Condition = _always,
    check: Callable[[Connection], None] | None = None,
) -> Subscribed | None:
    """Remove a subscription and its secrets. Returns it as it was, or None if there is none of that id.

    `check` may raise, too: it queries in the transaction, since another connection of the pool may not be free.
    """
    with registry.engine.begin() as connection:
        before = _locked(connection, registry, subscription_id, condition)
        if before is None:
            return None
        if check is not None:
            check(connection)
        repository.remove(connection, subscription_id)
        _record(connection, registry, actor, REMOVED, before, None)
        return before


def rotate(
    registry: Registry,
    actor: str,
    subscription_id: int,
    *,
    overlap: timedelta,
    now: datetime,
    secret: str | None = None,
    algorithm: Algorithm | None = None,
    condition: Condition = _always,
) -> Rotation | None:
    """Give a subscription a new signing secret, as `secrets.rotate` does."""
    with registry.engine.begin() as connection:
        before = _locked(connection, registry, subscription_id, condition)
        if before is None:
            return None
        rotation = secrets.rotate(
            connection,
            subscription_id,
            vault=registry.vault,
            default=registry.default,
            overlap=overlap,
            now=now,
            secret=secret,
            algorithm=algorithm,
        )
        until = None if rotation is None else rotation.previous_until
        told = {"kind": "signing", "previous_until": until and until.isoformat()}
        _record_secret(connection, registry, actor, before, told)
        return rotation


def set_credential(
    registry: Registry,
    actor: str,
    subscription_id: int,
    kind: Credential,
    text: str,
    now: datetime,
    condition: Condition = _always,
) -> bool:
    """Set a credential, as `secrets.set_credential` does."""
    with registry.engine.begin() as connection:
        before = _locked(connection, registry, subscription_id, condition)
        if before is None:
            return False
        secrets.set_credential(connection, subscription_id, kind, text, registry.vault, now)
        _record_secret(connection, registry, actor, before, {"kind": kind})
        return True


def remove_credentials(
    registry: Registry, actor: str, subscription_id: int, condition: Condition = _always
) -> int | None:
    """Remove all credentials, as `secrets.remove_credentials` does."""
    with registry.engine.begin() as connection:
        before = _locked(connection, registry, subscription_id, condition)
        if before is None:
            return None
        removed = secrets.remove_credentials(connection, subscription_id)
        if removed:
            _record_secret(connection, registry, actor, before, {"removed": removed})
        return removed


def set_tls(
    registry: Registry,
    actor: str,
    subscription_id: int,
    given: TlsIdentity,
    now: datetime,
    condition: Condition = _always,
) -> Subscribed | None:
    """Set certificates, as `tls.set_tls` does. Returns the subscription with them, or None if there is none."""
    with registry.engine.begin() as connection:
        before = _locked(connection, registry, subscription_id, condition)
        if before is None:
            return None
        tls.set_tls(connection, subscription_id, given, registry.vault, now)
        _record_secret(connection, registry, actor, before, {"kind": "tls"})
        return _get(connection, registry, subscription_id)


def remove_tls(registry: Registry, actor: str, subscription_id: int, condition: Condition = _always) -> bool | None:
    """Remove its certificates. None: there is no such subscription; False: it has none."""
    with registry.engine.begin() as connection:
        before = _locked(connection, registry, subscription_id, condition)
        if before is None:
            return None
        removed = tls.remove_tls(connection, subscription_id)
        if removed:
            _record_secret(connection, registry, actor, before, {"kind": "tls", "removed": 1})
        return removed


def remove_secret(
    registry: Registry,
    actor: str,
    subscription_id: int,
    secret_id: int,
    allow: Callable[[SecretEntry], object],
    condition: Condition = _always,
) -> bool | None:
    """Remove one secret, unless `allow` raises. None: no such subscription; False: it has no such secret."""
    with registry.engine.begin() as connection:
        before = _locked(connection, registry, subscription_id, condition)
        if before is None:
            return None
        now = datetime.now(UTC)
        found = next((each for each in secrets.entries(connection, subscription_id, now) if each.id == secret_id), None)
        if found is None:
            return False
        allow(found)
        secrets.remove_secret(connection, subscription_id, secret_id)
        _record_secret(connection, registry, actor, before, {"kind": found.kind, "removed": 1})
        return True


def _locked(
    connection: Connection, registry: Registry, subscription_id: int, condition: Condition
) -> Subscribed | None:
    """The subscription, locked until the transaction ends, if `condition` does not raise."""
    if not secrets.lock(connection, subscription_id):
        return None
    found = _get(connection, registry, subscription_id)
    condition(found)
    return found


def _get(connection: Connection, registry: Registry, subscription_id: int) -> Subscribed:
    found = repository.get(connection, subscription_id, registry.vault, registry.rules)
    assert found is not None, "this transaction holds its row"  # noqa: S101 (for mypy, too)
    return found


def _record(
    connection: Connection,
    registry: Registry,
    actor: str,
    kind: str,
    before: Subscribed | None,
    after: Subscribed | None,
) -> None:
    """Write the event of a change, unless nothing changed."""
    was, is_now = _shown(before), _shown(after)
    if was != is_now:
        subject = after or before
        assert subject is not None  # noqa: S101 (for mypy)
        data: dict[str, object] = {"subscription_id": subject.id, "url": subject.url, "actor": actor}
        if kind == DISABLED:
            data["reason"] = subject.disabled_reason
        if was is not None and is_now is not None:
            data["changed"] = [name for name in was if was[name] != is_now[name]]
        outbox.tell(connection, registry.group, kind, data | {"before": _masked(was), "after": _masked(is_now)})


def _record_secret(
    connection: Connection, registry: Registry, actor: str, before: Subscribed, told: Mapping[str, object]
) -> None:
    after = _get(connection, registry, before.id)
    data = {"subscription_id": before.id, "url": before.url, "actor": actor, **told}
    masked = {"before": _masked(_shown(before)), "after": _masked(_shown(after))}
    outbox.tell(connection, registry.group, ROTATED, data | masked)


def _shown(item: Subscribed | None) -> dict[str, Any] | None:
    """The parts of a subscription that people change. The number and kinds of its secrets are among them."""
    if item is None:
        return None
    return {
        **item.options,
        "enabled": item.enabled,
        "disabled_reason": item.disabled_reason,
        "secrets": item.secrets,
        "credentials": list(item.credentials),
        "tls": None if item.tls is None else tls.described(item.tls),
        "verified": item.verified,
    }


def _masked(shown: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Masks confidential values: a password in the URL, and the values of headers."""
    if shown is None:
        return None
    return {**shown, "url": redact_url(str(shown["url"])), "custom_headers": _names_only(shown["custom_headers"])}


def _names_only(headers: str | None) -> str | None:
    if headers is None:
        return None
    try:
        found = orjson.loads(headers)
    except orjson.JSONDecodeError:
        return MASK
    return orjson.dumps(dict.fromkeys(found, MASK)).decode() if isinstance(found, dict) else MASK
