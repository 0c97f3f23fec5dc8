"""Late turns of the loop, after a pause of the process or a long wait: received bytes are read before time-outs."""

import select
import socket
import threading
from types import SimpleNamespace

import pytest
from requests.exceptions import ConnectTimeout, ReadTimeout

from consumer.loop.poller import GAP
from consumer.sending.transfer import Result
from tests.sending.conftest import NO_CONTENT, Net, black_hole, statuses


def test_only_a_late_turn_is_reported(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first turn is not late, and neither is one that waited as long as requested."""
    poller, clock = net.sender(clock=net.clock).poller, net.clock
    told: list[float] = []
    poller.on_gap(lambda: told.append(clock.now))

    def pass_by(seconds: float) -> None:
        poller.post(lambda: None)  # the turn does not wait
        clock.now += seconds
        poller.turn(5.0)

    def wait(timeout: float, _limit: int) -> list[tuple[int, int]]:
        clock.now += timeout
        return []

    pass_by(0)
    pass_by(GAP - 0.01)
    assert told == []
    pass_by(GAP + 0.01)
    assert len(told) == 1
    with monkeypatch.context() as patch:
        patch.setattr(poller, "_epoll", SimpleNamespace(poll=wait))
        poller.turn(5.0)
    assert len(told) == 1


class Stage:
    """A sender whose clock stands still unless the test moves it, and receivers that answer when the test says so."""

    def __init__(self, net: Net, **limits: float) -> None:
        self.clock = net.clock
        self.sender = net.sender(clock=net.clock, **limits)
        self.results: list[Result] = []
        self._net = net
        self._answers: list[tuple[threading.Event, threading.Event]] = []

    def submit(self, text: bytes = NO_CONTENT) -> None:
        """Send a request, which has arrived when this returns. Its answer comes with `answer`, or never."""
        go, answered = threading.Event(), threading.Event()
        self._answers.append((go, answered))

        def behave(connection: socket.socket, _request: bytes) -> bool:
            while not go.wait(0.05):
                if select.select([connection], [], [], 0)[0]:  # the client has left
                    return False
            connection.sendall(text)
            answered.set()
            return bool(connection.recv(1))

        receiver = self._net.receive(behave)
        self.sender.submit(receiver.url, self.results)
        self.sender.turn_until(lambda: receiver.requests)

    def answer(self) -> None:
        """All receivers answer: the answers wait in the kernel when this returns."""
        for go, answered in self._answers:
            go.set()
            assert answered.wait(60)

    def result(self, step: float) -> tuple[Result, float]:
        """Turn with these seconds between the turns, until there is a result. Returns it and the time it took."""
        began = self.clock.now
        self.sender.timed_out(self.results, step)
        return self.results.pop(), self.clock.now - began


def test_answers_that_came_during_a_pause_are_read_before_the_time_out(net: Net) -> None:
    """The process was paused or waited for Kafka. Otherwise each answered request would be sent once more."""
    stage = Stage(net, timeout=0.5)
    for _ in range(3):
        stage.submit()
    stage.answer()
    stage.clock.now += 0.8
    stage.sender.turn_until(lambda: len(stage.results) == 3)
    assert statuses(stage.results) == {204: 3}


def test_a_request_unanswered_after_a_pause_has_its_time_once_more(net: Net) -> None:
    """Not more than that, however often the loop is late. The next request to the receiver has the usual limit."""
    stage = Stage(net, timeout=0.6, connect_timeout=0.6)
    stage.submit()
    stage.clock.now += 0.8
    result, took = stage.result(GAP + 0.05)
    assert isinstance(result, ReadTimeout)
    assert 0.5 < took < 1.3
    assert stage.sender.adapter.in_flight == 0
    stage.submit()
    result, took = stage.result(0.05)
    assert isinstance(result, ReadTimeout)
    assert 0.5 < took < 0.9


def test_an_answer_that_came_just_before_another_late_turn_is_read_first(net: Net) -> None:
    """The turn in which its time is over is also the one that reads it."""
    stage = Stage(net, timeout=0.6)
    stage.submit()
    stage.clock.now += 0.5
    stage.sender.poller.turn(0)
    stage.answer()
    stage.clock.now += 0.8
    stage.sender.turn_until(lambda: stage.results)
    assert statuses(stage.results) == {204: 1}


def test_a_status_line_that_came_counts_whatever_its_body_does(net: Net) -> None:
    """As always: the event is delivered, and must not be sent again because of a body that is not needed."""
    stage = Stage(net, timeout=0.6)
    stage.submit(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx")
    stage.answer()
    stage.clock.now += 0.8
    result, _ = stage.result(0.1)
    assert statuses([result]) == {200: 1}


def test_a_connection_made_during_a_pause_is_used(net: Net) -> None:
    """By the clock, its time to connect is over. A connection that is not made by then is a ConnectTimeout."""
    stage = Stage(net, timeout=0.6, connect_timeout=0.1)
    stage.sender.submit(net.receive().url, stage.results)
    stage.sender.poller.turn(0)
    stage.clock.now += 0.5
    stage.sender.turn_until(lambda: stage.results)
    assert statuses([stage.results.pop()]) == {204: 1}
    with black_hole() as port:
        stage.sender.submit(f"http://127.0.0.1:{port}/", stage.results)
        stage.sender.poller.turn(0)
        stage.clock.now += 0.5
        result, _ = stage.result(0.1)
    assert isinstance(result, ConnectTimeout)


def test_a_time_out_is_judged_by_what_has_been_read(net: Net) -> None:
    """In a flood the poller leaves ready descriptors for later turns. An answer may wait there, but not for ever."""
    stage = Stage(net, timeout=5)
    stage.submit()
    (transfer,) = stage.sender.adapter._open
    for seconds, is_judged in ((5.5, False), (1.0, True)):
        stage.clock.now += seconds
        stage.sender.adapter._on_judgement()  # the poller has served no turn since
        assert (transfer.stage is None) is is_judged
    stage.sender.turn_until(lambda: stage.results)
    assert isinstance(stage.results[0], ReadTimeout)
