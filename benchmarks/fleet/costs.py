"""Unit costs, each measured on one machine: 2 cores, Intel(R) Xeon(R), 24 GiB, Linux 6.18, Python 3.11.7, SQLite."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Costs:
    """The CPU time that one thing costs a worker, or the statements that it costs the database.

    `measure` is `python -m benchmarks.fleet.measure`, which prints it. CPU of statements holds SQLite's own work.
    """

    # CPU, µs
    delivery: float = 33.0  # `python -m benchmarks.throughput`: one worker, kept connections, 450 bytes
    each_open: float = 0.007  # of each delivery, for each request open: docs/performance.md, 256 to 8,000 open
    connection: float = 70.0  # to open one, plain: `measure`
    tls: float = 960.0  # to open one with TLS 1.3, certificate verified: `measure`
    tls_resumed: float = 740.0  # the same with a session that is resumed: `measure`
    lookup: float = 790.0  # a statement that asks for one key: `measure`
    lookup_key: float = 33.0  # each key more in it: `measure`
    row_stored: float = 70.0  # in batches of 500: `measure`, `python -m benchmarks.parking`
    row_settled: float = 26.0  # the same
    row_taken_up: float = 71.0  # 500 rows of 20 heads: `measure`
    statement: float = 520.0  # one of the four of a look that takes up one row: `measure`

    # memory
    worker_mib: float = 123.0  # `make compare`: one worker, 256 slots, plain
    open_kib: float = 4.9  # a request that is open: `python -m benchmarks.in_flight 4000 3000`, above a worker's
    tls_kib: float = 46.0  # a TLS connection: 2,000 kept ones of one process, its USS before and after
    endpoint_kib: float = 0.78  # a subscription in the cache: `python -m benchmarks.lookups`
    lane_kib: float = 3.0  # a lane with its prepared request: consumer/delivery/lanes.py, IDLE_LANES
    session_kib: float = 5.5  # a TLS session that is kept: consumer/sending/tls.py, 3 to 8 KB

    # statements, all counted by `measure`; `tests/benchmarks/test_fleet.py` counts them again
    lookup_statements: int = 1
    store_statements: int = 2  # a transaction: payloads, deliveries,
    store_partition_statements: int = 1  # and for each partition one that asks which payloads are there
    result_first_statements: int = 1  # a transaction whose results are of untried rows,
    result_statements: int = 1  # and for each outcome (delivered, again) in it
    fetch_statements: int = 3  # a look that finds rows: subscriptions, rows, events,
    fetch_key_statements: int = 1  # and for each head
    marks_statements: int = 1  # a poll for marks
    scan_statements: int = 1  # a walk's first question, whether anything waits at all
    seek_statements: int = 1  # each head, and each partition's end, that a walk comes to
    find_statements: int = 2  # the partitions of a topic asked for rows and marks, where none has any,
    find_partition_statements: int = 1  # and for each that has
    repair_statements: int = 4  # a partition's keys put in order, where nothing is astray
    prune_statements: int = 2  # a partition's delivered rows and marks looked for,
    prune_found_statements: int = 2  # and a transaction that deletes a thousand of them
    topics_statements: int = 4  # which topics have rows, where none has,
    topics_found_statements: int = 1  # and more for each topic and state
    reconcile_statements: int = 2  # two hundred subscriptions compared with their rows,
    reconcile_seek_statements: int = 1  # and for each subscription that has rows
    expire_statements: int = 2  # old operational events and old marks
    count_statements: int = 1  # how much waits, of each partition
    relay_statements: int = 1  # a look for operational events
    assigned_statements: int = 2  # what is stored of a partition that comes


MEASURED = Costs()
ROUND_TRIP = 0.001  # seconds of a statement over a network: assumed; no Oracle was measured
MIB = 1024.0  # KiB
