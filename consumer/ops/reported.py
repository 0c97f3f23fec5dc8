"""The parts of a subscription that operational events report, without anything confidential."""

from collections.abc import Mapping
from typing import Any

import orjson

from consumer.events.cloud_event import rfc3339
from consumer.http.urls import redact_url
from consumer.sending.trace import MASK
from consumer.subscriptions.subscribed import Subscribed


def shown(item: Subscribed) -> dict[str, Any]:
    """The parts of a subscription that people change. The number and kinds of its secrets are among them."""
    return {
        **item.options,
        "event_types": list(item.event_types),
        "enabled": item.enabled,
        "disabled_reason": item.disabled_reason,
        "paused_at": None if item.paused_at is None else rfc3339(item.paused_at.timestamp()),
        "paused_reason": item.paused_reason,
        "probed": item.probed,
        "secrets": item.secrets,
        "credentials": list(item.credentials),
        "tls": None if item.tls is None else item.tls.as_json(),
        "verified": item.verified,
    }


def masked(shown: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
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
