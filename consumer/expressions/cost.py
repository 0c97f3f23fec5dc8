"""Decides which expressions are permitted, and estimates how long one takes on an event. Pure.

The runtime limits nothing but the number of loop iterations. So permitted expressions are simple: no nested loops, each
loop over a field of the event or a literal list, and patterns that are short literals. The time of such an expression
follows from its shape and from the size of the fields that it reads.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from consumer.expressions.regex import states_of
from consumer.expressions.syntax import Call, Collection, Constant, Loop, Name, Node, Select

CONTAINER = "event."  # the prefix of each variable's name
MOST_SEARCHED = 100  # characters of the text that `contains` searches for: it compares them at each position

Path = tuple[str, ...]  # a variable, followed by the names of nested fields


class Size(NamedTuple):
    """A number of values, and the bytes of text that they hold."""

    values: int
    text: int

    @property
    def weight(self) -> int:
        """The size in values, with 16 bytes of text as one value: scanning them takes as long."""
        return self.values + self.text // 16


# Costs in nanoseconds, measured on the slowest operation of each kind; sizes are weights (`Size.weight`).
_READ = 250  # per value, to read it and pass it to the runtime
_READ_TEXT = 1.5  # per byte of text, the same
_CALL = 500  # per operation on small values, or per loop iteration
_SCAN = 40  # per unit of weight that an operation scans
_SEARCH = 4  # `contains` costs this many scans
_ELEMENT = 14  # times iterations squared: `map` and `filter` copy their list so far for each element that they add
_TAKE_BACK = 500  # per value returned from the runtime
_COMPILE = 500  # per state of a pattern, in each evaluation
_MATCH = 6  # per state of a pattern and byte of the text

_LOGICAL = frozenset(("_&&_", "_||_", "!_", "_?_:_", "@not_strictly_false"))
_TIMES = frozenset(
    (
        "getFullYear", "getMonth", "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear",
        "getHours", "getMinutes", "getSeconds", "getMilliseconds",
    )
)  # fmt: skip
_FUNCTIONS = _TIMES | frozenset(
    (
        "_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_", "_+_", "_-_", "_*_", "_/_", "_%_", "-_", "_[_]", "@in",
        "size", "startsWith", "endsWith", "contains", "matches", "type", "dyn",
        "string", "int", "uint", "double", "bytes", "bool", "timestamp", "duration",
    )
)  # fmt: skip
_ZONE = re.compile(r"[+-]?\d\d:\d\d|[A-Za-z_]+(?:/[A-Za-z0-9_+-]+)*")  # the runtime opens a file with this name


class _Work:
    """The operations outside of loops, or in each iteration of a loop.

    `calls`: all operations. `scans`: operations that go through values. `reads` counts how often each field is read,
    and `gathered` how often into a list or map literal. `matches`: for each pattern its states, and the fields that its
    text is read from.
    """

    def __init__(self, variable: str = "") -> None:
        """`variable`: the name of the loop's element; empty outside of loops."""
        self.variable = variable
        self.calls = self.scans = 0
        self.reads: Counter[Path] = Counter()
        self.gathered: Counter[Path] = Counter()
        self.matches: list[tuple[int, Counter[Path]]] = []


class _Loop(_Work):
    """A loop's operations. `range_`: a field of the event, or a length. `own`: scans of the loop's element only."""

    def __init__(self, loop: Loop, range_: Path | int) -> None:
        super().__init__(loop.variable)
        self.own = 0
        self.range_ = range_
        added = _added(loop)
        self.builds_list = added is not None
        self.is_filter = added == Name(loop.variable)

    def seconds(self, event: Size, literals: int, turns: int, sizes: Mapping[Path, Size]) -> tuple[float, int]:
        """The nanoseconds of all `turns` (iterations), and the weight of the list that the loop builds."""
        written, elements = turns * literals, _most(self.gathered, self.variable)
        own = written + event.weight * (1 + elements)
        other = written + turns * _sum(self.reads, sizes).weight
        time = turns * (1 + self.calls) * _CALL + (self.own * own + self.scans * (own + other)) * _SCAN
        for states, reads in self.matches:
            time += states * (turns * _COMPILE + (event.text + turns * _sum(reads, sizes).text) * _MATCH)
        if not self.builds_list:
            return time, 0
        made = elements * event.weight + written + turns * _sum(self.gathered, sizes).weight
        return time + turns * turns * _ELEMENT, made


class Shape:
    """The operations of an expression, independent of the event.

    `path`: the field, if the expression is only a field. `paths`: the fields of the event that it reads, none within
    another. `ranges`: the fields that its loops iterate over. `patterns`: its regular expressions.
    """

    def __init__(self, tree: Node, literals: int) -> None:
        """`literals`: upper limit of the literals' bytes. ValueError, with the reason, if the tree is not permitted."""
        self.patterns: list[str] = []
        self._joins = 0
        self._literals = literals // 16 + 1
        self._outside = _Work()
        self._loops: list[_Loop] = []
        self._read(tree, self._outside)
        self.path = _path_of(tree)
        self.ranges = tuple({loop.range_ for loop in self._loops if isinstance(loop.range_, tuple)})
        read = {*self.ranges, *self._outside.reads}
        for loop in self._loops:
            read |= {path for path in loop.reads if path[0] != loop.variable}
        self.paths = tuple(path for path in read if not any(path[:length] in read for length in range(1, len(path))))

    def seconds(self, sizes: Mapping[Path, Size], lengths: Mapping[Path, int], *, taken_back: bool) -> float:
        """The expression's maximum time, in seconds.

        `sizes` are the sizes of its `paths`, `lengths` the lengths of its `ranges`. `taken_back`: its value may be
        other than true or false.
        """
        work = self._outside
        event = _add([*sizes.values(), _sum(work.gathered, sizes), Size(self._literals, 0)])
        time, made = event.values * _READ + event.text * _READ_TEXT, 0
        for loop in self._loops:
            turns = loop.range_ if isinstance(loop.range_, int) else lengths[loop.range_]
            more, built = loop.seconds(event, self._literals, turns, sizes)
            time, made = time + more, made + built
        wide = event.weight + made
        time += work.calls * _CALL + work.scans * wide * _SCAN
        for states, reads in work.matches:
            time += states * (_COMPILE + (_sum(reads, sizes).text + 16 * made) * _MATCH)
        if taken_back:
            time += wide * _SCAN + (event.values + made) * _TAKE_BACK
        return time * (1 + self._joins) / 1e9  # each `+` may add the size of one more value

    def _read(self, node: Node, work: _Work) -> bool:
        """Add the operations of a part of the tree. True if it holds more than the loop's element and literals."""
        if (path := _path_of(node, work.variable)) is not None:
            work.reads[path] += 1
            return path[0] != work.variable
        match node:
            case Select(operand, _):
                work.calls += 1
                return self._read(operand, work)
            case Call(function, operands):
                return self._call(function, operands, work)
            case Collection(parts, message):
                if message:
                    raise ValueError(f"messages, such as {message}, are not permitted")
                before = work.reads.copy()
                other = self._read_all(parts, work)
                work.gathered += work.reads - before
                return other
            case Loop():
                if isinstance(work, _Loop):
                    raise ValueError("a loop in a loop is not permitted; 'x' in list searches a list")  # noqa: TRY004 (the expression is wrong, not a type)
                self._loop(node)
                return True
        return False

    def _read_all(self, nodes: Iterable[Node], work: _Work) -> bool:
        found = [self._read(node, work) for node in nodes]
        return any(found)

    def _call(self, function: str, operands: Sequence[Node], work: _Work) -> bool:
        before = work.reads.copy()
        other = self._read_all(operands, work)
        work.calls += 1
        if function in _LOGICAL:
            return other
        if function not in _FUNCTIONS:
            raise ValueError(f"{function} is not permitted")
        scans = 1
        if function == "_+_":
            self._joins += 1
        elif function == "matches":
            work.matches.append((self._pattern(operands), work.reads - before))
        elif function == "contains":
            if not (isinstance(operands[-1], Constant) and len(operands[-1].value or "") <= MOST_SEARCHED):
                raise ValueError(f"contains takes a text in quotes, of up to {MOST_SEARCHED} characters")
            scans = _SEARCH
        elif function in _TIMES and len(operands) > 1:
            zone = operands[1]
            if not (isinstance(zone, Constant) and _ZONE.fullmatch(zone.value or "")):
                raise ValueError(f"{function} takes a time zone in quotes, as in time.{function}('Europe/Berlin')")
        if isinstance(work, _Loop) and not other:
            work.own += scans
        else:
            work.scans += scans
        return other

    def _pattern(self, operands: Sequence[Node]) -> int:
        pattern = operands[-1]
        if not (isinstance(pattern, Constant) and pattern.value is not None):
            raise ValueError("matches takes a pattern in quotes, as in type.matches('^order')")
        self.patterns.append(pattern.value)
        return states_of(pattern.value)

    def _loop(self, loop: Loop) -> _Loop:
        work = _Loop(loop, self._range(loop.range_))
        self._loops.append(work)
        self._read_all(_written(loop.step, loop.accumulator), work)
        return work

    def _range(self, node: Node) -> Path | int:
        """The field or the number of elements that a loop iterates over."""
        if (path := _path_of(node)) is not None:
            return path
        if isinstance(node, Collection):
            self._read(node, self._outside)
            return len(node.parts)
        if isinstance(node, Loop) and (inner := self._loop(node)).is_filter:
            return inner.range_
        raise ValueError("a loop goes over a field of the event, a list literal, or a filter of one of these")


def _sum(counts: Mapping[Path, int], sizes: Mapping[Path, Size]) -> Size:
    """The total size of the fields, each counted as often as it is read."""
    return _add(
        Size(count * size.values, count * size.text)
        for path, count in counts.items()
        for length in range(1, len(path) + 1)
        if (size := sizes.get(path[:length])) is not None
    )


def _add(sizes: Iterable[Size]) -> Size:
    values = text = 0
    for size in sizes:
        values, text = values + size.values, text + size.text
    return Size(values, text)


def _most(counts: Mapping[Path, int], variable: str) -> int:
    """How often one part of the loop's element is counted at most: separate fields together are at most the element."""
    mine = [path for path in counts if path[0] == variable]
    return max((sum(counts[path[:length]] for length in range(1, len(path) + 1)) for path in mine), default=0)


def _path_of(node: Node, variable: str = "") -> Path | None:
    """The path of a node that is a field of the event or of the loop's element, called `variable`; else None."""
    match node:
        case Name(name):
            return (name,) if name.startswith(CONTAINER) or name == variable else None
        case Select(operand, name) | Call("_[_]", (operand, Constant(str(name)))):
            path = _path_of(operand, variable)
            return None if path is None else (*path, name)
    return None


def _written(step: Node, accumulator: str) -> Iterator[Node]:
    """The parts of a loop's step that the expression's author wrote; the macro's own operations are left out."""
    if isinstance(step, Call) and _holds(step, accumulator):
        for operand in step.operands:
            yield from _written(operand, accumulator)
    elif step != Name(accumulator):
        yield step


def _holds(node: Node, accumulator: str) -> bool:
    """Whether the node is the macro's own operation on the loop's accumulator."""
    return node == Name(accumulator) or (
        isinstance(node, Call) and any(_holds(operand, accumulator) for operand in node.operands)
    )


def _added(loop: Loop) -> Node | None:
    """The element that a loop adds to its list in an iteration; None if it builds no list."""
    if not isinstance(loop.start, Collection):
        return None
    lists = [node for node in _written(loop.step, loop.accumulator) if isinstance(node, Collection)]
    return lists[-1].parts[0]
