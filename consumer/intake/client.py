"""What librdkafka's clients have in common: users' properties, its log, and whether a broker answers."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException, Producer

from consumer.errors import FatalKafkaError, SettingsError

log = structlog.get_logger(__name__)

# What faults tell once, librdkafka repeats for every broker and every attempt.
_QUIET_FACILITIES = frozenset({"FAIL", "ERROR", "CONFWARN", "GETPID"})
# `logger` is no property but an argument of the binding.
_NOT_PROPERTIES = frozenset({"logger"})
# Sorts behind nothing and is no property: librdkafka refuses it only after it has taken what stands before.
_PROBE = "?"


def known_properties(properties: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Split users' properties into those that librdkafka knows and the names of those that it does not.

    SettingsError names a value that it refuses. No client is made.
    """
    known: dict[str, str] = {}
    unknown: list[str] = []
    for name, value in properties.items():
        if name in _NOT_PROPERTIES:
            unknown.append(name)
            continue
        text = _refusal({name: value, _PROBE: ""})
        if f'"{_PROBE}"' in text:
            known[name] = value
        elif "No such configuration property" in text:
            unknown.append(name)
        else:
            variable = "KAFKA_" + name.upper().replace(".", "_")
            raise SettingsError(f"{variable}: {text}")  # librdkafka's text does not repeat the value of a secret
    return known, unknown


def _refusal(config: dict[str, str]) -> str:
    try:
        Producer(config)
    except KafkaException as error:
        return str(error.args[0].str())
    raise AssertionError(f"librdkafka took the property {_PROBE!r}")


class LibrdkafkaLog:
    """Takes librdkafka's log lines, which the binding hands over inside `poll`, as it would a `logging.Logger`."""

    def log(self, level: int, _format: str, facility: str, client: str, message: str) -> None:
        """One line; `level` is the standard library's."""
        level = logging.DEBUG if facility in _QUIET_FACILITIES else level
        log.log(level, "librdkafka", facility=facility, client=client, text=message)


class Reachability:
    """Whether any broker answers, and the group's coordinator: from errors at once, from statistics each second."""

    def __init__(self, bootstrap_servers: str) -> None:
        self.fault: str | None = f"not yet connected to Kafka at {bootstrap_servers}"
        self.coordinator_up = True
        self._servers = bootstrap_servers
        self._detail = ""

    def error(self, error: KafkaError) -> None:
        """Take note of what librdkafka's `error_cb` says."""
        if error.code() == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 (the binding's public name for it)
            self._down()
        else:
            self._detail = f" ({error.str()})"

    def statistics(self, statistics: Mapping[str, Any]) -> None:
        """Take note of one statistics document of librdkafka."""
        self.coordinator_up = statistics.get("cgrp", {}).get("state") == "up"
        if any(broker["state"] == "UP" for broker in statistics["brokers"].values()):
            self.up()
        elif self.fault is None:
            self._down()

    def up(self) -> None:
        """A broker answered. Not yet the coordinator: the group's callbacks and statistics tell of it."""
        if self.fault is not None:
            log.info("connected to Kafka", servers=self._servers)
        self.fault, self._detail = None, ""

    def _down(self) -> None:
        fault = f"no Kafka broker reachable at {self._servers}{self._detail}"
        if self.fault is None or self.fault.startswith("not yet"):
            log.warning("no Kafka broker reachable", servers=self._servers, detail=self._detail.strip(" ()"))
        self.fault, self.coordinator_up = fault, False


class Reported:
    """What Kafka reports in place of records. `fatal`: this client can do nothing any more."""

    def __init__(self) -> None:
        self.fatal: FatalKafkaError | None = None
        self._faults: dict[str | None, str] = {}

    @property
    def fault(self) -> str | None:
        """What is wrong with topics, or with the client (None), since they last answered."""
        return "; ".join(self._faults.values()) or None

    def error(self, topic: str | None, error: KafkaError) -> None:
        """Take note of an error, of a topic if one is named."""
        if error.fatal() or error.code() == KafkaError._FATAL:  # noqa: SLF001 (a message's error lacks the flag)
            self.fatal = FatalKafkaError(f"Kafka's client cannot go on: {error.str()}")
            return
        fault = f"{topic}: {error.str()}" if topic else error.str()
        if self._faults.get(topic) != fault:
            log.warning("Kafka reports", topic=topic, error=error.str())
        self._faults[topic] = fault

    def answers(self, topic: str | None) -> None:
        """A record of it has come, or it was assigned."""
        if self._faults:
            self._faults.pop(topic, None)


def guarded(keep: Callable[[Exception], None], handler: Callable[..., None]) -> Callable[..., None]:
    """`handler` as a callback that never raises: an exception inside librdkafka's poll loses fetched records."""

    def callback(*arguments: Any) -> None:
        try:
            handler(*arguments)
        except Exception as error:  # noqa: BLE001 (kept, and raised by the next poll)
            keep(error)

    return callback
