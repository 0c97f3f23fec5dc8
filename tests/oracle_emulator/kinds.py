"""Oracle's types, and which of them go together: pages "Data Type Comparison Rules" and "Data Conversion"."""

from collections.abc import Sequence
from enum import StrEnum
from itertools import pairwise

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
