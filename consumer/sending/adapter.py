"""An adapter of `requests` over non-blocking sockets: one thread handles ten thousand requests in flight.

With HTTP/1.1 each request in flight has its own connection, so a stalled request holds up no other. Requests for
HTTP/2 share connections (`http2_sharing.py`).
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import requests
from requests import PreparedRequest, RequestException
from requests import exceptions as errors
from requests.adapters import BaseAdapter

from consumer.crypto.certificates import TlsIdentity
from consumer.errors import NoDescriptor, NotAuthorized
from consumer.http.urls import parse_proxy
from consumer.loop.part import guarded
from consumer.loop.poller import Poller
from consumer.sending.answer import Answer
from consumer.sending.connection import Connection
from consumer.sending.connector import Connector, Dial
from consumer.sending.egress import EgressPolicy
from consumer.sending.exchange import LazyResponse, SignedRequest
from consumer.sending.oauth2 import Tokens
from consumer.sending.pool import NO_DESCRIPTOR, SWEEP, Pool, Reusable, none_left
from consumer.sending.request import message
from consumer.sending.route import Place, Route, placed
from consumer.sending.tls import ByteStream
from consumer.sending.trace import ExchangeTrace, Recorder
from consumer.sending.transfer import Result, Stage, Transfer, unexpected

if TYPE_CHECKING:
    from consumer.sending.http2_sharing import Sharing  # needs the extra `http2`

_FREED = 16  # idle connections closed for a request that finds no descriptor
_TICK = 0.05  # seconds between two checks for late transfers
_BEHIND = 1.0  # seconds by which reading may lag before time-outs are judged all the same


class LoopAdapter(BaseAdapter):
    """Sends prepared requests over kept-alive connections. Belongs to the thread that turns the poller.

    Once the final status line has arrived, the result is a `Response`; its body is cut at 64 KiB, a time-out or a
    reset. Redirects are returned, never followed. Any other result is an exception of `requests`: ConnectTimeout,
    ReadTimeout, SSLError, ProxyError, ConnectionError (also for a name that does not resolve), InvalidURL,
    InvalidHeader, or `EgressRefused`. Times are in seconds; `timeout` bounds the whole exchange, body included.
    With a `proxy`, only the proxy's own name is resolved here, and the proxy enforces its own egress rule. Proxy
    settings of the environment are ignored. `max_connections` limits open connections, idle ones included; it is
    exceeded only while more requests than that are open.
    """

    def __init__(
        self,
        poller: Poller,
        *,
        egress: EgressPolicy,
        timeout: float,
        connect_timeout: float,
        max_connections: int,
        proxy: str = "",
        clock: Callable[[], float] = time.monotonic,
        nameservers: Sequence[str] = (),
    ) -> None:
        """Raises ValueError for an invalid `proxy` URL."""
        super().__init__()
        self.connections_opened = 0
        self._poller = poller
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._proxy = parse_proxy(proxy) if proxy else None
        self._clock = clock
        self._connector = Connector(
            poller, egress=None if proxy else egress, timeout=connect_timeout, nameservers=nameservers, clock=clock
        )
        self._most = max_connections
        self._pool = Pool(max_connections)
        self._tokens = Tokens(self.fetch, self._authorized, poller.post, clock)
        self._sharing: Sharing | None = None  # made for the first request by HTTP/2
        self._open: dict[Transfer, None] = {}
        self._closed = False
        self._judge = poller.timer(self._on_judgement)
        self._sweep = poller.timer(self._on_sweep)
        poller.on_gap(self._on_gap)

    @property
    def in_flight(self) -> int:
        """Requests submitted whose callback has not run yet."""
        return len(self._open)

    def submit(
        self, request: PreparedRequest, callback: Callable[[Result], None], *, timeout: float | None = None
    ) -> Transfer:
        """Start sending; `callback(result)` runs in a later callback of the poller, never inside this call.

        `timeout` replaces the adapter's for this request. An exception from `callback` is a bug; `Poller.turn` raises
        it after the other callbacks of that turn have run.
        """
        now = self._clock()
        transfer = Transfer(request, callback, now, self._timeout if timeout is None else timeout)
        self._open[transfer] = None
        try:
            if isinstance(request, SignedRequest):
                transfer.identity = request.template.tls
                if request.template.oauth2 is not None:
                    self._expect(transfer.deadline)
                    self._tokens.authorize(transfer, request.template.oauth2)
                    return transfer
            self._start(transfer, now)
        except Exception:  # a bug: the caller gets the exception, so the callback must not run as well
            self.cancel(transfer)
            raise
        return transfer

    def fetch(self, request: PreparedRequest, identity: TlsIdentity | None, callback: Callable[[Result], None]) -> None:
        """Start sending a request for a token, whose time limit is the adapter's own."""
        now = self._clock()
        transfer = Transfer(request, callback, now, self._timeout, identity)
        self._open[transfer] = None
        self._contained(transfer, self._start)(transfer, now)

    def cancel(self, transfer: Transfer) -> None:
        """Drop a transfer in any state: its callback does not run. The connection it uses is closed."""
        transfer.callback = None
        self._open.pop(transfer, None)
        stage, transfer.stage = transfer.stage, None
        transfer.head = transfer.body = b""
        if stage is not None:
            stage.cancel()

    def send(
        self,
        request: PreparedRequest,
        stream: bool = False,  # noqa: FBT001, FBT002 (requests' signature)
        timeout: float | tuple[float | None, float | None] | None = None,
        verify: bool | str = True,  # noqa: FBT001, FBT002 (requests' signature)
        cert: Any = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """Send and wait, turning the poller; must not be called from a callback of the poller.

        Certificates are always verified; `stream`, `proxies` and `cert` are ignored.
        """
        del stream, verify, cert, proxies
        limit = timeout[1] if isinstance(timeout, tuple) else timeout
        results: list[Result] = []
        transfer = self.submit(request, results.append, timeout=limit)
        try:
            while not results:
                self._poller.turn(1.0)
        finally:
            self.cancel(transfer)
        if isinstance(results[0], RequestException):
            raise results[0]
        results[0].connection = self  # type: ignore[assignment]  # requests.auth plug-ins answer a challenge through it
        return results[0]

    def exchange(self, request: PreparedRequest, timeout: float | None) -> tuple[Result, ExchangeTrace]:
        """Send and wait, as `send` does, and record the exchange. Its result may be an exception of requests."""
        recorder = self._connector.recorder = Recorder(self._clock)
        try:
            result: Result = self.send(request, timeout=timeout)
        except RequestException as error:
            result = error
        else:
            recorder.step("answer")
        recorder.ended()
        return result, recorder.trace

    def close(self) -> None:
        """Cancel every transfer and close every connection. Idempotent."""
        if self._closed:
            return
        self._closed = True
        for transfer in tuple(self._open):
            self.cancel(transfer)
        self._pool.close()
        self._connector.close()
        if self._sharing is not None:
            self._sharing.close()
        self._poller.remove_timer(self._judge)
        self._poller.remove_timer(self._sweep)

    # Starting.

    def _start(self, transfer: Transfer, now: float) -> None:
        try:
            place = self._place(transfer)
            transfer.head, transfer.body = message(transfer.request, place)
        except RequestException as error:
            self.failed(transfer, error)
            return
        if self._judge.deadline is None or transfer.deadline < self._judge.deadline:
            self._judge.deadline = transfer.deadline
        if place.route.http2:
            self._shared().carry(transfer, place.route)
            return
        connection = self._pool.take(place.route, now, self._poller.served_at, self._most - len(self._open))
        if isinstance(connection, Connection):
            connection.carry(transfer)
        else:
            self._connect(transfer, place.route)

    def _place(self, transfer: Transfer) -> Place:
        request, url, http2 = transfer.request, transfer.request.url, False
        if isinstance(request, SignedRequest):  # all events share the place of a URL with expressions
            url, http2 = request.template.request.url, request.template.http2
        try:
            return placed(url or "", transfer.identity, self._proxy, http2)
        except ValueError as error:
            raise errors.InvalidURL(str(error)) from None

    def _shared(self) -> "Sharing":
        if self._sharing is None:
            from consumer.sending.http2_sharing import Sharing  # noqa: PLC0415 (an extra)

            self._sharing = Sharing(self, self._poller, self._pool, self._clock)
        return self._sharing

    def _authorized(self, transfer: Transfer, found: str | NotAuthorized) -> None:
        """Start the transfer with its access token."""
        self._contained(transfer, self._start_with)(transfer, found)

    def _start_with(self, transfer: Transfer, found: str | NotAuthorized) -> None:
        if isinstance(found, NotAuthorized):
            self.failed(transfer, self._cause_of(found))
        elif isinstance(transfer.request, SignedRequest):
            transfer.request.authorize(found)
            self._start(transfer, self._clock())

    # Opening a connection.

    def await_connection(self, transfer: Transfer) -> None:
        """Start the transfer's connect time-out."""
        transfer.connect_by = min(transfer.deadline, self._clock() + self._connect_timeout)
        self._expect(transfer.connect_by)

    def dial(self, transfer: Transfer, done: Callable[[Any], None]) -> Dial:
        """A connection for the transfer, to be started. `done` gets the stream or the error."""
        self.await_connection(transfer)
        if len(self._open) + len(self._pool) > self._most:
            self._pool.make_room()
        place = self._place(transfer)
        route = place.route
        transfer.connected = route.tls or (route.proxy is not None and route.proxy.tls)
        return Dial(self._connector, place, self._contained(transfer, partial(self._on_dialled, done)), transfer.spend)

    def _on_dialled(self, done: Callable[[Any], None], result: ByteStream | RequestException) -> None:
        if isinstance(result, RequestException):
            result = self._cause_of(result)
        else:
            self.connections_opened += 1
        done(result)

    def _cause_of(self, error: RequestException) -> RequestException:
        """The error, unless this process lacks a descriptor: then that is the cause, and some are freed."""
        if not none_left():
            return error
        for _ in range(_FREED):
            self._pool.make_room()
        return NoDescriptor(NO_DESCRIPTOR)

    def _on_connected(self, transfer: Transfer, route: Route, result: ByteStream | RequestException) -> None:
        if isinstance(result, RequestException):
            self.failed(transfer, result)
        elif route.http2:
            self._shared().connected(transfer, route, result)
        else:
            Connection(self, self._poller, result, route, self._clock()).carry(transfer)

    # Called by connections.

    def answered(self, connection: Any, transfer: Transfer, answer: Answer) -> None:
        """Return the connection to the pool if the answer allows it, and hand over the response."""
        if answer.keep:
            self.keep(connection)
        grant = transfer.grant
        if grant is not None and answer.status == HTTPStatus.UNAUTHORIZED:
            transfer.connect_by = transfer.deadline
            if self._tokens.renew(grant):
                return
        self._end(transfer, LazyResponse(transfer.request, answer))

    def keep(self, connection: Reusable) -> None:
        """Put an idle connection into the pool."""
        now = self._clock()
        self._pool.put(connection, now)
        if self._sweep.deadline is None:
            self._sweep.deadline = now + SWEEP

    def failed(self, transfer: Transfer, error: RequestException) -> None:
        """Hand over the error."""
        error.request = transfer.request
        self._end(transfer, error)

    def unused(self, transfer: Transfer) -> None:
        """Send the transfer over a new connection."""
        self._connect(transfer, self._place(transfer).route)

    def _connect(self, transfer: Transfer, route: Route) -> None:
        dial = transfer.stage = self.dial(transfer, partial(self._on_connected, transfer, route))
        dial.start()

    def left(self, connection: Connection) -> None:
        """Drop the connection from the pool."""
        self._pool.drop(connection)

    def _contained(self, transfer: Transfer, step: Callable[..., None]) -> Callable[..., None]:
        """Wrap a later step of the transfer: an unexpected exception fails the transfer, and the worker goes on."""
        return guarded(partial(self._on_bug, transfer), step)

    def _on_bug(self, transfer: Transfer, error: Exception) -> None:
        if transfer.stage is not None:
            transfer.stage.cancel()
        self.failed(transfer, unexpected(error))

    # Handing over results.

    def _end(self, transfer: Transfer, result: Result) -> None:
        transfer.stage = None
        transfer.head = transfer.body = b""
        self._poller.soon(partial(self._hand_over, transfer, result))

    def _hand_over(self, transfer: Transfer, result: Result) -> None:
        callback, transfer.callback = transfer.callback, None
        if callback is not None:
            del self._open[transfer]
            callback(result)

    # Time.

    def _expect(self, due: float) -> None:
        if self._judge.deadline is None or due < self._judge.deadline:
            self._judge.deadline = due

    def _on_judgement(self) -> None:
        """Time out transfers that were late when all that had arrived was read; in a flood, a little later."""
        now = max(self._poller.served_at, self._clock() - _BEHIND)
        following = now + self._timeout
        for transfer in tuple(self._open):
            stage = transfer.stage
            due = transfer.deadline if stage is not None and stage.exchanging else transfer.connect_by
            if due > now:
                following = min(following, due)
            elif stage is not None:  # else the transfer has ended and waits for its callback
                self._contained(transfer, self._late)(transfer, stage)
        self._judge.deadline = max(following, self._clock() + _TICK) if self._open else None

    def _late(self, transfer: Transfer, stage: Stage) -> None:
        result = stage.late()
        stage.cancel()
        if isinstance(result, Answer):
            self._end(transfer, LazyResponse(transfer.request, result))
        elif stage.exchanging:
            self.failed(transfer, errors.ReadTimeout(f"{result} within {transfer.limit:g} s"))
        else:
            limit = transfer.limit if transfer.connect_by == transfer.deadline else self._connect_timeout
            self.failed(transfer, errors.ConnectTimeout(f"{result} within {limit:g} s"))

    def _on_gap(self) -> None:
        """Restart the time limit of each open transfer, once: the loop stood still and read nothing."""
        now = self._clock()
        for transfer in self._open:
            if not transfer.again:
                transfer.again = True
                transfer.deadline = now + transfer.limit
                transfer.connect_by = min(transfer.deadline, now + self._connect_timeout)

    def _on_sweep(self) -> None:
        now = self._clock()
        self._pool.expire(now)
        self._sweep.deadline = now + SWEEP if len(self._pool) else None
