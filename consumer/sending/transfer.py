"""A submitted request and its stages, and what the connections that carry it tell their owner."""

import re
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, Protocol

import structlog
from requests import PreparedRequest, RequestException, Response
from requests import exceptions as errors

from consumer.crypto.certificates import TlsIdentity
from consumer.sending.answer import BODY_LIMIT, INTERIM, LINES, Answer

Field = tuple[bytes, bytes]

HTTP2_HEADS = 16_384  # bytes of an answer's heads, encoded as well as decoded, which takes 3 ms at most
_STATUS = re.compile(rb"(?!101)[1-9]\d\d")  # RFC 9110, 15; 101 belongs to HTTP/1.1

log = structlog.get_logger(__name__)

Result = Response | RequestException


class Stage(Protocol):
    """A stage of a transfer: waiting for a token or a connection, opening one, or exchanging over one."""

    exchanging: bool  # the request is on its way, so the time limit of the answer applies

    def cancel(self) -> None:
        """End the stage and close its sockets."""

    def late(self) -> Answer | str:
        """The answer as far as it has come, if its status is known; else the text of the time-out: what is missing."""


class Transfer:
    """A submitted request, to pass to `cancel`. `connected`: it has begun to open a TLS connection of its own.

    `handshake`: the seconds of CPU that this has taken.
    `head` and `body` are the bytes to write. Times are monotonic seconds: its connection is due by `connect_by`, its
    answer by `deadline`. `again`: its time limit was restarted after the loop had stood still.
    `identity`: of its TLS connection. `grant`: of its access token, if it needs one. `refusals`: how often a receiver
    has closed or refused it unprocessed.
    """

    connected = False
    handshake = 0.0
    again = False
    refusals = 0

    def __init__(
        self,
        request: PreparedRequest,
        callback: Callable[[Result], None],
        began: float,
        limit: float,
        identity: TlsIdentity | None = None,
    ) -> None:
        self.request = request
        self.callback: Callable[[Result], None] | None = callback  # None: done or cancelled
        self.limit = limit
        self.deadline = self.connect_by = began + limit
        self.head = self.body = b""
        self.stage: Stage | None = None  # None: not begun, or done
        self.identity = identity
        self.grant: Stage | None = None

    def spend(self, seconds: float) -> None:
        """Its handshake has taken seconds of CPU."""
        self.handshake += seconds


class Transport(Protocol):
    """Sends the loop's requests, as `LoopAdapter` does."""

    connections_opened: int

    def submit(
        self, request: PreparedRequest, callback: Callable[[Result], None], *, timeout: float | None = None
    ) -> Transfer:
        """Start sending; `callback(result)` runs in a later turn."""

    def cancel(self, transfer: Transfer) -> None:
        """Drop a transfer: its callback does not run."""

    def close(self) -> None:
        """Drop all transfers."""


class Http2Exchange:
    """The stage of a transfer on an HTTP/2 connection: its request, and the answer as far as it has come.

    If it has ended without an answer, `error` is the reason; empty if the receiver has not processed the request.
    """

    exchanging = True

    def __init__(self, transfer: Transfer, abandon: "Callable[[Http2Exchange], None]") -> None:
        self.transfer: Transfer | None = transfer  # None: abandoned
        self.error = ""
        self.number = 0  # of its stream; 0 before it is opened
        self.body = b""
        self.unsent = 0  # bytes of the body
        self.heard = 0  # reads of the connection when it was opened
        self.status = 0
        self.lines: list[bytes] = []
        self.content = bytearray()  # of the answer
        self.pieces = self.interim = 0
        self.encoded = 0  # bytes of its heads so far: interim ones, the final one and trailers
        self.head_room = HTTP2_HEADS  # bytes that they may yet have decoded
        self.room = BODY_LIMIT
        self._abandon = abandon

    def late(self) -> Answer | str:
        """The answer received so far, or the text of the read time-out."""
        return self.cut() or "no answer"

    def cut(self) -> Answer | None:
        """The answer received so far, if its status is known."""
        if not self.status:
            return None
        head = b"\r\n".join([b"HTTP/2 %d" % self.status, *self.lines])
        return Answer(self.status, head, bytes(self.content), keep=False)

    def cancel(self) -> None:
        """End this exchange; the connection and its other exchanges go on."""
        self._abandon(self)

    def take_head(self, fields: Sequence[Field]) -> str:
        """Take an interim or the final head. Returns an error if it is invalid."""
        found = [value for name, value in fields if name == b":status"]
        if len(found) != 1 or _STATUS.fullmatch(found[0]) is None:
            return "the head of its answer has no valid status"
        if found[0] < b"200":
            self.interim += 1
            return f"it sent more than {INTERIM} interim answers" if self.interim > INTERIM else ""
        self.status = int(found[0])
        self.lines = [b"%b: %b" % field for field in islice(filter(_is_plain, fields), LINES - 1)]
        return ""


def _is_plain(field: Field) -> bool:
    """Whether a field can be shown as a line; pseudo-fields and those that would break a line are left out."""
    name, value = field
    if name[:1] == b":" or not name:
        return False
    text = name + value
    return b"\r" not in text and b"\n" not in text and b"\0" not in text


class ConnectionOwner(Protocol):
    """Receives the outcome of each exchange; the connection has let go of the transfer by then."""

    def answered(self, connection: Any, transfer: Transfer, answer: Answer) -> None:
        """The exchange ended with an answer. Unless `answer.keep`, an HTTP/1.1 connection closes after this call."""

    def failed(self, transfer: Transfer, error: RequestException) -> None:
        """The exchange ended without an answer."""

    def unused(self, transfer: Transfer) -> None:
        """Send the request over a new connection: the receiver has not seen it."""

    def await_connection(self, transfer: Transfer) -> None:
        """Start the transfer's connect time-out."""

    def dial(self, transfer: Transfer, done: Callable[[Any], None]) -> Any:
        """A Dial for the transfer, to be started. `done` gets the stream or the error."""

    def keep(self, connection: Any) -> None:
        """Keep an idle connection for later requests."""

    def left(self, connection: Any) -> None:
        """An idle connection is closed: the receiver ended it, or sent bytes unasked."""


def unexpected(error: Exception, host: str | None = None) -> RequestException:
    """The result of a transfer that met a bug of this program. It is logged; one receiver must not end the worker."""
    log.error("a request failed by an unexpected error", host=host, exc_info=error)
    return errors.ConnectionError(f"unexpected error of the worker ({type(error).__name__}); its log says more")
