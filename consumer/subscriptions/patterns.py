"""Matches event types against a subscription's `event_type`: a type, `a.*`, `a.**`, or `*`. Pure.

Each dot begins a segment, which may be empty. `a.b.*` matches types with exactly one segment after `a.b`, `a.b.**`
types with one or more, and `*` alone every type. `*` is a wildcard only at the end, and the text before the last dot is
never empty. So all patterns that match a type can be enumerated, and an index finds them.

A comma, a `%` outside percent-encoding and a final dot are refused as mistakes: as a list, or as a wildcard of another
language. Events may still have such types: `*` with a filter matches them.

A type that looks like a pattern does no harm: the type `order.*` has one segment after `order`, so a subscription to
`order.*` matches it either way. Besides that one, only subscriptions to `*` or `order.**` match it, as they match
`order.created`.
"""

import re

from models.subscription import EVENT_TYPE_LENGTH

EVERY = "*"
_ONE, _ANY = ".*", ".**"
_VISIBLE = re.compile(r"[!-~]+")
_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")  # a type may be a URI
_WILDCARDS = "order.* (one segment below order), order.** (any depth below order) or * (every event)"


def candidates(event_type: str) -> tuple[str, ...]:
    """Each `event_type` of a subscription that matches this type, once. At most 256, since all must fit the column.

    Patterns longer than the column are left out, since no row can hold them.
    """
    dots = [index for index, character in enumerate(event_type[:EVENT_TYPE_LENGTH]) if character == "." and index]
    found = [event_type, EVERY]
    if (last := event_type.rfind(".")) > 0:
        found.append(event_type[:last] + _ONE)
    found.extend(event_type[:dot] + _ANY for dot in dots)
    return tuple(dict.fromkeys(pattern for pattern in found if len(pattern) <= EVENT_TYPE_LENGTH))


def matches(pattern: str, event_type: str) -> bool:
    """Whether a subscription with this `event_type` gets events of that type."""
    return pattern in candidates(event_type)


def check_pattern(text: str) -> None:
    """Raise ValueError if `text` cannot be the `event_type` of a subscription; its text says what to write instead."""
    if not text:
        raise ValueError(f"is empty; write a type such as order.created, {_WILDCARDS}")
    if text != text.strip() and _VISIBLE.fullmatch(text.strip()):
        raise ValueError(f"has a blank at its start or end; write {text.strip()}")
    if not _VISIBLE.fullmatch(text):
        raise ValueError("must be visible ASCII without spaces, such as order.created")
    if len(text) > EVENT_TYPE_LENGTH:
        raise ValueError(f"has {len(text)} characters; at most {EVENT_TYPE_LENGTH} are kept")
    if "," in text:
        raise ValueError("holds a comma; write one type or pattern, and several of them one by one")
    if _PERCENT.search(text):
        raise ValueError(f"holds a %, which is not a wildcard here; write {_WILDCARDS}")
    if text.endswith("."):
        raise ValueError(f"ends with a dot; write {_WILDCARDS}")
    if text != EVERY and "*" in (text.removesuffix(_ANY) if text.endswith(_ANY) else text.removesuffix(_ONE)):
        raise ValueError(f"may hold * as its last segment only; write {_WILDCARDS}")
    if text in {_ONE, _ANY}:
        raise ValueError(f"has nothing before the dot; write {_WILDCARDS}")
