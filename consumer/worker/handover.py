"""Partitions leave: revoked while the group waits, lost to others, or given up at a stop."""

from collections.abc import Callable, Collection, Sequence
from math import inf

from consumer.delivery.delivery import Delivery
from consumer.delivery.lanes import Lanes
from consumer.delivery.memory import Memory
from consumer.delivery.parking import Parking
from consumer.delivery.sender import Sender
from consumer.delivery.settling import Settling
from consumer.events.event import TopicPartition
from consumer.intake.dead_letters import DeadLetters
from consumer.intake.record import Partition
from consumer.worker.dispatch import Dispatch

REVOKE_DRAIN = 5.0  # seconds for requests in flight inside a rebalance, which all members wait for
STORE_DRAIN = 5.0  # seconds for the database, after those for the receivers
WRITE_LIMIT = 35.0  # seconds for a statement that is under way: the database's own limit, and what comes after it


class Handover:
    """Gives partitions up to other workers. `turn(seconds)` lets the loop go on with the rest meanwhile."""

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

    def drain(
        self, partitions: Sequence[Partition], adopted: Collection[TopicPartition], seconds: float, until: float = inf
    ) -> None:
        """Settle what is under way of partitions that are given up, as far as it can be; their commit comes after this.

        `adopted` places have rows and no partition; they go the same way. `seconds` are for the requests in flight; all
        of it ends at `until` (monotonic seconds).
        """
        # 1. Start nothing more of them: what a receiver has seen in part is stored, the rest left to the next owner.
        places = _places(partitions) | set(adopted)
        self._settling.revoke(places)
        fanout = self._dispatch.discard(places)
        if fanout is not None:
            fanout.abandon(self._lanes, self._settling)
        for delivery in self._lanes.withdraw(lambda delivery: _place(delivery) in places):
            self._settling.on_revoked(delivery)
        # 2. Wait for the requests in flight; failures are stored, not retried here.
        end = min(self._monotonic() + seconds, until)
        while self._monotonic() < end and self._open(places):
            self._turn(0.01)
        # 3. Cut off the rest: their outcome is unknown, so they are stored as attempted.
        for request in self._open(places):
            took = self._monotonic() - request.started_at
            self._settling.on_cancelled(self._take_out(request, places), took)
        # 4. Wait until all of it is stored; what is not stays unsettled, and is sent again by the next owner. What
        # others have to store goes on meanwhile, and is not waited for: all of the group would wait with it. Nor is an
        # entry that the database has refused for long.
        end = min(self._monotonic() + STORE_DRAIN, until)
        while self._monotonic() < end and (self._parking.holds(places) or self._dead_letters.holds(places)):
            self._turn(0.01)
        self._forget(partitions, places)

    def await_writes(self, partitions: Sequence[Partition], until: float) -> None:
        """Wait until nothing of partitions that were drained is being written: their next owner would not know of it.

        It asks the database what is stored once they are its own; what came later it would send again, and out of turn.
        The result of a row that is set aside is not waited for: its lock may be held for hours, and all of the group
        would wait in each rebalance. It is written from here when it can be, if nobody has made an attempt meanwhile.
        """
        places = _places(partitions)
        end = min(self._monotonic() + WRITE_LIMIT, until)
        while self._monotonic() < end and self._parking.writes(places):
            self._turn(0.01)

    def lose(self, partitions: Sequence[Partition], adopted: Collection[TopicPartition]) -> None:
        """Others own these now and send them again: forget what is here, store and commit nothing of them."""
        places = _places(partitions) | set(adopted)
        self._settling.revoke(places)
        self._dispatch.discard(places)
        for delivery in self._lanes.withdraw(lambda delivery: _place(delivery) in places):
            self._settling.on_lost(delivery)
        for request in self._open(places):
            for delivery in self._take_out(request, places):
                self._settling.on_lost(delivery)
        self._forget(partitions, places)

    def _forget(self, partitions: Sequence[Partition], places: Collection[TopicPartition]) -> None:
        self._parking.forget(places)
        for partition in partitions:
            self._memory.leave(partition)

    def _take_out(self, request: Delivery, places: Collection[TopicPartition]) -> list[Delivery]:
        """Release and return the deliveries of these partitions. A batch that carries more goes on with the rest."""
        carried = request.batch()
        leaving = [each for each in carried if _place(each) in places]
        if len(leaving) == len(carried):
            self._sender.cancel(request)
        for each in leaving:
            each.released = True
        return leaving

    def _open(self, places: Collection[TopicPartition]) -> list[Delivery]:
        """Of each request that carries something of them the delivery that stands for it."""
        return [each for each in self._sender.open if any(_place(carried) in places for carried in each.batch())]


def _places(partitions: Sequence[Partition]) -> set[TopicPartition]:
    return {(partition.topic, partition.number) for partition in partitions}


def _place(delivery: Delivery) -> TopicPartition:
    return delivery.event.record[:2]
