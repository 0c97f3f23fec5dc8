"""Reads stretches of the log within bounds, for a search, a backtest or a proof: a batch at a time."""

import sys
import time
from collections.abc import Iterable, Iterator
from math import inf
from typing import NamedTuple

from consumer.intake.log_reader import LogReader
from consumer.intake.record import Record
from consumer.ledger.replays import Span

_AT_ONCE = 1_000  # records of a batch
_WAIT = 0.1  # seconds for a batch


class Bounds(NamedTuple):
    """The most that is read of the log: records, bytes of keys, values and headers, and seconds."""

    records: int = 100_000
    size: int = 256 * 2**20
    seconds: float = 5.0


UNBOUNDED = Bounds(sys.maxsize, sys.maxsize, inf)


def walk(reader: LogReader, spans: Iterable[Span], bounds: Bounds) -> Iterator[list[Record]]:
    """Yield the records of the spans as they come, until all are read or a bound is reached.

    A batch may be empty: the caller can show progress, or stop. Raises as `LogReader.read`.
    """
    reader.start(spans)
    records, size, end = 0, 0, time.monotonic() + bounds.seconds
    while not reader.done and records < bounds.records and size < bounds.size and time.monotonic() < end:
        batch = reader.read(min(_AT_ONCE, bounds.records - records), _WAIT)
        records += len(batch)
        size += sum(record.size for record in batch)
        yield batch


def left(reader: LogReader, spans: Iterable[Span]) -> list[Span]:
    """The parts of the spans that a walk has not come to."""
    cut = (span._replace(begin=reader.positions.get((span.topic, span.number), span.begin)) for span in spans)
    return [span for span in cut if span.begin < span.end]
