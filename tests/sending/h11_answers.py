"""Verdicts of h11, another HTTP/1.1 parser, on answers, and the reasons why they differ from ours."""

import re
from collections.abc import Callable
from typing import NamedTuple

import h11

from consumer.sending.answer import BODY_LIMIT, BadAnswer
from tests.sending.answers_kit import read

_LINE_END = b"\r\n"


class Verdict(NamedTuple):
    """The parts of an answer that decide about a delivery. Status 0: no answer."""

    status: int
    body: bytes
    keep: bool


def ours(pieces: list[bytes]) -> Verdict:
    """The verdict of AnswerReader."""
    try:
        answer = read(pieces)
    except BadAnswer:
        return Verdict(0, b"", keep=False)
    return Verdict(answer.status, answer.body, answer.keep)


def theirs(text: bytes) -> Verdict:
    """The verdict of h11, with our rule: a final status line counts whatever follows it."""
    connection = _asked()
    connection.receive_data(text)
    status, body, keep, ended = 0, bytearray(), False, False
    rest = text
    try:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA and not ended:
                connection.receive_data(b"")
                ended = True
            elif isinstance(event, h11.InformationalResponse):
                rest = connection.trailing_data[0]
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
            else:
                keep = connection.states == {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}
                keep = keep and not ended and not connection.trailing_data[0]
                break
    except h11.RemoteProtocolError:
        status = status or _of_line(rest)
    return Verdict(status, bytes(body[:BODY_LIMIT]), keep and len(body) <= BODY_LIMIT)


def _of_line(text: bytes) -> int:
    """The status of the first line, parsed as an answer of its own."""
    line, end, _ = text.partition(b"\n")
    connection = _asked()
    connection.receive_data(line + end + b"\r\n")
    try:
        event = connection.next_event()
    except h11.RemoteProtocolError:
        return 0
    return event.status_code if isinstance(event, h11.Response) else 0


def _asked() -> h11.Connection:
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    headers = [("Host", "receiver.test"), ("Content-Length", "0")]
    connection.send(h11.Request(method="POST", target="/", headers=headers))
    connection.send(h11.EndOfMessage())
    return connection


def difference(text: bytes, our: Verdict) -> str:
    """The reason why h11's verdict differs; empty if it does not. AssertionError: no reason is known."""
    their = theirs(text)
    if our == their:
        return ""
    for name, rewrite in LENIENT.items():
        other = rewrite(text)
        if other != text:
            text, their = other, theirs(other)
            if our == their:
                return name
    shorter = text
    while our.keep and shorter.endswith((b"\r", b"\n")):
        shorter = shorter[:-1]
        if our == theirs(shorter):
            return EMPTY_BEHIND
    reasons = [name for name, pattern in STRICT.items() if re.search(pattern, text)]
    assert reasons, (our, their)
    assert _refuses(our, their, text), (our, their)
    return reasons[0]


def _refuses(our: Verdict, their: Verdict, text: bytes) -> bool:
    """Whether we stop where h11 goes on. Only an interim answer or a version can hide the status."""
    hidden = not our.status and re.match(rb"HTTP/(1\.[01] 1|(?!1\.[01])\d\.\d )", text)
    return (bool(hidden) or our.status == their.status) and not our.keep and their.body.startswith(our.body)


def _without_empty_lines(text: bytes) -> bytes:
    return re.sub(rb"(^|\r\n\r\n)[\r\n]+(?=HTTP/)", rb"\1", text)


def _visible_reasons(text: bytes) -> bytes:
    return re.sub(rb"(HTTP/1\.[01] \d{3} )([^\r\n]*)", lambda m: m[1] + re.sub(rb"[\0\v\f]", b"?", m[2]), text)


def _one_coding(text: bytes) -> bytes:
    """Keep only the last Transfer-Encoding line of each head, and only its last coding."""
    return re.sub(rb"(?is)HTTP/1\.[01] \d{3}.*?\r\n\r\n", lambda head: _one_coding_of(head[0]), text)


def _one_coding_of(head: bytes) -> bytes:
    found = list(re.finditer(rb"(?i)\ntransfer-encoding:([^\r\n]*)", head))
    if not found:
        return head
    last = found[-1]
    coding = last[1].rpartition(b",")[2].strip().lower()
    line = b"\nTransfer-Encoding: chunked" if coding == b"chunked" else b"\nX: x"
    before = re.sub(rb"(?i)\ntransfer-encoding:[^\r\n]*", b"\nX: x", head[: last.start()])
    return before + line + head[last.end() :]


def _heeded_trailers(text: bytes) -> bytes:
    """Move a trailer's Connection lines to the head, and make its lines about the coding ineffective."""
    head = re.search(rb"HTTP/1\.[01] [2-9].*?\r\n(?=\r\n)", text, re.DOTALL)
    last = head and re.compile(rb"\n0+(?:;[^\r\n]*)?\r\n((?:[^\r\n]+\r\n)+)\r\n").search(text, head.end())
    if not head or not last:
        return text
    moved = b"".join(line + b"\r\n" for line in last[1].splitlines() if line.lower().startswith(b"connection:"))
    trailers = re.sub(rb"(?im)^(connection|transfer-encoding):", b"X:", last[1])
    return text[: head.end()] + moved + text[head.end() : last.start(1)] + trailers + text[last.end(1) :]


def _kept(text: bytes) -> bytes:
    """Turn a final HTTP/1.0 answer with keep-alive into one of HTTP/1.1."""
    final = re.search(rb"HTTP/1\.0 [2-9].*?\r\n\r\n", text, re.DOTALL)
    if final is None or not re.search(rb"(?i)\nconnection:[^\r\n]*keep-alive", final[0]):
        return text
    head = re.sub(rb"(?i)\nconnection:[^\r\n]*", b"\nX: x", b"HTTP/1.1" + final[0][8:])
    return text[: final.start()] + head + text[final.end() :]


EMPTY_BEHIND = "an empty line after the answer: llhttp skips it, for h11 it is another answer"
# Answers that llhttp accepts and h11 does not, with the rewriting that h11 needs.
LENIENT: dict[str, Callable[[bytes], bytes]] = {
    "an empty line before a status line: llhttp skips it": _without_empty_lines,
    "a control character in the reason: it is not interpreted": _visible_reasons,
    "a transfer coding other than chunked: h11 knows none; for llhttp the last one frames the body": _one_coding,
    "a trailer about the connection or the coding: llhttp obeys it": _heeded_trailers,
    "HTTP/1.0 with keep-alive: h11 never keeps such a connection": _kept,
}
# Answers that h11 accepts and llhttp does not: the status line counts, the rest is not read, the connection closes.
STRICT = {
    "a line that ends without CR: h11 takes it (RFC 9112, 2.2: MAY)": rb"(?<!\r)\n",
    "a version that is neither 1.0 nor 1.1: h11 takes any two digits": rb"HTTP/(?!1\.[01])\d\.\d ",
    "a folded header line (RFC 9112, 5.2: obsolete)": rb"\r\n[ \t]",
    "a control character in a header's value": rb"[\x01-\x08\x0b\x0c\x0e-\x1f\x7f]",
    "an interim answer with a body, which h11 takes for the next answer": (
        rb"(?is)HTTP/1\.[01] 1(?!00|02|03)\d\d.*\n(content-length|transfer-encoding):"
    ),
    "an invalid chunk extension, or spaces after a chunk's size": rb"\n[0-9A-Fa-f]+[ \t;][^\r\n]*\r\n",
    "a repeated length with the same value": rb"(?is)\ncontent-length:.*\ncontent-length:",
    "a length beside chunks, or in a trailer: h11 goes by the chunks": (
        rb"(?is)\ncontent-length:.*\ntransfer-encoding:|\ntransfer-encoding:.*\ncontent-length:"
    ),
}
DIFFERENCES = (EMPTY_BEHIND, *LENIENT, *STRICT)
