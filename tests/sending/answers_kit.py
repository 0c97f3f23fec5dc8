"""A receiver's answer, cut into pieces and read by AnswerReader."""

from collections.abc import Iterable, Iterator

import pytest

from consumer.sending.answer import Answer, AnswerReader, BadAnswer

OK = b"HTTP/1.1 200 OK\r\n"
EMPTY = b"Content-Length: 0\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"


def read(pieces: Iterable[bytes], reader: AnswerReader | None = None) -> Answer:
    """The answer, if the connection ends after the pieces. Raises BadAnswer.

    `keep` is false if bytes are left: a connection with unrequested bytes is closed.
    """
    reader = reader or AnswerReader()
    rest = iter(pieces)
    for piece in rest:
        answer = reader.feed(piece)
        if answer is not None:
            return answer._replace(keep=answer.keep and not any(rest))
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
