"""Each statement of docs/sql/oracle, planned by the server, and what it keeps of those that ran."""

import re
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from consumer.database.engine import CALL_TIMEOUT
from models import Base
from models.base import UtcTimestamp
from tests.first_hour.estate import TABLES
from tests.first_hour.verdicts import LOOK, OK, PROGRESS, Finding, judged, unseen, view
from tests.oracle.accounts import ACCOUNTS, statements

MOST_CHILDREN = 4  # cursors of one text: one, another with the sizes of its binds, and two after new statistics
MOST_PARSING = 5.0  # seconds: the first execution of a text has three calls' time
_TYPES = {column.name: column.type for table in Base.metadata.tables.values() for column in table.columns}
_BIND = re.compile(r"'[^']*'|:(\w+)")
_ROWS = "SELECT operation, options, object_name, cost FROM plan_table WHERE statement_id = 'first_hour' ORDER BY id"
_CURSORS = (
    "SELECT q.sql_id, q.children, s.avg_hard_parse_time / 1000000, q.kept, q.gets, q.part FROM v$sqlstats s JOIN ("
    "SELECT sql_id, COUNT(*) AS children, SUM(sharable_mem) AS kept, MIN(SUBSTR(sql_text, 1, 80)) AS part,"
    " SUM(buffer_gets) / GREATEST(SUM(executions), 1) AS gets FROM v$sql WHERE module = 'kafka-webhooks'"
    " AND parsing_schema_name = USER AND sql_text LIKE '%webhook!_%' ESCAPE '!'"
    " AND sql_text NOT LIKE 'EXPLAIN%' GROUP BY sql_id"
    ") q ON q.sql_id = s.sql_id ORDER BY s.avg_hard_parse_time DESC"
)
_PEEKED = (
    "SELECT object_name, operation || ' ' || options, sql_id FROM v$sql_plan WHERE object_owner = USER AND"
    " operation = 'TABLE ACCESS' AND options LIKE '%FULL' AND sql_id IN (SELECT sql_id FROM v$sql WHERE module ="
    " 'kafka-webhooks' AND parsing_schema_name = USER)"
)


def planned(engine: Engine) -> Iterator[Finding]:
    """The server parses and plans each statement; a worker's reads no more rows than it needs."""
    dearest, number = (0, "none"), 0
    for said, sql in statements():
        with engine.connect() as connection:
            try:
                rows = _plan(connection, sql)
            except DBAPIError as error:
                if "ORA-00900" in str(error):  # the emulator does not explain
                    yield unseen("plans of the statements in docs/sql/oracle", error)
                    return
                yield Finding(LOOK, f"{said}: {unseen('its plan', error).text}")
                continue
        number += 1
        dearest = max(dearest, (rows[0].cost or 0, said))
        if wrong := _wrong(rows):
            ours = re.match(ACCOUNTS["webhooks_service"], said)
            yield Finding(LOOK if ours else PROGRESS, f"{said}: {', '.join(wrong)}")
    yield Finding(OK, f"{number} statements of docs/sql/oracle planned; the dearest costs {dearest[0]}: {dearest[1]}")


def typed(sql: str) -> str:
    """The statement with each bind as its column's type: EXPLAIN PLAN takes a bare one for text."""

    def cast(found: re.Match[str]) -> str:
        name = found[1] and re.sub(r"^b_|(_\d+)+$", "", found[1])
        kind = _TYPES.get(name or "")
        if isinstance(kind, UtcTimestamp):
            return f"CAST({found[0]} AS TIMESTAMP)"
        return f"CAST({found[0]} AS NUMBER)" if isinstance(kind, sa.Integer | sa.Numeric) else found[0]

    return _BIND.sub(cast, re.split(r"\sRETURNING\s", sql)[0])


def _plan(connection: Connection, sql: str) -> list[Any]:
    binds = {found[1]: None for found in _BIND.finditer(re.split(r"\sRETURNING\s", sql)[0]) if found[1]}
    connection.exec_driver_sql(f"EXPLAIN PLAN SET STATEMENT_ID = 'first_hour' FOR {typed(sql)}", binds)
    return list(connection.exec_driver_sql(_ROWS).all())


def _wrong(rows: list[Any]) -> list[str]:
    """The operations of a plan that read more rows than the statement needs."""
    found = set()
    for row in rows:
        operation = f"{row.operation} {row.options or ''}"
        if re.match("TABLE ACCESS.* FULL", operation) and row.object_name in TABLES:
            found.add(f"a full scan of {row.object_name}")
        elif re.match("SORT ORDER BY STOPKEY|HASH JOIN.*ANTI|MERGE JOIN CARTESIAN", operation):
            found.add(operation)
    return sorted(found)


def kept(engine: Engine) -> Iterator[Finding]:
    """What the server keeps of the statements that ran: how long it parsed, cursors of one text, peeked plans."""
    found = view(engine, "parse times and child cursors", _CURSORS)
    if isinstance(found, Finding):
        yield found
        return
    yield Finding(PROGRESS, f"{len(found)} texts take {sum(row[3] for row in found):,} bytes of the shared pool")
    for sql_id, children, parsed, memory, gets, part in found:
        about = f"{sql_id} ({part}): parsed in {parsed:.2f} s, {children} cursors, {memory:,} bytes, {gets:.0f} gets"
        if parsed > MOST_PARSING or children > MOST_CHILDREN:
            yield Finding(
                LOOK,
                f"{about}; V$SQL_SHARED_CURSOR has the reasons of its cursors, and the first call has "
                f"{3 * CALL_TIMEOUT:g} s",
            )
    longest = max((row[2] for row in found), default=0)
    yield judged(longest <= MOST_PARSING, f"the longest parse took {longest:.2f} s", f"a parse took {longest:.2f} s")
    scans = view(engine, "plans with peeked binds", _PEEKED)
    if isinstance(scans, Finding):
        yield scans
        return
    large = sorted({f"{table} by {sql_id}" for table, _, sql_id in scans if table in TABLES})
    text = f"full scans with peeked binds: {', '.join(large) or 'none'}"
    yield judged(not large, text, f"{text}; DBMS_XPLAN.DISPLAY_CURSOR shows them")
