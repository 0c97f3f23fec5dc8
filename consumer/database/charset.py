"""Lets no text reach a database whose character set lacks one of its characters.

The driver sends UTF-8, and the server converts each bind to its own set. For a character that the set lacks it stores
`¿`, `?` or a similar letter, and reports no error (Oracle's Globalization Support Guide, "Loss of Data During Character
Set Conversion"). In a database of AL32UTF8 nothing is lost, and nothing is checked; in any other, texts are ASCII.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import ExecutionContext

from consumer.errors import Unstorable

_WHOLE = ("AL32UTF8", "UTF8")  # these have all characters; of any other set only ASCII is taken for certain
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
        if _name(engine) in _WHOLE:
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
            f"has a character that the database's character set {_name(engine)} may lack: "
            "leave it out, or move to a database in AL32UTF8",
            _OF_A_BIND.sub("", name),
        )


def shortcoming(engine: Engine) -> str | None:
    """The fault of the connected database's character set; None if the set has all characters."""
    if _name(engine) in _WHOLE:
        return None
    return (
        f"the database's character set {_name(engine)} lacks characters: a subscription with one is refused, and a "
        "delivery with one, in its tenant say, becomes a dead letter if it has to be stored; "
        "move to a database in AL32UTF8"
    )


def _lacking(engine: Engine, values: Mapping[str, object]) -> list[str]:
    """The names of the texts that the database may not hold."""
    if _name(engine) in _WHOLE:
        return []
    return [name for name, text in values.items() if isinstance(text, str) and not text.isascii()]


def _name(engine: Engine) -> str:
    """The character set; before the first connect, and of SQLite, that of SQLite."""
    return str(engine.get_execution_options().get("character_set", "UTF8"))
