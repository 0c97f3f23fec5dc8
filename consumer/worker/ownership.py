"""The partitions whose deliveries this worker sends: which these are, and how it takes them over and gives them up."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import inf

import structlog

from consumer.delivery.delivery import Delivery
from consumer.delivery.lanes import Lanes
from consumer.delivery.limits import Memory
from consumer.delivery.parking import Parking
from consumer.delivery.recall import Recall
from consumer.delivery.sender import Sender
from consumer.delivery.settling import Settling
from consumer.events.event import TopicPartition
from consumer.intake.dead_letters import DeadLetters
from consumer.intake.offsets import OffsetTracker
from consumer.intake.record import AssignedPartition
from consumer.intake.source import Source
from consumer.intake.topics import ClusterView
from consumer.ledger.assigned import Settled
from consumer.matching.inbox import Inbox
from consumer.worker.catch_up import CatchUp
from consumer.worker.dispatch import Dispatch

log = structlog.get_logger(__name__)

STORED_ALONE = 1.0  # seconds until stored deliveries are sent even if their partition's records cannot be read yet
RECORDS_FIRST = 0.3  # seconds by which the first records go ahead of stored deliveries, once all partitions are open
REVOKE_PART = 0.7  # of the group's rebalance time-out: a member that takes longer is expelled and cannot commit
REVOKE_DRAIN = 5.0  # seconds for requests in flight during a rebalance, for which all members wait
STORE_DRAIN = 5.0  # seconds for the database, after those for the receivers
WRITE_LIMIT = 35.0  # seconds for a statement under way: the database's own limit of 30, and a margin

NO_LOG = 2**63 - 1  # stands for an offset where no log is left: the largest that Kafka and the column hold


@dataclass(eq=False)
class Ownership:
    """`partitions` are those that Kafka has assigned, until their assignment has ended.

    `adopted` partitions have rows or cursors but no longer exist in Kafka. The worker that leads the group sends these
    rows, and gives up these cursors.
    """

    partitions: Mapping[TopicPartition, AssignedPartition]
    topics: ClusterView
    monotonic: Callable[[], float]
    closed: bool = False
    adopted: dict[TopicPartition, None] = field(default_factory=dict)

    def leads(self) -> bool:
        """Whether this worker does the work that one worker of the group should do."""
        return not self.closed and self.topics.leads(self._kept())

    def close(self) -> None:
        """The group is being left."""
        self.closed = True

    def topic_partitions(self) -> Collection[TopicPartition]:
        """The partitions whose stored deliveries this worker sends."""
        return () if self.closed else {*self._kept(), *self.adopted}

    def owns(self, topic_partition: TopicPartition) -> bool:
        """Whether the partition is one of `topic_partitions`."""
        partition = self.partitions.get(topic_partition)
        kept = topic_partition in self.adopted if partition is None else not partition.revoking
        return kept and not self.closed

    def _kept(self) -> list[TopicPartition]:
        return [each.topic_partition for each in self.partitions.values() if not each.revoking]

    def adopt(self, stored: Collection[TopicPartition]) -> None:
        """Adopt those of the partitions with rows, `stored`, that are long gone, if this worker leads."""
        adopted = dict.fromkeys(self.topics.gone(stored, self.monotonic())) if self.leads() else {}
        for topic in {topic for topic, _ in adopted.keys() - self.adopted.keys()}:
            log.warning("a topic is gone; sending its stored deliveries", topic=topic)
        self.adopted = adopted

    def released(self) -> Collection[TopicPartition]:
        """Give up adopted partitions if this worker no longer leads; returns them."""
        if self.leads():
            return ()
        released, self.adopted = self.adopted, {}
        return released

    def given_out(self, topic_partition: TopicPartition, waiting: int | None) -> Callable[[int], bool]:
        """A predicate on offsets: whether all records of this partition up to the offset were fanned out.

        `waiting` is the lowest offset that was read and is not yet fanned out; None if there is none.
        """
        partition = self.partitions.get(topic_partition)
        if partition is None:
            return lambda _: True  # no log is left to read
        return partition.passed if waiting is None else lambda offset: offset < waiting

    def live_at(self, partition: TopicPartition, untouched: Callable[[TopicPartition], int | None]) -> int | None:
        """The first offset that the live stream has not yet given to subscriptions; None: it is not known yet.

        `untouched`: the first one that was read and waits.
        """
        assigned = self.partitions.get(partition)
        if assigned is None or not assigned.opened:
            return None
        waiting, tracker = untouched(partition), assigned.tracker
        # Records that were settled before a restart, perhaps because a cursor covers them, are not given out again.
        read = (
            tracker.position if tracker.position >= 0 else assigned.read_to
        )  # a log without records has none to settle
        first = max(read if waiting is None else waiting, tracker.restored_to)
        return first if first >= 0 else None

    def settled_to(self, partition: TopicPartition) -> int | None:
        """Every record below is settled; None: it is not known yet."""
        assigned = self.partitions.get(partition)
        return None if assigned is None else assigned.tracker.low_water_mark

    def tracker_of(self, partition: TopicPartition) -> OffsetTracker | None:
        """The tracker of an assigned partition."""
        assigned = self.partitions.get(partition)
        return None if assigned is None else assigned.tracker

    def unasked(self) -> dict[TopicPartition, int]:
        """Adopted partitions, which no restart reads, except partitions of a topic that was just recreated."""
        return dict.fromkeys(self.adopted.keys() - self.partitions.keys(), NO_LOG)


class Takeover:
    """Looks up the stored deliveries of assigned partitions, and opens those whose stored deliveries are known.

    The records of one partition never wait for the look-up of another.
    """

    def __init__(
        self,
        source: Source,
        ownership: Ownership,
        parking: Parking,
        recall: Recall,
        inbox: Inbox,
        catch_up: CatchUp,
    ) -> None:
        self._catch_up = catch_up
        self._source = source
        self._ownership = ownership
        self._parking = parking
        self._recall = recall
        self._inbox = inbox
        self._loading: set[AssignedPartition] = set()

    def assigned(self) -> None:
        """Partitions were assigned. Their stored deliveries are sent when their records are.

        If failing stored deliveries were sent alone, their receiver would look dead. But they wait for Kafka only
        STORED_ALONE seconds.
        """
        self._recall.within(STORED_ALONE)

    def positioned(self, partition: AssignedPartition) -> None:
        """The partition's position is known: look up which deliveries from there on are stored."""
        self._loading.add(partition)
        mark = partition.tracker.low_water_mark or 0
        self._parking.load_stored(partition.topic_partition, mark, partial(self._loaded, partition))

    def more(self, topic_partition: TopicPartition, offset: int) -> None:
        """Pause the partition at this offset, and look up which deliveries from here on are stored."""
        partition = self._source.partitions[topic_partition]
        self._loading.add(partition)
        self._source.rest(partition)
        self._parking.load_stored(topic_partition, offset, partial(self._known, partition), more=True)

    def _loaded(self, partition: AssignedPartition, settled: Settled) -> None:
        known = partition.tracker.identity is not None or partition.needs_identity
        if partition.owned and not known and any(each.identity for each in settled.cursors):
            self._source.identify(partition)  # the cursors may be of an earlier topic, whose offsets say nothing here
            return
        if partition.owned:
            self._catch_up.assigned(partition, settled.cursors)
        self._known(partition, settled)
        if not self._loading:
            self._recall.within(RECORDS_FIRST)

    def _known(self, partition: AssignedPartition, settled: Settled) -> None:
        topic_partition = partition.topic_partition
        self._loading = {each for each in self._loading if each.owned and each is not partition}
        if partition.owned and self._ownership.owns(topic_partition):
            self._inbox.stored(topic_partition, settled.keys, settled.end)
            if not self._inbox.stands_aside(topic_partition):
                self._source.open(partition)


@dataclass(frozen=True)
class Handover:
    """Gives partitions up, and runs the loop for the other partitions meanwhile.

    `turn(seconds)` runs the loop. `drain`: seconds that requests in flight get to end at a stop.
    """

    source: Source
    ownership: Ownership
    dispatch: Dispatch
    lanes: Lanes
    settling: Settling
    parking: Parking
    dead_letters: DeadLetters
    sender: Sender
    memory: Memory
    catch_up: CatchUp
    turn: Callable[[float], None]
    monotonic: Callable[[], float]
    drain: float

    def revoke(self, partitions: Sequence[AssignedPartition]) -> None:
        """Give up revoked partitions, for which the whole group waits. The caller commits afterwards."""
        longest = REVOKE_PART * self.source.rebalance_timeout
        seconds, until = min(REVOKE_DRAIN, self.drain, longest / 2), self.monotonic() + longest
        self._drain(partitions, seconds, until)
        self._await_writes(partitions, until)

    def release_adopted(self) -> None:
        """Give up adopted partitions if this worker no longer leads."""
        self._drain((), REVOKE_DRAIN)

    def stop(self, partitions: Sequence[AssignedPartition]) -> None:
        """Give up all partitions. The caller commits afterwards."""
        log.info("stopping", in_flight=len(self.sender.open), seconds=self.drain)
        self._drain(partitions, self.drain)

    def lose(self, partitions: Sequence[AssignedPartition]) -> None:
        """Other workers own these partitions now: forget their deliveries, and store and commit nothing of them."""
        topic_partitions = self._leaving(partitions)
        self.dispatch.discard(topic_partitions)
        for delivery in self.lanes.withdraw(lambda delivery: _topic_partition(delivery) in topic_partitions):
            self.settling.on_lost(delivery)
        for request in self._open(topic_partitions):
            for delivery in self._take_out(request, topic_partitions):
                self.settling.on_lost(delivery)
        self._forget(partitions, topic_partitions)

    def _drain(self, partitions: Sequence[AssignedPartition], seconds: float, until: float = inf) -> None:
        """Settle deliveries of partitions that are given up, as far as possible.

        Requests in flight get `seconds`; the drain ends at `until` (monotonic seconds) at the latest.
        """
        # 1. Start no more requests. Store the open deliveries of records that some receivers have seen, as far as the
        # database keeps up; the next owner reads the other records again.
        topic_partitions = self._leaving(partitions)
        self.catch_up.stop(topic_partitions)
        fanout = self.dispatch.discard(topic_partitions)
        if fanout is not None and fanout.abandon(self.lanes, self.settling):
            fanout = None
        for delivery in self.lanes.withdraw(lambda delivery: _topic_partition(delivery) in topic_partitions):
            self.settling.on_revoked(delivery)
        # 2. Wait for requests in flight; failures are stored, not retried here.
        end = min(self.monotonic() + seconds, until)
        while self.monotonic() < end and self._open(topic_partitions):
            self.turn(0.01)
        # 3. Cancel the rest: their outcome is unknown, so they are stored as attempted.
        for request in self._open(topic_partitions):
            took = self.monotonic() - request.started_at
            self.settling.on_cancelled(self._take_out(request, topic_partitions), took)
        # 4. Wait until all of it is stored; unstored deliveries stay unsettled, and the next owner repeats them. Do not
        # wait for entries of other partitions, or for entries that the database has refused for long: the whole group
        # would wait.
        end = min(self.monotonic() + STORE_DRAIN, until)
        reported: list[None] = []
        self.settling.once_reported(lambda: reported.append(None))
        while self.monotonic() < end and (
            self.catch_up.save(topic_partitions)
            or fanout is not None
            or not reported
            or self.parking.holds(topic_partitions)
            or self.dead_letters.holds(topic_partitions)
        ):
            if fanout is not None and fanout.abandon(self.lanes, self.settling):
                fanout = None
            self.turn(0.01)
        self._forget(partitions, topic_partitions)

    def _await_writes(self, partitions: Sequence[AssignedPartition], until: float) -> None:
        """Wait until no entry of drained partitions is being written.

        Their next owner asks the database for stored deliveries as soon as it has the partitions. It would repeat, out
        of order, a delivery that is stored later. Results that were set aside are not waited for: their rows may be
        locked for hours, and the group would wait in each rebalance. They are written later, unless another worker has
        made an attempt meanwhile.
        """
        topic_partitions = {each.topic_partition for each in partitions}
        end = min(self.monotonic() + WRITE_LIMIT, until)
        while self.monotonic() < end and self.parking.writes(topic_partitions):
            self.turn(0.01)

    def _leaving(self, partitions: Sequence[AssignedPartition]) -> set[TopicPartition]:
        """These partitions, and the adopted ones, which have rows but no log, if this worker no longer leads."""
        return {each.topic_partition for each in partitions} | set(self.ownership.released())

    def _forget(self, partitions: Sequence[AssignedPartition], topic_partitions: Collection[TopicPartition]) -> None:
        self.catch_up.forget(topic_partitions)
        self.parking.forget(topic_partitions)
        for partition in partitions:
            self.memory.leave(partition)

    def _take_out(self, request: Delivery, topic_partitions: Collection[TopicPartition]) -> list[Delivery]:
        """Release and return a request's deliveries of these partitions. A batch goes on with its other deliveries."""
        carried = request.batch()
        leaving = [each for each in carried if _topic_partition(each) in topic_partitions]
        if len(leaving) == len(carried):
            self.sender.cancel(request)
        for each in leaving:
            each.released = True
        return leaving

    def _open(self, topic_partitions: Collection[TopicPartition]) -> list[Delivery]:
        """The delivery that stands for each open request that carries deliveries of these partitions."""
        return [
            each
            for each in self.sender.open
            if any(_topic_partition(carried) in topic_partitions for carried in each.batch())
        ]


def _topic_partition(delivery: Delivery) -> TopicPartition:
    return delivery.event.record.topic_partition
