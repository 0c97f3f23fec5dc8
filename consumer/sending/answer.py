"""Parses HTTP/1.1 answers (RFC 9112) strictly with llhttp, and limits their size and parsing cost. No I/O.

An answer becomes a `requests.Response` that parses its headers only when they are read.
"""

import re
from dataclasses import dataclass

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

BODY_LIMIT = 65_536  # bytes kept of a body; the rest is not read
HEAD_LIMIT = 65_536  # bytes of an answer's head, interim answers included
LINE_LIMIT = 8_192  # bytes of a header line
LINES = 200  # lines of a head; reading the headers takes a microsecond per line
INTERIM = 20  # 1xx answers before the final one
READS = 256  # reads per answer
PIECES = 4_096  # pieces of a body, parsed in half a millisecond; BODY_LIMIT chunks of one byte would take 8 ms
BYTES = HEAD_LIMIT + BODY_LIMIT + 65_536  # bytes of a whole answer, with chunk sizes, extensions and trailers

_FINAL = 200  # the lowest final status
_INTERIM = frozenset((100, *range(102, _FINAL)))  # without 101: the bytes after it are not HTTP
_OTHER = "it answered with something other than HTTP/1.1"
_LINE_END = b"\r\n"
_HEAD_END = b"\r\n\r\n"
_FEW = 800  # bytes; a shorter head has fewer than LINES lines
# The parser rejects a line that ends without CR (RFC 9112, 2.2), yet its status still tells the request's outcome.
_STATUS_LINE = re.compile(rb"(HTTP/1\.[01] ([2-9]\d\d)(?: [^\r\n]*+)?+)(\r?\n)")


class BadAnswer(Exception):
    """The answer has no usable status; the text says why."""


@dataclass(slots=True, init=False)
class Answer:
    """`head` holds the status line and the header lines as received, `body` at most BODY_LIMIT bytes.

    `keep`: the answer was read to its end and the connection may carry another request.
    """

    status: int
    head: bytes
    body: bytes
    keep: bool

    # One that `dataclass` makes is not compiled, and takes 0.3 µs.
    def __init__(self, status: int, head: bytes, body: bytes, keep: bool) -> None:  # noqa: FBT001 (a field)
        self.status = status
        self.head = head
        self.body = body
        self.keep = keep


class _Enough(Exception):
    """Stops the parser: the rest of the answer is not wanted."""


class AnswerReader:
    """Reads the answers of one connection, one after another.

    The answer counts once its status line is complete: a closed connection, a protocol error or an exceeded limit after
    that line only ends the answer. `begun`: bytes of an answer have arrived.
    """

    def __init__(self) -> None:
        self._parser = HttpResponseParser(self)
        # The final answer follows an interim one even if that says `Connection: close` or HTTP/1.0.
        self._parser.set_dangerous_leniencies(lenient_keep_alive=True)
        self._reset()

    def _reset(self) -> None:
        self._head = b""
        self._body: bytes | bytearray = b""
        self._status = self._interim = self._reads = self._seen = self._pieces = 0
        self._done = self._extra = self._keep = False
        self._why = ""

    @property
    def begun(self) -> bool:
        """Whether bytes of an answer have arrived."""
        return self._reads > 0

    def feed(self, data: bytes) -> Answer | None:
        """Parse `data`. Returns None while the answer is incomplete. Raises BadAnswer."""
        self._reads += 1
        self._seen += len(data)
        in_head = not self._status
        if in_head:
            self._head = self._head + data if self._head else data
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            if not self._done:
                return self._stopped(self._why or f"{_OTHER}: {error}")
        if self._done:
            return self._complete()
        if not self._status and self._seen > HEAD_LIMIT:
            return self._stopped(f"the head of its answer has more than {HEAD_LIMIT // 1024} KiB")
        if self._reads >= READS or self._seen > BYTES:
            return self._stopped(f"its answer came in more than {READS} pieces")
        if in_head and self._status:  # drop interim heads, and the start of the body
            self._head, self._interim = self._final().partition(_HEAD_END)[0] + _HEAD_END, 0
        return None

    def end(self) -> Answer:
        """The answer so far, once the connection has ended or timed out. Raises BadAnswer if it has no status line."""
        return self._stopped("it ended the connection before the end of a status line")

    def _complete(self) -> Answer:
        head = (self._final() if self._interim else self._head.lstrip(_LINE_END)).partition(_HEAD_END)[0]
        keep = self._keep and not self._extra
        if not head.startswith(b"HTTP/1.1"):
            if not head.startswith(b"HTTP/1."):
                raise BadAnswer(_OTHER)
            keep = keep and b"\r\ntransfer-encoding:" not in head.lower()  # where it ends is in doubt (RFC 9112, 6.1)
        if len(head) > _FEW:
            lines = head.split(_LINE_END, LINES)
            if len(lines) > LINES or len(head) > HEAD_LIMIT or max(map(len, lines)) > LINE_LIMIT:
                keep = False
                head = _LINE_END.join(lines[:LINES])
        answer = Answer(self._status, head, bytes(self._body), keep)
        self._reset()
        return answer

    def _stopped(self, why: str) -> Answer:
        final = self._final()
        line = None if self._why else _STATUS_LINE.match(final)
        if line is None:
            raise BadAnswer(_OTHER if self._status else why) from None
        text, status, end = line.groups()
        if end == _LINE_END:
            text = _LINE_END.join(final.partition(_HEAD_END)[0].split(_LINE_END, LINES)[:LINES])
        return Answer(int(status), text, bytes(self._body), keep=False)

    def _final(self) -> bytes:
        """The received part of the final answer's head, and any body bytes read together with it.

        Empty lines before a status line are skipped, as the parser does: they may belong to the previous answer, whose
        body was longer than declared. Interim answers have no body.
        """
        head = self._head
        for _ in range(self._interim):
            head = head.lstrip(_LINE_END).partition(_HEAD_END)[2]
        return head.lstrip(_LINE_END)

    # Called by the parser.

    def on_message_begin(self) -> None:
        """Note an answer that no request asked for."""
        if self._done:
            self._extra = True

    def on_headers_complete(self) -> None:
        """Take the status of an interim or final answer."""
        if self._done:
            raise _Enough
        status = self._parser.get_status_code()
        if status >= _FINAL:
            self._status = status
            return
        self._interim += 1
        if status not in _INTERIM:
            self._why = f"{_OTHER}: status {status}"
            raise _Enough
        if self._interim > INTERIM:
            self._why = f"it sent more than {INTERIM} interim answers"
            raise _Enough

    def on_body(self, piece: bytes) -> None:
        """Keep the part of the body within the limits."""
        if not self._status:
            self._why = f"{_OTHER}: an interim answer with a body"
            raise _Enough
        self._pieces += 1
        before = len(self._body)
        if not before:
            self._body = bytearray()  # to append in place; most answers have none
        self._body += piece[: BODY_LIMIT - before]
        if len(piece) > BODY_LIMIT - before or self._pieces > PIECES:
            raise _Enough

    def on_message_complete(self) -> None:
        """Complete the final answer; an interim one needs nothing."""
        if self._status:
            self._done = True
            self._keep = self._parser.should_keep_alive()
