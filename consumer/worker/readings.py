"""Reads the gauges of a worker at the moment of a scrape, from another thread than the loop's."""

from collections.abc import Iterable
from itertools import islice

from consumer.events.event import TopicPartition
from consumer.intake.record import Partition
from consumer.telemetry.logs import LogFile
from consumer.telemetry.metrics import LoopLag, Readings
from consumer.worker.parts import Parts

MOST_SHOWN = 20  # failing subscriptions that have a metric each


def readings(parts: Parts, lag: LoopLag, turn_age: float, *, ready: bool, clock: float, monotonic: float) -> Readings:
    """The values now: `clock` in unix seconds, `monotonic` on the loop's clock; the last turn is `turn_age` old."""
    owned = list(parts.source.partitions.values())
    next_at, failing = parts.parking.due_keys.next_at, parts.failing.failing_since(clock)
    return Readings(
        in_flight=parts.lanes.slots.in_flight,
        parked=parts.maintenance.parked,
        breaker_open=parts.maintenance.breakers_open,
        set_aside=parts.parking.set_aside,
        expressions_left_out=len(parts.budget),
        commits=parts.source.commits_total,
        connections_opened=parts.transport.connections_opened,
        retention_overtaken=parts.source.overtaken_total,
        lag={each.topic_partition: each.lag for each in owned if each.lag is not None},
        held_back={each.topic_partition: each.held[1] if each.held else 0 for each in owned if each.lag is not None},
        attempts_dropped=0 if parts.attempt_log is None else parts.attempt_log.dropped,
        log_lines_dropped=LogFile.dropped,
        oldest_unsettled=_ages(owned, clock),
        next_attempt=None if next_at is None else max(0.0, next_at - clock),
        failing=len(failing),
        failing_longest={key: max(0.0, clock - since) for key, since in islice(failing.items(), MOST_SHOWN)},
        certificates={
            (expiry.subscription_id, expiry.part): expiry.not_after.timestamp() - clock
            for expiry in parts.housekeeping.expiring
        },
        queue_ages={
            queue: 0.0 if since is None else max(0.0, monotonic - since)
            for queue, since in (
                ("inbox", parts.inbox.oldest),
                ("lanes", parts.lanes.oldest),
                ("storing", parts.parking.oldest),
            )
        },
        database_seconds={thread.name: thread.seconds for thread in parts.threads},
        database_errors={thread.name: thread.errors for thread in parts.threads},
        database_backoff={
            "lookups": parts.catalog.backoff,
            "storing": parts.parking.write_backoff,
            "loading": parts.parking.read_backoff,
            "taking-up": parts.recall.backoff,
            "notes": parts.notes.backoff,
            "housekeeping": parts.housekeeping.backoff,
        },
        loop_lag=lag,
        turn_age=turn_age,
        ready=ready,
    )


def _ages(partitions: Iterable[Partition], clock: float) -> dict[TopicPartition, float]:
    """Seconds since the timestamp of each partition's first unsettled record; 0 if all are settled."""
    ages: dict[TopicPartition, float] = {}
    for partition in partitions:
        timestamp = partition.tracker.oldest_timestamp
        if timestamp is None:
            ages[partition.topic_partition] = 0.0
        elif timestamp >= 0:
            ages[partition.topic_partition] = max(0.0, clock - timestamp / 1000)
    return ages
