"""The rules of Oracle's that the layer of types and names applies, with their sources.

A number's cause and action are on docs.oracle.com/error-help/db/ora-00932/ and so on; `page` is the chapter of the SQL
Language Reference (19c) that states the rule.
"""

from typing import NamedTuple

from tests.oracle_emulator.errors import OracleError


class Rule(NamedTuple):
    """An error's text, and the page with its rule."""

    text: str
    page: str


_NAMES, _CONVERSION = "Database Object Names and Qualifiers", "Data Conversion, Implicit"
_SELECT, _SETS, _GROUPS = "SELECT", "The UNION [ALL], INTERSECT, MINUS Operators", "SELECT, group_by_clause"
_ANALYTIC, _ARITHMETIC = "Analytic Functions", "Datetime/Interval Arithmetic"
_JOINS, _PSEUDO = "SELECT, join_clause", "Pseudocolumns"
RULES = {
    900: Rule("invalid SQL statement", _SELECT),
    903: Rule("invalid table name", _NAMES),
    904: Rule('"{0}": invalid identifier', _NAMES),
    905: Rule("missing keyword", _SELECT),
    906: Rule("missing left parenthesis", "CAST"),
    902: Rule("invalid datatype", "CAST"),
    907: Rule("missing right parenthesis", "Expressions"),
    908: Rule("missing NULL keyword", "Null Conditions"),
    909: Rule("invalid number of arguments", "Functions"),
    911: Rule("invalid character", "Operators"),
    913: Rule("too many values", "INSERT"),
    918: Rule("column ambiguously defined", _SELECT),
    920: Rule("invalid relational operator", "Conditions"),
    923: Rule("FROM keyword not found where expected", _SELECT),
    927: Rule("missing equal sign", "UPDATE"),
    928: Rule("missing SELECT keyword", "INSERT"),
    932: Rule("inconsistent datatypes: expected {0} got {1}", _CONVERSION),
    933: Rule("SQL command not properly ended", _SELECT),
    934: Rule("group function is not allowed here", "Aggregate Functions"),
    935: Rule("group function is nested too deeply", "Aggregate Functions"),
    936: Rule("missing expression", "Expressions"),
    937: Rule("not a single-group group function", _GROUPS),
    938: Rule("not enough arguments for function", "Functions"),
    939: Rule("too many arguments for function", "Functions"),
    942: Rule("table or view does not exist", _NAMES),
    947: Rule("not enough values", "INSERT"),
    957: Rule("duplicate column name", "INSERT"),
    960: Rule("ambiguous column naming in select list", "SELECT, order_by_clause"),
    969: Rule("missing ON keyword", "MERGE"),
    971: Rule("missing SET keyword", "UPDATE"),
    975: Rule("date + date not allowed", _ARITHMETIC),
    976: Rule("Specified pseudocolumn or operator not allowed here.", _PSEUDO),
    978: Rule("nested group function without GROUP BY", "Aggregate Functions"),
    979: Rule("not a GROUP BY expression", _GROUPS),
    984: Rule("column not allowed here", "INSERT"),
    1468: Rule("a predicate may reference only one outer-joined table", _JOINS),
    1704: Rule("string literal too long", "Text Literals"),
    1719: Rule("outer join operator (+) not allowed in operand of OR or IN", _JOINS),
    1722: Rule("invalid number", _CONVERSION),
    1747: Rule("invalid user.table.column, table.column, or column specification", _NAMES),
    1785: Rule("ORDER BY item must be the number of a SELECT-list expression", "SELECT, order_by_clause"),
    1786: Rule("FOR UPDATE of this query expression is not allowed", "SELECT, for_update_clause"),
    1788: Rule("CONNECT BY clause required in this query block", _PSEUDO),
    1789: Rule("query block has incorrect number of result columns", _SETS),
    1790: Rule("expression must have same datatype as corresponding expression", _SETS),
    1791: Rule("not a SELECTed expression", "SELECT, order_by_clause"),
    2014: Rule("cannot select FOR UPDATE from view with DISTINCT, GROUP BY, etc.", "SELECT, for_update_clause"),
    2287: Rule("sequence number not allowed here", _PSEUDO),
    22818: Rule("subquery expressions not allowed here", _GROUPS),
    25154: Rule("column part of USING clause cannot have qualifier", _JOINS),
    25155: Rule("column used in NATURAL join cannot have qualifier", _JOINS),
    25156: Rule("old style outer join (+) cannot be used with ANSI joins", _JOINS),
    30076: Rule("invalid extract field for extract source", "EXTRACT (datetime)"),
    30081: Rule("invalid data type for datetime/interval arithmetic", _ARITHMETIC),
    30087: Rule("Adding two datetime values is not allowed", _ARITHMETIC),
    30483: Rule("window functions are not allowed here", _ANALYTIC),
    30484: Rule("missing window specification for this function", _ANALYTIC),
    30485: Rule("missing ORDER BY expression in the window specification", _ANALYTIC),
    30563: Rule("outer join operator (+) is not allowed here", _JOINS),
    32039: Rule("recursive WITH clause must have column alias list", "SELECT, subquery_factoring_clause"),
    38104: Rule("Columns referenced in the ON Clause cannot be updated: {0}", "MERGE"),
}


def refused(code: int, *values: str) -> OracleError:
    """The error of a rule, to be raised."""
    return OracleError(code, RULES[code].text.format(*values))
