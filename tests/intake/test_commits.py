"""What a last commit does while the group goes from one generation to the next."""

from collections.abc import Callable

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from consumer.intake.commits import Commits
from consumer.intake.offsets import OffsetTracker
from consumer.intake.record import Partition


class Group:
    """Answers commits with these errors, then takes them, as a group does that is between two generations.

    Of an asynchronous one it says nothing; `shown` is how it answers the question what is committed, in turn.
    """

    def __init__(self, *errors: int) -> None:
        self.errors = list(errors)
        self.taken: list[TopicPartition] = []
        self.shown: list[int | KafkaException] = []
        self.questions = 0

    def committed(self, partitions: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        assert 0 < timeout <= 5
        self.questions += 1
        answer = self.shown.pop(0) if len(self.shown) > 1 else self.shown[0]
        if isinstance(answer, KafkaException):
            raise answer
        return [TopicPartition(each.topic, each.partition, answer) for each in partitions]

    def commit(self, *, offsets: list[TopicPartition], asynchronous: bool) -> list[TopicPartition] | None:
        if asynchronous:
            return None
        if self.errors:
            raise KafkaException(KafkaError(self.errors.pop(0)))
        self.taken += offsets
        return offsets


@pytest.fixture
def partition() -> Partition:
    """One with a settled record."""
    tracker = OffsetTracker(0)
    tracker.track(0)
    tracker.settle(0)
    return Partition("topic", 0, tracker)


def clock(times: list[float]) -> tuple[Callable[[], float], Callable[[float], None]]:
    """A clock that sleeping moves."""

    def sleep(seconds: float) -> None:
        times[0] += seconds

    return lambda: times[0], sleep


def test_a_last_commit_waits_for_the_next_generation(partition: Partition) -> None:
    """Who leaves commits once: an answer that the next moment changes must not cost what was delivered."""
    group = Group(KafkaError.ILLEGAL_GENERATION, KafkaError.REBALANCE_IN_PROGRESS, KafkaError.STALE_MEMBER_EPOCH)
    commits = Commits(*clock([0.0]))
    assert commits.now(group, [partition])  # type: ignore[arg-type]
    assert [(each.partition, each.offset) for each in group.taken] == [(0, 1)]
    assert (commits.total, commits.fault, partition.tracker.dirty) == (1, None, False)


def test_a_last_commit_does_not_wait_for_ever(partition: Partition) -> None:
    """After some seconds it is given up, and at once where no later moment would change the answer."""
    times = [0.0]
    assert not Commits(*clock(times)).now(Group(*[KafkaError.ILLEGAL_GENERATION] * 999), [partition])  # type: ignore[arg-type]
    assert 4 < times[0] < 6
    assert partition.tracker.dirty
    times = [0.0]
    assert not Commits(*clock(times)).now(Group(KafkaError.UNKNOWN_MEMBER_ID), [partition])  # type: ignore[arg-type]
    assert times == [0.0]


NO_ANSWER = KafkaException(KafkaError(KafkaError._TIMED_OUT))


@pytest.mark.parametrize(
    ("shown", "questions", "waited", "taken"),
    [
        ([1], 1, (0, 0), True),
        ([NO_ANSWER, NO_ANSWER, 0, 1], 4, (0.1, 0.2), True),
        ([0], 30, (1.5, 1.6), True),
        ([NO_ANSWER], 100, (5, 5.1), False),
    ],
    ids=["arrived", "arrives when the coordinator is back", "has failed", "no answer"],
)
def test_a_last_commit_waits_for_the_round_before_it(
    partition: Partition, *, shown: list[int | KafkaException], questions: int, waited: tuple[float, float], taken: bool
) -> None:
    """Inside a rebalance nothing says that a round was answered: the coordinator shows it."""
    times = [0.0]
    group = Group()
    group.shown = shown
    commits = Commits(*clock(times))
    commits.start(group, [partition])  # type: ignore[arg-type]
    partition.tracker.track(1)
    partition.tracker.settle(1)
    assert commits.now(group, [partition]) is taken  # type: ignore[arg-type]
    assert [each.offset for each in group.taken] == ([2] if taken else [])
    assert questions - 1 <= group.questions <= questions + 1
    assert waited[0] - 0.01 <= times[0] <= waited[1] + 0.01


def test_a_round_that_failed_is_sent_again_by_the_last_commit(partition: Partition) -> None:
    """Nothing has been settled since, so that only the round itself says that something is to be committed."""
    group = Group()
    group.shown = [0]
    commits = Commits(*clock([0.0]))
    commits.start(group, [partition])  # type: ignore[arg-type]
    assert not partition.tracker.dirty
    assert commits.now(group, [partition])  # type: ignore[arg-type]
    assert [each.offset for each in group.taken] == [1]


def test_what_is_not_owned_any_more_is_not_committed(partition: Partition) -> None:
    """The broker takes it from anybody, also behind the back of the next owner, whose offset it would set back."""
    group = Group()
    group.shown = [1]
    partition.owned = False
    commits = Commits(*clock([0.0]))
    commits.start(group, [partition])  # type: ignore[arg-type]
    assert commits.settled([partition])
    assert commits.now(group, [partition])  # type: ignore[arg-type]
    assert group.taken == []
