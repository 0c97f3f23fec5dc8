"""The calls that execute statements, and the rows of queries."""

from collections.abc import Mapping, Sequence

from tests.oracle_emulator import answers, binds, changes, columns, values
from tests.oracle_emulator.errors import OracleError
from tests.oracle_emulator.instance import Call
from tests.oracle_emulator.packets import Disconnect
from tests.oracle_emulator.session import Cursor, Session
from tests.oracle_emulator.statement import parse, unparsed
from tests.oracle_emulator.values import Value
from tests.oracle_emulator.wire import Reader, Writer

_PARSE = 1
_DEFINE, _EXECUTE, _FETCH, _COMMIT = 0x10, 0x20, 0x40, 0x100  # options of an execution
_COUNT_EACH = 0x4000
_SETTINGS = 13  # numbers that describe an execution: the second is its count, the tenth its flags
_NO_DATA = OracleError(1403, "no data found")


def execute(session: Session, reader: Reader, writer: Writer) -> None:
    """Parses a statement or uses an open cursor, then binds, defines, executes and fetches, by the options."""
    options, number = reader.number(), reader.number()
    reader.skip("bnbnbbn")  # SQL's length, settings' length, output pointers, prefetch buffer
    rows = reader.number()
    reader.skip("nb")  # longest LONG, pointer
    bind_count = reader.number()
    reader.skip("bbbbbb")  # pointers
    define_count = reader.number()
    reader.skip("nbbbnbnnbnb")  # registration, pointers to unused parts
    if session.field_version >= 8:
        reader.skip("bnbnb")
    if session.field_version >= 9:
        reader.skip("bn")
    sql = (reader.value() or b"").decode() if number == 0 or options & _PARSE else None
    settings = reader.numbers(_SETTINGS)
    described = binds.read_descriptions(session, reader, define_count or bind_count)
    cursor, refusal = _cursor(session, number, sql, bind_count)
    session.cursor = cursor.number
    if define_count:
        cursor.defines = [each.kind for each in described]
    elif bind_count:
        cursor.binds = described
    executions = max(settings[1], 1)
    rows_of_binds: list[dict[int, Value]] = [{}] * executions
    if bind_count and not define_count and cursor.statement.in_binds and not (refusal and reader.at_end()):
        count = 1 if cursor.statement.kind == "query" else executions
        rows_of_binds = binds.read_rows(session, reader, cursor, cursor.statement.in_binds, count)
    if refusal:
        raise refusal
    counts = bool(settings[9] & _COUNT_EACH)
    _run(session, writer, cursor, rows_of_binds, fetch=rows, options=options, counts=counts, parsed=sql is not None)


def execute_again(session: Session, reader: Reader, writer: Writer) -> None:
    """Executes an open cursor with other binds."""
    _again(session, reader, writer, fetch=False)


def execute_again_and_fetch(session: Session, reader: Reader, writer: Writer) -> None:
    """Executes an open cursor's query again, and fetches its first rows."""
    _again(session, reader, writer, fetch=True)


def fetch(session: Session, reader: Reader, writer: Writer) -> None:
    """Fetches more rows."""
    cursor = session.cursor_of(reader.number())
    session.sql = cursor.statement.sql
    _send_rows(session, writer, cursor, reader.number())


def _again(session: Session, reader: Reader, writer: Writer, *, fetch: bool) -> None:
    number, count = reader.number(), reader.number()
    reader.number()
    flags = reader.number()
    cursor = session.cursor_of(number)
    executions = 1 if fetch or cursor.statement.kind == "query" else count
    rows: list[dict[int, Value]] = [{}] * executions
    sent = [position for position in cursor.statement.in_binds if position not in cursor.returned]
    if sent:
        rows = binds.read_rows(session, reader, cursor, sent, executions)
    options = _EXECUTE
    if fetch:
        options |= _FETCH
    elif flags & 1:
        options |= _COMMIT
    _run(session, writer, cursor, rows, fetch=count, options=options, describe=False)


def _cursor(session: Session, number: int, sql: str | None, bind_count: int) -> tuple[Cursor, OracleError | None]:
    """The cursor, and the error if its statement is refused: binds must be read before it is sent."""
    if sql is None:
        return session.cursor_of(number), None
    session.sql = sql
    refusal = None
    try:
        statement = parse(sql)
    except OracleError as error:
        statement, refusal = unparsed(sql, bind_count), error
    cursor = session.cursors.get(number)
    if cursor is None:
        return session.open_cursor(statement), refusal
    cursor.close()
    cursor.statement = statement
    return cursor, refusal


def _run(
    session: Session,
    writer: Writer,
    cursor: Cursor,
    rows: Sequence[dict[int, Value]],
    *,
    fetch: int,
    options: int,
    counts: bool = False,
    describe: bool = True,
    parsed: bool = False,
) -> None:
    statement, executes = cursor.statement, options & _EXECUTE
    session.sql = statement.sql
    fault = None
    if executes:
        received = [[row.get(position) for position in statement.in_binds] for row in rows]
        sent = [cursor.binds[position] for position in statement.in_binds] if cursor.binds else []
        call = Call(session.number, session.user, statement.sql, received, parsed, sent)
        fault = session.fault(call)
        session.instance.calls.append(call)
    if executes and statement.kind in {"query", "dml"}:
        session.check(cursor)
    if statement.kind == "query":
        _query(session, writer, cursor, rows[0], rows=fetch, options=options, describe=describe)
    elif not executes:
        answers.end(session, writer, cursor=cursor.number)
    elif statement.kind == "dml":
        commit = bool(options & _COMMIT)
        changes.change(session, writer, cursor, rows, commit=commit, counts=counts, full=describe)
    else:
        changes.other(session, writer, cursor)
    if fault and fault.drop == "after":
        raise Disconnect


def _query(
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
    if options & _EXECUTE or cursor.result is None:
        _start(session, cursor, binds)
    if describe and not options & _DEFINE:
        answers.describe(session, writer, cursor.columns)
    # A real server sends large objects and columns that are always NULL only on request.
    undefined_lobs = cursor.defines is None and any(column.is_lob for column in cursor.columns)
    waits = undefined_lobs or any(column.size == 0 for column in cursor.columns)
    if options & _FETCH and not waits:
        _send_rows(session, writer, cursor, rows, parameters=describe)
        return
    if describe:
        answers.parameters(session, writer)
    answers.end(session, writer, cursor=cursor.number)


def _send_rows(session: Session, writer: Writer, cursor: Cursor, count: int, *, parameters: bool = False) -> None:
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


def _start(session: Session, cursor: Cursor, binds: Mapping[int, Value]) -> None:
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
