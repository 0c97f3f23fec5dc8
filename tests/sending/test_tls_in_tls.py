"""TLS in TLS over a socket that transfers few bytes at a time."""

import contextlib
import ssl
from collections.abc import Callable
from typing import Any

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from consumer.sending.tls import TlsInTls
from tests.sending.conftest import server_tls


@pytest.fixture(scope="module")
def certificate(authority: trustme.CA) -> trustme.LeafCert:
    return authority.issue_cert("receiver.test")


class Narrow:
    """The lower socket, with the receiver at its other end.

    It transfers few bytes, and none at every other call.
    """

    def __init__(self, sizes: list[int], context: ssl.SSLContext) -> None:
        self._sizes = sizes
        self._turn = 0
        self._sent = self._arrived = b""
        self._come, self._go = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.receiver = context.wrap_bio(self._come, self._go, server_side=True)

    def _size(self) -> int:
        self._turn += 1
        return 0 if self._turn % 2 else self._sizes[self._turn // 2 % len(self._sizes)]

    def send(self, data: bytes) -> int:
        if not (size := self._size()):
            raise ssl.SSLWantWriteError
        self._sent += data[:size]
        return min(size, len(data))

    def recv(self, most: int) -> bytes:
        size = min(self._size(), most)
        if not size or not self._arrived:
            raise ssl.SSLWantReadError
        data, self._arrived = self._arrived[:size], self._arrived[size:]
        return data

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        """Nothing needs closing."""

    def exchange(self) -> None:
        """Bytes arrive in both directions."""
        self._come.write(self._sent)
        self._sent = b""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.receiver.do_handshake()
        self._arrived += self._go.read()

    def until(self, step: Callable[..., Any], *arguments: Any) -> Any:
        """Repeat the call until it succeeds."""
        for _ in range(200_000):
            try:
                return step(*arguments)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                self.exchange()
        raise AssertionError


@given(st.lists(st.integers(1, 30_000), min_size=1, max_size=5), st.integers(1, 70_000))
def test_tls_in_tls_loses_no_byte_whatever_the_socket_transfers(
    authority: trustme.CA, certificate: trustme.LeafCert, sizes: list[int], size: int
) -> None:
    """The last piece, after which nothing is sent, arrives too."""
    outer = Narrow(sizes, server_tls(certificate))
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(client)
    inner = TlsInTls(outer, client, "receiver.test", None)
    outer.until(inner.do_handshake)
    body = (bytes(range(251)) * 300)[:size]
    left = memoryview(body)
    while left:
        left = left[outer.until(inner.send, left) :]
    outer.exchange()
    got = back = b""
    while len(got) < size:
        got += outer.receiver.read(65536)  # raises SSLWantReadError if a part has not left yet
    assert got == body
    outer.receiver.write(body)
    outer.exchange()
    while len(back) < size:
        back += outer.until(inner.recv, 16_384)
    assert back == body
