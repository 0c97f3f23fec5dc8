"""Requests and answers over real sockets: the bytes that arrive, the status that counts, and time limits."""

from collections.abc import Callable
from functools import partial

import pytest
import requests
from requests import exceptions as errors

from consumer.sending.answer import Answer
from consumer.sending.dns import Resolution
from consumer.sending.transfer import Result
from tests.sending.conftest import Net, Sender

NO_CONTENT = b"HTTP/1.1 204 No Content\r\nX-One: 1\r\nx-one: 2\r\n\r\n"


def test_a_post_arrives_as_it_was_prepared(net: Net) -> None:
    """The body byte for byte, the given headers, the body's length, and no other header."""
    sender, receiver = net.sender(), net.receive(NO_CONTENT)
    headers = {"webhook-id": "msg_1", "content-type": "application/json", "x-empty": "", "accept-encoding": "gzip"}
    response = sender.response(receiver.url + "?a=b", **headers)
    assert receiver.requests == [
        b"POST /hook?a=b HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nwebhook-id: msg_1\r\ncontent-type: application/json\r\n"
        b"x-empty:\r\nContent-Length: 2\r\n\r\n{}" % receiver.port
    ]
    assert (response.status_code, response.content) == (204, b"")
    assert response.headers["X-ONE"] == "1, 2"
    assert response.ok
    assert response.url == receiver.url + "?a=b"
    assert response.history == []


@pytest.mark.parametrize("then", ["close", "reset", "hang", "drip", "endless"])
@pytest.mark.parametrize("status", [200, 410, 503])
def test_a_status_line_counts_whatever_the_body_does(net: Net, then: str, status: int) -> None:
    """A cut, slow, endless or reset body does not change the status. At most 64 KiB of it are kept."""
    sender, results = net.sender(timeout=0.7, clock=net.clock), list[Result]()
    receiver = net.receive(b"HTTP/1.1 %d X\r\nRetry-After: 7\r\nContent-Length: 999999999\r\n\r\nabc" % status, then)
    transfer = sender.submit(receiver.url, results)
    if then in {"hang", "drip"}:
        sender.awaits(transfer, "no answer")
        sender.turn_until(lambda: isinstance(cut := transfer.stage.late(), Answer) and cut.body)
        sender.timed_out(results)
    sender.turn_until(lambda: results)
    (response,) = results
    assert isinstance(response, requests.Response), response
    assert response.status_code == status
    assert response.headers["retry-after"] == "7"
    if then != "reset":  # a reset may overtake the body
        assert response.content.startswith(b"abc")
    assert len(response.content) == 65536 if then == "endless" else len(response.content) < 100


@pytest.mark.parametrize(
    ("text", "then", "error"),
    [
        (b"", "close", errors.ConnectionError),
        (b"", "reset", errors.ConnectionError),
        (b"", "hang", errors.ReadTimeout),
        (b"HTTP/1.1 20", "hang", errors.ReadTimeout),
        (b"SSH-2.0-OpenSSH\r\n", "hang", errors.ConnectionError),
        (b"", "endless", errors.RequestException),
    ],
)
def test_no_status_line_is_an_error(net: Net, text: bytes, then: str, error: type[Exception]) -> None:
    """An invalid answer is an exception of requests, with its request, within the time limit."""
    sender = net.sender(timeout=0.5 if error is errors.ReadTimeout else 60)
    result = sender.result(net.receive(text, then).url)
    assert isinstance(result, error)
    assert isinstance(result, requests.RequestException)
    assert result.request is not None
    assert str(result)


def test_redirects_are_returned(net: Net) -> None:
    """A 3xx is an answer like any other. Its target gets no request."""
    target = net.receive()
    receiver = net.receive(b"HTTP/1.1 302 Found\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % target.url.encode())
    assert net.sender().response(receiver.url).status_code == 302
    assert target.connections == 0


def test_proxies_of_the_environment_are_ignored(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    """If http_proxy were obeyed, the egress rule would see only the proxy."""
    proxy, receiver = net.receive(), net.receive()
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "https_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
    net.sender().response(receiver.url)
    assert (proxy.connections, receiver.connections) == (0, 1)


def test_names_are_resolved(net: Net) -> None:
    """`localhost` in any case, and names with a final dot. The error for one without an address contains the name."""
    sender, receiver = net.sender(), net.receive()
    sender.know("dotted.test.", "127.0.0.1")
    for host in ("localhost", "LOCALHOST", "dotted.test."):
        assert sender.response(receiver.at(host)).status_code == 204
    result = sender.result("http://nowhere.invalid/")
    assert isinstance(result, errors.ConnectionError)
    assert "'nowhere.invalid' does not resolve" in str(result)


@pytest.mark.parametrize(
    ("name", "value"), [("x", "a\r\nb: c"), ("a b", "x"), ("hOST", "evil"), ("Connection", "close")]
)
def test_dangerous_headers_never_reach_the_wire(net: Net, name: str, value: str) -> None:
    """Headers that could end a line or frame the message raise InvalidHeader, and nothing is sent."""
    sender, receiver = net.sender(), net.receive()
    request = sender.prepare(receiver.url)
    request.headers[name] = value
    assert isinstance(sender.result(request), errors.InvalidHeader)
    assert receiver.connections == 0


@pytest.mark.parametrize(
    "url", ["ftp://127.0.0.1/", "http://", "http://127.0.0.1:99999/", "nonsense", "", "file:///etc/passwd"]
)
def test_an_invalid_url(sender: Sender, url: str) -> None:
    """It ends as InvalidURL in the callback, not as an exception from submit."""
    request = sender.prepare("http://127.0.0.1/")
    request.url = url
    assert isinstance(sender.result(request), errors.InvalidURL)


def test_resolving_a_name_counts_towards_the_time_limit(net: Net) -> None:
    """The limit covers the whole exchange. A receiver that hangs gets the time that the look-up has left."""
    sender, receiver = net.sender(timeout=0.6, clock=net.clock), net.receive(b"", "hang")
    waiting: list[Callable[[Resolution], None]] = []
    sender.adapter._connector.resolver.resolve = lambda _name, answered: waiting.append(answered)  # type: ignore[assignment,method-assign]
    begin = net.clock.now
    results = sender.start(receiver.at("slow.test"))
    for _ in range(2):  # no turn is late
        net.clock.now += 0.2
        sender.poller.turn(0)
    waiting[0](("127.0.0.1",))
    sender.turn_until(lambda: receiver.requests)
    assert isinstance(sender.timed_out(results), errors.ReadTimeout)
    assert 0.5 < net.clock.now - begin < 0.9


def test_a_request_may_have_its_own_time_limit(net: Net) -> None:
    """`timeout` of submit replaces the adapter's, for that request only. `send` raises the error."""
    sender, receiver = net.sender(), net.receive(b"", "hang")
    others = sender.start(receiver.url)
    with pytest.raises(errors.ReadTimeout, match=r"^no answer within 0\.2 s$"):
        sender.adapter.send(sender.prepare(receiver.url), timeout=0.2)
    assert others == []
    sender.poller.post(partial(divmod, 1, 0))
    with pytest.raises(ZeroDivisionError):
        sender.adapter.send(sender.prepare(receiver.url), timeout=(50, 60))
    assert sender.adapter.in_flight == 1
