"""The calls that execute statements."""

from collections.abc import Sequence

from tests.oracle_emulator import answers, binds, changes, queries
from tests.oracle_emulator.errors import OracleError
from tests.oracle_emulator.instance import Call
from tests.oracle_emulator.packets import Disconnect
from tests.oracle_emulator.session import Cursor, Session
from tests.oracle_emulator.statement import parse, unparsed
from tests.oracle_emulator.values import Value
from tests.oracle_emulator.wire import Reader, Writer

_PARSE = 1
_COUNT_EACH = 0x4000
_SETTINGS = 13  # numbers that describe an execution: the second is its count, the tenth its flags


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
    queries.send_rows(session, writer, cursor, reader.number())


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
    options = queries.EXECUTE
    if fetch:
        options |= queries.FETCH
    elif flags & 1:
        options |= queries.COMMIT
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
    statement, executes = cursor.statement, options & queries.EXECUTE
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
        queries.run(session, writer, cursor, rows[0], rows=fetch, options=options, describe=describe)
    elif not executes:
        answers.end(session, writer, cursor=cursor.number)
    elif statement.kind == "dml":
        commit = bool(options & queries.COMMIT)
        changes.change(session, writer, cursor, rows, commit=commit, counts=counts, full=describe)
    else:
        changes.other(session, writer, cursor)
    if fault and fault.drop == "after":
        raise Disconnect
