"""A partition tells what retention has taken from what compaction and transactions leave out."""

import pytest

from consumer.intake.offsets import OffsetTracker
from consumer.intake.record import GAP_SECONDS, Partition

NOW = 1000.0


def partition(committed: int | None = 10, begin: int | None = 0) -> Partition:
    """One that was assigned with this offset committed and this one the first of its log."""
    return Partition("t", 0, OffsetTracker(committed), begin, 100)


def test_what_the_log_begins_behind_was_overtaken() -> None:
    """Read up to 10, and the next was 50, where the log begins by now; it is told once."""
    each = partition()
    each.skipped(50, NOW)
    assert each.overtaken(0, NOW) == 0  # an answer from before
    assert each.overtaken(50, NOW + 1) == 40
    assert each.overtaken(50, NOW + 1) == 0
    assert each.passed(49)


def test_no_lag_is_no_proof_that_a_record_was_read() -> None:
    """It may be that of an earlier assignment; a stored delivery would overtake an unread record of its key."""
    each = partition()
    each.lag = 0
    assert [each.passed(offset) for offset in (9, 10, 99, 100)] == [True, False, False, True]


def test_without_the_end_of_the_log_its_lag_tells() -> None:
    """Kafka did not answer in time when the partition came: what is stored of it must not wait for ever."""
    each = Partition("t", 0, OffsetTracker(None))
    assert not each.passed(50)
    each.lag = 0
    assert each.passed(50)


def test_a_gap_of_another_kind_is_none_of_retentions() -> None:
    """The log begins before it, or in the middle of what has been read since."""
    each = partition()
    each.skipped(50, NOW)
    assert each.overtaken(10, NOW) == 0
    assert each.overtaken(51, NOW) == 0


@pytest.mark.parametrize(
    ("committed", "begin", "lost"), [(10, 40, 10), (None, 40, 10), (10, None, 40), (10, 60, 0), (None, None, 0)]
)
def test_what_was_gone_when_the_partition_came_is_not_told_again(
    committed: int | None, begin: int | None, lost: int
) -> None:
    """That was told at the assignment, where it was known; where nothing is known, nothing is told."""
    each = partition(committed, begin)
    each.skipped(50, NOW)
    assert each.overtaken(50, NOW) == lost


def test_a_gap_is_forgotten_after_a_while() -> None:
    """A log that grows old behind the reader has taken nothing from it; the longest gap of late is kept."""
    each = partition()
    each.skipped(50, NOW)
    each.skipped(20, NOW)
    assert each.overtaken(5, NOW + GAP_SECONDS) == 0
    assert each.gap == (10, 50, NOW)
    assert each.overtaken(5, NOW + GAP_SECONDS + 1) == 0
    assert each.overtaken(50, NOW + GAP_SECONDS + 1) == 0
