"""Serves an ASGI application on a port, in the calling thread until a signal or in a background thread."""

import logging
import re
import socket
import threading
import time
from asyncio import TimerHandle
from secrets import token_hex
from typing import Any

import uvicorn
from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bound_contextvars
from uvicorn.protocols.http.h11_impl import H11Protocol

from consumer.errors import WebhooksError

log = logging.getLogger(__name__)

_GRACE = 5  # seconds that open requests get at shutdown before they are cut
_HEAD_SECONDS = 10.0  # seconds for a request's head to arrive, after the connection or the last answer
_UNREAD_SECONDS = 30.0  # seconds for which a client may read nothing of an answer that waits for it
_MOST_CONNECTIONS = 200  # per port: each takes a file descriptor that a receiver's connection may need
_MOST_OF_ADDRESS = 100  # of these: a single client cannot take all
_BACKLOG = 64  # connections that asyncio accepts in one turn; out of descriptors, it logs a line for each
_SILENCE = 60.0  # seconds between two such log lines
_HEADERS = {"cache-control": "no-store", "x-content-type-options": "nosniff"}  # unless the application sets its own
REQUEST_ID = "request_id"  # in the log
_REQUEST_ID = b"x-request-id"
_FIT = re.compile("[A-Za-z0-9._-]{1,64}")
_FRAMING = {b"content-length", b"transfer-encoding"}


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any free port. Raises WebhooksError if the address is in use or invalid."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, UnicodeError) as error:
        raise WebhooksError(f"cannot listen on {host}:{port}: {getattr(error, 'strerror', None) or error}") from None
    # Connections inherit it. asyncio sets it only on sockets that were made with IPPROTO_TCP. Without it each answer
    # takes 40 ms longer: Nagle's algorithm keeps the body back until the peer has acknowledged the head.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def serve(app: ASGIApp, listener: socket.socket) -> None:
    """Serve until SIGTERM or Ctrl-C. Then let open requests end.

    Then raise the signal again for the previous handler, which may end the process at once.
    """
    uvicorn.Server(_config(app)).run(sockets=[listener])


class BackgroundServer:
    """Serves in a daemon thread. Errors there are logged and not raised elsewhere."""

    def __init__(self, app: ASGIApp, listener: socket.socket, name: str) -> None:
        self.port: int = listener.getsockname()[1]
        self._config = _config(app)
        self._server = uvicorn.Server(self._config)
        self._thread = threading.Thread(target=self._run, args=(listener,), name=name, daemon=True)
        self._thread.start()

    @property
    def cut(self) -> int:
        """How many connections were closed to make room for others."""
        return self._config.cut

    def close(self, timeout: float = 2.0) -> None:
        """Stop; waits at most `timeout` seconds for open requests."""
        self._server.should_exit = True
        self._thread.join(timeout)

    def _run(self, listener: socket.socket) -> None:
        try:
            self._server.run(sockets=[listener])
        except (Exception, SystemExit):
            log.exception("the server on port %d has ended", self.port)


class _Config(uvicorn.Config):
    cut = 0  # connections closed to make room


def _config(app: ASGIApp) -> _Config:
    return _Config(
        _front(app),
        loop="asyncio",
        http=_Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE,
        h11_max_incomplete_event_size=64 * 1024,  # bytes of a request's head
        backlog=_BACKLOG,
    )


def _front(app: ASGIApp) -> ASGIApp:
    """The application, whose answers have _HEADERS, and which gets no request with two statements of its length.

    Each request has an id, in the answer and in what is logged meanwhile: the client's, if that is fit for a log.

    A proxy in front may have gone by the other one, and taken the rest for the next request (RFC 9112 section 6.1).
    """

    async def front(scope: Scope, receive: Receive, send: Send) -> None:
        sent = next((value.decode("latin-1") for name, value in scope["headers"] if name == _REQUEST_ID), "")
        request_id = sent if _FIT.fullmatch(sent) else token_hex(8)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers[_REQUEST_ID.decode()] = request_id
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        answer = app
        if {name for name, _ in scope["headers"]} >= _FRAMING:
            why = "send Content-Length or Transfer-Encoding, not both"
            answer = PlainTextResponse(why, 400, {"connection": "close"})
        with bound_contextvars(**{REQUEST_ID: request_id}):
            await answer(scope, receive, with_headers)

    return front


class _Protocol(H11Protocol):
    """Uvicorn's protocol with limits of connections, and of the waits for a head and for a client to read.

    If there are too many, the one that has waited longest for its client makes room: it may be silent on purpose.
    """

    config: _Config
    _timer: TimerHandle | None = None  # for the head
    _unread: TimerHandle | None = None  # for the client to read
    waits_since: float | None = None  # for the rest of a request, or for the client to read; None: the client waits

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._await_head()
        self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._stop_unread()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._look_at_request()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._await_head()
        self._look_at_request()  # the next one may be here

    def pause_writing(self) -> None:
        super().pause_writing()
        self.waits_since = self.loop.time()
        self._unread = self.loop.call_later(_UNREAD_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        self._stop_unread()
        if self._timer is None:  # the answer is not at its end
            self.waits_since = None
        super().resume_writing()

    def _look_at_request(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
            if not self.cycle.more_body:
                self.waits_since = None

    def _make_room(self) -> None:
        """Close a connection if this one is too much: for the port, or for its address."""
        if len(self.connections) <= _MOST_OF_ADDRESS:
            return
        crowd = [each for each in self.connections if isinstance(each, _Protocol)]
        if len(crowd) <= _MOST_CONNECTIONS:
            crowd = [each for each in crowd if each.address == self.address]
            if len(crowd) <= _MOST_OF_ADDRESS:
                return
        # A connection that is being served is kept. The new one waits for its head, so one that waits is always here.
        longest = min(crowd, key=lambda each: float("inf") if each.waits_since is None else each.waits_since)
        self.connections.discard(longest)  # it is lost in the loop's next turn; more may come in this one
        longest.transport.abort()
        self.config.cut += 1
        log.warning(_CUT, self.server and self.server[1], longest.address, self.config.cut)

    @property
    def address(self) -> str:
        """The client's; empty if it has gone already."""
        return self.client[0] if self.client else ""

    def _stop_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _await_head(self) -> None:
        self._stop_waiting()
        self.waits_since = self.loop.time()
        self._timer = self.loop.call_later(_HEAD_SECONDS, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Seldom(logging.Filter):
    """Passes at most one line a minute of those that begin so: they are written for each of many connections."""

    def __init__(self, beginning: str) -> None:
        super().__init__()
        self._beginning = beginning
        self._said_at = float("-inf")

    def filter(self, record: logging.LogRecord) -> bool:
        if not str(record.msg).startswith(self._beginning):
            return True
        now = time.monotonic()
        if now - self._said_at < _SILENCE:
            return False
        self._said_at = now
        return True


_CUT = "port %s is full: the connection that waited longest for its client, from %s, made room; %d since the start"
log.addFilter(_Seldom("port "))
logging.getLogger("asyncio").addFilter(_Seldom("socket.accept() out of system resource"))
