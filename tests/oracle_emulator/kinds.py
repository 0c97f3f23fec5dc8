"""Oracle's types, and which of them go together: pages "Data Type Comparison Rules" and "Data Conversion".

Below, the functions that our statements call, with the types of their arguments and results.
"""

from collections.abc import Sequence
from enum import StrEnum
from itertools import pairwise
from typing import NamedTuple

from tests.oracle_emulator.errors import refused


class Kind(StrEnum):
    """Types that Oracle treats alike, by the name that an error gives them."""

    NUMBER = "NUMBER"
    CHAR = "CHAR"
    CLOB = "CLOB"
    BLOB = "BLOB"
    RAW = "BINARY"
    DATE = "DATE"
    TIMESTAMP = "TIMESTAMP"
    TIMESTAMP_TZ = "TIMESTAMP WITH TIME ZONE"
    INTERVAL = "INTERVAL"
    BOOLEAN = "BOOLEAN"
    ANY = "-"  # NULL, and what the emulator's dictionary does not know


LOBS = {Kind.CLOB, Kind.BLOB}
INSTANTS = {Kind.DATE, Kind.TIMESTAMP, Kind.TIMESTAMP_TZ}
# The implicit conversions: table "Implicit Type Conversion Matrix".
CONVERTS = {
    Kind.NUMBER: {Kind.CHAR},
    Kind.CHAR: set(Kind) - {Kind.BLOB},
    Kind.CLOB: {Kind.CHAR},
    Kind.BLOB: {Kind.RAW, Kind.CHAR},
    Kind.RAW: {Kind.CHAR, Kind.BLOB},
    **dict.fromkeys(INSTANTS, INSTANTS | {Kind.CHAR}),
    Kind.INTERVAL: {Kind.CHAR},
    Kind.BOOLEAN: {Kind.CHAR, Kind.NUMBER},
    Kind.ANY: set(Kind),
}


def alike(kinds: Sequence[Kind]) -> Kind:
    """The type of several results that must be of one type, as of CASE and COALESCE; NULL goes with all."""
    known = [kind for kind in kinds if kind != Kind.ANY]
    for one, other in pairwise(known):
        if one != other:
            raise refused(932, one, other)
    return known[0] if known else Kind.ANY


def comparable(left: Kind, right: Kind) -> None:
    """Refuses two types that cannot be compared."""
    for kind in (left, right):
        if kind in LOBS:
            raise refused(932, "-", kind)
    if left == right or {left, right} & {Kind.ANY, Kind.CHAR} or {left, right} <= INSTANTS:
        return
    if {left, right} == {Kind.BOOLEAN, Kind.NUMBER}:
        return
    raise refused(932, left, right)


class Function(NamedTuple):
    """A function's result, and the kinds of its arguments."""

    result: str
    arguments: str


def _table(lines: str) -> dict[str, Function]:
    found = {}
    for line in lines.strip().splitlines():
        names, result, arguments = line.split()
        found.update(dict.fromkeys(names.split(","), Function(result, arguments)))
    return found


# Each line is a name, the result and the arguments, as in chapters "Functions" and "Aggregate/Analytic Functions" of
# the SQL Language Reference (19c). A missing function is refused, and recorded as a failure of the emulator.
# Arguments: n number, c text, d date or timestamp, s any but a LOB, x any.
# Results: N number, C text, T timestamp, Z timestamp with time zone, 1 as the first argument,
# t CLOB if the first argument is one, else text.
_SCALARS = _table("""
LOWER,UPPER t c
RPAD t cnc
LENGTH N x
TO_TIMESTAMP_TZ Z cc
SYS_EXTRACT_UTC T d
SYS_CONTEXT C cc
""")
AGGREGATES = _table("""
COUNT N s
SUM,AVG N n
MIN,MAX 1 s
""")
FUNCTIONS = _SCALARS | AGGREGATES
