"""Judges the plans and the logical reads of the statements for due rows, on a server that has plans."""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import DBAPIError

from consumer.database.errors import line
from consumer.events.event import TopicPartition
from consumer.ledger import assigned, due
from tests.crypto.vaults import in_the_clear
from tests.ledger.rows_kit import DEFAULT, GROUP

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
    """The verdict of the blocks that the statement reads; of its seconds if the account may not see V$MYSTAT."""
    connection.exec_driver_sql(*sent).all()  # parsing reads blocks of the dictionary
    unseen, before, began = "", 0, time.monotonic()
    try:
        before = connection.exec_driver_sql(_READS).scalar_one()
    except DBAPIError as error:
        unseen = line(error)
    connection.exec_driver_sql(*sent).all()
    seconds = time.monotonic() - began
    if unseen:
        return Finding(NOT_SEEN if seconds < 1 else LOOK, f"{name}: {seconds:.3f} s; its logical reads: {unseen}")
    number = connection.exec_driver_sql(_READS).scalar_one() - before
    text = f"{name}: {number} logical reads"
    return judged(number <= MOST_READS, text, f"{text}; {MOST_READS} would do for the rows that it returns")
