"""Unit costs, each measured on one machine: 2 cores, Intel(R) Xeon(R), 24 GiB, Linux 6.18, Python 3.11.7, SQLite."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Costs:
    """The CPU time of each operation of a worker, or its number of statements.

    `measure` is `python -m benchmarks.fleet.measure`, which prints it. CPU of statements includes SQLite's own work.
    """

    # CPU, µs
    delivery: float = 33.0  # `python -m benchmarks.throughput`: one worker, kept connections, 450 bytes
    each_open: float = 0.007  # of each delivery, for each open request: docs/performance.md, 256 to 8,000 open
    connection: float = 70.0  # to open a plain connection: `measure`
    tls: float = 960.0  # to open one with TLS 1.3 and a verified certificate: `measure`
    tls_resumed: float = 740.0  # to open one with a resumed TLS session: `measure`
    lookup: float = 790.0  # a statement with one key: `measure`
    lookup_key: float = 33.0  # each further key: `measure`
    row_stored: float = 70.0  # in batches of 500: `measure`, `python -m benchmarks.parking`
    row_settled: float = 26.0  # the same
    row_taken_up: float = 71.0  # 500 rows of 20 due keys: `measure`
    record_read: float = 7.2  # a record that a cursor's pass reads: `measure`
    statement: float = 520.0  # one of the four statements that fetch one row: `measure`

    # memory
    worker_mib: float = 123.0  # `make compare`: one worker, 256 slots, plain
    open_kib: float = 4.9  # an open request: `python -m benchmarks.in_flight 4000 3000`, above a worker's memory
    tls_kib: float = 46.0  # a TLS connection: USS of a process before and after it opened 2,000
    endpoint_kib: float = 0.78  # a subscription in the cache: `python -m benchmarks.lookups`
    lane_kib: float = 3.0  # a lane with its prepared request: consumer/delivery/lanes.py, IDLE_LANES
    session_kib: float = 5.5  # a cached TLS session: consumer/sending/tls.py, 3 to 8 KB

    # statements, all counted by `measure`; `tests/benchmarks/test_fleet.py` counts them again
    lookup_statements: int = 1
    store_statements: int = 2  # a transaction: payloads, deliveries,
    store_partition_statements: int = 1  # and for each partition one for stored payloads
    result_statements: int = 1  # for each outcome (delivered, retried) in a transaction
    fetch_statements: int = 3  # a fetch that finds rows: subscriptions, rows, events,
    fetch_part_statements: int = 1  # and for each PARTS due keys
    marks_statements: int = 1  # a poll for marks
    scan_statements: int = 1  # a scan's first statement: is any row parked?
    scan_topic_statements: int = 1  # if one is, for each topic,
    scan_partition_statements: int = 1  # for each partition with due keys that a step reaches,
    scan_part_statements: int = 1  # and for each PARTS due keys
    find_statements: int = 3  # finding partitions of a topic with rows, marks or cursors, if none has any,
    find_partition_statements: int = 1  # and for each that has some
    repair_statements: int = 4  # repairing a partition's keys, if all are in order
    prune_statements: int = 3  # finding a partition's delivered rows, marks and finished cursors,
    prune_found_statements: int = 2  # and a transaction that deletes a thousand
    topics_statements: int = 5  # finding topics with rows or cursors, if none has any,
    topics_found_statements: int = 1  # and for each topic and state
    reconcile_statements: int = 2  # comparing SEEKS subscriptions with their rows,
    reconcile_leap_statements: int = 1  # and finding them
    expire_statements: int = 2  # expiring operational events and marks
    count_statements: int = 3  # finding the next partition with rows or cursors, and counting its waiting rows
    relay_statements: int = 1  # a query for operational events
    cursor_begun_statements: int = 2  # a transaction that begins cursors
    cursor_saved_statements: int = 1  # one that saves positions
    cursor_look_statements: int = 2  # a look at cursors: their rows and subscriptions,
    cursor_new_statements: int = 1  # and stored deliveries of new ones
    assigned_statements: int = 3  # reading a newly assigned partition's stored deliveries and cursors


MEASURED = Costs()
ROUND_TRIP = 0.001  # seconds of a statement over a network: assumed, not measured on Oracle
MIB = 1024.0  # KiB
