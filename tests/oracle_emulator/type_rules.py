"""The type of an expression, and Oracle's refusals of types that do not go together."""

import re
from collections.abc import Sequence

from sqlglot import exp

from tests.oracle_emulator.errors import Unsupported
from tests.oracle_emulator.kinds import CONVERTS, INSTANTS, LOBS, Kind, alike, comparable
from tests.oracle_emulator.rules import refused
from tests.oracle_emulator.scopes import Output, Scope, call_of, is_analytic, resolve
from tests.oracle_emulator.sql_functions import ANALYTIC, CONDITIONS, COUNTS, FUNCTIONS, NEED_ORDER

_RESULTS = {
    "N": Kind.NUMBER,
    "C": Kind.CHAR,
    "D": Kind.DATE,
    "T": Kind.TIMESTAMP,
    "Z": Kind.TIMESTAMP_TZ,
    "R": Kind.RAW,
    "L": Kind.CLOB,
    "B": Kind.BLOB,
    "I": Kind.INTERVAL,
}
_ARGUMENTS = {"n": Kind.NUMBER, "c": Kind.CHAR, "d": Kind.TIMESTAMP}
_CASTS = {
    **dict.fromkeys(("DECIMAL", "INT", "SMALLINT", "FLOAT", "DOUBLE"), Kind.NUMBER),
    **dict.fromkeys(("VARCHAR", "CHAR", "NVARCHAR", "NCHAR"), Kind.CHAR),
    "DATE": Kind.DATE,
    "TIMESTAMP": Kind.TIMESTAMP,
    **dict.fromkeys(("TIMESTAMPTZ", "TIMESTAMPLTZ"), Kind.TIMESTAMP_TZ),
    "TEXT": Kind.CLOB,
    "BLOB": Kind.BLOB,
    "BOOLEAN": Kind.BOOLEAN,
    "INTERVAL": Kind.INTERVAL,
}
_FIXED: dict[type[exp.Expr], Kind] = {
    exp.Null: Kind.ANY,
    exp.National: Kind.CHAR,
    exp.RawString: Kind.CHAR,
    exp.Systimestamp: Kind.TIMESTAMP_TZ,
    exp.CurrentDate: Kind.DATE,
    exp.Localtimestamp: Kind.TIMESTAMP,
    exp.DateStrToDate: Kind.DATE,
    exp.Interval: Kind.INTERVAL,
    exp.Rand: Kind.NUMBER,
    exp.Boolean: Kind.BOOLEAN,
    exp.Star: Kind.ANY,
    exp.CurrentUser: Kind.CHAR,
}
_FIELDS = {"YEAR", "MONTH", "DAY"}  # EXTRACT's, from a DATE
_OPERATORS: dict[type[exp.Binary], str] = {exp.Add: "+", exp.Sub: "-", exp.Mul: "*", exp.Div: "/"}
_LETTERS = {Kind.DATE: "D", Kind.TIMESTAMP: "T", Kind.TIMESTAMP_TZ: "T", Kind.INTERVAL: "I"}
_DATETIME_ARITHMETIC = {
    Kind.NUMBER: {"D-D"},
    Kind.INTERVAL: {"D-T", "T-D", "T-T", "I+I", "I-I", "I*N", "N*I", "I/N"},
    Kind.DATE: {"D+N", "N+D", "D-N", "T+N", "N+T", "T-N"},
    Kind.TIMESTAMP: {"D+I", "I+D", "D-I", "T+I", "I+T", "T-I"},  # the type of the one moved
}
_REFUSED_ARITHMETIC = {
    "D+D": 975,
    **dict.fromkeys(("T+T", "D+T", "T+D"), 30087),
    **dict.fromkeys(("I+N", "N+I", "I-N", "N-I"), 30081),
}
_COMPARISONS = (exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE)
_TESTS = (*_COMPARISONS, exp.And, exp.Or, exp.Not, exp.Is, exp.In, exp.Between, exp.Like, exp.Escape, exp.Exists)
_FOREIGN_TESTS = (exp.NullSafeEQ, exp.NullSafeNEQ, exp.Glob, exp.SimilarTo, exp.RegexpLike, exp.ILike)
_BIT_OPERATORS = (exp.Mod, exp.BitwiseAnd, exp.BitwiseXor, exp.BitwiseOr, exp.BitwiseNot)
_NUMBER = re.compile(r"\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\s*$")
_ZONE = re.compile(r"[+-]\d\d?:\d\d$|[A-Za-z]$")


def type_of(node: exp.Expr, scope: Scope) -> Kind:  # noqa: C901, PLR0911, PLR0912 (one case for each construct)
    """The type of a value. Raises OracleError if Oracle refuses it, Unsupported for an unknown construct."""
    if (kind := _FIXED.get(type(node))) is not None:
        return kind
    match node:
        case exp.Literal():
            return Kind.CHAR if node.is_string else Kind.NUMBER
        case exp.Placeholder():
            return scope.world.binds.get(node.name, Kind.ANY)
        case exp.Column():
            return resolve(node, scope)[0]
        case exp.Paren() | exp.Alias() | exp.Prior():
            return type_of(node.this, scope)
        case exp.CurrentTimestamp():
            return Kind.DATE if node.args.get("sysdate") else Kind.TIMESTAMP_TZ
        case exp.StrToTime():
            return Kind.TIMESTAMP_TZ if _ZONE.search(node.name) else Kind.TIMESTAMP
        case exp.Neg():
            return convert(Kind.NUMBER, node.this, scope)
        case exp.Add() | exp.Sub() | exp.Mul() | exp.Div():
            return _arithmetic(node, scope)
        case exp.DPipe():
            kinds = {convert(Kind.CHAR, node.left, scope), convert(Kind.CHAR, node.right, scope)}
            return Kind.CLOB if Kind.CLOB in kinds else Kind.CHAR
        case exp.Trim():
            return Kind.CLOB if convert(Kind.CHAR, node.this, scope) == Kind.CLOB else Kind.CHAR
        case exp.AtTimeZone():
            convert(Kind.TIMESTAMP_TZ, node.this, scope)
            return Kind.TIMESTAMP_TZ
        case exp.Case():
            return _case(node, scope)
        case exp.Cast():
            return _cast(node, scope)
        case exp.Extract():
            return _extract(node, scope)
        case exp.Subquery():
            return one_column(node, scope)
        case exp.Anonymous():
            return _call(node, scope)
        case exp.Dot() if isinstance(node.expression, exp.Anonymous):
            return _call(node.expression, scope)
        case exp.Window() | exp.WithinGroup():
            return _window(node, scope)
        case exp.Distinct():
            kinds_of = [comparable_alone(each, scope) for each in node.expressions]
            if len(kinds_of) > 1:
                raise refused(909)
            return kinds_of[0]
        case exp.Var():  # DEFAULT
            return Kind.ANY
    if isinstance(node, _TESTS + _FOREIGN_TESTS):
        check(node, scope)
        if scope.world.release < 23:
            in_list = isinstance(node.parent, exp.Select | exp.Alias)
            raise refused(923 if in_list else 907 if isinstance(node.parent, exp.Anonymous | exp.Paren) else 933)
        return Kind.BOOLEAN
    if isinstance(node, _BIT_OPERATORS):
        raise refused(911)
    raise Unsupported(900, f"invalid SQL statement (no type is known for {type(node).__name__})")


def check(node: exp.Expr, scope: Scope) -> None:  # noqa: C901, PLR0912 (one case for each construct)
    """Checks a condition."""
    match node:
        case exp.And() | exp.Or():
            check(node.left, scope)
            check(node.right, scope)
        case exp.Not() | exp.Paren() | exp.Escape():
            check(node.this, scope)
        case exp.Exists():
            scope.query(node.this, scope)
        case exp.Is():
            if not isinstance(node.expression, exp.Null | exp.JSON) and scope.world.release < 23:
                raise refused(908)
            type_of(node.this, scope)
        case exp.Between():
            for each in (node.args["low"], node.args["high"]):
                compare(node.this, each, scope)
        case exp.In():
            query = node.args.get("query")
            if node.args.get("field") is not None or node.args.get("unnest") is not None:
                raise refused(907)
            for each in [query] if query is not None else node.expressions:
                compare(node.this, each, scope)
        case exp.Like():
            for each in (node.this, node.expression):
                convert(Kind.CHAR, each, scope)
        case _ if isinstance(node, _COMPARISONS):
            compare(node.this, node.expression, scope)
        case _ if isinstance(node, _FOREIGN_TESTS):
            raise refused(908 if isinstance(node, exp.NullSafeEQ | exp.NullSafeNEQ) else 920)
        case _:
            if call_of(node) in CONDITIONS:
                type_of(node, scope)
            elif type_of(node, scope) != Kind.BOOLEAN:
                raise refused(920)


def compare(left: exp.Expr, right: exp.Expr, scope: Scope) -> None:
    """Checks that two values, or lists of them, can be compared: page "Comparison Conditions"."""
    left, right = _bare(left), _bare(right)
    if isinstance(right, exp.Any | exp.All):
        right = right.this
    if isinstance(right, exp.Anonymous) and call_of(right) in {"ALL", "ANY", "SOME"}:
        for each in right.expressions:
            compare(left, each, scope)
        return
    if isinstance(left, exp.Tuple):
        _compare_lists(left.expressions, right, scope)
        return
    kinds = _scalar(left, scope), _scalar(right, scope)
    comparable(*kinds)
    if Kind.NUMBER in kinds and (_is_no_number(left) or _is_no_number(right)):
        raise refused(1722)


def one_column(query: exp.Expr, scope: Scope) -> Kind:
    """The type of a subquery's only column."""
    columns = _of_subquery(query, 1, scope)
    return columns[0].kind


def comparable_alone(node: exp.Expr, scope: Scope) -> Kind:
    """The type of a value that is sorted, grouped or made distinct, which LOBs are not."""
    kind = type_of(node, scope)
    if kind in LOBS:
        raise refused(932, "-", kind)
    return kind


def _bare(node: exp.Expr) -> exp.Expr:
    """The node without parentheses around it; a subquery stays one."""
    while isinstance(node, exp.Paren):
        node = node.this
    return node


def _scalar(node: exp.Expr, scope: Scope) -> Kind:
    return one_column(node, scope) if isinstance(node, exp.Query) else type_of(node, scope)


def _compare_lists(left: Sequence[exp.Expr], right: exp.Expr, scope: Scope) -> None:
    if isinstance(right, exp.Query):
        kinds = [each.kind for each in _of_subquery(right, len(left), scope)]
        for one, kind in zip(left, kinds, strict=True):
            comparable(type_of(one, scope), kind)
    elif isinstance(right, exp.Tuple):
        if len(right.expressions) != len(left):
            raise refused(913 if len(right.expressions) > len(left) else 947)
        for one, other in zip(left, right.expressions, strict=True):
            compare(one, other, scope)
    else:
        raise refused(920)


def _of_subquery(query: exp.Expr, count: int, scope: Scope) -> list[Output]:
    columns = scope.query(query, scope)
    if len(columns) != count:
        raise refused(913 if len(columns) > count else 947)
    inner = query.unnest()
    if inner.args.get("order") is not None and inner.args.get("limit") is None and inner.args.get("offset") is None:
        raise refused(907)
    return columns


def convert(to: Kind, node: exp.Expr, scope: Scope) -> Kind:
    """The type of a value, which is refused if Oracle does not convert it to another one, as to store it."""
    kind = type_of(node, scope)
    if kind not in {to, Kind.ANY} and kind not in CONVERTS[to]:
        raise refused(932, to, kind)
    if to == Kind.NUMBER and _is_no_number(node):
        raise refused(1722)
    return kind


def _is_no_number(node: exp.Expr) -> bool:
    return isinstance(node, exp.Literal) and node.is_string and not _NUMBER.match(node.name) and node.name != ""


def _arithmetic(node: exp.Add | exp.Sub | exp.Mul | exp.Div, scope: Scope) -> Kind:
    """The type of a sum or product: table "Matrix of Datetime Arithmetic"."""
    left, right = type_of(node.left, scope), type_of(node.right, scope)
    operation = _LETTERS.get(left, "N") + _OPERATORS[type(node)] + _LETTERS.get(right, "N")
    if operation[0] == operation[2] == "N":
        for each in (node.left, node.right):
            convert(Kind.NUMBER, each, scope)
        return Kind.NUMBER
    if operation in _REFUSED_ARITHMETIC:
        raise refused(_REFUSED_ARITHMETIC[operation])
    for kind, operations in _DATETIME_ARITHMETIC.items():
        if operation in operations and not {left, right} & (LOBS | {Kind.RAW}):
            moved = kind == Kind.TIMESTAMP
            return left if moved and left in INSTANTS else right if moved else kind
    raise refused(932, Kind.NUMBER, left if left in INSTANTS else right)


def _case(node: exp.Case, scope: Scope) -> Kind:
    """Results are of one type, and so are the value and those that it is compared with: page "CASE Expressions"."""
    for each in node.args["ifs"]:
        if node.this is None:
            check(each.this, scope)
        else:
            compare(node.this, each.this, scope)
            alike([type_of(node.this, scope), type_of(each.this, scope)])
    default = node.args.get("default")
    results = [each.args["true"] for each in node.args["ifs"]] + ([default] if default is not None else [])
    return alike([type_of(each, scope) for each in results])


def _cast(node: exp.Cast, scope: Scope) -> Kind:
    to = node.args["to"]
    name = to.this.name if to.this != exp.DType.USERDEFINED else ""
    kind = Kind.RAW if str(to.args.get("kind", "")).upper() == "RAW" else _CASTS.get(name)
    if kind is None or (kind == Kind.BOOLEAN and scope.world.release < 23):
        raise refused(902)
    if name == "VARCHAR" and not to.expressions:
        raise refused(906)
    before = type_of(node.this, scope)
    if kind == Kind.CLOB or before in {kind, Kind.ANY} or before in CONVERTS[kind]:
        return kind
    raise refused(932, kind, before)


def _extract(node: exp.Extract, scope: Scope) -> Kind:
    kind, part = type_of(node.expression, scope), node.name.upper()
    if kind not in INSTANTS | {Kind.INTERVAL, Kind.ANY} or (kind == Kind.DATE and part not in _FIELDS):
        raise refused(30076)
    return Kind.CHAR if part in {"TIMEZONE_REGION", "TIMEZONE_ABBR"} else Kind.NUMBER


def _window(node: exp.Expr, scope: Scope) -> Kind:
    if is_analytic(node) and call_of(node.this) in NEED_ORDER and node.args.get("order") is None:
        raise refused(30485)
    for each in [*node.args.get("partition_by", []), *_ordered(node)]:
        comparable_alone(each, scope)
    return type_of(node.this, scope)


def _ordered(node: exp.Expr) -> list[exp.Expr]:
    order = node.args.get("order") or node.args.get("expression")
    return [each.this for each in order.expressions] if isinstance(order, exp.Order) else []


def _call(node: exp.Anonymous, scope: Scope) -> Kind:
    name, arguments = call_of(node), node.expressions
    if name not in FUNCTIONS:
        raise Unsupported(904, f'"{name}": invalid identifier')
    function = FUNCTIONS[name]
    if name in ANALYTIC and not isinstance(node.parent, exp.Window | exp.WithinGroup):
        raise refused(30484)
    if any(isinstance(each, exp.Star) for each in arguments) and name != "COUNT":
        raise refused(936)
    needed = len(function.needed)
    fewest, most = COUNTS.get(name, (needed, needed + len(function.optional)))
    if not fewest <= len(arguments) <= most:
        raise refused(909 if fewest == most else 938 if len(arguments) < fewest else 939)
    if name in COUNTS:
        return _of_several(name, arguments, scope)
    kinds = [_argument(*each, scope) for each in zip(arguments, function.needed + function.optional, strict=False)]
    if function.result == "t":
        return Kind.CLOB if kinds[0] == Kind.CLOB else Kind.CHAR
    if name in {"ROUND", "TRUNC"} and kinds[0] != Kind.ANY:
        return Kind.DATE if kinds[0] in INSTANTS else Kind.NUMBER
    return kinds[0] if function.result == "1" else _RESULTS[function.result]


def _argument(argument: exp.Expr, wanted: str, scope: Scope) -> Kind:
    if wanted in _ARGUMENTS:
        return convert(_ARGUMENTS[wanted], argument, scope)
    return type_of(argument, scope) if wanted == "x" else comparable_alone(argument, scope)


def _of_several(name: str, arguments: Sequence[exp.Expr], scope: Scope) -> Kind:
    """The type of a call whose arguments' types depend on one another: pages "NVL", "DECODE" and so on."""
    results = list(arguments)
    if name == "DECODE":
        results = [*arguments[2::2], *(arguments[-1:] if len(arguments) % 2 == 0 else [])]
        for each in arguments[1:-1:2]:
            compare(arguments[0], each, scope)
    elif name == "NVL2":
        type_of(results.pop(0), scope)
    elif name == "NULLIF":
        compare(arguments[0], arguments[1], scope)
    kinds = [type_of(each, scope) for each in results]
    if name in {"COALESCE", "NULLIF"}:
        return alike(kinds)
    lob = next((kind for kind in kinds if kind in LOBS), None)
    if lob and (name in {"GREATEST", "LEAST"} or (name == "DECODE" and kinds[0] not in LOBS)):
        raise refused(932, kinds[0], lob)
    for each in results[1:]:
        convert(kinds[0], each, scope)
    return next((kind for kind in kinds if kind != Kind.ANY), Kind.ANY)
