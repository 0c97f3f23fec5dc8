"""How the values of a statement are declared to Oracle: with the sizes of their columns, not with their own.

The driver declares a text with four bytes for each of its characters. Oracle keeps a child cursor of a statement for
each combination of its binds' sizes, in steps of 32, 128, 2,000 and 4,000 bytes, and looks through them at each
execution: a look-up of sixteen types and tenants could have thousands. What is declared costs nothing on the wire.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import oracledb
from sqlalchemy import BindParameter, Engine, String, event
from sqlalchemy.engine.interfaces import DBAPICursor, ExecutionContext
from sqlalchemy.types import TupleType, TypeEngine

# The largest size that is a VARCHAR2 or a RAW to every server, and the largest that is not bound as LONG to any; in
# characters, which have up to four bytes, and in bytes.
TEXT = (1000, 8191)
BYTES = (2000, 32767)

Sizes = tuple[int, int]


def declare(engine: Engine) -> None:
    """Declare texts and bytes of each statement that knows the types of its binds."""
    event.listen(engine, "do_setinputsizes", _declare)


def _declare(
    sizes: dict[BindParameter[Any], Any],
    cursor: DBAPICursor,
    _statement: str,
    rows: Sequence[Mapping[str, Any]],
    context: ExecutionContext,
) -> None:
    names = context.compiled.bind_names  # type: ignore[union-attr]  # it is called for compiled statements alone
    for bind, given in sizes.items():
        if bind.isoutparam:
            continue
        if isinstance(bind.type, TupleType):
            types = zip(bind.type.types, given, strict=True)
            sizes[bind] = [_least(each) if isinstance(each, String) else its for each, its in types]
        elif isinstance(bind.type, String):
            least = _least(bind.type)
            # A short column's values are as short, or longer than it: then the driver declares more by itself.
            sizes[bind] = least if least < TEXT[0] or bind.expanding else _room(rows, names[bind], TEXT)
        elif given is oracledb.DB_TYPE_RAW and not bind.expanding:
            size = _room(rows, names[bind], BYTES)
            sizes[bind] = cursor.var(given, size, arraysize=len(rows))


def _least(of: TypeEngine[Any]) -> int:
    """Characters of a short text's column."""
    return min(getattr(of, "length", None) or TEXT[0], TEXT[0])


def _room(rows: Sequence[Mapping[str, Any]], name: str, limits: Sizes) -> int:
    """What the longest value of a bind needs, in few sizes: the short one, powers of two up to the long, and beyond."""
    short, long = limits
    longest = max(len(row.get(name) or "") for row in rows)
    if longest <= short:
        return short
    power = 1 << (longest - 1).bit_length()
    return min(power, long) if longest <= long else power
