"""A connection that speaks HTTP/2: it carries many requests at once, and a stalled one holds up no other."""

import contextlib
from typing import Any, Protocol

from requests import RequestException
from requests import exceptions as errors

from consumer.loop.guarded import guarded
from consumer.loop.poller import READ, WRITE, Poller
from consumer.sending.answer import Answer
from consumer.sending.connector import Route
from consumer.sending.http2_frames import SessionFailed
from consumer.sending.http2_session import Session
from consumer.sending.http2_stream import Ended, Stream
from consumer.sending.tls import NOT_NOW, PIECE, reason_of
from consumer.sending.transfer import Exchanging, Transfer, unexpected

_WRITE = 65_536  # bytes taken from the session at once; a small body waits for at most so many of a large one
_WRITES = 4  # in a turn


class Http2Owner(Protocol):
    """Receives the outcome of each exchange; the connection has let go of the transfer by then."""

    def answered(self, connection: "Http2Connection", transfer: Transfer, answer: Answer) -> None:
        """The exchange ended with an answer."""

    def failed(self, transfer: Transfer, error: RequestException) -> None:
        """The exchange ended without an answer."""

    def unprocessed(self, connection: "Http2Connection", transfer: Transfer) -> None:
        """The receiver has not processed the request: it may be sent again (RFC 9113, 8.7)."""

    def freed(self, connection: "Http2Connection") -> None:
        """Exchanges have ended, or the receiver allows more of them, or the connection has closed."""


class Exchange(Exchanging):
    """One request on a connection: the stage of its transfer."""

    __slots__ = ("connection", "stream", "transfer")

    def __init__(self, connection: "Http2Connection", transfer: Transfer) -> None:
        self.connection = connection
        self.transfer = transfer
        self.stream = Stream()

    def late(self) -> str:
        """The text of the read time-out."""
        return "no answer"

    def cut(self) -> Answer | None:
        """The answer received so far, if its status is known."""
        return self.stream.answer()

    def cancel(self) -> None:
        """End this exchange; the connection and its other exchanges go on."""
        self.connection.drop(self)


class Http2Connection:
    """An open connection, registered with the poller until closed. `born` and `used_at` are monotonic seconds."""

    rest = 0.0  # an answer names its request

    def __init__(self, owner: Http2Owner, poller: Poller, stream: Any, route: Route, now: float) -> None:
        self.route = route
        self.stream = stream
        self.born = self.used_at = now
        self._owner = owner
        self._poller = poller
        self._session = Session()
        self._exchanges: dict[int, Exchange] = {}  # by the number of their stream
        self._todo = memoryview(b"")
        self._is_posted = False
        self._waits_to_write = False
        self._flush_soon = guarded(self._on_bug, self._flush)
        self._fd: int = stream.fileno()
        poller.register(self._fd, READ, guarded(self._on_bug, self._ready))
        if stream.held():  # the receiver's settings may have come with the end of the handshake
            poller.post(guarded(self._on_bug, self._read_early))

    @property
    def room(self) -> int:
        """How many requests it can carry now, besides those it carries."""
        return self._session.room if self._fd >= 0 else 0

    @property
    def settled(self) -> bool:
        """Whether the receiver's settings have arrived, which limit its requests; until then there is room for one."""
        return self._session.settled

    @property
    def took_none(self) -> bool:
        """Whether the receiver has ended it before it processed any request."""
        return self._session.took_none

    @property
    def is_idle(self) -> bool:
        """Whether it carries no request."""
        return not self._exchanges

    @property
    def is_open(self) -> bool:
        """Whether it has not been closed."""
        return self._fd >= 0

    def carry(self, transfer: Transfer) -> None:
        """Send the transfer's request. The owner gets the outcome, perhaps before this call returns.

        Only while there is `room`. The first request goes out at once, others at the end of the turn.
        """
        exchange = Exchange(self, transfer)
        transfer.stage = exchange
        self._session.open(exchange.stream, transfer.head, transfer.body)
        self._exchanges[exchange.stream.number] = exchange
        if len(self._exchanges) == 1 and not self._waits_to_write:
            self._write()
        else:
            self._send_soon()

    def drop(self, exchange: Exchange) -> None:
        """Abandon an exchange.

        If nothing has arrived since its request was sent, the receiver may be gone: the connection takes no more.
        """
        stream = exchange.stream
        if self._exchanges.pop(stream.number, None) is not None:
            self._session.leaving |= stream.heard == self._session.heard
            self._session.cancel(stream)
            self._send_soon()
            self._owner.freed(self)

    def is_quiet(self) -> bool:
        """Whether it may carry another request; unread bytes, which the poller may yet report, can forbid that."""
        self._read()
        return self.room > 0

    def cancel(self) -> None:
        """Close the connection without calling the owner."""
        self._exchanges.clear()
        self._shut(self._session.goaway())

    def _shut(self, last: bytes) -> None:
        if self._fd >= 0:
            self._poller.unregister(self._fd)
            self._fd = -1
            if not self._todo:  # else GOAWAY would stand within a frame
                with contextlib.suppress(OSError):
                    self.stream.send(last)
            self.stream.close()

    # Writing.

    def _send_soon(self) -> None:
        """Send all bytes of a turn together, which saves calls and TLS records."""
        if not self._is_posted and not self._waits_to_write and self._fd >= 0:
            self._is_posted = True
            self._poller.post(self._flush_soon)

    def _flush(self) -> None:
        self._is_posted = False
        if self._fd >= 0:
            self._write()

    def _write(self) -> None:
        for _ in range(_WRITES):
            if not self._todo:
                self._todo = memoryview(self._session.take(_WRITE))
                if not self._todo:
                    self._wait(to_write=False)
                    return
            try:
                self._todo = self._todo[self.stream.send(self._todo) :]
            except NOT_NOW:
                break
            except OSError as error:
                self._broken(error)
                return
        self._wait(to_write=True)

    def _wait(self, *, to_write: bool) -> None:
        if to_write is not self._waits_to_write:
            self._waits_to_write = to_write
            self._poller.modify(self._fd, READ | WRITE if to_write else READ)

    def _broken(self, error: OSError) -> None:
        """Handle a failed write: read first, since answers may have arrived before."""
        self._read()
        if self._fd >= 0:
            self._closed(error)

    # Reading.

    def _ready(self, events: int) -> None:
        if events & WRITE and self._waits_to_write:
            self._write()
        if events & ~WRITE and self._fd >= 0:
            self._read()

    def _read_early(self) -> None:
        if self._fd >= 0:
            self._read()

    def _read(self) -> None:
        while True:
            try:
                data = self.stream.recv(PIECE)
            except NOT_NOW:
                break
            except OSError as error:
                self._closed(error)
                return
            if not data:
                self._closed(None)
                return
            try:
                ended = self._session.receive(data)
            except SessionFailed as bad:
                self._end(str(bad), orderly=False, code=bad.code)
                return
            self._settle(ended)
            if self._fd < 0 or not self.stream.held():
                break
        if self._fd >= 0:
            self._send_soon()
            self._owner.freed(self)

    def _closed(self, error: OSError | None) -> None:
        reason = f": {reason_of(error)}" if error is not None else ""
        self._end(f"the connection was closed before an answer came{reason}", orderly=True)

    def _end(self, why: str, *, orderly: bool, code: int = 0) -> None:
        self._shut(self._session.goaway(code))
        self._settle(self._session.end(why, orderly=orderly))
        self._owner.freed(self)

    def _on_bug(self, error: Exception) -> None:
        """End this connection, so that the worker goes on."""
        self._end(str(unexpected(error, self.route.host)), orderly=False)

    def _settle(self, ended: list[Ended]) -> None:
        """Report the ended exchanges to the owner."""
        for stream, answer, error in ended:
            exchange = self._exchanges.pop(stream.number, None)
            if exchange is None:
                continue
            if answer is not None:
                self._owner.answered(self, exchange.transfer, answer)
            elif error:
                self._owner.failed(exchange.transfer, errors.ConnectionError(error))
            else:
                self._owner.unprocessed(self, exchange.transfer)
