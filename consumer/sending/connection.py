"""A connection to a receiver, which carries one request after another."""

import ssl
from typing import Any, Protocol

from requests import RequestException
from requests import exceptions as errors

from consumer.loop.poller import READ, WRITE, Poller
from consumer.sending.answer import Answer, AnswerReader, BadAnswer
from consumer.sending.connector import Route
from consumer.sending.tls import PIECE, Stream, reason_of
from consumer.sending.transfer import Transfer

_LARGE = 65_536  # bytes of a body, which is not copied to stand behind its head
_NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Owner(Protocol):
    """Is told how an exchange ended. The connection does not carry it any more."""

    def answered(self, connection: "Connection", transfer: Transfer, answer: Answer) -> None:
        """With an answer. The connection is kept if the answer says so, else it is closed after this."""

    def failed(self, transfer: Transfer, error: RequestException) -> None:
        """Without one; the connection is closed."""

    def unused(self, transfer: Transfer) -> None:
        """A kept connection was closed before a byte of an answer: it may go out on a new one (RFC 9112, 9.3.1)."""

    def left(self, connection: "Connection") -> None:
        """It carried nothing, and is closed: the receiver ended it, or spoke unasked."""


class Connection:
    """Open, and registered with the poller, until it is closed. `born` and `used_at` are monotonic seconds."""

    __slots__ = (
        "_fd",
        "_held",
        "_owner",
        "_poller",
        "_reader",
        "_recv",
        "_send",
        "_todo",
        "_transfer",
        "_used",
        "born",
        "route",
        "stream",
        "used_at",
    )

    def __init__(self, owner: Owner, poller: Poller, stream: Stream, route: Route, now: float) -> None:
        self.route = route
        self.stream = stream
        self.born = self.used_at = now
        self._owner = owner
        self._poller = poller
        self._reader = AnswerReader()
        self._recv, self._send = stream.recv, stream.send
        self._held = getattr(stream, "held", None)  # a TLS socket holds nothing back: a read takes a whole record
        self._todo: list[memoryview] = []
        self._transfer: Transfer | None = None
        self._used = False  # it has carried an exchange
        self._fd = stream.fileno()
        poller.register(self._fd, READ, self._ready)

    def carry(self, transfer: Transfer) -> None:
        """Send its request. Its end is told to the owner, perhaps before this returns."""
        self._transfer = transfer
        first, rest = transfer.head, transfer.body
        if len(rest) <= _LARGE:
            first, rest = first + rest, b""
        try:
            sent = self._send(first)
        except _NOT_NOW:
            sent = 0
        except OSError as error:
            self._broken(error)
            return
        if rest or sent < len(first):
            self._todo = [memoryview(first)[sent:], memoryview(rest)]
            self._poller.modify(self._fd, READ | WRITE)

    def late(self) -> str:
        """What has not come in time."""
        return "no answer"

    def cut(self) -> Answer | None:
        """What there is of the answer, if its status is known."""
        try:
            return self._reader.end()
        except BadAnswer:
            return None

    def is_quiet(self) -> bool:
        """Nothing has come unasked, of which the poller may not have told yet; else it is closed now."""
        self._read()
        return self._fd >= 0

    def cancel(self) -> None:
        """Close it; nobody is told."""
        self._transfer = None
        if self._fd >= 0:
            self._poller.unregister(self._fd)
            self._fd = -1
            self._held = None
            self.stream.close()
            self._todo.clear()

    def _ready(self, events: int) -> None:
        if events & WRITE and self._todo:
            self._write()
        if events & ~WRITE and self._fd >= 0:
            self._read()

    def _write(self) -> None:
        todo = self._todo
        try:
            while todo:
                sent = self._send(todo[0])
                if sent < len(todo[0]):
                    todo[0] = todo[0][sent:]
                    return
                del todo[0]
        except _NOT_NOW:
            return
        except OSError as error:
            self._broken(error)
            return
        self._poller.modify(self._fd, READ)

    def _broken(self, error: OSError) -> None:
        """Nothing can be written any more. An answer may have come before."""
        transfer = self._transfer
        self._read()
        if transfer is not None and self._transfer is transfer:
            self._ended(error)

    def _read(self) -> None:
        more: Any = True
        while more:
            try:
                data = self._recv(PIECE)
            except _NOT_NOW:
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
            if answer is not None:
                self._answered(transfer, answer)  # what is held behind it was not asked for
            more = self._held and self._held()

    def _answered(self, transfer: Transfer, answer: Answer) -> None:
        self._transfer = None
        if self._todo:
            answer = answer._replace(keep=False)
        self._used = True
        self._owner.answered(self, transfer, answer)
        if not answer.keep:
            self.cancel()

    def _ended(self, error: OSError | None) -> None:
        """The receiver has closed it, or it broke."""
        transfer = self._transfer
        if transfer is None:
            self.cancel()
            self._owner.left(self)
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
        self.cancel()
        if transfer is not None:
            self._owner.failed(transfer, error)
