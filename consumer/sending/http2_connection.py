"""A connection that speaks HTTP/2: it carries many requests at once, and a stalled one holds up no other."""

import contextlib
from collections.abc import Callable
from typing import Any

from requests import exceptions as errors

from consumer.loop.part import guarded
from consumer.loop.poller import READ, WRITE, Poller
from consumer.sending.http2_session import FRAMES, Http2Session, SessionFailed
from consumer.sending.route import Route
from consumer.sending.tls import NOT_NOW, PIECE, reason_of
from consumer.sending.transfer import ConnectionOwner, Http2Exchange, Transfer, unexpected

_WRITE = 65_536  # bytes taken from the session at once; a small body waits for at most so many of a large one
_WRITES = 4  # in a turn
_LAST_READS = 32  # of a connection that has failed, each as long as a turn's: more than all frames of a TLS record take


class Http2Connection:
    """An open connection, registered with the poller until closed. `born` and `used_at` are monotonic seconds.

    `session` says what it can carry. `unprocessed` gets a transfer that may be sent again: the receiver has not
    processed its request (RFC 9113, 8.7), or the connection broke at the answer to another one. `freed` is called when
    exchanges have ended, when the receiver allows more of them, and when the connection has closed.
    """

    rest = 0.0  # an answer names its request

    def __init__(
        self,
        owner: ConnectionOwner,
        poller: Poller,
        stream: Any,
        route: Route,
        now: float,
        *,
        unprocessed: "Callable[[Http2Connection, Transfer], None]",
        freed: "Callable[[Http2Connection], None]",
    ) -> None:
        self.route = route
        self.stream = stream
        self.born = self.used_at = now
        self.session = Http2Session()
        self._owner = owner
        self._poller = poller
        self._unprocessed, self._freed = unprocessed, freed
        self._todo = memoryview(b"")
        self._is_posted = self._used = False
        self._waits_to_write = False
        self._fd: int = stream.fileno()
        poller.register(self._fd, READ, guarded(self._on_bug, self._ready))
        if stream.held():  # the receiver's settings may have come with the end of the handshake
            self._read_soon()

    @property
    def room(self) -> int:
        """How many requests it can carry now, besides those it carries."""
        return self.session.room if self._fd >= 0 else 0

    @property
    def is_open(self) -> bool:
        """Whether it has not been closed."""
        return self._fd >= 0

    def carry(self, transfer: Transfer) -> None:
        """Send the transfer's request. The owner gets the outcome, perhaps before this call returns.

        Only while there is `room`. The first request goes out at once, others at the end of the turn.
        """
        exchange = transfer.stage = Http2Exchange(transfer, self._drop)
        self.session.open(exchange, transfer.head, transfer.body)
        if len(self.session.exchanges) == 1 and not self._waits_to_write:
            self._write()
        else:
            self._send_soon()

    def _drop(self, exchange: Http2Exchange) -> None:
        """Abandon an exchange.

        If nothing has arrived since its request was sent, the receiver may be gone: the connection takes no more.
        """
        if exchange.transfer is not None:
            exchange.transfer = None
            self.session.leaving |= exchange.heard == self.session.heard
            self.session.cancel(exchange)
            self._send_soon()
            self._freed(self)

    def is_quiet(self) -> bool:
        """Whether it may carry another request; unread bytes, which the poller may yet report, can forbid that."""
        self._read()
        return self.room > 0

    def cancel(self) -> None:
        """Close the connection without calling the owner."""
        self.session.exchanges.clear()
        self._shut(self.session.goaway())

    def _shut(self, last: bytes) -> None:
        if self._fd >= 0:
            self._poller.unregister(self._fd)
            self._fd = -1
            if self.session.settled and not self._todo:  # else GOAWAY would come before all frames, or within one
                with contextlib.suppress(OSError):  # GOAWAY is a courtesy
                    self.stream.send(last)
            self.stream.close()

    # Writing.

    def _send_soon(self) -> None:
        """Send all bytes of a turn together, which saves calls and TLS records."""
        if not self._is_posted and not self._waits_to_write and self._fd >= 0:
            self._is_posted = True
            self._poller.post(guarded(self._on_bug, self._flush))

    def _flush(self) -> None:
        self._is_posted = False
        if self._fd >= 0:
            self._write()

    def _write(self) -> None:
        for _ in range(_WRITES):
            if not self._todo:
                self._todo = memoryview(self.session.take(_WRITE))
                if not self._todo:
                    self._wait(to_write=False)
                    return
            try:
                self._todo = self._todo[self.stream.send(self._todo) :]
            except NOT_NOW:
                break
            except OSError as error:
                self._read_last(error)
                return
        self._wait(to_write=True)

    def _wait(self, *, to_write: bool) -> None:
        if to_write is not self._waits_to_write:
            self._waits_to_write = to_write
            self._poller.modify(self._fd, READ | WRITE if to_write else READ)

    # Reading.

    def _ready(self, events: int) -> None:
        if events & WRITE and self._waits_to_write:
            self._write()
        if events & ~WRITE and not self.session.is_behind:  # else the rest is parsed first
            self._read()

    def _read_soon(self) -> None:
        self._poller.post(guarded(self._on_bug, self._read))

    def _read(self) -> None:
        """Parse the frames that were left, or those of the next TLS records: a bounded number, the rest later."""
        if self._fd < 0:
            return
        session = self.session
        session.budget = FRAMES
        is_more = True
        while is_more and session.budget > 0:
            data = b""
            if not session.is_behind:
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
                ended = session.receive(data)
            except SessionFailed as bad:
                self._end(str(bad), orderly=False, code=bad.code)
                return
            self._settle(ended)
            if self._fd < 0:
                return
            is_more = session.is_behind or bool(self.stream.held())
        if session.budget <= 0 and is_more:
            self._read_soon()
        self._send_soon()
        self._freed(self)

    def _read_last(self, error: OSError) -> None:
        """Nothing more can be written: take the answers that have arrived before, and end the connection."""
        self.session.leaving = True
        for _ in range(_LAST_READS):
            was_behind, heard = self.session.is_behind, self.session.heard
            self._read()
            if self._fd < 0:
                return
            if not was_behind and self.session.heard == heard:  # no more bytes have come
                break
        self._closed(error)

    def _closed(self, error: OSError | None) -> None:
        reason = f": {reason_of(error)}" if error is not None else ""
        self._end(f"the connection was closed before an answer came{reason}", orderly=True)

    def _end(self, why: str, *, orderly: bool, code: int = 0) -> None:
        self._shut(self.session.goaway(code))
        self._settle(self.session.end(why, orderly=orderly))
        self._freed(self)

    def _on_bug(self, error: Exception) -> None:
        """End this connection, so that the worker goes on."""
        self._end(str(unexpected(error, self.route.host)), orderly=False)

    def _settle(self, ended: list[Http2Exchange]) -> None:
        """Report the ended exchanges."""
        for exchange in ended:
            transfer, exchange.transfer = exchange.transfer, None
            if transfer is None:
                continue
            answer = exchange.cut()
            if answer is not None:
                if not self._used:
                    self._used = True
                    self.stream.keep_session()
                self._owner.answered(self, transfer, answer)
            elif exchange.error:
                self._owner.failed(transfer, errors.ConnectionError(exchange.error))
            else:
                self._unprocessed(self, transfer)
