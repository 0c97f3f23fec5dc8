"""What a regular expression of RE2 (https://github.com/google/re2/wiki/Syntax) takes, told from its text. Pure."""

import re

MOST_CHARACTERS = 100
MOST_STATES = 400  # 0.1 ms to compile, which the runtime does in each evaluation

# States of the automaton that a part of a pattern becomes, as compiling it was timed (0.25 µs each): a character that
# is not ASCII has several bytes, and so have all that a negated class or a dot stands for.
_WIDE = 10
_CLASS = 5
_FOLDED = 4  # times as many without regard to case: each letter stands for all that fold to it

_PART = re.compile(
    r"""(?P<group>\((?:\?:)?) | (?P<end>\)) | (?P<count>\{(?P<least>\d+)(?:,(?P<most>\d*))?\}) | (?P<more>[*+?|^$])
    | (?P<class>\[(?P<not>\^?)(?P<members>\]?(?:\\.|\[:\^?[a-z]+:\]|[^\]\\])*)\])
    | (?P<escape>\\(?:x\{[0-9A-Fa-f]+\}|x[0-9A-Fa-f]{2}|.)) | (?P<any>\.) | (?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
_NOT_PERMITTED = re.compile(r"\\[pPQCX0-9]|\(\?(?!:)")
_WIDE_MEMBERS = re.compile(r"\\[DSWx]|\[:\^|[^\x00-\x7f]")


def states_of(pattern: str) -> int:
    """How many states its automaton has, at most. ValueError for a pattern that takes too much, and says what does."""
    if len(pattern) > MOST_CHARACTERS:
        raise ValueError(f"a pattern has at most {MOST_CHARACTERS} characters, this one has {len(pattern)}")
    folded = pattern.startswith("(?i)")
    pattern = pattern.removeprefix("(?i)")
    if found := _NOT_PERMITTED.search(pattern):
        raise ValueError(
            f"a pattern may not hold {found[0]}: write a class such as [a-z] or \\w, (?:…) for a group,"
            " and (?i) only in front of all"
        )
    groups, last = [0], 0  # the states of each open group, and of the part that a count would repeat
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
                last = 0  # RE2 takes no repetition of a repetition
            case "more":
                groups[-1] += 1
            case _:
                last = _states(part)
                groups[-1] += last
    states = sum(groups) * (_FOLDED if folded else 1)
    if states > MOST_STATES:
        raise ValueError("a pattern takes too much: repeat fewer times, and prefer letters to dots and negated classes")
    return states


def _states(part: re.Match[str]) -> int:
    if part["class"] is not None:
        return _WIDE if part["not"] or _WIDE_MEMBERS.search(part["members"]) else _CLASS
    if part["any"] is not None:
        return _WIDE
    if part["escape"] is not None:
        return _WIDE if part["escape"][1] in "DSWx" else _CLASS if part["escape"][1] in "dswv" else 1
    return len(part[0].encode())
