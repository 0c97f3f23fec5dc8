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
_KAFKA = "KAFKA_"  # any other variable sets a property of librdkafka, which reports unknown ones itself
_LIKE, _ALMOST = 0.7, 0.9  # similarity, up to 1: to suggest a name with the same prefix; a name with any prefix
# Kubernetes sets these for each service: a service named `kafka` sets KAFKA_PORT_9092_TCP.
_PLANTED = re.compile(r"[A-Z0-9_]+_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_[A-Z]+)?)?)")
# The properties of librdkafka that are set most often: librdkafka offers no list.
PROPERTIES = (
    *("auto.offset.reset", "broker.address.family", "client.id", "client.rack", "debug"),
    *("fetch.max.bytes", "fetch.wait.max.ms", "group.instance.id", "group.protocol"),
    *("group.remote.assignor", "heartbeat.interval.ms", "max.poll.interval.ms", "message.max.bytes"),
    *("partition.assignment.strategy", "sasl.kerberos.keytab", "sasl.kerberos.principal"),
    *("sasl.kerberos.service.name", "sasl.mechanisms", "sasl.oauthbearer.client.id"),
    *("sasl.oauthbearer.client.secret", "sasl.oauthbearer.method", "sasl.oauthbearer.token.endpoint.url"),
    *("sasl.password", "sasl.username", "security.protocol", "session.timeout.ms"),
    *("socket.keepalive.enable", "socket.timeout.ms", "ssl.ca.location", "ssl.ca.pem"),
    *("ssl.certificate.location", "ssl.certificate.pem", "ssl.endpoint.identification.algorithm"),
    *("ssl.key.location", "ssl.key.password", "ssl.key.pem", "ssl.keystore.location"),
    *("ssl.keystore.password", "topic.blacklist"),
)


class Slip(NamedTuple):
    """A variable that is not a setting, and the most similar setting, if there is a similar one.

    `lacks`: the property that librdkafka does not have, if the variable would set one.
    """

    variable: str
    nearest: str | None
    lacks: str | None = None

    @property
    def why(self) -> str:
        """Why the variable is ignored."""
        return f"librdkafka has no property {self.lacks}" if self.lacks else "there is no such setting"

    def __str__(self) -> str:
        hint = f". Did you mean {self.nearest}?" if self.nearest else ""
        return f"{self.variable} is ignored: {self.why}{hint}"


def of_settings(variables: Iterable[str]) -> list[Slip]:
    """The slips among the names of environment variables, sorted; without those meant for librdkafka's properties."""
    found = []
    for name in sorted(set(variables) - known_names()):
        nearest = _meant(name) or (_behind(_OURS, name, known_names()) if name.startswith(_OURS) else None)
        if (nearest or name.startswith(_OURS)) and not _PLANTED.fullmatch(name):
            found.append(Slip(name, nearest))
    return found


def of_properties(unknown: Iterable[str]) -> list[Slip]:
    """The slips among KAFKA_ variables. `unknown`: the names of properties that librdkafka does not know.

    Slips that `of_settings` finds are left out.
    """
    names = sorted((variable_of(each), each) for each in unknown)
    candidates = {*map(variable_of, PROPERTIES), *known_names()}
    return [
        Slip(name, _behind(_KAFKA, name, candidates), each)
        for name, each in names
        if not _PLANTED.fullmatch(name) and _meant(name) is None
    ]


def variable_of(name: str) -> str:
    """The environment variable that sets a property of librdkafka."""
    return _KAFKA + name.upper().replace(".", "_")


def warn(slips: Iterable[Slip]) -> None:
    """Log a warning for each slip."""
    for slip in slips:
        log.warning("an environment variable is ignored", variable=slip.variable, why=slip.why, nearest=slip.nearest)


def _meant(name: str) -> str | None:
    """The setting whose whole name is almost `name`, whatever its prefix."""
    return next(iter(get_close_matches(name, sorted(known_names()), 1, _ALMOST)), None)


def _behind(prefix: str, name: str, candidates: Iterable[str]) -> str | None:
    """The candidate with this prefix that is most similar to `name`; only the parts after the prefix are compared."""
    rests = sorted(each.removeprefix(prefix) for each in candidates if each.startswith(prefix))
    return next((prefix + each for each in get_close_matches(name.removeprefix(prefix), rests, 1, _LIKE)), None)
