"""Declares a statement's binds to Oracle with the sizes of their columns, instead of the sizes of their values.

By default the driver declares four bytes for each character of a text. Oracle keeps a child cursor of a statement for
each combination of bind sizes, in steps of 32, 128, 2,000 and 4,000 bytes, and searches them at each execution: a
look-up of sixteen types and tenants could have thousands. A larger declared size costs nothing on the wire.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import oracledb
from sqlalchemy import BindParameter, Engine, String, event
from sqlalchemy.engine.interfaces import DBAPICursor, ExecutionContext
from sqlalchemy.types import TupleType, TypeEngine

# The largest size that every server binds as VARCHAR2 or RAW, and the largest that no server binds as LONG. TEXT is in
# characters of up to four bytes each, BYTES in bytes.
TEXT = (1000, 8191)
BYTES = (2000, 32767)

Sizes = tuple[int, int]


def declare(engine: Engine) -> None:
    """Declare the sizes of text and byte binds in each statement that knows its bind types."""
    event.listen(engine, "do_setinputsizes", _declare)


def _declare(
    sizes: dict[BindParameter[Any], Any],
    cursor: DBAPICursor,
    _statement: str,
    rows: Sequence[Mapping[str, Any]],
    context: ExecutionContext,
) -> None:
    names = context.compiled.bind_names  # type: ignore[union-attr]  # only compiled statements get here
    for bind, given in sizes.items():
        if bind.isoutparam:
            continue
        if isinstance(bind.type, TupleType):
            types = zip(bind.type.types, given, strict=True)
            sizes[bind] = [_least(each) if isinstance(each, String) else its for each, its in types]
        elif isinstance(bind.type, String):
            least = _least(bind.type)
            # If a value is longer than its short column, the driver declares more by itself.
            sizes[bind] = least if least < TEXT[0] or bind.expanding else _room(rows, names[bind], TEXT)
        elif given is oracledb.DB_TYPE_RAW and not bind.expanding:
            size = _room(rows, names[bind], BYTES)
            sizes[bind] = cursor.var(given, size, arraysize=len(rows))


def _least(of: TypeEngine[Any]) -> int:
    """The characters of a text column, at most TEXT[0]."""
    return min(getattr(of, "length", None) or TEXT[0], TEXT[0])


def _room(rows: Sequence[Mapping[str, Any]], name: str, limits: Sizes) -> int:
    """The size for a bind's longest value, rounded up to few sizes: the short limit, powers of two, the long limit."""
    short, long = limits
    longest = max(len(row.get(name) or "") for row in rows)
    if longest <= short:
        return short
    power = 1 << (longest - 1).bit_length()
    return min(power, long) if longest <= long else power
