"""Parses a checked CEL expression into a syntax tree, with only the nodes and fields that affect its cost.

The runtime serializes an expression as a `cel.expr.CheckedExpr` (https://github.com/google/cel-spec, proto/cel/expr),
in the wire format of Protocol Buffers. The numbers below are field numbers of these messages.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple


class Constant(NamedTuple):
    """A literal. `value`: the text of a string literal; None for any other."""

    value: str | None


class Name(NamedTuple):
    """A variable or a type."""

    name: str


class Select(NamedTuple):
    """`operand.field`, or `has(operand.field)`."""

    operand: "Node"
    field: str


class Call(NamedTuple):
    """A function or an operator (`_+_`, `_[_]`, …); the operand before the dot is the first one."""

    function: str
    operands: "tuple[Node, ...]"


class Collection(NamedTuple):
    """A list, map or message literal. `message`: the message's type name; empty for a list or a map."""

    parts: "tuple[Node, ...]"
    message: str


class Loop(NamedTuple):
    """A macro: `step` gives `accumulator` its next value for each element (`variable`) of `range_`."""

    variable: str
    range_: "Node"
    accumulator: str
    start: "Node"
    step: "Node"


Node = Constant | Name | Select | Call | Collection | Loop


def parse(checked: bytes) -> Node:
    """Parse the result of `cel.Expression.serialize`, a CheckedExpr in an Any, into a tree."""
    return _node(_first(_first(checked, 2), 4))


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


def _all(message: bytes, number: int) -> list[bytes]:
    return [value for each, value in _fields(message) if each == number]


def _first(message: bytes, number: int) -> bytes:
    return next(iter(_all(message, number)), b"")


def _text(message: bytes, number: int) -> str:
    return _first(message, number).decode()


def _node(message: bytes) -> Node:
    """The node of an Expr, whose kind is the number of its one relevant field."""
    return next((_KINDS[number](value) for number, value in _fields(message) if number in _KINDS), Constant(None))


def _nodes(messages: Iterable[bytes]) -> tuple[Node, ...]:
    return tuple(map(_node, messages))


def _constant(message: bytes) -> Constant:
    texts = _all(message, 6)
    return Constant(texts[0].decode() if texts else None)


def _map(message: bytes) -> Collection:
    entries = _all(message, 2)
    return Collection(
        _nodes(part for entry in entries for number, part in _fields(entry) if number in (3, 4)), _text(message, 1)
    )


def _loop(message: bytes) -> Loop:
    range_, start, step = (_node(_first(message, number)) for number in (2, 4, 6))
    return Loop(_text(message, 1), range_, _text(message, 3), start, step)


_KINDS: Mapping[int, Callable[[bytes], Node]] = {
    3: _constant,
    4: lambda message: Name(_text(message, 1)),
    5: lambda message: Select(_node(_first(message, 1)), _text(message, 2)),
    6: lambda message: Call(_text(message, 2), _nodes((*_all(message, 1), *_all(message, 3)))),
    7: lambda message: Collection(_nodes(_all(message, 1)), ""),
    8: _map,
    9: _loop,
}
