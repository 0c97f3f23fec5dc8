"""A bug of this program in a step of one request fails that request alone: the poller goes on, for other receivers."""

from collections.abc import Callable
from typing import Any

import pytest
import trustme
from requests import Response
from requests import exceptions as errors
from structlog.testing import capture_logs

from consumer.crypto.credentials import OAuth2
from consumer.sending import oauth2
from consumer.sending.adapter import LoopAdapter
from consumer.sending.answer import AnswerReader
from consumer.sending.connection import Connection
from consumer.sending.connector import Dial, TunnelReader
from consumer.sending.exchange import SignedRequest
from consumer.sending.http2_session import Http2Session
from consumer.sending.transfer import Result
from tests.sending.conftest import (
    LOOPBACK,
    NO_CONTENT,
    MakeSender,
    Receive,
    Sender,
    black_hole,
    server_tls,
)
from tests.sending.http2_kit import Receive2, answering, request
from tests.sending.signed_kit import signed
from tests.sending.test_oauth2 import grant
from tests.sending.test_proxy import Proxy

Way = tuple[Sender, Callable[[], Any]]  # a sender, and what makes the next request


@pytest.fixture
def way_of(trusted: trustme.CA, receive: Receive, receive2: Receive2, make_sender: MakeSender) -> Callable[[str], Way]:
    """Senders and their requests, by protocol."""

    def make(protocol: str) -> Way:
        tls = server_tls(trusted.issue_cert("127.0.0.1", "receiver.test"))
        receiver = receive(NO_CONTENT, tls=None if protocol in ("http", "token") else tls)
        options: dict[str, Any] = {"egress": LOOPBACK}
        url = receiver.url
        if protocol == "proxy":
            options["proxy"] = receive(Proxy(receiver)).url.removesuffix("/hook")
            url = url.replace("127.0.0.1", "receiver.test")
        sender = make_sender(**options)
        if protocol == "token":
            auth = OAuth2(receive(grant("t0ken")).url, "client", "s3cret")
            return sender, lambda: signed(url, auth=auth)
        if protocol == "http2":
            url = receive2(answering()).url
            return sender, lambda: request(url)
        return sender, lambda: sender.prepare(url)

    return make


def bug(*_: Any, **__: Any) -> Any:
    raise ZeroDivisionError


def open_sockets(sender: Sender) -> int:
    """The sockets that the sender has open, but for idle connections."""
    return len(sender.poller._handlers) - len(sender.adapter._pool)


def result_of(sender: Sender, request: Any) -> Result:
    results: list[Result] = []
    sender.adapter.submit(request, results.append)
    sender.turn_until(lambda: results)
    return results[0]


@pytest.mark.parametrize(
    ("protocol", "part", "step"),
    [
        ("http", Dial, "_on_peer"),
        ("http", Connection, "carry"),
        ("http", AnswerReader, "feed"),
        ("https", Dial, "_succeed"),
        ("proxy", TunnelReader, "feed"),
        ("token", SignedRequest, "authorize"),
        ("http2", Http2Session, "open"),
        ("http2", Http2Session, "receive"),
    ],
)
def test_a_bug_fails_its_request_alone(
    way_of: Callable[[str], Way], monkeypatch: pytest.MonkeyPatch, protocol: str, part: type, step: str
) -> None:
    """The bug is logged, the attempt fails with a text, nothing stays open, and the next request succeeds."""
    sender, make = way_of(protocol)
    before = open_sockets(sender)
    with monkeypatch.context() as broken, capture_logs() as logged:
        broken.setattr(part, step, bug)
        failed = result_of(sender, make())
    assert type(failed) is errors.ConnectionError
    assert str(failed) == "unexpected error of the worker (ZeroDivisionError); its log says more"
    assert [type(line["exc_info"]) for line in logged if line["log_level"] == "error"] == [ZeroDivisionError]
    assert sender.adapter.in_flight == 0
    sender.turn_until(lambda: open_sockets(sender) == before)
    succeeded = result_of(sender, make())
    assert isinstance(succeeded, Response), succeeded
    assert succeeded.ok


def test_a_bug_after_a_resolved_name_or_at_the_next_address_fails_its_request(
    make_sender: MakeSender, receive: Receive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both happen in callbacks of the poller, of the resolver's answer and of a timer."""
    sender, receiver = make_sender(), receive(NO_CONTENT)
    url = receiver.url.replace("127.0.0.1", "localhost")
    with monkeypatch.context() as broken:
        broken.setattr(Dial, "try_next", bug)
        assert "unexpected error" in str(sender.result(url))
    assert sender.response(url).status_code == 204
    with black_hole() as port, monkeypatch.context() as broken:
        sender.know("silent.test", "127.0.0.1", "::1")
        results: list[Result] = []
        sender.submit(f"http://silent.test:{port}/", results)
        sender.poller.turn(0)
        broken.setattr(Dial, "try_next", bug)
        sender.turn_until(lambda: results)
        assert "unexpected error" in str(results[0])


def test_a_bug_in_sending_the_frames_of_a_turn_ends_the_connection(
    receive2: Receive2, make_sender: MakeSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The requests on it fail. The next one opens another connection."""
    sender, receiver = make_sender(), receive2(lambda got: got.answer() if got.body == b"now" else None)
    results: list[Result] = []
    assert isinstance(result_of(sender, request(receiver.url, b"now")), Response)
    sender.adapter.submit(request(receiver.url, b"never"), results.append)
    with monkeypatch.context() as broken:
        broken.setattr(Http2Session, "take", bug)
        sender.adapter.submit(request(receiver.url, b"second"), results.append)
        sender.turn_until(lambda: len(results) == 2)
    assert all("unexpected error of the worker" in str(each) for each in results)
    assert isinstance(result_of(sender, request(receiver.url, b"now")), Response)
    assert receiver.connections == 2


def test_a_bug_in_reading_a_token_fails_the_waiting_requests(
    way_of: Callable[[str], Way], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it does in starting the request for a token: the next fetch begins after the pause that follows a failure."""
    sender, make = way_of("token")
    for owner, name in ((oauth2, "token_of"), (LoopAdapter, "_start")):
        with monkeypatch.context() as broken:
            broken.setattr(owner, name, bug)
            failed = result_of(sender, make())
        assert "unexpected error of the worker" in str(failed)
        (state,) = sender.adapter._tokens._states.values()
        state.pause_until = 0.0
    assert isinstance(result_of(sender, make()), Response)


def test_a_bug_in_reading_a_late_answer_fails_its_request(
    make_sender: MakeSender, receive: Receive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer received so far is read when the time limit has passed."""
    sender = make_sender(timeout=0.2)
    receiver = receive(b"HTTP/1.1 500 X\r\nContent-Length: 9\r\n\r\nabc", then="hang")
    monkeypatch.setattr(AnswerReader, "end", bug)
    assert "unexpected error of the worker" in str(sender.result(receiver.url))


def test_an_idle_connection_whose_bytes_meet_a_bug_is_closed(
    sender: Sender, receive: Receive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is dropped from the pool, and the next request opens another one."""
    receiver = receive(NO_CONTENT)
    assert sender.response(receiver.url).status_code == 204
    (kept,) = sender.adapter._pool._idle
    assert isinstance(kept, Connection)
    monkeypatch.setattr(type(kept), "_read", bug)
    kept._ready(1)
    assert len(sender.adapter._pool) == 0
    monkeypatch.undo()
    assert sender.response(receiver.url).status_code == 204
    assert receiver.connections == 2
