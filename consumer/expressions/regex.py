"""Estimates the cost of an RE2 regular expression (https://github.com/google/re2/wiki/Syntax) from its text. Pure."""

import re

MOST_CHARACTERS = 100
MOST_STATES = 400  # these compile in 0.1 ms, in each evaluation

# States of the automaton for a part of a pattern, derived from compile times (0.25 µs per state): a character that is
# not ASCII has several bytes, and negated classes and dots include such characters.
_WIDE = 10
_CLASS = 5
_FOLDED = 4  # factor without regard to case: a letter then stands for all letters that fold to it

_PART = re.compile(
    r"""(?P<group>\((?:\?:)?) | (?P<end>\)) | (?P<count>\{(?P<least>\d+)(?:,(?P<most>\d*))?\}) | (?P<more>[*+?|^$])
    | (?P<class>\[(?P<not>\^?)(?P<members>\]?(?:\\.|\[:\^?[a-z]+:\]|[^\]\\])*)\])
    | (?P<escape>\\(?:x\{[0-9A-Fa-f]+\}|x[0-9A-Fa-f]{2}|.)) | (?P<any>\.) | (?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
_NOT_PERMITTED = re.compile(r"\\[pPQCX0-9]|\(\?(?!:)")
_WIDE_MEMBERS = re.compile(r"\\[DSWx]|\[:\^|[^\x00-\x7f]")


def states_of(pattern: str) -> int:
    """The maximum number of states of the pattern's automaton. Raises ValueError, with advice, if that is too many."""
    if len(pattern) > MOST_CHARACTERS:
        raise ValueError(f"a pattern has at most {MOST_CHARACTERS} characters, this one has {len(pattern)}")
    folded = pattern.startswith("(?i)")
    pattern = pattern.removeprefix("(?i)")
    if found := _NOT_PERMITTED.search(pattern):
        raise ValueError(
            f"a pattern may not hold {found[0]}: write a class such as [a-z] or \\w, (?:…) for a group,"
            " and (?i) only at the start"
        )
    groups, last = [0], 0  # the states of each open group, and of the last part, which a count would repeat
    for part in _PART.finditer(pattern):
        match part.lastgroup:
            case "group":
                groups.append(0)
                last = 0
            case "end" if len(groups) > 1:
                last = groups.pop()
                groups[-1] += last
            case "count":
                groups[-1] += last * (max(1, int(part["least"]), int(part["most"] or 0)) - 1)
                last = 0  # RE2 does not accept a repetition of a repetition
            case "more":
                groups[-1] += 1
            case _:
                last = _states(part)
                groups[-1] += last
    states = sum(groups) * (_FOLDED if folded else 1)
    if states > MOST_STATES:
        raise ValueError("a pattern is too complex: repeat fewer times, and prefer letters to dots and negated classes")
    return states


def _states(part: re.Match[str]) -> int:
    if part["class"] is not None:
        return _WIDE if part["not"] or _WIDE_MEMBERS.search(part["members"]) else _CLASS
    if part["any"] is not None:
        return _WIDE
    if part["escape"] is not None:
        return _WIDE if part["escape"][1] in "DSWx" else _CLASS if part["escape"][1] in "dswv" else 1
    return len(part[0].encode())
