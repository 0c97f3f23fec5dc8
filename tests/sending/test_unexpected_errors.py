"""A bug of this program in a step of one request fails that request alone: the poller goes on, for other receivers."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from requests import PreparedRequest, Response
from requests import exceptions as errors
from structlog.testing import capture_logs

from consumer.crypto.credentials import OAuth2
from consumer.sending import oauth2
from consumer.sending.adapter import LoopAdapter
from consumer.sending.connector import Dial, TunnelReader
from consumer.sending.exchange import SignedRequest
from consumer.sending.http2_session import Http2Session
from consumer.sending.tls import TlsStream
from tests.sending.conftest import Net, Sender, black_hole
from tests.sending.http2_kit import receive2
from tests.sending.signed_kit import grant, signed

UNEXPECTED = "unexpected error of the worker"


def way(net: Net, protocol: str) -> tuple[Sender, Callable[[], PreparedRequest]]:
    """A sender, and what makes its next request by this protocol."""
    if protocol == "token":
        receiver, auth = net.receive(), OAuth2(net.receive(grant("t0ken")).url, "client", "s3cret")
        return net.sender(), lambda: signed(receiver.url, auth=auth)
    if protocol == "http2":
        url, sender = receive2(net).url, net.sender(http2=True)
    elif protocol == "proxy":
        to = net.receive(tls=net.tls("receiver.test"))
        url, sender = to.at("receiver.test"), net.sender(proxy=net.proxy("http", to).base)
    else:
        receiver, sender = net.receive(tls=net.tls() if protocol == "https" else None), net.sender()
        url = receiver.at("localhost") if protocol == "name" else receiver.url
    return sender, lambda: sender.prepare(url)


def bug(*_: Any, **__: Any) -> Any:
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("protocol", "part", "step"),
    [
        ("http", Dial, "_on_peer"),
        ("name", Dial, "try_next"),
        ("https", TlsStream, "send"),
        ("https", TlsStream, "recv"),
        ("https", Dial, "_succeed"),
        ("proxy", TunnelReader, "feed"),
        ("token", SignedRequest, "authorize"),
        ("token", oauth2, "token_of"),
        ("token", LoopAdapter, "_start"),
        ("http2", Http2Session, "open"),
        ("http2", Http2Session, "receive"),
    ],
)
def test_a_bug_fails_its_request_alone(
    net: Net, monkeypatch: pytest.MonkeyPatch, protocol: str, part: object, step: str
) -> None:
    """The bug is logged, the attempt fails with a text, nothing stays open, and the next request succeeds.

    In reading a token it fails all that wait, and the next fetch begins after the pause that follows a failure.
    """
    sender, make = way(net, protocol)
    with monkeypatch.context() as broken, capture_logs() as logged:
        broken.setattr(part, step, bug)
        failed = sender.result(make())
    assert isinstance(failed, errors.RequestException)
    assert f"{UNEXPECTED} (ZeroDivisionError); its log says more" in str(failed)
    assert [type(line["exc_info"]) for line in logged if line["log_level"] == "error"] == [ZeroDivisionError]
    assert sender.adapter.in_flight == 0
    sender.turn_until(lambda: sender.open_sockets() == 0)
    for state in sender.adapter._tokens._states.values():
        state.pause_until = 0.0
    assert sender.response(make()).ok


def test_a_bug_at_the_next_address_fails_its_request(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    """It happens in a callback of a timer."""
    sender = net.sender()
    sender.know("silent.test", "127.0.0.1", "::1")
    with black_hole() as port, monkeypatch.context() as broken:
        results = sender.start(f"http://silent.test:{port}/")
        sender.poller.turn(0)
        broken.setattr(Dial, "try_next", bug)
        sender.turn_until(lambda: results)
        assert UNEXPECTED in str(results[0])


def test_a_bug_in_sending_the_frames_of_a_turn_ends_the_connection(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    """The requests on it fail. The next one opens another connection."""
    sender, receiver = net.sender(http2=True), receive2(net, lambda got: got.answer() if got.body == b"now" else None)
    now, never = (sender.prepare(receiver.url, body) for body in (b"now", b"never"))
    sender.response(now)
    results = sender.start(never)
    with monkeypatch.context() as broken:
        broken.setattr(Http2Session, "take", bug)
        sender.submit(receiver.url, results)
        sender.turn_until(lambda: len(results) == 2)
    assert all(UNEXPECTED in str(each) for each in results)
    sender.response(now)
    assert receiver.connections == 2


def test_a_bug_in_reading_a_late_answer_fails_its_request(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer received so far is read when the time limit has passed."""
    receiver = net.receive(b"HTTP/1.1 500 X\r\nContent-Length: 9\r\n\r\nabc", then="hang")
    monkeypatch.setattr("consumer.sending.answer._STATUS_LINE", SimpleNamespace(match=bug))
    assert UNEXPECTED in str(net.sender(timeout=0.2).result(receiver.url))


def test_an_idle_connection_whose_bytes_meet_a_bug_is_closed(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is dropped from the pool, and the next request opens another one."""
    sender, receiver = net.sender(), net.receive()
    sender.response(receiver.url)
    (kept,) = sender.idle
    with monkeypatch.context() as broken:
        broken.setattr(kept, "_recv", bug)
        kept._ready(1)
    assert sender.idle == []
    assert isinstance(sender.result(receiver.url), Response)
    assert receiver.connections == 2
