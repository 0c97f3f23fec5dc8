"""A TLS stream over a socket that transfers few bytes at a time, or receives many that carry no data."""

import contextlib
import ssl
from collections.abc import Callable
from typing import Any, NoReturn

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from consumer.sending.tls import _EMPTY, NOT_NOW, PIECE, TlsStream
from tests.sending.conftest import server_tls
from tests.sending.tls_records import Records


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
        self.taken = 0  # bytes that the stream has read
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
        self.taken += len(data)
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

    def say(self, data: bytes) -> None:
        """Bytes arrive that the receiver's TLS did not make."""
        self._arrived += data

    def until(self, step: Callable[..., Any], *arguments: Any) -> Any:
        """Repeat the call until it succeeds."""
        for _ in range(200_000):
            try:
                return step(*arguments)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                self.exchange()
        raise AssertionError


@given(st.lists(st.integers(1, 30_000), min_size=1, max_size=5), st.integers(1, 70_000))
def test_a_stream_loses_no_byte_whatever_the_socket_transfers(
    authority: trustme.CA, certificate: trustme.LeafCert, sizes: list[int], size: int
) -> None:
    """The last piece, after which nothing is sent, arrives too."""
    outer = Narrow(sizes, server_tls(certificate))
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(client)
    inner = TlsStream(outer, client, "receiver.test")
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


class Wide(Narrow):
    """It transfers all that has come."""

    def _size(self) -> int:
        return 1 << 20

    @property
    def waiting(self) -> int:
        """Bytes that have come and are not read yet."""
        return len(self._arrived)


def client_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    return context


def pair(authority: trustme.CA, certificate: trustme.LeafCert) -> tuple[Wide, TlsStream, Records]:
    """A stream after its handshake, the socket below it, and the maker of the receiver's records."""
    with Records.of(server_tls(certificate)) as (context, records):
        lower = Wide([1], context)
        stream = TlsStream(lower, client_tls(authority), "receiver.test")
        lower.until(stream.do_handshake)
        lower.exchange()
        records.start()
    return lower, stream, records


def read_on(lower: Narrow, step: Callable[[], object], found: list[int]) -> NoReturn:
    """Repeat `step`, and note the bytes that each takes from the socket."""
    while True:
        before = lower.taken
        with contextlib.suppress(*NOT_NOW):
            step()
        found.append(lower.taken - before)


def taken(lower: Narrow, step: Callable[[], object]) -> list[int]:
    """The bytes that each `step` takes from the socket until the stream ends."""
    found: list[int] = []
    with pytest.raises(OSError, match="64 KiB of TLS messages without data"):
        read_on(lower, step, found)
    return found


@pytest.mark.parametrize("kind", ["ticket", "key update", "key update, answered"])
def test_tls_that_carries_no_data_is_read_in_pieces_and_ends_the_stream(
    authority: trustme.CA, certificate: trustme.LeafCert, kind: str
) -> None:
    """OpenSSL reads on until a record has data. It must not keep the loop for as long as a receiver sends others."""
    lower, stream, records = pair(authority, certificate)
    while lower.waiting < _EMPTY + 2 * PIECE:
        lower.say(records.make(kind))
    found = taken(lower, lambda: stream.recv(PIECE))
    assert max(found) == PIECE
    assert sum(found) <= _EMPTY


def test_messages_before_the_end_of_the_handshake_are_bounded(authority: trustme.CA) -> None:
    """OpenSSL ignores a HelloRequest, and reads the next."""
    lower = Wide([1], server_tls(authority.issue_cert("receiver.test")))
    stream = TlsStream(lower, client_tls(authority), "receiver.test")
    with pytest.raises(ssl.SSLWantReadError):
        stream.do_handshake()
    lower.say((b"\x16\x03\x03\x40\x00" + bytes(0x4000)) * 6)
    found = taken(lower, stream.do_handshake)
    assert max(found) == PIECE
    assert sum(found) <= _EMPTY


def test_small_records_pay_for_themselves(authority: trustme.CA, certificate: trustme.LeafCert) -> None:
    """A connection of HTTP/2 lives for long, and its smallest frames have 9 bytes, in a record of 31."""
    lower, stream, records = pair(authority, certificate)
    for _ in range(4 * _EMPTY // 31):
        lower.say(records.make("data", bytes(9)))
        assert stream.recv(PIECE) == bytes(9)
