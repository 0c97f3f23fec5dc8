"""The least that sending costs: libcurl's multi interface on epoll, signed bodies, no Kafka, no database, no retries.

python bare_loop.py URL REQUESTS CONCURRENCY
"""

import hmac
import json
import select
import sys
import time
from collections.abc import Iterator
from typing import Any

import pycurl

from benchmarks.events import event


class Loop:
    """libcurl says which sockets and which timer it waits for; epoll waits; libcurl moves the bytes."""

    def __init__(self, connections: int) -> None:
        self.epoll, self.multi, self.known = select.epoll(), pycurl.CurlMulti(), set[int]()
        self.deadline: float | None = None
        self.multi.setopt(pycurl.M_SOCKETFUNCTION, self._socket)
        self.multi.setopt(pycurl.M_TIMERFUNCTION, self._timer)
        self.multi.setopt(pycurl.M_MAXCONNECTS, connections)

    def _socket(self, what: int, fd: int, _multi: Any, _data: Any) -> None:
        if what == pycurl.POLL_REMOVE:
            self.known.discard(fd)
            self.epoll.unregister(fd)
            return
        mask = (select.EPOLLIN if what & pycurl.POLL_IN else 0) | (select.EPOLLOUT if what & pycurl.POLL_OUT else 0)
        if fd in self.known:
            self.epoll.modify(fd, mask)
        else:
            self.known.add(fd)
            self.epoll.register(fd, mask)

    def _timer(self, milliseconds: int) -> None:
        self.deadline = None if milliseconds < 0 else time.monotonic() + milliseconds / 1e3

    def turn(self, timeout: float) -> None:
        """Wait for sockets, move bytes."""
        if self.deadline is not None:
            timeout = max(0.0, min(timeout, self.deadline - time.monotonic()))
        for fd, events in self.epoll.poll(timeout, 1024):
            mask = pycurl.CSELECT_IN if events & (select.EPOLLIN | select.EPOLLHUP) else 0
            mask |= pycurl.CSELECT_OUT if events & select.EPOLLOUT else 0
            mask |= pycurl.CSELECT_ERR if events & select.EPOLLERR else 0
            self.multi.socket_action(fd, mask)
        if self.deadline is not None and time.monotonic() >= self.deadline:
            self.deadline = None
            self.multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)

    def finished(self) -> Iterator[tuple[Any, bool]]:
        """Handles that are done, and whether they failed."""
        left = 1
        while left:
            left, good, bad = self.multi.info_read()
            yield from ((handle, False) for handle in good)
            yield from ((entry[0], True) for entry in bad)


def main(url: str, requests: str, concurrency: str) -> None:
    """Send so many requests and print the CPU each took, in microseconds."""
    total, loop, free = int(requests), Loop(int(concurrency)), []
    body = json.dumps(event(0)).encode()
    for _ in range(int(concurrency)):
        handle = pycurl.Curl()
        handle.setopt(pycurl.POST, 1)
        handle.setopt(pycurl.URL, url)
        handle.setopt(pycurl.NOSIGNAL, 1)
        handle.setopt(pycurl.WRITEFUNCTION, lambda _: None)
        free.append(handle)
    to_send, done, failed, cpu, begin = total, 0, 0, time.process_time(), time.perf_counter()
    while done < total:
        while free and to_send:
            handle = free.pop()
            signature = hmac.digest(b"k" * 24, body, "sha256").hex()
            handle.setopt(
                pycurl.HTTPHEADER,
                ["content-type: application/json", f"webhook-id: bare_{to_send}", f"x-webhook-signature: {signature}"],
            )
            handle.setopt(pycurl.POSTFIELDS, body)
            loop.multi.add_handle(handle)
            to_send -= 1
        loop.turn(1.0)
        for handle, bad in loop.finished():
            failed += bad or handle.getinfo(pycurl.RESPONSE_CODE) // 100 != 2  # noqa: PLR2004 (2xx)
            loop.multi.remove_handle(handle)
            free.append(handle)
            done += 1
    took, cpu = time.perf_counter() - begin, time.process_time() - cpu
    print(json.dumps({"per_second": total / took, "cpu_us": cpu / total * 1e6, "failed": failed}))


if __name__ == "__main__":
    main(*sys.argv[1:])
