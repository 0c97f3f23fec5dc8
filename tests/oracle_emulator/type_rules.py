"""The type of an expression, and Oracle's refusals of types that do not go together.

A construct that no statement of ours has is Unsupported: refused, and recorded as a failure of the emulator.
"""

import re
from collections.abc import Sequence

from sqlglot import exp

from tests.oracle_emulator.definitions import refuse_digits
from tests.oracle_emulator.errors import Unsupported, refused
from tests.oracle_emulator.kinds import CONVERTS, FUNCTIONS, INSTANTS, LOBS, Kind, alike, comparable
from tests.oracle_emulator.scopes import Output, Scope, call_of, resolve

_RESULTS = {
    "N": Kind.NUMBER,
    "C": Kind.CHAR,
    "T": Kind.TIMESTAMP,
    "Z": Kind.TIMESTAMP_TZ,
}
_ARGUMENTS = {"n": Kind.NUMBER, "c": Kind.CHAR, "d": Kind.TIMESTAMP}
_CASTS = {
    **dict.fromkeys(("DECIMAL", "INT", "FLOAT"), Kind.NUMBER),
    **dict.fromkeys(("VARCHAR", "CHAR"), Kind.CHAR),
    "DATE": Kind.DATE,
    "TIMESTAMP": Kind.TIMESTAMP,
    **dict.fromkeys(("TIMESTAMPTZ", "TIMESTAMPLTZ"), Kind.TIMESTAMP_TZ),
    "TEXT": Kind.CLOB,
    "BLOB": Kind.BLOB,
}
_FIXED: dict[type[exp.Expr], Kind] = {
    exp.Null: Kind.ANY,
    exp.National: Kind.CHAR,
    exp.Systimestamp: Kind.TIMESTAMP_TZ,
    exp.DateStrToDate: Kind.DATE,
    exp.Interval: Kind.INTERVAL,
    exp.Star: Kind.ANY,
    exp.CurrentUser: Kind.CHAR,
}
_COMPARISONS = (exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE)
_TESTS = (*_COMPARISONS, exp.And, exp.Or, exp.Not, exp.Is, exp.In, exp.Between, exp.Like, exp.Escape, exp.Exists)
_DATE = re.compile(r"\d{4}-\d\d-\d\d\b")
_ZONE = re.compile(r"[+-]\d\d?:\d\d$|[A-Za-z]$")


def type_of(node: exp.Expr, scope: Scope) -> Kind:  # noqa: C901, PLR0911, PLR0912 (one case for each construct)
    """The type of a value. Raises OracleError if Oracle refuses it, Unsupported for an unknown construct."""
    if (kind := _FIXED.get(type(node))) is not None:
        return kind
    match node:
        case exp.Literal():
            return Kind.CHAR if node.is_string else Kind.NUMBER
        case exp.Boolean():
            return _boolean(node, scope)
        case exp.Placeholder():
            return scope.world.binds.get(node.name, Kind.ANY)
        case exp.Column():
            return resolve(node, scope)[0]
        case exp.Paren() | exp.Alias():
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
        case exp.Case():
            return _case(node, scope)
        case exp.Cast():
            return _cast(node, scope)
        case exp.Subquery():
            return one_column(node, scope)
        case exp.Anonymous():
            return _call(node, scope)
        case exp.Distinct() if len(node.expressions) == 1:
            return comparable_alone(node.expressions[0], scope)
        case exp.Var():  # DEFAULT
            return Kind.ANY
    if isinstance(node, _TESTS):
        check(node, scope)
        return _boolean(node, scope)
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
            type_of(node.this, scope)
        case exp.Between():
            for each in (node.args["low"], node.args["high"]):
                compare(node.this, each, scope)
        case exp.In():
            query = node.args.get("query")
            for each in [query] if query is not None else node.expressions:
                compare(node.this, each, scope)
        case exp.Like():
            for each in (node.this, node.expression):
                convert(Kind.CHAR, each, scope)
        case _ if isinstance(node, _COMPARISONS):
            if isinstance(node.this, exp.Tuple) and not isinstance(node, exp.EQ | exp.NEQ):
                raise refused(1796)
            if isinstance(node.this, exp.Tuple) and isinstance(node.expression, exp.Tuple):  # ((1, 2)) is right
                raise refused(920)
            compare(node.this, node.expression, scope)
        case _:
            if type_of(node, scope) != Kind.BOOLEAN:
                raise refused(920)


def compare(left: exp.Expr, right: exp.Expr, scope: Scope) -> None:
    """Checks that two values, or lists of them, can be compared: page "Comparison Conditions"."""
    left, right = _bare(left), _bare(right)
    if isinstance(left, exp.Tuple):
        _compare_lists(left.expressions, right, scope)
        return
    kinds = _scalar(left, scope), _scalar(right, scope)
    comparable(*kinds)
    if INSTANTS & set(kinds) and (_is_date(left, scope) or _is_date(right, scope)):
        raise refused(1843)


def one_column(query: exp.Expr, scope: Scope) -> Kind:
    """The type of a subquery's only column."""
    return _of_subquery(query, scope)[0].kind


def comparable_alone(node: exp.Expr, scope: Scope) -> Kind:
    """The type of a value that is sorted, grouped or made distinct, which LOBs are not."""
    kind = type_of(node, scope)
    if kind in LOBS:
        raise refused(932, "-", kind)
    return kind


def convert(to: Kind, node: exp.Expr, scope: Scope) -> Kind:
    """The type of a value, which is refused if Oracle does not convert it to another one, as to store it."""
    kind = type_of(node, scope)
    if kind not in {to, Kind.ANY} and kind not in CONVERTS[to]:
        raise refused(932, to, kind)
    if to in INSTANTS and _is_date(node, scope):
        raise refused(1843)
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
        for one, other in zip(left, _of_subquery(right, scope), strict=True):
            comparable(type_of(one, scope), other.kind)
    else:
        for one, value in zip(left, right.expressions, strict=True):
            compare(one, value, scope)


def _of_subquery(query: exp.Expr, scope: Scope) -> list[Output]:
    columns = scope.query(query, scope)
    inner = query.unnest()
    if inner.args.get("order") is not None and inner.args.get("limit") is None and inner.args.get("offset") is None:
        raise refused(907)
    return columns


def _is_date(node: exp.Expr, scope: Scope) -> bool:
    """Whether this is a text such as '2026-01-02', for which Oracle's NLS_…_FORMAT differs, or a bind of text."""
    if isinstance(node, exp.Placeholder):
        return scope.world.binds.get(node.name) == Kind.CHAR
    return isinstance(node, exp.Literal) and node.is_string and bool(_DATE.match(node.name))


def _boolean(node: exp.Expr, scope: Scope) -> Kind:
    """The type of a condition as a value, which 23ai introduced."""
    if scope.world.release < 23:
        raise refused(904, node.sql().upper())
    return Kind.BOOLEAN


def _arithmetic(node: exp.Add | exp.Sub | exp.Mul | exp.Div, scope: Scope) -> Kind:
    """The type of a sum or product: table "Matrix of Datetime Arithmetic"."""
    left, right = type_of(node.left, scope), type_of(node.right, scope)
    if not {left, right} & (INSTANTS | {Kind.INTERVAL}):
        for each in (node.left, node.right):
            convert(Kind.NUMBER, each, scope)
        return Kind.NUMBER
    if left in INSTANTS and isinstance(node, exp.Add | exp.Sub):
        if right == Kind.INTERVAL:
            return left
        if right in {Kind.NUMBER, Kind.ANY}:
            return Kind.DATE
        if right in INSTANTS and isinstance(node, exp.Add):
            raise refused(975 if left == right == Kind.DATE else 30087)
        if right in INSTANTS:
            return Kind.NUMBER if left == right == Kind.DATE else Kind.INTERVAL
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
    if kind is None:
        raise refused(902)
    if kind == Kind.NUMBER and name == "DECIMAL" and to.expressions:
        refuse_digits([each.name for each in to.expressions])
    if name == "VARCHAR" and not to.expressions:
        raise refused(906)
    before = type_of(node.this, scope)
    if kind == Kind.CLOB or before in {kind, Kind.ANY} or before in CONVERTS[kind]:
        return kind
    raise refused(932, kind, before)


def _call(node: exp.Anonymous, scope: Scope) -> Kind:
    name, arguments = call_of(node), node.expressions
    if name == "COALESCE" and len(arguments) < 2:
        raise refused(938)
    if name == "COALESCE":
        return alike([type_of(each, scope) for each in arguments])
    if name not in FUNCTIONS:
        raise Unsupported(904, f'"{name}": invalid identifier')
    function = FUNCTIONS[name]
    kinds = [_argument(*each, scope) for each in zip(arguments, function.arguments, strict=False)]
    if function.result == "t":
        return Kind.CLOB if kinds[0] == Kind.CLOB else Kind.CHAR
    return kinds[0] if function.result == "1" else _RESULTS[function.result]


def _argument(argument: exp.Expr, wanted: str, scope: Scope) -> Kind:
    if wanted in _ARGUMENTS:
        return convert(_ARGUMENTS[wanted], argument, scope)
    return type_of(argument, scope) if wanted == "x" else comparable_alone(argument, scope)
