"""The event types that a pattern matches, compared with a matcher that goes segment by segment."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from consumer.subscriptions.patterns import candidates, check_pattern, matches
from models.subscription import EVENT_TYPE_LENGTH

SEGMENTS = st.sampled_from(["a", "b", "order", "", "*", "**", "a*", "A"])
TYPES = st.lists(SEGMENTS, min_size=1, max_size=5).map(".".join) | st.text("a.*", min_size=1, max_size=12)
LONG = st.tuples(st.sampled_from(["", "a", "segment"]), st.integers(1, 400)).map(lambda of: ".".join([of[0]] * of[1]))


def reference(pattern: str, event_type: str) -> bool:
    """Matches segment by segment, as the documentation describes it."""
    if pattern == "*":
        return True
    prefix, _, last = pattern.rpartition(".")
    above, segments = prefix.split("."), event_type.split(".")
    if prefix and last in {"*", "**"} and segments[: len(above)] == above:
        further = len(segments) - len(above)
        return further == 1 if last == "*" else further >= 1
    return pattern == event_type


@given(pattern=TYPES, event_type=TYPES)
@example(pattern="order.*", event_type="order.created")
@example(pattern="order.**", event_type="order.item.added")
@example(pattern="order.*", event_type="order.")
@example(pattern=".*", event_type=".a")
@example(pattern="..*", event_type="..")
def test_a_pattern_matches_by_segments(pattern: str, event_type: str) -> None:
    """A pattern is exact or has one level, any depth or everything, also for types with empty segments or stars."""
    assert matches(pattern, event_type) == reference(pattern, event_type)


@given(TYPES | LONG | st.text("a.", min_size=900, max_size=1000))
def test_the_candidates_of_a_type_are_few_and_fit(event_type: str) -> None:
    """They are distinct and fit the column; a type of a thousand characters has at most 256."""
    found = candidates(event_type)
    assert len(set(found)) == len(found) <= 256
    assert max(map(len, found)) <= EVENT_TYPE_LENGTH
    assert "*" in found
    assert (event_type in found) == (len(event_type) <= EVENT_TYPE_LENGTH)


def test_the_candidates_of_a_type() -> None:
    """They are the type itself, one level above, each level above at any depth, and everything."""
    assert set(candidates("a.b.c")) == {"a.b.c", "a.b.*", "a.b.**", "a.**", "*"}
    assert set(candidates("a")) == {"a", "*"}
    assert len(candidates("." * 1000)) == 253


@pytest.mark.parametrize(
    "text",
    [
        *("order.created", "order", "order.*", "order.item.*", "order.**", "*", "a..b", ".a", "a..*", "x" * 255),
        *("https://example.com/types#paid", "urn:types:a%20b%2C", "a_b?c=d"),
    ],
)
def test_valid_patterns_are_accepted(text: str) -> None:
    """Types of any form, and patterns with a star as the last segment, are accepted."""
    check_pattern(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is empty; write a type such as order.created, order.* (one segment below order)"),
        ("order created", "visible ASCII"),
        (" order.created", "has a blank at its start or end; write order.created"),
        ("order.created\n", "has a blank at its start or end; write order.created"),
        ("order.created,order.paid", "holds a comma; write one type or pattern, and several of them one by one"),
        ("%", "holds a %, which is not a wildcard here; write order.* (one segment below order), order.** (any"),
        ("order.", "ends with a dot; write order.* (one segment below order), order.**"),
        ("x" * 256, "has 256 characters; at most 255 are kept"),
        ("order.*.x", "as its last segment only; write order.* (one segment below order), order.** (any depth"),
        ("**", "or * (every event)"),
        ("order.***", "as its last segment only"),
        (".*", "has nothing before the dot; write order.*"),
        (".**", "has nothing before the dot"),
    ],
)
def test_invalid_patterns_are_refused_with_a_valid_one(text: str, why: str) -> None:
    """The error text continues behind the option's name and shows a valid pattern."""
    with pytest.raises(ValueError, match=r"^(is|has|may|must|holds|ends) ") as caught:
        check_pattern(text)
    assert why in str(caught.value)
