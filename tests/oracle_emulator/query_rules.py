"""The columns of a query, and Oracle's refusals of its types, groups and locks, and of changes."""

from collections.abc import Container, Sequence

from sqlglot import exp

from tests.oracle_emulator.errors import Unsupported, refused
from tests.oracle_emulator.kinds import AGGREGATES, INSTANTS, LOBS, Kind
from tests.oracle_emulator.scopes import (
    Output,
    Scope,
    Source,
    World,
    aggregates,
    call_of,
    inside,
    name_of,
    resolve,
)
from tests.oracle_emulator.type_rules import check, comparable_alone, convert, type_of

_UNNAMED = ""  # an output that no name reaches


def query(tree: exp.Expr, parent: Scope | None, world: World) -> list[Output]:
    """The columns of a query in a scope. Raises OracleError if Oracle refuses it."""
    scope = Scope(world, lambda inner, around: query(inner, around, world), parent)
    scope.withs = dict(parent.withs) if parent else {}
    for cte in _list(tree.args.get("with_"), "expressions"):
        scope.withs[name_of(cte.args["alias"].this)] = _with(cte, scope)
    match tree:
        case exp.Subquery():
            return scope.query(tree.this, scope)
        case exp.SetOperation():
            return _set_operation(tree, scope)
        case exp.Select():
            return _select(tree, scope)
    raise unsupported(type(tree).__name__)


def source(item: exp.Expr, scope: Scope) -> Source:
    """A table or subquery in FROM."""
    alias = item.args.get("alias")
    name = name_of(alias.this) if alias is not None else ""
    match item:
        case exp.Table() if isinstance(item.this, exp.Identifier):
            own = name_of(item.this)
            if not item.args.get("db") and own in scope.withs:
                columns: Sequence[Output] = scope.withs[own]
            else:
                columns = scope.world.tables[table_key(item)]
                if not columns:
                    raise refused(942)
            return Source(name or own, columns)
        case exp.Table() if isinstance(item.this, exp.JSONTable):
            convert(Kind.CLOB, item.this.this, scope)  # of a table before it in FROM
            kinds = {exp.DType.VARCHAR: Kind.CHAR, exp.DType.DECIMAL: Kind.NUMBER}
            found = item.this.args["schema"].expressions
            return Source(name, [Output(name_of(each.this), kinds[each.args["kind"].this]) for each in found])
        case exp.Subquery():
            columns = scope.query(item, Scope(scope.world, scope.query, scope.parent, withs=scope.withs))
            return Source(name, _renamed(columns, alias))
    raise unsupported(f"{type(item).__name__} in FROM")


def change(tree: exp.Expr, world: World) -> None:
    """Checks INSERT, UPDATE or DELETE. Raises OracleError if Oracle refuses it."""
    scope = Scope(world, lambda inner, around: query(inner, around, world))
    match tree:
        case exp.Insert():
            _insert(tree, scope)
            return
        case exp.Update():
            scope.sources.append(source(tree.this, scope))
            _set(tree.expressions, scope)
        case exp.Delete():
            scope.sources.append(source(tree.this, scope))
        case _:
            raise unsupported(type(tree).__name__)
    where(tree.args["where"].this if tree.args.get("where") is not None else None, scope)


def _insert(tree: exp.Insert, scope: Scope) -> None:
    is_list = isinstance(tree.this, exp.Schema)
    target = source(tree.this.this if is_list else tree.this, scope)
    kinds = {each.name: each.kind for each in target.columns}
    wanted = [kinds.get(name_of(each), Kind.ANY) for each in tree.this.expressions] if is_list else [*kinds.values()]
    if isinstance(tree.expression, exp.Values):
        for row in tree.expression.expressions:
            for kind, value in zip(wanted, row.expressions, strict=False):
                convert(kind, value, scope)
        return
    for kind, column in zip(wanted, scope.query(tree.expression, scope), strict=False):
        _give(kind, column, scope)


def _give(to: Kind, column: Output, scope: Scope) -> None:
    """Refuses a query's column that is not stored as this type."""
    given = Scope(scope.world, scope.query, None, [Source("", [Output("X", column.kind)])])
    convert(to, exp.column("X", quoted=True), given)


def _set(assignments: Sequence[exp.Expr], scope: Scope) -> None:
    for each in assignments:
        forbid_groups(each.expression)
        if isinstance(each.this, exp.Tuple):
            for one, given in zip(each.this.expressions, scope.query(each.expression, scope), strict=True):
                _give(resolve(one, scope)[0], given, scope)
            continue
        convert(resolve(each.this, scope)[0], each.expression, scope)


def table_key(table: exp.Table) -> tuple[str, str]:
    """A table's owner, empty if not named, and name."""
    return name_of(table.args.get("db")), name_of(table.this)


def forbid_groups(node: exp.Expr) -> None:
    """Refuses group functions in a clause where they cannot be."""
    if aggregates(node):
        raise refused(934)


def where(node: exp.Expr | None, scope: Scope) -> None:
    """Checks a WHERE clause or a join's condition."""
    if node is not None:
        forbid_groups(node)
        check(node, scope)


def unsupported(what: str) -> Unsupported:
    """The error for a construct that no statement of ours has."""
    return Unsupported(900, f"invalid SQL statement (no rule is known for {what})")


def _not_lobs(columns: Sequence[Output]) -> None:
    """Refuses LOBs among columns that are compared or sorted."""
    for each in columns:
        if each.kind in LOBS:
            raise refused(932, "-", each.kind)


def _list(node: exp.Expr | None, key: str) -> list[exp.Expr]:
    return (node.args.get(key) or []) if node is not None else []


def _renamed(columns: Sequence[Output], alias: exp.Expr | None) -> list[Output]:
    names = [name_of(each) for each in _list(alias, "columns")]
    return [Output(name, each.kind) for name, each in zip(names, columns, strict=False)] if names else list(columns)


def _with(cte: exp.Expr, scope: Scope) -> list[Output]:
    """The columns of a query in WITH; a recursive one has those of its first part."""
    alias, own = cte.args["alias"], name_of(cte.args["alias"].this)
    uses = [each for each in cte.this.find_all(exp.Table) if name_of(each.this) == own and not each.args.get("db")]
    if uses and not _list(alias, "columns"):
        raise refused(32039)
    if uses and (not isinstance(cte.this, exp.Union) or cte.this.args.get("distinct")):
        raise refused(32040)
    if any(each.parent_select is not cte.this.right for each in uses):
        raise refused(32042)
    if uses:
        scope.withs[own] = _renamed(scope.query(cte.this.left, scope), alias)
    return _renamed(scope.query(cte.this, scope), alias)


def _set_operation(tree: exp.SetOperation, scope: Scope) -> list[Output]:
    left, right = scope.query(tree.left, scope), scope.query(tree.right, scope)
    kinds = []
    for one, other in zip(left, right, strict=True):
        both = {one.kind, other.kind} - {Kind.ANY}
        if len(both) > 1 and not both <= INSTANTS:
            raise refused(1790)
        kinds.append(other.kind if one.kind == Kind.ANY else one.kind)
    columns = [Output(each.name, kind) for each, kind in zip(left, kinds, strict=True)]
    if tree.args.get("distinct"):
        _not_lobs(columns)
    return columns


def _select(tree: exp.Select, scope: Scope) -> list[Output]:
    if any(tree.args.get(clause) is not None for clause in ("connect", "having", "qualify", "pivots", "windows")):
        raise unsupported("a clause of this query")
    if tree.args.get("distinct") is not None and tree.args["distinct"].args.get("on") is not None:
        raise refused(936)
    _from(tree, scope)
    where(tree.args["where"].this if tree.args.get("where") is not None else None, scope)
    columns = _outputs(tree, scope)
    orders = [each.this for each in _list(tree.args.get("order"), "expressions")]
    _check_groups(tree, orders, scope)
    if tree.args.get("distinct") is not None:
        _not_lobs(columns)
    for each in orders:
        _order_by(each, tree, columns, scope)
    for lock in tree.args.get("locks") or []:
        _check_lock(tree, lock, scope)
    return columns


def _from(tree: exp.Select, scope: Scope) -> None:
    if tree.args.get("from_") is None:
        return
    first = tree.args["from_"].this
    scope.sources.append(source(first, scope))
    for join in [*(tree.args.get("joins") or []), *(first.args.get("joins") or [])]:
        if join.args.get("using") or join.args.get("method"):
            raise unsupported("this join")
        scope.sources.append(source(join.this, scope))
        where(join.args.get("on"), scope)


def _outputs(tree: exp.Select, scope: Scope) -> list[Output]:
    """The columns of the select list."""
    found: list[Output] = []
    for item in tree.expressions:
        if item.is_star:
            owner = name_of(item.args.get("table"))
            found += [column for each in scope.sources if owner in {"", each.name} for column in each.columns]
        else:
            found.append(Output(_label(item), type_of(item, scope)))
    return found


def _label(item: exp.Expr) -> str:
    if isinstance(item, exp.Alias):
        return name_of(item.args["alias"])
    return name_of(item.this) if isinstance(item, exp.Column) else _UNNAMED


def _key(node: exp.Expr, scope: Scope) -> object:
    """The expression, equal for each way to write its columns."""
    node = node.unnest()
    if isinstance(node, exp.Column) and not isinstance(node.this, exp.Star):
        _, owner, _ = resolve(node, scope)
        return owner, name_of(node.this)
    if isinstance(node, exp.Query):
        return node.sql()
    parts = [
        [
            _key(each, scope) if isinstance(each, exp.Expr) else each
            for each in (value if type(value) is list else [value])
        ]
        for value in node.args.values()
        if value not in (None, False, [])
    ]
    return node.key, str(parts)


def _check_groups(tree: exp.Select, orders: Sequence[exp.Expr], scope: Scope) -> None:
    group = tree.args.get("group")
    aliases = {_label(each): each for each in tree.expressions if isinstance(each, exp.Alias)}
    names = aliases if scope.world.release >= 23 else {}
    keys: list[exp.Expr] = []
    for each in _list(group, "expressions"):
        item = names.get(name_of(each.this), each) if isinstance(each, exp.Column) else each
        forbid_groups(item)
        if each.find(exp.Query):
            raise refused(22818)
        comparable_alone(item, scope)
        keys.append(item.unalias())
    sorted_by = [each for each in orders if not _is_output(each, aliases) and not isinstance(each, exp.Literal)]
    values = [*tree.expressions, *sorted_by]
    if group is None and not any(map(aggregates, values)):
        return
    known = [_key(each, scope) for each in keys]
    if any(_loose(each, known, scope, names) for each in values):
        raise refused(979 if group is not None else 937)


def _loose(node: exp.Expr, keys: Sequence[object], scope: Scope, names: Container[str]) -> bool:
    """Whether an expression has a column that is neither grouped nor in a group function."""
    if isinstance(node, exp.Query) or call_of(node) in AGGREGATES or _is_output(node, names):
        return False
    if node.is_star:
        return True
    if keys and _key(node, scope) in keys:
        return False
    if isinstance(node, exp.Column):
        return resolve(node, scope)[2] or name_of(node.this) in {"ROWNUM", "ROWID"}
    return any(_loose(each, keys, scope, names) for each in node.iter_expressions())


def _is_output(node: exp.Expr, names: Container[str]) -> bool:
    return isinstance(node, exp.Column) and not node.args.get("table") and name_of(node.this) in names


def _order_by(node: exp.Expr, tree: exp.Select, columns: Sequence[Output], scope: Scope) -> None:
    if isinstance(node, exp.Literal):  # the position of a column
        _not_lobs(columns[int(node.name) - 1 :][:1])
        return
    items = {_label(each): each.unalias() for each in tree.expressions if isinstance(each, exp.Alias)}
    comparable_alone(items[name_of(node.this)] if _is_output(node, items) else node, scope)


def _check_lock(tree: exp.Select, lock: exp.Expr, scope: Scope) -> None:
    if tree.args.get("limit") is not None or tree.args.get("offset") is not None:
        raise refused(2014)
    if any(aggregates(each) for each in tree.expressions) or tree.args.get("group") or tree.args.get("distinct"):
        raise refused(1786)
    if any(_is_view(each, limited=_has_rownum(tree)) for each in _from_items(tree)):
        raise refused(2014)
    for each in lock.args.get("expressions") or []:
        resolve(exp.Column(this=each.this, table=each.args.get("db")), scope)


def _from_items(tree: exp.Expr) -> list[exp.Expr]:
    """The queries in FROM: subqueries, and those of WITH."""
    items = [each.this for each in [tree.args.get("from_"), *(tree.args.get("joins") or [])] if each is not None]
    withs = {name_of(each.args["alias"].this): each.this for each in tree.root().find_all(exp.CTE)}
    found = [withs.get(name_of(each.this)) if isinstance(each, exp.Table) else each.unnest() for each in items]
    return [each for each in found if each is not None]


def _is_view(inner: exp.Expr, *, limited: bool) -> bool:
    """Whether a row of a query is not one row of a table. `limited`: the query around it has ROWNUM."""
    if isinstance(inner, exp.SetOperation) or (limited and inner.args.get("order") is not None):
        return True
    if any(inner.args.get(key) is not None for key in ("distinct", "group", "limit")) or _has_rownum(inner):
        return True
    if any(map(aggregates, inner.expressions)):
        return True
    return any(_is_view(each, limited=limited) for each in _from_items(inner))


def _has_rownum(tree: exp.Expr) -> bool:
    parts = [*tree.expressions, *([tree.args["where"]] if tree.args.get("where") is not None else [])]
    return any(
        isinstance(each, exp.Column) and name_of(each.this) == "ROWNUM" for part in parts for each in inside(part)
    )
