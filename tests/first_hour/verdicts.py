"""Verdicts with their figures, and how a statement's plan, logical reads and first execution are measured."""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, Row, event
from sqlalchemy.exc import DBAPIError

from consumer.database.errors import line

OK, LOOK, NOT_SEEN, PROGRESS = "ok", "look at this", "not seen", "…"
_READS = (
    "SELECT s.value FROM v$mystat s JOIN v$statname n ON n.statistic# = s.statistic#"
    " WHERE n.name = 'session logical reads'"
)


AnyRow = Row[*tuple[Any, ...]]


class Finding(NamedTuple):
    """A verdict (OK, LOOK or NOT_SEEN) or PROGRESS, and what it is about."""

    verdict: str
    text: str


class Sent(NamedTuple):
    """A statement as the driver gets it, with its first binds."""

    sql: str
    binds: Mapping[str, Any]


def judged(is_right: bool, right: str, wrong: str) -> Finding:  # noqa: FBT001 (a condition, as in `if`)
    """OK or LOOK."""
    return Finding(OK, right) if is_right else Finding(LOOK, wrong)


def unseen(what: str, error: DBAPIError) -> Finding:
    """NOT_SEEN: the server, or this user's rights, do not show it."""
    return Finding(NOT_SEEN, f"{what}: {line(error)}")


def view(engine: Engine, what: str, sql: str, **binds: object) -> list[AnyRow] | Finding:
    """The rows of a view of the server, or NOT_SEEN."""
    try:
        with engine.connect() as connection:
            return list(connection.exec_driver_sql(sql, binds).all())
    except DBAPIError as error:
        return unseen(what, error)


def sent_by(engine: Engine, work: Callable[[], object]) -> list[Sent]:
    """The different statements that `work` sends, with the binds of the first of each."""
    found: dict[str, Sent] = {}

    def note(_: Connection, __: object, sql: str, binds: Any, ___: object, many: bool) -> None:  # noqa: FBT001 (SQLAlchemy's signature)
        found.setdefault(sql, Sent(sql, binds[0] if many else binds))

    event.listen(engine, "before_cursor_execute", note)
    try:
        work()
    finally:
        event.remove(engine, "before_cursor_execute", note)
    return list(found.values())


def reads_of(name: str, connection: Connection, sent: Sent, most: int) -> Finding:
    """The verdict of the blocks that a statement reads: `most` of them would do."""
    connection.exec_driver_sql(*sent).all()  # parsing reads blocks of the dictionary
    try:
        before = connection.exec_driver_sql(_READS).scalar_one()
    except DBAPIError as error:
        return unseen(f"{name}: its logical reads", error)
    connection.exec_driver_sql(*sent).all()
    number = connection.exec_driver_sql(_READS).scalar_one() - before
    text = f"{name}: {number} logical reads"
    return judged(number <= most, text, f"{text}; {most} would do for the rows that it returns")


def timed(name: str, most: float, work: Callable[[], object]) -> Finding:
    """The verdict of the time that `work` takes, `most` seconds."""
    began = time.monotonic()
    work()
    text = f"{name}: {time.monotonic() - began:.2f} s"
    return judged(time.monotonic() - began <= most, text, f"{text}; {most:g} s would do")


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


@contextmanager
def patient(engine: Engine) -> Iterator[Connection]:
    """A connection whose calls may take any time; it does not return to the pool."""
    with engine.connect() as connection:
        session: Any = connection.connection.driver_connection
        session.call_timeout = 0
        connection.detach()
        yield connection
