"""`make first-hour`: the four things to look at first on a real Oracle server, each with a verdict.

python -m tests.oracle.first_hour [ROWS]

ORACLE_URL names a user with an empty schema: each step makes the tables anew, and none is left. ROWS (a million) is the
number of deliveries for the steps that need many. docs/database.md says why these four things are in doubt. The exit
status is 1 if a verdict is `look at this`, and 2 if nothing was tried.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from consumer.database import migrations
from consumer.database.engine import ping, place_of
from consumer.database.errors import line
from consumer.errors import WebhooksError
from consumer.ledger import assigned, store
from consumer.ledger.rows import AttemptFailure, AttemptResult
from consumer.ops.check import check_all
from consumer.subscriptions import repository
from models import ParkedDelivery, Payload
from tests.databases import connect_to, url_of
from tests.ledger.rows_kit import GROUP, PLACES, URL, find, make_event, ordered, parked, query, result, run, states
from tests.oracle.due_plans import LOOK, NOT_SEEN, OK, Finding, judged, looked_at
from tests.oracle.oracle_databases import OURS

ROWS = 1_000_000
RECEIVERS = range(1, 17)  # subscriptions, each with a sixteenth of the rows
CHUNK = 1000  # records of a statement, 16,000 rows: a call may take thirty seconds
KIND = "заказ.✓"
_CHARACTERS = "SELECT value FROM nls_database_parameters WHERE parameter = 'NLS_CHARACTERSET'"
Findings = Iterator[Finding]


def keys_in_order(engine: Engine, _: int) -> Findings:
    """Store and end deliveries of an ordering key: COALESCE takes a column and a bind of the same type alone."""
    subscription = repository.add(engine, URL, "user.created", "secret", ordering="key")
    store.park(engine, GROUP, [ordered(offset, subscription) for offset in range(3)], 96.0)
    is_right = (found := states(engine)) == {0: "parked", 1: "blocked", 2: "blocked"}
    yield judged(is_right, "three deliveries of a key stored, the first of them due", f"the states are {found}")
    run(engine, "UPDATE webhook_deliveries SET next_attempt_at = NULL WHERE status = 'blocked'")
    store.record(engine, GROUP, [result(find(engine)[0], "delivered")])
    found, at = states(engine), assigned.scan(engine, GROUP, PLACES, None).due_keys
    is_right = found == {0: "delivered", 1: "parked", 2: "blocked"} and at == {("t", 0, subscription): 2000.0}
    yield judged(is_right, "the first ended, and the next is due at that second", f"states {found}, due at {at}")


def large_values(engine: Engine, _: int) -> Findings:
    """Store an answer of 1,500 characters, whose bind is declared above 4,000 bytes, and a body of 40,000 bytes."""
    subscription = repository.add(engine, URL, "user.created", "secret")
    failure = AttemptFailure("status 503", 503, "<" * 1500, 95.0)
    event = make_event(1, body=bytes(40_000), headers={"h": b"v" * 5000})
    large = parked(event, subscription, first=failure, last=failure, url="https://example.com/" + "p" * 2000)
    store.park(engine, GROUP, [parked(make_event(2), subscription, 9e9, attempt=0), large], 96.0)
    (row,) = find(engine)
    is_right = (row.last, row.event.body, row.event.headers) == (failure, event.body, event.headers)
    yield judged(is_right, "answer, url, headers and body are stored, and read as they were", "a value has changed")
    again = failure._replace(response=">" * 1500)
    store.record(engine, GROUP, [AttemptResult(row.id, 1, "parked", 300.0, 503, again, 200.0)])
    is_right = (last := find(engine)[0].last) is not None and last.response == again.response
    yield judged(is_right, "another answer of that length replaces it", "the second answer has changed")


def due_plans(engine: Engine, rows: int) -> Findings:
    """Explain and run the statements for due rows, on many rows and with statistics of them."""
    yield from _filled(engine, rows)
    with _patient(engine) as connection:
        for table in ("WEBHOOK_PAYLOADS", "WEBHOOK_DELIVERIES"):
            try:
                connection.exec_driver_sql(f"BEGIN DBMS_STATS.GATHER_TABLE_STATS(USER, '{table}'); END;")
            except DBAPIError as error:
                yield Finding(NOT_SEEN, f"plans with statistics of {table}: {line(error)}")
    yield from looked_at(engine, PLACES)


def other_characters(engine: Engine, _: int) -> Findings:
    """Store a type that the database's character set may lack: it is kept, or refused, and never replaced."""
    refusal = ""
    try:
        found = query(engine, _CHARACTERS)[0][0]
        yield Finding(OK, f"the character set is {found}" + (": it holds all values" if found == "AL32UTF8" else ""))
    except DBAPIError as error:
        yield Finding(NOT_SEEN, f"the character set: {line(error)}")
    try:
        store.park(engine, GROUP, [parked(make_event(1)._replace(type=KIND), 1)], 96.0)
    except (ValueError, WebhooksError) as error:
        refusal = line(error)
    stored = [row[0] for row in query(engine, "SELECT event_type FROM webhook_payloads")]
    if stored == [KIND]:
        yield Finding(OK, f"the type {KIND} is stored, and read as it was")
        return
    yield judged(not stored, f"{KIND} is refused: {refusal}", f"{KIND} has become {stored} without an error")
    checked = check_all({"DATABASE_URL": url_of(engine)})
    said = "; ".join(each.text for each in checked if not each.ok and "character set" in each.text)
    yield judged(bool(said), f"kafka-webhooks check fails: {said}", "kafka-webhooks check does not say so")


def _filled(engine: Engine, rows: int) -> Findings:
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


STEPS: Mapping[str, Callable[[Engine, int], Findings]] = {
    "deliveries of an ordering key are stored and ended": keys_in_order,
    "a delivery with an answer of 1,500 characters and a body of 40,000 bytes": large_values,
    "plans and logical reads of the statements for due rows": due_plans,
    "values that the database's character set lacks": other_characters,
}


def look(engine: Engine, rows: int, say: Callable[[str], None]) -> bool:
    """Take all steps, each on new tables. Whether none says `look at this`; a step that fails says so."""
    sound = True
    for number, (title, step) in enumerate(STEPS.items(), 1):
        say(f"{number} of {len(STEPS)}: {title}")
        began = time.monotonic()
        try:
            _drop(engine)
            migrations.upgrade(engine)
            for verdict, text in step(engine, rows):
                sound = sound and verdict != LOOK
                say(f"    {verdict}: {text}".replace("\n", "\n        "))
        except Exception as error:  # noqa: BLE001 (whatever stops a step is its verdict, and the next one begins)
            sound = False
            say(f"    {LOOK}: the step has stopped: {line(error)}")
        say(f"    {time.monotonic() - began:.1f} s")
    return sound


@contextmanager
def _patient(engine: Engine) -> Iterator[Connection]:
    """A connection whose calls may take any time; it does not return to the pool."""
    with engine.connect() as connection:
        session: Any = connection.connection.driver_connection
        session.call_timeout = 0
        connection.detach()
        yield connection


def _tables(engine: Engine) -> set[str]:
    there = sa.inspect(engine)
    return {*there.get_table_names(), *filter(there.has_table, OURS)}  # the first leaves out the tablespace SYSTEM


def _drop(engine: Engine) -> None:
    with _patient(engine) as connection:
        for name in sorted(OURS & _tables(engine)):
            connection.exec_driver_sql(f"DROP TABLE {name} CASCADE CONSTRAINTS PURGE")


def main(url: str, rows: int, say: Callable[[str], None]) -> int:
    """Look at the server of a URL. The exit status."""
    try:
        engine = connect_to(url)
        ping(engine)
    except (SQLAlchemyError, WebhooksError, ValueError) as error:
        say(f"ORACLE_URL: {line(error)}")
        return 2
    try:
        found = _tables(engine)
        if engine.dialect.name != "oracle" or found:
            say("ORACLE_URL has to name an Oracle server, and a user without tables: this program drops the service's.")
            say("Name another user, or drop the tables that a killed run has left: " + ", ".join(sorted(found)))
            return 2
        say(f"{place_of(engine)}, {rows:,} deliveries")
        try:
            return 0 if look(engine, rows, say) else 1
        finally:
            _drop(engine)
    finally:
        engine.dispose()


if __name__ == "__main__":
    number = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    sys.exit(main(os.environ.get("ORACLE_URL", ""), number, lambda text: print(text, flush=True)))  # noqa: T201 (a program)
