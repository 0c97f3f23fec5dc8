"""Oracle's SQL as tokens."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

_TOKEN = re.compile(
    r"""
    (?P<space>\s+|--[^\n]*(?:\n|$)|/\*.*?\*/)
  | (?P<string>[nN]?'(?:[^']|'')*')
  | (?P<quoted>"[^"]*")
  | (?P<bind>:(?:"[^"]+"|[A-Za-z0-9_$\#]+))
  | (?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)
  | (?P<word>[A-Za-z][\w$\#]*)
  | (?P<operator>\|\||<>|!=|>=|<=|:=|=>|::|.)
""",
    re.VERBOSE | re.DOTALL,
)


class Token(NamedTuple):
    """A piece of a statement; its kind is the name of a group in the pattern above."""

    kind: str
    text: str

    @property
    def upper(self) -> str:
        """The text as Oracle compares it: case matters only in strings and quoted names."""
        return self.text.upper() if self.kind in {"word", "operator"} else self.text


def tokens_of(sql: str) -> list[Token]:
    """The tokens of a statement, with its spaces and comments."""
    return [Token(found.lastgroup or "", found.group()) for found in _TOKEN.finditer(sql)]


def without_space(tokens: Iterable[Token]) -> list[Token]:
    """The tokens without spaces and comments."""
    return [token for token in tokens if token.kind != "space"]


def text_of(tokens: Iterable[Token]) -> str:
    """The SQL of these tokens."""
    return "".join(token.text for token in tokens)


def top_level(tokens: Iterable[Token]) -> list[Token]:
    """The tokens outside parentheses, with each opening parenthesis as a mark."""
    outside: list[Token] = []
    depth = 0
    for token in tokens:
        if depth == 0 and token.text != ")":
            outside.append(token)
        depth += (token.text == "(") - (token.text == ")")
    return outside


def closing(tokens: Sequence[Token], opening: int) -> int:
    """The position of the parenthesis that closes the one at `opening`; the end if there is none."""
    depth = 0
    for position in range(opening, len(tokens)):
        depth += (tokens[position].text == "(") - (tokens[position].text == ")")
        if depth == 0:
            return position
    return len(tokens)
