"""Late turns of the loop, after a pause of the process or a long wait: received bytes are read before time-outs."""

import contextlib
import socket
import time
from collections.abc import Callable

import pytest
from requests.exceptions import ConnectTimeout, ReadTimeout

from consumer.loop.poller import GAP, Poller
from consumer.sending.adapter import Result
from tests.sending.conftest import MakeSender, Receive, Sender


def test_only_a_late_turn_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first turn is not late, and neither is one that waited as long as requested."""
    now = [100.0]
    poller = Poller(lambda: now[0])
    told: list[float] = []
    poller.on_gap(lambda: told.append(now[0]))

    def pass_by(seconds: float) -> None:
        poller.post(lambda: None)  # the turn does not wait
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
    """Answers this many seconds after the request."""

    def behave(connection: socket.socket, _request: bytes) -> bool:
        time.sleep(seconds)
        connection.sendall(text)
        return True

    return behave


def stand_still(sender: Sender, seconds: float) -> None:
    """Let submitted requests go out. Then the loop does not turn for a while."""
    for _ in range(10):
        sender.poller.turn(0.01)
    time.sleep(seconds)


def test_answers_that_came_during_a_pause_are_read_before_the_time_out(
    make_sender: MakeSender, receive: Receive
) -> None:
    """The process was paused or waited for Kafka. Otherwise each answered request would be sent once more."""
    sender = make_sender(timeout=0.5)
    results: list[Result] = []
    for seconds in (0.2, 0.2, 0.4):
        sender.submit(receive(after(seconds)).url, results)
    stand_still(sender, 0.8)
    sender.turn_until(lambda: len(results) == 3)
    assert [getattr(result, "status_code", result) for result in results] == [204] * 3


def test_a_request_unanswered_after_a_pause_has_its_time_once_more(make_sender: MakeSender, receive: Receive) -> None:
    """Not more than that, however often the loop is late. The next request to the receiver has the usual limit."""
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


def test_an_answer_that_came_just_before_another_late_turn_is_read_first(
    make_sender: MakeSender, receive: Receive
) -> None:
    """The turn in which its time is over is also the one that reads it."""
    sender = make_sender(timeout=0.6)
    results: list[Result] = []
    sender.submit(receive(after(1.0)).url, results)
    stand_still(sender, 0.5)
    sender.poller.turn(0)
    time.sleep(0.8)
    sender.turn_until(lambda: results)
    assert getattr(results[0], "status_code", results[0]) == 204


def test_a_status_line_that_came_counts_whatever_its_body_does(make_sender: MakeSender, receive: Receive) -> None:
    """As always: the event is delivered, and must not be sent again because of a body that is not needed."""
    sender = make_sender(timeout=0.6)
    results: list[Result] = []
    sender.submit(receive(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", "hang").url, results)
    stand_still(sender, 0.8)
    sender.turn_until(lambda: results)
    assert getattr(results[0], "status_code", results[0]) == 200


def test_a_connection_made_during_a_pause_is_used(make_sender: MakeSender, receive: Receive) -> None:
    """By the clock, its time to connect is over. A connection that is not made by then is a ConnectTimeout."""
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


def test_a_time_out_is_judged_by_what_has_been_read(make_sender: MakeSender, receive: Receive) -> None:
    """In a flood the poller leaves ready descriptors for later turns. An answer may wait there, but not for ever."""
    late = [0.0]
    sender = make_sender(timeout=5, clock=lambda: time.monotonic() + late[0])
    results: list[Result] = []
    sender.submit(receive(b"", "hang").url, results)
    sender.poller.turn(0)
    for late[0], is_judged in ((5.5, False), (6.5, True)):
        sender.adapter._on_judgement()  # the poller has served no turn since
        assert bool(sender.adapter._ended) is is_judged
    sender.turn_until(lambda: results)
    assert isinstance(results[0], ReadTimeout)
