"""Until when settled records are known to be committed, so that a restart would not read them."""

from confluent_kafka import KafkaError, TopicPartition

from consumer.intake.commits import Commits
from consumer.intake.offsets import OffsetTracker
from consumer.intake.record import Partition


class Broker:
    """Accepts commit rounds, and answers them when the test says so."""

    def __init__(self) -> None:
        self.now = 10.0
        self.commits = Commits(lambda: self.now)
        self.partition = Partition("topic", 0, OffsetTracker(0))
        self._round: list[TopicPartition] = []

    def commit(self, *, offsets: list[TopicPartition], asynchronous: bool) -> None:
        assert asynchronous
        self._round = offsets

    def settle(self, offset: int) -> None:
        self.partition.tracker.track(offset)
        self.partition.tracker.settle(offset)

    def look(self, now: float) -> float | None:
        """The result of `start` in a turn of the loop at `now`."""
        self.now = now
        return self.commits.start(self, [self.partition])  # type: ignore[arg-type]

    def answer(self, error: KafkaError | None = None) -> None:
        self.commits.finish(error, self._round)


def test_settled_records_are_known_to_be_committed_once_their_round_is_answered() -> None:
    """A round covers records settled before it began. If there is nothing to send, all are committed."""
    broker = Broker()
    assert broker.look(10.0) is None
    broker.settle(0)
    assert broker.look(11.0) == 10.0
    broker.settle(1)
    assert broker.look(12.0) == 10.0, "the first round is under way"
    broker.answer()
    assert broker.look(13.0) == 11.0, "the second round is under way"
    broker.answer()
    assert broker.look(14.0) is None


def test_a_refused_or_unanswered_round_commits_nothing() -> None:
    """Its offsets are sent again. Until then a restart would read the records."""
    broker = Broker()
    broker.settle(0)
    unknown = broker.look(10.0)
    assert unknown is not None
    assert unknown < 0
    for now in (20.0, 500.0):
        assert broker.look(now) == unknown
    broker.answer(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))
    assert broker.look(501.0) == unknown
    broker.answer()
    assert broker.look(502.0) is None
