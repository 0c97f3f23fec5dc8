"""Answers compared with h11: each difference between the two parsers has a known reason."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sending.answer_grammar import cut, mutated, right
from tests.sending.answers_kit import CHUNKED, EMPTY, OK
from tests.sending.h11_answers import DIFFERENCES, difference, ours, theirs

EXAMPLES = 200  # `python -m benchmarks.answers` tries any number
NONE, NOT_READ, READ, KEPT = (0, b"", False), (200, b"", False), (200, b"ok", False), (200, b"ok", True)
LENGTH = b"Content-Length: 2\r\n\r\nok"
SHOWN = {
    "an empty line after the answer": (OK + LENGTH + b"\r\n", KEPT, READ),
    "an empty line before a status line": (b"\r\n" + OK + LENGTH, KEPT, NONE),
    "a control character in the reason": (b"HTTP/1.1 200 O\0K\r\n" + LENGTH, KEPT, NONE),
    "a transfer coding other than chunked": (
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        KEPT,
        NOT_READ,
    ),
    "a trailer about the connection": (
        OK + CHUNKED + b"2\r\nok\r\n0\r\nConnection: close\r\n\r\n",
        READ,
        KEPT,
    ),
    "HTTP/1.0 with keep-alive": (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n" + LENGTH, KEPT, READ),
    "a line that ends without CR": (b"HTTP/1.1 200 OK\n" + LENGTH, NOT_READ, KEPT),
    "a version that is neither 1.0 nor 1.1": (b"HTTP/2.0 200 OK\r\n" + LENGTH, NONE, KEPT),
    "a folded header line": (OK + b"A: b\r\n c\r\n" + LENGTH, NOT_READ, KEPT),
    "a control character in a header's value": (OK + b"A: \x01\r\n" + LENGTH, NOT_READ, KEPT),
    "an interim answer with a body": (b"HTTP/1.1 104 X\r\n" + LENGTH[:-2] + OK + LENGTH, NONE, KEPT),
    "an invalid chunk extension": (OK + CHUNKED + b"2 \r\nok\r\n0\r\n\r\n", NOT_READ, KEPT),
    "a repeated length": (OK + LENGTH[:-4] + LENGTH, NOT_READ, KEPT),
    "a length beside chunks": (OK + LENGTH[:-4] + CHUNKED + b"2\r\nok\r\n0\r\n\r\n", NOT_READ, KEPT),
}


@pytest.mark.parametrize(("name", "shown"), SHOWN.items(), ids=SHOWN)
def test_a_named_difference(name: str, shown: tuple[bytes, tuple[int, bytes, bool], tuple[int, bytes, bool]]) -> None:
    """Both verdicts on an example. Where our parser is stricter, the status line still counts."""
    text, our, their = shown
    assert (ours([text]), theirs(text)) == (our, their)
    assert difference(text, ours([text])).startswith(name)


def test_each_difference_has_an_example() -> None:
    """No reason is listed without an answer that shows it."""
    assert len(SHOWN) == len(DIFFERENCES)
    assert all(any(name.startswith(shown) for shown in SHOWN) for name in DIFFERENCES)


@pytest.mark.parametrize("text", [OK + EMPTY, OK + LENGTH + b"x", OK + b"\r\nok", b"SSH-2.0-x\r\n", b""])
def test_equal_verdicts_have_no_difference(text: bytes) -> None:
    """For equal verdicts no reason is given."""
    assert difference(text, ours([text])) == ""


@settings(max_examples=EXAMPLES)
@given(cut(st.one_of(right(), mutated())))
def test_our_verdict_is_that_of_h11(pieces: list[bytes]) -> None:
    """Status, body and whether the connection is kept are equal, except for the named differences."""
    difference(b"".join(pieces), ours(pieces))
