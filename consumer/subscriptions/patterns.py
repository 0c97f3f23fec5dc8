"""Which event types a subscription's `event_type` stands for: a type, `a.*`, `a.**`, or `*`. Pure.

A dot begins a segment, an empty one too. `a.b.*` stands for the types with exactly one segment behind `a.b`, `a.b.**`
for those with one or more, `*` alone for every type. Only at the end is `*` anything but itself, and what stands before
the last dot is never empty: all patterns of a type can be counted up, so that an index finds them.

A comma, a `%` that is no percent-encoding and a dot at the end are taken for a mistake, a list or a wildcard of another
language, though events may have such types: `*` with a filter gets these.

No type is mistaken for a pattern: a type that reads `order.*` has one segment behind `order`, so that whoever wrote
`order.*` gets it either way, and nobody gets it who would not get `order.created`, but for those of `*` or `order.**`.
"""

import re

from models.subscription import EVENT_TYPE_LENGTH

EVERY = "*"
_ONE, _ANY = ".*", ".**"
_VISIBLE = re.compile(r"[!-~]+")
_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")  # a type may be a URI
_WILDCARDS = "order.* (one segment below order), order.** (any depth below order) or * (every event)"


def candidates(event_type: str) -> tuple[str, ...]:
    """Everything that a subscription can have written to get this type, each once: no more than 256, as all fit.

    Those longer than the column are left out: nobody can have written them.
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
    """ValueError, with what would work, for what can be no `event_type` of a subscription."""
    if not text:
        raise ValueError(f"is empty; write a type such as order.created, {_WILDCARDS}")
    if text != text.strip() and _VISIBLE.fullmatch(text.strip()):
        raise ValueError(f"has a blank at an end; write {text.strip()}")
    if not _VISIBLE.fullmatch(text):
        raise ValueError("must be visible ASCII without spaces, such as order.created")
    if len(text) > EVENT_TYPE_LENGTH:
        raise ValueError(f"has {len(text)} characters; at most {EVENT_TYPE_LENGTH} are kept")
    if "," in text:
        raise ValueError("holds a comma; write one type or pattern, and add a subscription for each of several")
    if _PERCENT.search(text):
        raise ValueError(f"holds a %, which is no wildcard here; write {_WILDCARDS}")
    if text.endswith("."):
        raise ValueError(f"ends with a dot; write {_WILDCARDS}")
    if text != EVERY and "*" in (text.removesuffix(_ANY) if text.endswith(_ANY) else text.removesuffix(_ONE)):
        raise ValueError(f"may hold * as its last segment only; write {_WILDCARDS}")
    if text in {_ONE, _ANY}:
        raise ValueError(f"has nothing before the dot; write {_WILDCARDS}")
