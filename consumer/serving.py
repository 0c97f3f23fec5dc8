"""An ASGI application on a port: in this thread until a signal, or in a thread of its own."""

import logging
import socket
import threading

import uvicorn
from starlette.types import ASGIApp

from consumer.errors import WebhooksError

log = logging.getLogger(__name__)

_GRACE = 5  # seconds that requests get to end before they are cut


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any free one. WebhooksError where the address is taken, or is none."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, UnicodeError) as error:
        raise WebhooksError(f"cannot listen on {host}:{port}: {getattr(error, 'strerror', None) or error}") from None


def serve(app: ASGIApp, listener: socket.socket) -> None:
    """Serve until SIGTERM or Ctrl-C, let requests end, then raise the signal again for the handler that was there."""
    _server(app).run(sockets=[listener])


class BackgroundServer:
    """Serves in a daemon thread. What goes wrong there is logged and reaches nobody else."""

    def __init__(self, app: ASGIApp, listener: socket.socket, name: str) -> None:
        self.port: int = listener.getsockname()[1]
        self._server = _server(app)
        self._thread = threading.Thread(target=self._run, args=(listener,), name=name, daemon=True)
        self._thread.start()

    def close(self, timeout: float = 2.0) -> None:
        """Stop; waits at most `timeout` seconds for requests that are being answered."""
        self._server.should_exit = True
        self._thread.join(timeout)

    def _run(self, listener: socket.socket) -> None:
        try:
            self._server.run(sockets=[listener])
        except (Exception, SystemExit):
            log.exception("the server on port %d has ended", self.port)


def _server(app: ASGIApp) -> uvicorn.Server:
    return uvicorn.Server(
        uvicorn.Config(
            app,
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_GRACE,
            h11_max_incomplete_event_size=64 * 1024,  # bytes of a request's head
        )
    )
