"""The parts of a subscription's request that follow the event: path and query of its URL, and header lines. Pure.

No value of an event can change the host, add a header or end a line: in a URL each is percent-encoded as one segment
(RFC 3986, section 2.1), and in a header only visible ASCII is sent.
"""

import re
from base64 import b64encode
from collections.abc import Container, Iterator, Mapping
from functools import lru_cache
from math import isfinite
from typing import Any, NamedTuple
from urllib.parse import quote

from consumer.expressions.expression import LONGEST, Allowance, Expression, ExpressionFailed, compiled
from consumer.http.header_rules import (
    CREDENTIALS,
    LONGEST_NAME,
    STEERING,
    check_name,
    dashed,
    is_free,
    is_value,
    parse_names,
    takes_long,
)
from consumer.http.urls import check_target

MOST_EXPRESSIONS = 20  # in a URL, and in the headers
MOST_HEADERS = 1000  # of a record of which some go on: to look at so many takes some milliseconds
MOST_BYTES = 8192  # of path and query, and of the header lines: many servers refuse more
_PIECE = re.compile(r"""'[^']*'|"[^"]*"|[{}]|[^{}'"]+""")  # of an expression: a text, a brace, or anything else
# A segment of dots (RFC 3986, section 5.2.4), however often a server decodes the path before it looks for one. Some
# take \ for /, some remove what follows a semicolon, and ? or # ends a path that is decoded twice.
_DOTS = re.compile(
    r"(?:^|[/\\]|%(?:25)*(?:2F|5C))(?:\.|%(?:25)*2E){1,2}(?:$|[/\\;?#]|%(?:25)*(?:2F|5C|3B|3F|23))", re.IGNORECASE
)
_ORIGIN = re.compile(r"[A-Za-z]+://[^/?#]*")


class UrlTemplate(NamedTuple):
    """A URL with expressions. `origin`: scheme, host and port, which are fixed.

    `path` and `query`: the rest, in texts and expressions; `query` begins with its question mark.
    """

    origin: str
    path: tuple[str | Expression, ...]
    query: tuple[str | Expression, ...]

    def target(self, variables: Mapping[str, object], allowance: Allowance) -> str:
        """Path and query for an event's `variables`. Raises ExpressionFailed."""
        target = ""
        for part in self.path:
            target += part if isinstance(part, str) else _segment(part, variables, allowance)
            _check_size(target, "path and query have")
        if ("." in target or "%2" in target) and _DOTS.search(target):
            raise ExpressionFailed("a segment of the path is . or .., which leads to another path")
        for part in self.query:
            target += part if isinstance(part, str) else _quoted(_text(part, variables, allowance))
            _check_size(target, "path and query have")
        return target


class Follows(NamedTuple):
    """`computed`: names of headers, and the expressions of their values. `passed` matches names of record headers.

    `url` None: the URL is the same for each event.
    """

    url: UrlTemplate | None = None
    computed: tuple[tuple[str, Expression], ...] = ()
    passed: re.Pattern[str] | None = None

    @property
    def evaluates(self) -> bool:
        """An expression is evaluated for each event."""
        return self.url is not None or bool(self.computed)

    @property
    def takes_too_long(self) -> bool:
        """The expressions together take longer than those of a request may, whatever the event."""
        parts = () if self.url is None else (*self.url.path, *self.url.query)
        mine = [part for part in parts if isinstance(part, Expression)] + [each for _, each in self.computed]
        return sum(each.least for each in mine) > LONGEST

    def fixed_url(self, url: str) -> str:
        """The part of the subscription's `url` that no event changes."""
        return url if self.url is None else url.partition("{")[0]

    def lines(
        self,
        variables: Mapping[str, object],
        headers: Mapping[str, bytes | None] | None,
        taken: Container[str],
        allowance: Allowance,
    ) -> bytes:
        """The header lines for an event's `variables` and record `headers`. Raises ExpressionFailed.

        A record header goes on unless its name, `dashed`, is `taken`, belongs to the sender, or is a credential's.
        """
        lines = ""
        for name, expression in self.computed:
            text = _text(expression, variables, allowance)
            if not is_value(text) or text != text.strip():
                raise ExpressionFailed(f"the value of {name} may hold visible ASCII only, and spaces inside")
            lines += f"{name}: {text}\r\n"
            _check_size(lines, "the header lines have")
        if self.passed is not None and headers:
            if len(headers) > MOST_HEADERS:
                raise ExpressionFailed(f"the record has {len(headers)} headers; they go on if it has {MOST_HEADERS}")
            for line in _passed(self.passed, headers, taken):
                lines += line
                _check_size(lines, "the header lines have")
        return lines.encode("ascii")


def follows_of(meant: Mapping[str, Any]) -> Follows | None:
    """The parts that follow the event, of options from `options.read`; None: there are none."""
    follows = Follows(meant["url"], meant["header_expressions"] or (), meant["pass_headers"])
    return None if follows == Follows() else follows


def _passed(passed: re.Pattern[str], headers: Mapping[str, bytes | None], taken: Container[str]) -> Iterator[str]:
    seen: set[str] = set()
    headers = {name: value for name, value in headers.items() if len(name) <= LONGEST_NAME}
    if takes_long(passed, headers):
        raise ExpressionFailed("the names of the record's headers are too many and too long for pass_headers")
    for name, value in headers.items():
        if (
            value is not None
            and name.isascii()  # the Kelvin sign is a k in lower case
            and passed.match(name.lower())
            and (alike := dashed(name)) not in seen
            and alike not in taken
            and is_free(alike)
        ):
            if len(value) > MOST_BYTES:
                raise ExpressionFailed(f"the record's header {name:.100} has {len(value)} bytes; {MOST_BYTES} are sent")
            seen.add(alike)
            text = value.decode("latin-1")
            plain = is_value(text) and text == text.strip()
            yield f"{name}: {text if plain else b64encode(value).decode('ascii')}\r\n"


def url_template(url: str) -> UrlTemplate | None:
    """The template of a URL; None if it has no expression. Raises ValueError, whose text quotes no password.

    An expression stands in braces, without spaces or backslashes; `%7B` and `%7D` are braces of the URL itself.
    """
    return None if _is_plain(url) else _template(url)


@lru_cache(65_536)
def _is_plain(url: str) -> bool:
    check_target(url)
    return "{" not in url and "}" not in url


def _template(url: str) -> UrlTemplate:
    origin = _ORIGIN.match(url)
    if origin is None or "{" in origin[0] or "}" in origin[0]:
        raise ValueError("may have expressions in its path and query only: scheme, host and port are fixed")
    rest = url[origin.end() :]
    parts = [*_parts(rest if rest.startswith("/") else f"/{rest}")]
    if any(isinstance(part, str) and "#" in part for part in parts):
        raise ValueError("has a fragment, which is never sent; remove it")
    if sum(isinstance(part, Expression) for part in parts) > MOST_EXPRESSIONS:
        raise ValueError(f"has more than {MOST_EXPRESSIONS} expressions")
    if _DOTS.search("".join(part if isinstance(part, str) else "x" for part in parts).partition("?")[0]):
        raise ValueError("has a segment . or .. in its path, which leads to another path; leave it out")
    for place, part in enumerate(parts):
        if isinstance(part, str) and "?" in part:
            path, _, query = part.partition("?")
            return UrlTemplate(origin[0], (*parts[:place], path), (f"?{query}", *parts[place + 1 :]))
    return UrlTemplate(origin[0], tuple(parts), ())


def _parts(rest: str) -> Iterator[str | Expression]:
    while rest:
        text, brace, rest = rest.partition("{")
        if "}" in text:
            raise ValueError("has a } without a {; write %7D for one that belongs to the URL")
        if text:
            yield text
        if brace:
            source, rest = _expression(rest)
            yield compile_text(source)


def _expression(rest: str) -> tuple[str, str]:
    """The expression at the start of `rest`, which follows its brace, and the text behind its closing brace."""
    depth = 1
    for piece in _PIECE.finditer(rest):
        depth += {"{": 1, "}": -1}.get(piece[0], 0)
        if not depth:
            return rest[: piece.start()], rest[piece.end() :]
    raise ValueError("has a { without a }; write %7B for one that belongs to the URL")


def compile_text(source: str) -> Expression:
    """Compile an expression that stands for a text. Raises ValueError, which quotes it, if it is invalid."""
    try:
        return compiled(source)
    except ValueError as error:
        raise ValueError(f"has {source!r}, which is not CEL: {error}") from None


def parse_passed(text: str) -> re.Pattern[str]:
    """Compile the names of record headers that go on. Raises ValueError."""
    return parse_names(text, _check_passed, STEERING)


def _check_passed(name: str) -> None:
    check_name(name)
    if dashed(name) in CREDENTIALS:
        raise ValueError(f"names {name}, a credential; store it in webhook_secrets")
    if not is_free(dashed(name)):
        raise ValueError(f"names {name}, which belongs to a CloudEvent; choose payload_format cloudevents-binary")


def _segment(expression: Expression, variables: Mapping[str, object], allowance: Allowance) -> str:
    text = _text(expression, variables, allowance)
    if not text:
        raise ExpressionFailed(f"{expression.source} is empty, so the path would be another one")
    return _quoted(text)


def _check_size(text: str, whose: str) -> None:
    if len(text) > MOST_BYTES:
        raise ExpressionFailed(f"{whose} more than {MOST_BYTES} bytes, which many servers refuse")


def _quoted(text: str) -> str:
    return text if text.isalnum() and text.isascii() else quote(text, safe="")


def _text(expression: Expression, variables: Mapping[str, object], allowance: Allowance) -> str:
    """The value as text. Raises ExpressionFailed for a value that is neither a text, a number nor a boolean."""
    value = expression.value(variables, allowance)
    if isinstance(value, str):
        _check_size(value, f"{expression.source} has")
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) or (isinstance(value, float) and isfinite(value)):
        return str(value)
    what = "null" if value is None else f"a {type(value).__name__.lower()}"
    raise ExpressionFailed(f"{expression.source} is {what}, not a text")
