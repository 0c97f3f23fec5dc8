"""The values of binds that a client sends."""

from collections.abc import Iterable, Mapping, Sequence

from tests.oracle_emulator import values
from tests.oracle_emulator.answers import ROW_DATA
from tests.oracle_emulator.declared import LOBS, name_of, names_in, owner_of, split, tables
from tests.oracle_emulator.errors import OracleError
from tests.oracle_emulator.instance import Bind
from tests.oracle_emulator.packets import Disconnect
from tests.oracle_emulator.session import Cursor, Session
from tests.oracle_emulator.tokens import Token, closing, tokens_of, without_space
from tests.oracle_emulator.values import Value
from tests.oracle_emulator.wire import Reader

CODECS = {"AL32UTF8": "utf-8", "US7ASCII": "ascii", "WE8ISO8859P15": "iso8859-15", "WE8MSWIN1252": "cp1252"}
_NAMED = 5  # words: INSERT INTO owner . table
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
    words = without_space(tokens_of(cursor.statement.sql))
    table, in_values, places = _places(words)
    owner = owner_of(words[:_NAMED]) if cursor.statement.kind == "dml" else ""
    known = tables(session.connection.schema(owner)).get(table)
    columns = list(known.columns.values()) if known else []
    lobs = {column.name for column in columns if column.kind in LOBS}
    names = {bind: columns[place].name if isinstance(place, int) else place for bind, place in places.items()}
    first_lob = min(
        (
            bind
            for bind, name in names.items()
            if name in lobs and (bind in long or cursor.binds[bind].kind in values.LOBS)
        ),
        default=len(names),
    )
    for bind in long:
        if names.get(bind) in lobs:
            continue
        sent = [value for row in rows if isinstance(value := row.get(bind), str | bytes)]
        longest = max((len(value.encode() if isinstance(value, str) else value) for value in sent), default=0)
        if not in_values or bind not in names or longest > limit:
            raise OracleError(1461, "can bind a LONG value only for insert into a LONG column")
        if bind > first_lob:
            raise OracleError(24816, "Expanded non LONG bind data supplied after actual LONG or LOB column")


def _is_long(bind: Bind, limit: int) -> bool:
    return bind.size > limit and bind.kind not in values.LOBS


def _places(words: Sequence[Token]) -> tuple[str, bool, dict[int, str | int]]:
    """The table, whether it is INSERT … VALUES, and the columns (or their positions) whose values are binds alone."""
    uppers = [word.upper for word in words]
    found: dict[int, str | int] = {}
    number = {id(word): count for count, word in enumerate(word for word in words if word.kind == "bind")}
    in_values = uppers[0] == "INSERT" and "VALUES" in uppers
    table, _ = name_of(words[2 if uppers[0] == "INSERT" else 1 :])
    if in_values:
        start = uppers.index("VALUES") + 1
        names = names_in(words[:start])
        for place, value in enumerate(split(words[start + 1 : closing(words, start)])):
            if len(value) == 1 and value[0].kind == "bind":
                found[number[id(value[0])]] = names[place] if names else place
    elif uppers[0] == "UPDATE" and "SET" in uppers:
        for change in split(words[uppers.index("SET") + 1 :]):
            for position, word in enumerate(change[1:-1], 1):
                ends = position + 2 == len(change) or change[position + 2].upper in {"WHERE", "RETURNING"}
                if word.text == "=" and change[position + 1].kind == "bind" and ends:
                    found[number[id(change[position + 1])]] = name_of(change[position - 1 :])[0]
                if word.text in {"=", "("}:
                    break
    return table, in_values, found


def _order(session: Session, cursor: Cursor, positions: Iterable[int]) -> Sequence[int]:
    """The order on the wire: LONG values last."""
    longest = session.profile.max_string if cursor.statement.kind != "plsql" else float("inf")
    return sorted(positions, key=lambda position: cursor.binds[position].size > longest)


def _read_row(session: Session, reader: Reader, cursor: Cursor, order: Sequence[int]) -> dict[int, Value]:
    if (message := reader.byte()) != ROW_DATA:
        raise Disconnect(f"message {message} instead of binds")
    return {position: _read_value(session, reader, cursor.binds[position]) for position in order}


def _read_value(session: Session, reader: Reader, bind: Bind) -> Value:
    if bind.kind in values.LOBS:
        return session.lobs.value(reader.counted(), bind.kind)
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
