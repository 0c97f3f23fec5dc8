"""`requests` on the outside, libcurl's multi interface on the inside: one thread, ten thousand requests in flight.

HTTP/1.1 only: each request in flight has a connection of its own, so a receiver that stalls one holds up no other.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import inf
from typing import Any

import pycurl
import requests
from requests import PreparedRequest, RequestException
from requests import exceptions as errors
from requests.adapters import BaseAdapter

from consumer.sending.egress import EgressPolicy
from consumer.sending.header_lines import header_lines
from consumer.sending.poller import ERROR, HANGUP, READ, WRITE, Poller
from consumer.sending.resolver import Answer, Resolver, Unresolved
from consumer.sending.response import CurlResponse
from consumer.sending.transfer import (
    DNS_KEPT,
    Result,
    Slot,
    Transfer,
    bytes_of,
    ca_file,
    error_of,
    error_of_name,
    method_of,
    split_proxy,
    time_out_of,
)
from consumer.target import Target, parse_target

__all__ = ["CurlAdapter", "Result", "Transfer", "ca_file"]

_MAX_URLS = 10_000
# One request in so many has libcurl go through its DNS cache, to drop what is older. By itself it does so after each:
# 0.16 ms with 10,000 hosts in it, 3.5 ms with 50,000 (libcurl 8.23, a kept connection; 0.03 ms with one host).
_DNS_SWEEP = 10_000
_LARGE = 65_536  # bytes of a body that an idle handle does not keep


class CurlAdapter(BaseAdapter):
    """Sends prepared requests over connections that are kept. Belongs to the thread that turns the poller.

    A response whose final status line came in is a `Response`, whatever its body then does: it is cut at 64 KiB, at a
    time-out, at a reset. Redirects are returned, never followed. Else the result is an exception of `requests`:
    ConnectTimeout, ReadTimeout, SSLError, ProxyError, ConnectionError (a name that does not resolve, too), InvalidURL,
    InvalidHeader, or `EgressRefused`. Times are in seconds; `timeout` bounds the whole exchange, body included.
    With a `proxy` no name is resolved here and the egress rule is the proxy's. The environment's proxies are ignored.
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
        super().__init__()
        self.connections_opened = 0
        self._poller = poller
        self._policy = None if proxy else egress
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._proxy, self._proxy_user = split_proxy(proxy)
        self._clock = clock
        self._ca_file = ca_file()
        self._resolver = Resolver(poller, timeout=connect_timeout, servers=nameservers, clock=clock)
        self._targets: dict[str, Target] = {}
        self._pinned: dict[str, tuple[str, ...]] = {}  # "host:port" → addresses in libcurl's DNS cache
        self._until_sweep = inf if proxy else _DNS_SWEEP  # the proxy's own name is all that libcurl then looks up
        self._open: set[Transfer] = set()
        self._slots: dict[pycurl.Curl, Slot] = {}
        self._free: list[Slot] = []
        self._running = 0  # transfers that libcurl has not finished
        self._collecting = False
        self._closed = False
        self._watched: set[int] = set()
        self._timer = poller.timer(self._on_deadline)
        self._unjudged: dict[Transfer, float] = {}  # until when, of those whose time libcurl does not judge any more
        # By what is posted: after what this turn has finished was collected.
        self._judge = poller.timer(lambda: poller.post(self._on_judgement))
        poller.on_gap(self._on_gap)
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)
        self._multi.setopt(pycurl.M_MAXCONNECTS, max_connections)

    @property
    def in_flight(self) -> int:
        """Requests submitted whose callback has not run yet."""
        return len(self._open)

    def submit(
        self, request: PreparedRequest, callback: Callable[[Result], None], *, timeout: float | None = None
    ) -> Transfer:
        """Start sending; `callback(result)` runs in a later callback of the poller, never inside this call.

        `timeout` replaces the adapter's for this request. What `callback` raises is a bug that `Poller.turn` raises
        once every other transfer of that turn has been handled.
        """
        transfer = Transfer(request, callback, timeout)
        self._open.add(transfer)
        try:
            target = self._target(request.url)
            if target.address is not None or self._proxy:
                self._start(transfer, target, None)
                return transfer
            answer = self._resolver.cached(target.host)
            if answer is None:
                asked = self._clock()
                self._resolver.resolve(target.host, partial(self._on_resolved, transfer, target, asked))
            elif isinstance(answer, Unresolved):
                self._fail_later(transfer, error_of_name(answer, request))
            else:
                self._start(transfer, target, answer)
        except RequestException as error:
            error.request = request
            self._fail_later(transfer, error)
        return transfer

    def cancel(self, transfer: Transfer) -> None:
        """Drop a transfer in any state: its callback does not run. The connection it uses is closed."""
        transfer.callback = None
        self._open.discard(transfer)
        slot = transfer.slot
        if slot is not None:
            transfer.slot = None
            self._multi.remove_handle(slot.curl)
            self._running -= 1
            if slot.pinned is not None:  # perhaps not loaded yet
                self._pinned.pop(slot.pinned, None)
            self._release(slot)

    def send(
        self,
        request: PreparedRequest,
        stream: bool = False,  # noqa: FBT001, FBT002 (requests' signature)
        timeout: float | tuple[float | None, float | None] | None = None,
        verify: bool | str = True,  # noqa: FBT001, FBT002 (requests' signature)
        cert: Any = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """Send and wait, turning the poller; not from inside one of its callbacks.

        Certificates are always verified; proxies and client certificates given here are ignored, as is `stream`.
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

    def close(self) -> None:
        """Cancel every transfer and close every connection. Idempotent."""
        if self._closed:
            return
        self._closed = True
        for transfer in tuple(self._open):
            self.cancel(transfer)
        self._resolver.close()
        self._multi.close()
        for fd in tuple(self._watched):
            self._poller.unregister(fd)
        self._poller.remove_timer(self._timer)
        self._poller.remove_timer(self._judge)
        for slot in self._slots.values():
            slot.curl.close()

    # Starting.

    def _target(self, url: str | None) -> Target:
        target = self._targets.get(url or "")
        if target is None:
            try:
                target = parse_target(url or "")
            except ValueError as error:
                raise errors.InvalidURL(str(error)) from None
            if len(self._targets) >= _MAX_URLS:
                self._targets.clear()
            self._targets[url or ""] = target
        return target

    def _on_resolved(self, transfer: Transfer, target: Target, asked: float, answer: Answer) -> None:
        if transfer.callback is None:
            return
        if isinstance(answer, Unresolved):
            self._finish(transfer, error_of_name(answer, transfer.request))
            return
        limit = self._timeout if transfer.timeout is None else transfer.timeout
        transfer.timeout = limit - (self._clock() - asked)
        try:
            self._start(transfer, target, answer)
        except RequestException as error:
            error.request = transfer.request
            self._finish(transfer, error)

    def _start(self, transfer: Transfer, target: Target, addresses: tuple[str, ...] | None) -> None:
        request = transfer.request
        lines = header_lines(request.headers)
        body, method = bytes_of(request), method_of(request)
        slot = self._free.pop() if self._free else self._new_slot()
        curl = slot.curl
        if slot.url != request.url:
            curl.setopt(pycurl.URL, request.url)
            slot.url, slot.scheme = request.url or "", target.scheme
        if slot.method != method:
            curl.setopt(pycurl.CUSTOMREQUEST, method)
            slot.method = method
        timeout = self._timeout if transfer.timeout is None else transfer.timeout
        milliseconds = max(1, int(timeout * 1000))
        slot.limit(milliseconds)
        if addresses is not None:
            self._pin(slot, target, addresses)
        curl.setopt(pycurl.HTTPHEADER, lines)
        curl.setopt(pycurl.POSTFIELDS, body)
        slot.large = len(body) > _LARGE
        self._until_sweep -= 1
        if self._until_sweep <= 0:
            self._until_sweep = _DNS_SWEEP
            curl.setopt(pycurl.DNS_CACHE_TIMEOUT, DNS_KEPT)
            slot.sweeps = True
        slot.transfer = transfer
        transfer.slot = slot
        self._running += 1
        self._multi.add_handle(curl)

    def _pin(self, slot: Slot, target: Target, addresses: tuple[str, ...]) -> None:
        """Load an answer of the resolver, once, into libcurl's DNS cache, which all handles of a multi handle share.

        A later answer takes its place; without one it goes with a sweep.
        """
        key = f"{target.host}:{target.port}"
        if self._pinned.get(key) is not addresses:
            if len(self._pinned) >= _MAX_URLS:
                self._pinned.clear()
            self._pinned[key] = addresses
            hosts = ",".join(f"[{address}]" if ":" in address else address for address in addresses)
            slot.curl.setopt(pycurl.RESOLVE, [f"+{key}:{hosts}"])  # +: not for ever
            slot.pinned = key

    def _new_slot(self) -> Slot:
        slot = Slot(self._policy, self._on_socket_opened)
        slot.set_up(
            connect_timeout=self._connect_timeout,
            proxy=self._proxy,
            proxy_user=self._proxy_user,
            ca_file=self._ca_file,
        )
        self._slots[slot.curl] = slot
        return slot

    def _on_socket_opened(self, fault: Exception | None) -> None:
        if fault is None:
            self.connections_opened += 1
        else:
            self._poller.post(partial(_raise, fault))

    # Moving: what libcurl asks for, and what it is told.

    def _watch(self, what: int, fd: int, _multi: Any, _data: Any) -> None:
        """M_SOCKETFUNCTION."""
        try:
            if what == pycurl.POLL_REMOVE:
                self._watched.discard(fd)
                self._poller.unregister(fd)
                return
            events = (READ if what & pycurl.POLL_IN else 0) | (WRITE if what & pycurl.POLL_OUT else 0)
            if fd in self._watched:
                try:
                    self._poller.modify(fd, events)
                except FileNotFoundError:
                    self._poller.unregister(fd)  # closed, and opened again under the same number
                else:
                    return
            self._watched.add(fd)
            self._poller.register(fd, events, partial(self._on_ready, fd))
        except Exception as error:  # noqa: BLE001 (libcurl's frames are no place for it; the turn raises it)
            self._poller.post(partial(_raise, error))

    def _set_timer(self, milliseconds: int) -> None:
        """M_TIMERFUNCTION."""
        if milliseconds > 0:
            self._timer.deadline = self._clock() + milliseconds / 1000
        else:
            self._timer.deadline = None if milliseconds else 0.0  # long due

    def _on_ready(self, fd: int, events: int) -> None:
        mask = pycurl.CSELECT_IN if events & (READ | HANGUP) else 0
        if events & (WRITE | ERROR):
            mask |= (pycurl.CSELECT_OUT if events & WRITE else 0) | (pycurl.CSELECT_ERR if events & ERROR else 0)
        self._note(self._multi.socket_action(fd, mask)[1])

    def _on_deadline(self) -> None:
        self._note(self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)[1])

    def _on_gap(self) -> None:
        """Nothing was read for a while. libcurl looks at the time before it reads, and would call late what has come.

        So it looks no more, for these: each has its time once more, which the poller's timer ends, after it has read.
        """
        now = self._clock()
        for slot in self._slots.values():
            if (transfer := slot.transfer) is not None:
                slot.limit(0)
                limit = self._timeout if transfer.timeout is None else transfer.timeout
                self._unjudged.setdefault(transfer, now + max(limit, 0.0))
        self._judge.deadline = min(self._unjudged.values(), default=None)

    def _on_judgement(self) -> None:
        now = self._clock()
        for transfer, until in tuple(self._unjudged.items()):
            slot = transfer.slot
            if slot is None:
                del self._unjudged[transfer]
            elif until <= now:
                del self._unjudged[transfer]
                _, result = self._take(slot, (pycurl.E_OPERATION_TIMEDOUT, time_out_of(slot)))
                self._poller.post(partial(self._finish, transfer, result))
        self._judge.deadline = min(self._unjudged.values(), default=None)

    def _note(self, running: int) -> None:
        if running != self._running and not self._collecting:
            self._collecting = True
            self._poller.post(self._collect)

    # Finishing.

    def _collect(self) -> None:
        """Hand over what libcurl has finished: first make every slot free, then run the callbacks."""
        self._collecting = False
        finished: list[tuple[Transfer, Result]] = []
        left = 1
        while left:
            left, good, bad = self._multi.info_read()
            finished += [self._take(self._slots[curl], None) for curl in good]
            finished += [self._take(self._slots[curl], (code, message)) for curl, code, message in bad]
        faults: list[Exception] = []
        for transfer, result in finished:
            try:
                self._finish(transfer, result)
            except Exception as error:  # noqa: BLE001 (raised below, when all have run)
                faults.append(error)
        if faults:
            raise faults[0] if len(faults) == 1 else ExceptionGroup("several callbacks failed", faults)

    def _take(self, slot: Slot, failure: tuple[int, str] | None) -> tuple[Transfer, Result]:
        transfer = slot.transfer
        assert transfer is not None  # noqa: S101 (a handle is in the multi handle only while it carries one)
        self._running -= 1
        status = slot.curl.getinfo(pycurl.RESPONSE_CODE)
        result: Result
        if failure is None or (slot.lines and status >= 200):  # noqa: PLR2004 (below: interim answers)
            seconds = slot.curl.getinfo(pycurl.TOTAL_TIME)
            result = CurlResponse(transfer.request, status, slot.lines[:], b"".join(slot.body), seconds)
        else:
            result = error_of(slot, *failure)
        self._multi.remove_handle(slot.curl)
        transfer.slot = None
        transfer.connected = slot.opened and slot.scheme == "https"
        self._release(slot)
        return transfer, result

    def _release(self, slot: Slot) -> None:
        if slot.pinned is not None:
            slot.pinned = None
            slot.curl.unsetopt(pycurl.RESOLVE)  # setopt ignores an empty list; a later transfer would load this one
        if slot.sweeps:
            slot.sweeps = False
            slot.curl.setopt(pycurl.DNS_CACHE_TIMEOUT, -1)
        if slot.large:
            slot.large = False
            slot.curl.setopt(pycurl.POSTFIELDS, b"")  # pycurl refers to the last body until the next one
        slot.release()
        self._free.append(slot)

    def _finish(self, transfer: Transfer, result: Result) -> None:
        callback = transfer.callback
        if callback is not None:
            transfer.callback = None
            self._open.discard(transfer)
            callback(result)

    def _fail_later(self, transfer: Transfer, error: RequestException) -> None:
        self._poller.post(partial(self._finish, transfer, error))


def _raise(error: Exception) -> None:
    raise error
