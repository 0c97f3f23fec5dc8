"""Partitions that rest before the end of their log: what of ours holds them is no stall."""

from collections.abc import Callable

import pytest

from consumer.intake.record import AssignedPartition
from consumer.intake.stalls import STALLED_AFTER, Stalls
from tests.kafka_kit import Kafka, Member, until

PLACE = ("t", 0)
MOVES: dict[str, Callable[[AssignedPartition], object]] = {
    "a record": lambda partition: partition.tracker.track(3),
    "the end of the log, behind a transaction's marker": lambda partition: partition.reached(4, 0.0),
    "a revocation": lambda partition: setattr(partition, "owned", False),
}


def resting() -> tuple[Stalls, AssignedPartition]:
    """A partition at offset 3 of a log that ends at 5, which it was seen at for just as long as a stall takes."""
    stalls, partition = Stalls(), AssignedPartition(*PLACE)
    partition.start(3)
    for now in (100.0, 100.0 + STALLED_AFTER):
        stalls.look([partition], {PLACE: 5}, now)
    return stalls, partition


def test_a_position_that_rests_before_the_end_is_a_stall() -> None:
    """It is told since when, and with its lag, which librdkafka does not know then."""
    stalls, partition = resting()
    assert (stalls.since(), partition.lag, stalls.outlived) == ({partition: 100.0}, 2, None)


@pytest.mark.parametrize("move", MOVES.values(), ids=list(MOVES))
def test_a_position_that_moves_ends_it_at_once(move: Callable[[AssignedPartition], object]) -> None:
    """Also before the next look, which then counts from there."""
    stalls, partition = resting()
    move(partition)
    assert stalls.since() == {}


@pytest.mark.parametrize("whole", [True, False])
def test_a_pause_between_two_looks_begins_it_anew(whole: bool) -> None:  # noqa: FBT001 (a table)
    """Of all partitions, or of this one."""
    stalls, partition = resting()
    stalls.excuse(None if whole else partition)
    stalls.look([partition], {PLACE: 5}, 200.0)
    assert stalls.since() == {}
    stalls.look([partition], {PLACE: 5}, 200.0 + STALLED_AFTER)
    assert stalls.since() == {partition: 200.0}


def test_only_a_successor_of_which_nothing_was_read_ends_the_process() -> None:
    """A new process would not read the partition of any other stall."""
    for replaces, committed in ((True, 3), (False, None), (True, None)):
        stalls, partition = Stalls(), AssignedPartition(*PLACE)
        partition.start(committed)
        partition.replaces = replaces
        for now in (100.0, 100.0 + STALLED_AFTER):
            stalls.look([partition], {PLACE: 5}, now)
        assert stalls.since() == {partition: 100.0}
        assert (stalls.outlived is not None) == (replaces and committed is None)


def test_a_full_worker_is_not_stalled(
    real_kafka: Kafka, join: Callable[..., Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes nothing from the client, and then pauses its partitions, until there is room."""
    monkeypatch.setattr("consumer.intake.stalls.STALLED_AFTER", 0.001)
    topic, settings = real_kafka.topic(), real_kafka.settings()
    member = join(settings, [topic])
    until(lambda: member.source.partitions and not member.source.opening, member)
    (partition,) = member.source.partitions.values()
    source, ends = member.source, {partition.topic_partition: 9}
    real_kafka.write(topic, [b"a"] * 3)
    until(lambda: partition.position == 3, member)
    member.turn()
    source.look_for_stalls(ends)
    source.look_for_stalls(ends)  # nobody has polled, so that records may wait in the client
    assert source.stalls.since() == {}
    member.turn()
    source.look_for_stalls(ends)
    assert source.stalls.since().keys() == {partition}
    assert "has not been read for 0 s, although its log has 6 more records" in str(source.fault)
    source.pause()
    member.turn()
    source.look_for_stalls(ends)
    assert (source.stalls.since(), source.fault) == ({}, None)
