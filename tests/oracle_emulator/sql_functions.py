"""Oracle's functions that our statements call: the types of the arguments and of the result.

Each line is a name, the result and the arguments, as in chapters "Functions" and "Aggregate/Analytic Functions" of the
SQL Language Reference (19c). A function that is missing here is refused, and recorded as a failure of the emulator.
Arguments: n number, c text, d date or timestamp, s any but a LOB, x any.
Results: N number, C text, T timestamp, Z timestamp with time zone, R raw, L CLOB, B BLOB, 1 as the first argument,
t CLOB if the first argument is one, else text.
"""

from typing import NamedTuple


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


_SCALARS = _table("""
BITAND,POWER,MOD N nn
LOWER,UPPER t c
RPAD,LPAD t cnc
SUBSTR t cnn
REPLACE t ccc
LENGTH,LENGTHB N x
TO_CHAR C xcc
TO_TIMESTAMP T ccc
TO_TIMESTAMP_TZ Z ccc
SYS_EXTRACT_UTC T d
TO_CLOB L x
TO_BLOB B xc
HEXTORAW R c
SYS_CONTEXT C ccn
DBMS_LOB.GETLENGTH N x
DBMS_LOB.SUBSTR C xnn
DBMS_LOB.COMPARE N xxnnn
""")
AGGREGATES = _table("""
COUNT N s
SUM,AVG N n
MIN,MAX 1 s
""")
FUNCTIONS = _SCALARS | AGGREGATES
