"""Opens connections: tries the addresses that the egress rule allows, then sets up a proxy tunnel and TLS.

Only this module opens sockets to receivers, and it connects to the very address that the egress rule judged.
"""

import errno
import os
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

from requests import RequestException
from requests import exceptions as errors

from consumer.crypto.certificates import TlsIdentity
from consumer.errors import EgressRefused
from consumer.http.proxy import NoTunnel, Proxy, TunnelReader
from consumer.http.urls import place_of
from consumer.loop.part import guarded
from consumer.loop.poller import READ, WRITE, Poller
from consumer.sending.dns import alternated
from consumer.sending.egress import EgressPolicy
from consumer.sending.tls import NOT_NOW, PIECE, ByteStream, Tls, TlsStream, reason_of
from consumer.sending.transfer import unexpected

_ATTEMPT_DELAY = 0.25  # seconds until the next address is tried in parallel with a silent one (RFC 8305, 5 and 8)
_ATTEMPTS = 4  # addresses tried at once; the next one replaces the first of them, silent for a second by then
_KEEPALIVE = 60  # seconds: an idle connection is probed; below the idle limit of common load balancers (350 s, 240 s)
_OPTIONS = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
_OPTIONS += [
    (socket.IPPROTO_TCP, getattr(socket, name), _KEEPALIVE)
    for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL")
    if hasattr(socket, name)  # on Linux
]
_UNDER_WAY = {0, errno.EINPROGRESS}


class Route(NamedTuple):
    """How to reach a host: by https if `tls`, with an `identity` if given, through a `proxy` if there is one.

    `http2`: by HTTP/2 if the host offers it.
    """

    host: str
    port: int
    tls: bool
    proxy: Proxy | None = None
    identity: TlsIdentity | None = None
    http2: bool = False

    @property
    def first(self) -> tuple[str, int]:
        """Host and port of the TCP connection: the proxy's, or the host's own."""
        return (self.host, self.port) if self.proxy is None else (self.proxy.host, self.proxy.port)


class Watcher(Protocol):
    """Receives the steps of a connection being opened."""

    def connected(self, peer: str, port: int) -> None:
        """TCP is connected to the address `peer`."""

    def secured(self, stream: TlsStream) -> None:
        """The TLS handshake with the receiver is complete."""


class Dial:
    """A connection being opened. `done` gets the stream, or the error; after that `cancel` does nothing."""

    __slots__ = (
        "_addresses",
        "_attempts",
        "_connector",
        "_done",
        "_error",
        "_next_at",
        "_peer",
        "_route",
        "_stage",
        "_stream",
        "_tls",
        "_todo",
        "_tunnel",
        "_watcher",
    )

    def __init__(
        self,
        connector: "Connector",
        route: Route,
        addresses: Iterable[str],
        done: Callable[[ByteStream | RequestException], None],
        watcher: Watcher | None,
        tls: Tls,
    ) -> None:
        self._connector = connector
        self._tls = tls
        self._route = route
        self._addresses = deque(addresses)
        self._done: Callable[[ByteStream | RequestException], None] | None = done
        self._watcher = watcher
        self._attempts: dict[socket.socket, str] = {}  # socket → address
        self._error: RequestException | None = None
        self._next_at: float | None = None
        self._peer = ""
        self._stream: Any = None  # the connected socket or TLS stream, registered in the later stages
        self._stage = "no connection to" if route.proxy is None else "no connection to the proxy"
        self._todo = b""
        self._tunnel = TunnelReader()

    @property
    def next_at(self) -> float | None:
        """The time (monotonic seconds) when the next address is due."""
        return self._next_at

    def late(self) -> str:
        """The text of the connect time-out: the stage and its peers."""
        peers = ", ".join(self._attempts.values()) or self._peer
        return f"{self._stage} {peers}" if peers else "nothing to connect to"

    def cancel(self) -> None:
        """Close all sockets; `done` is not called."""
        self._done = None
        self._next_at = None
        for attempt in tuple(self._attempts):
            self._drop(attempt)
        if self._stream is not None:
            self._connector.poller.unregister(self._stream.fileno())
            self._stream.close()
            self._stream = None
        self._connector.forget(self)

    def _drop(self, attempt: socket.socket) -> None:
        del self._attempts[attempt]
        self._connector.poller.unregister(attempt.fileno())
        attempt.close()

    # TCP.

    def start(self) -> None:
        """Try the next address; if it fails at once, go on to the one after."""
        self._next_at = None
        while self._addresses:
            if len(self._attempts) == _ATTEMPTS:
                self._drop(next(iter(self._attempts)))
            address = self._addresses.popleft()
            fault = self._try(address)
            if fault is None:
                if self._addresses:
                    self._next_at = self._connector.clock() + _ATTEMPT_DELAY
                    self._connector.expect(self)
                return
            self._failed(address, fault)
        if not self._attempts:
            self._end(self._error or errors.ConnectionError("the name has no address"))

    def _try(self, address: str) -> int | None:
        """Begin to connect. Returns None, or the errno if that failed at once."""
        try:
            attempt = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        except OSError as error:  # no free descriptor, or the address family is not supported
            return error.errno or errno.EMFILE
        attempt.setblocking(False)
        for option in _OPTIONS:
            attempt.setsockopt(*option)
        fault = attempt.connect_ex((address, self._route.first[1]))
        if fault not in _UNDER_WAY:
            attempt.close()
            return fault
        self._attempts[attempt] = address
        self._register(attempt.fileno(), WRITE, partial(self._connectable, attempt))
        return None

    def _failed(self, address: str, fault: int) -> None:
        text = f"{self._stage} {place_of(address, self._route.first[1])}: {os.strerror(fault)}"
        self._error = (errors.ProxyError if self._route.proxy else errors.ConnectionError)(text)

    def _connectable(self, attempt: socket.socket, _events: int) -> None:
        poller = self._connector.poller
        poller.unregister(attempt.fileno())
        address = self._attempts.pop(attempt)
        if fault := attempt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            attempt.close()
            self._failed(address, fault)
            if self._addresses or not self._attempts:
                self.start()
            return
        for other in tuple(self._attempts):
            self._drop(other)
        self._addresses.clear()
        self._next_at = None
        self._peer = address
        self._stream = attempt
        if self._watcher is not None:
            self._watcher.connected(address, self._route.first[1])
        proxy = self._route.proxy
        if proxy is not None and proxy.tls:
            self._start_tls(proxy)
        elif proxy is not None:
            self._to_proxy()
        else:
            self._to_receiver()

    # The proxy's tunnel.

    def _to_proxy(self) -> None:
        proxy = self._route.proxy
        if proxy is None or not self._route.tls:
            self._succeed()
            return
        self._stage = "no answer to CONNECT from the proxy"
        self._todo = proxy.connect(self._route.host, self._route.port)
        self._watch(READ | WRITE, self._tunnelling)

    def _tunnelling(self, events: int) -> None:
        try:
            if self._todo and events & WRITE:
                self._todo = self._todo[self._stream.send(self._todo) :]
                if not self._todo:
                    self._connector.poller.modify(self._stream.fileno(), READ)
            is_open, may_hold_more = False, bool(events & ~WRITE)
            while may_hold_more and not is_open:
                is_open = self._tunnel.feed(self._stream.recv(PIECE))
                may_hold_more = isinstance(self._stream, TlsStream) and self._stream.held() > 0
        except NOT_NOW:
            return
        except NoTunnel as error:
            self._end(errors.ProxyError(str(error)))
            return
        except OSError as error:
            self._end(errors.ProxyError(f"the proxy closed the connection: {reason_of(error)}"))
            return
        if is_open:
            self._connector.poller.unregister(self._stream.fileno())
            if self._route.proxy is not None and self._route.proxy.tls:
                self._connector.tls.remember(self._stream, *self._route.first)
            self._peer = f"{self._route.host} through the proxy"
            self._to_receiver()

    # TLS.

    def _to_receiver(self) -> None:
        if self._route.tls:
            self._start_tls(None)
        else:
            self._succeed()

    def _start_tls(self, proxy: Proxy | None) -> None:
        """Start TLS with `proxy`, or with the receiver if None."""
        self._stage = "no TLS handshake with" if proxy is None else "no TLS handshake with the proxy"
        place = self._route if proxy is None else proxy
        try:
            http2 = proxy is None and self._route.http2
            self._stream = self._tls_with(proxy).start(self._stream, place.host, place.port, http2=http2)
        except (ValueError, OSError) as error:
            self._no_tls(proxy, error)
            return
        self._watch(WRITE, partial(self._shaking, proxy))

    def _tls_with(self, proxy: Proxy | None) -> Tls:
        """The TLS with a proxy, or with the receiver if None."""
        return self._tls if proxy is None else self._connector.tls

    def _shaking(self, proxy: Proxy | None, _events: int) -> None:
        poller = self._connector.poller
        try:
            self._stream.do_handshake()
        except ssl.SSLWantReadError:
            poller.modify(self._stream.fileno(), READ)
        except ssl.SSLWantWriteError:
            poller.modify(self._stream.fileno(), WRITE)
        except OSError as error:
            self._no_tls(proxy, error)
        else:
            poller.unregister(self._stream.fileno())
            if proxy is not None:
                self._to_proxy()
                return
            if self._watcher is not None:
                self._watcher.secured(self._stream)
            self._succeed()

    def _no_tls(self, proxy: Proxy | None, error: Exception) -> None:
        place, reason = self._route if proxy is None else proxy, reason_of(error)
        self._tls_with(proxy).forget(place.host, place.port)
        self._end(errors.SSLError(reason) if proxy is None else errors.ProxyError(f"no TLS with the proxy: {reason}"))

    # The end.

    def _watch(self, events: int, handler: Callable[[int], None]) -> None:
        self._register(self._stream.fileno(), events, handler)

    def _register(self, fd: int, events: int, handler: Callable[[int], None]) -> None:
        self._connector.poller.register(fd, events, guarded(self.fail, handler))

    def fail(self, error: Exception) -> None:
        """End with a bug of this program."""
        self._end(unexpected(error, self._route.host))

    def _succeed(self) -> None:
        stream, self._stream = self._stream, None
        self._finish(stream)

    def _end(self, error: RequestException) -> None:
        done = self._done
        self.cancel()
        if done is not None:
            done(error)

    def _finish(self, stream: ByteStream) -> None:
        done, self._done = self._done, None
        self._connector.forget(self)
        if done is not None:
            done(stream)


class Connector:
    """Opens connections, after checking each address against the egress rule. Belongs to the poller's thread."""

    def __init__(
        self,
        poller: Poller,
        *,
        egress: EgressPolicy | None,
        tls: Tls,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Without an `egress` rule every address is allowed: a proxy enforces its own rule. `tls` is for proxies."""
        self.poller, self.tls, self.clock = poller, tls, clock
        self._egress = egress
        self._waiting: dict[Dial, None] = {}  # dials with another address to try
        self._timer = poller.timer(self._try_next)

    def dial(
        self,
        route: Route,
        addresses: Sequence[str],
        done: Callable[[ByteStream | RequestException], None],
        watcher: Watcher | None = None,
        tls: Tls | None = None,
    ) -> Dial:
        """Open a connection to one of `addresses`, with `tls`, or that of proxies. `done` may be called before it ends.

        `done` gets the stream or an error: EgressRefused if the rule allows no address, ConnectionError, ProxyError or
        SSLError.
        """
        scheme = "https" if route.tls else "http"
        allowed: list[str] = []
        refusals: list[str] = []
        for address in addresses:
            refusal = self._egress.refusal(scheme, address) if self._egress is not None else None
            (allowed if refusal is None else refusals).append(address if refusal is None else refusal)
        dial = Dial(self, route, alternated(allowed), done, watcher, tls or self.tls)
        if refusals and not allowed:
            done(EgressRefused(refusals[0]))
        else:
            dial.start()
        return dial

    def expect(self, dial: Dial) -> None:
        """Start the dial's next address at its `next_at`."""
        self._waiting.pop(dial, None)  # it may wait already, for an address that has been tried meanwhile
        self._waiting[dial] = None
        if self._timer.deadline is None:
            self._timer.deadline = dial.next_at

    def forget(self, dial: Dial) -> None:
        """Schedule no further address for the dial."""
        self._waiting.pop(dial, None)

    def close(self) -> None:
        """Try no more addresses."""
        self.poller.remove_timer(self._timer)

    def _try_next(self) -> None:
        now = self.clock()
        for dial in tuple(self._waiting):
            if dial.next_at is None:
                self._waiting.pop(dial, None)
            elif dial.next_at <= now:
                del self._waiting[dial]
                guarded(dial.fail, dial.start)()
        # All dials wait equally long, so the first in the dictionary is due first.
        self._timer.deadline = next((dial.next_at for dial in self._waiting if dial.next_at is not None), None)
