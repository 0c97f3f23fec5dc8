"""Long texts outside VALUES, in pieces that Oracle concatenates.

The driver declares four bytes for each character, and a bind declared above 4,000 bytes is a LONG to Oracle: it takes
that as a column's value in VALUES, and for a LOB in SET, but not in SELECT and WHERE (ORA-01461).
"""

from functools import reduce
from operator import add
from typing import Any

from sqlalchemy import ColumnElement, String, bindparam
from sqlalchemy.orm import InstrumentedAttribute

PIECE = 1000  # characters


def pieces_of(name: str, length: int) -> ColumnElement[Any]:
    """The value of `pieces(name, length, …)` in a statement."""
    return reduce(add, (bindparam(each, type_=String(PIECE)) for each in pieces(name, length, None)))


def pieces(name: str, length: int, text: str | None) -> dict[str, object]:
    """The binds for a text of at most `length` characters."""
    starts = range(0, max(length, len(text or "")), PIECE)
    return {f"{name}_{start // PIECE}": None if text is None else text[start : start + PIECE] for start in starts}


def in_pieces(column: InstrumentedAttribute[Any], value: object) -> object:
    """A column's value for SET or WHERE: in pieces if it may be long."""
    length = getattr(column.type, "length", None) or 0
    if length <= PIECE:
        return value
    text = value if isinstance(value, str) else None
    binds = pieces(column.key, length, text).items()
    return reduce(add, (bindparam(name, piece, String(PIECE), unique=True) for name, piece in binds))
