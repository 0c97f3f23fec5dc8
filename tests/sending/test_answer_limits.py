"""Limits of reading an answer: no receiver takes more than a bounded amount of time and memory."""

import tracemalloc
from collections.abc import Callable, Iterable

import pytest

from consumer.sending.answer import BYTES, PIECES, Answer, AnswerReader
from tests.sending.answers import CHUNKED, CONTINUE, EMPTY, HINTS, OK, pieces_of, read, reason

READ = 16_384  # bytes of a read, as many as a TLS record has


HEAD = OK + (b"x: " + b"y" * 8_000 + b"\r\n") * 8  # of nearly 64 KiB
LIMITS: dict[str, Callable[[int], bytes]] = {
    "64 KiB of a given length": lambda size: (
        OK + b"Content-Length: %d\r\n\r\n" % (65_536 + size) + b"x" * (65_536 + size)
    ),
    "64 KiB in a chunk": lambda more: (
        OK + CHUNKED + b"%x\r\n" % (65_536 + more) + b"x" * (65_536 + more) + b"\r\n0\r\n\r\n"
    ),
    "chunks": lambda more: OK + CHUNKED + b"1\r\nx\r\n" * (PIECES + more) + b"0\r\n\r\n",
    "200 lines": lambda more: OK + b"a:b\r\n" * (198 + more) + EMPTY,
    "8 KiB of the first line": lambda more: OK + b"x: " + b"y" * (8_189 + more) + b"\r\n" + b"a:b\r\n" * 100 + EMPTY,
    "8 KiB of the last line": lambda more: OK + b"a:b\r\n" * 100 + b"x: " + b"y" * (8_189 + more) + b"\r\n" + EMPTY,
    "64 KiB of a head": lambda more: HEAD + b"z: " + b"y" * (65_536 - len(HEAD) - 22 + more) + b"\r\n" + EMPTY,
}


@pytest.mark.parametrize("size", [300, 8_192, READ, 200_000])
@pytest.mark.parametrize("name", LIMITS)
def test_the_limits_of_an_answer(name: str, size: int) -> None:
    """Up to each limit it is kept whole, and the connection too. Of a longer one the start is, and reading ends."""
    for more in (0, 1, 5_000):
        text = LIMITS[name](more)
        answer = read(pieces_of(text, size))
        assert (answer.status, answer.keep) == (200, more == 0)
        head = text.partition(b"\r\n\r\n")[0]
        if name == "200 lines" or more == 0:
            assert answer.head.splitlines() == head.splitlines()[:200]
        assert text.startswith(answer.head)
        if name in {"64 KiB of a given length", "64 KiB in a chunk"}:
            assert len(answer.body) == 65_536


def test_the_limit_of_a_body_that_ends_with_the_connection() -> None:
    """64 KiB are kept. With one byte more, reading ends."""
    reader = AnswerReader()
    assert reader.feed(OK + b"\r\n" + b"x" * 65_536) is None
    answer = reader.feed(b"x")
    assert answer is not None
    assert (len(answer.body), answer.keep) == (65_536, False)


def test_the_limit_of_interim_answers() -> None:
    """20 may precede the final one. With one more there is no answer, even if the final one has come already."""
    final = OK + b"Content-Length: 2\r\nRetry-After: 7\r\n\r\nok"
    for size in (50, 1_000):
        assert read(pieces_of(HINTS * 20 + final, size)).keep
        assert reason(pieces_of(HINTS * 21 + final, size)) == "it sent more than 20 interim answers"


def test_the_limit_of_reads() -> None:
    """An answer may take 256. One that is incomplete by then counts by its status line."""
    head = OK + b"Content-Length: 255"
    assert read([head + b"\r\n\r\n", *[b"x"] * 255]) == Answer(200, head, b"x" * 255, keep=True)
    head = OK + b"Content-Length: 256"
    assert read([head + b"\r\n\r\n", *[b"x"] * 256]) == Answer(200, head, b"x" * 255, keep=False)
    late = [CONTINUE, *pieces_of(b"HTTP/1.1 200 " + b"x" * 300, 1)]
    assert reason(late) == "its answer came in more than 256 pieces"


ENDLESS = {
    "a body": (OK + b"\r\n", b"x"),
    "a body of a given length": (OK + b"Content-Length: 999999999\r\n\r\n", b"x"),
    "chunks of one byte": (OK + CHUNKED, b"1\r\nx\r\n"),
    "chunks with extensions": (OK + CHUNKED, b"1;a=b\r\nx\r\n"),
    "a chunk extension": (OK + CHUNKED + b"1;", b"a"),
    "chunk extensions": (OK + CHUNKED + b"1", b";a=b"),
    "a quoted chunk extension": (OK + CHUNKED + b'1;a="', b"a"),
    "a chunk size": (OK + CHUNKED, b"0"),
    "trailers": (OK + CHUNKED + b"0\r\n", b"a:b\r\n"),
    "a trailer": (OK + CHUNKED + b"0\r\na:", b"b"),
    "headers": (OK, b"a:b\r\n"),
    "a header": (OK + b"a:", b"b"),
    "a header's name": (OK, b"a"),
    "answers": (b"", OK + EMPTY),
    "interim answers": (b"", HINTS),
    "short interim answers": (b"", b"HTTP/1.1 100\r\n\r\n"),
    "a reason": (b"HTTP/1.1 200 ", b"x"),
    "empty lines": (b"", b"\r\n"),
    "headers of an interim answer": (b"HTTP/1.1 100 Continue\r\n", b"a:b\r\n"),
}


@pytest.mark.parametrize("size", [1, 100, 1_000, READ])
@pytest.mark.parametrize(("start", "repeated"), ENDLESS.values(), ids=ENDLESS)
def test_endless_input_is_bounded(start: bytes, repeated: bytes, size: int) -> None:
    """Reads, bytes and memory are bounded. A final status line counts; without one the error gives the reason."""
    taken: list[int] = []
    reader = AnswerReader()

    def counted() -> Iterable[bytes]:
        for piece in pieces_of(start + repeated * (1_000_000 // len(repeated)), size):
            taken.append(len(piece))
            yield piece

    if start.startswith(OK) or repeated.startswith(OK):
        answer = read(counted(), reader)
        assert answer.status == 200
        assert len(answer.head) <= 65_536 + size
        assert answer.head.count(b"\n") < 200
        assert len(answer.body) <= 65_536
    else:
        assert reason(counted(), reader).startswith(
            ("the head of its answer has more", "it sent more", "its answer came in more")
        )
        assert sum(taken) <= 65_536 + size
    assert len(reader._head) <= 65_536 + size
    assert len(taken) <= 256
    assert sum(taken) <= BYTES + size


def test_the_memory_of_an_open_answer() -> None:
    """It holds at most a head and a body, in however small pieces they came; interim heads are dropped."""
    lines = b"".join(b"A%05d: %b\r\n" % (number, b"y" * 7_000) for number in range(8))
    text = HINTS * 20 + OK + lines + CHUNKED + (b"10\r\n" + b"x" * 16 + b"\r\n") * 4_000
    tracemalloc.start()
    try:
        reader = AnswerReader()
        for piece in pieces_of(text, READ):
            assert reader.feed(piece) is None
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 120_000 < held < 150_000


def test_limits_apply_to_each_answer() -> None:
    """A kept connection may carry any number of answers, which together exceed the limits of one."""
    reader = AnswerReader()
    text = CONTINUE + OK + CHUNKED + b"a\r\n0123456789\r\n" * 100 + b"0\r\n\r\n"
    for _ in range(300):
        assert read([text[:700], text[700:]], reader) == Answer(200, OK + CHUNKED[:-4], b"0123456789" * 100, keep=True)
