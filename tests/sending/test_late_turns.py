"""Late turns of the loop, after a pause of the process or a long wait: received bytes are read before time-outs."""

import select
import socket
import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from requests.exceptions import ConnectTimeout, ReadTimeout

from consumer.loop.poller import GAP
from consumer.sending.transfer import Result
from tests.sending.conftest import NO_CONTENT, Net, Sender, black_hole, statuses


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


def asked(net: Net, sender: Sender, text: bytes = NO_CONTENT) -> tuple[list[Result], Callable[[], None]]:
    """Send a request, which has arrived when this returns: where its result goes, and what lets its receiver answer.

    The answer waits in the kernel when that returns.
    """
    go, answered = threading.Event(), threading.Event()

    def behave(connection: socket.socket, _request: bytes) -> bool:
        while not go.wait(0.05):
            if select.select([connection], [], [], 0)[0]:  # the client has left
                return False
        connection.sendall(text)
        answered.set()
        return bool(connection.recv(1))

    def answer() -> None:
        go.set()
        assert answered.wait(60)

    receiver = net.receive(behave)
    results = sender.start(receiver.url)
    sender.turn_until(lambda: receiver.requests)
    return results, answer


def late(sender: Sender, results: list[Result], step: float) -> tuple[Result, float]:
    """Turn with these seconds between the turns, until there is a result. Returns it and the time it took."""
    began = sender.clock()
    return sender.timed_out(results, step), sender.clock() - began


def test_answers_that_came_during_a_pause_are_read_before_the_time_out(net: Net) -> None:
    """The process was paused or waited for Kafka. Otherwise each answered request would be sent once more."""
    sender = net.sender(clock=net.clock, timeout=0.5)
    several = [asked(net, sender) for _ in range(3)]
    for _, answer in several:
        answer()
    net.clock.now += 0.8
    for results, _ in several:
        sender.turn_until(lambda results=results: results)  # type: ignore[misc]
        assert statuses(results) == {204: 1}


def test_a_request_unanswered_after_a_pause_has_its_time_once_more(net: Net) -> None:
    """Not more than that, however often the loop is late. The next request to the receiver has the usual limit."""
    sender = net.sender(clock=net.clock, timeout=0.6, connect_timeout=0.6)
    results, _ = asked(net, sender)
    net.clock.now += 0.8
    result, took = late(sender, results, GAP + 0.05)
    assert isinstance(result, ReadTimeout)
    assert 0.5 < took < 1.3
    assert sender.adapter.in_flight == 0
    result, took = late(sender, asked(net, sender)[0], 0.05)
    assert isinstance(result, ReadTimeout)
    assert 0.5 < took < 0.9


def test_an_answer_that_came_just_before_another_late_turn_is_read_first(net: Net) -> None:
    """The turn in which its time is over is also the one that reads it."""
    sender = net.sender(clock=net.clock, timeout=0.6)
    results, answer = asked(net, sender)
    net.clock.now += 0.5
    sender.poller.turn(0)
    answer()
    net.clock.now += 0.8
    sender.turn_until(lambda: results)
    assert statuses(results) == {204: 1}


def test_a_status_line_that_came_counts_whatever_its_body_does(net: Net) -> None:
    """As always: the event is delivered, and must not be sent again because of a body that is not needed."""
    sender = net.sender(clock=net.clock, timeout=0.6)
    results, answer = asked(net, sender, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx")
    answer()
    net.clock.now += 0.8
    assert statuses([sender.timed_out(results)]) == {200: 1}


def test_a_connection_made_during_a_pause_is_used(net: Net) -> None:
    """By the clock, its time to connect is over. A connection that is not made by then is a ConnectTimeout."""
    sender = net.sender(clock=net.clock, timeout=0.6, connect_timeout=0.1)
    results = sender.start(net.receive().url)
    sender.poller.turn(0)
    net.clock.now += 0.5
    sender.turn_until(lambda: results)
    assert statuses(results) == {204: 1}
    with black_hole() as port:
        results = sender.start(f"http://127.0.0.1:{port}/")
        sender.poller.turn(0)
        net.clock.now += 0.5
        assert isinstance(sender.timed_out(results), ConnectTimeout)


def test_a_time_out_is_judged_by_what_has_been_read(net: Net) -> None:
    """In a flood the poller leaves ready descriptors for later turns. An answer may wait there, but not for ever."""
    sender = net.sender(clock=net.clock, timeout=5)
    results, _ = asked(net, sender)
    (transfer,) = sender.adapter._open
    for seconds, is_judged in ((5.5, False), (1.0, True)):
        net.clock.now += seconds
        sender.adapter._on_judgement()  # the poller has served no turn since
        assert (transfer.stage is None) is is_judged
    sender.turn_until(lambda: results)
    assert isinstance(results[0], ReadTimeout)
