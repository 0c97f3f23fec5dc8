"""The health of a member of the group: brokers, topics, and records that retention removed before they were read."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import orjson
import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError

from consumer.config.settings import KafkaSettings
from consumer.events.event import TopicPartition
from consumer.intake.positions import Ends
from consumer.intake.record import Partition
from consumer.kafka.client import OLD_BROKERS, Reachability, Reported

log = structlog.get_logger(__name__)

_WAITING = "waiting for the group to assign partitions"
_ACCEPTS = 15_000  # milliseconds; a coordinator accepts a member within one second
_NO_GENERATION = b"\xff\xff\xff\xff"  # -1, behind the seven bytes with which librdkafka's text of it begins
SAID_FOR = 60.0  # seconds that /readyz reports records removed unread
HELD_FOR = 30.0  # seconds; transactions take milliseconds to some seconds, and producers' default time-out is a minute


class SourceHealth:
    """Takes librdkafka's errors and statistics, and finds the fault for /readyz. Belongs to the loop's thread."""

    def __init__(self, kafka: KafkaSettings, first: int, clock: Callable[[], float]) -> None:
        """`first`: where partitions without a committed offset begin."""
        self.reachability = Reachability(kafka, clock)
        self.reported = Reported(kafka.group_id)
        self.overtaken = 0  # records that retention removed before they were read
        self._overtaken_until = clock()
        self._waits: str | None = _WAITING
        self._tells_all = kafka.properties.get("group.protocol") != "consumer"
        self._held: str | None = None
        self._first = first
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

    def statistics(self, document: str, partitions: Mapping[TopicPartition, Partition], consumer: Consumer) -> None:
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
                if each["consumer_lag"] >= 0:
                    partition.lag = each["consumer_lag"]
                overtaken[str(partition)] = partition.overtaken(each["lo_offset"], now)
                # Only while the end is read: a pause unsets `eof_offset`, and the other two keep old values.
                stable = each["ls_offset"]
                partition.holds_back(stable, each["hi_offset"] if 0 <= stable == each["eof_offset"] else stable, now)
        self._removed(overtaken)
        self._held = _held_back(partitions.values(), now)

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

    def ends(self, answers: list[tuple[Partition, Ends]]) -> None:
        """Take note of the first and the last offsets of newly owned partitions."""
        owned = [(partition, ends) for partition, ends in answers if partition.owned]
        if self._first == OFFSET_BEGINNING:
            new = {str(each): ends.end - ends.begin for each, ends in owned if each.tracker.committed is None}
            if new:
                log.info(
                    "nothing committed yet for these partitions: starting with their first record",
                    partitions=sorted(new),
                    records_to_send=sum(new.values()),
                )
        now = self._clock()
        self._removed({str(partition): partition.reaches(*ends, now) for partition, ends in owned})

    def _removed(self, partitions: Mapping[str, int]) -> None:
        """Log and count the records, by partition, that retention removed before they were read; 0 is allowed."""
        lost = {name: records for name, records in partitions.items() if records}
        if not lost:
            return
        records = sum(lost.values())
        log.error(
            "retention removed records before they were read; going on with the first that is left",
            records=records,
            partitions=lost,
        )
        self.overtaken += records
        self._overtaken_until = self._clock() + SAID_FOR


def _held_back(partitions: Iterable[Partition], now: float) -> str | None:
    """The fault of the partition whose records a transaction holds back for longest, if that is long."""
    held = [(each.held[2], str(each), each.held[1]) for each in partitions if each.held is not None]
    since, name, records = min(held, default=(now, "", 0))
    if now - since < HELD_FOR:
        return None
    return f"an open transaction has held back {records} records of {name} for {now - since:.0f} s"
