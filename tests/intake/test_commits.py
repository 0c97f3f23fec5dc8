"""Commit rounds, and the last one inside a rebalance: whatever the coordinator does, it takes some seconds at most."""

from collections.abc import Callable

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from structlog.testing import capture_logs

from consumer.intake.commits import COMMIT_RECORDS, Commits, is_commit_due
from consumer.intake.offsets import OffsetTracker
from consumer.intake.record import AssignedPartition

SILENT = KafkaException(KafkaError(KafkaError._TIMED_OUT))


class Coordinator:
    """Accepts each round before the request for committed offsets with this number. None: refuses the round.

    Rounds without a number are accepted at once. The first `silent` requests are not answered.
    """

    def __init__(self, *rounds: int | None, silent: int = 0) -> None:
        self.now = 0.0
        self.commits = Commits(lambda: self.now, self.wait)
        self.waited: list[Callable[[], object]] = []  # calls of the loop while it waits
        self.sent: list[TopicPartition] = []
        self.shown: dict[int, tuple[int, str]] = {}
        self._rounds = list(rounds)
        self._coming: list[tuple[int, list[TopicPartition]]] = []
        self._questions, self._silent = 0, silent

    def wait(self, seconds: float) -> None:
        self.now += seconds
        for each in self.waited:
            each()

    def commit(self, *, offsets: list[TopicPartition], asynchronous: bool) -> None:
        assert asynchronous, "a blocking commit has no time limit"
        self.sent += offsets
        arrives = self._rounds.pop(0) if self._rounds else 0
        if arrives is not None:
            self._coming.append((arrives, offsets))

    def committed(self, partitions: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        assert 0 < timeout <= 0.1, "the loop stands still during the request"
        self._questions += 1
        if self._questions <= self._silent:
            self.now += timeout
            raise SILENT
        for arrives, offsets in self._coming:
            if arrives <= self._questions:
                self.shown |= {each.partition: (each.offset, each.metadata or "") for each in offsets}
        self._coming = [each for each in self._coming if each[0] > self._questions]
        return [
            TopicPartition(each.topic, each.partition, *self.shown.get(each.partition, (-1001, "")))
            for each in partitions
        ]

    def start(self, partition: AssignedPartition) -> float | None:
        return self.commits.start(self, [partition])  # type: ignore[arg-type]

    def last(self, partition: AssignedPartition) -> bool:
        return self.commits.now(self, [partition])  # type: ignore[arg-type]


class Answer:
    """A partition of an answer to a round; the binding's class takes no error."""

    def __init__(self, sent: TopicPartition, error: KafkaError) -> None:
        self.topic, self.partition, self.offset, self.metadata = sent.topic, sent.partition, sent.offset, sent.metadata
        self.error = error


def settle(partition: AssignedPartition, offset: int) -> None:
    """Read and settle a record."""
    partition.tracker.track(offset)
    partition.tracker.settle(offset)


def settled(number: int = 0, *offsets: int) -> AssignedPartition:
    """A partition whose records up to the last of these offsets were read, and those at the offsets settled."""
    partition = AssignedPartition("topic", number, OffsetTracker(0))
    for offset in range(max(offsets, default=-1) + 1):
        partition.tracker.track(offset)
    for offset in offsets:
        partition.tracker.settle(offset)
    return partition


@pytest.fixture
def partition() -> AssignedPartition:
    """A partition with a settled record."""
    return settled(0, 0)


def offsets(coordinator: Coordinator) -> list[int]:
    return [each.offset for each in coordinator.sent]


def test_a_last_commit_ends_when_the_coordinator_shows_it(partition: AssignedPartition) -> None:
    """Its answer needs a poll, which must not be called in a rebalance. It is counted once, although it comes later."""
    coordinator = Coordinator()
    assert coordinator.last(partition)
    assert (offsets(coordinator), coordinator.now) == ([1], 0.0)
    assert (coordinator.commits.total, coordinator.commits.fault, partition.tracker.moved) == (1, None, False)
    other = settled(1, 0)
    coordinator.start(other)
    coordinator.commits.finish(None, coordinator.sent[:1])  # the late answer of the last commit
    assert not coordinator.commits.settled([other])
    coordinator.commits.finish(None, coordinator.sent[1:])
    assert coordinator.commits.settled([other])
    assert (coordinator.commits.total, coordinator.commits.fault) == (2, None)


def test_a_last_commit_is_repeated_until_the_next_generation(partition: AssignedPartition) -> None:
    """A leaving member commits only once more, so a short-lived refusal must not repeat deliveries."""
    coordinator = Coordinator(None, None, None)
    assert coordinator.last(partition)
    assert offsets(coordinator) == [1] * 4
    assert (coordinator.commits.total, coordinator.commits.fault, partition.tracker.moved) == (1, None, False)
    assert coordinator.now < 1


@pytest.mark.parametrize(
    ("coordinator", "reason", "sent"),
    [
        (Coordinator(*[None] * 999), "the group does not take them", 100),
        (Coordinator(silent=999), "the coordinator does not answer", 1),
    ],
    ids=["refused", "silent"],
)
def test_a_last_commit_is_given_up_after_some_seconds(
    partition: AssignedPartition, coordinator: Coordinator, reason: str, sent: int
) -> None:
    """The fault gives the reason. A round on its way to a silent coordinator is not sent again."""
    assert not coordinator.last(partition)
    assert 4.9 < coordinator.now < 5.2
    assert partition.tracker.moved
    assert reason in (coordinator.commits.fault or "")
    assert len(coordinator.sent) == pytest.approx(sent, abs=3 if sent > 1 else 0)


def test_a_last_commit_is_not_sent_again_before_it_is_known_to_be_refused(partition: AssignedPartition) -> None:
    """A coordinator that is silent for a second may still accept it, and then shows it."""
    coordinator = Coordinator(5, silent=6)
    assert coordinator.last(partition)
    assert offsets(coordinator) == [1]


def test_the_loop_goes_on_during_a_last_commit_and_sends_no_other_round(partition: AssignedPartition) -> None:
    """With two rounds under way, librdkafka may send the earlier one again, after the later one."""
    coordinator = Coordinator(silent=20)
    other = settled(1, 0)
    turns = []
    coordinator.waited = [lambda: turns.append(coordinator.start(other))]
    assert coordinator.last(partition)
    assert len(turns) >= 20
    assert [each.partition for each in coordinator.sent] == [0]
    coordinator.start(other)
    assert [each.partition for each in coordinator.sent] == [0, 1]


@pytest.mark.parametrize(
    ("before", "silent", "waited", "taken"),
    [(0, 0, (0, 0), True), (4, 2, (0.3, 0.5), True), (None, 0, (1.5, 1.6), True), (0, 999, (5, 5.2), False)],
    ids=["arrived", "arrives when the coordinator is back", "has failed", "no answer"],
)
def test_a_last_commit_waits_for_the_round_before_it(
    partition: AssignedPartition, *, before: int | None, silent: int, waited: tuple[float, float], taken: bool
) -> None:
    """Inside a rebalance the round's answer cannot arrive. The coordinator's committed offset shows it."""
    coordinator = Coordinator(before, silent=silent)
    coordinator.start(partition)
    settle(partition, 1)
    assert coordinator.last(partition) is taken
    assert offsets(coordinator) == ([1, 2] if taken else [1])
    assert waited[0] - 0.01 <= coordinator.now <= waited[1] + 0.01


def test_a_round_that_failed_is_sent_again_by_the_last_commit(partition: AssignedPartition) -> None:
    """No record was settled since, so only the failed round shows that there is something to commit."""
    coordinator = Coordinator(None)
    coordinator.start(partition)
    assert not partition.tracker.moved
    assert coordinator.last(partition)
    assert offsets(coordinator) == [1, 1]


def test_a_partition_that_is_no_longer_owned_is_not_committed(partition: AssignedPartition) -> None:
    """The broker accepts commits from any member, and this one would move the next owner's offset back."""
    coordinator = Coordinator()
    partition.owned = False
    coordinator.start(partition)
    assert coordinator.commits.settled([partition])
    assert coordinator.last(partition)
    assert coordinator.sent == []


def test_a_commit_names_the_highest_leader_epoch_seen(partition: AssignedPartition) -> None:
    """By the epoch, a restart detects a truncated log. If no record had an epoch, none is named."""
    coordinator = Coordinator()
    coordinator.start(partition)
    assert [each.leader_epoch for each in coordinator.sent] == [None]
    coordinator.commits.finish(None, coordinator.sent)
    partition.tracker.track(1, 7)
    partition.tracker.settle(1)
    coordinator.start(partition)
    assert coordinator.sent[-1].leader_epoch == 7


def test_metadata_that_is_too_large_for_one_partition_is_left_out() -> None:
    """It would fail for ever. The failures of other partitions do not hide it."""
    coordinator, partitions = Coordinator(), [settled(number, 1) for number in range(2)]
    coordinator.commits.start(coordinator, partitions)  # type: ignore[arg-type]
    assert all(each.metadata for each in coordinator.sent)
    codes = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.OFFSET_METADATA_TOO_LARGE)
    answers = [Answer(each, KafkaError(code)) for each, code in zip(coordinator.sent, codes, strict=True)]
    coordinator.sent = []
    coordinator.commits.finish(None, answers)  # type: ignore[arg-type]
    coordinator.commits.start(coordinator, partitions)  # type: ignore[arg-type]
    assert [each.metadata for each in coordinator.sent] == ["", ""]


def look(coordinator: Coordinator, partition: AssignedPartition, now: float) -> float | None:
    """The time until which all offsets are committed, in a turn of the loop at `now`."""
    coordinator.now = now
    return coordinator.start(partition)


def test_settled_records_are_known_to_be_committed_once_their_round_is_answered() -> None:
    """A round covers records settled before it began. If there is nothing to send, all are committed."""
    coordinator, partition = Coordinator(), settled()
    assert look(coordinator, partition, 10.0) is None
    settle(partition, 0)
    assert look(coordinator, partition, 11.0) == 10.0
    settle(partition, 1)
    assert look(coordinator, partition, 12.0) == 10.0, "the first round is under way"
    coordinator.commits.finish(None, coordinator.sent[-1:])
    assert look(coordinator, partition, 13.0) == 11.0, "the second round is under way"
    coordinator.commits.finish(None, coordinator.sent[-1:])
    assert look(coordinator, partition, 14.0) is None


def test_a_refused_or_unanswered_round_commits_nothing(partition: AssignedPartition) -> None:
    """Its offsets are sent again, and the log says so once. Until then a restart would read the records."""
    coordinator = Coordinator()
    unknown = look(coordinator, partition, 10.0)
    assert unknown is not None
    assert unknown < 0
    for now in (20.0, 500.0):
        assert look(coordinator, partition, now) == unknown
    with capture_logs() as logs:
        for code in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.COORDINATOR_LOAD_IN_PROGRESS):
            coordinator.commits.finish(KafkaError(code), coordinator.sent[-1:])
            assert "cannot be committed" in (coordinator.commits.fault or "")
            assert look(coordinator, partition, 501.0) == unknown
    assert [entry["log_level"] for entry in logs] == ["warning"]
    assert offsets(coordinator) == [1, 1, 1]
    coordinator.commits.finish(None, coordinator.sent[-1:])
    assert (look(coordinator, partition, 502.0), coordinator.commits.fault) == (None, None)


@pytest.mark.parametrize(
    ("since", "moved", "due"),
    [
        (0.24, 1, False),
        (0.25, 1, True),
        (0.02, COMMIT_RECORDS - 1, False),
        (0.02, COMMIT_RECORDS, True),
        (0.0, 999, False),
    ],
)
def test_offsets_are_committed_four_times_a_second_or_after_many(since: float, moved: int, *, due: bool) -> None:
    """Each commit costs a request to Kafka; the deliveries since the last one come again after a crash."""
    assert is_commit_due(since, lambda: moved) is due
