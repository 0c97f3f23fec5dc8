"""Changes of subscriptions and stored deliveries by people: one function each, for command line, API and console.

A change locks its subscription, and writes in the same transaction the operational event that reports it: the
operations topic is the audit log. An event names its actor, and the subscription before and after, without secrets. A
change that changes nothing writes no event.
"""

import getpass
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine

from consumer.crypto.certificates import TlsIdentity
from consumer.crypto.keys import Algorithm, parse_signing_key
from consumer.crypto.vault import Vault
from consumer.database.engine import writing
from consumer.database.statements import AnyRow
from consumer.errors import Conflict, DeliveriesOwed, InvalidSubscription, NotFound
from consumer.events.cloud_event import rfc3339
from consumer.ledger import admin, backlogs, outbox, replays, request_keys, search
from consumer.ledger.admin import DeliveryQuery, Note, RedeliveryStep, StoredDetail
from consumer.ledger.replays import Replay
from consumer.ledger.request_keys import RequestDigests
from consumer.ops import start
from consumer.ops.reported import masked, shown
from consumer.ops.start import Places
from consumer.sending.validation_request import lowered
from consumer.subscriptions import repository, secrets, tls
from consumer.subscriptions.endpoint import Endpoint
from consumer.subscriptions.endpoint_row import Rules
from consumer.subscriptions.secrets import Credential, Rotation
from consumer.subscriptions.subscribed import Mode, Subscribed

CREATED, CHANGED, REMOVED = "subscription.created", "subscription.changed", "subscription.removed"
ENABLED, DISABLED, ROTATED = "subscription.enabled", "subscription.disabled", "subscription.secret_rotated"
PAUSED, RESUMED = "subscription.paused", "subscription.resumed"
VERIFIED, PINGED, REDELIVERED = "subscription.verified", "subscription.pinged", "delivery.redelivered"
LONGEST_OVERLAP = 366 * 86400.0  # seconds
MOST_OWED = 10_000  # deliveries that are counted before a removal; beyond, a count only says that there are more


class Deployment(NamedTuple):
    """A deployment's database, as people see and change it. `group` (KAFKA_GROUP_ID): its workers publish the events.

    `vault` encrypts new secrets, and `rules` refuse subscriptions. `default`: the deployment's signing secrets, newest
    first. `clock` gives unix seconds. A `tenant` sees only what is its own; None: all tenants.
    """

    engine: Engine
    group: str
    vault: Vault
    rules: Rules = Rules()
    default: tuple[str, ...] = ()
    clock: Callable[[], float] = time.time

    @property
    def now(self) -> datetime:
        """The present time, in UTC."""
        return datetime.fromtimestamp(self.clock(), UTC)

    def subscription(self, subscription_id: int, tenant: str | None = None) -> Subscribed:
        """A subscription, with its problems under the rules. Raises NotFound."""
        return _seen(repository.get(self.engine, subscription_id, self.vault, self.rules), subscription_id, tenant)

    def endpoint(
        self, subscription_id: int, tenant: str | None = None, rules: Rules | None = None
    ) -> tuple[Subscribed, Endpoint]:
        """A subscription, and where and how its events are sent. `rules` replace the deployment's. Raises NotFound."""
        default = tuple(map(parse_signing_key, self.default))
        found = repository.get_endpoint(self.engine, subscription_id, default, self.vault, rules or self.rules)
        return _seen(found and found[0], subscription_id, tenant), found[1]  # type: ignore[index]  # it is there

    def delivery(self, delivery_id: int, tenant: str | None = None) -> StoredDetail:
        """A stored delivery with its event, both of the tenant. Raises NotFound."""
        found = admin.detail(self.engine, delivery_id)
        # The subscription may have been of all tenants when the event was stored.
        if found is not None and tenant in {None, found.event.tenant}:
            owner = None if tenant is None else repository.get(self.engine, found.delivery.subscription_id)
            if tenant is None or (owner is not None and owner.tenant == tenant):
                return found
        raise NotFound("stored delivery", delivery_id, "it may have been delivered")

    def replay(self, replay_id: int, tenant: str | None = None) -> Replay:
        """A replay of this group, to a subscription of the tenant. Raises NotFound."""
        found = replays.load(self.engine, replay_id, tenant)
        if found is None or found.group != self.group:
            raise NotFound("replay", replay_id)
        return found


class Change:
    """A change under way: the locked subscription `before` it, and `after` it, once its block has ended.

    `told` has more members of the event, which is then written in any case.
    """

    def __init__(self, connection: Connection, before: Subscribed) -> None:
        self.connection, self.before, self.after = connection, before, before
        self.told: Mapping[str, object] = {}


def _always(_: Subscribed) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Changes:
    """The changes that an `actor` of a `tenant` (None: all) may make. NotFound: its object is not there, or not theirs.

    `condition` gets the locked subscription before a change, and raises to prevent it. With a `connection`, changes of
    a subscription are part of its transaction.
    """

    deployment: Deployment
    actor: str
    tenant: str | None = None
    condition: Callable[[Subscribed], object] = _always
    connection: Connection | None = None

    @contextmanager
    def together(self, subscription_id: int) -> Iterator["Changes"]:
        """Several changes of a subscription in one transaction, whose condition is asked once."""
        with self._locked(subscription_id) as (connection, _):
            yield replace(self, connection=connection, condition=_always)

    def add(
        self,
        url: str,
        event_type: str,
        *,
        new_secrets: Sequence[tuple[str, str]] = (),
        key: RequestDigests | None = None,
        disabled: str | None = None,
        first: Places | None = None,
        further_types: Sequence[str] = (),
        **options: Any,
    ) -> Subscribed:
        """Add a subscription as `repository.add` does, with secrets (kind and text). It begins at the places `first`.

        With the `key` of the request its secrets are made `key.at`. KeyTaken (see `request_keys`): nothing is added.
        """
        where = self.deployment
        with where.engine.begin() as connection:
            added = repository.add(
                connection,
                url,
                event_type,
                secrets=new_secrets,
                vault=where.vault,
                rules=where.rules,
                clock=where.clock if key is None else lambda: key.at,
                disabled=disabled,
                further_types=further_types,
                **options,
            )
            after = self._read(connection, added)
            self._tell(connection, CREATED, None, after)
            if key is not None:
                request_keys.note(connection, key, added)
            if first is not None:
                start.begin(connection, where.group, added, first, where.clock())
        return after

    def edit(self, subscription_id: int, changes: Callable[[Subscribed], Mapping[str, Any]]) -> Subscribed:
        """Apply `changes`, computed from the present subscription, as `repository.edit` does."""
        with self._change(subscription_id, CHANGED) as change:
            repository.edit(change.connection, subscription_id, changes(change.before), self.deployment.rules)
        return change.after

    def set_enabled(self, subscription_id: int, enabled: bool, reason: str | None = None) -> Change:  # noqa: FBT001 (reads as in the repository)
        """Enable or disable, as `repository.set_enabled` does."""
        with self._change(subscription_id, ENABLED if enabled else DISABLED) as change:
            repository.set_enabled(change.connection, subscription_id, enabled, reason)
        return change

    def pause(self, subscription_id: int, reason: str | None = None) -> Change:
        """Pause, as `repository.pause` does."""
        with self._change(subscription_id, PAUSED) as change:
            repository.pause(change.connection, subscription_id, reason)
        return change

    def resume(self, subscription_id: int) -> Change:
        """Resume, as `repository.resume` does."""
        with self._change(subscription_id, RESUMED) as change:
            repository.resume(change.connection, subscription_id)
        return change

    def set_mode(self, subscription_id: int, mode: Mode, reason: str | None = None) -> Subscribed:
        """Change whatever is needed for this mode: `enabled` resumes too, and `paused` enables."""
        with self.together(subscription_id) as one:
            if mode == "disabled":
                return one.set_enabled(subscription_id, False, reason).after
            if mode == "paused":
                one.pause(subscription_id, reason)
                return one.set_enabled(subscription_id, True).after
            one.set_enabled(subscription_id, True)
            return one.resume(subscription_id).after

    def set_verified(self, subscription_id: int, url: str, rate: int | None) -> Subscribed:
        """Note that the receiver at `url` permits its events, at most `rate` a minute (None: any).

        Lowers the rate limit to that, and enables a subscription that awaits verification. Conflict: it has another url
        by now.
        """
        with self._change(subscription_id, VERIFIED) as change:
            before = change.before
            if before.options["url"] != url:
                raise Conflict("its URL was changed meanwhile")
            rate_limit = lowered(before.options["rate_limit"], rate)
            repository.set_verified(change.connection, subscription_id, url, rate_limit)
            if not before.enabled and before.disabled_reason == repository.AWAITS_VERIFICATION:
                repository.set_enabled(change.connection, subscription_id, True)
        return change.after

    def note_ping(self, item: Subscribed, event_type: str) -> None:
        """Write the event of a test event, before it is sent."""
        told = {"subscription_id": item.id, "url": item.url, "actor": self.actor, "event_type": event_type}
        with self.deployment.engine.begin() as connection:
            outbox.tell(connection, self.deployment.group, PINGED, told)

    def remove(self, subscription_id: int, *, give_up: bool) -> None:
        """Remove a subscription, its secrets and cursors; DeliveriesOwed if it is owed events, unless `give_up`."""
        with self._change(subscription_id, REMOVED) as change:
            if not give_up:
                owed = search.loads(change.connection, [subscription_id], MOST_OWED + 1)[subscription_id]
                if owed or backlogs.of_subscription(change.connection, subscription_id, 1):
                    raise DeliveriesOwed(owed)
            repository.remove(change.connection, subscription_id)

    def rotate(
        self,
        subscription_id: int,
        *,
        overlap: float,
        secret: str | None = None,
        algorithm: Algorithm | None = None,
    ) -> Rotation:
        """Give a subscription a new signing secret, as `secrets.rotate` does; `overlap` in seconds.

        InvalidSubscription for an overlap of more than a leap year, and for a secret with an algorithm.
        """
        if overlap > LONGEST_OVERLAP:
            raise InvalidSubscription("is too long; at most 366d", "overlap")
        if secret is not None and algorithm is not None:
            raise InvalidSubscription("a given secret determines it; leave it out", "algorithm")
        where = self.deployment
        with self._change(subscription_id, ROTATED) as change:
            rotation = secrets.rotate(
                change.connection,
                subscription_id,
                vault=where.vault,
                default=where.default,
                overlap=timedelta(seconds=overlap),
                now=where.now,
                secret=secret,
                algorithm=algorithm,
            )
            until = rotation.previous_until
            change.told = {"kind": "signing", "previous_until": until and rfc3339(until.timestamp())}
        return rotation

    def set_credential(self, subscription_id: int, kind: Credential, text: str) -> None:
        """Set a credential, as `secrets.set_credential` does."""
        where = self.deployment
        with self._change(subscription_id, ROTATED) as change:
            secrets.set_credential(change.connection, subscription_id, kind, text, where.vault, where.now)
            change.told = {"kind": kind}

    def remove_credentials(self, subscription_id: int) -> int:
        """Remove all credentials; returns their number."""
        with self._change(subscription_id, ROTATED) as change:
            removed = secrets.remove_credentials(change.connection, subscription_id)
            change.told = {"removed": removed} if removed else {}
        return removed

    def set_tls(self, subscription_id: int, given: TlsIdentity) -> Subscribed:
        """Set certificates, as `tls.set_tls` does."""
        where = self.deployment
        with self._change(subscription_id, ROTATED) as change:
            tls.set_tls(change.connection, subscription_id, given, where.vault, where.now)
            change.told = {"kind": "tls"}
        return change.after

    def remove_tls(self, subscription_id: int) -> bool:
        """Remove its certificates. False: it has none."""
        with self._change(subscription_id, ROTATED) as change:
            removed = tls.remove_tls(change.connection, subscription_id)
            change.told = {"kind": "tls", "removed": 1} if removed else {}
        return removed

    def remove_secret(self, subscription_id: int, secret_id: int) -> None:
        """Remove one secret; NotFound if the subscription has none of that id.

        Conflict for a signing secret without an end: something has to sign.
        """
        with self._change(subscription_id, ROTATED) as change:
            stored = secrets.entries(change.connection, subscription_id, self.deployment.now)
            found = next((each for each in stored if each.id == secret_id), None)
            if found is None:
                raise NotFound("secret", secret_id)
            if found.kind == "signing" and found.expires_at is None:
                raise Conflict("this secret signs without an end; rotate it with overlap 0")
            secrets.remove_secret(change.connection, subscription_id, secret_id)
            change.told = {"kind": found.kind, "removed": 1}

    def redeliver(self, chosen: DeliveryQuery, also: Note = lambda *_: None) -> Iterator[RedeliveryStep]:
        """Redeliver as `admin.redeliver` does, within the tenant; each step that marks deliveries writes an event.

        `also` gets the rows of a step, in its transaction.
        """

        def note(connection: Connection, rows: Sequence[AnyRow]) -> None:
            subscriptions = sorted({row.subscription_id for row in rows})
            told = {"actor": self.actor, "delivery_ids": [row.id for row in rows], "subscription_ids": subscriptions}
            outbox.tell(connection, self.deployment.group, REDELIVERED, told)
            also(connection, rows)

        chosen = chosen._replace(tenant=self.tenant)
        return admin.redeliver(self.deployment.engine, chosen, self.deployment.clock(), note)

    def redeliver_these(self, ids: Collection[int]) -> list[int]:
        """Redeliver these deliveries, as far as the tenant may see them. Returns the marked ids, sorted.

        Not marked: a delivery that is delivered, keeps its turn in an order, or whose subscription was removed.
        """
        return sorted(each for step in self.redeliver(DeliveryQuery(ids=ids)) for each in step.ids)

    @contextmanager
    def _change(self, subscription_id: int, kind: str) -> Iterator[Change]:
        """A transaction that holds the subscription's row, and writes the event if the block has changed something.

        If the subscription gets its events only from now on, or no longer, the owners of its cursors are asked to look
        at them.
        """
        with self._locked(subscription_id) as (connection, before):
            change = Change(connection, before)
            yield change
            if kind == REMOVED:
                self._tell(connection, kind, before, None)
                return
            change.after = self._read(connection, subscription_id)
            self._tell(connection, kind, before, change.after, change.told)
            if before.mode != change.after.mode != "paused":
                backlogs.look_at(connection, subscription_id)

    @contextmanager
    def _locked(self, subscription_id: int) -> Iterator[tuple[Connection, Subscribed]]:
        with writing(self.connection or self.deployment.engine) as connection:
            if not secrets.lock(connection, subscription_id):
                raise NotFound("subscription", subscription_id)
            before = _seen(self._read(connection, subscription_id), subscription_id, self.tenant)
            self.condition(before)
            yield connection, before

    def _read(self, connection: Connection, subscription_id: int) -> Subscribed:
        found = repository.get(connection, subscription_id, self.deployment.vault, self.deployment.rules)
        assert found is not None, "this transaction holds its row"  # noqa: S101 (for mypy, too)
        return found

    def _tell(
        self,
        connection: Connection,
        kind: str,
        before: Subscribed | None,
        after: Subscribed | None,
        told: Mapping[str, object] = {},
    ) -> None:
        """Write the event of a change, unless nothing changed."""
        was, is_now = (None if item is None else shown(item) for item in (before, after))
        if was == is_now and not told:
            return
        subject = after or before
        assert subject is not None  # noqa: S101 (for mypy)
        data = {"subscription_id": subject.id, "url": subject.url, "actor": self.actor, **told}
        if kind in {DISABLED, PAUSED}:
            data["reason"] = subject.disabled_reason if kind == DISABLED else subject.paused_reason
        if kind != ROTATED and was is not None and is_now is not None:
            data["changed"] = [name for name in was if was[name] != is_now[name]]
        data |= {"before": masked(was), "after": masked(is_now)}
        outbox.tell(connection, self.deployment.group, kind, data)


def command_line_actor() -> str:
    """`cli:` and the name of the user who runs this process."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):  # a container's user id without a name
        return "cli:unknown"


def _seen(found: Subscribed | None, subscription_id: int, tenant: str | None) -> Subscribed:
    if found is None or tenant not in {None, found.tenant}:
        raise NotFound("subscription", subscription_id)
    return found
