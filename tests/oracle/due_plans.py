"""The last part of `make first-hour`: judges plans and logical reads of the statements for due rows on a real server.

python -m tests.oracle.due_plans [ROWS]

ORACLE_URL names a user with an empty schema, and none of the tables is left. ROWS (a million) is the number of
deliveries. The exit status is 1 if a verdict is `look at this`, and 2 if nothing was tried.
"""

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from consumer.database import charset, migrations
from consumer.database.engine import ping, place_of
from consumer.database.errors import line
from consumer.errors import WebhooksError
from consumer.events.event import TopicPartition
from consumer.ledger import assigned, due, store
from models import ParkedDelivery, Payload
from tests.crypto.vaults import in_the_clear
from tests.databases import connect_to
from tests.ledger.rows_kit import DEFAULT, GROUP, PLACES, make_event, parked
from tests.oracle.oracle_databases import OURS, tables_of

ROWS = 1_000_000
RECEIVERS = range(1, 17)  # subscriptions, each with a sixteenth of the rows
CHUNK = 1000  # records of a statement, 16,000 rows: a call may take thirty seconds
OK, LOOK, NOT_SEEN = "ok", "look at this", "not seen"
MOST_READS = 400  # blocks: a few for each due key, and those of the returned rows. A bad plan reads thousands
_WRONG = re.compile(r"(?<!NO)SORT(?! AGGREGATE)|TABLE ACCESS (?:STORAGE )?FULL|INDEX (?:FAST )?FULL SCAN(?! \(MIN)")
_PLAN = "SELECT plan_table_output FROM TABLE(DBMS_XPLAN.DISPLAY(format => 'BASIC'))"
_READS = (
    "SELECT s.value FROM v$mystat s JOIN v$statname n ON n.statistic# = s.statistic#"
    " WHERE n.name = 'session logical reads'"
)


class Finding(NamedTuple):
    """A verdict (OK, LOOK or NOT_SEEN; another word is progress), and what it is about."""

    verdict: str
    text: str


class Sent(NamedTuple):
    """A statement as the driver gets it, with its first binds."""

    sql: str
    binds: Mapping[str, Any]


def judged(is_right: bool, right: str, wrong: str) -> Finding:  # noqa: FBT001 (a condition, as in `if`)
    """OK or LOOK."""
    return Finding(OK, right) if is_right else Finding(LOOK, wrong)


def looked_at(engine: Engine, places: Sequence[TopicPartition]) -> Iterator[Finding]:
    """Verdicts of each statement for due rows of these partitions."""
    for name, sent in statements(engine, places).items():
        with engine.connect() as connection:
            try:
                connection.exec_driver_sql(f"EXPLAIN PLAN FOR {with_literals(sent)}")
                yield judge_plan(name, "\n".join(map(str, connection.exec_driver_sql(_PLAN).scalars())))
            except DBAPIError as error:
                yield Finding(NOT_SEEN, f"{name}: its plan: {line(error)}")
            yield _read(name, connection, sent)


def statements(engine: Engine, places: Sequence[TopicPartition]) -> Mapping[str, Sent]:
    """The statements of `scan` and `fetch` that read deliveries and nothing else, by name."""
    found: dict[str, Sent] = {}
    sender = "scan"

    def note(_: Connection, __: object, sql: str, binds: Any, ___: object, ____: object) -> None:
        alone = "webhook_deliveries" in sql and "webhook_payloads" not in sql
        if alone and sql not in (each.sql for each in found.values()):
            found[f"{sender}, statement {len(found) + 1}"] = Sent(sql, binds)

    event.listen(engine, "before_cursor_execute", note)
    try:
        keys = assigned.scan(engine, GROUP, places, None).due_keys
        wants = [due.FetchRequest(key, 10, frozenset()) for key in keys]
        sender = "fetch"
        due.fetch(engine, GROUP, wants, 9e9, default_secrets=DEFAULT, decrypt=in_the_clear)
    finally:
        event.remove(engine, "before_cursor_execute", note)
    return found


def with_literals(sent: Sent) -> str:
    """The statement with its binds as literals: EXPLAIN PLAN takes each bind for text, and peeks at none."""

    def literal(found: re.Match[str]) -> str:
        value = sent.binds.get(found[1], found)
        if isinstance(value, datetime):
            return f"TIMESTAMP '{value:%Y-%m-%d %H:%M:%S.%f}'"
        if isinstance(value, str):
            return "'" + value.replace("'", "''") + "'"
        return "NULL" if value is None else found[0] if value is found else str(value)

    return re.sub(r":(\w+)", literal, sent.sql)


def judge_plan(name: str, plan: str) -> Finding:
    """The verdict of a plan's text: index range scans that stop at the first or last rows, and no sort or full scan."""
    wrong = sorted(set(_WRONG.findall(plan)))
    if "INDEX RANGE SCAN" not in plan or not re.search(r"STOPKEY|\(MIN/MAX\)", plan):
        wrong.append("no index range scan that stops")
    remedy = "docs/database.md, Inspecting plans, has the remedies"
    return judged(not wrong, f"{name}: an index range scan that stops", f"{name}: {', '.join(wrong)}; {remedy}\n{plan}")


def _read(name: str, connection: Connection, sent: Sent) -> Finding:
    """The verdict of the blocks that the statement reads."""
    connection.exec_driver_sql(*sent).all()  # parsing reads blocks of the dictionary
    try:
        before = connection.exec_driver_sql(_READS).scalar_one()
    except DBAPIError as error:
        return Finding(NOT_SEEN, f"{name}: its logical reads: {line(error)}")
    connection.exec_driver_sql(*sent).all()
    number = connection.exec_driver_sql(_READS).scalar_one() - before
    text = f"{name}: {number} logical reads"
    return judged(number <= MOST_READS, text, f"{text}; {MOST_READS} would do for the rows that it returns")


def look(engine: Engine, rows: int) -> Iterator[Finding]:
    """The verdicts of the character set and, on many rows and with statistics of them, of the plans."""
    lacks = charset.shortcoming(engine)
    yield judged(lacks is None, "the character set holds all values", lacks or "")
    yield from filled(engine, rows)
    with _patient(engine) as connection:
        for table in ("WEBHOOK_PAYLOADS", "WEBHOOK_DELIVERIES"):
            try:
                connection.exec_driver_sql(f"BEGIN DBMS_STATS.GATHER_TABLE_STATS(USER, '{table}'); END;")
            except DBAPIError as error:
                yield Finding(NOT_SEEN, f"plans with statistics of {table}: {line(error)}")
    yield from looked_at(engine, PLACES)


def filled(engine: Engine, rows: int) -> Iterator[Finding]:
    """Parked deliveries, sixteen of each record, as in an outage. The service stores the first, and SQL copies them."""
    wanted = max(1, rows // len(RECEIVERS))
    there = min(50, wanted)
    first = [parked(make_event(at), its, 1000.0 + at) for at in range(there) for its in RECEIVERS]
    store.park(engine, GROUP, first, 96.0)
    while there < wanted:
        more = min(there, wanted - there, CHUNK)
        with engine.begin() as connection:
            for table in (Payload.__table__, ParkedDelivery.__table__):
                connection.execute(_copying(table, more, there))
        there += more
        if there % (10 * CHUNK) < more:
            yield Finding("…", f"{there * len(RECEIVERS):,} of {rows:,} deliveries stored")


def _copying(table: Any, below: int, by: int) -> sa.Insert:
    """Insert the rows below an offset again, with offsets that are larger by `by`."""
    columns = [column for column in table.columns if column.name != "id"]
    values = [column + by if column.name == "record_offset" else column for column in columns]
    of = table.c.group_id == GROUP, table.c.topic == "t", table.c.partition_no == 0, table.c.record_offset < below
    names = [column.name for column in columns]
    return sa.insert(table).from_select(names, sa.select(*values).where(*of), include_defaults=False)


@contextmanager
def _patient(engine: Engine) -> Iterator[Connection]:
    """A connection whose calls may take any time; it does not return to the pool."""
    with engine.connect() as connection:
        session: Any = connection.connection.driver_connection
        session.call_timeout = 0
        connection.detach()
        yield connection


def main(url: str, rows: int, say: Callable[[str], None]) -> int:
    """Look at the server of a URL. The exit status."""
    try:
        engine = connect_to(url)
        ping(engine)
    except (SQLAlchemyError, WebhooksError, ValueError) as error:
        say(f"ORACLE_URL: {line(error)}")
        return 2
    if engine.dialect.name != "oracle" or tables_of(engine):
        say("ORACLE_URL has to name an Oracle server, and a user without tables: this program drops the service's.")
        engine.dispose()
        return 2
    say(f"{place_of(engine)}, {rows:,} deliveries")
    sound = True
    try:
        migrations.upgrade(engine)
        for verdict, text in look(engine, rows):
            sound = sound and verdict != LOOK
            say(f"{verdict}: {text}".replace("\n", "\n    "))
    finally:
        with _patient(engine) as connection:
            for name in sorted(OURS & tables_of(engine)):
                connection.exec_driver_sql(f"DROP TABLE {name} CASCADE CONSTRAINTS PURGE")
        engine.dispose()
    return 0 if sound else 1


if __name__ == "__main__":
    number = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    sys.exit(main(os.environ.get("ORACLE_URL", ""), number, lambda text: print(text, flush=True)))  # noqa: T201 (a program)
