"""How long an expression may take, told from its text: CEL's runtime bounds iterations, and not what each of them does.

Nearly all operations can go through a value from end to end, and a loop can do so in each of its turns. Within a loop,
what is said of its own variable goes through each element once, which is the whole of the value; what is said of
anything else goes through that again in each turn. Counts too much where it cannot tell. Pure.
"""

import re
from dataclasses import dataclass
from math import prod

ITERATIONS = 10_000  # the runtime's own limit, of all loops of an expression together
_SCAN = 1e-8  # seconds for a byte of an event that an operation goes through; lists of numbers take up to 3.5e-8
_STEP = 1.5e-7  # seconds for an operation on next to nothing
_STATE = 17e-9  # seconds for a byte and a character of a regular expression, its repetitions written out
_PATTERN = 1e-6  # seconds to understand such a character
_BUILD = 27e-9  # seconds for a turn of `map` or `filter` and an element that it has given: they copy all of them
_SEARCH = 2.5e-12  # seconds for a byte of a text and one of the event's that is searched for in it

_BUILDING = frozenset(("map", "filter"))
_LOOPS = _BUILDING | {"all", "exists", "exists_one"}
_NO_NAMES = frozenset(("in", "true", "false", "null"))
_SCANNING = frozenset(("==", "!=", "<", "<=", ">", ">=", "+", "in", "["))
_TOKEN = re.compile(
    r"""//[^\n]*
    | (?:[rR][bB]?|[bB][rR]) (?: \"{3}.*?\"{3} | '{3}.*?'{3} | "[^"\n]*" | '[^'\n]*' )
    | [bB]? (?: \"{3}(?:\\.|.)*?\"{3} | '{3}(?:\\.|.)*?'{3} | "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*' )
    | [A-Za-z_]\w* | \d[\w.]* | [=!<>]= | \S""",
    re.VERBOSE | re.DOTALL,
)
_TEXT = re.compile(r"[bBrR]{0,2}[\"']")
_HIDDEN = re.compile(r"(?<!\\)(?:\\\\)*\\[xXuU0-7]")  # a character of a text that is written as its number
_ZONED = frozenset(f"get{part}" for part in ("FullYear", "Month", "Date", "DayOfMonth", "DayOfWeek", "DayOfYear"))
_ZONED |= {f"get{part}" for part in ("Hours", "Minutes", "Seconds", "Milliseconds")}
_ZONE = re.compile(r"""(["'])(?:[+-]?\d\d:\d\d|[A-Za-z_]+(?:/[A-Za-z0-9_+-]+)*)\1""")  # no path, no file: …
_MOST_STATES = 10**12  # no event is so small that they may run; a larger number is no float
_COUNT = re.compile(r"\{(\d{1,6})(?:,(\d{0,6}))?\}")


@dataclass(frozen=True, slots=True)
class Cost:
    """What an expression does, at the very most.

    `scans` operations and `names` of what the event has; `depth` loops stand in one another, of which `again` go anew
    through what is not their own. `builds` of them give lists, whose elements hold theirs `growth` times. `joins` and
    `items` may make lists longer than the event's. `states` of its regular expressions.
    """

    scans: int
    names: int
    depth: int
    again: int
    builds: int
    growth: int
    joins: int
    items: int
    states: int
    searches: int

    def turns(self, elements: int) -> int:
        """Of its loops, where no list or map of the event has more than so many elements."""
        return min(ITERATIONS, int(self._longest(elements) ** self.depth))

    def copies(self, elements: int) -> int:
        """How often the event may come to stand in the value."""
        return (self.names + 1) * self.growth * self._repeats(elements)

    def seconds(self, size: int, elements: int) -> float:
        """For an event of `size` bytes."""
        read = size * self.growth * (self.joins + 1) * self._repeats(elements)
        step = self.scans * _STEP + self.states * _PATTERN
        each = self.scans * _SCAN + self.states * _STATE + self.searches * size * _SEARCH
        turns = self.turns(elements)
        return read * each + turns * step + self.builds * turns * turns * _BUILD

    def _repeats(self, elements: int) -> int:
        return min(ITERATIONS, int(self._longest(elements) ** self.again))

    def _longest(self, elements: int) -> int:
        return min(ITERATIONS, elements * (self.joins + 1) * self.growth + self.items)


class _Bracket:
    """An open one. `variable`: of the loop that it belongs to. `names`: said in it."""

    __slots__ = ("is_map", "names", "variable")

    def __init__(self, before: str, bracket: str, after: str) -> None:
        self.variable = after if bracket == "(" and before in _LOOPS else None
        self.is_map = self.variable is not None and before == "map"
        self.names = 0


def cost_of(source: str) -> Cost:
    """The cost of an expression that compiles. ValueError for a regular expression that is not written out."""
    tokens = [token for token in _TOKEN.findall(source) if not token.startswith("//")]
    _check_patterns(tokens)
    scans, names, depth, again, growth = 1, 0, 0, 0, 1
    brackets: list[_Bracket] = []
    for before, token, after in zip(["", *tokens], tokens, [*tokens[1:], ""], strict=False):
        if token in {"(", "[", "{"}:
            brackets.append(_Bracket(before, token, after))
            depth = max(depth, len(_variables(brackets)))
        elif token in {")", "]", "}"} and brackets:
            closed = brackets.pop()
            if closed.is_map:
                growth *= max(1, closed.names - 1)  # one of them names the variable
        if token in _SCANNING or (after == "(" and token.isidentifier() and token not in _LOOPS):
            scans += 1
        if token.isidentifier() and before != "." and after != "(" and token not in _NO_NAMES:
            names += 1
            for bracket in brackets:
                bracket.names += 1
            variables = _variables(brackets)
            own = max((number for number, name in enumerate(variables, 1) if name == token), default=0)
            again = max(again, len(variables) - own)
    builds = sum(token in _BUILDING for token in tokens)
    states = _states(tokens) if "matches" in tokens else 0
    searches = sum(
        word == "contains" and not (_TEXT.match(text) and end == ")")
        for word, _, text, end in zip(tokens, tokens[1:], tokens[2:], tokens[3:], strict=False)
    )
    return Cost(scans, names, depth, again, builds, growth, tokens.count("+"), tokens.count(","), states, searches)


def _variables(brackets: list[_Bracket]) -> list[str]:
    return [bracket.variable for bracket in brackets if bracket.variable is not None]


def _check_patterns(tokens: list[str]) -> None:
    for number, word in enumerate(tokens):
        around = [*tokens[max(0, number - 1) : number], *tokens[number + 1 : number + 4]]
        if word == "matches" and not (around[:2] + around[3:] == [".", "(", ")"] and _TEXT.match(around[2])):
            raise ValueError("matches takes a pattern in quotes, as in type.matches('^order')")
        if word == "matches" and around[2][0] not in "rR" and _HIDDEN.search(around[2]):
            raise ValueError("a pattern's characters are written as they are, not as \\x7b or \\u007b")
        following = tokens[number + 1 : number + 4]
        zoned = word in _ZONED and following[:1] == ["("] and following[1:2] != [")"]
        if zoned and (following[2:] != [")"] or not _ZONE.fullmatch(following[1])):
            raise ValueError(f"{word} takes a time zone in quotes, as in time.{word}('Europe/Berlin')")


def _states(tokens: list[str]) -> int:
    texts = [token for token in tokens if _TEXT.match(token)]
    counts = (int(most or least) for text in texts for least, most in _COUNT.findall(text))
    return min(_MOST_STATES, sum(map(len, texts)) * prod(max(1, count) for count in counts))
