"""Answers of a receiver, cut into pieces and read."""

from collections.abc import Iterable, Iterator

import pytest

from consumer.sending.answer import Answer, AnswerReader, BadAnswer

OK = b"HTTP/1.1 200 OK\r\n"
EMPTY = b"Content-Length: 0\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"


def read(pieces: Iterable[bytes], reader: AnswerReader | None = None) -> Answer:
    """The answer; the connection ends behind the pieces. BadAnswer.

    Not kept, if something is left: a connection that receives what nobody asked for is closed.
    """
    reader = reader or AnswerReader()
    rest = iter(pieces)
    for piece in rest:
        answer = reader.feed(piece)
        if answer is not None:
            return answer._replace(keep=answer.keep and not any(rest))
    return reader.end()


def reason(pieces: Iterable[bytes], reader: AnswerReader | None = None) -> str:
    """Why the answer is none."""
    with pytest.raises(BadAnswer) as bad:
        read(pieces, reader)
    return str(bad.value)


def pieces_of(text: bytes, size: int) -> Iterator[bytes]:
    """Of one size, but for the last."""
    return (text[start : start + size] for start in range(0, len(text), size))


def cuts(text: bytes) -> Iterator[list[bytes]]:
    """The text whole, cut at each place, and byte by byte if so many reads are allowed."""
    yield [text]
    for place in range(1, len(text)):
        yield [text[:place], text[place:]]
    if len(text) < 256:
        yield list(pieces_of(text, 1))
