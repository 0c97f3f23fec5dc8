"""Opens connections: resolves the name, tries the addresses that the egress rule allows, then a proxy tunnel and TLS.

Only this module opens sockets to receivers, and it connects to the very address that the egress rule judged.
"""

import errno
import os
import re
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import lru_cache, partial
from typing import Any

from requests import RequestException
from requests import exceptions as errors

from consumer.errors import EgressRefused
from consumer.http.urls import Proxy, place_of
from consumer.loop.part import guarded
from consumer.loop.poller import READ, WRITE, Poller
from consumer.sending.dns import Resolution, Resolver, Unresolved, alternated
from consumer.sending.egress import EgressPolicy
from consumer.sending.route import Place
from consumer.sending.tls import NOT_NOW, PIECE, ByteStream, Tls, TlsContexts, TlsStream, reason_of
from consumer.sending.trace import Recorder
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
_TUNNEL_HEAD = 16_384  # bytes of a proxy's answer, interim answers included
_TUNNEL_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})(?: [^\r\n]*)?(?:\r\n|\Z)")
_INTERIM = frozenset((100, *range(102, 200)))  # without 101: the bytes after it are not HTTP
_OPEN = range(200, 300)
_UNDER_WAY = {0, errno.EINPROGRESS}
_JUDGED = 10_000  # addresses whose judgement is kept


class Dial:
    """A connection being opened, as the stage of a transfer.

    `done` gets the stream, or an error: EgressRefused if the rule allows no address, ConnectionError, ConnectTimeout,
    ProxyError or SSLError. After that `cancel` does nothing.
    """

    exchanging = False

    def __init__(
        self,
        connector: "Connector",
        place: Place,
        done: Callable[[ByteStream | RequestException], None],
        spend: Callable[[float], None] = lambda _: None,
    ) -> None:
        """`spend` gets the seconds of CPU that the handshake takes."""
        self._connector = connector
        self._place, self._route = place, place.route
        self._spend = spend
        self._done: Callable[[ByteStream | RequestException], None] | None = done
        self._tls = connector.tls  # with the receiver
        self._addresses: deque[str] = deque()
        self._attempts: dict[socket.socket, str] = {}  # socket → address
        self._error: RequestException | None = None
        self.next_at: float | None = None  # when the next address is due
        self._peer = ""
        self._stream: Any = None  # the connected socket or TLS stream, registered in the later stages
        self._stage = ""
        self._todo = b""

    def late(self) -> str:
        """The text of the connect time-out: the stage and its peers."""
        peers = ", ".join(self._attempts.values()) or self._peer
        return f"{self._stage} {peers}" if peers else self._stage

    def cancel(self) -> None:
        """Close all sockets; `done` is not called."""
        self._done = None
        self.next_at = None
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

    # Certificates and addresses.

    def start(self) -> None:
        """Begin; `done` may be called before this call returns."""
        if self._route.identity is None:
            self._look_up()
        else:
            self._stage = "the subscription's certificates were not read"
            self._connector.contexts.of(self._route.identity, guarded(self.fail, self._on_context))

    def _on_context(self, made: Future[Tls]) -> None:
        if self._done is None:
            return
        try:
            self._tls = made.result()
        except ValueError as error:
            self._end(errors.SSLError(str(error)))
        else:
            self._look_up()

    def _look_up(self) -> None:
        host, _ = self._route.first
        self._stage = f"no address for {host}"
        literal, resolver = self._place.address, self._connector.resolver
        answer: Resolution | None = (literal,) if literal is not None else resolver.cached(host)
        if answer is None:
            resolver.resolve(host, guarded(self.fail, self._on_resolved))
        else:
            self._on_resolved(answer)

    def _on_resolved(self, answer: Resolution) -> None:
        if self._done is None:
            return
        proxy = self._route.proxy
        if isinstance(answer, Unresolved):
            kind = errors.ConnectionError if proxy is None else errors.ProxyError
            self._end((errors.ConnectTimeout if answer.timed_out else kind)(answer.text))
            return
        if self._connector.recorder is not None:
            self._connector.recorder.resolved(self._route.first[0], answer)
        self._stage = "no connection to" if proxy is None else "no connection to the proxy"
        refusals = [self._connector.refusal(self._route.tls, address) for address in answer]
        allowed = [address for address, why in zip(answer, refusals, strict=True) if why is None]
        self._addresses.extend(alternated(allowed) if len(allowed) > 1 else allowed)
        if not allowed and refusals:
            self._end(EgressRefused(refusals[0]))
        else:
            self.try_next()

    # TCP.

    def try_next(self) -> None:
        """Try the next address; if it fails at once, go on to the one after."""
        self.next_at = None
        while self._addresses:
            if len(self._attempts) == _ATTEMPTS:
                self._drop(next(iter(self._attempts)))
            address = self._addresses.popleft()
            fault = self._try(address)
            if fault is None:
                if self._addresses:
                    self.next_at = self._connector.clock() + _ATTEMPT_DELAY
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
                self.try_next()
            return
        for other in tuple(self._attempts):
            self._drop(other)
        self._addresses.clear()
        self.next_at = None
        self._peer = address
        self._stream = attempt
        if self._connector.recorder is not None:
            self._connector.recorder.connected(address, self._route.first[1])
        proxy = self._route.proxy
        if proxy is not None and proxy.tls:
            self._start_tls(proxy)
        else:
            self._on_peer()

    def _on_peer(self) -> None:
        """The receiver is reached, or the proxy."""
        proxy = self._route.proxy
        if not self._route.tls:
            self._succeed()
        elif proxy is None:
            self._start_tls(None)
        else:
            self._stage = "no answer to CONNECT from the proxy"
            self._todo = proxy.connect(self._route.host, self._route.port)
            self._register(self._stream.fileno(), READ | WRITE, partial(self._tunnelling, TunnelReader()))

    def _tunnelling(self, tunnel: "TunnelReader", events: int) -> None:
        try:
            if self._todo and events & WRITE:
                self._todo = self._todo[self._stream.send(self._todo) :]
                if not self._todo:
                    self._connector.poller.modify(self._stream.fileno(), READ)
            is_open, may_hold_more = False, bool(events & ~WRITE)
            while may_hold_more and not is_open:
                is_open = tunnel.feed(self._stream.recv(PIECE))
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
            if isinstance(self._stream, TlsStream):
                self._stream.keep_session()
            self._peer = f"{self._route.host} through the proxy"
            self._start_tls(None)

    # TLS.

    def _start_tls(self, proxy: Proxy | None) -> None:
        """Start TLS with `proxy`, or with the receiver if None."""
        place, recorder = proxy or self._route, self._connector.recorder
        self._stage = "no TLS handshake with" if proxy is None else "no TLS handshake with the proxy"
        tls = self._tls if proxy is None else self._connector.tls
        try:
            http2 = proxy is None and self._route.http2
            shown = recorder.shown if recorder is not None and proxy is None else None
            self._stream = tls.start(self._stream, place.host, place.port, http2=http2, shown=shown)
        except (ValueError, OSError) as error:
            self._no_tls(proxy, error)
            return
        self._register(self._stream.fileno(), WRITE, partial(self._shaking, proxy))

    def _shaking(self, proxy: Proxy | None, _events: int) -> None:
        poller, began = self._connector.poller, time.thread_time()
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
                self._on_peer()
                return
            if self._connector.recorder is not None:
                self._connector.recorder.step("tls")
            self._succeed()
        finally:
            self._spend(time.thread_time() - began)

    def _no_tls(self, proxy: Proxy | None, error: Exception) -> None:
        reason = reason_of(error)
        self._end(errors.SSLError(reason) if proxy is None else errors.ProxyError(f"no TLS with the proxy: {reason}"))

    # The end.

    def _register(self, fd: int, events: int, handler: Callable[[int], None]) -> None:
        self._connector.poller.register(fd, events, guarded(self.fail, handler))

    def fail(self, error: Exception) -> None:
        """End with a bug of this program."""
        self._end(unexpected(error, self._route.host))

    def _succeed(self) -> None:
        stream, self._stream = self._stream, None
        self._end(stream)

    def _end(self, result: ByteStream | RequestException) -> None:
        done = self._done
        self.cancel()
        if done is not None:
            done(result)


def _refusal(egress: EgressPolicy | None, tls: bool, address: str) -> str | None:  # noqa: FBT001 (a key of a cache)
    return None if egress is None else egress.refusal("https" if tls else "http", address)


class NoTunnel(Exception):
    """The proxy opened no tunnel; the text says why."""


class TunnelReader:
    """Parses a proxy's answers until the tunnel is open."""

    def __init__(self) -> None:
        self._head = b""
        self._seen = 0

    def feed(self, data: bytes) -> bool:
        """Parse `data`, which is empty at the end of the connection. True once the tunnel is open. Raises NoTunnel."""
        self._seen += len(data)
        self._head += data
        while True:
            head, end, rest = self._head.partition(b"\r\n\r\n")
            if not end and data and self._seen < _TUNNEL_HEAD:
                return False
            line = _TUNNEL_LINE.match(head) if end else None
            if line is None:
                what = "gave no HTTP answer to CONNECT" if self._head else "closed the connection"
                raise NoTunnel(f"the proxy {what}")
            status = int(line[1])
            if status not in _INTERIM:
                break
            self._head = rest
        if status not in _OPEN:
            raise NoTunnel(f"the proxy answered CONNECT with status {status}")
        if rest:
            raise NoTunnel("the proxy sent more than an answer to CONNECT")
        return True


class Connector:
    """Opens connections. Belongs to the poller's thread. `recorder` is told their steps."""

    def __init__(
        self,
        poller: Poller,
        *,
        egress: EgressPolicy | None,
        timeout: float,
        nameservers: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Without an `egress` rule every address is allowed: a proxy enforces its own. `timeout`: of a name server."""
        self.poller, self.clock = poller, clock
        self.tls, self.contexts = Tls(), TlsContexts(poller.post)
        self.resolver = Resolver(poller, timeout=timeout, servers=nameservers, clock=clock)
        self.recorder: Recorder | None = None
        # Why no connection to an address may be opened, by TLS or not; None if it is allowed. The rule is pure, and to
        # parse and judge an address takes as long as all else here.
        self.refusal: Callable[[bool, str], str | None] = lru_cache(_JUDGED)(partial(_refusal, egress))
        self._waiting: dict[Dial, None] = {}  # dials with another address to try
        self._timer = poller.timer(self._try_next)

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
        """Open no more connections."""
        self.poller.remove_timer(self._timer)
        self.resolver.close()
        self.contexts.close()

    def _try_next(self) -> None:
        now = self.clock()
        for dial in tuple(self._waiting):
            if dial.next_at is None:
                del self._waiting[dial]
            elif dial.next_at <= now:
                del self._waiting[dial]
                guarded(dial.fail, dial.try_next)()
        # All dials wait equally long, so the first in the dictionary is due first.
        self._timer.deadline = next((dial.next_at for dial in self._waiting if dial.next_at is not None), None)
