"""The names that an expression can use, and the columns behind them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from sqlglot import exp

from tests.oracle_emulator.errors import Unsupported, refused
from tests.oracle_emulator.kinds import AGGREGATES, Kind

_PSEUDO = {"ROWNUM": Kind.NUMBER, **dict.fromkeys(("ROWID", "USER", "DBTIMEZONE", "SESSIONTIMEZONE"), Kind.CHAR)}
_QUALIFIED = {"ROWID"}


class Output(NamedTuple):
    """A column of a query or table."""

    name: str
    kind: Kind


class Source(NamedTuple):
    """A table or subquery in FROM, by its alias."""

    name: str
    columns: Sequence[Output]


class World(NamedTuple):
    """The facts that decide a statement's types: tables by owner and name, binds, and the release."""

    tables: Mapping[tuple[str, str], Sequence[Output]]
    binds: Mapping[str, Kind]
    release: int


@dataclass
class Scope:
    """The names that an expression can use. `query` gives the columns of a subquery in a scope."""

    world: World
    query: "Callable[[exp.Expr, Scope | None], list[Output]]"
    parent: "Scope | None" = None
    sources: list[Source] = field(default_factory=list)
    withs: dict[str, list[Output]] = field(default_factory=dict)


def name_of(node: exp.Expr | None) -> str:
    """An identifier as Oracle stores it."""
    if not isinstance(node, exp.Identifier):
        return node.name.upper() if node is not None else ""
    return node.name if node.quoted else node.name.upper()


def inside(node: exp.Expr) -> Iterator[exp.Expr]:
    """The node and all below it, without subqueries."""
    yield node
    for child in node.iter_expressions():
        if not isinstance(child, exp.Query):
            yield from inside(child)


def call_of(node: exp.Expr) -> str:
    """The name of the function that a node calls; empty for other nodes."""
    return str(node.this).upper() if isinstance(node, exp.Anonymous) else ""


def aggregates(node: exp.Expr) -> list[exp.Expr]:
    """The calls of group functions in an expression."""
    return [each for each in inside(node) if call_of(each) in AGGREGATES]


def resolve(column: exp.Column, scope: Scope) -> tuple[Kind, str, bool]:
    """A column's type, its source's name, and whether that is the query's own; no name for a pseudo-column."""
    name, table = name_of(column.this), name_of(column.args.get("table"))
    if column.args.get("join_mark"):
        raise Unsupported(900, "invalid SQL statement (no rule is known for outer joins by (+))")
    level: Scope | None = scope
    while level is not None:
        sources = [source for source in level.sources if table in {"", source.name}]
        hits = [(source.name, each.kind) for source in sources for each in source.columns if each.name == name]
        if len(hits) > 1:
            raise refused(918)
        if hits:
            return hits[0][1], hits[0][0], level is scope
        if table and sources and name not in _QUALIFIED:
            break
        level = level.parent
    if name in _PSEUDO and not column.this.quoted and (not table or name in _QUALIFIED):
        return _PSEUDO[name], "", False
    raise refused(904, f'{table}"."{name}' if table else name)
