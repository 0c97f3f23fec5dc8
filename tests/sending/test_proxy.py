"""Requests through a proxy: in the absolute form, through tunnels, with TLS to the proxy, and with TLS in TLS."""

import select
import socket
import ssl
from base64 import b64encode
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import requests
import trustme
from hypothesis import given
from hypothesis import strategies as st
from requests import exceptions as errors

from consumer.http.urls import parse_proxy
from consumer.sending.connector import NoTunnel, TunnelReader
from consumer.sending.egress import EgressPolicy
from consumer.sending.transfer import Result
from tests.sending.conftest import (
    NO_CONTENT,
    Behaviour,
    MakeSender,
    Receive,
    Receiver,
    Sender,
    answer,
    descriptors,
    server_tls,
)

OPEN = b"HTTP/1.1 200 Connection established\r\n\r\n"
LARGE = bytes(range(256)) * 256
USER = "bob:s%20cret"
BASIC = b"Proxy-Authorization: Basic " + b64encode(b"bob:s cret")


class Proxy:
    """A proxy that connects all requests to one receiver, in pieces of at most `piece` bytes."""

    def __init__(self, receiver: Receiver, *, head: bytes = OPEN, piece: int = 65536) -> None:
        self.port = receiver.port
        self._head, self._piece = head, piece

    def __call__(self, connection: socket.socket, request: bytes) -> bool:
        with socket.create_connection(("127.0.0.1", self.port), 20) as onward:
            if request.startswith(b"CONNECT "):
                connection.sendall(self._head)
                self._pipe(connection, onward)
                return False
            onward.sendall(request)
            connection.sendall(onward.recv(65536))
        return True

    def _pipe(self, connection: socket.socket, onward: socket.socket) -> None:
        ways = {connection: onward, onward: connection}
        while True:
            pending = isinstance(connection, ssl.SSLSocket) and connection.pending()
            ready = [connection] if pending else select.select([*ways], [], [], 60)[0]
            for one in ready:
                data = one.recv(self._piece)
                if not data:
                    return
                ways[one].sendall(data)


class Way:
    """A proxy, its receiver, and a sender that uses the proxy."""

    def __init__(self, make: Callable[..., Any], proxy: Receiver, receiver: Receiver, user: str = "") -> None:
        self.proxy, self.receiver = proxy, receiver
        place = proxy.url.removesuffix("/hook").replace("://", f"://{user}@" if user else "://")
        self.sender: Sender = make(proxy=place, egress=EgressPolicy())
        self.url = receiver.url.replace("127.0.0.1", "receiver.test")

    def post(self, body: bytes = b"{}") -> Result:
        results: list[Result] = []
        self.sender.adapter.submit(self.sender.prepare(self.url, body), results.append)
        self.sender.turn_until(lambda: results)
        return results[0]


MakeWay = Callable[..., Way]


@pytest.fixture
def make_way(trusted: trustme.CA, make_sender: MakeSender, receive: Receive) -> MakeWay:
    """`make_way("https", "http")` makes a proxy with TLS and a receiver without. `through` is the proxy's behaviour."""
    context = server_tls(trusted.issue_cert("127.0.0.1", "receiver.test"))

    def make(
        proxy: str,
        receiver: str,
        behave: Behaviour | bytes = NO_CONTENT,
        *,
        through: Behaviour | bytes | None = None,
        user: str = "",
        **options: Any,
    ) -> Way:
        to = receive(behave, tls=context if receiver == "https" else None)
        by = receive(through or Proxy(to, **options), tls=context if proxy == "https" else None)
        return Way(make_sender, by, to, user)

    return make


def echo(connection: socket.socket, request: bytes) -> bool:
    """Answers with the request's body."""
    body = request.partition(b"\r\n\r\n")[2]
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    return True


KINDS = pytest.mark.parametrize(("proxy", "receiver"), [(a, b) for a in ("http", "https") for b in ("http", "https")])
PROXIES = pytest.mark.parametrize("proxy", ["http", "https"])


@KINDS
def test_every_way_through_a_proxy(
    monkeypatch: pytest.MonkeyPatch, make_way: MakeWay, proxy: str, receiver: str
) -> None:
    """The proxy resolves the name and applies its own egress rule. The connection, or the tunnel, is kept."""
    way = make_way(proxy, receiver, user=USER)
    asked: list[str] = []
    resolve = way.sender.adapter._connector.resolver.resolve

    def noting(name: str, *more: Any) -> None:
        asked.append(name)
        resolve(name, *more)

    monkeypatch.setattr(way.sender.adapter._connector.resolver, "resolve", noting)
    for _ in range(3):
        result = way.post()
        assert isinstance(result, requests.Response), result
        assert result.status_code == 204
    assert set(asked) == {"127.0.0.1"}
    assert way.proxy.connections == way.sender.adapter.connections_opened == 1
    place = b"receiver.test:%d" % way.receiver.port
    first = way.proxy.requests[0].split(b"\r\n")
    tunnelled = receiver == "https"
    assert first[0] == (b"CONNECT %b HTTP/1.1" if tunnelled else b"POST http://%b/hook HTTP/1.1") % place
    assert first[1] == b"Host: " + place
    assert BASIC in first
    assert len(way.proxy.requests) == (1 if tunnelled else 3)
    assert len(way.receiver.requests) == 3
    assert way.receiver.connections == (1 if tunnelled else 3)
    if tunnelled:
        assert way.receiver.requests[0].startswith(b"POST /hook HTTP/1.1\r\nHost: %b\r\n" % place)
        assert b"Proxy-" not in way.receiver.requests[0]


def test_an_ipv6_address_is_in_brackets() -> None:
    """Both in requests to the proxy and in the proxy's own URL."""
    proxy = parse_proxy("http://[::1]:3128")
    assert (proxy.host, proxy.port) == ("::1", 3128)
    assert proxy.connect("2001:db8::1", 443).startswith(
        b"CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: [2001:db8::1]:443\r\n"
    )


@PROXIES
@pytest.mark.parametrize("piece", [700, 65536])
def test_bodies_of_64_kib_go_both_ways_through_a_tunnel(make_way: MakeWay, proxy: str, piece: int) -> None:
    """With TLS in TLS, too, whatever pieces the proxy makes. A kept tunnel goes on afterwards."""
    way = make_way(proxy, "https", echo, piece=piece)
    for _ in range(3):
        result = way.post(LARGE)
        assert isinstance(result, requests.Response), result
        assert result.content == LARGE
    result = way.post(LARGE * 30)
    assert isinstance(result, requests.Response), result
    assert result.content == LARGE
    assert way.receiver.requests[-1].endswith(b"\r\n\r\n" + LARGE * 30)


@pytest.mark.parametrize("receiver", ["http", "https"])
def test_a_new_connection_resumes_the_tls_session_with_the_proxy(make_way: MakeWay, receiver: str) -> None:
    """Otherwise each tunnel would need two full handshakes, with the proxy and with the receiver."""
    resumed: list[bool] = []
    there: list[bool] = []

    def behave(connection: Any, _request: bytes) -> bool:
        there.append(getattr(connection, "session_reused", False))
        connection.sendall(NO_CONTENT[:-2] + b"Connection: close\r\n\r\n")
        return False

    way = make_way("https", receiver, behave)
    onward = way.proxy._behave

    def through(connection: Any, request: bytes) -> bool:
        resumed.append(connection.session_reused)
        return onward(connection, request)

    way.proxy._behave = through
    for _ in range(3):
        assert isinstance(way.post(), requests.Response)
    assert resumed == [False, True, True]
    assert there == ([False, True, True] if receiver == "https" else [False] * 3)


def test_unrequested_bytes_in_tls_in_tls_close_the_tunnel(make_way: MakeWay) -> None:
    """They came in one piece with the answer, so that the socket itself has no more bytes to read."""

    def twice(connection: socket.socket, _request: bytes) -> bool:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        connection.sendall(NO_CONTENT)
        connection.sendall(b"HTTP/1.1 500 Not yours\r\nContent-Length: 0\r\n\r\n")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
        return True

    way = make_way("https", "https", twice)
    for number in range(1, 4):
        result = way.post()
        assert isinstance(result, requests.Response), result
        assert result.status_code == 204
        assert len(way.sender.adapter._pool) == 0
        assert way.proxy.connections == number


# Errors of a proxy.

NO_HTTP = "the proxy gave no HTTP answer to CONNECT"
MORE = "the proxy sent more than an answer to CONNECT"
ENDED = "the proxy closed the connection"


@PROXIES
@pytest.mark.parametrize(
    ("text", "then", "error"),
    [
        (b"HTTP/1.1 407 Who?\r\nContent-Length: 0\r\n\r\n", "keep", "the proxy answered CONNECT with status 407"),
        (b"HTTP/1.0 502 Bad Gateway\r\n\r\n", "close", "the proxy answered CONNECT with status 502"),
        (b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", "keep", "the proxy answered CONNECT with status 302"),
        (b"HTTP/1.1 101 Switching\r\n\r\n", "keep", "the proxy answered CONNECT with status 101"),
        (b"HTTP/2 200\r\n\r\n", "keep", NO_HTTP),
        (b"HTTP/1.1 20\r\n\r\n", "keep", NO_HTTP),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "keep", NO_HTTP),
        (b"SSH-2.0-OpenSSH_9.9\r\n", "close", NO_HTTP),
        (b"\0" * 20_000, "keep", NO_HTTP),
        (b"HTTP/1.1 200 OK\r\nx: " + b"x" * 20_000, "keep", NO_HTTP),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 2_000, "keep", NO_HTTP),
        (OPEN + b"x", "keep", MORE),
        (OPEN + OPEN, "keep", MORE),
        (b"", "close", ENDED),
        (b"", "reset", ENDED),
        (b"HTTP/1.1 200 OK\r\n", "close", NO_HTTP),
    ],
)
def test_a_proxy_that_opens_no_tunnel(make_way: MakeWay, proxy: str, text: bytes, then: str, error: str) -> None:
    """The result is a ProxyError with the reason. No descriptor stays open, and no byte of the request is sent."""
    way = make_way(proxy, "https", through=answer(text, then))
    before = descriptors()
    result = way.post()
    assert type(result) is errors.ProxyError
    assert str(result).startswith(error)
    assert len(way.sender.poller._handlers) == 1
    way.sender.turn_until(lambda: descriptors() <= before)
    assert way.receiver.connections == 0


@PROXIES
@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.0 200\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nx: y\r\n\r\n" + OPEN,
        b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_answers_to_connect_that_open_a_tunnel(make_way: MakeWay, proxy: str, head: bytes) -> None:
    """Any 2xx opens it, whatever it says of a body (RFC 9110, section 9.3.6). Interim answers are skipped."""
    result = make_way(proxy, "https", head=head).post()
    assert isinstance(result, requests.Response), result
    assert result.status_code == 204


def test_an_answer_to_connect_in_many_tls_records(make_way: MakeWay) -> None:
    """The poller reports the first of those that come together. The others are held by the stream."""

    def through(connection: socket.socket, request: bytes) -> bool:
        for byte in OPEN[:-1]:
            connection.sendall(bytes([byte]))
        with socket.create_connection(("127.0.0.1", way.receiver.port), 20) as onward:
            connection.sendall(OPEN[-1:])
            Proxy(way.receiver)._pipe(connection, onward)
        return not request

    way = make_way("https", "https", through=through)
    result = way.post()
    assert isinstance(result, requests.Response), result


@KINDS
def test_an_error_before_the_tunnel_names_the_proxy(
    trusted: trustme.CA, make_sender: MakeSender, receive: Receive, proxy: str, receiver: str
) -> None:
    """The error names the proxy's host, port or certificate, not the receiver's."""
    other = receive(NO_CONTENT, tls=server_tls(trusted.issue_cert("other.test")) if proxy == "https" else None)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        closed = listener.getsockname()[1]
    texts = {
        f"{proxy}://nowhere.invalid:{closed}": "'nowhere.invalid' does not resolve",
        f"{proxy}://127.0.0.1:{closed}": f"no connection to the proxy 127.0.0.1:{closed}: Connection refused",
    }
    if proxy == "https":
        texts[other.url.removesuffix("/hook")] = (
            "no TLS with the proxy: the certificate is refused: IP address mismatch"
        )
    for place, text in texts.items():
        sender = make_sender(proxy=place)
        result = sender.result(f"{receiver}://receiver.test/")
        assert type(result) is errors.ProxyError
        assert str(result).startswith(text)
        assert len(sender.poller._handlers) == 1


@PROXIES
def test_the_receivers_certificate_is_verified_through_a_tunnel(
    authority: trustme.CA, make_way: MakeWay, receive: Receive, proxy: str
) -> None:
    """It must be for the receiver's name. The proxy's certificate, though trusted, does not count."""
    stranger = receive(NO_CONTENT, tls=server_tls(authority.issue_cert("127.0.0.1")))
    way = make_way(proxy, "https", through=Proxy(stranger))
    result = way.post()
    assert type(result) is errors.SSLError
    assert "certificate is not valid for 'receiver.test'" in str(result)
    assert stranger.requests == []


@given(st.binary(max_size=80), st.lists(st.integers(0, 200), max_size=8))
def test_the_verdict_on_a_proxys_answer_does_not_depend_on_its_pieces(text: bytes, cuts: list[int]) -> None:
    """For any bytes, no exception other than NoTunnel is raised."""

    def judged(pieces: list[bytes]) -> bool | str:
        reader = TunnelReader()
        try:
            return any(map(reader.feed, pieces))
        except NoTunnel as error:
            return str(error)

    for whole in (text, b"HTTP/1.1 100 x\r\n\r\nHTTP/1.1 407 x\r\n\r\n" + text, b"HTTP/1.1 103\r\n\r\n" + text):
        places = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
        pieces = [whole[begin:end] for begin, end in pairwise(places)]
        assert judged([*pieces, b""]) == judged([*([whole] if whole else []), b""])
