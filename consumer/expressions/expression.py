"""CEL expressions (https://cel.dev) of subscriptions: checked when compiled, limited when evaluated.

The runtime is Google's. An evaluation gets only the fields of the event that the expression reads, so its cost depends
on these alone. The runtime frees an evaluation's memory when it ends.
"""

import ctypes
import re
import sys
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from cel_expr_python import cel

from consumer.expressions.cost import CONTAINER, Path, Shape, Size
from consumer.expressions.syntax import parse

LONGEST = 0.005  # seconds that an evaluation may take; a usual one takes 10 µs
MOST_READ = 20_000  # values that an evaluation may read: handing them over takes LONGEST
DEEPEST = 254  # nesting levels, orjson's limit: the runtime recurses, with 1.5 KB of stack for each level
MOST_SAID = 300  # characters of an error

TOO_LARGE = "the event is too large for this expression"
_MISSING = object()
_NOTHING, _ONE = Size(0, 0), Size(1, 0)
_TYPE = cel.Type
if sys.version_info < (3, 12):  # where None is not immortal
    # For each null of a value the runtime (0.1.3) gives up a reference to None that is not its own. At zero the process
    # would die, after some thousand nulls.
    ctypes.c_ssize_t.from_address(id(None)).value += 2**60
_VARIABLES = {
    "data": _TYPE.DYN,
    "id": _TYPE.STRING,
    "source": _TYPE.STRING,
    "type": _TYPE.STRING,  # a built-in name of CEL; `event.type` is not, and is found first
    "subject": _TYPE.STRING,
    "time": _TYPE.TIMESTAMP,
    "extensions": _TYPE.Map(_TYPE.STRING, _TYPE.DYN),
    "headers": _TYPE.Map(_TYPE.STRING, _TYPE.STRING),
    "tenant": _TYPE.STRING,
    "topic": _TYPE.STRING,
    "partition": _TYPE.INT,
    "offset": _TYPE.INT,
    "key": _TYPE.STRING,
}
NAMES = tuple(_VARIABLES)
TEXT, TEXTS, ANY = _TYPE.STRING, _TYPE.Map(_TYPE.STRING, _TYPE.STRING), _TYPE.DYN
# The runtime's errors for a part that is not there; one that is null fits no operator.
_NOT_THERE = re.compile(
    r"NOT_FOUND: Key not found|UNKNOWN: Index error|INVALID_ARGUMENT: Applying SELECT"
    r"|UNKNOWN: No matching overloads found : .*\bnull_type\b"
)


class Environment:
    """The names that an expression may use, each with its type; `owner`, such as `an event`, has them."""

    def __init__(self, owner: str, **names: cel.Type) -> None:
        self.owner = owner
        self.names = tuple(names)
        variables = {CONTAINER + name: kind for name, kind in names.items()}
        self.compile = cel.NewEnv(variables=variables, container=CONTAINER.removesuffix(".")).compile


EVENT = Environment("an event", **_VARIABLES)


class ExpressionFailed(ValueError):
    """The expression has no value for this event; the text says why and quotes only names from the event."""


class PartMissing(ExpressionFailed):
    """The expression reads a part that the event lacks, or that is null."""


class EventTooLarge(ExpressionFailed):
    """The expression was not evaluated, because it could take too long on an event of this size."""


class Expression:
    """A compiled expression. Expressions with the same source are equal."""

    __slots__ = ("_kind", "_modest", "_program", "_shape", "source")

    def __init__(self, source: str, environment: Environment = EVENT) -> None:
        """Raises ValueError, with the position, for a source that is not CEL over its names, or is not permitted."""
        self.source = source
        try:
            self._program = environment.compile(source)
            self._kind = self._program.return_type()  # raises for a map type that no value can have
        except TypeError:  # pybind's error for a lone surrogate
            raise ValueError("is not valid text: it has an unpaired surrogate") from None
        except RuntimeError as error:
            raise ValueError(_readable(str(error), environment) + _hint(source)) from None
        self._shape = Shape(parse(self._program.serialize()), len(source.encode()))
        for pattern in self._shape.patterns:
            _check_pattern(pattern)
        if not self._fits(0):
            raise ValueError("takes too long, whatever the event")
        # Below this weight an event needs no time estimate; nearly all events are that small.
        self._modest = next((size for size in (1024, 256, 64, 16) if self._fits(size)), 0)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expression) and other.source == self.source

    def __hash__(self) -> int:
        return hash(self.source)

    def __repr__(self) -> str:
        return f"Expression({self.source!r})"

    @property
    def may_be_true(self) -> bool:
        """Whether its value can be true or false, judged by its static type."""
        return self._kind in (_TYPE.BOOL, _TYPE.DYN)

    @property
    def is_field(self) -> bool:
        """Whether the expression is only a field of the event, so that its value is the field, unchanged."""
        return self._shape.path is not None

    def value(self, variables: Mapping[str, object]) -> object:
        """The value for an event, as a Python object. Raises ExpressionFailed if there is none.

        `variables`: the values of NAMES, from `variables_of`.
        """
        shape = self._shape
        if shape.path is not None and (field := _field(variables, shape.path)) is not _MISSING:
            return field
        read = _Read(variables, shape.paths)
        if read.weight > self._modest and self._seconds(read) > LONGEST:
            raise EventTooLarge(TOO_LARGE)
        try:
            result = self._program.eval(data=read.values)
            value = result.plain_value()
            failed = not isinstance(value, bool) and result.type() == _TYPE.ERROR
        except (RuntimeError, TypeError) as error:
            raise ExpressionFailed(self._reason(str(error))) from None
        except UnicodeError:
            raise ExpressionFailed("its value is not text") from None
        if failed:
            raise (PartMissing if _NOT_THERE.match(str(value)) else ExpressionFailed)(self._reason(str(value)))
        return value

    def _seconds(self, read: "_Read") -> float:
        lengths = {path: _length(read.values, path) for path in self._shape.ranges}
        return self._shape.seconds(read.sizes, lengths, taken_back=self._kind != _TYPE.BOOL)

    def _fits(self, size: int) -> bool:
        """Whether it may run if each field that it reads has at most `size` values and 16 times as many bytes."""
        shape = self._shape
        sizes, lengths = dict.fromkeys(shape.paths, Size(size, 16 * size)), dict.fromkeys(shape.ranges, size)
        return shape.seconds(sizes, lengths, taken_back=self._kind != _TYPE.BOOL) <= LONGEST

    def _reason(self, text: str) -> str:
        """The runtime's message. Text after a colon may quote the event, and is cut unless the source has it too."""
        text = _readable(text)
        if text.startswith("No value with name"):
            return "the event's data is not text, and holds a zero byte"
        what, _, which = text.partition(":")
        name = which.strip().strip('"')
        if what.startswith("No matching overloads found") or (name and name in self.source):
            return text
        return re.split(r"[\"=]", what)[0].strip()


class _Read:
    """The fields of an event that an expression reads.

    `values`: the variables, with only these fields in them. `sizes`: the size of each path, for `Shape.seconds`.
    `weight`: the total weight of all sizes.
    """

    __slots__ = ("sizes", "values", "weight")

    def __init__(self, variables: Mapping[str, object], paths: Iterable[Path]) -> None:
        self.values: dict[str, Any] = {}
        self.sizes: dict[Path, Size] = {}
        self.weight = 0
        for path in paths:
            size = self.sizes[path] = self._keep(variables, path)
            self.weight += size.values + size.text // 16

    def _keep(self, variables: Mapping[str, Any], path: Path) -> Size:
        """Add the value at the path to `values`, and return its size."""
        name = path[0]
        if name not in variables:
            return _NOTHING
        place, value = self.values, variables[name]
        for deeper in path[1:]:
            if not isinstance(value, dict):
                break  # there is no such field, which the runtime reports
            place = place.setdefault(name, {})
            if deeper not in value:
                return _NOTHING
            name, value = deeper, value[deeper]
        place[name] = value
        return _size(value, MOST_READ - self.weight)


def _field(variables: Mapping[str, object], path: Path) -> object:
    value: Any = variables
    for name in path:
        if not isinstance(value, Mapping) or name not in value:
            return _MISSING
        value = value[name]
    return value


def _length(values: Mapping[str, object], path: Path) -> int:
    value = _field(values, path)
    return len(value) if isinstance(value, Mapping | list) else 0


def _size(value: object, most: int) -> Size:
    """The size of `value`. Raises EventTooLarge if it has more than `most` values."""
    if isinstance(value, str):
        return Size(1, _bytes(value))
    if not isinstance(value, dict | list | bytes):
        return _ONE
    values, text, layer, depth = 0, 0, [value], 0
    while layer:
        values, depth = values + len(layer), depth + 1
        if depth > DEEPEST:
            raise ExpressionFailed("the event's data is nested too deeply")
        deeper: list[Any] = []
        for each in layer:
            if isinstance(each, str | bytes):
                text += _bytes(each)
            elif isinstance(each, dict | list):
                deeper += each
                deeper += each.values() if isinstance(each, dict) else ()
            if values + len(deeper) > most:
                raise EventTooLarge(TOO_LARGE)
        layer = deeper
    return Size(values, text)


def _bytes(text: str | bytes) -> int:
    """The maximum length of `text` in UTF-8."""
    return len(text) if text.isascii() else 4 * len(text)


# Operators and words of other languages that CEL does not have. The patterns must not match `==` and the like.
_SLIPS = (
    (r"(?<![=!<>])=(?![=~])", "=", "=="),
    (r"<>", "<>", "!="),
    (r"\band\b", "and", "&&"),
    (r"\bor\b", "or", "||"),
    (r"\bnot\b", "not", "!"),
    (r"\bTrue\b", "True", "true"),
    (r"\bFalse\b", "False", "false"),
    (r"\bNone\b", "None", "null"),
)
_LITERAL = re.compile(r"""\"(?:\\.|[^"\\])*(?:\"|$)|'(?:\\.|[^'\\])*(?:'|$)""")  # also an unterminated one


def _hint(source: str) -> str:
    """A hint with CEL's operators if the source uses those of other languages; else empty."""
    bare = _LITERAL.sub("''", source)
    found = [f"{right} for {wrong}" for pattern, wrong, right in _SLIPS if re.search(pattern, bare)]
    return f" (CEL writes {', '.join(found)})" if found else ""


@lru_cache(4096)
def compile_filter(source: str) -> Expression:
    """Compile a filter. Raises ValueError if it is invalid or cannot be true or false."""
    expression = Expression(source)
    if not expression.may_be_true:
        raise ValueError("its value is neither true nor false")
    return expression


@lru_cache(4096)
def compile_projection(source: str) -> Expression:
    """Compile a projection. Raises ValueError if it is invalid."""
    return Expression(source)


_MATCHES = EVENT.compile("topic.matches(key)")


def _check_pattern(pattern: str) -> None:
    """Raise ValueError for a pattern that the runtime would refuse on each event."""
    result = _MATCHES.eval(data={CONTAINER + "topic": "", CONTAINER + "key": pattern})
    if result.type() == _TYPE.ERROR:
        why = _readable(str(result.plain_value())).removeprefix("invalid regular expression: ")
        raise ValueError(f"a pattern is not a regular expression: {why}")


def _readable(text: str, environment: Environment = EVENT) -> str:
    """The runtime's message on one line, without its status codes and its drawing of the position."""
    text = re.sub(r"\s*\[[A-Z_]+\]$", "", text.strip()).split("\n |")[0]
    text = re.sub(r"^[A-Z_]+: ", "", text).replace(f" (in container '{CONTAINER.removesuffix('.')}')", "")
    found = re.match(r"ERROR: <input>:(-?\d+):(-?\d+): (.*)", text, re.DOTALL)
    if found:
        line, column, what = int(found[1]), int(found[2]), " ".join(found[3].split()).split(" ERROR: ")[0]
        place = f" at line {line}, column {column}" if line > 1 else f" at column {column}" if column > 0 else ""
        there = (
            f"; {environment.owner} has {', '.join(environment.names)}"
            if what.startswith("undeclared reference")
            else ""
        )
        return f"{what[:MOST_SAID]}{place}{there}"
    return " ".join(text.split())[:MOST_SAID]
