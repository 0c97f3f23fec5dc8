"""SQL that Oracle and SQLite both get: lists of values, long texts in pieces, and many seeks with one statement."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, reduce
from operator import add
from typing import Any, TypeVar

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    CompoundSelect,
    Connection,
    Integer,
    Row,
    Select,
    String,
    bindparam,
    func,
    literal_column,
    or_,
    select,
    tuple_,
    union_all,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import KeyedColumnElement
from sqlalchemy.sql.expression import FunctionElement

PIECE = 1000  # characters of a piece of a long text
IN_LIST = 512  # the largest power of two below Oracle's limit of 1,000 elements (ORA-01795)
PARTS = 32  # ranges in one statement: Oracle parses each as a SELECT of its own

T = TypeVar("T")
AnyRow = Row[*tuple[Any, ...]]
AnySelect = Select[*tuple[Any, ...]]
Columns = tuple[InstrumentedAttribute[Any], ...]


def any_of(column: ColumnElement[Any], values: Sequence[object]) -> ColumnElement[bool]:
    """`column IN (values)`, for one or more values.

    The last value is repeated up to a power of two, so that Oracle parses and keeps few different statements. The list
    is split into lists that Oracle accepts.
    """
    return or_(*map(column.in_, lists_of(values)))


class any_tuple_of(FunctionElement[Any]):  # noqa: N801 (reads as `any_of`)
    """`(columns) IN (tuples)`, for the tuples in these lists of `lists_of`, or in binds of such lists.

    On SQLite the tuples become a subquery, because SQLite uses an index only for that.
    """

    inherit_cache = True
    name = "any_tuple_of"

    def __init__(self, columns: Sequence[ColumnElement[Any]], lists: Iterable[Any]) -> None:
        super().__init__(*map(tuple_(*columns).in_, lists))


@compiles(any_tuple_of)
def _lists_of_tuples(element: any_tuple_of, compiler: SQLCompiler, **kw: Any) -> str:
    return _any([compiler.process(each, **kw) for each in element.clauses])


@compiles(any_tuple_of, "sqlite")
def _subqueries_of_tuples(element: any_tuple_of, compiler: SQLCompiler, **kw: Any) -> str:
    lists = (compiler.process(each, **kw).partition(" IN ") for each in element.clauses)
    return _any([f"{columns} IN (SELECT * FROM {tuples})" for columns, _, tuples in lists])  # noqa: S608 (the compiler's own text)


def _any(conditions: Sequence[str]) -> str:
    return conditions[0] if len(conditions) == 1 else f"({' OR '.join(conditions)})"


def lists_of(values: Sequence[T]) -> Iterator[list[T]]:
    """Lists of at most IN_LIST values, padded to a power of two in total by repeating the last value."""
    size = padded(len(values))
    elements = [*values, *[values[-1]] * (size - len(values))]
    return (elements[start : start + IN_LIST] for start in range(0, size, IN_LIST))


def padded(number: int) -> int:
    """The next power of two: a statement's text differs with the number of its elements, so few numbers are used."""
    return 1 << (number - 1).bit_length()


# Long texts outside VALUES go in pieces that Oracle concatenates. The driver declares four bytes for each character. A
# bind declared above 4,000 bytes is a LONG to Oracle, which takes that as a column's value in VALUES, and for a LOB in
# SET, but not in SELECT and WHERE (ORA-01461).


def pieces_of(name: str, length: int) -> ColumnElement[Any]:
    """The value of `pieces(name, length, …)` in a statement."""
    return reduce(add, (bindparam(each, type_=String(PIECE)) for each in pieces(name, length, None)))


def pieces(name: str, length: int, text: str | None) -> dict[str, object]:
    """The binds for a text of at most `length` characters."""
    starts = range(0, max(length, len(text or "")), PIECE)
    return {f"{name}_{start // PIECE}": None if text is None else text[start : start + PIECE] for start in starts}


def in_pieces(column: InstrumentedAttribute[Any] | KeyedColumnElement[Any], value: object) -> object:
    """A column's value for SET or WHERE: in pieces if it may be long."""
    length = getattr(column.type, "length", None) or 0
    if length <= PIECE:
        return value
    text = value if isinstance(value, str) else None
    binds = pieces(column.key, length, text).items()
    return reduce(add, (bindparam(name, piece, String(PIECE), unique=True) for name, piece in binds))


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
        number = padded(len(some))
        binds: dict[str, object] = {f"b_asked_{place}": int(place < len(some)) for place in range(number)}
        for place, key in enumerate([*some, *(some[-1] for _ in range(number - len(some)))]):
            binds |= {_name(column, place): value for column, value in zip(columns, key, strict=True)}
        rows += connection.execute(_of_each(part, columns, number, limit), binds)
    return rows


@cache  # building and compiling one takes long
def _of_each(part: Callable[..., AnySelect], columns: Columns, number: int, limit: int) -> CompoundSelect[Any]:
    """The parts of `number` keys. One that repeats the last key is not asked: Oracle plans by the values it sees."""
    return union_all(
        *(
            select(part(*(_bind(column, place) for column in columns)).limit(limit).subquery()).where(
                bindparam(f"b_asked_{place}", None, Integer) == literal_column("1")
            )
            for place in range(number)
        )
    )


def _bind(column: InstrumentedAttribute[Any], place: int) -> BindParameter[Any]:
    return bindparam(_name(column, place), None, column.type)


def _name(column: InstrumentedAttribute[Any], place: int) -> str:
    return f"b_{column.key}_{place}"
