import random
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.intake.offsets import MAX_METADATA, OffsetRegression, OffsetTracker, decode, encode, identity_of

IDENTITY = "adIqaV/STXaXnDxP4mh0wAabcdefgh"

# A log: ascending offsets, with gaps as compaction and transactions leave them.
logs = st.lists(st.integers(1, 40) | st.just(1), min_size=1, max_size=80).map(
    lambda steps: [sum(steps[:index]) for index in range(1, len(steps) + 1)]
)
fractions = st.floats(0, 1)


def restored(tracker: OffsetTracker) -> OffsetTracker:
    """The tracker of a restart, from the committed offset and metadata."""
    committable = tracker.committable()
    assert committable is not None
    return OffsetTracker(*committable)


def claimed(tracker: OffsetTracker, log: Iterable[int]) -> set[int]:
    """The records of the log that a restart would not send again."""
    committable = tracker.committable()
    if committable is None:
        return set()
    mark, metadata = committable
    runs = decode(mark, metadata)
    return {offset for offset in log if offset < mark or any(start <= offset < stop for start, stop in runs)}


def test_in_order() -> None:
    """The mark follows the settled records. No metadata is needed if none is settled above it."""
    tracker = OffsetTracker(None)
    assert tracker.committable() is None
    for offset in (5, 6, 7):
        assert tracker.track(offset)
    assert tracker.committable() == (5, "")
    assert not tracker.moved, "the group's offset is still right"
    tracker.settle(5)
    assert tracker.moved
    assert tracker.committable() == (6, "")
    tracker.settle(7)
    mark, metadata = tracker.committable() or (0, "")
    assert (mark, decode(mark, metadata)) == (6, [(7, 8)])
    tracker.settle(6)
    assert tracker.committable() == (8, "")


def test_skipping_passes_what_was_settled_before_a_restart() -> None:
    """Within a settled run the mark is the run's end; behind it, it is where the reader is."""
    tracker = OffsetTracker(10, encode(10, [(15, 20), (30, 40)]))
    for position, expected in ((12, (12, [(15, 20), (30, 40)])), (17, (20, [(30, 40)])), (25, (25, [(30, 40)]))):
        tracker.skip_to(position)
        mark, metadata = tracker.committable() or (0, "")
        assert (mark, decode(mark, metadata)) == expected
    tracker.skip_to(50)
    assert tracker.committable() == (50, "")


@given(logs, st.data())
def test_what_is_skipped_holds_nothing(log: list[int], data: st.DataObject) -> None:
    """Offsets that are passed over count as settled, whatever a restart has brought. Open records hold the mark."""
    first = OffsetTracker(0)
    for offset in log:
        first.track(offset)
    for offset in data.draw(st.sets(st.sampled_from(log))):
        first.settle(offset)
    again = restored(first)
    assert again.restored_to == max([-1, *(stop for _, stop in decode(*(first.committable() or (0, ""))))])
    position = again.position
    for offset in log:
        if offset < position:
            continue
        if data.draw(st.booleans()):
            again.skip_to(offset + 1)
        else:
            again.track(offset)
        assert again.position == offset + 1
    end = data.draw(st.integers(0, log[-1] + 9))
    again.skip_to(end)
    mark = again.low_water_mark
    assert mark == (again.committable() or (None, ""))[0]
    if not again.open:
        assert mark is not None
        assert mark >= max(end, again.position)
    assert again.open == len(set(log) - claimed(again, log))


def test_metadata_fits_its_column() -> None:
    """A position in a column of the database has less room than a commit: the lower runs stay."""
    tracker = OffsetTracker(0)
    for offset in range(8000):
        tracker.track(offset)
    for offset in random.Random(1).sample(range(1, 8000), 4000):
        tracker.settle(offset)
    (_, short), (_, long) = (tracker.committable(most) or (0, "") for most in (500, MAX_METADATA))
    assert (len(short) <= 500, len(long) <= MAX_METADATA) == (True, True)
    few = decode(0, short)
    assert len(few) > 20
    assert few == decode(0, long)[: len(few)]


def test_the_oldest_timestamp_can_be_read_while_records_come() -> None:
    """The metrics are read by another thread, and a dict that changes between two calls is an error there."""
    tracker = OffsetTracker(None)
    tracker.track(1, timestamp=5)

    class Changing(dict[int, int]):
        def values(self) -> Any:
            if len(self) > 1:
                return super().values()
            changed = iter(super().values())
            tracker.track(2, timestamp=6)
            return changed

    tracker._open = Changing(tracker._open)
    assert tracker.oldest_timestamp == 5


def test_a_mistake_of_the_caller_or_a_log_that_begins_again_is_an_error() -> None:
    """Settling a record that is not open must not move the mark. A repeated offset is of another log."""
    tracker = OffsetTracker(10)
    with pytest.raises(OffsetRegression):
        tracker.track(9)
    tracker.track(10)
    with pytest.raises(OffsetRegression):
        tracker.track(10)
    tracker.settle(10)
    for offset in (10, 11):
        with pytest.raises(KeyError):
            tracker.settle(offset)


@given(logs, st.randoms(use_true_random=False), fractions, fractions)
def test_only_settled_records_are_claimed(
    log: list[int], chance: random.Random, tracked_part: float, settled_part: float
) -> None:
    """After any steps in any order, the claimed records are exactly the settled ones."""
    tracker = OffsetTracker(None)
    tracked = log[: int(len(log) * tracked_part)]
    settled: set[int] = set()
    open_records: list[int] = []
    for offset in tracked:
        assert tracker.track(offset)
        open_records.append(offset)
        while open_records and chance.random() < settled_part:
            done = open_records.pop(chance.randrange(len(open_records)))
            tracker.settle(done)
            settled.add(done)
            assert claimed(tracker, tracked) == settled
    assert claimed(tracker, log) == settled
    assert tracker.low_water_mark == (min(open_records, default=tracked[-1] + 1) if tracked else None)


@given(logs, st.randoms(use_true_random=False), fractions, fractions, fractions)
def test_what_is_settled_above_an_open_record_was_settled(
    log: list[int], shuffle: random.Random, settled: float, seen: float, until: float
) -> None:
    """Before a restart or since, and whether it was read again or not: all of it, up to a bound, and nothing else."""
    tracker = OffsetTracker(log[0])
    for offset in log:
        tracker.track(offset)
    done = set(shuffle.sample(log, int(settled * len(log))))
    for offset in done:
        tracker.settle(offset)
    tracker = restored(tracker)
    opened = [offset for offset in log if offset >= (tracker.committed or 0) and offset not in done]
    read = log[: int(seen * len(log))]
    for offset in read:
        if offset >= (tracker.committed or 0):
            tracker.track(offset)
    stop = log[int(until * (len(log) - 1))] if until < 1 else None
    for first in {*opened} & {*read}:
        runs = tracker.settled_after(first, stop)
        found = {offset for offset in log if any(begin <= offset < end for begin, end in runs)}
        assert found == {offset for offset in done if offset > first and (stop is None or offset < stop)}


@given(logs, st.randoms(use_true_random=False), st.lists(fractions, min_size=1, max_size=4))
def test_over_any_number_of_restarts_each_record_is_settled_once(
    log: list[int], chance: random.Random, parts: list[float]
) -> None:
    """A worker that dies repeatedly, each time after its commit, settles every record exactly once."""
    settled: list[int] = []
    committable: tuple[int, str] | None = None
    for part in [*parts, 1.0]:
        tracker = OffsetTracker(*committable) if committable else OffsetTracker(None)
        begin = committable[0] if committable else 0
        fetched = [offset for offset in log if offset >= begin]
        got = [offset for offset in fetched[: int(len(fetched) * part)] if tracker.track(offset)]
        assert not set(got) & set(settled)
        chance.shuffle(got)
        for offset in got if part == 1.0 else got[: int(len(got) * part)]:
            tracker.settle(offset)
            settled.append(offset)
        committable = tracker.committable() or committable
        assert claimed(tracker, log) >= set(settled) or committable is None
    assert sorted(settled) == log
    assert committable == (log[-1] + 1, "")


@given(logs, logs, st.randoms(use_true_random=False))
def test_records_that_vanish_between_restarts_do_not_hold_the_mark(
    log: list[int], left: list[int], chance: random.Random
) -> None:
    """Retention and compaction may remove open records. The mark passes them."""
    tracker = OffsetTracker(None)
    for offset in log:
        tracker.track(offset)
    for offset in chance.sample(log, len(log) // 2):
        tracker.settle(offset)
    mark = tracker.low_water_mark or 0
    again = restored(tracker)
    after = [offset for offset in left if offset >= mark]
    for offset in after:
        if again.track(offset):
            again.settle(offset)
    if after and after[-1] >= log[-1]:
        assert again.committable() == (after[-1] + 1, "")


@st.composite
def lives(draw: st.DrawFn) -> list[tuple[float, float, tuple[float, int] | None]]:
    """Steps: the part read, the part of that settled, the part of the log kept, and the number of new records."""
    cut = st.none() | st.tuples(fractions, st.integers(0, 12))
    return draw(st.lists(st.tuples(fractions, fractions, cut), min_size=1, max_size=6))


@given(lives(), st.randoms(use_true_random=False))
def test_a_settled_record_is_not_confused_with_a_new_one_at_its_offset(
    steps: list[tuple[float, float, tuple[float, int] | None]], chance: random.Random
) -> None:
    """Over restarts and unclean elections, a record that is still in the log is read until it is settled itself.

    If the log was truncated below the commit, Kafka detects it by the epoch, and records come from there on.
    """
    epoch = 0
    log = [(index, epoch) for index in range(12)]  # by offset: the record's number and its leader epoch
    known = len(log)
    settled: set[int] = set()
    committable: tuple[int, str, int | None] = (0, "", None)
    for read, done, cut in [*steps, (1.0, 1.0, None)]:
        start, tracker = committable[0], OffsetTracker(*committable)
        if committable[2] is not None:
            agreed = sum(each <= committable[2] for _, each in log)  # the end of this epoch by the leader
            if agreed < start:
                start, tracker = agreed, OffsetTracker(None)
        end = start + int((len(log) - start) * read)
        fresh = [offset for offset in range(start, end) if tracker.track(offset, log[offset][1])]
        assert {log[offset][0] for offset in range(start, end)} <= {log[offset][0] for offset in fresh} | settled
        for offset in chance.sample(fresh, int(len(fresh) * done)):
            tracker.settle(offset)
            settled.add(log[offset][0])
        if (found := tracker.committable()) is not None:
            committable = *found, tracker.epoch
            assert {record for record, _ in log[: found[0]]} <= settled
        if cut is not None:
            epoch += 1
            log = log[: int(len(log) * cut[0])] + [(known + index, epoch) for index in range(cut[1])]
            known += cut[1]
    assert {record for record, _ in log} <= settled


@pytest.mark.parametrize(("stored", "seen", "highest"), [(None, 3, 3), (4, 2, 4)])
def test_the_highest_epoch_counts(stored: int | None, seen: int, highest: int) -> None:
    """A commit without an epoch is trusted. Records read again below are of earlier leaders."""
    tracker = OffsetTracker(5, encode(5, [(6, 9)]), stored)
    assert [offset for offset in range(5, 11) if tracker.track(offset, seen)] == [5, 9, 10]
    assert tracker.epoch == highest


@given(
    st.integers(0, 2**62),
    st.lists(st.tuples(st.integers(1, 10**6) | st.just(1), st.integers(1, 10**6) | st.just(1)), max_size=2000),
)
def test_encoding_round_trips(mark: int, pairs: list[tuple[int, int]]) -> None:
    """Runs that fit come back; else only the highest are lost. The text has a limit, and names the topic's identity."""
    runs, end = [], mark
    for hole, length in pairs:
        runs.append((end + hole, end + hole + length))
        end += hole + length
    text = encode(mark, runs, IDENTITY)
    assert len(text) <= MAX_METADATA
    assert text.isascii()
    assert "\0" not in text
    back = decode(mark, text)
    assert back == runs[: len(back)]
    if len(pairs) <= 300:
        assert back == runs
    assert decode(mark, encode(mark, runs))[: len(back)] == back
    assert not runs or decode(mark + 1, text) == [], "a mirror translates the offset and copies the metadata"
    assert (identity_of(text), identity_of(encode(mark, runs))) == (IDENTITY, None)
    again = OffsetTracker(mark, text)
    _, metadata = again.committable() or (0, "")
    assert identity_of(metadata) == IDENTITY


@given(st.integers(0, 2**62), st.text() | st.from_regex(r"w2:(.{30})?:\d{1,20}:[A-Za-z0-9+/]*=?", fullmatch=True))
def test_metadata_of_other_software_is_harmless(mark: int, text: str) -> None:
    """Any text decodes to ordered runs above the mark, or to none. It raises no error and does not move the mark."""
    previous = mark
    for start, stop in decode(mark, text):
        assert previous <= start < stop
        previous = stop
    tracker = OffsetTracker(mark, text)
    assert (tracker.low_water_mark or 0) >= mark


@pytest.mark.parametrize(
    "text",
    [
        *("", "{}", "w2::", "w2::5:", "w2::5:gA", "w1:5:YwQA", "w2:::YwQA", "w2::x5:YwQA", "w2:short:5:YwQA"),
        *("w2::5:Yw", "w2::5:!!", "é", "w2::5:" + "/" * 4091, f"w2:{IDENTITY}:", encode(5, [(2**63, 2**63 + 1)])),
    ],
)
def test_invalid_metadata(text: str) -> None:
    """It marks no record as settled."""
    assert decode(5, text) == []


@pytest.mark.parametrize("part", [0.5, 1.0])
def test_a_huge_span(part: float) -> None:
    """200,000 offsets, half of them open at random, or the first one: the text stays within its limit."""
    chance = random.Random(1)
    tracker = OffsetTracker(0)
    for offset in range(200_000):
        tracker.track(offset)
    settled = {offset for offset in range(1, 200_000) if chance.random() < part}
    for offset in settled:
        tracker.settle(offset)
    mark, metadata = tracker.committable() or (1, "")
    assert (mark, len(metadata) <= MAX_METADATA) == (0, True)
    again = OffsetTracker(mark, metadata)
    skipped = {offset for offset in range(200_000) if not again.track(offset)}
    assert (last := max(skipped)) > 23_000
    assert skipped == {offset for offset in settled if offset <= last}
    if part == 1.0:
        assert (last, len(metadata) < 16) == (199_999, True)
