"""A partition tells what retention has taken from what compaction and transactions leave out."""

import pytest

from consumer.intake.record import GAP_SECONDS, Partition

NOW = 1000.0


def partition(committed: int | None = 10, begin: int | None = 0, end: int = 100) -> Partition:
    """One with this offset committed, whose log Kafka said to begin and to end there; None: it has not said yet."""
    each = Partition("t", 0)
    each.start(committed)
    if begin is not None:
        each.reaches(begin, end, NOW)
    return each


def test_what_the_log_begins_behind_was_overtaken() -> None:
    """Read up to 10, and the next was 50, where the log begins by now; it is told once."""
    each = partition()
    each.skipped(50, NOW)
    assert each.overtaken(0, NOW) == 0  # an answer from before
    assert each.overtaken(50, NOW + 1) == 40
    assert each.overtaken(50, NOW + 1) == 0
    assert each.passed(49)


@pytest.mark.parametrize("end", [100, None])
def test_no_lag_is_no_proof_that_a_record_was_read(end: int | None) -> None:
    """It may be that of an earlier assignment; a stored delivery would overtake an unread record of its key."""
    each = partition(begin=None if end is None else 0)
    each.lag = 0
    assert [each.passed(offset) for offset in (9, 10, 99)] == [True, False, False]
    assert each.passed(100) is (end is not None)


def test_nothing_is_passed_before_kafka_says_where_a_partition_stands() -> None:
    """Then what is below the commit is, and what is beyond the log's end; the rest once it is read."""
    each = Partition("t", 0)
    assert not any(map(each.passed, (0, 10, 200)))
    each.start(10)
    assert list(map(each.passed, (9, 10, 200))) == [True, False, False]
    each.reaches(0, 100, NOW)
    assert list(map(each.passed, (9, 10, 99, 100))) == [True, False, False, True]
    each.tracker.track(10)
    assert list(map(each.passed, (10, 11))) == [True, False]


@pytest.mark.parametrize("read", [False, True])
def test_what_retention_took_before_kafka_said_it_is_told_once(*, read: bool) -> None:
    """Whether the first record that is left comes before the answer or after it, and whoever says it first."""
    each = partition(begin=None)
    if read:
        each.skipped(40, NOW)
        each.tracker.track(40)
    assert each.reaches(40, 100, NOW) == 30
    if not read:
        each.skipped(40, NOW)
        each.tracker.track(40)
    assert each.overtaken(40, NOW) == 0
    assert each.reaches(40, 100, NOW) == 0
    each = partition(begin=None)
    each.skipped(40, NOW)
    each.tracker.track(40)
    assert each.overtaken(40, NOW) == 30
    assert each.reaches(40, 100, NOW) == 0


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
