from __future__ import annotations

import contextlib
import socket
import ssl
import time
from base64 import b64encode
from collections.abc import Callable

import pytest
import requests
import trustme
from requests import exceptions as errors

from consumer.errors import EgressRefused
from consumer.http.proxy import parse_proxy
from consumer.sending.adapter import Result
from consumer.sending.dns import Resolution, _CachedAddresses
from consumer.sending.egress import EgressPolicy
from tests.sending.conftest import Clock, MakeSender, Receive, Sender

NO_CONTENT = b"HTTP/1.1 204 No Content\r\nX-One: 1\r\nx-one: 2\r\n\r\n"


def test_a_post_arrives_as_it_was_prepared(sender: Sender, receive: Receive) -> None:
    """The body byte for byte, the given headers, the body's length, and no other header."""
    receiver = receive(NO_CONTENT)
    headers = {"webhook-id": "msg_1", "content-type": "application/json", "x-empty": "", "accept-encoding": "gzip"}
    response = sender.response(receiver.url + "?a=b", **headers)
    assert receiver.requests == [
        b"POST /hook?a=b HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nwebhook-id: msg_1\r\ncontent-type: application/json\r\n"
        b"x-empty:\r\nContent-Length: 2\r\n\r\n{}" % receiver.port
    ]
    assert (response.status_code, response.reason, response.content) == (204, "No Content", b"")
    assert response.headers["X-ONE"] == "1, 2"
    assert response.elapsed.total_seconds() > 0
    assert response.ok
    assert response.url == receiver.url + "?a=b"
    assert not response.cookies
    assert response.history == []


def test_connections_are_kept(sender: Sender, receive: Receive) -> None:
    """Consecutive requests use one connection, as the count of opened ones shows."""
    receiver = receive(NO_CONTENT)
    for _ in range(5):
        sender.response(receiver.url)
        assert sender.adapter.in_flight == 0
    assert receiver.connections == sender.adapter.connections_opened == 1


@pytest.mark.parametrize("then", ["close", "reset", "hang", "drip", "endless"])
@pytest.mark.parametrize("status", [200, 410, 503])
def test_a_status_line_counts_whatever_the_body_does(
    make_sender: MakeSender, receive: Receive, then: str, status: int
) -> None:
    """A cut, slow, endless or reset body does not change the status. At most 64 KiB of it are kept."""
    clock, results = Clock(), list[Result]()
    sender = make_sender(timeout=0.7, clock=clock)
    receiver = receive(b"HTTP/1.1 %d X\r\nRetry-After: 7\r\nContent-Length: 999999999\r\n\r\nabc" % status, then)
    transfer = sender.submit(receiver.url, results)
    if then in {"hang", "drip"}:
        sender.awaits(transfer, "no answer")
        sender.turn_until(lambda: (cut := transfer.stage.cut()) and cut.body)
        sender.timed_out(results, clock)
    sender.turn_until(lambda: results)
    (response,) = results
    assert isinstance(response, requests.Response), response
    assert response.status_code == status
    assert response.headers["retry-after"] == "7"
    if then != "reset":  # a reset may overtake the body
        assert response.content.startswith(b"abc")
    assert len(response.content) == 65536 if then == "endless" else len(response.content) < 100


def test_a_body_of_64_kib_is_kept_whole(sender: Sender, receive: Receive) -> None:
    """A body of exactly the limit is not cut, and the connection is kept."""
    receiver = receive(b"HTTP/1.1 200 OK\r\nContent-Length: 65536\r\n\r\n" + b"y" * 65536)
    assert sender.response(receiver.url).content == b"y" * 65536
    sender.response(receiver.url)
    assert receiver.connections == 1


@pytest.mark.parametrize(
    ("text", "then", "error"),
    [
        (b"", "close", errors.ConnectionError),
        (b"", "reset", errors.ConnectionError),
        (b"", "hang", errors.ReadTimeout),
        (b"HTTP/1.1 20", "hang", errors.ReadTimeout),
        (b"HTTP/1.1 20", "close", errors.ConnectionError),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "hang", errors.ReadTimeout),
        (b"SSH-2.0-OpenSSH\r\n", "hang", errors.ConnectionError),
        (b"\x00" * 100, "hang", errors.RequestException),
        (b"", "endless", errors.RequestException),
    ],
)
def test_no_status_line_is_an_error(
    make_sender: MakeSender, receive: Receive, text: bytes, then: str, error: type[Exception]
) -> None:
    """An invalid answer is an exception of requests, with its request, within the time limit."""
    sender = make_sender(timeout=0.5 if error is errors.ReadTimeout else 60)
    receiver = receive(text, then)
    result = sender.result(receiver.url)
    assert isinstance(result, error)
    assert isinstance(result, requests.RequestException)
    assert result.request is not None
    assert str(result)


def test_endless_headers_are_bounded(make_sender: MakeSender, receive: Receive) -> None:
    """Reading stops at 64 KiB, without a time-out. The status line counts."""
    sender = make_sender(clock=Clock())

    def behave(connection: socket.socket, _request: bytes) -> bool:
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        while True:
            connection.sendall(b"x-pad: " + b"x" * 1000 + b"\r\n")

    receiver = receive(behave)
    assert sender.response(receiver.url).status_code == 200


def test_redirects_are_returned(sender: Sender, receive: Receive) -> None:
    """A 3xx is an answer like any other. Its target gets no request."""
    target = receive(NO_CONTENT)
    receiver = receive(b"HTTP/1.1 302 Found\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % target.url.encode())
    assert sender.response(receiver.url).status_code == 302
    assert target.connections == 0


@pytest.mark.parametrize(
    "host",
    [
        *("2130706433", "0x7f.1", "0177.1", "127.0.0.1", "[::ffff:127.0.0.1]", "[::1]", "[::]", "0.0.0.0", "localhost"),  # noqa: S104 (nothing binds)
        *("169.254.169.254", "10.0.0.1", "100.64.0.1", "224.0.0.1", "255.255.255.255", "[fe80::1]", "[fc00::1]"),
        *("[64:ff9b::7f00:1]", "[2002:7f00:1::]", "127%2e0.0.1"),
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_forbidden_addresses_are_refused_at_the_socket(
    make_sender: MakeSender, receive: Receive, scheme: str, host: str
) -> None:
    """No spelling of a private address opens a connection."""
    sender = make_sender(egress=EgressPolicy(allow_http=True))
    receiver = receive(NO_CONTENT)
    result = sender.result(f"{scheme}://{host}:{receiver.port}/")
    assert isinstance(result, errors.ConnectionError)
    if "%" not in host:
        assert isinstance(result, EgressRefused)
        assert "WEBHOOK_ALLOW_NETWORKS" in str(result)
        assert result.request is not None
    assert sender.adapter.connections_opened == receiver.connections == 0


def test_proxies_of_the_environment_are_ignored(
    monkeypatch: pytest.MonkeyPatch, make_sender: MakeSender, receive: Receive
) -> None:
    """If http_proxy were obeyed, the egress rule would see only the proxy."""
    proxy, receiver = receive(NO_CONTENT), receive(NO_CONTENT)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "https_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
    make_sender().response(receiver.url)
    assert (proxy.connections, receiver.connections) == (0, 1)


def test_a_configured_proxy_gets_every_request(
    monkeypatch: pytest.MonkeyPatch, make_sender: MakeSender, receive: Receive
) -> None:
    """No name is resolved here, no egress rule applies, and no_proxy does not bypass the proxy."""
    monkeypatch.setenv("no_proxy", "*")
    proxy = receive(NO_CONTENT)
    sender = make_sender(egress=EgressPolicy(), proxy=f"http://127.0.0.1:{proxy.port}")
    assert sender.response("http://name-that-does-not-resolve.invalid/x").status_code == 204
    assert proxy.requests[0].startswith(b"POST http://name-that-does-not-resolve.invalid/x HTTP/1.1")
    refusing = receive(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
    sender = make_sender(proxy=f"http://127.0.0.1:{refusing.port}")
    result = sender.result("https://receiver.invalid/")
    assert isinstance(result, errors.ConnectionError)
    assert "403" in str(result)


@pytest.mark.parametrize(
    ("user", "told"),
    [
        ("bob:pass%20word", "bob:pass word"),
        ("bob%40x:s3%3Acr:et", "bob@x:s3:cr:et"),
        ("bob:s3/c@et", "bob:s3/c@et"),
        ("bob:p%C3%A4sse", "bob:pässe"),
        ("bob", "bob:"),
    ],
)
def test_a_proxys_password(make_sender: MakeSender, receive: Receive, user: str, told: str) -> None:
    """It is sent percent-decoded."""
    proxy = receive(NO_CONTENT)
    sender = make_sender(proxy=f"http://{user}@127.0.0.1:{proxy.port}")
    assert sender.response("http://receiver.invalid/").status_code == 204
    assert b"Proxy-Authorization: Basic " + b64encode(told.encode()) + b"\r\n" in proxy.requests[0]


@pytest.mark.parametrize(
    "proxy",
    [
        *("http://bob:s3cret@127.0.0.1:99999", "http://bob:s3/cret@127.0.0.1:x", "http://bob:s3cret@[::1"),
        *("http://bob:s3cret@", "socks5h://bob:s3cret@nowhere.invalid:1", "http://bob:s3%00cret@proxy"),
    ],
)
def test_an_invalid_proxy_is_refused_without_its_password(proxy: str) -> None:
    """It is refused at the start, and the text goes to a log."""
    with pytest.raises(ValueError, match=r"starts with neither|is malformed") as refused:
        parse_proxy(proxy)
    for piece in ("s3", "cret", "bob"):
        assert piece not in str(refused.value)


@pytest.mark.parametrize("proxy", ["http://bob:s3@cret@127.0.0.1:1", "https://bob:s3#cret@127.0.0.1:1"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxys_password_is_in_no_error(make_sender: MakeSender, scheme: str, proxy: str) -> None:
    """Otherwise it would be logged, stored as `last_error` and published with every delivery."""
    result = make_sender(proxy=proxy).result(f"{scheme}://receiver.invalid/")
    assert isinstance(result, errors.ProxyError)
    for piece in ("s3", "cret", "bob"):
        assert piece not in str(result)


@pytest.mark.parametrize("then", ["close", "hang", "keep"])
def test_a_proxys_200_is_not_the_receivers(make_sender: MakeSender, receive: Receive, then: str) -> None:
    """The answer to CONNECT does not deliver the event, whatever happens to the tunnel."""
    proxy = receive(b"HTTP/1.1 200 Connection established\r\n\r\n", then)
    clock, results = Clock(), list[Result]()
    sender = make_sender(proxy=f"http://127.0.0.1:{proxy.port}", connect_timeout=0.3, clock=clock)
    transfer = sender.submit("https://receiver.invalid/", results)
    if then != "close":
        sender.awaits(transfer, "no TLS handshake with receiver.invalid")
        sender.timed_out(results, clock)
    sender.turn_until(lambda: results)
    assert isinstance(results[0], errors.ConnectionError)
    assert proxy.requests[0].startswith(b"CONNECT receiver.invalid:443 ")


def test_a_name_that_does_not_resolve(sender: Sender) -> None:
    """The error contains the name. A second look-up comes from the cache."""
    for _ in range(2):
        result = sender.result("http://nowhere.invalid/")
        assert isinstance(result, errors.ConnectionError)
        assert "'nowhere.invalid' does not resolve" in str(result)


def test_localhost_by_name(sender: Sender, receive: Receive) -> None:
    """`localhost` resolves in any case and with a final dot."""
    receiver = receive(NO_CONTENT)
    sender.adapter._resolver._cache["dotted.test."] = _CachedAddresses(("127.0.0.1",), time.monotonic() + 60)
    for host in ("localhost", "LOCALHOST", "dotted.test."):
        assert sender.response(f"http://{host}:{receiver.port}/").status_code == 204


def test_a_name_that_hangs_is_a_connect_timeout(make_sender: MakeSender, receive: Receive) -> None:
    """A look-up without an answer ends at connect_timeout. Other names and addresses go on meanwhile."""
    receiver = receive(NO_CONTENT)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        clock = Clock()
        sender = make_sender(clock=clock, nameservers=[f"127.0.0.1:{silent.getsockname()[1]}"])
        hung: list[Result] = []
        for number in range(50):
            sender.submit(f"http://hung{number}.test/", hung)
        assert sender.response(f"http://localhost:{receiver.port}/").status_code == 204
        assert hung == []
        clock.now += 30  # the Sender's connect_timeout
        sender.turn_until(lambda: len(hung) == 50)
    assert {type(result) for result in hung} == {errors.ConnectTimeout}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("x", "a\r\nb: c"), ("x", "a\nb"), ("x", "a\0b"), ("x", "\u00e9"), ("x", "a\tb"), ("x", "\x7f")),
        *(("a b", "x"), ("a:b", "x"), ("", "x"), ("a\r\nb", "x"), ("\u00e9", "x"), ("Host: x", "y")),
        *(("Host", "evil"), ("hOST", "evil"), ("Transfer-Encoding", "chunked"), ("Connection", "close")),
    ],
)
def test_dangerous_headers_never_reach_the_wire(sender: Sender, receive: Receive, name: str, value: str) -> None:
    """Headers that could end a line or frame the message raise InvalidHeader, and nothing is sent."""
    receiver = receive(NO_CONTENT)
    request = sender.prepare(receiver.url)
    request.headers[name] = value
    results: list[Result] = []
    sender.adapter.submit(request, results.append)
    assert results == []
    sender.turn_until(lambda: results)
    assert isinstance(results[0], errors.InvalidHeader)
    assert receiver.connections == 0


@pytest.mark.parametrize(
    "url", ["ftp://127.0.0.1/", "http://", "http://127.0.0.1:99999/", "nonsense", "", "file:///etc/passwd"]
)
def test_an_invalid_url(sender: Sender, url: str) -> None:
    """It ends as InvalidURL in the callback, not as an exception from submit."""
    request = sender.prepare("http://127.0.0.1/")
    request.url = url
    results: list[Result] = []
    sender.adapter.submit(request, results.append)
    sender.turn_until(lambda: results)
    assert isinstance(results[0], errors.InvalidURL)


def test_a_refused_connection(sender: Sender) -> None:
    """It is a ConnectionError and no time-out."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    result = sender.result(f"http://127.0.0.1:{port}/")
    assert isinstance(result, errors.ConnectionError)
    assert not isinstance(result, errors.Timeout | EgressRefused)


def test_a_connection_that_is_not_accepted_times_out(make_sender: MakeSender) -> None:
    """A full backlog (as with a firewall that drops packets) and a hung TLS handshake are a ConnectTimeout."""
    sender = make_sender(connect_timeout=0.3)
    with socket.create_server(("127.0.0.1", 0), backlog=10) as listener:  # the kernel completes the connections
        result = sender.result(f"https://127.0.0.1:{listener.getsockname()[1]}/")
    assert isinstance(result, errors.ConnectTimeout)
    assert str(result).endswith(" within 0.3 s")  # not the limit of the whole exchange
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, contextlib.ExitStack() as filling:
        for _ in range(4):
            client = filling.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        result = sender.result(f"http://127.0.0.1:{listener.getsockname()[1]}/")
    assert isinstance(result, errors.ConnectTimeout)
    assert str(result).endswith(" within 0.3 s")


def test_a_forbidden_address_beside_an_unreachable_one_is_no_refusal(sender: Sender) -> None:
    """The next attempt may reach the allowed one. A name without any allowed address is refused."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    cache = sender.adapter._resolver._cache
    for addresses, kind in (
        (("10.0.0.1", "127.0.0.1"), errors.ConnectionError),
        (("127.0.0.1", "10.0.0.1"), errors.ConnectionError),
        (("10.0.0.1", "10.0.0.2"), EgressRefused),
    ):
        name = f"n{len(cache)}.test"
        cache[name] = _CachedAddresses(addresses, time.monotonic() + 60)
        assert type(sender.result(f"http://{name}:{port}/")) is kind


def test_resolving_a_name_counts_towards_the_time_limit(make_sender: MakeSender, receive: Receive) -> None:
    """The limit covers the whole exchange. A receiver that hangs gets the time that the look-up has left."""
    clock, results = Clock(), list[Result]()
    sender, receiver = make_sender(timeout=0.6, clock=clock), receive(b"", "hang")
    waiting: list[Callable[[Resolution], None]] = []
    sender.adapter._resolver.resolve = lambda _name, answered: waiting.append(answered)  # type: ignore[assignment,method-assign]
    begin = clock.now
    sender.submit(f"http://slow.test:{receiver.port}/", results)
    for _ in range(2):  # no turn is late
        clock.now += 0.2
        sender.poller.turn(0)
    waiting[0](("127.0.0.1",))
    sender.turn_until(lambda: receiver.requests)
    assert isinstance(sender.timed_out(results, clock), errors.ReadTimeout)
    assert 0.5 < clock.now - begin < 0.9


def test_a_request_may_have_its_own_time_limit(sender: Sender, receive: Receive) -> None:
    """`timeout` of submit replaces the adapter's, for that request only."""
    receiver = receive(b"", "hang")
    results: list[Result] = []
    sender.adapter.submit(sender.prepare(receiver.url), results.append, timeout=0.2)
    sender.turn_until(lambda: results)
    assert isinstance(results[0], errors.ReadTimeout)
    assert str(results[0]) == "no answer within 0.2 s"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def tls(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def test_certificates_are_verified(
    monkeypatch: pytest.MonkeyPatch, make_sender: MakeSender, receive: Receive, authority: trustme.CA
) -> None:
    """A trusted certificate with the right name passes, on kept TLS connections. All others are an SSLError."""
    good = receive(NO_CONTENT, tls=tls(authority, "127.0.0.1"))
    other = receive(NO_CONTENT, tls=tls(authority, "x.test"))
    assert isinstance(make_sender().result(good.url), errors.SSLError)
    with authority.cert_pem.tempfile() as bundle:
        monkeypatch.setenv("SSL_CERT_FILE", bundle)
        sender = make_sender()
        for _ in range(3):
            assert sender.response(good.url).status_code == 204
        assert good.requests
        assert sender.adapter.connections_opened == 1
        assert isinstance(sender.result(other.url), errors.SSLError)
    assert other.requests == []
