"""Lets no text reach a database whose character set lacks one of its characters.

The driver sends UTF-8, and the server converts each bind to its own set. For a character that the set lacks it stores
`¿`, `?` or a similar letter, and reports no error (Oracle's Globalization Support Guide, "Loss of Data During Character
Set Conversion"). In a database of AL32UTF8 nothing is lost, and nothing is checked.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import ExecutionContext

from consumer.errors import Unstorable

# Python's codec of each set; None: the set has all characters. In any other set only ASCII is taken for certain.
_CODECS = {
    "AL32UTF8": None,
    "UTF8": None,
    "AR8ISO8859P6": "iso8859-6",
    "AR8MSWIN1256": "cp1256",
    "BLT8MSWIN1257": "cp1257",
    "CL8ISO8859P5": "iso8859-5",
    "CL8KOI8R": "koi8-r",
    "CL8MSWIN1251": "cp1251",
    "EE8ISO8859P2": "iso8859-2",
    "EE8MSWIN1250": "cp1250",
    "EL8MSWIN1253": "cp1253",
    "IW8ISO8859P8": "iso8859-8",
    "IW8MSWIN1255": "cp1255",
    "JA16EUC": "euc-jp",
    "JA16SJIS": "shift-jis",
    "KO16KSC5601": "euc-kr",
    "KO16MSWIN949": "cp949",
    "TH8TISASCII": "tis-620",
    "TR8MSWIN1254": "cp1254",
    "WE8ISO8859P1": "latin-1",
    "WE8ISO8859P15": "iso8859-15",
    "WE8ISO8859P9": "iso8859-9",
    "WE8MSWIN1252": "cp1252",
    "ZHS16GBK": "gbk",
    "ZHT16MSWIN950": "cp950",
}
_QUERY = """SELECT value FROM nls_database_parameters WHERE "PARAMETER" = 'NLS_CHARACTERSET'"""
_OF_A_BIND = re.compile(r"^b_|(?:_\d+)+$")  # what its name has beside its column's: long texts are bound in pieces
_NOWHERE = "\0"  # equals no stored text: no type, tenant, URL or name has this character


def guard(engine: Engine) -> None:
    """Ask the database for its character set at the engine's first connect, and check each bind of a text from then on.

    SELECT and DELETE find nothing that equals such a text, and take it for less than all others; other statements
    raise Unstorable.
    """

    @event.listens_for(engine, "connect")
    def ask(connection: Any, _: object) -> None:
        if "character_set" not in engine.get_execution_options():
            with connection.cursor() as cursor:
                (name,) = cursor.execute(_QUERY).fetchone()
            engine.update_execution_options(character_set=name)

    @event.listens_for(engine, "before_cursor_execute")
    def check(
        _connection: Connection,
        _cursor: object,
        statement: str,
        parameters: Any,
        _context: ExecutionContext,
        many: bool,  # noqa: FBT001 (SQLAlchemy's signature)
    ) -> None:
        if _codec(engine) is None:
            return
        looks = statement.lstrip().upper().startswith(("SELECT", "WITH", "DELETE"))
        rows: Sequence[Any] = parameters if many else [parameters]
        for row in rows:
            if looks and isinstance(row, dict):
                row.update(dict.fromkeys(_lacking(engine, row), _NOWHERE))
            else:  # binds by position have numbers for names
                refuse(engine, row if isinstance(row, dict) else {str(n): text for n, text in enumerate(row, 1)})


def refuse(engine: Engine, values: Mapping[str, object]) -> None:
    """Raise Unstorable, which names the column, if the database cannot hold one of the texts among `values`."""
    for name in _lacking(engine, values):
        raise Unstorable(
            f"has a character that the database's character set {_name(engine)} lacks: "
            "leave it out, or move to a database in AL32UTF8",
            _OF_A_BIND.sub("", name),
        )


def shortcoming(engine: Engine) -> str | None:
    """The fault of the connected database's character set; None if the set has all characters."""
    if _codec(engine) is None:
        return None
    return (
        f"the database's character set {_name(engine)} lacks characters: a subscription with one is refused, and a "
        "delivery with one, in its tenant say, becomes a dead letter if it has to be stored; "
        "move to a database in AL32UTF8"
    )


def _lacking(engine: Engine, values: Mapping[str, object]) -> list[str]:
    """The names of the texts that the database cannot hold."""
    codec = _codec(engine)
    if codec is None:
        return []
    return [name for name, text in values.items() if isinstance(text, str) and not _fits(text, codec)]


def _fits(text: str, codec: str) -> bool:
    try:
        return text.isascii() or text.encode(codec).decode(codec) == text  # Japanese sets take ¥ for a backslash
    except UnicodeError:
        return False


def _name(engine: Engine) -> str:
    """The character set; before the first connect, and of SQLite, that of SQLite."""
    return str(engine.get_execution_options().get("character_set", "UTF8"))


def _codec(engine: Engine) -> str | None:
    return _CODECS.get(_name(engine), "ascii")
