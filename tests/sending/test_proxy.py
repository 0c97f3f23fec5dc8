"""Requests through a proxy: in the absolute form, through tunnels, with TLS to the proxy, and with TLS in TLS."""

import socket
from base64 import b64encode
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requests import exceptions as errors

from consumer.sending.connector import NoTunnel, TunnelReader
from consumer.sending.egress import EgressPolicy
from tests.sending.conftest import (
    NO_CONTENT,
    TUNNEL,
    Net,
    Receiver,
    answer,
    closed_port,
    own_connections,
    proxying,
    server_tls,
)

LARGE = bytes(range(256)) * 256
KINDS = pytest.mark.parametrize(("proxy", "receiver"), [(a, b) for a in ("http", "https") for b in ("http", "https")])
PROXIES = pytest.mark.parametrize("proxy", ["http", "https"])


class Way:
    """A proxy of this scheme, its receiver, and a sender that uses the proxy, which behaves as `through` if given."""

    def __init__(
        self, net: Net, proxy: str, receiver: str, behave: Any = NO_CONTENT, through: Any = None, **at: Any
    ) -> None:
        self.receiver = net.receive(behave, tls=net.tls("receiver.test") if receiver == "https" else None)
        self.url = self.receiver.at("receiver.test")
        self.proxy: Receiver = net.proxy(proxy, self.receiver, **at)
        self.proxy._behave = through or self.proxy._behave
        self.sender = net.sender(proxy=self.proxy.base.replace("://", "://bob:s%20cret@"), egress=EgressPolicy())


def echo(connection: socket.socket, request: bytes) -> bool:
    """Answers with the request's body."""
    body = request.partition(b"\r\n\r\n")[2]
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    return True


@KINDS
def test_every_way_through_a_proxy(net: Net, monkeypatch: pytest.MonkeyPatch, proxy: str, receiver: str) -> None:
    """The proxy resolves the name and applies its own egress rule. The connection, or the tunnel, is kept.

    `no_proxy` of the environment does not bypass it.
    """
    monkeypatch.setenv("no_proxy", "*")
    way = Way(net, proxy, receiver)
    asked: list[str] = []
    resolver = way.sender.adapter._connector.resolver
    way.sender.know("127.0.0.1", "127.0.0.1")
    monkeypatch.setattr(resolver, "resolve", lambda name, *_: asked.append(name))
    for _ in range(3):
        assert way.sender.response(way.url).status_code == 204
    assert asked == []
    assert way.proxy.connections == way.sender.adapter.connections_opened == 1
    place = b"receiver.test:%d" % way.receiver.port
    first = way.proxy.requests[0].split(b"\r\n")
    tunnelled = receiver == "https"
    assert first[0] == (b"CONNECT %b HTTP/1.1" if tunnelled else b"POST http://%b/hook HTTP/1.1") % place
    assert first[1] == b"Host: " + place
    assert b"Proxy-Authorization: Basic " + b64encode(b"bob:s cret") in first
    assert len(way.proxy.requests) == (1 if tunnelled else 3)
    assert len(way.receiver.requests) == 3
    assert way.receiver.connections == (1 if tunnelled else 3)
    if tunnelled:
        assert way.receiver.requests[0].startswith(b"POST /hook HTTP/1.1\r\nHost: %b\r\n" % place)
        assert b"Proxy-" not in way.receiver.requests[0]


@PROXIES
@pytest.mark.parametrize("piece", [700, 65536])
def test_bodies_of_64_kib_go_both_ways_through_a_tunnel(net: Net, proxy: str, piece: int) -> None:
    """With TLS in TLS, too, whatever pieces the proxy makes. A kept tunnel goes on afterwards."""
    way = Way(net, proxy, "https", echo, piece=piece)
    for body in (LARGE, LARGE, LARGE * 30):
        assert way.sender.response(way.sender.prepare(way.url, body)).content == LARGE
    assert way.receiver.requests[-1].endswith(b"\r\n\r\n" + LARGE * 30)


@pytest.mark.parametrize("receiver", ["http", "https"])
def test_a_new_connection_resumes_the_tls_session_with_the_proxy(net: Net, receiver: str) -> None:
    """Otherwise each tunnel would need two full handshakes, with the proxy and with the receiver."""
    closing = answer(NO_CONTENT[:-2] + b"Connection: close\r\n\r\n", "close")
    way = Way(net, "https", receiver, closing)
    for _ in range(3):
        way.sender.response(way.url)
    assert way.proxy.resumed == [False, True, True]
    assert way.receiver.resumed == ([False, True, True] if receiver == "https" else [])


def test_unrequested_bytes_in_tls_in_tls_close_the_tunnel(net: Net) -> None:
    """They came in one piece with the answer, so that the socket itself has no more bytes to read."""

    def twice(connection: socket.socket, _request: bytes) -> bool:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        connection.sendall(NO_CONTENT)
        connection.sendall(b"HTTP/1.1 500 Not yours\r\nContent-Length: 0\r\n\r\n")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
        return True

    way = Way(net, "https", "https", twice)
    for number in range(1, 4):
        assert way.sender.response(way.url).status_code == 204
        assert way.sender.idle == []
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
        (TUNNEL + b"x", "keep", MORE),
        (TUNNEL + TUNNEL, "keep", MORE),
        (b"", "close", ENDED),
        (b"", "reset", ENDED),
        (b"HTTP/1.1 200 OK\r\n", "close", NO_HTTP),
    ],
)
def test_a_proxy_that_opens_no_tunnel(net: Net, proxy: str, text: bytes, then: str, error: str) -> None:
    """The result is a ProxyError with the reason. No descriptor stays open, and no byte of the request is sent."""
    way = Way(net, proxy, "https", through=answer(text, then))
    before = own_connections()
    result = way.sender.result(way.url)
    assert type(result) is errors.ProxyError
    assert str(result).startswith(error)
    assert way.sender.open_sockets() == 0
    way.sender.turn_until(lambda: own_connections() <= before)
    assert way.receiver.connections == 0


@PROXIES
@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.0 200\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nx: y\r\n\r\n" + TUNNEL,
        b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_answers_to_connect_that_open_a_tunnel(net: Net, proxy: str, head: bytes) -> None:
    """Any 2xx opens it, whatever it says of a body (RFC 9110, section 9.3.6). Interim answers are skipped."""
    way = Way(net, proxy, "https", head=head)
    assert way.sender.response(way.url).status_code == 204


def test_an_answer_to_connect_in_many_tls_records(net: Net) -> None:
    """The poller reports the first of those that come together. The others are held by the stream."""

    def through(connection: socket.socket, request: bytes) -> bool:
        for byte in TUNNEL[:-1]:
            connection.sendall(bytes([byte]))
        return proxying(way.receiver.port, TUNNEL[-1:])(connection, request)

    way = Way(net, "https", "https", through=through)
    way.sender.response(way.url)


@KINDS
def test_an_error_before_the_tunnel_names_the_proxy(net: Net, proxy: str, receiver: str) -> None:
    """The error names the proxy's host, port or certificate, not the receiver's."""
    closed = closed_port()
    texts = {
        f"{proxy}://nowhere.invalid:{closed}": "'nowhere.invalid' does not resolve",
        f"{proxy}://127.0.0.1:{closed}": f"no connection to the proxy 127.0.0.1:{closed}: Connection refused",
    }
    if proxy == "https":
        other = net.receive(tls=server_tls(net.authority.issue_cert("other.test")))
        texts[other.base] = "no TLS with the proxy: the certificate is refused: IP address mismatch"
    for place, text in texts.items():
        sender = net.sender(proxy=place)
        result = sender.result(f"{receiver}://receiver.test/")
        assert type(result) is errors.ProxyError
        assert str(result).startswith(text)
        assert sender.open_sockets() == 0


@PROXIES
def test_the_receivers_certificate_is_verified_through_a_tunnel(net: Net, proxy: str) -> None:
    """It must be for the receiver's name. The proxy's certificate, though trusted, does not count."""
    stranger = net.receive(tls=net.tls())
    way = Way(net, proxy, "https", through=proxying(stranger.port))
    result = way.sender.result(way.url)
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


@pytest.mark.parametrize("proxy", ["http://bob:s3@cret@127.0.0.1:1", "https://bob:s3#cret@127.0.0.1:1"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxys_password_is_in_no_error(net: Net, scheme: str, proxy: str) -> None:
    """Otherwise it would be logged, stored as `last_error` and published with every delivery."""
    result = net.sender(proxy=proxy).result(f"{scheme}://receiver.invalid/")
    assert isinstance(result, errors.ProxyError)
    for piece in ("s3", "cret", "bob"):
        assert piece not in str(result)
