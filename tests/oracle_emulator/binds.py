"""The values of binds that a client sends."""

from collections.abc import Iterable, Mapping, Sequence
from math import inf

from tests.oracle_emulator import meaning, values
from tests.oracle_emulator.answers import ROW_DATA
from tests.oracle_emulator.definitions import LOBS
from tests.oracle_emulator.errors import refused
from tests.oracle_emulator.instance import Bind
from tests.oracle_emulator.packets import Disconnect
from tests.oracle_emulator.session import Cursor, Session
from tests.oracle_emulator.values import Value
from tests.oracle_emulator.wire import Reader

CODECS = {"AL32UTF8": "utf-8", "US7ASCII": "ascii", "WE8ISO8859P15": "iso8859-15", "WE8MSWIN1252": "cp1252"}
_ESCAPE = 0xFD  # before a BOOLEAN's NULL


def read_descriptions(session: Session, reader: Reader, count: int) -> list[Bind]:
    """The declarations of binds, or of the columns that the client defines."""
    described = []
    for _ in range(count):
        kind = reader.byte()
        reader.skip("bbb")  # flags, precision, scale
        size = reader.number()
        reader.skip("nn")  # elements, more flags
        reader.counted()  # the type's object id
        reader.skip("nn")  # its version, the character set
        form = reader.byte()
        reader.number()  # prefetch of a large object
        if session.field_version >= 8:
            reader.number()
        described.append(Bind(kind, form, size))
    return described


def read_rows(
    session: Session, reader: Reader, cursor: Cursor, positions: Iterable[int], count: int
) -> list[dict[int, Value]]:
    """The values of each execution, by the bind's position."""
    order = _order(session, cursor, positions)
    rows = [_read_row(session, reader, cursor, order) for _ in range(count)]
    if cursor.statement.kind in {"query", "dml"}:
        _refuse_long(session, cursor, rows)
    return rows


def _refuse_long(session: Session, cursor: Cursor, rows: Sequence[Mapping[int, Value]]) -> None:
    """Refuses binds above the length of a VARCHAR2, which are LONG, where Oracle does not take them.

    Sources: ORA-01461 and ORA-24816 in Oracle Database Error Messages; Call Interface Programmer's Guide, "Binding LOB
    Data": such data may only be inserted by VALUES, or set in a LOB column.
    """
    limit = session.profile.max_string
    long = [position for position in cursor.statement.in_binds if _is_long(cursor.binds[position], limit)]
    if not long:
        return
    target = meaning.target(cursor.statement.sql)
    columns = session.connection.columns(*target.table) if target.places else ()
    kinds = dict(columns)
    of_bind = {
        bind: kinds.get(place) if isinstance(place, str) else columns[place][1] for bind, place in target.places.items()
    }
    lobs = {bind for bind, kind in of_bind.items() if kind in LOBS}
    first_lob = min((bind for bind in lobs if bind in long or cursor.binds[bind].kind in values.LOBS), default=inf)
    for bind in set(long) - lobs:
        sent = [value for row in rows if isinstance(value := row.get(bind), str | bytes)]
        longest = max((len(value.encode() if isinstance(value, str) else value) for value in sent), default=0)
        if not target.in_values or bind not in of_bind or longest > limit:
            raise refused(1461)
        if bind > first_lob:
            raise refused(24816)


def _is_long(bind: Bind, limit: int) -> bool:
    return bind.size > limit and bind.kind not in values.LOBS


def _order(session: Session, cursor: Cursor, positions: Iterable[int]) -> Sequence[int]:
    """The order on the wire: LONG values last."""
    longest = session.profile.max_string if cursor.statement.kind != "plsql" else float("inf")
    return sorted(positions, key=lambda position: cursor.binds[position].size > longest)


def _read_row(session: Session, reader: Reader, cursor: Cursor, order: Sequence[int]) -> dict[int, Value]:
    if (message := reader.byte()) != ROW_DATA:
        raise Disconnect(f"message {message} instead of binds")
    return {position: _read_value(session, reader, cursor.binds[position]) for position in order}


def _read_value(session: Session, reader: Reader, bind: Bind) -> Value:
    if bind.kind == values.BOOLEAN:
        length = reader.byte()
        if length == _ESCAPE:
            reader.byte()
            return None
        return reader.raw(length)[0] == 1 if length else None
    value = values.decode(reader.value(), bind.kind, bind.form)
    if isinstance(value, str) and bind.form != values.NATIONAL:
        return converted(value, session.instance.character_set)
    return value


def converted(text: str, character_set: str) -> str:
    """A text as a database of that character set stores it: `¿` in place of each character that the set lacks."""
    codec = CODECS[character_set]
    if codec == "utf-8" or text.isascii():
        return text
    return "".join(each if each.encode(codec, "ignore") else "¿" for each in text)
