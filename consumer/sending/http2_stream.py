"""One request on an HTTP/2 connection, and its answer as far as it has come. No I/O."""

from itertools import islice
from typing import NamedTuple

from consumer.sending.answer import BODY_LIMIT, HEAD_LIMIT, INTERIM, LINES, Answer
from consumer.sending.hpack import Field

_LOWEST_FINAL = 200


class Stream:
    """One request and its answer. `number` is 0 before it is opened."""

    __slots__ = (
        "body",
        "content",
        "encoded",
        "head_room",
        "heard",
        "interim",
        "lines",
        "number",
        "pieces",
        "room",
        "status",
        "unsent",
        "window",
    )

    def __init__(self) -> None:
        self.number = 0
        self.body = b""
        self.unsent = 0  # bytes of the body
        self.window = 0  # bytes that the receiver takes now
        self.heard = 0  # reads of the connection when it was opened
        self.status = 0
        self.lines: list[bytes] = []
        self.content = bytearray()  # of the answer
        self.pieces = self.interim = 0
        self.encoded = 0  # bytes of its heads so far: interim ones, the final one and trailers
        self.head_room = HEAD_LIMIT  # bytes that they may yet have decoded
        self.room = BODY_LIMIT

    def take_head(self, fields: list[Field]) -> str:
        """Take an interim or the final head. Returns an error if it is invalid."""
        status = _status_of(fields)
        if not status:
            return "the head of its answer has no valid status"
        if status < _LOWEST_FINAL:
            self.interim += 1
            return f"it sent more than {INTERIM} interim answers" if self.interim > INTERIM else ""
        self.status = status
        self.lines = list(islice(map(_line, filter(_is_plain, fields)), LINES - 1))
        return ""

    def answer(self) -> Answer | None:
        """The answer received so far, if its status is known."""
        if not self.status:
            return None
        head = b"\r\n".join([b"HTTP/2 %d" % self.status, *self.lines])
        return Answer(self.status, head, bytes(self.content), keep=False)


class Ended(NamedTuple):
    """A stream that has ended: by its answer, if there is one; else by the `error`, or unprocessed if that is empty.

    A request that was not processed may be sent again (section 8.7).
    """

    stream: Stream
    answer: Answer | None = None
    error: str = ""


def _status_of(fields: list[Field]) -> int:
    """The status; 0 if there is none that HTTP/2 allows (101 belongs to HTTP/1.1)."""
    found = [value for name, value in fields if name == b":status"]
    if len(found) != 1 or len(found[0]) != 3 or not found[0].isdigit():  # noqa: PLR2004 (digits)
        return 0
    status = int(found[0])
    return status if status >= 100 and status != 101 else 0  # noqa: PLR2004 (RFC 9110, 15)


def _is_plain(field: Field) -> bool:
    """Whether a field can be shown as a line; pseudo-fields and those that would break a line are left out."""
    name, value = field
    if name[:1] == b":" or not name:
        return False
    text = name + value
    return b"\r" not in text and b"\n" not in text and b"\0" not in text


def _line(field: Field) -> bytes:
    return b"%b: %b" % field
