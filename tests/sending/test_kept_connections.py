"""Kept connections: when a request may be sent once more, and what a receiver may do between two requests."""

import select
import socket
import threading
import time
from itertools import count
from typing import Any
from unittest.mock import Mock

import pytest
from requests import exceptions as errors

from consumer.sending.tls import PIECE
from consumer.sending.transfer import Result
from tests.sending.conftest import NO_CONTENT, Behaviour, Net, answer, in_turn, own_connections, statuses

TIMED_OUT = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
LARGE = b"x" * 8_000_000
ENDS = pytest.mark.parametrize("how", ["close", "reset", "half-close"])


@ENDS
@pytest.mark.parametrize("body", [b"{}", LARGE], ids=["small", "large"])
def test_a_kept_connection_that_closes_unanswered_costs_no_delivery(net: Net, how: str, body: bytes) -> None:
    """The request is sent whole on a new one: servers close idle connections at any moment (RFC 9112, 9.3.1)."""
    sender, receiver = net.sender(), net.receive(in_turn(NO_CONTENT, answer(b"", how), NO_CONTENT))
    sender.response(receiver.url)
    assert sender.response(sender.prepare(receiver.url, body)).status_code == 204
    assert receiver.connections == 2
    assert receiver.requests[2] == receiver.requests[1]
    assert receiver.requests[2].endswith(b"\r\n\r\n" + body)


@ENDS
def test_a_request_on_a_fresh_connection_is_never_sent_again(net: Net, how: str) -> None:
    """The receiver may have processed it."""
    receiver = net.receive(b"", how)
    result = net.sender().result(receiver.url)
    assert type(result) is errors.ConnectionError
    assert "the connection was closed before an answer came" in str(result)
    assert (receiver.connections, len(receiver.requests)) == (1, 1)


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize(
    ("text", "sent"), [(b"", 3), (b"H", 2), (b"HTTP/1.1 20", 2), (b"HTTP/1.1 100 Continue\r\n\r\n", 2)]
)
def test_a_request_is_sent_once_more_at_most(net: Net, how: str, text: bytes, sent: int) -> None:
    """The second connection is fresh, so its result is final. After a byte of an answer there is no second one."""
    sender, receiver = net.sender(), net.receive(in_turn(NO_CONTENT, answer(text, how)))
    sender.response(receiver.url)
    assert type(sender.result(receiver.url)) is errors.ConnectionError
    assert (receiver.connections, len(receiver.requests)) == (sent - 1, sent)


def answer_and(text: bytes, go_on: threading.Event) -> Behaviour:
    """Answers, and later sends `text` and closes the connection."""

    def behave(connection: socket.socket, _request: bytes) -> bool:
        connection.sendall(NO_CONTENT)
        go_on.wait(60)
        connection.sendall(text)
        if text == b"\0":
            connection.recv(1)  # the end is our close
        return False

    return behave


@pytest.mark.parametrize("text", [b"", TIMED_OUT, b"\0"], ids=["EOF", "408", "rubbish"])
def test_unrequested_bytes_close_an_idle_connection(net: Net, text: bytes) -> None:
    """It closes at once, so that they are not read as the next answer, and its descriptor is freed."""
    idle = threading.Event()
    sender, receiver = net.sender(), net.receive(answer_and(text, idle))
    before = own_connections()
    sender.response(receiver.url)
    assert len(sender.idle) == 1
    idle.set()
    sender.turn_until(lambda: not sender.idle)
    sender.turn_until(lambda: own_connections() <= before)
    assert sender.response(receiver.url).status_code == 204
    assert receiver.connections == 2


@pytest.mark.parametrize("text", [b"", TIMED_OUT], ids=["EOF", "408"])
def test_unrequested_bytes_not_yet_read_are_no_answer(net: Net, text: bytes) -> None:
    """A connection that was idle for longer than a moment is checked before it is used."""
    late, go_on = [0.0], threading.Event()
    sender, receiver = net.sender(clock=lambda: time.monotonic() + late[0]), net.receive(answer_and(text, go_on))
    sender.response(receiver.url)
    (connection,) = sender.idle
    go_on.set()
    select.select([connection.stream], [], [], 60)
    assert sender.idle == [connection]
    late[0] = 2.0
    assert sender.response(receiver.url).status_code == 204
    assert (receiver.connections, len(receiver.requests)) == (2, 2)


def filling(size: int) -> bytes:
    """An answer of exactly so many bytes."""
    head = b"HTTP/1.1 200 OK\r\nx: for-%d\r\nContent-Length: %d\r\n\r\n"
    return next(text + b"x" * length for length in range(size) if len(text := head % (2, length)) + length == size)


@pytest.mark.parametrize(("secure", "size"), [(True, 100), (True, PIECE - 22), (False, PIECE), (False, 2 * PIECE)])
def test_a_second_answer_to_one_request_is_not_the_answer_to_the_next(net: Net, size: int, *, secure: bool) -> None:
    """It shifted all later ones: a 200 for one event counted for another, whose own answer may be a 500.

    It lies unread behind the first answer: in a TLS record of its own, or beyond what one read takes.
    """
    answered, numbers = threading.Event(), count(1)

    def behave(connection: socket.socket, _request: bytes) -> bool:
        number = next(numbers)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        text = b"HTTP/1.1 200 OK\r\nx: for-%d\r\nContent-Length: 0\r\n\r\n" % number
        connection.sendall(filling(size) if number == 2 else text)
        if number == 2:
            connection.sendall(b"HTTP/1.1 500 X\r\nx: second\r\nContent-Length: 0\r\n\r\n")
            answered.set()
        return True

    sender, receiver = net.sender(), net.receive(behave, tls=net.tls() if secure else None)
    results: list[Any] = []

    def again(result: Result) -> None:
        results.append(result)
        if len(results) < 4:
            sender.adapter.submit(sender.prepare(receiver.url), again)

    results.append(sender.response(receiver.url))
    sender.adapter.submit(sender.prepare(receiver.url), again)
    assert answered.wait(60)
    sender.turn_until(lambda: len(results) == 4)
    assert [result.headers["x"] for result in results] == ["for-1", "for-2", "for-3", "for-4"]
    assert receiver.connections == 2


def test_an_idle_connection_is_used_until_it_is_old(net: Net) -> None:
    """Checking it does no harm. After a while it is closed, even if no request goes to its receiver any more."""
    late = [0.0]
    sender, receiver = net.sender(clock=lambda: time.monotonic() + late[0]), net.receive()
    for late[0] in (0.0, 20.0, 40.0):
        sender.response(receiver.url)
    for late[0] in (60.0, 94.0):
        sender.poller.turn(0)
        assert len(sender.idle) == 1
    late[0] = 106.0
    sender.poller.turn(0)
    assert (sender.idle, sender.open_sockets(), receiver.connections) == ([], 0, 1)
    assert sender.adapter._sweep.deadline is None


@pytest.mark.parametrize("then", ["close", "keep", "hang", "reset"])
@pytest.mark.parametrize("text", [b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nno!", NO_CONTENT])
@pytest.mark.parametrize("used", [False, True])
def test_an_answer_before_the_whole_body_counts(net: Net, text: bytes, then: str, *, used: bool) -> None:
    """The rest of the body is not sent, the connection not kept, and the request not sent again."""
    judged = threading.Event()

    def behave(connection: socket.socket, request: bytes) -> bool:
        is_small = b"Content-Length: 2\r\n" in request
        is_kept = answer(text, "keep" if is_small else then)(connection, request)
        if is_kept and not is_small:
            judged.wait(60)  # else it would read the body as the next request
        return is_kept

    sender, receiver = net.sender(), net.receive(behave, whole=False)
    if used:
        sender.response(receiver.url)
    results = sender.results(sender.prepare(receiver.url, LARGE))
    judged.set()
    assert statuses(results) == {int(text[9:12]): 1}
    assert sender.idle == []
    assert receiver.connections == 1


@pytest.mark.parametrize("how", ["reset", "half-close"])
def test_an_end_after_an_answer_does_not_change_it(net: Net, how: str) -> None:
    """The answer counts. No further request goes out on that connection, though a receiver would still read it."""
    sender, receiver = net.sender(), net.receive(NO_CONTENT, how)
    for number in range(1, 4):
        assert sender.response(receiver.url).status_code == 204
        sender.turn_until(lambda: not sender.idle)
        assert receiver.connections == number


def test_a_delivery_on_a_kept_connection_is_one_send_and_one_receive(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    """The poller's registration does not change: a system call costs as much as parsing the answer.

    It does for a large body, and is then as before: a writable socket would keep the loop turning.
    """
    ticks = count()
    sender = net.sender(clock=lambda: next(ticks) / 1e6)  # no turn is late, however busy the machine is
    receiver = net.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1000)
    sender.response(receiver.url)
    (connection,) = sender.idle
    stream, epoll = Mock(wraps=connection.stream), Mock(wraps=sender.poller._epoll)
    connection._send, connection._recv = stream.send, stream.recv
    monkeypatch.setattr(sender.poller, "_epoll", epoll)
    for _ in range(10):
        assert sender.response(receiver.url).status_code == 200
    assert [name for name, *_ in stream.method_calls] == ["send", "recv"] * 10
    assert {name for name, *_ in epoll.method_calls} == {"poll"}
    sender.response(sender.prepare(receiver.url, LARGE))
    assert [name for name, *_ in epoll.method_calls if name != "poll"] == ["modify"] * 2
    assert receiver.connections == 1


def test_a_new_connection_replaces_the_least_recently_used_one(net: Net) -> None:
    """Open and kept connections together stay within the bound, and so do descriptors."""
    sender, receivers = net.sender(max_connections=3), [net.receive() for _ in range(4)]
    for each in receivers:
        assert sender.response(each.url).status_code == 204
    assert len(sender.idle) == 3
    for each in receivers[1:]:
        sender.response(each.url)
    assert [each.connections for each in receivers] == [1, 1, 1, 1]
    sender.response(receivers[0].url)
    assert receivers[0].connections == 2
