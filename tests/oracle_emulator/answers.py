"""The messages with which a server answers."""

import secrets
from collections.abc import Iterable, Sequence

from tests.oracle_emulator import values
from tests.oracle_emulator.columns import Column
from tests.oracle_emulator.errors import OracleError, Unsupported
from tests.oracle_emulator.session import Session
from tests.oracle_emulator.values import Value
from tests.oracle_emulator.wire import Writer

ERROR, ROW_HEADER, ROW_DATA, PARAMETERS, STATUS = 4, 6, 7, 8, 9
IO_VECTOR, DESCRIBE = 11, 16
AL32UTF8 = 873
_IMPLICIT = 1  # the form: the database's character set
_NOW = bytes([120, 126, 1, 1, 1, 1, 1])  # a DATE, which the driver ignores


def status(session: Session, writer: Writer) -> Writer:
    """The end of a call without a result."""
    return writer.byte(STATUS).number(2 if session.in_transaction else 0, session.calls & 0xFFFF)


def end(
    session: Session, writer: Writer, *, cursor: int = 0, rows: int = 0, error: OracleError | None = None
) -> Writer:
    """The end of a call: the transaction's state, the cursor, the number of rows, and the error."""
    code = error.code if error else 0
    rows = (error.rows if error else 0) or rows
    writer.byte(ERROR).number(2 if session.in_transaction else 0, session.calls & 0xFFFF)
    writer.number(rows & 0xFFFFFFFF, code & 0xFFFF)
    writer.number(0, 0, cursor, 0)  # errors of an array, cursor, position of the error
    writer.byte(0, 0, 0, 0, 0, 0)  # kind of SQL, fatal, flags, options of the cursor, of UPI, warning
    writer.number(0, 0).byte(0).number(0, 0)  # the row's id
    writer.number(0).byte(0, 0).number(0, 0)  # error of the system, numbers of statement and call, iterations
    writer.number(0)  # logical row id
    writer.number(0, 0, 0)  # errors of a batch: codes, offsets, messages
    writer.number(code, rows)
    if session.field_version >= 14:
        writer.number(0, 0)  # kind of SQL, checksum
    if code:
        writer.value(f"{error}\n".encode())
    return writer


def parameters(session: Session, writer: Writer, row_counts: Sequence[int] | None = None) -> None:
    """An execution's result besides rows: the cursor, and the rows changed by each element of an array."""
    writer.byte(PARAMETERS).number(6, 0, 0, session.cursor, 0, 0, 0).number(0, 0, 0)
    if row_counts is not None:
        writer.number(len(row_counts), *row_counts)


def pairs(writer: Writer, items: Iterable[tuple[str, str, int]]) -> None:
    """Keys, values and flags of a log-in."""
    items = list(items)
    writer.byte(PARAMETERS).number(len(items))
    for key, value, flags in items:
        writer.counted(key).counted(value).number(flags)


def describe(session: Session, writer: Writer, columns: Sequence[Column]) -> None:
    """The columns of the rows to come."""
    writer.byte(DESCRIBE).value(secrets.token_bytes(23))
    writer.number(sum(column.size for column in columns), len(columns))
    if columns:
        writer.byte(0)
    for position, column in enumerate(columns):
        writer.byte(column.kind, 0, column.precision, column.scale).number(column.size, 0, 0)
        writer.counted(None).number(0, AL32UTF8 if column.is_text else 0)
        writer.byte(_IMPLICIT if column.is_text else 0).number(column.characters)
        if session.field_version >= 8:
            writer.number(0)
        writer.byte(int(column.nullable), len(column.name) & 0xFF)
        writer.counted(column.name).counted(None).counted(None)
        writer.number(position, 0)
        if session.field_version >= 17:
            writer.counted(None).counted(None)  # its domain
        if session.field_version >= 20:
            writer.number(0)  # its annotations
        if session.field_version >= 24:
            writer.number(0).byte(0, 0)  # its vector
    writer.counted(_NOW).number(0, 0, 0, 0).counted(None)


def column_value(writer: Writer, value: Value, kind: int, *, inline: bool = False) -> None:
    """A value in a row; of a large object its whole content, `inline`."""
    if kind in values.LOBS and not inline:
        raise Unsupported(3115, "unsupported network datatype or representation (the locator of a large object)")
    writer.value(values.encode(value, kind))
    if inline:
        writer.number(0, 0)  # null indicator, return code
