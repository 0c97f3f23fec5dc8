"""CEL expressions: filters and projections of subscriptions, and the fields of mappings."""

from consumer.expressions.expression import (
    ANY,
    LONGEST,
    NAMES,
    TEXT,
    TEXTS,
    TOO_LARGE,
    Environment,
    EventTooLarge,
    Expression,
    ExpressionFailed,
    PartMissing,
    compile_filter,
    compile_projection,
)

__all__ = [
    "ANY",
    "LONGEST",
    "NAMES",
    "TEXT",
    "TEXTS",
    "TOO_LARGE",
    "Environment",
    "EventTooLarge",
    "Expression",
    "ExpressionFailed",
    "PartMissing",
    "compile_filter",
    "compile_projection",
]
