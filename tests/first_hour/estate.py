"""The rows of the first hour: many subscriptions, and deliveries as in an outage, which SQL copies."""

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from consumer.ledger import store, upkeep
from models import ParkedDelivery, Payload, Status, Subscription
from tests.first_hour.verdicts import PROGRESS, Finding, patient, unseen, view
from tests.ledger.rows_kit import GROUP, make_event, ordered, parked

RECEIVERS = range(1, 17)  # subscriptions, each with a sixteenth of the deliveries
CHUNK = 1000  # records of a statement, 16,000 rows: a call may take thirty seconds
ORDERED = 64  # deliveries of each receiver in partition 1, of as many ordering keys
TYPES, TENANTS = 1000, 100  # of subscriptions
ENDS = 10  # of so many records nine are delivered
TABLES = ("WEBHOOK_SUBSCRIPTIONS", "WEBHOOK_PAYLOADS", "WEBHOOK_DELIVERIES")


def subscribed(engine: Engine, rows: int) -> Iterator[Finding]:
    """So many subscriptions, of 1,000 event types and 100 tenants; the receivers are the first."""
    wanted, there = max(rows, RECEIVERS.stop), 0
    while there < wanted:
        more = min(10_000, wanted - there)
        with engine.begin() as connection:
            values = [
                {
                    "url": f"https://a.example/{at}",
                    "event_type": f"type.{at % TYPES}",
                    "tenant": f"tenant-{at % TENANTS}",
                }
                for at in range(there, there + more)
            ]
            connection.execute(sa.insert(Subscription), values)
        there += more
        if there % 100_000 == 0:
            yield Finding(PROGRESS, f"{there:,} of {wanted:,} subscriptions stored")


def filled(engine: Engine, rows: int) -> Iterator[Finding]:
    """Parked deliveries, sixteen of each record, and ordered ones in another partition."""
    wanted = max(1, rows // len(RECEIVERS))
    there = min(50, wanted)
    first = [parked(make_event(at), its, 1000.0 + at) for at in range(there) for its in RECEIVERS]
    store.park(engine, GROUP, first, 96.0)
    for its in RECEIVERS:
        in_order = [ordered(at, its, b"%d" % (at // 2), partition=1) for at in range(ORDERED)]
        store.park(engine, GROUP, in_order, 96.0)
    while there < wanted:
        more = min(there, wanted - there, CHUNK)
        with engine.begin() as connection:
            for table in (Payload.__table__, ParkedDelivery.__table__):
                connection.execute(_copying(table, more, there))
        there += more
        if there % (10 * CHUNK) < more:
            yield Finding(PROGRESS, f"{there * len(RECEIVERS):,} of {rows:,} deliveries stored")


def _copying(table: Any, below: int, by: int) -> sa.Insert:
    """Insert the rows below an offset again, with offsets that are larger by `by`."""
    columns = [column for column in table.columns if column.name != "id"]
    values = [column + by if column.name == "record_offset" else column for column in columns]
    of = table.c.group_id == GROUP, table.c.topic == "t", table.c.partition_no == 0, table.c.record_offset < below
    names = [column.name for column in columns]
    return sa.insert(table).from_select(names, sa.select(*values).where(*of), include_defaults=False)


def with_statistics(engine: Engine) -> Iterator[Finding]:
    """Gather statistics of the tables, and say how large each index is."""
    with patient(engine) as connection:
        for table in TABLES:
            try:
                connection.exec_driver_sql(f"BEGIN DBMS_STATS.GATHER_TABLE_STATS(USER, '{table}'); END;")
            except DBAPIError as error:
                yield unseen(f"statistics of {table}", error)
    what = "the state of the indexes"
    found = view(
        engine,
        what,
        "SELECT index_name, blevel, leaf_blocks, num_rows, status FROM user_indexes"
        " WHERE table_name = 'WEBHOOK_DELIVERIES' ORDER BY index_name",
    )
    if isinstance(found, Finding):
        yield found
        return
    for name, levels, leaves, entries, status in found:
        yield Finding(PROGRESS, f"{what}: {name} {status}, {levels} levels, {leaves} leaves, {entries} entries")


def pruned(engine: Engine, rows: int) -> Iterator[Finding]:
    """Nine of ten records are delivered, and the service deletes their rows."""
    delivery, records = ParkedDelivery, max(1, rows // len(RECEIVERS))
    ended = delivery.group_id == GROUP, delivery.topic == "t", delivery.partition_no == 0
    step = min(CHUNK, records)
    for start in range(0, records, step):
        these = delivery.record_offset.between(start + step // ENDS, start + step - 1)
        with engine.begin() as connection:
            connection.execute(sa.update(delivery).where(*ended, these).values(status=Status.DELIVERED))
    gone = 0
    while number := upkeep.prune(engine, GROUP, "t", 0, records):
        gone += number
        if gone % 100_000 < number:
            yield Finding(PROGRESS, f"{gone:,} delivered rows deleted")
