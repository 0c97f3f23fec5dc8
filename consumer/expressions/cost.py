"""Which expressions are permitted, and how long one may take on an event. Pure.

The runtime stops an expression by nothing but the number of turns of its loops. So what runs has a small shape: no loop
stands in another one, each goes over what the event has or what is written out, and patterns are written out and short.
How long such an expression takes follows from its shape and from the size of what it reads.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from consumer.expressions.regex import states_of
from consumer.expressions.syntax import Call, Collection, Constant, Loop, Name, Node, Select

CONTAINER = "event."  # the name of each variable begins so
MOST_SEARCHED = 100  # characters that `contains` searches for: it compares them at each place of the text

Path = tuple[str, ...]  # a variable, and the names of the fields that lead into it


class Size(NamedTuple):
    """How many values there are, and how many bytes of text they hold."""

    values: int
    text: int

    @property
    def weight(self) -> int:
        """Texts count as a value for each 16 bytes: as long does it take to go through them."""
        return self.values + self.text // 16


# Nanoseconds, as the slowest of their kind were timed; a value of this size is as many values, and texts by 16 bytes.
_READ = 250  # to look at a value and hand it to the runtime,
_READ_TEXT = 1.5  # and for a byte of text
_CALL = 500  # an operation on next to nothing, or a turn of a loop
_SCAN = 40  # an operation that goes through this size,
_SEARCH = 4  # as `contains` does so many times
_ELEMENT = 14  # `map` and `filter` copy all that they have so far, for each element that they add
_TAKE_BACK = 500  # to take a value back
_COMPILE = 500  # a state of a pattern, in each evaluation,
_MATCH = 6  # and for a byte of the text

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
_ZONE = re.compile(r"[+-]?\d\d:\d\d|[A-Za-z_]+(?:/[A-Za-z0-9_+-]+)*")  # the runtime opens a file of that name


class _Work:
    """What is done in one place: outside of loops, or in each turn of one.

    `scans` operations go through values. `reads` counts how often a field is read, and `gathered` how often into a list
    or map that is written out. `matches` are the patterns, by their states, with what the text is read from.
    """

    def __init__(self, variable: str = "") -> None:
        """`variable`: the name of the loop's element, in whose turns this is done."""
        self.variable = variable
        self.calls = self.scans = 0
        self.reads: Counter[Path] = Counter()
        self.gathered: Counter[Path] = Counter()
        self.matches: list[tuple[int, Counter[Path]]] = []


class _Loop(_Work):
    """`range_`: a field of the event, or so many elements. `own` scans see nothing but the loop's element."""

    def __init__(self, loop: Loop, range_: Path | int) -> None:
        super().__init__(loop.variable)
        self.own = 0
        self.range_ = range_
        added = _added(loop)
        self.builds_list = added is not None
        self.is_filter = added == Name(loop.variable)

    def seconds(self, event: Size, literals: int, turns: int, sizes: Mapping[Path, Size]) -> tuple[float, int]:
        """Nanoseconds of all turns, and how much there is of the list that it builds."""
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
    """What an expression does, whatever the event.

    `path`: it is nothing but this field. `paths` are what it reads of the event, none of them within another; `ranges`
    are those that loops go over. `patterns` are its regular expressions.
    """

    def __init__(self, tree: Node, literals: int) -> None:
        """`literals`: bytes of what is written out. ValueError: such an expression is not permitted, and why."""
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
        """How long it takes, at most.

        `sizes` are those of its `paths`, `lengths` those of its `ranges`. `taken_back`: its value is more than true or
        false.
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
        return time * (1 + self._joins) / 1e9  # a value holds all that is joined to it

    def _read(self, node: Node, work: _Work) -> bool:
        """Note what a part of the tree does. True: it holds more than a loop's element and what is written out."""
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
                    raise ValueError("a loop in a loop is not permitted; 'x' in list looks through a list")  # noqa: TRY004 (what is wrong is the expression)
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
        """What a loop goes over."""
        if (path := _path_of(node)) is not None:
            return path
        if isinstance(node, Collection):
            self._read(node, self._outside)
            return len(node.parts)
        if isinstance(node, Loop) and (inner := self._loop(node)).is_filter:
            return inner.range_
        raise ValueError(
            "a loop goes over a field of the event, a list that is written out, or a filter of one of these"
        )


def _sum(counts: Mapping[Path, int], sizes: Mapping[Path, Size]) -> Size:
    """The size of what is read of the event, each as often as it is."""
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
    """How often the same of a loop's element may be there: two fields of it are no more than the whole."""
    mine = [path for path in counts if path[0] == variable]
    return max((sum(counts[path[:length]] for length in range(1, len(path) + 1)) for path in mine), default=0)


def _path_of(node: Node, variable: str = "") -> Path | None:
    """The field that a part of the tree is: of the event, or of the loop's element, which has the name `variable`."""
    match node:
        case Name(name):
            return (name,) if name.startswith(CONTAINER) or name == variable else None
        case Select(operand, name) | Call("_[_]", (operand, Constant(str(name)))):
            path = _path_of(operand, variable)
            return None if path is None else (*path, name)
    return None


def _written(step: Node, accumulator: str) -> Iterator[Node]:
    """What of a loop's step the expression says itself: the rest is the macro's."""
    if isinstance(step, Call) and _holds(step, accumulator):
        for operand in step.operands:
            yield from _written(operand, accumulator)
    elif step != Name(accumulator):
        yield step


def _holds(node: Node, accumulator: str) -> bool:
    """It is a macro's own operation on what the loop has so far."""
    return node == Name(accumulator) or (
        isinstance(node, Call) and any(_holds(operand, accumulator) for operand in node.operands)
    )


def _added(loop: Loop) -> Node | None:
    """What a loop adds to its list in a turn; None where it gives no list."""
    if not isinstance(loop.start, Collection):
        return None
    lists = [node for node in _written(loop.step, loop.accumulator) if isinstance(node, Collection)]
    return lists[-1].parts[0]
