"""CEL expressions: filters and projections of subscriptions, and the fields of mappings."""

from consumer.expressions.expression import (
    LONGEST,
    NAMES,
    TOO_LARGE,
    EventTooLarge,
    Expression,
    ExpressionFailed,
    PartMissing,
    Variables,
    compile_filter,
    compile_projection,
)

__all__ = [
    "LONGEST",
    "NAMES",
    "TOO_LARGE",
    "EventTooLarge",
    "Expression",
    "ExpressionFailed",
    "PartMissing",
    "Variables",
    "compile_filter",
    "compile_projection",
]
