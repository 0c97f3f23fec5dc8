"""Oracle's functions that our statements call: how many arguments, of which types, and the result's type.

Each line is a name, the result and the arguments, as in chapters "Functions" and "Aggregate/Analytic Functions" of the
SQL Language Reference (19c). A function that is missing here is refused, and recorded as a failure of the emulator.
Arguments: n number, c text, d date or timestamp, s any but a LOB, x any; `?`: optional.
Results: N number, C text, T timestamp, Z timestamp with time zone, R raw, L CLOB, B BLOB, 1 as the first argument,
t CLOB if the first argument is one, else text.
"""

from typing import NamedTuple


class Function(NamedTuple):
    """A function's result, and the kinds of its arguments."""

    result: str
    needed: str
    optional: str


def _table(lines: str) -> dict[str, Function]:
    found = {}
    for line in lines.strip().splitlines():
        names, result, *kinds = line.split()
        needed = "".join(kind for kind in kinds if len(kind) == 1)
        optional = "".join(kind[0] for kind in kinds if len(kind) > 1)
        found.update(dict.fromkeys(names.split(","), Function(result, needed, optional)))
    return found


SCALARS = _table("""
BITAND,POWER,MOD N n n
LOWER,UPPER t c
RPAD,LPAD t c n c?
SUBSTR t c n n?
REPLACE t c c c?
LENGTH,LENGTHB N x
TO_CHAR C x c? c?
TO_TIMESTAMP T c c? c?
TO_TIMESTAMP_TZ Z c c? c?
SYS_EXTRACT_UTC T d
TO_CLOB L x
TO_BLOB B x c?
HEXTORAW R c
SYS_CONTEXT C c c n?
DBMS_LOB.GETLENGTH N x
DBMS_LOB.SUBSTR C x n? n?
DBMS_LOB.COMPARE N x x n? n? n?
""")
AGGREGATES = _table("""
COUNT N s
SUM,AVG N n
MIN,MAX 1 s
""")
FUNCTIONS = SCALARS | AGGREGATES | _table("COALESCE 1 x")
MOST_OF_COALESCE = 65535
