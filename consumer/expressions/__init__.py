"""CEL filters and projections of subscriptions."""

from consumer.expressions.expression import (
    LONGEST,
    NAMES,
    TOO_LARGE,
    EventTooLarge,
    Expression,
    ExpressionFailed,
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
    "Variables",
    "compile_filter",
    "compile_projection",
]
