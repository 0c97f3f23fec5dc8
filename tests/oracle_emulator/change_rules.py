"""Oracle's refusals of INSERT, UPDATE and DELETE."""

from collections import Counter
from collections.abc import Sequence

from sqlglot import exp

from tests.oracle_emulator.kinds import Kind
from tests.oracle_emulator.query_rules import forbid_groups, query, source, unsupported, where
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
        case _:
            raise unsupported(type(tree).__name__)


def _where(tree: exp.Expr, scope: Scope) -> None:
    if tree.args.get("where") is not None:
        where(tree.args["where"].this, scope)


def _insert(tree: exp.Insert, scope: Scope) -> None:
    table = tree.this.this if isinstance(tree.this, exp.Schema) else tree.this
    target = source(table, scope)
    names = [name_of(each) for each in tree.this.expressions] if isinstance(tree.this, exp.Schema) else []
    kinds = _targets(names, target) if names else [each.kind for each in target.columns]
    if tree.args.get("conflict") is not None:
        raise refused(933 if scope.world.release < 23 else 3048)
    if isinstance(tree.expression, exp.Values):
        if len(tree.expression.expressions) > 1 and scope.world.release < 23:
            raise refused(933)
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
        forbid_groups(value)
        for column in value.find_all(exp.Column):
            if column.find_ancestor(exp.Query) is None and not scope.sources:
                name = name_of(column.this)
                if name not in {"USER", "DBTIMEZONE", "SESSIONTIMEZONE"}:
                    raise refused(976 if name == "ROWNUM" else 984)
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


def _set(assignments: Sequence[exp.Expr], target: Source, scope: Scope) -> None:
    """Checks the assignments."""
    names: list[str] = []
    for each in assignments:
        if not isinstance(each, exp.EQ):
            raise refused(927)
        column = each.this
        if not isinstance(column, exp.Column):
            raise unsupported(f"SET of a {type(column).__name__}")
        if column.args.get("table") is not None and name_of(column.args["table"]) != target.name:
            raise refused(904, name_of(column.args["table"]))
        names.append(name_of(column.this))
        (kind,) = _targets(names[-1:], target)
        if not (isinstance(each.expression, exp.Column) and name_of(each.expression.this) == "DEFAULT"):
            forbid_groups(each.expression)
            if isinstance(each.expression, exp.Subquery):
                one_column(each.expression, scope)
            convert(kind, each.expression, scope)
    _targets(names, target)
