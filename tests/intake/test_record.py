"""Sizes of records. A partition tells records removed by retention from offsets skipped by compaction."""

import pytest

from consumer.intake.record import BAD_HEADERS, GAP_SECONDS, Headers, Partition, Record, Unreadable

NOW = 1000.0


def partition(committed: int | None = 10, begin: int | None = 0, end: int = 100) -> Partition:
    """A partition with this committed offset and this begin and end of its log. None: Kafka has not answered yet."""
    each = Partition("t", 0)
    each.start(committed)
    if begin is not None:
        each.reaches(begin, end, NOW)
    return each


@pytest.mark.parametrize(
    ("key", "value", "headers", "size"),
    [
        (None, None, None, 0),
        (b"key", b"value", BAD_HEADERS, 8),
        (b"key", b"value", [("a", b"1234"), ("bc", None)], 8 + 7 + 2 * 100),
    ],
)
def test_the_size_of_a_record_is_all_that_it_holds(
    key: bytes | None, value: bytes | None, headers: Headers | Unreadable | None, size: int
) -> None:
    """A header takes memory besides its name and value: a mebibyte of empty ones takes more than a large value."""
    assert Record(partition(), 0, 0, key, value, headers).size == size


def test_records_below_the_begin_of_the_log_were_overtaken() -> None:
    """It was read up to 10, and the next record was 50, where the log now begins. They are reported once."""
    each = partition()
    each.skipped(50, NOW)
    assert each.overtaken(0, NOW) == 0  # an answer from before the gap
    assert each.overtaken(50, NOW + 1) == 40
    assert each.overtaken(50, NOW + 1) == 0
    each.reaches(40, 100, NOW)  # an answer from before, too
    assert (each.passed(49), each.passed(50)) == (True, False)
    assert partition(begin=40).passed(39)


@pytest.mark.parametrize("end", [100, None])
def test_a_lag_of_0_does_not_show_that_a_record_was_read(end: int | None) -> None:
    """It may be of an earlier assignment. A stored delivery would then overtake an unread record of its key."""
    each = partition(begin=None if end is None else 0)
    each.lag = 0
    assert [each.passed(offset) for offset in (9, 10, 99)] == [True, False, False]
    assert each.passed(100) is (end is not None)


def test_no_offset_is_passed_before_the_position_is_known() -> None:
    """Then offsets below the commit and beyond the log's end are passed. The others are once they are read."""
    each = Partition("t", 0)
    assert not any(map(each.passed, (0, 10, 200)))
    each.start(10)
    assert list(map(each.passed, (9, 10, 200))) == [True, False, False]
    each.reaches(0, 100, NOW)
    assert list(map(each.passed, (9, 10, 99, 100))) == [True, False, False, True]
    each.tracker.track(10)
    assert list(map(each.passed, (10, 11))) == [True, False]


@pytest.mark.parametrize("read", [False, True])
def test_records_removed_before_the_position_is_known_are_reported_once(*, read: bool) -> None:
    """The first remaining record may come before or after the answer, and either may report them."""
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


def test_a_gap_not_caused_by_retention_is_not_reported() -> None:
    """The log begins before the gap, or in the middle of the records read since."""
    each = partition()
    each.skipped(50, NOW)
    assert each.overtaken(10, NOW) == 0
    assert each.overtaken(51, NOW) == 0


@pytest.mark.parametrize(
    ("committed", "begin", "lost"),
    [(10, 40, 10), (None, 40, 10), (10, None, 40), (0, None, 50), (10, 60, 0), (None, None, 0)],
)
def test_records_gone_at_the_assignment_are_not_reported_again(
    committed: int | None, begin: int | None, lost: int
) -> None:
    """They were reported at the assignment, if they were known. If nothing is known, nothing is reported."""
    each = partition(committed, begin)
    each.skipped(50, NOW)
    assert each.overtaken(50, NOW) == lost


def test_a_gap_is_forgotten_after_a_while() -> None:
    """A log that ages behind the reader has not overtaken it. Of recent gaps the longest is kept, then the last."""
    each = partition()
    each.skipped(50, NOW)
    each.skipped(20, NOW)
    assert each.overtaken(5, NOW + GAP_SECONDS) == 0
    assert each.gap == (10, 50, NOW)
    each.skipped(50, NOW + 1)
    assert each.gap == (10, 50, NOW + 1)
    assert each.overtaken(5, NOW + GAP_SECONDS + 2) == 0
    assert each.overtaken(50, NOW + GAP_SECONDS + 2) == 0
