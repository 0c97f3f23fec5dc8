"""The log as requests read it: a part at a time, with a cursor that fits into a URL however many partitions there are.

A part reads a few partitions together. The cursor names their positions, and the partition that comes after them; the
time of the first part bounds the log for all parts.
"""

from collections.abc import Sequence
from typing import NamedTuple

from consumer.intake.log_reader import LogReader
from consumer.ledger.replays import Span
from consumer.ops.replay_request import Log, soon

TOGETHER = 16  # partitions of a part
Position = tuple[float, float, list[tuple[str, int, int]], tuple[str, int] | None]  # as it comes from JSON, too


class LogPart(NamedTuple):
    """The spans that a part reads, and the `others`, which come after them; of the log between two unix times."""

    spans: Sequence[Span]
    others: Sequence[Span]
    since: float
    until: float

    def rest(self, left: Sequence[Span]) -> Position | None:
        """The position after the part, of whose spans these are `left`; None: the log is read."""
        if not left and not self.others:
            return None
        following = None if not self.others else (self.others[0].topic, self.others[0].number)
        return self.since, self.until, [(span.topic, span.number, span.begin) for span in left], following


def part_of(log: Log, since: float, until: float, position: Position | None) -> LogPart:
    """The first part of the log between two unix times, or the one at a `position`, with its own times.

    Raises as `soon`, and as `LogReader.spans`.
    """
    if position is not None:
        since, until = position[:2]

    def spans(reader: LogReader) -> list[Span]:
        return reader.spans(reader.partitions(log.topics), since, until)

    found = sorted(soon(log, spans))
    begun: list[Span] = []
    if position is not None:
        ends = {(span.topic, span.number): span.end for span in found}
        begun = [Span(*place, ends.get((place[0], place[1]), 0)) for place in position[2]]
        following = position[3]
        found = [] if following is None else [span for span in found if (span.topic, span.number) >= tuple(following)]
    room = TOGETHER - len(begun)
    return LogPart([span for span in begun if span.begin < span.end] + found[:room], found[room:], since, until)
