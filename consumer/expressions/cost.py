"""Decides which expressions are permitted, and bounds how long one takes on an event. Pure.

The runtime ends an evaluation after 10,000 loop iterations, and limits nothing else. So permitted expressions are
simple: no nested loops, each loop over a field, a literal list or another loop's list, and patterns that are short
literals. The time of such an expression is a polynomial of two numbers: the weight of the fields that it reads, and the
length of the longest list or map in them.
"""

import re
from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import NamedTuple

ACCUMULATOR = "@result"  # the runtime's variable of a loop, which no author can write
MOST_SEARCHED = 100  # characters of the text that `contains` searches for: it compares them at each position

Path = tuple[str, ...]  # a variable, followed by the names of nested fields


# A syntax tree, with only the parts that affect the cost. The runtime serializes an expression as a
# `cel.expr.CheckedExpr` (https://github.com/google/cel-spec, proto/cel/expr) in Protobuf's wire format. The numbers are
# field numbers of these messages.


class Kind(IntEnum):
    """The kinds of an Expr, as numbered there."""

    CONSTANT = 3
    NAME = 4
    SELECT = 5
    CALL = 6
    LIST = 7
    MAP = 8
    LOOP = 9


class Node(NamedTuple):
    """A part of an expression.

    `text`: a constant's text (None: it is not a text), a name, a selected field, a function or an operator (`_+_`),
    a message's type (empty: a map), or the variable of a loop. `parts`: operands, the one before the dot first;
    elements; keys and values; of a loop its range, the accumulator's first value, and the step that gives the next.
    """

    kind: Kind
    text: str | None = None
    parts: "tuple[Node, ...]" = ()


def parse(checked: bytes) -> Node:
    """Parse the result of `cel.Expression.serialize`, a CheckedExpr in an Any, into a tree."""
    return _node(_first(_first(checked, 2), 4))


# For each kind the numbers of the fields with its text and with its parts.
_FIELDS: Mapping[int, tuple[int | None, tuple[int, ...]]] = {
    Kind.CONSTANT: (6, ()),
    Kind.NAME: (1, ()),
    Kind.SELECT: (2, (1,)),
    Kind.CALL: (2, (1, 3)),
    Kind.LIST: (None, (1,)),
    Kind.MAP: (1, (2,)),
    Kind.LOOP: (1, (2, 4, 6)),
}


def _node(message: bytes) -> Node:
    for number, value in _fields(message):
        if number in _FIELDS:
            text, numbers = _FIELDS[number]
            fields = list(_fields(value))
            parts = [part for wanted in numbers for each, part in fields if each == wanted]
            if number == Kind.MAP:
                parts = [part for entry in parts for each, part in _fields(entry) if each in (3, 4)]  # key and value
            texts = (part.decode() for each, part in fields if each == text)
            return Node(Kind(number), next(texts, None), tuple(map(_node, parts)))
    return Node(Kind.CONSTANT)


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """The numbers and values of the message's length-delimited fields; its numeric fields are not needed here."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        match tag & 7:
            case 0:
                _, position = _varint(message, position)
            case 1:
                position += 8
            case 2:
                length, position = _varint(message, position)
                yield tag >> 3, message[position : position + length]
                position += length
            case kind:
                raise ValueError(f"a field has wire type {kind}")


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:  # noqa: PLR2004 (the bit that says that more follows)
            return value, position
        shift += 7


def _first(message: bytes, number: int) -> bytes:
    return next((value for each, value in _fields(message) if each == number), b"")


class Size(NamedTuple):
    """The size of what an evaluation reads: values, bytes of text, and entries of the longest list or map."""

    values: int = 0
    text: int = 0
    longest: int = 0


class Amount(NamedTuple):
    """A sum of products; compared by the products that grow fastest.

    `weight`: values, with 16 bytes of text as one value, since scanning them takes as long. `turns`: iterations of a
    loop, at most the longest list.
    """

    turns_times_weight: float = 0
    weight: float = 0
    turns: float = 0
    fixed: float = 0

    def __add__(self, other: tuple[float, ...]) -> "Amount":  # type: ignore[override]  # not a concatenation
        return Amount(*(mine + its for mine, its in zip(self, other, strict=True)))

    def __mul__(self, factor: float) -> "Amount":  # type: ignore[override]  # not a repetition
        return Amount(*(factor * each for each in self))

    def at(self, weight: int, turns: int) -> float:
        """The sum, where the weight and the number of turns are these."""
        product, by_weight, by_turns, fixed = self
        return turns * (weight * product + by_turns) + weight * by_weight + fixed


# Costs in nanoseconds, measured on the slowest operation of each kind.
_READ = 250  # per value, to read it and pass it to the runtime
_READ_TEXT = 1.5  # per byte of text, the same
_CALL = 500  # per operation on small values
_SCAN = 40  # per unit of weight that an operation scans
_SEARCH = 4  # `contains` costs this many scans
_ELEMENT = 14  # times turns squared: `map` and `filter` copy their list so far for each element that they add
_TAKE_BACK = 500  # per value returned from the runtime
_COMPILE = 350  # per state of a pattern, in each evaluation
_MATCH = 6 * 16  # per state of a pattern and unit of weight of the text

_LOGICAL = frozenset(("_&&_", "_||_", "!_", "_?_:_", "dyn"))  # scan nothing
_COMPARISONS = frozenset(("_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_"))  # scan no more than the smaller operand has
_AS_LARGE = frozenset(("_?_:_", "dyn", "_+_", "_[_]", "string", "bytes"))  # their value may hold all operands

# Patterns are RE2's: https://github.com/google/re2/wiki/Syntax.
MOST_CHARACTERS = 100
MOST_STATES = 400  # of a pattern's automaton: these compile in 0.1 ms, in each evaluation
_NARROW, _WIDE = 5, 10  # states of a class of ASCII, and of another class, an escape or a dot: UTF-8 has several bytes
_FOLDED = 4  # factor without regard to case: a letter then stands for all letters that fold to it
_PART = re.compile(
    r"""(?P<group>\((?:\?:)?) | (?P<end>\)) | (?P<count>\{(?P<least>\d+)(?:,(?P<most>\d*))?\}) | (?P<more>[*+?|^$])
    | (?P<narrow>\[(?!\^)[ -Z^-~]+\] | \\[dsw])
    | (?P<wide>\[\^?\]?(?:\\.|\[:\^?[a-z]+:\]|[^\]\\])*\] | \\(?:x\{[0-9A-Fa-f]+\}|x[0-9A-Fa-f]{2}|\w) | \.)
    | \\?.""",
    re.VERBOSE | re.DOTALL,
)
_NOT_PERMITTED = re.compile(r"\\[pPQCX0-9]|\(\?(?!:)")

_ZONE = re.compile(r"[+-]?\d\d:\d\d|[A-Za-z_]+(?:/[A-Za-z0-9_+-]+)*")  # the runtime opens a file with this name


class Shape:
    """The cost of an expression, as a function of an event's size.

    `path`: the field, if the expression is only a field. `fields`: the fields of the event that it reads. `paths`: the
    same, but none within another. `patterns`: its regular expressions.
    """

    def __init__(self, tree: Node, container: str, *, is_boolean: bool) -> None:
        """`container`: the prefix of variables' names. ValueError, with the reason, if the tree is not permitted."""
        self._container = container
        self.fields: set[Path] = set()
        self._turns = 0  # the elements of the longest literal list that a loop goes over
        self._loops_that_build = 0
        self._cost = Amount()
        self.patterns: list[str] = []
        value = self._visit(tree, _Outside)
        if not is_boolean:
            self._cost += value * (_TAKE_BACK + _SCAN)
        self.path = self._path_of(tree)
        self.paths = tuple(
            path for path in self.fields if not any(path[:length] in self.fields for length in range(1, len(path)))
        )

    def seconds(self, size: Size) -> float:
        """The expression's maximum time, in seconds, where the fields that it reads have this size."""
        values, text, longest = size
        turns = max(self._turns, longest)
        cost = self._cost.at(values + text // 16, turns) + values * _READ + text * _READ_TEXT
        return (cost + self._loops_that_build * turns * turns * _ELEMENT) / 1e9

    def _visit(self, node: Node, scope: "_Scope") -> Amount:
        """Add the cost of a part of the tree. Returns the weight of its value, in a loop that of all turns together."""
        if (path := self._path_of(node, scope.variable)) is not None:
            if path[0] == scope.variable:
                return scope.element
            self.fields.add(path)
            return scope.field
        if node.kind is Kind.LOOP:
            return self._loop(node, scope)
        if node.kind is Kind.MAP and node.text:
            raise ValueError(f"messages, such as {node.text}, are not permitted")
        weights = [self._visit(part, scope) for part in node.parts]
        total = sum(weights, Amount())
        match node.kind:
            case Kind.CONSTANT | Kind.NAME:
                return scope.once * (0 if node.text == ACCUMULATOR else 1 + len((node.text or "").encode()) // 16)
            case Kind.CALL:
                return self._call(node, weights, total, scope)
            case Kind.SELECT:
                self._cost += scope.once * _CALL
        return total + scope.once * len(weights)

    def _call(self, node: Node, weights: list[Amount], total: Amount, scope: "_Scope") -> Amount:
        function, last = node.text or "", node.parts[-1]
        self._cost += scope.once * _CALL
        if function in _COMPARISONS:
            self._cost += min(weights) * _SCAN
        elif function == "matches":
            states = self._states(last)
            self._cost += scope.once * (states * _COMPILE) + weights[0] * (states * _MATCH)
        elif function == "contains":
            if last.kind is not Kind.CONSTANT or len(last.text or "") > MOST_SEARCHED:
                raise ValueError(f"contains takes a text in quotes, of up to {MOST_SEARCHED} characters")
            self._cost += weights[0] * (_SEARCH * _SCAN)
        elif function not in _LOGICAL:
            self._cost += total * _SCAN
        is_zone = last.kind is Kind.CONSTANT and _ZONE.fullmatch(last.text or "")
        if function.startswith("get") and len(node.parts) > 1 and not is_zone:
            raise ValueError(f"{function} takes a time zone in quotes, as in time.{function}('Europe/Berlin')")
        return total if function in _AS_LARGE else scope.once

    def _states(self, pattern: Node) -> int:
        if pattern.kind is not Kind.CONSTANT or pattern.text is None:
            raise ValueError("matches takes a pattern in quotes, as in type.matches('^order')")
        self.patterns.append(pattern.text)
        return states_of(pattern.text)

    def _loop(self, loop: Node, scope: "_Scope") -> Amount:
        over, start, step = loop.parts
        if scope is not _Outside:
            raise ValueError("a loop in a loop is not permitted; 'x' in list searches a list")
        if self._path_of(over) is None and over.kind not in (Kind.LIST, Kind.LOOP):
            raise ValueError("a loop goes over a field of the event, a list literal, or a filter of one of these")
        self._turns = max(self._turns, len(over.parts) if over.kind is Kind.LIST else 0)
        inside = _Scope(loop.text, self._visit(over, scope), Amount(turns_times_weight=1), Amount(turns=1))
        value = self._visit(step, inside)
        if start.kind is Kind.LIST:  # `map` or `filter`
            self._loops_that_build += 1
            return value
        return scope.once

    def _path_of(self, node: Node, variable: str | None = None) -> Path | None:
        """The path of a node that is a field of the event or of the loop's element, called `variable`; else None."""
        match node:
            case Node(Kind.NAME, str(name)):
                return (name,) if name.startswith(self._container) or name == variable else None
            case Node(Kind.SELECT, str(name), (operand,)) | Node(
                Kind.CALL, "_[_]", (operand, Node(Kind.CONSTANT, str(name)))
            ):
                path = self._path_of(operand, variable)
                return None if path is None else (*path, name)
        return None


class _Scope(NamedTuple):
    """Where an operation is: outside of loops, or in a loop; then all amounts are those of all turns together.

    `variable`: the name of the loop's `element`. `field`: the weight of a field of the event. `once`: a small value.
    """

    variable: str | None
    element: Amount
    field: Amount
    once: Amount


_Outside = _Scope(None, Amount(), Amount(weight=1), Amount(fixed=1))


def states_of(pattern: str) -> int:
    """The maximum number of states of the pattern's automaton. Raises ValueError, with advice, if that is too many."""
    if len(pattern) > MOST_CHARACTERS:
        raise ValueError(f"a pattern has at most {MOST_CHARACTERS} characters, this one has {len(pattern)}")
    folded = pattern.startswith("(?i)")
    pattern = pattern.removeprefix("(?i)")
    if found := _NOT_PERMITTED.search(pattern):
        raise ValueError(
            f"a pattern may not hold {found[0]}: write a class such as [a-z] or \\w, (?:…) for a group,"
            " and (?i) only at the start"
        )
    groups, last = [0], 0  # the states of each open group, and of the last part, which a count would repeat
    for part in _PART.finditer(pattern):
        match part.lastgroup:
            case "group":
                groups.append(0)
                last = 0
            case "end" if len(groups) > 1:
                last = groups.pop()
                groups[-1] += last
            case "count":
                groups[-1] += last * (max(1, int(part["least"]), int(part["most"] or 0)) - 1)
                last = 0  # RE2 does not accept a repetition of a repetition
            case "more":
                groups[-1] += 1
            case kind:
                last = _NARROW if kind == "narrow" else _WIDE if kind == "wide" else len(part[0].encode())
                groups[-1] += last
    states = sum(groups) * (_FOLDED if folded else 1)
    if states > MOST_STATES:
        raise ValueError("a pattern is too complex: repeat fewer times, and prefer letters to dots and negated classes")
    return states
