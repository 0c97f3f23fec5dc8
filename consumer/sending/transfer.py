"""A submitted request and its stages."""

import re
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, NamedTuple, Protocol

import structlog
from requests import PreparedRequest, RequestException, Response
from requests import exceptions as errors

from consumer.crypto.certificates import TlsIdentity
from consumer.crypto.credentials import OAuth2
from consumer.sending.answer import BODY_LIMIT, INTERIM, LINES, Answer
from consumer.sending.tls import Tls

Field = tuple[bytes, bytes]

HTTP2_HEADS = 16_384  # bytes of an answer's heads, encoded as well as decoded, which takes 3 ms at most
_STATUS = re.compile(rb"(?!101)[1-9]\d\d")  # RFC 9110, 15; 101 belongs to HTTP/1.1

log = structlog.get_logger(__name__)

Result = Response | RequestException


class Stage(Protocol):
    """A stage of a transfer: resolving the name, opening a connection, or exchanging over one."""

    def cancel(self) -> None:
        """End the stage and close its sockets."""

    def late(self) -> str:
        """The missing result, as the start of a time-out's text."""


class Pending:
    """The stage of a transfer that waits for something that others may share, so that it cannot be cancelled.

    The callback that continues the transfer checks that this is still its stage.
    """

    def __init__(self, missing: str) -> None:
        self._missing = missing

    def late(self) -> str:
        """The text of the time-out."""
        return self._missing

    def cancel(self) -> None:
        """Do nothing."""


class Key(NamedTuple):
    """Requests with equal credentials and TLS share a token."""

    credentials: OAuth2
    identity: TlsIdentity | None


class Grant:
    """An access token of a transfer. `renewed`: it is the second one, since the receiver has refused the first."""

    __slots__ = ("key", "renewed", "token")

    def __init__(self, key: Key) -> None:
        self.key = key
        self.token = ""
        self.renewed = False


class Exchanging:
    """The stage of a transfer whose request is being exchanged for an answer."""

    __slots__ = ()

    def late(self) -> str:
        """The missing result, as the start of a time-out's text."""
        raise NotImplementedError

    def cut(self) -> Answer | None:
        """The answer received so far, if its status is known."""
        raise NotImplementedError

    def cancel(self) -> None:
        """End the exchange."""
        raise NotImplementedError


class Transfer:
    """A submitted request, to pass to `cancel`. `connected`: it has opened a TLS connection of its own, with `tls`.

    `head` and `body` are the bytes to write. Times are monotonic seconds: the transfer `began`, its connection is due
    by `connect_by`, its answer by `deadline`. `again`: its time limit was restarted after the loop had stood still.
    `identity`: of its TLS connection. `grant`: the access token it goes out with, if it needs one. `refusals`: how
    often a receiver has closed or refused it unprocessed.
    """

    __slots__ = (
        "again",
        "began",
        "body",
        "callback",
        "connect_by",
        "connected",
        "deadline",
        "grant",
        "head",
        "identity",
        "limit",
        "refusals",
        "request",
        "stage",
        "tls",
    )

    def __init__(
        self, request: PreparedRequest, callback: Callable[[Result], None], began: float, limit: float
    ) -> None:
        self.request = request
        self.callback: Callable[[Result], None] | None = callback  # None: done or cancelled
        self.began = began
        self.limit = limit
        self.deadline = self.connect_by = began + limit
        self.head = self.body = b""
        self.stage: Stage | None = None  # None: waits for the resolver, or done
        self.connected = False
        self.tls: Tls | None = None
        self.again = False
        self.identity: TlsIdentity | None = None
        self.grant: Grant | None = None
        self.refusals = 0


class Http2Exchange(Exchanging):
    """The stage of a transfer on an HTTP/2 connection: its request, and the answer as far as it has come.

    If it has ended without an answer, `error` is the reason; empty if the receiver has not processed the request.
    """

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

    def late(self) -> str:
        """The text of the read time-out."""
        return "no answer"

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

    def keep(self, connection: Any) -> None:
        """Keep an idle connection for later requests."""

    def left(self, connection: Any) -> None:
        """An idle connection is closed: the receiver ended it, or sent bytes unasked."""


def unexpected(error: Exception, host: str | None = None) -> RequestException:
    """The result of a transfer that met a bug of this program. It is logged; one receiver must not end the worker."""
    log.error("a request failed by an unexpected error", host=host, exc_info=error)
    return errors.ConnectionError(f"unexpected error of the worker ({type(error).__name__}); its log says more")
