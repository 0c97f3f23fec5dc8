"""Statements other than queries: changes of rows, definitions, transactions, and a little PL/SQL."""

import re
import threading
from collections.abc import Mapping, Sequence
from functools import partial

from tests.oracle_emulator import answers, columns, definitions, values
from tests.oracle_emulator.errors import OracleError, Unsupported, refused
from tests.oracle_emulator.login import alter_session
from tests.oracle_emulator.rewriting import DOMAIN, WITHOUT_H2
from tests.oracle_emulator.session import Cursor, Session
from tests.oracle_emulator.statement import Statement
from tests.oracle_emulator.tokens import tokens_of, without_space
from tests.oracle_emulator.values import Value
from tests.oracle_emulator.wire import Writer

_OUT = 16  # direction of an OUT bind
_SLEEP = re.compile(r"dbms_(?:session|lock)\.sleep\s*\(\s*([\d.]+)", re.IGNORECASE)
_TRANSACTION_ID = re.compile(r":\w+\s*:=\s*dbms_transaction\.local_transaction_id", re.IGNORECASE)
_CHECK_VIOLATED = 2290
_ROLLBACK_TO = re.compile(r"ROLLBACK\s+TO\s+(?:SAVEPOINT\s+)?", re.IGNORECASE)

Row = Mapping[int, Value]


def change(
    session: Session, writer: Writer, cursor: Cursor, rows: Sequence[Row], *, commit: bool, counts: bool, full: bool
) -> None:
    """Runs INSERT, UPDATE, DELETE or MERGE for each row of binds. After an error, earlier rows stay changed."""
    session.prepare(cursor)
    changed: list[int] = []
    returned: list[list[list[Value]]] = []

    def work() -> None:
        for row in rows:
            number, got = _change_one(session, cursor, row)
            changed.append(number)
            returned.append(got)

    session.connection.ready()
    try:
        session.worker.run(work, session.connection.cancel)
    except OracleError as error:
        error.rows = sum(changed)
        raise
    finally:
        session.in_transaction = True
    if commit:
        end_transaction(session, "COMMIT")
    if cursor.statement.out_binds:
        _send_returned(writer, cursor, returned)
    if full:
        answers.parameters(session, writer, changed if counts else None)
    answers.end(session, writer, cursor=cursor.number, rows=sum(changed))


def other(session: Session, writer: Writer, cursor: Cursor) -> None:
    """Runs definitions, which commit before and after, ALTER SESSION, transaction statements, and PL/SQL."""
    sql = cursor.statement.sql.strip()
    if cursor.statement.kind == "plsql":
        _block(session, writer, cursor, sql)
        return
    if cursor.statement.kind == "ddl":
        end_transaction(session, "COMMIT")
        with session.connection.database.defining:
            _define(session, cursor.statement)
    elif re.match(r"ALTER\s+SESSION", sql, re.IGNORECASE):
        alter_session(session, sql)
    elif found := re.match(r"COMMIT\b|ROLLBACK\s*$", sql, re.IGNORECASE):
        end_transaction(session, found[0].strip().upper())
    elif re.match(r"(?:SAVEPOINT|ROLLBACK\s+TO)\b", sql, re.IGNORECASE):
        session.connection.command(_ROLLBACK_TO.sub("ROLLBACK TO SAVEPOINT ", sql))
    elif re.match(r"SET\s+TRANSACTION\b", sql, re.IGNORECASE):
        if session.in_transaction:
            raise refused(1453)
    elif not re.match(r"LOCK\s+TABLE", sql, re.IGNORECASE):
        raise OracleError(900, "invalid SQL statement")
    answers.parameters(session, writer)
    answers.end(session, writer, cursor=cursor.number)


def _define(session: Session, statement: Statement) -> None:
    connection, words = session.connection, without_space(tokens_of(statement.sql))
    schema, name = definitions.table_in(words)
    before = connection.table(schema, name)
    if name:
        definitions.refuse_types(words, session.profile.release)
    if index := definitions.dropped_index(words):
        for table in connection.tables():
            definitions.refuse_drop(index, table)
    connection.database.add_domains(each for each in statement.h2 if each.startswith(DOMAIN))
    try:
        for each in statement.h2:
            if not each.startswith(DOMAIN):
                connection.define(each, session.ddl_wait)
        _continue(session, statement.sql, schema, name)
    except OracleError as error:
        raise refused(2293) if error.code == _CHECK_VIOLATED else error from None
    finally:
        if words[0].upper != "COMMENT":
            connection.database.columns.clear()
    if (after := connection.table(schema, name)) is not None:
        definitions.refuse(words, before, after, partial(connection.has_values, schema, name))


def _continue(session: Session, sql: str, schema: str, table: str) -> None:
    """Validates a check, or ends a DROP UNUSED COLUMNS that was stopped."""
    found = WITHOUT_H2.match(sql)
    if found and found["validated"]:
        session.connection.validate(schema, table, found["validated"].upper())
    if found and found["continued"]:
        session.connection.command(f"DELETE FROM SYS.PARTIAL_DROPS WHERE TABLE_NAME = '{table}'")  # noqa: S608 (tests)


def end_transaction(session: Session, how: str) -> None:
    """Runs COMMIT or ROLLBACK."""
    if how == "COMMIT":
        session.connection.commit()
    else:
        session.connection.rollback()
    session.in_transaction = False


def _change_one(session: Session, cursor: Cursor, row: Row) -> tuple[int, list[list[Value]]]:
    """The number of rows changed, and the values of RETURNING."""
    statement = cursor.statement
    binds = [row.get(position) for position in statement.in_binds]
    done = session.connection.execute(cursor.prepared, binds, statement.lock_wait)
    if not statement.out_binds:
        return done.changed, []
    cursor.columns = columns.describe(done.result, session.profile.release)
    got = []
    while (each := columns.fetch(done.result, cursor.columns)) is not None:
        got.append(each)
    return len(got), got


def _send_returned(writer: Writer, cursor: Cursor, returned: list[list[list[Value]]]) -> None:
    """Sends, for each execution, the values of each OUT bind in the type that the client declared."""
    for rows in returned:
        writer.byte(answers.ROW_DATA)
        for position, bind in enumerate(cursor.statement.out_binds):
            kind = cursor.binds[bind].kind
            writer.number(len(rows))
            for row in rows:
                value = row[position]
                wanted = str(value) if kind in values.TEXTS and value is not None else value
                answers.column_value(writer, wanted, kind)
                writer.number(0)  # not truncated


def _block(session: Session, writer: Writer, cursor: Cursor, sql: str) -> None:
    """Runs the only PL/SQL blocks there are: those of SQLAlchemy and of the tests."""
    if sleep := _SLEEP.search(sql):
        woken = threading.Event()
        session.worker.run(lambda: woken.wait(float(sleep[1])), woken.set)
    elif _TRANSACTION_ID.search(sql):
        writer.byte(answers.IO_VECTOR, 0).number(1, 0, 1, 0, 0, 0).byte(_OUT)
        cursor.returned = frozenset({0})
        writer.byte(answers.ROW_DATA).value(b"1.2.3").number(0)
    elif not re.fullmatch(r"begin\s+null;\s*end;?", sql, re.IGNORECASE):
        raise Unsupported(6550, "line 1, column 1:\nPLS-00201: the emulator has no PL/SQL")
    answers.end(session, writer, cursor=cursor.number)
