"""The loop stood still: the process was paused, or waited for something else. What came meanwhile is read first."""

import contextlib
import socket
import time
from collections.abc import Callable

import pytest
from requests.exceptions import ConnectTimeout, ReadTimeout

from consumer.loop.poller import GAP, Poller
from consumer.sending.adapter import Result
from tests.sending.conftest import MakeSender, Receive, Sender


def test_only_a_turn_that_is_late_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a first one, nor one that waited for what it was asked to."""
    now = [100.0]
    poller = Poller(lambda: now[0])
    told: list[float] = []
    poller.on_gap(lambda: told.append(now[0]))

    def pass_by(seconds: float) -> None:
        poller.post(lambda: None)  # no turn waits
        now[0] += seconds
        poller.turn(5.0)

    pass_by(0)
    pass_by(GAP - 0.01)
    assert told == []
    pass_by(GAP + 0.01)
    assert len(told) == 1

    class Epoll:
        def poll(self, timeout: float, _limit: int) -> list[tuple[int, int]]:
            now[0] += timeout
            return []

    with monkeypatch.context() as patch:
        patch.setattr(poller, "_epoll", Epoll())
        poller.turn(5.0)
    assert len(told) == 1
    poller.close()


def after(seconds: float, text: bytes = b"HTTP/1.1 204 No Content\r\n\r\n") -> Callable[[socket.socket, bytes], bool]:
    """Answers so long after the request."""

    def behave(connection: socket.socket, _request: bytes) -> bool:
        time.sleep(seconds)
        connection.sendall(text)
        return True

    return behave


def stand_still(sender: Sender, seconds: float) -> None:
    """What is submitted goes out; then the loop does not turn for a while."""
    for _ in range(10):
        sender.poller.turn(0.01)
    time.sleep(seconds)


def test_what_came_while_the_loop_stood_still_is_read_before_its_time_is_up(
    make_sender: MakeSender, receive: Receive
) -> None:
    """A process that was paused, or that waited for Kafka: else each answered request would be sent once more."""
    sender = make_sender(timeout=0.5)
    results: list[Result] = []
    for seconds in (0.2, 0.2, 0.4):
        sender.submit(receive(after(seconds)).url, results)
    stand_still(sender, 0.8)
    sender.turn_until(lambda: len(results) == 3)
    assert [getattr(result, "status_code", result) for result in results] == [204] * 3


def test_what_did_not_come_while_the_loop_stood_still_has_its_time_once_more(
    make_sender: MakeSender, receive: Receive
) -> None:
    """And no more than that, however often the loop is late; the handle's next request is judged as ever."""
    sender = make_sender(timeout=0.6, connect_timeout=0.6)
    hung = receive(b"", "hang")
    results: list[Result] = []
    sender.submit(hung.url, results)
    stand_still(sender, 0.8)
    begin = time.monotonic()
    while not results:
        assert time.monotonic() - begin < 2
        sender.poller.turn(0)
        time.sleep(0.3)
    assert 0.5 < time.monotonic() - begin < 1.3
    assert isinstance(results[0], ReadTimeout)
    assert sender.adapter.in_flight == 0
    begin = time.monotonic()
    assert isinstance(sender.result(hung.url), ReadTimeout)
    assert 0.5 < time.monotonic() - begin < 0.9


def test_what_came_just_before_the_loop_is_late_again_is_read_first(make_sender: MakeSender, receive: Receive) -> None:
    """The turn that finds its time over is the one that reads it."""
    sender = make_sender(timeout=0.6)
    results: list[Result] = []
    sender.submit(receive(after(1.0)).url, results)
    stand_still(sender, 0.5)
    sender.poller.turn(0)
    time.sleep(0.8)
    sender.turn_until(lambda: results)
    assert getattr(results[0], "status_code", results[0]) == 204


def test_a_status_line_that_came_is_the_answer_whatever_its_body_does_then(
    make_sender: MakeSender, receive: Receive
) -> None:
    """As ever: the delivery is made, and must not be made again because of a body that nobody needs."""
    sender = make_sender(timeout=0.6)
    results: list[Result] = []
    sender.submit(receive(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", "hang").url, results)
    stand_still(sender, 0.8)
    sender.turn_until(lambda: results)
    assert getattr(results[0], "status_code", results[0]) == 200


def test_a_connection_that_was_made_while_the_loop_stood_still_is_used(
    make_sender: MakeSender, receive: Receive
) -> None:
    """Its time to connect is over by the clock alone. One that is not made then either is a ConnectTimeout."""
    sender = make_sender(timeout=0.6, connect_timeout=0.1)
    results: list[Result] = []
    sender.submit(receive(after(0)).url, results)
    sender.poller.turn(0)
    time.sleep(0.5)
    sender.turn_until(lambda: results)
    assert getattr(results[0], "status_code", results[0]) == 204
    results.clear()
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as filling:
        for _ in range(4):
            client = filling.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        sender.submit(f"http://127.0.0.1:{full.getsockname()[1]}/", results)
        sender.poller.turn(0)
        time.sleep(0.5)
        sender.turn_until(lambda: results)
    assert isinstance(results[0], ConnectTimeout)
