"""CEL expressions (https://cel.dev) of subscriptions: checked when they are read, bounded when they run.

The runtime is Google's: it checks types, stops after 10,000 iterations and at a depth of 32, and its regular
expressions are RE2's, linear in time. What it does not bound is bounded here: what an expression copies (`_copies`).
"""

import re
from collections.abc import Mapping
from functools import lru_cache

from cel_expr_python import cel

MOST_COPIED = 64 * 2**20  # bytes that a value may hold, if each part of it were the whole body
MOST_ELEMENTS = 2500  # that `map` and `filter` go through: they take n * n * 27 ns, here 0.17 s
ITERATIONS = 10_000  # the runtime's own limit

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
_BUILDS = re.compile(r"\b(?:map|filter)\s*\(")
_LOOPS = re.compile(r"\b(?:map|filter|all|exists|exists_one)\s*\(")


class ExpressionFailed(ValueError):
    """There is no value for this event; the text says why and holds nothing of the event but names."""


class Bound:
    """An event's variables, as all expressions over it take them: what one of them has read is converted once."""

    __slots__ = ("activation", "commas", "size")

    def __init__(self, variables: Mapping[str, object], body: bytes) -> None:
        """`variables`: a value for each of NAMES. `body`: where `data` comes from."""
        self.activation = _ENV.Activation({f"{_CONTAINER}.{name}": value for name, value in variables.items()})
        self.size = len(body)
        self.commas = body.count(b",")  # no list or map in it has more elements than that and one


class Expression:
    """A compiled expression. Two of the same source are equal."""

    __slots__ = ("_builds", "_loops", "_program", "_size", "source")

    def __init__(self, source: str) -> None:
        """ValueError, with the place in the source, for what is no CEL over an event's variables."""
        self.source = source
        try:
            self._program = _ENV.compile(source)
        except RuntimeError as error:
            raise ValueError(_readable(str(error))) from None
        self._builds = bool(_BUILDS.search(source))
        self._loops = len(_LOOPS.findall(source))
        self._size = source.count(",") + source.count("+") + 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expression) and other.source == self.source

    def __hash__(self) -> int:
        return hash(self.source)

    def __repr__(self) -> str:
        return f"Expression({self.source!r})"

    @property
    def may_be_true(self) -> bool:
        """Its value can be true or false, as far as can be told without an event."""
        return self._program.return_type() in (_TYPE.BOOL, _TYPE.DYN)

    def value(self, bound: Bound) -> object:
        """Its value for an event, as Python has it. ExpressionFailed where there is none."""
        copies = self._copies(bound)
        if copies * bound.size > MOST_COPIED or (self._builds and copies > MOST_ELEMENTS):
            raise ExpressionFailed("the event is too large for this expression")
        try:
            result = self._program.eval(bound.activation)
            value = result.plain_value()
        except RuntimeError as error:
            raise ExpressionFailed(_readable(str(error))) from None
        if result.type() == _TYPE.ERROR:
            raise ExpressionFailed(_readable(str(value)))
        return value

    def _copies(self, bound: Bound) -> int:
        """How often the body may come to stand in the value, at the very most."""
        if not self._builds:
            return self._size
        return self._size + min(ITERATIONS, int((bound.commas + 1) ** self._loops))


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
        line, column, what = int(found[1]), int(found[2]), " ".join(found[3].split())
        place = f" at line {line}, column {column}" if line > 1 else f" at column {column}" if column > 0 else ""
        return f"{what}{place}"
    return " ".join(text.split())
