"""librdkafka's consumer as a member of the group: its configuration, its health, and how it leaves without hanging."""

import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import orjson
import structlog
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, OFFSET_INVALID, Consumer, KafkaError, KafkaException

from consumer.config.settings import KafkaSettings
from consumer.events.event import TopicPartition
from consumer.intake.record import AssignedPartition
from consumer.intake.topics import hidden
from consumer.kafka.client import OLD_BROKERS, Reachability, Reported, client_properties

log = structlog.get_logger(__name__)

_OVERTOOK = "retention removed records before they were read; going on with the first that is left"
_QUIET = 0.05  # after so many seconds without a rebalance, none is due
_DROPPED = 1000  # records that one call discards; the partitions' next owners read them
_NOT_OF_KIP_848 = ("session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy")

_WAITING = "waiting for the group to assign partitions"
_ACCEPTS = 15_000  # milliseconds; a coordinator accepts a member within one second
_NO_GENERATION = b"\xff\xff\xff\xff"  # -1, behind the seven bytes with which librdkafka's text of it begins
SAID_FOR = 60.0  # seconds that /readyz reports records removed unread
HELD_FOR = 30.0  # seconds; transactions take milliseconds to some seconds, and producers' default time-out is a minute

_DEFAULTS: dict[str, Any] = {
    "client.id": "kafka-webhooks",
    # A new partition must not lose its first events.
    "auto.offset.reset": "earliest",
    "partition.assignment.strategy": "cooperative-sticky",
    # A new topic that matches a pattern is consumed within this time.
    "topic.metadata.refresh.interval.ms": 30_000,
    # Prefetch. At 40,000 records/s, 2,000 are consumed between two fetches 50 ms apart, so 5,000 suffice. Events of 450
    # bytes then take 2 MB; larger ones stop at 16 MiB for all partitions together. No more, because pausing discards
    # prefetched records.
    "queued.min.messages": 5_000,
    "queued.max.messages.kbytes": 16_384,
    "fetch.queue.backoff.ms": 50,
    # An unreadable batch is skipped record by record, with this wait before each.
    "fetch.error.backoff.ms": 100,
    "statistics.interval.ms": 1_000,
}
_FIXED: dict[str, Any] = {
    "enable.auto.commit": False,
    # Otherwise lag would count records in flight as done.
    "enable.auto.offset.store": False,
    "isolation.level": "read_committed",
    # An ordered row may wait for a record that never comes: see AssignedPartition.passed.
    "enable.partition.eof": True,
}
_FIRST = {
    **dict.fromkeys(("smallest", "earliest", "beginning"), OFFSET_BEGINNING),
    **dict.fromkeys(("largest", "latest", "end"), OFFSET_END),
}


def consumer_config(kafka: KafkaSettings, topics: Collection[str]) -> dict[str, Any]:
    """The consumer's configuration: defaults, then users' properties, then the settings that the guarantee needs."""
    properties = client_properties(kafka, warns=True)
    defaults = dict(_DEFAULTS)
    if properties.get("group.protocol") == "consumer":
        for name in _NOT_OF_KIP_848:
            defaults.pop(name, None)
            properties.pop(name, None)
    # librdkafka treats these topics as absent, so no pattern matches them.
    properties.pop("topic.blacklist", None)
    return {
        **defaults,
        **properties,
        **_FIXED,
        "topic.blacklist": ",".join(hidden(kafka, topics)),
        "bootstrap.servers": kafka.bootstrap_servers,
        "group.id": kafka.group_id,
    }


def first_offset(config: Mapping[str, Any]) -> int:
    """The logical offset where a partition without a committed one begins; `config` is from `consumer_config`.

    OFFSET_INVALID has librdkafka apply auto.offset.reset itself, and is used only where that is `error`: if the
    partition is resumed before its leader has answered, librdkafka asks twice, and at the second answer it goes back
    or skips the records that have come since the first.
    """
    return _FIRST.get(config["auto.offset.reset"], OFFSET_INVALID)


class SourceHealth:
    """Takes librdkafka's errors and statistics, and finds the fault for /readyz. Belongs to the loop's thread."""

    def __init__(self, kafka: KafkaSettings, clock: Callable[[], float]) -> None:
        self.reachability = Reachability(kafka, clock)
        self.reported = Reported(kafka.group_id)
        self.overtaken = 0  # records that retention removed before they were read
        self._overtaken_until = clock()
        self._waits: str | None = _WAITING
        self._tells_all = kafka.properties.get("group.protocol") != "consumer"
        self._held: str | None = None
        self._new: dict[AssignedPartition, int | None] = {}  # without a committed offset: their records, once known
        self._clock = clock

    @property
    def of_kafka(self) -> str | None:
        """The fault of this client, of brokers, of topics or of the group."""
        if self.reported.fatal is not None:
            return str(self.reported.fatal)
        return self.reachability.fault or self.reported.fault or self._waits

    @property
    def of_records(self) -> str | None:
        """A recent removal of unread records by retention, or a transaction that holds records back for long."""
        if self._clock() < self._overtaken_until:
            return f"retention removed {self.overtaken} records before they were read"
        return self._held

    def assigned(self) -> None:
        """Note that the group has assigned partitions, or none."""
        self._waits = None
        self.reachability.coordinated()

    def error(self, error: KafkaError) -> None:
        """Take note of an error from librdkafka's `error_cb`."""
        if error.fatal():
            self.reported.error(None, error)
        else:
            self.reachability.error(error)

    def statistics(
        self, document: str, partitions: Mapping[TopicPartition, AssignedPartition], consumer: Consumer
    ) -> None:
        """Take note of one statistics document of `consumer`.

        It has the lag of the owned `partitions`, the start of their logs, and the state of the group.
        """
        statistics = orjson.loads(document)
        self.reachability.statistics(statistics)
        self.reported.statistics(statistics)
        if self._waits is not None and not self._tells_all:
            self._look_for_membership(statistics["cgrp"], consumer)
        overtaken, now = {}, self._clock()
        for topic, details in statistics["topics"].items():
            for number, each in details["partitions"].items():
                partition = partitions.get((topic, int(number)))
                if partition is None:
                    continue
                begin, stable = each["lo_offset"], each["ls_offset"]
                if each["consumer_lag"] >= 0:
                    partition.lag = each["consumer_lag"]
                elif begin >= 0 <= stable:  # nothing was read yet
                    partition.lag = max(0, stable - max(begin, partition.tracker.position))
                partition.log = (begin, max(stable, partition.log[1]))  # lower: of a topic that was made anew just now
                partition.ends_at(stable, now)
                overtaken[str(partition)] = partition.overtaken(begin, now)
                if partition in self._new and 0 <= begin <= stable:
                    self._new[partition] = stable - begin
                # Only while the end is read: a pause unsets `eof_offset`, and the other two keep old values.
                partition.holds_back(stable, each["hi_offset"] if 0 <= stable == each["eof_offset"] else stable, now)
        self._removed(overtaken, _OVERTOOK)
        if any(overtaken.values()):
            self._overtaken_until = now + SAID_FOR
        self._say_new()
        self._held = _held_back(partitions.values(), now)

    def begun(self, partitions: Iterable[AssignedPartition]) -> None:
        """The group has committed nothing for these: the log says how many records it will send."""
        self._new |= dict.fromkeys(partitions)

    def _say_new(self) -> None:
        """Log the partitions that begin, once the statistics have the ends of all their logs."""
        self._new = {partition: records for partition, records in self._new.items() if partition.owned}
        counts = [records for records in self._new.values() if records is not None]
        if self._new and len(counts) == len(self._new):
            log.info(
                "nothing committed yet for these partitions: starting with their first record",
                partitions=sorted(map(str, self._new)),
                records_to_send=sum(counts),
            )
            self._new = {}

    def _look_for_membership(self, group: Mapping[str, Any], consumer: Consumer) -> None:
        """Whether the group has accepted this member: with KIP-848, one without partitions is not told.

        librdkafka finds the coordinator of brokers without KIP-848, asks it nothing, and reports no error.
        """
        if consumer.consumer_group_metadata()[7:11] != _NO_GENERATION:
            self._waits = None
        elif self._waits == _WAITING and group["state"] == "up" and group["stateage"] > _ACCEPTS:
            self._waits = (
                f"the group does not accept this worker; if its brokers are older than Kafka 4.0, {OLD_BROKERS}"
            )
            log.warning("the group does not accept this worker", seconds=_ACCEPTS / 1000, advice=OLD_BROKERS)

    def made_anew(self, partition: AssignedPartition, former_end: int) -> None:
        """The topic was deleted with the records from the position of its `partition` to there, and open ones."""
        records = former_end - partition.position + partition.tracker.open
        self._removed({str(partition): records}, "a topic was deleted before all of its records were settled")

    def _removed(self, partitions: Mapping[str, int], event: str) -> None:
        """Log and count the records, by partition, that Kafka removed before they were read; 0 is allowed."""
        lost = {name: records for name, records in partitions.items() if records}
        if not lost:
            return
        records = sum(lost.values())
        log.error(event, records=records, partitions=lost)
        self.overtaken += records


def _held_back(partitions: Iterable[AssignedPartition], now: float) -> str | None:
    """The fault of the partition whose records a transaction holds back for longest, if that is long."""
    held = [(each.held[2], str(each), each.held[1]) for each in partitions if each.held is not None]
    since, name, records = min(held, default=(now, "", 0))
    if now - since < HELD_FOR:
        return None
    return f"an open transaction has held back {records} records of {name} for {now - since:.0f} s"


def leave(consumer: Consumer, rebalances: Callable[[], int], *, static: bool) -> None:
    """Leave the group and close the consumer; returns when both are done.

    `rebalances` counts the calls of the consumer's rebalance callbacks. A `static` member (it has a group.instance.id)
    closes without leaving: its partitions wait for it.

    If the group assigns partitions to a member while it closes, librdkafka waits for ever, holding the GIL, so that no
    watchdog written in Python notices (librdkafka's issue 4884; measured with an assignment due: 2 of 220 closings).
    So the consumer unsubscribes first, and takes and gives back any due assignment before it closes.
    """
    if not static:
        try:
            consumer.unsubscribe()
        except (KafkaException, RuntimeError):  # after a fatal error, or once closed, there is no group to leave
            consumer.close()
            return
    while True:
        before = rebalances()
        consumer.consume(_DROPPED, _QUIET)
        if rebalances() == before and (static or not consumer.assignment()):
            break
    consumer.close()


def within(seconds: float, name: str, call: Callable[[], object]) -> bool:
    """Run a call that has no time limit of its own in a thread; the consumer's owner waits and makes no other call.

    False if the call has not ended after `seconds`: it is left to end by itself.
    """
    thread = threading.Thread(target=call, name=name, daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()
