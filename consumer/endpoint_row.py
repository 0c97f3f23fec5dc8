"""From a subscription's rows to an Endpoint: the one reading of it, for new events, for stored ones, and for people."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row

from consumer.endpoint import Batch, Endpoint, Selection
from consumer.options import BATCH_WAIT, Effect, Problem, effect_of, parse
from consumer.secret import Ed25519Key, SigningKey
from consumer.vault import Credentials, Stored, credentials_of
from models import Subscription, SubscriptionSecret

_OPTIONS = (
    Subscription.retry_schedule,
    Subscription.final_statuses,
    Subscription.topics,
    Subscription.event_filter,
    Subscription.timeout_seconds,
    Subscription.projection,
    Subscription.signature_header,
    Subscription.signature_prefix,
    Subscription.custom_headers,
)
ENDPOINT_COLUMNS = (
    Subscription.id.label("subscription_id"),
    Subscription.url,
    Subscription.ordering,
    Subscription.max_in_flight,
    Subscription.rate_limit,
    Subscription.failing_since,
    Subscription.payload_format,
    Subscription.batch_size,
    Subscription.batch_wait_ms,
    *_OPTIONS,
    SubscriptionSecret.kind,
    SubscriptionSecret.secret,
    SubscriptionSecret.expires_at,
)


def endpoint_of(
    rows: Sequence[Row[*tuple[Any, ...]]],
    default: tuple[SigningKey, ...],
    decrypt: Callable[[str], str],
    now: datetime,
) -> tuple[Endpoint, tuple[Problem, ...]]:
    """The Endpoint of a subscription as it stands at `now`, and what of it cannot be used.

    `rows` have ENDPOINT_COLUMNS: one for each of its secrets, newest first, or one without. `default` signs where it
    has none. Where a problem says so, the endpoint has a fault; who matches events leaves out what matches none.
    """
    row = rows[0]
    problems: list[Problem] = []
    credentials = Credentials(())
    try:
        stored = [Stored(each.kind, each.secret, each.expires_at) for each in rows if each.secret is not None]
        credentials = credentials_of(stored, default, decrypt, now) if stored else Credentials(default)
    except ValueError as error:
        problems.append(Problem("secret", str(error), Effect.STORED))
    given: dict[str, Any] = {}
    for column in _OPTIONS:
        if (text := getattr(row, column.key)) is not None:
            try:
                given[column.key] = parse(column.key, text)
            except ValueError as error:
                problems.append(Problem(column.key, str(error), effect_of(column.key)))
    selective = row.topics is not None or row.event_filter is not None
    wait = BATCH_WAIT if row.batch_wait_ms is None else row.batch_wait_ms / 1000
    own = {name.lower() for name, _ in credentials.headers}
    endpoint = Endpoint(
        row.subscription_id,
        row.url,
        tuple(key for key in credentials.keys if isinstance(key, bytes)),
        ordered=row.ordering == "key",
        max_in_flight=row.max_in_flight,
        rate_limit=row.rate_limit,
        retry_schedule=given.get("retry_schedule"),
        final_statuses=given.get("final_statuses", frozenset()),
        failing_since=None if row.failing_since is None else row.failing_since.timestamp(),
        fault="; ".join(str(problem) for problem in problems if problem.effect is Effect.STORED) or None,
        selection=Selection(given.get("topics"), given.get("event_filter")) if selective else None,
        payload_format=row.payload_format,
        projection=given.get("projection"),
        batch=None if row.batch_size is None else Batch(row.batch_size, wait),
        private_keys=tuple(key for key in credentials.keys if isinstance(key, Ed25519Key)),
        hex_header=given.get("signature_header"),
        hex_prefix=given.get("signature_prefix", ""),
        headers=(
            *(pair for pair in given.get("custom_headers", ()) if pair[0].lower() not in own),
            *credentials.headers,
        ),
        auth=credentials.auth,
        timeout=given.get("timeout_seconds"),
    )
    return endpoint, tuple(problems)
