"""Oracle's refusals of INSERT, UPDATE, DELETE and MERGE."""

from collections import Counter
from collections.abc import Sequence

from sqlglot import exp

from tests.oracle_emulator.errors import Unsupported
from tests.oracle_emulator.kinds import Kind
from tests.oracle_emulator.query_rules import forbid, query, source, where
from tests.oracle_emulator.rules import refused
from tests.oracle_emulator.scopes import Output, Scope, Source, World, name_of
from tests.oracle_emulator.type_rules import convert, one_column


def change(tree: exp.Expr, world: World) -> None:
    """Checks a change. Raises OracleError if Oracle refuses it."""
    scope = Scope(world, lambda inner, around: query(inner, around, world))
    if tree.args.get("with_") is not None:
        raise refused(928)
    if isinstance(tree, exp.Update | exp.Delete):
        if tree.this and tree.this.args.get("joins"):
            raise refused(971)
        if any(tree.args.get(key) for key in ("from_", "using", "order", "limit")):
            raise refused(933)
    match tree:
        case exp.Insert():
            _insert(tree, scope)
        case exp.Update():
            scope.sources.append(source(tree.this, scope))
            _set(tree.expressions, scope.sources[0], scope)
            _where(tree, scope)
        case exp.Delete():
            target = tree.this or tree.args["tables"][0]
            scope.sources.append(source(target, scope))
            _where(tree, scope)
        case exp.Merge():
            _merge(tree, scope)
        case _:
            raise Unsupported(900, f"invalid SQL statement (no rule is known for {type(tree).__name__})")


def _where(tree: exp.Expr, scope: Scope) -> None:
    if tree.args.get("where") is not None:
        where(tree.args["where"].this, scope)


def _insert(tree: exp.Insert, scope: Scope) -> None:
    table = tree.this.this if isinstance(tree.this, exp.Schema) else tree.this
    target = source(table, scope)
    names = [name_of(each) for each in tree.this.expressions] if isinstance(tree.this, exp.Schema) else []
    kinds = _targets(names, target) if names else [each.kind for each in target.columns]
    if isinstance(tree.expression, exp.Values):
        for row in tree.expression.expressions:
            _values(row.expressions, kinds, scope)
        return
    columns = scope.query(tree.expression, scope)
    _same_number(len(kinds), len(columns))
    for kind, column in zip(kinds, columns, strict=True):
        given = Scope(scope.world, scope.query, None, [Source("", [Output("X", column.kind)])])
        convert(kind, exp.column("X", quoted=True), given)


def _values(values: Sequence[exp.Expr], kinds: Sequence[Kind], scope: Scope) -> None:
    _same_number(len(kinds), len(values))
    for kind, value in zip(kinds, values, strict=True):
        forbid(value, 934, 30483)
        for column in value.find_all(exp.Column):
            if column.find_ancestor(exp.Query) is None and not scope.sources:
                name = name_of(column.this)
                if name in {"ROWNUM", "LEVEL"}:
                    raise refused(976)
                if name not in {"NEXTVAL", "CURRVAL", "USER", "UID", "DBTIMEZONE", "SESSIONTIMEZONE"}:
                    raise refused(984)
        convert(kind, value, scope)


def _same_number(wanted: int, given: int) -> None:
    if wanted != given:
        raise refused(947 if given < wanted else 913)


def _targets(names: Sequence[str], target: Source) -> list[Kind]:
    """The types of the columns that are set, each once."""
    kinds = {each.name: each.kind for each in target.columns}
    for name in names:
        if name not in kinds:
            raise refused(904, name)
    if max(Counter(names).values()) > 1:
        raise refused(957)
    return [kinds[name] for name in names]


def _set(assignments: Sequence[exp.Expr], target: Source, scope: Scope) -> list[str]:
    """Checks the assignments, and returns the columns that they set."""
    names: list[str] = []
    for each in assignments:
        if not isinstance(each, exp.EQ):
            raise refused(927)
        columns = each.this.expressions if isinstance(each.this, exp.Tuple) else [each.this]
        for column in columns:
            if column.args.get("table") is not None and name_of(column.args["table"]) != target.name:
                raise refused(904, name_of(column.args["table"]))
        new = [name_of(column.this) for column in columns]
        kinds = _targets(new, target)
        names += new
        if isinstance(each.this, exp.Tuple):
            if not isinstance(each.expression, exp.Query):
                raise refused(920)
            _same_number(len(kinds), len(scope.query(each.expression, scope)))
        elif not (isinstance(each.expression, exp.Column) and name_of(each.expression.this) == "DEFAULT"):
            forbid(each.expression, 934, 30483)
            if isinstance(each.expression, exp.Subquery):
                one_column(each.expression, scope)
            convert(kinds[0], each.expression, scope)
    _targets(names, target)
    return names


def _merge(tree: exp.Merge, scope: Scope) -> None:
    if not isinstance(tree.args["on"], exp.Paren):
        raise refused(969)
    target, using = source(tree.this, scope), source(tree.args["using"], scope)
    scope.sources += [target, using]
    where(tree.args["on"].this, scope)
    joined = {
        name_of(each.this)
        for each in tree.args["on"].find_all(exp.Column)
        if name_of(each.args.get("table")) == target.name
    }
    for when in tree.args["whens"].expressions:
        then = when.args["then"]
        if when.args.get("condition") is not None or when.args.get("source") or isinstance(then, exp.Var):
            raise refused(905)
        if isinstance(then, exp.Update):
            for name in _set(then.expressions, target, scope):
                if name in joined:
                    raise refused(38104, name)
        elif isinstance(then, exp.Insert):
            names = [name_of(each.this) for each in then.this.expressions] if then.this is not None else []
            kinds = _targets(names, target) if names else [each.kind for each in target.columns]
            only = Scope(scope.world, scope.query, None, [using])
            _values(then.expression.expressions, kinds, only)
        _where(then, scope)
