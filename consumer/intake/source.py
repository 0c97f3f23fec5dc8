"""Records from Kafka: poll, rebalance, pause, commit. One thread owns a Source; every callback fires inside `poll`."""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as KafkaTopicPartition

from consumer.config.settings import KafkaSettings
from consumer.errors import SettingsError
from consumer.events.event import TopicPartition
from consumer.intake.commits import Commits
from consumer.intake.group_consumer import SourceHealth, consumer_config, first_offset, leave, within
from consumer.intake.offsets import OffsetRegression
from consumer.intake.positions import Committed, Positions
from consumer.intake.record import (
    MAX_WAIT,
    UNREADABLE,
    AssignedPartition,
    Record,
    UnreadableBatches,
    batch,
    headers_of,
)
from consumer.intake.stalls import Stalls
from consumer.intake.topics import hides
from consumer.kafka.client import made, refused
from consumer.loop.part import guarded

log = structlog.get_logger(__name__)

OnPartitions = Callable[[list[AssignedPartition]], None]

_COMMIT_SECONDS = 5.0
_MAX_POLL_INTERVAL = 300_000  # librdkafka's default


class Source:
    """A member of the consumer group.

    `on_assign`, `on_revoke` and `on_lost` get partitions as they come and go, inside `poll`; the next `poll` raises
    their errors. A revoked partition is committed after `on_revoke` returns, a lost one never. `on_position` gets a
    partition once its committed offset is known; its records are read after `open`.

    `partitions` are the owned ones. `rebalancing`: a rebalance callback runs, and the consumer must not be polled. The
    group waits `rebalance_timeout` seconds for a member that gives partitions up.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        topics: Sequence[str],
        *,
        on_assign: OnPartitions,
        on_position: Callable[[AssignedPartition], None],
        on_revoke: OnPartitions,
        on_lost: OnPartitions,
        post: Callable[[Callable[[], None]], None],
        meanwhile: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Join the group. SettingsError: librdkafka refuses a setting, or `topics` has one that is never consumed.

        `post` takes a callback from any thread and runs it on this one. `meanwhile(seconds)` runs while a rebalance
        waits for Kafka.
        """
        for topic, kind in kafka.never_consumed.items():
            if topic in topics:
                raise SettingsError(f"KAFKA_TOPICS names the {kind} {topic}: leave it out")
        self.partitions: dict[tuple[str, int], AssignedPartition] = {}
        self._tell_assigned, self._tell_revoked, self._tell_lost = on_assign, on_revoke, on_lost
        self._on_position = on_position
        self._post = post
        self._clock = clock
        self._hides = hides(kafka, topics)
        self.commits = Commits(clock, meanwhile, kafka.group_id)
        self._failures: list[Exception] = []
        self._paused = self._closing = self.rebalancing = False
        self._rebalances = 0
        self._unopened: dict[AssignedPartition, str | None] = {}  # each with the reason why `open` failed, if it did
        self._resting: set[AssignedPartition] = set()  # opened, and then paused by `rest`
        self._unreadable = UnreadableBatches()
        self._sought: set[AssignedPartition] = set()  # by `poll`, which has fetched their further messages before
        self.stalls = Stalls()
        self._drained = False  # since the last look for stalls, all that was fetched was taken at least once
        self._identities: dict[str, str] = {}  # of topics, as this client knew them first
        config = consumer_config(kafka, topics)
        self._static = "group.instance.id" in config
        self.rebalance_timeout = float(config.get("max.poll.interval.ms", _MAX_POLL_INTERVAL)) / 1000
        self._first = first_offset(config)
        self.health = SourceHealth(kafka, clock)
        self._reported = self.health.reported
        keep = self._failures.append
        config |= {
            "error_cb": guarded(keep, self.health.error),
            "stats_cb": guarded(keep, self._on_statistics),
            "on_commit": guarded(keep, self.commits.finish),
        }
        self._consumer = made(Consumer, config, kafka)
        try:
            self._consumer.subscribe(
                list(topics),
                on_assign=guarded(keep, self._on_assign),
                on_revoke=guarded(keep, self._on_revoke),
                on_lost=guarded(keep, self._on_lost),
            )
        except KafkaException as error:
            raise refused(error, kafka.properties) from None
        self._positions = Positions(kafka, post, self._owned, self._on_committed, self._on_identity)
        cooperative = config.get("partition.assignment.strategy", "cooperative-sticky") == "cooperative-sticky"
        self._assign = self._consumer.incremental_assign if cooperative else self._consumer.assign

    @property
    def moved(self) -> int:
        """How many records were settled since the last commit."""
        return sum(each.tracker.moved for each in self.partitions.values())

    @property
    def fault(self) -> str | None:
        """Why this member cannot do its work now, for /readyz."""
        health, waiting = self.health, next(filter(None, list(self._unopened.values())), None)
        waiting = waiting or self.stalls.fault(self._clock())
        return health.of_kafka or health.of_records or self._positions.fault or waiting or self.commits.fault

    def poll(self, limit: int, timeout: float) -> list[Record]:
        """Up to `limit` (at least 1) new records, tracked; records settled before a restart are left out.

        Waits for the first at most `timeout` seconds, and never above 0.1. Raises the errors of callbacks, and
        FatalKafkaError when this consumer cannot go on; no record is lost.
        """
        # Raise before fetching: a record fetched but not tracked would count as one that the log does not hold.
        if self._failures:
            raise self._failures.pop(0)
        if self._reported.fatal is not None:
            raise self._reported.fatal
        for waiting in [each for each, reason in self._unopened.items() if reason] if self._unopened else ():
            self.open(waiting)
        self._sought.clear()
        messages = batch(self._consumer, limit, timeout)
        self._drained = self._drained or len(messages) < limit
        rebalances = self._rebalances
        records = [record for message in messages if (record := self._read(message)) is not None]
        if self._rebalances != rebalances:  # a log was truncated or recreated
            return [record for record in records if record.partition.owned]
        return records

    @property
    def opening(self) -> bool:
        """Whether some owned partitions are not open yet."""
        return bool(self._unopened)

    def open(self, partition: AssignedPartition) -> None:
        """Begin to read a partition that `on_position` got, or that rests, unless it has left."""
        if not partition.owned:
            return
        if partition in self._resting:
            self.wake(partition)
            return
        try:
            self._consumer.seek(partition.begins_at(self._first))
        except KafkaException as error:
            self._unopened[partition] = f"{partition} cannot be read yet: {error.args[0].str()}"
            return
        partition.opened = True
        del self._unopened[partition]
        self._resume([partition])

    def identify(self, partition: AssignedPartition) -> None:
        """Ask for an unopened partition's position again, with its topic's identity; `on_position` gets it."""
        partition.needs_identity = True
        self._positions.ask([partition])

    def rest(self, partition: AssignedPartition) -> None:
        """Stop fetching an opened partition until it is opened again."""
        self._resting.add(partition)
        self.stalls.excuse(partition)
        self._consumer.pause(_topic_partitions([partition]))

    def wake(self, partition: AssignedPartition) -> None:
        """Undo `rest`; does nothing if the partition does not rest, or has left."""
        if partition in self._resting:
            self._resting.discard(partition)
            self._resume([partition])

    def pause(self) -> None:
        """Fetch nothing until `resume`, not even from partitions assigned meanwhile. Keep polling."""
        self._paused = True
        self.stalls.excuse()
        self._consumer.pause(_topic_partitions(self.partitions.values()))

    def resume(self) -> None:
        """Undo `pause`."""
        self._paused = False
        self._resume(each for each in self.partitions.values() if each.opened and each not in self._resting)

    def _resume(self, partitions: Iterable[AssignedPartition]) -> None:
        if not self._paused:
            self._consumer.resume(_topic_partitions(partitions))

    def look_for_stalls(self, ends: Mapping[TopicPartition, int]) -> None:
        """Compare the positions with the logs' ends, which have just come from the brokers."""
        if self._drained and not self._paused:
            opened = (each for each in self.partitions.values() if each.opened and each not in self._resting)
            self.stalls.look(opened, ends, self._clock())
        self._drained = False

    def commit(self) -> float | None:
        """Send the settled offsets to the broker; returns at once. Does nothing while a round is outstanding.

        Returns a time (monotonic seconds): the broker has every offset settled by then. None: by now.
        """
        return self.commits.start(self._consumer, self.partitions.values())

    def serve(self, timeout: float = 0.0) -> None:
        """Serve the group protocol and take answers to commits, for a paused source that will not resume.

        Does nothing inside a rebalance, where librdkafka's consumer must not be polled, nor unless paused: a record
        dropped here would count as one that the log does not hold.
        """
        if self.rebalancing or not self._paused:
            return
        for message in self._consumer.consume(1, timeout):
            if (error := message.error()) is not None:
                self._reported.error(message.topic(), error)

    def commit_now(self, partitions: Collection[AssignedPartition]) -> bool:
        """Commit these partitions, if still owned, and wait. False if the broker has not accepted all their offsets.

        Call it to give partitions up: inside a rebalance, or before `close`, where it pauses the source. It waits for
        some seconds, and not at all without a coordinator.
        """
        if not partitions:
            return True
        if not self.health.reachability.coordinator_up:
            log.warning("offsets not committed: the group's coordinator is not reachable")
            return False
        if self.rebalancing:
            return self.commits.now(self._consumer, partitions)
        self.pause()
        end = self._clock() + _COMMIT_SECONDS
        while self._clock() < end:
            self.commit()
            if self.commits.settled(partitions):
                return True
            self.serve(MAX_WAIT)
        log.warning("offsets not committed: no answer in time", seconds=_COMMIT_SECONDS)
        return False

    def close(self, timeout: float = 10.0) -> bool:
        """Leave the group; call `commit_now` before. False if librdkafka has not finished within `timeout` seconds."""
        self._closing = True
        self._positions.close()
        leaving = partial(leave, self._consumer, lambda: self._rebalances, static=self._static)
        closed = within(timeout, "kafka-close", leaving)
        if not closed:
            log.warning("Kafka's client did not close in time; leaving it", seconds=timeout)
        for failure in filter(None, (*self._failures, self._reported.fatal)):
            log.error("raised while leaving the group", exc_info=failure)
        return closed

    def _read(self, message: Message) -> Record | None:
        if message.error() is not None:
            return self._given_up(message)
        partition = self.partitions.get((message.topic(), message.partition()))  # type: ignore[arg-type]
        if partition is None or not partition.opened:  # not opened: the log began again, and is read anew
            return None
        if self._sought and partition in self._sought:
            return None
        if self._reported.faults:
            self._reported.answers(partition.topic)
        offset: int = message.offset()  # type: ignore[assignment]
        timestamp = message.timestamp()[1]
        if offset > partition.tracker.position:
            partition.skipped(offset, self._clock())
        try:
            fresh = partition.tracker.track(offset, message.leader_epoch(), timestamp)
        except OffsetRegression as went_back:
            mark = partition.tracker.low_water_mark  # unsettled records below `offset` may still exist
            self._begin_again(partition, offset if mark is None else min(offset, mark), str(went_back))
            return None
        if not fresh:
            return None
        # `Record(…)` takes twice as long.
        return tuple.__new__(
            Record, (partition, offset, timestamp, message.key(), message.value(), headers_of(message))
        )

    def _given_up(self, message: Message) -> Record | None:
        """Note an error that Kafka reports in place of a record. Returns the record to give up; None: there is none."""
        error, offset = message.error(), message.offset()
        partition = self.partitions.get((message.topic(), message.partition()))  # type: ignore[arg-type]
        if error is not None:
            self._reported.error(message.topic(), error)
        if error is None or offset is None or partition is None or not partition.opened:
            return None
        if error.code() == KafkaError._PARTITION_EOF and partition not in self._sought:  # noqa: SLF001 (the binding's public name)
            partition.reached(offset, self._clock())
        # librdkafka queues an error for each read: those behind a `seek` would give up records that can be read.
        if error.code() not in UNREADABLE or partition in self._sought:
            return None
        record = self._unreadable.failed(partition, offset, error.str(), partition.tracker.position)
        if record is None:
            return None
        self._reported.answers(partition.topic)
        self._consumer.seek(KafkaTopicPartition(partition.topic, partition.number, record.offset + 1))
        self._sought.add(partition)
        return record if partition.tracker.track(record.offset, timestamp=record.timestamp) else None

    def _begin_again(self, partition: AssignedPartition, first: int, reason: str, identity: str | None = None) -> None:
        """Replace a partition whose log was truncated or recreated: its old records settle nothing any more.

        Like a new one, the replacement is read once it is opened, from `first`.
        """
        log.warning("the log began again; reading it as a new one", partition=str(partition), reason=reason)
        again = AssignedPartition(*partition.topic_partition)
        again.first = first
        if identity is not None:
            again.former_end = max(partition.position, partition.log[1])
            self.health.made_anew(partition, again.former_end)
        guarded(self._failures.append, self._leave)(self._tell_lost, [partition])
        guarded(self._failures.append, self._enter)([again])
        # Posted, to run after this batch, whose records of the partition are dropped.
        former = None if identity is None else again.former_end
        self._post(partial(self._on_committed, [(again, Committed(None, "", None, identity, former))]))

    def _on_assign(self, _consumer: Consumer, assigned: list[KafkaTopicPartition]) -> None:
        self._rebalances += 1
        if self._closing:
            return  # partitions assigned to a leaving member go on to the others at once
        self.health.assigned()
        # Assigned here and not by the binding, so that nothing is read yet. An empty assignment is valid too.
        # `open` sets the right offset, but one must be given here: without any, librdkafka requests the committed
        # offset, and if the coordinator dies with that request, the partition never starts, without an error.
        starts = [KafkaTopicPartition(each.topic, each.partition, 0) for each in assigned]
        self._consumer.pause(starts)
        self._assign(starts)
        if unwanted := [each for each in assigned if self._hides(each.topic)]:
            self._consumer.pause(unwanted)
        for topic in {None, *(each.topic for each in assigned)}:
            self._reported.answers(topic)
        entered = [AssignedPartition(each.topic, each.partition) for each in assigned if not self._hides(each.topic)]
        if entered:
            self._positions.ask(entered)
        self._enter(entered)

    def _owned(self) -> list[AssignedPartition]:
        return list(self.partitions.values())  # in one step, as another thread calls it

    def _on_committed(self, answers: list[tuple[AssignedPartition, Committed]]) -> None:
        if self._first == OFFSET_BEGINNING:
            self.health.begun(partition for partition, committed in answers if committed == Committed(None, "", None))
        for partition, committed in answers:
            if partition.owned:
                partition.start(committed.offset, committed.metadata, committed.epoch)
                self._identify(partition, committed.identity or partition.tracker.identity)
                if committed.former is not None:
                    partition.first = OFFSET_BEGINNING
                    partition.former_end = max(partition.former_end, committed.former)
                    log.warning("the topic was made anew; reading it from its first record", partition=str(partition))
                self._on_position(partition)

    def _on_identity(self, partition: AssignedPartition, identity: str) -> None:
        if not partition.owned or partition.tracker.identity == identity:
            return
        if partition.tracker.identity is None:
            self._identify(partition, identity)
        elif not self.rebalancing and not partition.revoking:  # else `Positions` reports it again, or the next owner's
            self._begin_again(partition, OFFSET_BEGINNING, "its topic was deleted and made anew", identity)

    def _identify(self, partition: AssignedPartition, identity: str | None) -> None:
        partition.tracker.identity = identity
        if identity is not None:
            partition.replaces = self._identities.setdefault(partition.topic, identity) != identity

    def _on_revoke(self, _consumer: Consumer, revoked: list[KafkaTopicPartition]) -> None:
        self._on_leaving(revoked, self._tell_revoked, commit=True)

    def _on_lost(self, _consumer: Consumer, lost: list[KafkaTopicPartition]) -> None:
        self._on_leaving(lost, self._tell_lost)

    def _on_leaving(self, listed: list[KafkaTopicPartition], tell: OnPartitions, *, commit: bool = False) -> None:
        found = [self.partitions.get((each.topic, each.partition)) for each in listed]
        self._leave(tell, [partition for partition in found if partition is not None], commit=commit)
        # The errors of topics that have left altogether concern the next owners.
        for topic in {each.topic for each in listed} - {topic for topic, _ in self.partitions}:
            self._reported.answers(topic)

    def _enter(self, partitions: list[AssignedPartition]) -> None:
        self.partitions |= {each.topic_partition: each for each in partitions}
        self._unopened |= dict.fromkeys(partitions)
        if partitions:
            self._consumer.pause(_topic_partitions(partitions))
        self._tell_assigned(partitions)

    def _leave(self, callback: OnPartitions, partitions: list[AssignedPartition], *, commit: bool = False) -> None:
        self._rebalances += 1
        before, self.rebalancing = self.rebalancing, True
        for partition in partitions:
            partition.revoking = True
        try:
            if not self._closing:
                callback(partitions)
                if commit:
                    self.commit_now(partitions)
        finally:
            self.rebalancing = before
            for partition in partitions:
                partition.owned = False
                self._unopened.pop(partition, None)
                self._resting.discard(partition)
                self._unreadable.forget(partition)
                if self.partitions.get(partition.topic_partition) is partition:
                    del self.partitions[partition.topic_partition]

    def _on_statistics(self, document: str) -> None:
        if not self._closing:  # a question to the group would wait for an answer that no longer comes
            self.health.statistics(document, self.partitions, self._consumer)


def _topic_partitions(partitions: Iterable[AssignedPartition]) -> list[KafkaTopicPartition]:
    return [KafkaTopicPartition(*each.topic_partition) for each in partitions]
