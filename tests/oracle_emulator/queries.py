"""Queries and their rows."""

from collections.abc import Mapping

from tests.oracle_emulator import answers, columns, values
from tests.oracle_emulator.errors import OracleError
from tests.oracle_emulator.session import Cursor, Session
from tests.oracle_emulator.values import Value
from tests.oracle_emulator.wire import Writer

DEFINE, EXECUTE, FETCH, COMMIT = 0x10, 0x20, 0x40, 0x100  # options of an execution

_NO_DATA = OracleError(1403, "no data found")


def run(
    session: Session,
    writer: Writer,
    cursor: Cursor,
    binds: Mapping[int, Value],
    *,
    rows: int,
    options: int,
    describe: bool,
) -> None:
    """Executes a query or continues one; sends the columns and the first rows, as the options request."""
    if options & EXECUTE or cursor.result is None:
        _execute(session, cursor, binds)
    if describe and not options & DEFINE:
        answers.describe(session, writer, cursor.columns)
    # A real server sends large objects and columns that are always NULL only on request.
    undefined_lobs = cursor.defines is None and any(column.is_lob for column in cursor.columns)
    waits = undefined_lobs or any(column.size == 0 for column in cursor.columns)
    if options & FETCH and not waits:
        send_rows(session, writer, cursor, rows, parameters=describe)
        return
    if describe:
        answers.parameters(session, writer)
    answers.end(session, writer, cursor=cursor.number)


def send_rows(session: Session, writer: Writer, cursor: Cursor, count: int, *, parameters: bool = False) -> None:
    """Sends the next rows of a query."""
    if cursor.result is None:
        raise OracleError(1002, "fetch out of sequence")
    writer.byte(answers.ROW_HEADER, 0x22).number(len(cursor.columns), 0, count, 0, 0).counted(None)
    for _ in range(count):
        row = _next(cursor)
        if row is None:
            break
        cursor.sent += 1
        writer.byte(answers.ROW_DATA)
        for position, value in enumerate(row):
            _write_value(writer, cursor, position, value)
    else:
        cursor.ahead = _next(cursor)
        row = cursor.ahead or []
    if parameters:
        answers.parameters(session, writer)
    if row is None:
        cursor.result = None
        answers.end(session, writer, cursor=cursor.number, rows=cursor.sent, error=_NO_DATA)
    else:
        answers.end(session, writer, cursor=cursor.number, rows=cursor.sent)


def _execute(session: Session, cursor: Cursor, binds: Mapping[int, Value]) -> None:
    statement, connection = cursor.statement, session.connection
    prepared = session.prepare(cursor)
    row = [binds.get(position) for position in statement.in_binds]
    connection.ready()
    done = session.worker.run(lambda: connection.execute(prepared, row, statement.lock_wait), connection.cancel)
    cursor.result, cursor.ahead, cursor.sent = done.result, None, 0
    if statement.locks:
        session.in_transaction = True
    cursor.columns = columns.describe(cursor.result, session.profile.release)


def _next(cursor: Cursor) -> list[Value] | None:
    row, cursor.ahead = cursor.ahead, None
    return row or columns.fetch(cursor.result, cursor.columns)


def _write_value(writer: Writer, cursor: Cursor, position: int, value: Value) -> None:
    column = cursor.columns[position]
    if column.size:  # a column that is always NULL is not sent
        as_lob = cursor.defines is None or cursor.defines[position] in values.LOBS
        answers.column_value(writer, value, column.kind, inline=column.is_lob and not as_lob)
