"""Answers of a receiver, valid by the grammar of RFC 9112 or nearly; their pieces; and how AnswerReader reads them."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import strategies as st

from consumer.sending.answer import Answer, AnswerReader, BadAnswer

OK = b"HTTP/1.1 200 OK\r\n"
EMPTY = b"Content-Length: 0\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"


_NAMES = (b"A", b"Content-Type", b"x-long", b"Retry-After", b"Set-Cookie", b"Upgrade", b"Keep-Alive", b"Trailer")
_VALUES = (b"", b"b", b"text/plain; q=1", b"x" * 900, b"7", b"a=b\tc", b"\xc3\xa4", b"h2c", b"chunked", b"close")
_CONNECTION = (
    *(b"", b"", b"", b"close", b"keep-alive", b"CLOSE", b"Keep-Alive, Upgrade", b"x, close", b"close, keep-alive"),
)
_REASONS = (b" OK", b" OK", b"", b" ", b" Not\tFound", b" \xff", b" 200 OK")
_EXTENSIONS = (b"", b"", b"", b";a", b";a=b", b';a="b;c"', b";a=b;c=d")
_INTERIM = (100, 102, 103, 104, 199)
_STATUS = (200, 200, 200, 201, 202, 204, 205, 299, 301, 304, 400, 410, 429, 500, 503, 999)
_BODILESS = (204, 304)
_SNIPPETS = (
    *(b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\0", b" ", b"\t", b":", b";", b",", b"-", b"+", b"0", b"\x01", b"\x7f"),
    *(b"Content-Length: 3\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n"),
    *(b"Transfer-Encoding: gzip\r\n", b"Transfer-Encoding: gzip, chunked\r\n", b" folded\r\n", b"1\r\nx\r\n"),
    *(b"0\r\n\r\n", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 101 Upgraded\r\n\r\n"),
    *(b"HTTP/2.0", b"f" * 16),
)

_fields = st.tuples(
    st.sampled_from(_NAMES),
    st.sampled_from((b" ", b"", b"\t ")),
    st.sampled_from(_VALUES),
    st.sampled_from((b"", b" ")),
)
_headers = st.lists(_fields, max_size=3).map(lambda fields: b"".join(b"%s:%s%s%s\r\n" % field for field in fields))
_sizes = st.sampled_from((0, 1, 2, 3, 10, 300, 300, 65_535, 65_536, 65_537))
_small = st.sampled_from((0, 1, 2, 3, 10, 300))
_behind = st.sampled_from((b"", b"", b"", b"", b"x", b"\r\n", b"HTTP/1.1 500 X\r\n\r\n"))


@st.composite
def _head(draw: st.DrawFn, statuses: tuple[int, ...], framing: bytes, *, keep: bool) -> bytes:
    version = b"1.1" if keep else draw(st.sampled_from((b"1.1", b"1.1", b"1.1", b"1.0")))
    connection = b"" if keep else draw(st.sampled_from(_CONNECTION))
    line = b"HTTP/%s %d%s\r\n" % (version, draw(st.sampled_from(statuses)), draw(st.sampled_from(_REASONS)))
    lines = [draw(_headers), framing, b"Connection: %s\r\n" % connection if connection else b""]
    return line + b"".join(draw(st.permutations(lines))) + b"\r\n"


@st.composite
def _chunked(draw: st.DrawFn, sizes: st.SearchStrategy[int]) -> bytes:
    text = b""
    for size in draw(st.lists(sizes.filter(bool), max_size=3)):
        form = draw(st.sampled_from((b"%x", b"%X", b"00%x")))
        text += form % size + draw(st.sampled_from(_EXTENSIONS)) + b"\r\n" + b"c" * size + b"\r\n"
    return text + b"0" + draw(st.sampled_from(_EXTENSIONS)) + b"\r\n" + draw(_headers) + b"\r\n"


@st.composite
def _answer(draw: st.DrawFn, *, keep: bool) -> bytes:
    interim = b"".join(draw(st.lists(_head(_INTERIM, b"", keep=False), max_size=2)))
    framing = draw(st.sampled_from(("length", "length", "chunked") if keep else ("length", "length", "chunked", "end")))
    sizes = _small if keep else _sizes
    if framing == "chunked":
        status = draw(st.sampled_from([status for status in _STATUS if not keep or status not in _BODILESS]))
        return interim + draw(_head((status,), b"Transfer-Encoding: chunked\r\n", keep=keep)) + draw(_chunked(sizes))
    body = b"b" * draw(sizes)
    line = b"Content-Length: %d\r\n" % len(body) if framing == "length" else b""
    head = draw(_head(_STATUS, line, keep=keep))
    return interim + head + (b"" if keep and int(head[9:12]) in _BODILESS else body)


def kept() -> st.SearchStrategy[bytes]:
    """Interim answers and a final one that keeps the connection."""
    return _answer(keep=True)


@st.composite
def right(draw: st.DrawFn) -> bytes:
    """Interim answers, a final one, and sometimes bytes after it."""
    return draw(_answer(keep=False)) + draw(_behind)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A valid answer with bytes changed, dropped, inserted, repeated, or cut off at the end; most often in its head."""
    text = draw(right())
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, min(len(text), draw(st.sampled_from((40, 160, 512, 70_000))))))
        how = draw(st.sampled_from(("change", "drop", "insert", "insert", "repeat", "end")))
        size = draw(st.integers(1, 20))
        if how == "change":
            text = text[:at] + bytes([draw(st.integers(0, 255))]) + text[at + 1 :]
        elif how == "drop":
            text = text[:at] + text[at + size :]
        elif how == "insert":
            text = text[:at] + draw(st.sampled_from(_SNIPPETS)) + text[at:]
        elif how == "repeat":
            text = text[:at] + text[max(at - size, 0) :]
        else:
            text = text[:at]
    return text


@st.composite
def cut(draw: st.DrawFn, texts: st.SearchStrategy[bytes]) -> list[bytes]:
    """The text in one or several pieces. None is empty, unless the whole text is."""
    text = draw(texts)
    most = min(len(text), draw(st.sampled_from((200, 70_000))))
    places = sorted({0, len(text), *draw(st.lists(st.integers(0, most), max_size=5))})
    return [text[start:end] for start, end in pairwise(places)]


def read(pieces: Iterable[bytes], reader: AnswerReader | None = None) -> Answer:
    """The answer, if the connection ends after the pieces. Raises BadAnswer.

    `keep` is false if bytes are left: a connection with unrequested bytes is closed.
    """
    reader = reader or AnswerReader()
    rest = iter(pieces)
    for piece in rest:
        answer = reader.feed(piece)
        if answer is not None:
            return replace(answer, keep=answer.keep and not any(rest))
    return reader.end()


def reason(pieces: Iterable[bytes], reader: AnswerReader | None = None) -> str:
    """The reason why the text is no answer."""
    with pytest.raises(BadAnswer) as bad:
        read(pieces, reader)
    return str(bad.value)


def pieces_of(text: bytes, size: int) -> Iterator[bytes]:
    """Pieces of one size, except for the last."""
    return (text[start : start + size] for start in range(0, len(text), size))


def cuts(text: bytes) -> Iterator[list[bytes]]:
    """The whole text, the text cut at each place, and byte by byte if that many reads are allowed."""
    yield [text]
    for place in range(1, len(text)):
        yield [text[:place], text[place:]]
    if len(text) < 256:
        yield list(pieces_of(text, 1))
