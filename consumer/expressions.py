"""CEL expressions (https://cel.dev) of subscriptions: checked when they are read, bounded when they run.

The runtime is Google's: it checks types, stops after 10,000 iterations and at a depth of 32, and its regular
expressions are RE2's, linear in time. What it does not bound is bounded here, before it runs: how long an expression
takes and what it copies (`expression_cost`).
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from cel_expr_python import cel

from consumer.expression_cost import cost_of

LONGEST = 0.5  # seconds that an expression may take, at the very most; what is usual takes microseconds
MOST_COPIED = 64 * 2**20  # bytes that a value may hold, if each part of it were the whole event
MOST_PARTS = 1_000_000  # of a value: each takes 0.7 µs and up to 150 bytes until it is JSON
MOST_SAID = 300  # characters of an error

_CONTAINER = "event"  # `type` is taken in CEL, `event.type` is not, and is found first
_TYPE = cel.Type
_VARIABLES = {
    "data": _TYPE.DYN,
    "id": _TYPE.STRING,
    "source": _TYPE.STRING,
    "type": _TYPE.STRING,
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
_ENV = cel.NewEnv(variables={f"{_CONTAINER}.{name}": kind for name, kind in _VARIABLES.items()}, container=_CONTAINER)


class ExpressionFailed(ValueError):
    """There is no value for this event; the text says why and holds nothing of the event but names."""


class EventTooLarge(ExpressionFailed):
    """Nobody knows what its value would be: it may not run for an event of this size."""


class Bound:
    """An event's variables, as all expressions over it take them: what one of them has read is converted once."""

    __slots__ = ("activation", "elements", "size")

    def __init__(self, variables: Mapping[str, object], parts: Iterable[bytes]) -> None:
        """`variables`: values of NAMES; who asks for another fails. `parts`: the bytes that the values come from."""
        self.activation = _ENV.Activation({f"{_CONTAINER}.{name}": value for name, value in variables.items()})
        self.size = self.elements = 0
        for part in parts:
            self.size += len(part)
            self.elements += part.count(b",") + 1  # no list or map has more


class Expression:
    """A compiled expression. Two of the same source are equal."""

    __slots__ = ("_cost", "_elements", "_kind", "_program", "_size", "source")

    def __init__(self, source: str) -> None:
        """ValueError, with the place in the source, for what is no CEL over an event's variables."""
        self.source = source
        try:
            self._program = _ENV.compile(source)
            self._kind = self._program.return_type()  # raises for a map that no value can be
        except TypeError:  # pybind's word for a lone surrogate
            raise ValueError("is no text: it has half of a character") from None
        except RuntimeError as error:
            raise ValueError(_readable(str(error))) from None
        self._cost = cost_of(source)
        self._size = self._elements = 0  # of an event that it may run for, and so for any smaller one

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expression) and other.source == self.source

    def __hash__(self) -> int:
        return hash(self.source)

    def __repr__(self) -> str:
        return f"Expression({self.source!r})"

    @property
    def may_be_true(self) -> bool:
        """Its value can be true or false, as far as can be told without an event."""
        return self._kind in (_TYPE.BOOL, _TYPE.DYN)

    def value(self, bound: Bound) -> object:
        """Its value for an event, as Python has it. ExpressionFailed where there is none."""
        if not self._may_run(bound):
            raise EventTooLarge("the event is too large for this expression")
        try:
            result = self._program.eval(bound.activation)
            value, failed = result.plain_value(), result.type() == _TYPE.ERROR
        except (RuntimeError, TypeError) as error:
            raise ExpressionFailed(self._reason(str(error))) from None
        except UnicodeError:
            raise ExpressionFailed("its value is no text") from None
        if failed:
            raise ExpressionFailed(self._reason(str(value)))
        return value

    def _may_run(self, bound: Bound) -> bool:
        if bound.size <= self._size and bound.elements <= self._elements:
            return True
        cost, size = self._cost, bound.size + len(self.source)
        allowed = (
            cost.copies(bound.elements) * size <= MOST_COPIED
            and cost.seconds(size, bound.elements) <= LONGEST
            and (self._kind == _TYPE.BOOL or cost.copies(bound.elements) * bound.elements <= MOST_PARTS)
        )
        if allowed:
            self._size, self._elements = bound.size, bound.elements
        return allowed

    def _reason(self, text: str) -> str:
        """The runtime's words. Behind a colon it says what the event holds, unless that stands in the expression."""
        text = _readable(text)
        if text.startswith("No value with name"):
            return "the event's data is nested too deeply, or is no text, and holds a zero byte"
        what, _, which = text.partition(":")
        name = which.strip().strip('"')
        if what.startswith("No matching overloads found") or (name and name in self.source):
            return text
        return re.split(r"[\"=]", what)[0].strip()


@lru_cache(4096)
def compile_filter(source: str) -> Expression:
    """An expression that says which events. ValueError if it cannot be one."""
    expression = Expression(source)
    if not expression.may_be_true:
        raise ValueError("its value is neither true nor false")
    return expression


@lru_cache(4096)
def compile_projection(source: str) -> Expression:
    """An expression whose value is sent. ValueError if it is none."""
    return Expression(source)


def _readable(text: str) -> str:
    """The runtime's words on one line, without its status codes and the drawing of the place."""
    text = re.sub(r"\s*\[[A-Z_]+\]$", "", text.strip()).split("\n |")[0]
    text = re.sub(r"^[A-Z_]+: ", "", text).replace(f" (in container '{_CONTAINER}')", "")
    found = re.match(r"ERROR: <input>:(-?\d+):(-?\d+): (.*)", text, re.DOTALL)
    if found:
        line, column, what = int(found[1]), int(found[2]), " ".join(found[3].split()).split(" ERROR: ")[0]
        place = f" at line {line}, column {column}" if line > 1 else f" at column {column}" if column > 0 else ""
        there = f"; an event has {', '.join(NAMES)}" if what.startswith("undeclared reference") else ""
        return f"{what[:MOST_SAID]}{place}{there}"
    return " ".join(text.split())[:MOST_SAID]
