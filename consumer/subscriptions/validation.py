"""Validates new values of a subscription: refuses values that `read` could not use, or that do not fit their columns.

Pure. The rules themselves are in `consumer.subscriptions.options`.
"""

from collections.abc import Mapping
from typing import Any, Literal, TypedDict

from sqlalchemy import String

from consumer.errors import InvalidSubscription
from consumer.subscriptions.endpoint import PayloadFormat
from consumer.subscriptions.options import OPTIONS, Effect, read
from models import Subscription

COLUMN_BYTES = 4000  # the limit of a VARCHAR2, for any declared number of characters
_COLUMNS = Subscription.__table__.columns


class Options(TypedDict, total=False):
    """The options of a subscription besides url and event type, by column; None: the column's default."""

    tenant: str | None
    topics: str | None
    event_filter: str | None
    payload_format: PayloadFormat | None
    projection: str | None
    batch_size: int | None
    batch_wait_ms: int | None
    custom_headers: str | None
    signature_header: str | None
    signature_prefix: str | None
    gzip_above: int | None
    http_version: Literal["1.1", "2"] | None
    timeout_seconds: float | None
    ordering: Literal["none", "key"] | None
    max_in_flight: int | None
    rate_limit: float | None
    retry_schedule: str | None
    final_statuses: str | None


def completed(given: Mapping[str, Any]) -> dict[str, Any]:
    """A value for each column of OPTIONS, with the default for each that is not `given`.

    Raises InvalidSubscription, whose text names a value that would work, if a value is unusable or does not fit.
    """
    if unknown := given.keys() - OPTIONS.keys():
        raise InvalidSubscription(f"there is no option {', '.join(sorted(unknown))}; there are {', '.join(OPTIONS)}")
    values = {name: _or_default(given.get(name), option.default) for name, option in OPTIONS.items()}
    for name, value in values.items():
        _check_fits(name, value)
    _, problems = read(values)
    if problems:
        name, why, effect = problems[0]
        raise InvalidSubscription(why, name, None if effect is Effect.UNUSED else OPTIONS[name].example)
    return values


def _or_default(value: Any, default: str | None) -> Any:
    return default if value is None else value


def _check_fits(name: str, value: Any) -> None:
    example, kind = OPTIONS[name].example, _COLUMNS[name].type
    if value is None and OPTIONS[name].required:
        raise InvalidSubscription("is required", name, example)
    if not isinstance(value, str):
        return
    if not value.strip():
        raise InvalidSubscription("is empty", name, example)
    if isinstance(kind, String) and kind.length and len(value) > kind.length:
        raise InvalidSubscription(f"has {len(value)} characters; at most {kind.length} are kept", name)
    if (size := len(value.encode(errors="replace"))) > COLUMN_BYTES:
        raise InvalidSubscription(f"has {size} bytes in UTF-8; Oracle keeps {COLUMN_BYTES}", name)
