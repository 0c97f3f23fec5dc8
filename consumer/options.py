"""What a subscription may ask for, as it is written and as it is meant: what is valid, and what follows if not. Pure.

Subscriptions come from plain SQL, the command line and the API. The latter two are refused what cannot be used; of
the first, `endpoint_row` says what is wrong and what follows from it.
"""

from collections.abc import Callable, Mapping
from enum import Enum
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from consumer import header_rules
from consumer.expressions import compile_filter, compile_projection
from consumer.setting_types import final_statuses, topic_names, waits

BATCH_WAIT = 1.0  # seconds, of a batch that names none
LONGEST_TIMEOUT = 300.0  # seconds, as WEBHOOK_TIMEOUT
OFF = "none"  # in place of the hex signature's header


class Effect(Enum):
    """What follows from a value that cannot be used."""

    UNMATCHED = "it matches no event"
    STORED = "what it gets is stored, not sent"
    DEFAULT = "the deployment's is used"


class Problem(NamedTuple):
    """An option that cannot be used, and why. The text holds no secret."""

    option: str
    why: str
    effect: Effect

    def __str__(self) -> str:
        return f"{self.option}: {self.why}; {self.effect.value}"


def parse_headers(text: str) -> tuple[tuple[str, str], ...]:
    """A JSON object of texts, as the request's headers. ValueError; its text holds no value."""
    try:
        headers = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise ValueError("is no JSON") from None
    if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
        raise ValueError("is no JSON object of texts")
    if len({name.lower() for name in headers}) != len(headers):
        raise ValueError("names a header twice")
    for name, value in headers.items():
        header_rules.check(name, value)
    return tuple(headers.items())


def parse_hex_header(text: str) -> str | None:
    """The name of the hex signature's header; None for `none`. ValueError."""
    if text == OFF:
        return None
    header_rules.check_name(text)
    return text


def parse_prefix(text: str) -> str:
    """What stands before the hex digits. ValueError."""
    if not header_rules.is_value(text) or text != text.lstrip():
        raise ValueError("may hold visible ASCII only")
    return text


def parse_timeout(value: float) -> float:
    """Seconds. ValueError."""
    if not 0 < value <= LONGEST_TIMEOUT:
        raise ValueError(f"is {value:g}; it must be more than 0 and at most {LONGEST_TIMEOUT:g} seconds")
    return float(value)


_PARSERS: Mapping[str, tuple[Callable[[Any], Any], Effect]] = {
    "topics": (lru_cache(1000)(topic_names), Effect.UNMATCHED),
    "event_filter": (compile_filter, Effect.UNMATCHED),
    "projection": (compile_projection, Effect.STORED),
    "custom_headers": (lru_cache(1000)(parse_headers), Effect.STORED),
    "signature_header": (lru_cache(1000)(parse_hex_header), Effect.STORED),
    "signature_prefix": (parse_prefix, Effect.STORED),
    "retry_schedule": (lru_cache(1000)(waits), Effect.DEFAULT),
    "final_statuses": (lru_cache(1000)(final_statuses), Effect.DEFAULT),
    "timeout_seconds": (parse_timeout, Effect.DEFAULT),
}


def effect_of(option: str) -> Effect:
    """What follows where a column's value cannot be used."""
    return _PARSERS[option][1]


def parse(option: str, value: Any) -> Any:
    """What a column's value means. ValueError says what is wrong with it."""
    return _PARSERS[option][0](value)
