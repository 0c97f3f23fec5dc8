"""Runs the decoder of records, so that a bug in it costs the record at fault and no other; logs records at fault."""

import logging
import time
from collections.abc import Callable
from math import inf
from traceback import format_tb
from typing import TypeVar

import structlog

from consumer.errors import RegistryUnavailable, Tombstone, Undecodable
from consumer.intake.record import Record

log = structlog.get_logger(__name__)

T = TypeVar("T")

LINES, SECONDS = 10, 60.0  # a topic may be full of records at fault


class RecordLog:
    """Logs records at fault: in a minute at most LINES with the same text, topic and kind, then how many more."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._numbers: dict[tuple[int, str, str, str], int] = {}
        self._until = inf

    def write(self, level: int, text: str, record: Record, kind: str, **fields: str) -> None:
        """Log one record, with the standard library's `level`, unless there were too many of its kind."""
        self.poll()
        if not self._numbers:
            self._until = self._monotonic() + SECONDS
        topic, partition = record.partition.topic_partition
        key = level, text, topic, kind
        self._numbers[key] = number = self._numbers.get(key, 0) + 1
        if number <= LINES:
            log.log(level, text, record=(topic, partition, record.offset), **fields)

    def poll(self) -> None:
        """Log how many lines were left out, once a minute has passed since the first one."""
        if self._monotonic() < self._until:
            return
        numbers, self._numbers, self._until = self._numbers, {}, inf
        for (level, text, topic, kind), number in numbers.items():
            if number > LINES:
                log.log(level, "more lines were left out", text=text, topic=topic, kind=kind, number=number - LINES)


_bugs = RecordLog()


def decoded(decoder: Callable[[Record], T], record: Record) -> T:
    """The result of `decoder`. Raises its Tombstone, Undecodable and RegistryUnavailable.

    Any other exception is logged, and becomes an Undecodable with the reason error.
    """
    try:
        return decoder(record)
    except (Tombstone, Undecodable, RegistryUnavailable):
        raise
    except Exception as error:  # noqa: BLE001 (raised, it would end each worker and each replay that reads the record)
        kind, places = type(error).__name__, "".join(format_tb(error.__traceback__))
        # Without the exception's text, which may quote the record.
        _bugs.write(logging.ERROR, "a record's decoding failed: a bug", record, kind, error=kind, exception=places)
        raise Undecodable("error", f"the service has failed to decode it: {kind}") from None
