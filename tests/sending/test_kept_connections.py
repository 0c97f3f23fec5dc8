"""Kept connections: when a request may be sent once more, and what a receiver may do between two requests."""

import select
import socket
import threading
import time
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
import requests
import trustme
from requests import exceptions as errors

from consumer.sending.connection import Connection
from consumer.sending.tls import PIECE
from consumer.sending.transfer import Result
from tests.sending.conftest import (
    NO_CONTENT,
    Behaviour,
    MakeSender,
    Receive,
    Sender,
    descriptors,
    reset,
    server_tls,
)

TIMED_OUT = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
LARGE = b"x" * 8_000_000


def first_then(then: Behaviour) -> Behaviour:
    """Answers the very first request, and behaves as given for all later ones."""
    count = [0]

    def behave(connection: socket.socket, request: bytes) -> bool:
        count[0] += 1
        if count[0] > 1:
            return then(connection, request)
        connection.sendall(NO_CONTENT)
        return True

    return behave


def ending(how: str, text: bytes = b"") -> Behaviour:
    """Sends `text` and ends the connection in this way."""

    def behave(connection: socket.socket, _request: bytes) -> bool:
        connection.sendall(text)
        if how == "RST":
            time.sleep(0.05 if text else 0)  # the end would overtake the text
            reset(connection)
        elif how == "half-closed":
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1)
        return False

    return behave


def kept(sender: Sender) -> list[Connection]:
    return [connection for connection in sender.adapter._pool._idle if isinstance(connection, Connection)]


def send(sender: Sender, url: str, body: bytes) -> Result:
    results: list[Result] = []
    sender.adapter.submit(sender.prepare(url, body), results.append)
    sender.turn_until(lambda: results)
    return results[0]


@pytest.mark.parametrize("how", ["FIN", "RST", "half-closed"])
@pytest.mark.parametrize("body", [b"{}", LARGE], ids=["small", "large"])
def test_a_kept_connection_that_closes_unanswered_costs_no_delivery(
    sender: Sender, receive: Receive, how: str, body: bytes
) -> None:
    """The request is sent whole on a new one: servers close idle connections at any moment (RFC 9112, 9.3.1)."""
    seen: list[socket.socket] = []

    def behave(connection: socket.socket, request: bytes) -> bool:
        seen.append(connection)
        return answered(connection, request) if len(seen) != 2 else ending(how)(connection, request)

    def answered(connection: socket.socket, _request: bytes) -> bool:
        connection.sendall(NO_CONTENT)
        return True

    receiver = receive(behave)
    sender.response(receiver.url)
    result = send(sender, receiver.url, body)
    assert isinstance(result, requests.Response), result
    assert (result.status_code, receiver.connections) == (204, 2)
    assert receiver.requests[2] == receiver.requests[1]
    assert receiver.requests[2].endswith(b"\r\n\r\n" + body)


@pytest.mark.parametrize("how", ["FIN", "RST"])
def test_a_request_is_sent_once_more_and_not_twice(sender: Sender, receive: Receive, how: str) -> None:
    """The second connection is fresh, so its result is final."""
    receiver = receive(first_then(ending(how)))
    sender.response(receiver.url)
    assert type(sender.result(receiver.url)) is errors.ConnectionError
    assert (receiver.connections, len(receiver.requests)) == (2, 3)


@pytest.mark.parametrize("how", ["FIN", "RST", "half-closed"])
def test_a_request_on_a_fresh_connection_is_never_sent_again(sender: Sender, receive: Receive, how: str) -> None:
    """The receiver may have processed it."""
    receiver = receive(ending(how))
    result = sender.result(receiver.url)
    assert type(result) is errors.ConnectionError
    assert "the connection was closed before an answer came" in str(result)
    assert (receiver.connections, len(receiver.requests)) == (1, 1)


@pytest.mark.parametrize("how", ["FIN", "RST"])
@pytest.mark.parametrize("text", [b"H", b"HTTP/1.1 20", b"HTTP/1.1 100 Continue\r\n\r\n"])
def test_a_request_is_not_sent_again_after_a_byte_of_an_answer(
    sender: Sender, receive: Receive, how: str, text: bytes
) -> None:
    """The receiver has begun to answer."""
    receiver = receive(first_then(ending(how, text)))
    sender.response(receiver.url)
    assert type(sender.result(receiver.url)) is errors.ConnectionError
    assert (receiver.connections, len(receiver.requests)) == (1, 2)


@pytest.mark.parametrize("text", [b"", TIMED_OUT, b"\0"], ids=["EOF", "408", "rubbish"])
def test_unrequested_bytes_close_an_idle_connection(sender: Sender, receive: Receive, text: bytes) -> None:
    """It closes at once, so that they are not read as the next answer, and its descriptor is freed."""
    idle = threading.Event()

    def behave(connection: socket.socket, _request: bytes) -> bool:
        connection.sendall(NO_CONTENT)
        idle.wait(60)
        connection.sendall(text)
        if text:
            connection.recv(1)  # the end is our close
        return False

    receiver = receive(behave)
    before = descriptors()
    sender.response(receiver.url)
    assert len(kept(sender)) == 1
    idle.set()
    sender.turn_until(lambda: not kept(sender))
    sender.turn_until(lambda: descriptors() <= before)
    assert sender.response(receiver.url).status_code == 204
    assert receiver.connections == 2


@pytest.mark.parametrize("text", [b"", TIMED_OUT], ids=["EOF", "408"])
def test_unrequested_bytes_not_yet_read_are_no_answer(make_sender: MakeSender, receive: Receive, text: bytes) -> None:
    """A connection that was idle for longer than a moment is checked before it is used."""
    late = [0.0]
    sender = make_sender(clock=lambda: time.monotonic() + late[0])
    go_on = threading.Event()
    receiver = receive(answer_and(text, go_on))
    sender.response(receiver.url)
    (connection,) = kept(sender)
    go_on.set()
    select.select([connection.stream], [], [], 60)
    assert kept(sender) == [connection]
    late[0] = 2.0
    assert sender.response(receiver.url).status_code == 204
    assert (receiver.connections, len(receiver.requests)) == (2, 2)


def answer_and(text: bytes, go_on: threading.Event) -> Behaviour:
    """Answers, and later sends `text` and closes the connection."""

    def behave(connection: socket.socket, _request: bytes) -> bool:
        connection.sendall(NO_CONTENT)
        go_on.wait(60)
        connection.sendall(text)
        return False

    return behave


def filling(size: int) -> bytes:
    """An answer of exactly so many bytes."""
    head = b"HTTP/1.1 200 for-%d\r\nContent-Length: %d\r\n\r\n"
    return next(text + b"x" * length for length in range(size) if len(text := head % (2, length)) + length == size)


@pytest.mark.parametrize(("secure", "size"), [(True, 100), (True, PIECE - 22), (False, PIECE), (False, 2 * PIECE)])
def test_a_second_answer_to_one_request_is_not_the_answer_to_the_next(
    trusted: trustme.CA, make_sender: MakeSender, receive: Receive, size: int, *, secure: bool
) -> None:
    """It shifted all later ones: a 200 for one event counted for another, whose own answer may be a 500.

    It lies unread behind the first answer: in a TLS record of its own, or beyond what one read takes.
    """
    sender = make_sender()
    answered = threading.Event()
    count = 0

    def behave(connection: socket.socket, _request: bytes) -> bool:
        nonlocal count
        count += 1
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(filling(size) if count == 2 else b"HTTP/1.1 200 for-%d\r\nContent-Length: 0\r\n\r\n" % count)
        if count == 2:
            connection.sendall(b"HTTP/1.1 500 second\r\nContent-Length: 0\r\n\r\n")
            answered.set()
        return True

    receiver = receive(behave, tls=server_tls(trusted.issue_cert("127.0.0.1")) if secure else None)
    results: list[Any] = []

    def again(result: Result) -> None:
        results.append(result)
        if len(results) < 4:
            sender.adapter.submit(sender.prepare(receiver.url), again)

    results.append(sender.response(receiver.url))
    sender.adapter.submit(sender.prepare(receiver.url), again)
    assert answered.wait(60)
    sender.turn_until(lambda: len(results) == 4)
    assert [result.reason for result in results] == ["for-1", "for-2", "for-3", "for-4"]
    assert receiver.connections == 2


def test_a_connection_that_was_idle_without_unrequested_bytes_is_used(
    make_sender: MakeSender, receive: Receive
) -> None:
    """The check does not harm it."""
    late = [0.0]
    sender = make_sender(clock=lambda: time.monotonic() + late[0])
    receiver = receive(NO_CONTENT)
    for _ in range(3):
        sender.response(receiver.url)
        late[0] += 20
    assert receiver.connections == 1


def test_a_connection_that_idles_for_long_is_closed(make_sender: MakeSender, receive: Receive) -> None:
    """Even if no request goes to its receiver any more."""
    late = [0.0]
    sender, receiver = make_sender(clock=lambda: time.monotonic() + late[0]), receive(NO_CONTENT)
    sender.poller._clock = sender.adapter._clock
    sender.response(receiver.url)
    for late[0] in (50.0, 109.0):
        sender.poller.turn(0)
        assert len(kept(sender)) == 1
    late[0] = 121.0
    sender.poller.turn(0)
    assert (kept(sender), len(sender.poller._handlers)) == ([], 1)
    assert sender.adapter._sweep.deadline is None


@pytest.mark.parametrize("then", ["close", "keep", "hang", "reset"])
@pytest.mark.parametrize("text", [b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nno!", NO_CONTENT])
@pytest.mark.parametrize("used", [False, True])
def test_an_answer_before_the_whole_body_counts(
    sender: Sender, receive: Receive, text: bytes, then: str, *, used: bool
) -> None:
    """The rest of the body is not sent, the connection not kept, and the request not sent again."""
    judged = threading.Event()

    def behave(connection: socket.socket, request: bytes) -> bool:
        connection.sendall(text)
        if b"Content-Length: 2\r\n" in request:
            return True
        if then == "hang":
            connection.recv(1 << 16)
            time.sleep(0.05)
        elif then == "reset":
            time.sleep(0.05)
            reset(connection)
        elif then == "keep":
            judged.wait(60)  # else it would read the body as the next request
        return then == "keep"

    receiver = receive(behave, whole=False)
    if used:
        sender.response(receiver.url)
    result = send(sender, receiver.url, LARGE)
    judged.set()
    assert isinstance(result, requests.Response), result
    assert result.status_code == int(text[9:12])
    assert kept(sender) == []
    assert receiver.connections == 1


@pytest.mark.parametrize("how", ["RST", "half-closed"])
def test_an_end_after_an_answer_does_not_change_it(sender: Sender, receive: Receive, how: str) -> None:
    """The answer counts. No further request goes out on that connection, though a receiver would still read it."""
    receiver = receive(ending(how, NO_CONTENT))
    for number in range(1, 4):
        assert sender.response(receiver.url).status_code == 204
        sender.turn_until(lambda: not kept(sender))
        assert receiver.connections == number


class Counting:
    """Wraps an object and counts the calls of its methods."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self.calls.append(name)
            return getattr(self._real, name)(*arguments)

        return call


def test_a_delivery_on_a_kept_connection_is_one_send_and_one_receive(
    monkeypatch: pytest.MonkeyPatch, make_sender: MakeSender, receive: Receive
) -> None:
    """The poller's registration does not change: a system call costs as much as parsing the answer.

    It does for a large body, and is then as before: a writable socket would keep the loop turning.
    """
    ticks = count()
    sender = make_sender(clock=lambda: next(ticks) / 1e6)  # no turn is late, however busy the machine is
    receiver = receive(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1000)
    sender.response(receiver.url)
    (connection,) = kept(sender)
    stream, epoll = Counting(connection.stream), Counting(sender.poller._epoll)
    connection._send, connection._recv = stream.send, stream.recv
    monkeypatch.setattr(sender.poller, "_epoll", epoll)
    for _ in range(10):
        assert sender.response(receiver.url).status_code == 200
    assert stream.calls == ["send", "recv"] * 10
    assert set(epoll.calls) == {"poll"}
    send(sender, receiver.url, LARGE)
    assert [call for call in epoll.calls if call != "poll"] == ["modify"] * 2
    assert receiver.connections == 1


def test_a_callback_may_close_the_adapter(make_sender: MakeSender) -> None:
    """The other results of that turn are not passed to their callbacks."""
    sender = make_sender()
    ended: list[Result] = []

    def end(result: Result) -> None:
        ended.append(result)
        sender.adapter.close()

    for _ in range(3):
        sender.adapter.submit(sender.prepare("nonsense:"), end)
    sender.poller.turn(0)
    sender.poller.turn(0)
    assert len(ended) == 1
    assert sender.adapter.in_flight == 0


def test_a_new_connection_replaces_the_least_recently_used_one(make_sender: MakeSender, receive: Receive) -> None:
    """Open and kept connections together stay within the bound, and so do descriptors."""
    sender = make_sender(max_connections=3)
    receivers = [receive(NO_CONTENT) for _ in range(4)]
    for each in receivers:
        assert sender.response(each.url).status_code == 204
    assert len(sender.adapter._pool) == 3
    for each in receivers[1:]:
        sender.response(each.url)
    assert [each.connections for each in receivers] == [1, 1, 1, 1]
    sender.response(receivers[0].url)
    assert receivers[0].connections == 2
