"""A TLS stream over a socket that transfers few bytes at a time, or receives many that carry no data."""

import contextlib
import ssl
from collections.abc import Callable
from hashlib import sha256
from typing import Any, NoReturn

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from consumer.sending.tls import _EMPTY, NOT_NOW, PIECE, TlsStream
from tests.sending.conftest import server_tls
from tests.sending.tls_records import Records


class Lower:
    """The lower socket, with the receiver at its other end.

    It transfers all that has come, or few bytes (`sizes`, in turn), and then none at every other call.
    """

    def __init__(self, context: ssl.SSLContext, sizes: list[int] | None = None) -> None:
        self._sizes = sizes
        self._turn = 0
        self._sent = self.arrived = b""
        self.taken = 0  # bytes that the stream has read
        self._come, self._go = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.receiver = context.wrap_bio(self._come, self._go, server_side=True)

    def _size(self) -> int:
        if self._sizes is None:
            return 1 << 20
        self._turn += 1
        return 0 if self._turn % 2 else self._sizes[self._turn // 2 % len(self._sizes)]

    def send(self, data: bytes) -> int:
        if not (size := self._size()):
            raise ssl.SSLWantWriteError
        self._sent += data[:size]
        return min(size, len(data))

    def recv(self, most: int) -> bytes:
        size = min(self._size(), most)
        if not size or not self.arrived:
            raise ssl.SSLWantReadError
        data, self.arrived = self.arrived[:size], self.arrived[size:]
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
        self.arrived += self._go.read()

    def until(self, step: Callable[..., Any], *arguments: Any) -> Any:
        """Repeat the call until it succeeds."""
        for _ in range(200_000):
            try:
                return step(*arguments)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                self.exchange()
        raise AssertionError


def stream_over(lower: Lower, authority: trustme.CA) -> TlsStream:
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(client)
    return TlsStream(lower, client, "receiver.test")


@given(st.lists(st.integers(1, 30_000), min_size=1, max_size=5), st.integers(1, 70_000))
def test_a_stream_loses_no_byte_whatever_the_socket_transfers(
    authority: trustme.CA, sizes: list[int], size: int
) -> None:
    """The last piece, after which nothing is sent, arrives too."""
    outer = Lower(server_tls(authority.issue_cert("receiver.test")), sizes)
    inner = stream_over(outer, authority)
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


Pair = tuple[Lower, TlsStream, Records]


@pytest.fixture
def pair(authority: trustme.CA) -> Pair:
    """A stream after its handshake, the socket below it, and the maker of the receiver's records."""
    context = server_tls(authority.issue_cert("receiver.test"))
    with Records.of(context) as records:
        lower = Lower(context)
        stream = stream_over(lower, authority)
        lower.until(stream.do_handshake)
        lower.exchange()
        records.start()
    return lower, stream, records


def ends_in_pieces(lower: Lower, step: Callable[[], object]) -> None:
    """Repeat `step` until the stream ends: each takes a bounded piece from the socket, and all together too."""
    found: list[int] = []

    def read_on() -> NoReturn:
        while True:
            before = lower.taken
            with contextlib.suppress(*NOT_NOW):
                step()
            found.append(lower.taken - before)

    with pytest.raises(OSError, match="64 KiB of TLS messages without data"):
        read_on()
    assert max(found) == PIECE
    assert sum(found) <= _EMPTY


@pytest.mark.parametrize("kind", ["ticket", "key update", "key update, answered"])
def test_tls_that_carries_no_data_is_read_in_pieces_and_ends_the_stream(pair: Pair, kind: str) -> None:
    """OpenSSL reads on until a record has data. It must not keep the loop for as long as a receiver sends others."""
    lower, stream, records = pair
    while len(lower.arrived) < _EMPTY + 2 * PIECE:
        lower.arrived += records.make(kind)
    ends_in_pieces(lower, lambda: stream.recv(PIECE))


def test_messages_before_the_end_of_the_handshake_are_bounded(authority: trustme.CA) -> None:
    """OpenSSL ignores a HelloRequest, and reads the next."""
    context = server_tls(authority.issue_cert("receiver.test"))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    lower = Lower(context)
    stream = stream_over(lower, authority)
    with pytest.raises(ssl.SSLWantReadError):
        stream.do_handshake()
    lower.exchange()
    hello = lower.arrived[: 5 + int.from_bytes(lower.arrived[3:5])]
    lower.arrived = hello + (b"\x16\x03\x03\x40\x00" + bytes(0x4000)) * 6
    ends_in_pieces(lower, stream.do_handshake)


@pytest.mark.parametrize("before", [b"", b"\x15\x03\x03\x00\x02\x01\x5a"], ids=["at once", "after an alert"])
@pytest.mark.parametrize("most", [3, 1 << 20])
@pytest.mark.parametrize("curve", ["prime256v1", "secp384r1", "secp521r1"])
def test_a_group_that_a_receiver_asks_for_is_judged_before_a_key_is_made(
    authority: trustme.CA, curve: str, most: int, before: bytes
) -> None:
    """A key of ffdhe8192 takes 0.1 s of the loop, and a receiver that asks for one has no work. P-521 stands for it."""
    context = server_tls(authority.issue_cert("receiver.test"))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_ecdh_curve(curve)
    lower = Lower(context, [most])
    stream = stream_over(lower, authority)
    lower.arrived = before
    if curve != "secp521r1":
        lower.arrived = b""
        lower.until(stream.do_handshake)
        assert stream.version() == "TLSv1.3"
        return
    with pytest.raises(OSError, match="it wants group 0x0019 to exchange keys: only X25519, P-256 and P-384 are used"):
        lower.until(stream.do_handshake)
    assert not lower._sent  # no second ClientHello


def asking(*extensions: str) -> bytes:
    """A HelloRetryRequest with these extensions, in hexadecimal digits."""
    more = bytes.fromhex("".join(extensions))
    body = b"\3\3" + sha256(b"HelloRetryRequest").digest() + b"\0\x13\x01\0" + len(more).to_bytes(2) + more
    return b"\2" + len(body).to_bytes(3) + body


FFDHE8192, VERSION = "003300020104", "002b00020304"


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ((asking(FFDHE8192),), "group 0x0104"),
        ((asking(VERSION, FFDHE8192),), "group 0x0104"),
        ((asking(FFDHE8192)[:20], asking(FFDHE8192)[20:]), "no ServerHello in one piece"),
        ((bytes(4), asking(FFDHE8192)), "no ServerHello in one piece"),  # OpenSSL ignores a HelloRequest
        ((b"", asking(FFDHE8192)), "no ServerHello in one piece"),
    ],
)
def test_a_first_message_cannot_hide_the_group(authority: trustme.CA, messages: list[bytes], why: str) -> None:
    """Neither in pieces nor behind another one."""
    lower = Lower(server_tls(authority.issue_cert("receiver.test")))
    stream = stream_over(lower, authority)
    with pytest.raises(ssl.SSLWantReadError):
        stream.do_handshake()
    for message in messages:
        size = len(message).to_bytes(2)
        lower.arrived += b"\x16\x03\x03" + size + message
    with pytest.raises(OSError, match=why):
        stream.do_handshake()


def test_small_records_pay_for_themselves(pair: Pair) -> None:
    """A connection of HTTP/2 lives for long, and its smallest frames have 9 bytes, in a record of 31."""
    lower, stream, records = pair
    for _ in range(4 * _EMPTY // 31):
        lower.arrived += records.make("data", bytes(9))
        assert stream.recv(PIECE) == bytes(9)
