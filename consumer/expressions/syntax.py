"""Parses a checked CEL expression into a syntax tree, with only the parts that affect its cost.

The runtime serializes an expression as a `cel.expr.CheckedExpr` (https://github.com/google/cel-spec, proto/cel/expr),
in the wire format of Protocol Buffers. The numbers below are field numbers of these messages.
"""

from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import NamedTuple

ACCUMULATOR = "@result"  # the runtime's variable of a loop, which no author can write


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
