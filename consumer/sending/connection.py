"""A connection to a receiver, which carries one request after another."""

import ssl

from requests import RequestException
from requests import exceptions as errors

from consumer.loop.poller import READ, WRITE, Poller
from consumer.sending.answer import Answer, AnswerReader, BadAnswer
from consumer.sending.pool import REST
from consumer.sending.route import Route
from consumer.sending.tls import NOT_NOW, PIECE, ByteStream, TlsStream, reason_of
from consumer.sending.transfer import ConnectionOwner, Transfer, unexpected

_LARGE = 65_536  # bytes; a larger body is sent separately from the head, to avoid a copy


class Connection:
    """An open connection, registered with the poller until closed. `born` and `used_at` are monotonic seconds.

    It is the stage of the transfer that it carries.
    """

    exchanging = True
    rest = REST

    def __init__(self, owner: ConnectionOwner, poller: Poller, stream: ByteStream, route: Route, now: float) -> None:
        self.route = route
        self.stream = stream
        self.born = self.used_at = now
        self._owner = owner
        self._poller = poller
        self._reader = AnswerReader()
        self._recv, self._send = stream.recv, stream.send
        self._tls = stream if isinstance(stream, TlsStream) else None
        self._todo: list[memoryview] = []
        self._transfer: Transfer | None = None
        self._used = False  # whether it has carried an exchange
        self._fd = stream.fileno()
        poller.register(self._fd, READ, self._ready)

    def carry(self, transfer: Transfer) -> None:
        """Send the transfer's request. The owner gets the outcome, perhaps before this call returns."""
        self._transfer = transfer
        transfer.stage = self
        first, rest = transfer.head, transfer.body
        if len(rest) <= _LARGE:
            first, rest = first + rest, b""
        try:
            sent = self._send(first)
        except NOT_NOW:
            sent = 0
        except OSError as error:
            self._broken(error)
            return
        if rest or sent < len(first):
            self._todo = [memoryview(first)[sent:], memoryview(rest)]
            self._poller.modify(self._fd, READ | WRITE)

    def late(self) -> Answer | str:
        """The answer received so far, or the text of the read time-out."""
        try:
            return self._reader.end()
        except BadAnswer:
            return "no answer"

    def is_quiet(self) -> bool:
        """Whether the connection is still open and silent; unread bytes, which the poller may yet report, close it."""
        self._read()
        return self._fd >= 0

    def cancel(self) -> None:
        """Close the connection without calling the owner."""
        self._transfer = None
        if self._fd >= 0:
            self._poller.unregister(self._fd)
            self._fd = -1
            self._tls = None
            self.stream.close()
            self._todo.clear()

    def _ready(self, events: int) -> None:
        try:
            if events & WRITE and self._todo:
                self._write()
            if events & ~WRITE and self._fd >= 0:
                self._read()
        except Exception as error:  # noqa: BLE001 (one receiver must not end the worker)
            self._fail(unexpected(error, self.route.host))

    def _write(self) -> None:
        todo = self._todo
        try:
            while todo:
                sent = self._send(todo[0])
                if sent < len(todo[0]):
                    todo[0] = todo[0][sent:]
                    return
                del todo[0]
        except NOT_NOW:
            return
        except OSError as error:
            self._broken(error)
            return
        self._poller.modify(self._fd, READ)

    def _broken(self, error: OSError) -> None:
        """Handle a failed write: read first, since an answer may have arrived before."""
        transfer = self._transfer
        self._read()
        if transfer is not None and self._transfer is transfer:
            self._ended(error)

    def _read(self) -> None:
        while True:
            try:
                data = self._recv(PIECE)
            except NOT_NOW:
                return
            except OSError as error:
                self._ended(error)
                return
            transfer = self._transfer
            if transfer is None or not data:
                self._ended(None)
                return
            try:
                answer = self._reader.feed(data)
            except BadAnswer as bad:
                self._fail(errors.ConnectionError(str(bad)))
                return
            tls = self._tls
            if answer is not None:
                if tls is not None and tls.held() and not self._is_silent():
                    answer.keep = False
                self._answered(transfer, answer)
                return
            if tls is None or not tls.held():
                return

    def _is_silent(self) -> bool:
        """Whether only tickets and the like are held behind an answer, which no poller would report."""
        try:
            self._recv(PIECE)
        except NOT_NOW:
            return True
        except OSError:
            return False
        return False

    def _answered(self, transfer: Transfer, answer: Answer) -> None:
        self._transfer = None
        if self._todo:
            answer.keep = False
        if not self._used:
            self._used = True
            if self._tls is not None:
                self._tls.keep_session()
        self._owner.answered(self, transfer, answer)
        if not answer.keep:
            self.cancel()

    def _ended(self, error: OSError | None) -> None:
        """Handle a connection that the receiver closed or that broke."""
        transfer = self._transfer
        if transfer is None:
            self._leave()
        elif self._reader.begun:
            try:
                answer = self._reader.end()
            except BadAnswer as bad:
                self._fail(errors.ConnectionError(str(bad)))
            else:
                self._answered(transfer, answer)
        elif self._used:
            self.cancel()
            self._owner.unused(transfer)
        elif isinstance(error, ssl.SSLError):
            self._fail(errors.SSLError(reason_of(error)))
        else:
            reason = f": {reason_of(error)}" if error is not None else ""
            self._fail(errors.ConnectionError(f"the connection was closed before an answer came{reason}"))

    def _fail(self, error: RequestException) -> None:
        transfer = self._transfer
        if transfer is None:
            self._leave()
        else:
            self.cancel()
            self._owner.failed(transfer, error)

    def _leave(self) -> None:
        self.cancel()
        self._owner.left(self)
