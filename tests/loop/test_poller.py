import os
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial

import pytest

from consumer.loop.poller import BUDGET, READ, WRITE, Poller


@pytest.fixture
def poller() -> Iterator[Poller]:
    result = Poller()
    yield result
    result.close()


def test_a_ready_descriptor_calls_its_handler(poller: Poller) -> None:
    """A handler runs when its descriptor is ready, with the ready events, and not after `unregister`."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        seen: list[int] = []
        poller.register(ours.fileno(), READ, seen.append)
        poller.turn(0)
        assert seen == []
        theirs.send(b"x")
        poller.turn(1)
        assert seen == [READ]
        poller.modify(ours.fileno(), WRITE)
        poller.turn(1)
        assert seen[1:] == [WRITE]
        poller.unregister(ours.fileno())
        poller.turn(0)
        assert len(seen) == 2


def test_a_descriptor_closed_before_it_is_unregistered(poller: Poller) -> None:
    """Libcurl and c-ares close descriptors before they report it. This is no error, and the number can be reused."""
    reader, writer = os.pipe()
    poller.register(reader, READ, lambda _: None)
    os.close(reader)
    poller.unregister(reader)
    again, other = os.pipe()
    assert again == reader
    seen: list[int] = []
    poller.register(again, READ, seen.append)
    os.write(other, b"x")
    poller.turn(1)
    assert seen
    poller.unregister(again)
    for fd in (writer, again, other):
        os.close(fd)


def test_an_event_of_a_closed_descriptor_does_not_reach_a_later_one_of_its_number(poller: Poller) -> None:
    """A handler may close a ready descriptor and open another. That connection must not appear connected."""
    quiet, news = os.pipe()
    pipes = [os.pipe() for _ in range(2)]
    seen: list[int] = []
    ran: list[int] = []

    def replace(own: int, other: int, _events: int) -> None:
        ran.extend(os.read(own, 1))
        poller.unregister(other)
        os.dup2(quiet, other)
        poller.register(other, READ, seen.append)

    for (reader, writer), (other, _) in (pipes, reversed(pipes)):
        os.write(writer, b"x")
        poller.register(reader, READ, partial(replace, reader, other))
    poller.turn(1)
    assert (len(ran), seen) == (1, [])
    os.write(news, b"x")
    poller.turn(1)
    assert seen == [READ]
    for fd in (quiet, news, *pipes[0], *pipes[1]):
        poller.unregister(fd)
        os.close(fd)


def test_post_from_another_thread_wakes_the_loop(poller: Poller) -> None:
    """A posted callback ends a wait at once, and runs on the loop's thread."""
    poller.turn(0)
    ran: list[int] = []
    thread = threading.Timer(0.05, lambda: poller.post(lambda: ran.append(threading.get_ident())))
    thread.start()
    begin = time.monotonic()
    poller.turn(60)
    thread.join()
    poller.turn(0)
    assert ran == [threading.get_ident()]
    assert time.monotonic() - begin < 30


def test_many_posts_are_all_run_in_order(poller: Poller) -> None:
    """No callback is lost even if there are more wake-ups than the wake-up socket holds."""
    ran: list[int] = []
    poller.turn(0)

    def flood() -> None:
        for number in range(20_000):
            poller.post(lambda number=number: ran.append(number))  # type: ignore[misc]

    thread = threading.Thread(target=flood)
    thread.start()
    thread.join()
    turns = 0
    while len(ran) < 20_000 and turns < 20_000:
        poller.turn(5)
        turns += 1
    assert ran == list(range(20_000))


def test_a_callback_that_posts_does_not_starve_the_sockets(poller: Poller) -> None:
    """A callback posted by a posted callback runs in the next turn, which does not wait."""
    ran = 0

    def again() -> None:
        nonlocal ran
        ran += 1
        poller.post(again)

    poller.post(again)
    begin = time.monotonic()
    for _ in range(3):
        poller.turn(60)
    assert ran == 3
    assert time.monotonic() - begin < 30


def test_a_turn_leaves_handlers_beyond_its_budget_for_the_next() -> None:
    """Many receivers may answer at once. The others come first in the next turn, which does not wait; timers run."""
    now = 100.0
    poller = Poller(lambda: now)
    ran: list[object] = []

    def work(fd: int, _events: int) -> None:
        nonlocal now
        now += BUDGET * 0.6
        ran.append(fd)

    pipes = [os.pipe() for _ in range(5)]
    for reader, writer in pipes:
        poller.register(reader, READ, partial(work, reader))
        os.write(writer, b"x")
    timer = poller.timer(lambda: ran.append("timer"))
    timer.deadline = now
    poller.turn(5)
    first = ran[:2]
    assert (len(ran), ran[2], poller.served_at) == (3, "timer", 100.0)
    for _ in range(2):
        poller.turn(5)
    assert ran[3:7] != first * 2
    assert set(ran[3:6]) | set(first) == {reader for reader, _ in pipes}
    poller.unregister(pipes[0][0])
    assert pipes[0][0] not in poller._ready
    for reader, writer in pipes:
        poller.unregister(reader)
        os.close(reader)
        os.close(writer)
    poller.turn(0)
    assert poller.served_at == now
    poller.close()


def test_a_turn_leaves_posted_callbacks_beyond_its_budget_for_the_next() -> None:
    """None is lost, their order stays, and the next turn does not wait."""
    now = 100.0
    poller = Poller(lambda: now)
    ran: list[int] = []

    def work(number: int) -> None:
        nonlocal now
        now += BUDGET * 0.6
        ran.append(number)

    for number in range(5):
        poller.post(partial(work, number))
    for most in (2, 4, 5):
        poller.turn(5)
        assert ran == list(range(most))
    poller.close()


def test_what_a_handler_posts_runs_after_the_next_wait(poller: Poller) -> None:
    """By then the poller has looked at all descriptors once more: a second answer of a receiver is seen first."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ran: list[str] = []

        def ready(_events: int) -> None:
            ran.append(ours.recv(1).decode())
            poller.post(lambda: ran.append("posted"))
            if len(ran) == 1:
                theirs.send(b"b")

        poller.register(ours.fileno(), READ, ready)
        theirs.send(b"a")
        for _ in range(3):
            poller.turn(5 if not ran else 0)
        assert ran[:3] == ["a", "b", "posted"]
        poller.unregister(ours.fileno())


def test_timers_follow_the_injected_clock() -> None:
    """A timer fires once, at its deadline and not before."""
    now = 100.0
    poller = Poller(lambda: now)
    fired: list[float] = []
    timer = poller.timer(lambda: fired.append(now))
    timer.deadline = 100.01
    poller.turn(0)
    assert fired == []
    now = 100.02
    poller.turn(5)
    poller.turn(0)
    assert fired == [100.02]
    timer.deadline = 101
    poller.remove_timer(timer)
    now = 102
    poller.turn(0)
    assert fired == [100.02]
    poller.close()


def test_an_exception_is_raised_after_all_callbacks(poller: Poller) -> None:
    """A bug in one callback is not hidden and does not keep the others from running."""
    ran: list[str] = []

    def bug() -> None:
        raise ZeroDivisionError

    timer = poller.timer(bug)
    timer.deadline = 0.0
    poller.post(lambda: ran.append("posted"))
    with pytest.raises(ZeroDivisionError):
        poller.turn(0)
    assert ran == ["posted"]
    poller.post(bug)
    poller.post(bug)
    with pytest.raises(ExceptionGroup) as caught:
        poller.turn(0)
    assert len(caught.value.exceptions) == 2
    poller.turn(0)


def test_post_after_close_is_ignored(poller: Poller) -> None:
    """A thread that finishes late (a database's, c-ares) must not fail because the loop has ended."""
    poller.turn(0)
    poller.close()
    thread = threading.Thread(target=poller.post, args=(lambda: None,))
    thread.start()
    thread.join()
