"""Looks up subscriptions by id: the ones that read the log at positions of their own."""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from sqlalchemy import Engine

from consumer.crypto.keys import SigningKey
from consumer.crypto.vault import Decrypt
from consumer.database.engine import reading
from consumer.database.statements import any_of
from consumer.matching.catalog import Pattern
from consumer.subscriptions import event_types, tls
from consumer.subscriptions.endpoint import Endpoint
from consumer.subscriptions.endpoint_row import Rules, endpoint_of, endpoint_rows
from consumer.subscriptions.options import Effect
from models import Subscription


class Subscriber(NamedTuple):
    """A subscription, with the types and tenant of its events. `endpoint` None: it matches nothing.

    That is so while it is disabled, or one of its options cannot be used.
    """

    patterns: tuple[Pattern, ...]
    enabled: bool
    endpoint: Endpoint | None


def find_subscribers(
    engine: Engine,
    default_secrets: tuple[SigningKey, ...],
    decrypt: Decrypt,
    ids: Sequence[int],
    *,
    rules: Rules = Rules(),  # noqa: B008 (immutable)
    clock: Callable[[], float] = time.time,
) -> dict[int, Subscriber]:
    """The subscriptions of these ids (one or more) that exist, in one statement; in two if some have further types.

    Parameters as of `find_endpoints`.
    """
    now = datetime.fromtimestamp(clock(), UTC)
    these = any_of(Subscription.id.expression, sorted(ids))
    wanted = endpoint_rows(Subscription.enabled, event_types.FURTHER).where(these)
    with reading(engine) as connection:
        rows = connection.execute(wanted).all()
        identities = tls.stored(connection, rows)
        further = event_types.stored(connection, rows)
    found: dict[int, Subscriber] = {}
    for subscription_id, group in groupby(rows, attrgetter("subscription_id")):
        mine = list(group)
        identity = identities.get(subscription_id)
        endpoint, problems = endpoint_of(mine, default_secrets, decrypt, now, rules, identity)
        matches = mine[0].enabled == 1 and all(problem.effect is not Effect.UNMATCHED for problem in problems)
        others = (each for each in further.get(subscription_id, ()) if event_types.refusal(each) is None)
        patterns = tuple((each, mine[0].tenant) for each in (mine[0].event_type, *others))
        found[subscription_id] = Subscriber(patterns, mine[0].enabled == 1, endpoint if matches else None)
    return found
