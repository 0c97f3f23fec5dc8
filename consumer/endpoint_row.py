"""From a subscription's row to an Endpoint: the one reading of it, for new events and for stored ones."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

from sqlalchemy import Row

from consumer.endpoint import Endpoint
from consumer.setting_types import final_statuses, waits
from models import Subscription

T = TypeVar("T")
ENDPOINT_COLUMNS = (
    Subscription.id.label("subscription_id"),
    Subscription.url,
    Subscription.ordering,
    Subscription.max_in_flight,
    Subscription.rate_limit,
    Subscription.retry_schedule,
    Subscription.final_statuses,
    Subscription.failing_since,
)
_waits, _statuses = lru_cache(1000)(waits), lru_cache(1000)(final_statuses)


def endpoint_of(row: Row[*tuple[Any, ...]], keys: tuple[bytes, ...]) -> tuple[Endpoint, str | None]:
    """The Endpoint of a row that has ENDPOINT_COLUMNS, signed with `keys`, and what is wrong with the row, or None.

    Text that cannot be read, which plain SQL may have written, is as if it were not there.
    """
    schedule, bad_schedule = _read("retry_schedule", _waits, row.retry_schedule)
    statuses, bad_statuses = _read("final_statuses", _statuses, row.final_statuses)
    endpoint = Endpoint(
        row.subscription_id,
        row.url,
        keys,
        ordered=row.ordering == "key",
        max_in_flight=row.max_in_flight,
        rate_limit=row.rate_limit,
        retry_schedule=schedule,
        final_statuses=statuses or frozenset(),
        failing_since=None if row.failing_since is None else row.failing_since.timestamp(),
    )
    return endpoint, "; ".join(filter(None, (bad_schedule, bad_statuses))) or None


def _read(name: str, parse: Callable[[str], T], text: str | None) -> tuple[T | None, str | None]:
    if not text:
        return None, None
    try:
        return parse(text), None
    except ValueError as error:
        return None, f"{name}: {error}"
