"""Many seeks in an index with one statement: a seek on its own costs a round trip to the database."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    CompoundSelect,
    Connection,
    bindparam,
    func,
    literal_column,
    select,
    union_all,
)
from sqlalchemy.orm import InstrumentedAttribute

from consumer.database.engine import padded
from consumer.ledger.columns import AnyRow, AnySelect

PARTS = 128  # ranges in one statement; SQLite takes at most 500

Columns = tuple[InstrumentedAttribute[Any], ...]


def leaps(
    connection: Connection, column: InstrumentedAttribute[int], after: int, most: int, *here: ColumnElement[bool]
) -> list[int]:
    """The next different values of a column above `after`, rising, at most `most`, in the rows where `here` holds.

    Takes a seek for each value, however many rows have it, if an index begins with the columns of `here` and this one.
    """
    first: AnySelect = select(literal_column("1").label("step"), func.min(column).label("found")).where(
        *here, column > after
    )
    leap = first.cte("leap", recursive=True)
    following = select(func.min(column)).where(*here, column > leap.c.found).correlate(leap).scalar_subquery()
    leap = leap.union_all(
        select(leap.c.step + literal_column("1"), following).where(leap.c.step < most, leap.c.found.is_not(None))
    )
    found = connection.scalars(select(leap.c.found).where(leap.c.found.is_not(None)))
    # SQLite keeps a text in any column, behind all numbers.
    return sorted(each for each in found if not isinstance(each, str | bytes))


def of_each(
    connection: Connection,
    part: Callable[..., AnySelect],
    columns: Columns,
    keys: Sequence[tuple[object, ...]],
    limit: int,
) -> list[AnyRow]:
    """At most `limit` rows of `part` for each key, in any order. `part` takes a bind for each of the key's `columns`.

    It must select its rows in the order of an index: each key then takes one seek, and reads no more than its rows.
    """
    rows: list[AnyRow] = []
    for start in range(0, len(keys), PARTS):
        some = keys[start : start + PARTS]
        binds = {
            _name(column, place): value
            for place, key in enumerate(some)
            for column, value in zip(columns, key, strict=True)
        }
        rows += connection.execute(_of_each(part, columns, padded(len(some)), limit), binds)
    return rows


@cache  # building and compiling one takes long
def _of_each(part: Callable[..., AnySelect], columns: Columns, number: int, limit: int) -> CompoundSelect[Any]:
    """The parts of `number` keys. A key that is left out is NULL, and has no rows."""
    return union_all(
        *(
            select(part(*(_bind(column, place) for column in columns)).limit(limit).subquery())
            for place in range(number)
        )
    )


def _bind(column: InstrumentedAttribute[Any], place: int) -> BindParameter[Any]:
    return bindparam(_name(column, place), None, column.type)


def _name(column: InstrumentedAttribute[Any], place: int) -> str:
    return f"b_{column.key}_{place}"
