"""Gives partitions up: when they are revoked (the group waits meanwhile), when they are lost, and at a stop."""

from collections.abc import Callable, Collection, Sequence
from math import inf

from consumer.delivery.delivery import Delivery
from consumer.delivery.fanout import Fanout
from consumer.delivery.lanes import Lanes
from consumer.delivery.memory import Memory
from consumer.delivery.parking import Parking
from consumer.delivery.sender import Sender
from consumer.delivery.settling import Settling
from consumer.events.event import TopicPartition
from consumer.intake.dead_letters import DeadLetters
from consumer.intake.record import Partition
from consumer.schemas.translation import Translation
from consumer.worker.dispatch import Dispatch

REVOKE_DRAIN = 5.0  # seconds for requests in flight during a rebalance, for which all members wait
STORE_DRAIN = 5.0  # seconds for the database, after those for the receivers
WRITE_LIMIT = 35.0  # seconds for a statement under way: the database's own limit of 30, and a margin


class Handover:
    """Gives partitions up. `turn(seconds)` runs the loop for the other partitions meanwhile."""

    def __init__(
        self,
        dispatch: Dispatch,
        lanes: Lanes,
        settling: Settling,
        parking: Parking,
        dead_letters: DeadLetters,
        sender: Sender,
        memory: Memory,
        turn: Callable[[float], None],
        monotonic: Callable[[], float],
        translation: Translation | None = None,
    ) -> None:
        self._dispatch = dispatch
        self._lanes = lanes
        self._settling = settling
        self._parking = parking
        self._dead_letters = dead_letters
        self._sender = sender
        self._memory = memory
        self._turn = turn
        self._monotonic = monotonic
        self._translation = translation

    def drain(
        self, partitions: Sequence[Partition], adopted: Collection[TopicPartition], seconds: float, until: float = inf
    ) -> None:
        """Settle deliveries of partitions that are given up, as far as possible. The caller commits afterwards.

        `adopted` partitions have rows but no log; they are given up likewise. Requests in flight get `seconds`; the
        drain ends at `until` (monotonic seconds) at the latest.
        """
        # 1. Start no more requests. Store the open deliveries of records that some receivers have seen, as far as the
        # database keeps up; the next owner reads the other records again.
        topic_partitions = {each.topic_partition for each in partitions} | set(adopted)
        fanout = self._discard(topic_partitions)
        if fanout is not None and fanout.abandon(self._lanes, self._settling):
            fanout = None
        for delivery in self._lanes.withdraw(lambda delivery: _topic_partition(delivery) in topic_partitions):
            self._settling.on_revoked(delivery)
        # 2. Wait for requests in flight; failures are stored, not retried here.
        end = min(self._monotonic() + seconds, until)
        while self._monotonic() < end and self._open(topic_partitions):
            self._turn(0.01)
        # 3. Cancel the rest: their outcome is unknown, so they are stored as attempted.
        for request in self._open(topic_partitions):
            took = self._monotonic() - request.started_at
            self._settling.on_cancelled(self._take_out(request, topic_partitions), took)
        # 4. Wait until all of it is stored; unstored deliveries stay unsettled, and the next owner repeats them. Do not
        # wait for entries of other partitions, or for entries that the database has refused for long: the whole group
        # would wait.
        end = min(self._monotonic() + STORE_DRAIN, until)
        while self._monotonic() < end and (
            fanout is not None or self._parking.holds(topic_partitions) or self._dead_letters.holds(topic_partitions)
        ):
            if fanout is not None and fanout.abandon(self._lanes, self._settling):
                fanout = None
            self._turn(0.01)
        self._forget(partitions, topic_partitions)

    def await_writes(self, partitions: Sequence[Partition], until: float) -> None:
        """Wait until no entry of drained partitions is being written.

        Their next owner asks the database for stored deliveries as soon as it has the partitions. It would repeat, out
        of order, a delivery that is stored later. Results that were set aside are not waited for: their rows may be
        locked for hours, and the group would wait in each rebalance. They are written later, unless another worker has
        made an attempt meanwhile.
        """
        topic_partitions = {each.topic_partition for each in partitions}
        end = min(self._monotonic() + WRITE_LIMIT, until)
        while self._monotonic() < end and self._parking.writes(topic_partitions):
            self._turn(0.01)

    def lose(self, partitions: Sequence[Partition], adopted: Collection[TopicPartition]) -> None:
        """Other workers own these partitions now: forget their deliveries, and store and commit nothing of them."""
        topic_partitions = {each.topic_partition for each in partitions} | set(adopted)
        self._discard(topic_partitions)
        for delivery in self._lanes.withdraw(lambda delivery: _topic_partition(delivery) in topic_partitions):
            self._settling.on_lost(delivery)
        for request in self._open(topic_partitions):
            for delivery in self._take_out(request, topic_partitions):
                self._settling.on_lost(delivery)
        self._forget(partitions, topic_partitions)

    def _discard(self, topic_partitions: set[TopicPartition]) -> Fanout | None:
        """Forget events that are not fanned out. Returns the partly fanned-out one, if it is of these partitions."""
        if self._translation is not None:
            self._translation.discard(topic_partitions)
        return self._dispatch.discard(topic_partitions)

    def _forget(self, partitions: Sequence[Partition], topic_partitions: Collection[TopicPartition]) -> None:
        self._parking.forget(topic_partitions)
        for partition in partitions:
            self._memory.leave(partition)

    def _take_out(self, request: Delivery, topic_partitions: Collection[TopicPartition]) -> list[Delivery]:
        """Release and return a request's deliveries of these partitions. A batch goes on with its other deliveries."""
        carried = request.batch()
        leaving = [each for each in carried if _topic_partition(each) in topic_partitions]
        if len(leaving) == len(carried):
            self._sender.cancel(request)
        for each in leaving:
            each.released = True
        return leaving

    def _open(self, topic_partitions: Collection[TopicPartition]) -> list[Delivery]:
        """The delivery that stands for each open request that carries deliveries of these partitions."""
        return [
            each
            for each in self._sender.open
            if any(_topic_partition(carried) in topic_partitions for carried in each.batch())
        ]


def _topic_partition(delivery: Delivery) -> TopicPartition:
    return delivery.event.record.topic_partition
