"""Parsing of answers, in whatever pieces their bytes come."""

from dataclasses import astuple, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.sending.answer import Answer, AnswerReader, BadAnswer
from tests.sending.answers import CHUNKED, CONTINUE, EMPTY, HINTS, OK, cut, cuts, kept, mutated, read, reason, right

LENGTH = OK + b"Content-Length: 2\r\n"
OTHER = "it answered with something other than HTTP/1.1"


def in_any_pieces(text: bytes) -> Answer:
    """The answer, which must be the same for all pieces."""
    first, *others = map(read, cuts(text))
    assert all(other == first for other in others)
    return first


@pytest.mark.parametrize("status", [200, 201, 299, 301, 400, 410, 503, 999])
@pytest.mark.parametrize("lines", [b"", b"\r\n", b"\n", b"\r\n\r\n\r\n", b"\r\n\r\n" + CONTINUE + b"\r\n"])
def test_a_body_of_a_given_length(status: int, lines: bytes) -> None:
    """The result has the status, the head unchanged and the body. The connection is kept. A reason is not needed.

    Empty lines before it are skipped: they are the late end of a body that was longer than declared.
    """
    for words in (b" Some Reason", b"", b" ", b"  a \xff"):
        head = b"HTTP/1.1 %d%b\r\nRetry-After: 7\r\nX:\r\ncontent-length:  2" % (status, words)
        assert in_any_pieces(lines + head + b"\r\n\r\nok") == Answer(status, head, b"ok", keep=True)


@pytest.mark.parametrize("line", [b"", b"Content-Length: 2\r\n", b"Transfer-Encoding: chunked\r\n"])
@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_a_body(status: int, line: bytes) -> None:
    """The answer ends with its head, whatever length the head declares (RFC 9112, 6.3)."""
    assert astuple(in_any_pieces(b"HTTP/1.1 %d X\r\n%s\r\n" % (status, line)))[2:] == (b"", True)


@pytest.mark.parametrize(
    "body",
    [
        b"7\r\nabcdefg\r\n0\r\n\r\n",
        b"1\r\na\r\n002\r\nbc\r\n4\r\ndefg\r\n000\r\n\r\n",
        b'7;a\r\nabcdefg\r\n0;b=c;d="e;f"\r\n\r\n',
        b"7\r\nabcdefg\r\n0\r\nX-Sum: 7\r\nX:\r\n\r\n",
    ],
    ids=["one", "three", "extensions", "trailers"],
)
def test_a_body_in_chunks(body: bytes) -> None:
    """Extensions and trailers are skipped. The connection is kept."""
    head = OK + CHUNKED[:-4]
    assert in_any_pieces(head + b"\r\n\r\n" + body) == Answer(200, head, b"abcdefg", keep=True)


@pytest.mark.parametrize("lines", [b"", b"Transfer-Encoding: gzip\r\n", b"Connection: keep-alive\r\n"])
def test_a_body_without_length_ends_with_the_connection(lines: bytes) -> None:
    """Before that, the answer is not complete."""
    assert AnswerReader().feed(OK + lines + b"\r\nabc") is None
    assert astuple(in_any_pieces(OK + lines + b"\r\nabc"))[2:] == (b"abc", False)


@pytest.mark.parametrize(
    ("version", "lines", "kept"),
    [
        (b"1.1", b"", True),
        (b"1.1", b"Connection: keep-alive\r\n", True),
        (b"1.1", b"Connection: Close\r\n", False),
        (b"1.1", b"Connection: x, close\r\n", False),
        (b"1.1", b"Connection: close\r\nConnection: keep-alive\r\n", False),
        (b"1.1", b"X-Connection: close\r\n", True),
        (b"1.0", b"", False),
        (b"1.0", b"Connection: close\r\n", False),
        (b"1.0", b"Connection: Keep-Alive\r\n", True),
    ],
)
def test_when_a_connection_is_kept(version: bytes, lines: bytes, kept: bool) -> None:  # noqa: FBT001 (a parameter)
    """The version and the Connection header decide (RFC 9112, 9.3); with HTTP/1.0, chunks forbid it (6.1)."""
    head = b"HTTP/%s 200 OK\r\n%s" % (version, lines)
    assert astuple(in_any_pieces(head + b"Content-Length: 2\r\n\r\nok"))[2:] == (b"ok", kept)
    chunks = head + b"Transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    assert astuple(in_any_pieces(chunks))[2:] == (b"ok", kept and version == b"1.1")


@pytest.mark.parametrize("behind", [b"x", b"H", b"HTTP/1.1 200 OK\r\n\r\n", OK, b"\0", b" "])
@pytest.mark.parametrize(
    "text", [LENGTH + b"\r\nok", OK + CHUNKED + b"2\r\nok\r\n0\r\n\r\n", b"HTTP/1.1 204 X\r\n\r\n"]
)
def test_bytes_after_an_answer(text: bytes, behind: bytes) -> None:
    """They would be read as the next answer. The answer counts, but the connection is not kept."""
    assert replace(in_any_pieces(text + behind), keep=True) == in_any_pieces(text)
    assert not in_any_pieces(text + behind).keep


@pytest.mark.parametrize(
    "interim",
    [
        *(CONTINUE, HINTS, CONTINUE + HINTS + HINTS, b"HTTP/1.1 104 New\r\n\r\n", b"HTTP/1.0 100 Continue\r\n\r\n"),
        b"HTTP/1.1 100 Continue\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\nContent-Length: 9\r\n\r\n",
    ],
)
@pytest.mark.parametrize("lines", [b"", b"Retry-After: 7\r\n"])
def test_interim_answers_are_skipped(interim: bytes, lines: bytes) -> None:
    """The final answer counts, whatever the interim answers say about the connection."""
    head = b"HTTP/1.1 503 X\r\n" + lines + b"Content-Length: 2"
    assert in_any_pieces(interim + head + b"\r\n\r\nok") == Answer(503, head, b"ok", keep=True)
    head = b"HTTP/1.1 503 X\r\n" + lines
    assert astuple(in_any_pieces(interim + head + b"\r\nabc"))[2:] == (b"abc", False)


UPGRADE = b"HTTP/1.1 101 Switching Protocols\r\n"
ENDED = "it ended the connection before the end of a status line"
NO_ANSWERS = {
    f"{OTHER}: status 101": [
        UPGRADE + lines + b"\r\n" + behind
        for lines in (b"", b"Upgrade: websocket\r\nConnection: Upgrade\r\n")
        for behind in (b"", LENGTH + b"\r\nok", OK + b"\r\n", OK, b"\x81\x02ok")  # not HTTP, even if it looks like it
    ],
    f"{OTHER}: an interim answer with a body": [  # two parsers could disagree about which answer is the final one
        b"HTTP/1.1 104 New\r\n" + lines + LENGTH + b"\r\nok"
        for lines in (b"Content-Length: 2\r\n\r\n", CHUNKED + b"2\r\n")
    ],
    # The next byte could change the status, or make the line another protocol's.
    ENDED: [b"", b"\r\n", b"H", b"HTTP/1.1 200", OK[:-1], CONTINUE, CONTINUE + OK[:-1]],
    OTHER: [
        *(b"SSH-2.0-OpenSSH_9.2\r\n", b"220 mail.test ESMTP\r\n", b"ICY 200 OK\r\n\r\n", b"http/1.1 200 OK\r\n\r\n"),
        *(b"\0" * 100, b"\x16\x03\x01\x02", b"{}", b"<html>", b" " + OK + EMPTY, b"HTTP/1.1 200OK\r\n" + EMPTY),
        *(b"HTTP/1.1  200 OK\r\n" + EMPTY, b"HTTP/1.1 20 OK\r\n" + EMPTY, b"HTTP/1.1 2000 OK\r\n" + EMPTY),
        *(b"HTTP/1.1 200 O\rK\r\n" + EMPTY, b"HTTP/1.1 099 X\r\n" + EMPTY, b"HTTP/1.1 000 X\r\n" + EMPTY),
        *(b"HTTP/2.0 200 OK\r\n" + EMPTY, b"HTTP/0.9 200 OK\r\n" + EMPTY, b"HTTP/3.0 200 OK\r\n" + EMPTY),
        *(b"RTSP/1.0 200 OK\r\n" + EMPTY, b"ICE/1.0 200 OK\r\n" + EMPTY, b"HTTP/1.11 200 OK\r\n" + EMPTY),
        *(b"HTTP/2.0 200 OK\r\nA B\r\n", b"HTTP/1.1 100 Continue\r\nA B\r\n\r\n" + OK + EMPTY),
    ],
}


@pytest.mark.parametrize(("why", "text"), [(why, text) for why, texts in NO_ANSWERS.items() for text in texts])
def test_what_is_no_answer(why: str, text: bytes) -> None:
    """The error says why, for instance that the receiver speaks another protocol."""
    for pieces in cuts(text):
        assert reason(pieces).startswith(why)


FAULTS = {
    "ended behind the status line": b"",
    "ended within a header line": b"A: b",
    "ended within the body": b"Content-Length: 2\r\n\r\no",
    "ended within a chunk": CHUNKED + b"2\r\no",
    "ended before the last chunk": CHUNKED + b"1\r\no\r\n",
    "a chunk size that is none": CHUNKED + b"1\r\no\r\nzz\r\nok\r\n0\r\n\r\n",
    "a chunk that is longer than it said": CHUNKED + b"1\r\nok\r\n0\r\n\r\n",
    "a chunk size beyond 64 bits": CHUNKED + b"f" * 17 + b"\r\nok\r\n0\r\n\r\n",
    "a length in a trailer": CHUNKED + b"1\r\no\r\n0\r\nContent-Length: 1\r\n\r\n",
    "both framings": b"Content-Length: 2\r\n" + CHUNKED + b"2\r\nok\r\n0\r\n\r\n",
    "both framings, turned round": b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "two lengths": b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
    "the same length twice": b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    "a length that is none": b"Content-Length: x\r\n\r\nok",
    "a negative length": b"Content-Length: -2\r\n\r\nok",
    "a length beyond 64 bits": b"Content-Length: 99999999999999999999999\r\n\r\nok",
    "a space in a header's name": b"A B: c\r\n" + EMPTY,
    "a header without name": b": c\r\n" + EMPTY,
    "a header without colon": b"AB\r\n" + EMPTY,
    "a zero byte in a header": b"A: \0\r\n" + EMPTY,
    "a header line that ends without CR": b"A: b\n" + EMPTY,
    "a header line that ends without LF": b"A: b\rC: d\r\n" + EMPTY,
    "a folded header line": b"A: b\r\n c\r\n" + EMPTY,
}


@pytest.mark.parametrize("status", [200, 503])
@pytest.mark.parametrize("behind", FAULTS.values(), ids=FAULTS)
def test_a_status_line_counts_whatever_follows(behind: bytes, status: int) -> None:
    """The receiver has reported the request's result. The connection is not kept."""
    line = b"HTTP/1.1 %d X\r\n" % status
    for start in (b"", CONTINUE):
        for answer in map(read, cuts(start + line + behind)):
            assert (answer.status, answer.keep) == (status, False)
            assert answer.head.startswith(line[:-2])
            assert answer.body in (b"", b"o")


@pytest.mark.parametrize("behind", [b"", b"\n", b"Content-Length: 2\n\nok", EMPTY, b"\r\n"])
def test_a_status_line_without_cr_counts(behind: bytes) -> None:
    """Only the status counts: the rest is not read."""
    for start in (b"", CONTINUE):
        assert in_any_pieces(start + b"HTTP/1.1 200 OK\n" + behind) == Answer(200, OK[:-2], b"", keep=False)


@given(st.lists(cut(kept()), min_size=2, max_size=4))
def test_consecutive_answers(answers: list[list[bytes]]) -> None:
    """After an answer that keeps the connection, the reader reads the next one as a new reader would."""
    reader = AnswerReader()
    for pieces in answers:
        assert not reader.begun
        assert read(pieces, reader) == read(pieces)


@given(st.one_of(right(), mutated()).flatmap(lambda text: st.tuples(cut(st.just(text)), cut(st.just(text)))))
def test_a_status_does_not_depend_on_the_pieces(ways: tuple[list[bytes], list[bytes]]) -> None:
    """Nor do the body and the validity of the answer, for valid and invalid answers."""
    verdicts: list[tuple[int, bytes] | None] = []
    for pieces in ways:
        try:
            answer = read(pieces)
            verdicts.append((answer.status, answer.body))
        except BadAnswer:
            verdicts.append(None)
    assert verdicts[0] == verdicts[1]
