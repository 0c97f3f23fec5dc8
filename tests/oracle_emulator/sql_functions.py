"""Oracle's functions: how many arguments, of which types, and the result's type.

Each line is a name, the result and the arguments, as in chapters "Functions" and "Aggregate/Analytic Functions" of the
SQL Language Reference (19c). A function that is missing here is refused, and recorded as a failure of the emulator.
Arguments: n number, c text, d date or timestamp, s any but a LOB, x any; `?`: optional.
Results: N number, C text, D date, T timestamp, Z timestamp with time zone, R raw, L CLOB, B BLOB, I interval,
1 as the first argument, t CLOB if the first argument is one, else text.
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
ABS,CEIL,FLOOR,SIGN,SQRT,EXP,LN,SIN,COS,TAN,ASIN,ACOS,ATAN,SINH,COSH,TANH N n
MOD,POWER,REMAINDER,LOG,BITAND,ATAN2,NANVL N n n
ROUND,TRUNC 1 s s?
TO_BINARY_DOUBLE,TO_BINARY_FLOAT,ASCII N c
WIDTH_BUCKET N n n n n
LOWER,UPPER,INITCAP,SOUNDEX,ASCIISTR,UNISTR t c
NLS_LOWER,NLS_UPPER,NLS_INITCAP t c c?
NLSSORT R s c?
LTRIM,RTRIM t c c?
LPAD,RPAD t c n c?
SUBSTR,SUBSTRB,SUBSTRC t c n n?
REPLACE t c c c?
TRANSLATE t c c c
CONCAT t c c
CHR C n
INSTR,INSTRB,INSTRC N c c n? n?
LENGTH,LENGTHB,LENGTHC,VSIZE N x
REGEXP_LIKE C c c c?
REGEXP_REPLACE t c c c? n? n? c?
REGEXP_SUBSTR t c c n? n? c? n?
REGEXP_INSTR N c c n? n? n? c? n?
REGEXP_COUNT N c c n? c?
TO_CHAR,TO_NCHAR C x c? c?
TO_NUMBER N c c? c?
TO_DATE D c c? c?
TO_TIMESTAMP T c c? c?
TO_TIMESTAMP_TZ Z c c? c?
TO_DSINTERVAL,TO_YMINTERVAL I c
NUMTODSINTERVAL,NUMTOYMINTERVAL I n c
TO_CLOB,TO_NCLOB L x n? c?
TO_LOB L x
TO_BLOB B x c?
EMPTY_CLOB L
EMPTY_BLOB B
HEXTORAW,CHARTOROWID R c
RAWTOHEX,ROWIDTOCHAR,RAWTONHEX C x
ADD_MONTHS D d n
MONTHS_BETWEEN N d d
LAST_DAY D d
NEXT_DAY D d c
NEW_TIME D d c c
SYS_EXTRACT_UTC T d
FROM_TZ Z d c
TZ_OFFSET C c
SYS_GUID R
SYS_CONTEXT C c c n?
USERENV C c
ORA_HASH N s n? n?
STANDARD_HASH R s c?
DUMP C x n? n? n?
LNNVL C x
NVL,NVL2,COALESCE,DECODE,NULLIF,GREATEST,LEAST 1 x
GROUPING N x
SYS_CONNECT_BY_PATH C c c
DBMS_LOB.GETLENGTH N x
DBMS_LOB.SUBSTR C x n? n?
DBMS_LOB.INSTR N x x n? n?
DBMS_LOB.COMPARE N x x n? n? n?
DBMS_TRANSACTION.LOCAL_TRANSACTION_ID C n?
""")
AGGREGATES = _table("""
COUNT,APPROX_COUNT_DISTINCT N s
SUM,AVG,MEDIAN,STDDEV,STDDEV_POP,STDDEV_SAMP,VARIANCE,VAR_POP,VAR_SAMP N n
MIN,MAX,ANY_VALUE,STATS_MODE 1 s
PERCENTILE_CONT,PERCENTILE_DISC N n
CORR,COVAR_POP,COVAR_SAMP N n n
LISTAGG C c c?
""")
ANALYTIC = _table("""
ROW_NUMBER,RANK,DENSE_RANK,PERCENT_RANK,CUME_DIST N
NTILE,RATIO_TO_REPORT N n
LAG,LEAD 1 x n? x?
FIRST_VALUE,LAST_VALUE 1 x
NTH_VALUE 1 x n
""")
FUNCTIONS = SCALARS | AGGREGATES | ANALYTIC
# Arguments of those whose types depend on one another: the fewest and the most.
COUNTS = {
    "NVL": (2, 2),
    "NVL2": (3, 3),
    "NULLIF": (2, 2),
    "COALESCE": (2, 65535),
    "DECODE": (3, 255),
    "GREATEST": (1, 65535),
    "LEAST": (1, 65535),
}
CONDITIONS = {"REGEXP_LIKE", "LNNVL"}  # conditions in the form of calls
NEED_ORDER = {"ROW_NUMBER", "RANK", "DENSE_RANK", "PERCENT_RANK", "CUME_DIST", "NTILE", "LAG", "LEAD"}
