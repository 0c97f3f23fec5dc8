"""CEL expressions (https://cel.dev) of subscriptions: checked when compiled, limited when evaluated.

The runtime is Google's. An evaluation gets only the fields of the event that the expression reads, so its cost depends
on these alone. The runtime frees an evaluation's memory when it ends.
"""

import ctypes
import re
import sys
from collections.abc import Iterable, Mapping
from threading import Lock
from typing import Any
from weakref import WeakValueDictionary

from cel_expr_python import cel

from consumer.expressions.cost import Path, Shape, Size, parse

LONGEST = 0.005  # seconds that an evaluation may take; a usual one takes 10 µs
MOST_READ = 20_000  # values that an evaluation may read: handing them over takes LONGEST
DEEPEST = 254  # nesting levels, orjson's limit: the runtime recurses, with 1.5 KB of stack for each level
MOST_KEPT = 16 * 2**20  # bytes of compiled expressions that nothing uses
MOST_SAID = 300  # characters of an error
SMALL = 16  # values that an evaluation reads at most, as nearly all do, without an estimate of its own

TOO_LARGE = "the event is too large for this expression"
TOGETHER = f"its expressions may take {LONGEST * 1000:g} ms together, and could take longer"
_MISSING = object()
# The runtime's errors for a part that is not there; one that is null fits no operator. `_lacks` finds the fields that
# are null or not there whatever the error says; this also finds the parts of lists and of computed values.
_NOT_THERE = re.compile(
    r"NOT_FOUND: Key not found|UNKNOWN: Index error|INVALID_ARGUMENT: Applying SELECT"
    r"|UNKNOWN: No matching overloads found : .*\bnull_type\b"
)
_OF_A_NULL = re.compile(r"UNKNOWN: No matching overloads found|INVALID_ARGUMENT: Invalid map key type: 'null_type'")
_TYPE = cel.Type
if sys.version_info < (3, 12):  # where None is not immortal
    # For each null of a value the runtime (0.1.3) gives up a reference to None that is not its own. At zero the process
    # would die, after some thousand nulls.
    ctypes.c_ssize_t.from_address(id(None)).value += 2**60


class Variables:
    """The variables of expressions. The keys of their values are `container` and a name, as in `event.data`.

    With the prefix a variable may have the name of a type of CEL: `type` is `event.type`, which is found first.
    """

    def __init__(self, container: str, kinds: Mapping[str, str]) -> None:
        """`kinds`: the type of each variable as CEL writes it (`dyn`: any), by its name without the prefix."""
        self.prefix = f"{container}."
        self.names = tuple(kinds)
        types = {self.prefix + name: _TYPE(kind) for name, kind in kinds.items()}
        self.env = cel.NewEnv(variables=types, container=container)


_EVENT = Variables(
    "event",
    {
        "data": "dyn",
        "id": "string",
        "source": "string",
        "type": "string",
        "subject": "string",
        "time": "timestamp",
        "extensions": "map<string, dyn>",
        "headers": "map<string, string>",
        "tenant": "string",
        "topic": "string",
        "partition": "int",
        "offset": "int",
        "key": "string",
    },
)
NAMES = _EVENT.names


class ExpressionFailed(ValueError):
    """The expression has no value for this event; the text says why and quotes only names from the event."""


class PartMissing(ExpressionFailed):
    """The expression reads a part that the event lacks, or that is null."""


class EventTooLarge(ExpressionFailed):
    """The expression was not evaluated, because it could take too long on an event of this size."""


class Allowance:
    """The time that the expressions of one request may take together, estimated from the event alone."""

    def __init__(self) -> None:
        self._left = LONGEST

    def take(self, seconds: float) -> None:
        """Take an evaluation's time. Raises EventTooLarge if less is left."""
        self._left -= seconds
        if self._left < 0:
            raise EventTooLarge(f"{TOGETHER} with this event")


class Expression:
    """A compiled expression. Expressions with the same source are equal."""

    __slots__ = ("__weakref__", "_few", "_kind", "_program", "_safe", "_shape", "least", "size", "source", "variables")

    def __init__(self, source: str, variables: Variables = _EVENT) -> None:
        """Raises ValueError, with the position, for a source that is not CEL over these, or that is not permitted.

        `least`: the seconds that it takes on an empty event, by the estimate. `size`: about its bytes of memory.
        """
        self.source, self.variables = source, variables
        try:
            self._program = variables.env.compile(source)
            self._kind = self._program.return_type()  # raises for a map type that no value can have
        except TypeError:  # pybind's error for a lone surrogate
            raise ValueError("is not valid text: it has an unpaired surrogate") from None
        except RuntimeError as error:
            raise ValueError(_readable(str(error), variables)) from None
        checked = self._program.serialize()
        self.size = 1024 + 12 * len(checked)
        tree = parse(checked)
        self._shape = Shape(tree, variables.prefix, is_boolean=self._kind == _TYPE.BOOL)
        for pattern in self._shape.patterns:
            _check_pattern(pattern)
        self.least = self._shape.seconds(Size())
        if self.least > LONGEST:
            raise ValueError("takes too long, whatever the event")
        # An event of no more values, as nearly all are, needs no estimate.
        self._safe = next((n for n in (1024, 256, 64, 16) if self._shape.seconds(Size(n, 16 * n, n)) <= LONGEST), 0)
        self._few = self._shape.seconds(Size(SMALL, 16 * SMALL, SMALL))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expression) and (other.source, other.variables) == (self.source, self.variables)

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

    def value(self, variables: Mapping[str, object], allowance: Allowance | None = None) -> object:
        """The value for an event, as a Python object. Raises ExpressionFailed if there is none.

        `variables`: the values, by name with the prefix; for an event from `variables_of`. The time is taken from the
        `allowance`; without one it may be LONGEST.
        """
        shape = self._shape
        if shape.path is not None and (field := _field(variables, shape.path)) is not _MISSING:
            return field
        values, size = _read(variables, shape.paths)
        weight = size[0] + size[1] // 16
        if allowance is not None:
            allowance.take(self._few if weight <= SMALL <= self._safe else shape.seconds(size))
        elif weight > self._safe and shape.seconds(size) > LONGEST:
            raise EventTooLarge(TOO_LARGE)
        try:
            result = self._program.eval(data=values)
            value = result.plain_value()
            failed = not isinstance(value, bool) and result.type() == _TYPE.ERROR
        except (RuntimeError, TypeError) as error:
            raise ExpressionFailed(self._reason(str(error))) from None
        except UnicodeError:
            raise ExpressionFailed("its value is not text") from None
        if failed:
            text = str(value)
            is_missing = (
                _NOT_THERE.match(text)
                or _lacks(values, shape.fields)
                or (_OF_A_NULL.match(text) and _lists_a_null(values))
            )
            raise (PartMissing if is_missing else ExpressionFailed)(self._reason(text))
        return value

    def parts(self, variables: Mapping[str, object]) -> Mapping[str, object]:
        """The variables, with only the parts in them that the expression reads. EventTooLarge as for `value`."""
        return _read(variables, self._shape.paths)[0]

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


def _read(variables: Mapping[str, Any], paths: Iterable[Path]) -> tuple[dict[str, Any], Size]:
    """The fields at the paths, as variables with only these fields in them, and their size together."""
    read: dict[str, Any] = {}
    values = text = 0
    nested: list[Any] = []
    for path in paths:
        place, name, value = read, path[0], variables.get(path[0], _MISSING)
        for deeper in path[1:]:
            if not isinstance(value, dict):
                break  # there is no such field, which the runtime reports
            place = place.setdefault(name, {})
            name, value = deeper, value.get(deeper, _MISSING)
        if value is _MISSING:
            continue
        place[name] = value
        if isinstance(value, dict | list):
            nested.append(value)
        else:
            values += 1
            text += _bytes(value) if isinstance(value, str | bytes) else 0
    return read, _size(values, text, nested) if nested else Size(values, text, 0)


def _field(variables: Mapping[str, object], path: Path) -> object:
    value: Any = variables.get(path[0], _MISSING)
    for name in path[1:]:
        if not isinstance(value, dict):
            return _MISSING
        value = value.get(name, _MISSING)
    return value


def _lacks(variables: Mapping[str, object], paths: Iterable[Path]) -> bool:
    """Whether the field at one of the paths is null, or not there."""
    return any((field := _field(variables, path)) is None or field is _MISSING for path in paths)


def _lists_a_null(variables: Mapping[str, object]) -> bool:
    """Whether a list in the values holds a null, at any depth: `_lacks` finds no part of a list."""
    left: list[tuple[Any, bool]] = [(variables, False)]
    while left:
        value, is_in_list = left.pop()
        if value is None and is_in_list:
            return True
        if isinstance(value, dict | list):
            is_in_list = is_in_list or isinstance(value, list)
            left += [(each, is_in_list) for each in (value.values() if isinstance(value, dict) else value)]
    return False


def _size(values: int, text: int, layer: list[Any]) -> Size:
    """The size of so many values and bytes, and of these lists and maps. EventTooLarge for more than MOST_READ."""
    longest = depth = 0
    while layer:
        values, depth = values + len(layer), depth + 1
        if depth > DEEPEST:
            raise ExpressionFailed("the event's data is nested too deeply")
        deeper: list[Any] = []
        for each in layer:
            if isinstance(each, str | bytes):
                text += _bytes(each)
            elif isinstance(each, dict | list):
                longest = max(longest, len(each))
                deeper += each
                deeper += each.values() if isinstance(each, dict) else ()
            if values + len(deeper) > MOST_READ:
                raise EventTooLarge(TOO_LARGE)
        layer = deeper
    return Size(values, text, longest)


def _bytes(text: str | bytes) -> int:
    """The maximum length of `text` in UTF-8."""
    return len(text) if text.isascii() else 4 * len(text)


class _Compiled:
    """Expressions by their source: all that are in use anywhere, and the latest others.

    A list of 1.9 KB takes 250 KB of memory, so these are counted in bytes, and 15 ms, so no look-up repeats it.
    """

    def __init__(self) -> None:
        self._in_use: WeakValueDictionary[str, Expression] = WeakValueDictionary()
        self._latest: dict[str, Expression] = {}  # the oldest first
        self._bytes = 0
        self._lock = Lock()  # database threads and those of the API compile

    def get(self, source: str) -> Expression:
        """Raises ValueError as Expression does."""
        if (known := self._in_use.get(source)) is not None:
            return known
        made = Expression(source)
        with self._lock:
            self._in_use[source] = made
            if (before := self._latest.pop(source, None)) is not None:
                self._bytes -= before.size
            self._latest[source] = made
            self._bytes += made.size
            while self._bytes > MOST_KEPT:
                self._bytes -= self._latest.pop(next(iter(self._latest))).size
        return made


compiled = _Compiled().get


def compile_projection(source: str) -> Expression:
    """Compile a projection. Raises ValueError if it is invalid."""
    return compiled(source)


def compile_filter(source: str) -> Expression:
    """Compile a filter. Raises ValueError if it is invalid or cannot be true or false."""
    expression = compiled(source)
    if not expression.may_be_true:
        raise ValueError("its value is neither true nor false")
    return expression


_MATCHES = cel.NewEnv(variables={"pattern": _TYPE.STRING}).compile("''.matches(pattern)")


def _check_pattern(pattern: str) -> None:
    """Raise ValueError for a pattern that the runtime would refuse on each event."""
    result = _MATCHES.eval(data={"pattern": pattern})
    if result.type() == _TYPE.ERROR:
        why = _readable(str(result.plain_value())).removeprefix("invalid regular expression: ")
        raise ValueError(f"a pattern is not a regular expression: {why}")


def _readable(text: str, variables: Variables = _EVENT) -> str:
    """The runtime's message on one line, without its status codes and its drawing of the position."""
    text = re.sub(r"\s*\[[A-Z_]+\]$", "", text.strip()).split("\n |")[0]
    text = re.sub(r"^[A-Z_]+: ", "", text).replace(f" (in container '{variables.prefix[:-1]}')", "")
    found = re.match(r"ERROR: <input>:(-?\d+):(-?\d+): (.*)", text, re.DOTALL)
    if found:
        line, column, what = int(found[1]), int(found[2]), " ".join(found[3].split()).split(" ERROR: ")[0]
        place = f" at line {line}, column {column}" if line > 1 else f" at column {column}" if column > 0 else ""
        there = f"; there are {', '.join(variables.names)}" if what.startswith("undeclared reference") else ""
        return f"{what[:MOST_SAID]}{place}{there}"
    return " ".join(text.split())[:MOST_SAID]
