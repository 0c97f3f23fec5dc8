"""Until when what was settled is known to be with the broker: what a restart asks for, and what it does not."""

from confluent_kafka import KafkaError, TopicPartition

from consumer.intake.commits import Commits
from consumer.intake.offsets import OffsetTracker
from consumer.intake.record import Partition


class Broker:
    """Takes rounds, and answers when a test says so."""

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
        """What a turn of the loop learns then."""
        self.now = now
        return self.commits.start(self, [self.partition])  # type: ignore[arg-type]

    def answer(self, error: KafkaError | None = None) -> None:
        self.commits.finish(error, self._round)


def test_what_is_settled_is_known_to_be_there_once_its_round_is_answered() -> None:
    """A round holds what was settled before it began; without anything to send, all is there."""
    broker = Broker()
    assert broker.look(10.0) is None
    broker.settle(0)
    assert broker.look(11.0) == 10.0
    broker.settle(1)
    assert broker.look(12.0) == 10.0, "the round is on its way"
    broker.answer()
    assert broker.look(13.0) == 11.0, "the next one is"
    broker.answer()
    assert broker.look(14.0) is None


def test_a_round_that_is_refused_or_not_answered_proves_nothing() -> None:
    """Its records are sent again; until then a restart would read them."""
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
