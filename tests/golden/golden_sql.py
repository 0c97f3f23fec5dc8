"""The SQL that Oracle receives, kept as readable files: docs/sql/oracle. `make sql` writes them anew.

`migrations.sql` is the output of `alembic upgrade head --sql`. The others have each statement that `consumer` issues,
as the driver sent it to an emulated server, apart from line breaks. `tests.golden.golden_check` looks up the statements
issued during tests.
"""

import re
import sys
from pathlib import Path
from typing import NamedTuple

import sqlglot
from sqlglot import exp

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "sql" / "oracle"
MIGRATIONS = FOLDER / "migrations.sql"
SESSION = FOLDER / "session.sql"  # statements of SQLAlchemy, and commands that sqlglot cannot parse
COMMAND = "make sql"
OTHERS = ("tests", "alembic", "consumer/demo")  # code whose statements no service issues
ANY_OF_THESE = "A call has only the requested conditions."


class Issued(NamedTuple):
    """A statement, and the function that issued it: `ledger.store.park`."""

    function: str
    sql: str


class Known(NamedTuple):
    """Canonical statements; those with optional conditions also as the rest and the conditions."""

    exact: frozenset[str]
    loose: tuple[tuple[str, frozenset[str]], ...]

    def has(self, sql: str) -> bool:
        """Whether a file has this statement, with lists of any length and any of the optional conditions."""
        if canonical(sql) in self.exact:
            return True
        rest, conditions = without_conditions(sql)
        return any(rest == other and conditions <= allowed for other, allowed in self.loose)


def issuer() -> str | None:
    """For a listener: the `consumer` function that is issuing a statement; None for other code."""
    frame = sys._getframe(2)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if any(path.is_relative_to(ROOT / each) for each in OTHERS):
            return None
        if path.is_relative_to(ROOT / "consumer"):
            module = ".".join(path.relative_to(ROOT / "consumer").with_suffix("").parts)
            return f"{module}.{frame.f_code.co_qualname.split('.<')[0]}"
        frame = frame.f_back  # type: ignore[assignment]  # None in the end
    return None


def known() -> Known:
    """The statements in the files."""
    exact: set[str] = set()
    loose: list[tuple[str, frozenset[str]]] = []
    for path in sorted(FOLDER.glob("*.sql")):
        if path in (MIGRATIONS, SESSION):
            continue
        for block in blocks(path.read_text()):
            sql = bare(block)
            exact.add(canonical(sql))
            if ANY_OF_THESE in block:
                loose.append(without_conditions(sql))
    return Known(frozenset(exact), tuple(loose))


def blocks(text: str) -> list[str]:
    """The statements of a file with their comments; not for migrations.sql."""
    return [block for block in text.split("\n;\n") if block.strip()]


def bare(block: str) -> str:
    """The statement without its comments."""
    return "\n".join(line for line in block.splitlines() if not line.startswith("--")).strip()


def canonical(sql: str) -> str:
    """A statement without differences between calls: list lengths, row limits, numbers in names, repeated parts."""
    return _canonical(sql).sql(dialect="oracle")


def readable(sql: str) -> str:
    """The statement with line breaks and indents."""
    body, returning, targets = sql.partition(" RETURNING ")  # sqlglot drops INTO
    pretty = sqlglot.parse_one(body, dialect="oracle").sql(dialect="oracle", pretty=True)
    pretty = re.sub(r"NOT (\S+) IS NULL", r"\1 IS NOT NULL", pretty).replace(" <> ", " != ")
    if returning:
        pretty += f"\nRETURNING {targets}"
    if _letters(pretty) != _letters(sql):
        raise ValueError(f"sqlglot writes another statement:\n{pretty}\n{sql}")
    return pretty


def _letters(sql: str) -> str:
    return re.sub(r"\s+", "", sql).lower()


def _canonical(sql: str) -> exp.Expr:
    tree = sqlglot.parse_one(re.split(r"\sRETURNING\s", sql)[0], dialect="oracle")
    for bind in tree.find_all(exp.Placeholder):
        bind.set("this", re.sub(r"(_\d+)+$", "", bind.name))
    for listed in tree.find_all(exp.In):
        # Lists of values or of tuples.
        if all(isinstance(each, exp.Placeholder | exp.Tuple) for each in listed.expressions):
            listed.set("expressions", listed.expressions[:1])
    for either in reversed(list(tree.find_all(exp.Or))):  # one long list, split into lists that Oracle accepts
        if isinstance(either.left, exp.In) and either.left == either.right:
            either.replace(either.left)
    for paren in list(tree.find_all(exp.Paren)):
        if isinstance(paren.this, exp.In):
            paren.replace(paren.this)
    for compared in tree.find_all(exp.LTE):
        if compared.left.sql() == "ROWNUM":
            compared.set("expression", exp.Literal.number(1))
    return _without_repetitions(tree)


def _without_repetitions(tree: exp.Expr) -> exp.Expr:
    """A UNION ALL with each part once: those of many subscriptions are equal."""
    for name in tree.find_all(exp.Identifier):
        name.set("this", re.sub(r"^anon_\d+$", "anon", name.name))
    for union in reversed(list(tree.find_all(exp.Union))):  # the innermost first
        if union.right in _parts(union.left):
            if union is tree:
                return union.left
            union.replace(union.left)
    return tree


def _parts(tree: exp.Expr) -> list[exp.Expr]:
    return [*_parts(tree.left), tree.right] if isinstance(tree, exp.Union) else [tree]


def without_conditions(sql: str) -> tuple[str, frozenset[str]]:
    """A statement without its WHERE clauses, and all their conditions."""
    tree = _canonical(sql)
    conditions: set[str] = set()
    for where in reversed(list(tree.find_all(exp.Where))):  # the innermost first
        parts = where.this.flatten() if isinstance(where.this, exp.And) else (where.this,)
        conditions.update(each.sql(dialect="oracle") for each in parts)
        where.pop()
    return tree.sql(dialect="oracle"), frozenset(conditions)
