"""Finds environment variables that look like misspelt settings, and the settings that were probably meant.

A value is never shown: a misspelt variable may hold a secret.
"""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import NamedTuple

import structlog

from consumer.config.settings import known_names

log = structlog.get_logger(__name__)

_OURS = "WEBHOOK_"  # no other program's variables begin like this
_LIKE, _ALMOST = 0.7, 0.9  # similarity, up to 1: to suggest a name with the same prefix; a name with any prefix
_RENAMED = {"WEBHOOK_DISABLE_AFTER": "WEBHOOK_PAUSE_AFTER"}
# Kubernetes sets these for each service: a service named `kafka` sets KAFKA_PORT_9092_TCP.
_PLANTED = re.compile(r"[A-Z0-9_]+_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_[A-Z]+)?)?)")


class Slip(NamedTuple):
    """A variable that is not a setting, why it is ignored, and the most similar setting, if there is a similar one."""

    variable: str
    nearest: str | None
    why: str = "there is no such setting"

    def __str__(self) -> str:
        hint = f". Did you mean {self.nearest}?" if self.nearest else ""
        return f"{self.variable} is ignored: {self.why}{hint}"


def of_settings(variables: Iterable[str]) -> list[Slip]:
    """The slips among the names of environment variables, sorted; without those meant for librdkafka's properties."""
    found = []
    for name in sorted(set(variables) - known_names()):
        nearest = _RENAMED.get(name) or _meant(name) or _behind_prefix(name)
        if (nearest or name.startswith(_OURS)) and not _PLANTED.fullmatch(name):
            found.append(Slip(name, nearest))
    return found


def of_properties(unknown: Iterable[str]) -> list[Slip]:
    """The slips among KAFKA_ variables. `unknown`: the names of properties that librdkafka does not know.

    Slips that `of_settings` finds are left out.
    """
    names = sorted((variable_of(each), each) for each in unknown)
    return [
        Slip(name, None, f"librdkafka has no property {each}")
        for name, each in names
        if not _PLANTED.fullmatch(name) and _meant(name) is None
    ]


def variable_of(name: str) -> str:
    """The environment variable that sets a property of librdkafka."""
    return "KAFKA_" + name.upper().replace(".", "_")


def warn(slips: Iterable[Slip]) -> None:
    """Log a warning for each slip."""
    for slip in slips:
        log.warning("an environment variable is ignored", variable=slip.variable, why=slip.why, nearest=slip.nearest)


def _meant(name: str) -> str | None:
    """The setting whose whole name is almost `name`, whatever its prefix."""
    return next(iter(get_close_matches(name, sorted(known_names()), 1, _ALMOST)), None)


def _behind_prefix(name: str) -> str | None:
    """The setting of our own prefix that is most similar to `name`; only the parts after the prefix are compared."""
    if not name.startswith(_OURS):
        return None
    rests = sorted(each.removeprefix(_OURS) for each in known_names() if each.startswith(_OURS))
    return next((_OURS + each for each in get_close_matches(name.removeprefix(_OURS), rests, 1, _LIKE)), None)
