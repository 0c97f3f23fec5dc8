"""Reads the rows of subscriptions as people see them, with their problems."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from operator import attrgetter
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row

from consumer.crypto.keys import SigningKey
from consumer.crypto.vault import Vault
from consumer.subscriptions import event_types, tls
from consumer.subscriptions.endpoint import Endpoint
from consumer.subscriptions.endpoint_row import Rules, endpoint_of, endpoint_rows, written
from consumer.subscriptions.options import DESCRIPTIVE, Effect, OptionProblem, parsed
from consumer.subscriptions.subscribed import Subscribed, is_probed
from consumer.subscriptions.tls import StoredTls
from models import Subscription
from models.base import UNREADABLE
from models.subscription import EVERY_TENANT

_DESCRIPTIVE = tuple(Subscription.__table__.columns[name] for name in DESCRIPTIVE)
# A row for each secret; and TLS and further types, by id.
FoundRows = tuple[Sequence[Row[*tuple[Any, ...]]], Mapping[int, StoredTls], Mapping[int, tuple[str, ...]]]


def found_rows(connection: Connection, condition: ColumnElement[bool]) -> FoundRows:
    """The rows of the subscriptions for which the condition holds, by id."""
    state = Subscription.enabled, Subscription.disabled_reason, Subscription.paused_reason, Subscription.probed_at
    shown = (*state, Subscription.created_at, event_types.FURTHER, *_DESCRIPTIVE)
    rows = connection.execute(endpoint_rows(*shown).where(condition)).all()
    return rows, tls.stored(connection, rows), event_types.stored(connection, rows)


def _sharing(row: Row[*tuple[Any, ...]], kinds: Sequence[str]) -> OptionProblem | None:
    """The problem with signing by the deployment's secret, which other subscriptions share; None if there is none."""
    if "signing" in kinds:
        return None
    if row.projection:
        why = "its projection can produce any body, which the others' receivers would trust"
    elif row.tenant != EVERY_TENANT:
        why = "its receiver, which holds that secret, can sign requests to the others' receivers"
    else:
        return None
    return OptionProblem("secret", f"this subscription shares WEBHOOK_SECRET with others, and {why}", Effect.SENT)


def subscribed_of(
    found: FoundRows,
    vault: Vault | None,
    rules: Rules,
    clock: Callable[[], float],
    default: tuple[SigningKey, ...] = (),
) -> Iterator[tuple[Subscribed, Endpoint]]:
    """Each subscription in these rows, and its Endpoint. `default` signs if it has no signing secret of its own."""
    decrypt, now = (vault or Vault()).decrypt, datetime.fromtimestamp(clock(), UTC)
    rows, identities, further = found
    for subscription_id, group in groupby(rows, attrgetter("subscription_id")):
        mine = list(group)
        row, own = mine[0], identities.get(subscription_id)
        endpoint, problems = endpoint_of(mine, default, decrypt, now, rules, own)
        options = written(row) | {name: getattr(row, name) for name in DESCRIPTIVE}
        others = further.get(subscription_id, ())
        problems += (*event_types.problems(others), *parsed({name: options[name] for name in DESCRIPTIVE})[1])
        kinds = [each.kind for each in mine if each.kind is not None]
        if not problems and (sharing := _sharing(row, kinds)) is not None:
            problems = (sharing,)
        item = Subscribed(
            subscription_id,
            bool(row.enabled),
            row.disabled_reason,
            row.paused_at,
            row.paused_reason,
            is_probed(bool(row.enabled), row.paused_at, row.probed_at),
            None if row.created_at in (None, UNREADABLE) else row.created_at.replace(tzinfo=UTC),
            None if row.failing_since == UNREADABLE else row.failing_since,
            options,
            (str(row.event_type), *(each for each in others if each != row.event_type)),
            kinds.count("signing"),
            tuple(sorted({*kinds} - {"signing"})),
            None if own is None else tls.summary_of(own),
            problems,
            row.verified_url is not None and row.verified_url == row.url,
        )
        yield item, endpoint
