"""Look-ups of names: cached, shared, bounded, and none delays another."""

import socketserver
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from consumer.loop.poller import Poller
from consumer.sending import dns
from consumer.sending.dns import Resolution, Resolver, Unresolved
from tests.sending.conftest import Clock
from tests.waiting import eventually


class NameServer(socketserver.UDPServer):
    """Answers A queries of names below `good.test` with 192.0.2.7; hangs for `hung`; NXDOMAIN for all other names.

    `many.good.test` has 30 addresses of each family.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), socketserver.BaseRequestHandler)
        self.address = f"127.0.0.1:{self.server_address[1]}"
        self.queries: list[str] = []
        threading.Thread(target=self.serve_forever, args=(0.005,), daemon=True).start()

    def finish_request(self, request: Any, client_address: Any) -> None:
        query, listener = request
        labels, place = [], 12
        while query[place]:
            labels.append(query[place + 1 : place + 1 + query[place]].decode())
            place += 1 + query[place]
        kind = struct.unpack_from("!H", query, place + 1)[0]
        question, name = query[12 : place + 5], ".".join(labels).lower()
        self.queries.append(name)
        if "hung" in name:
            return
        good = name.endswith("good.test")
        addresses = [bytes((192, 0, 2, 7))] if good and kind == 1 else []
        if name.startswith("many."):
            start = b"\xc0\0\x02" if kind == 1 else b"\x20\x01\x0d\xb8" + bytes(11)
            addresses = [start + bytes((last,)) for last in range(30)]
        answers = b"".join(b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 60, len(each)) + each for each in addresses)
        head = query[:2] + struct.pack("!HHHHH", 0x8180 if good else 0x8183, 1, len(addresses), 0, 0)
        listener.sendto(head + question + answers, client_address)


class Asking:
    """A resolver that asks a server, and whose clock stands still."""

    def __init__(self, server: NameServer, timeout: float = 60) -> None:
        self.clock, self.poller = Clock(), Poller()
        self.resolver = Resolver(self.poller, timeout=timeout, servers=[server.address], clock=self.clock)
        self.cached = self.resolver.cached

    def turn_until(self, done: Callable[[], object]) -> None:
        eventually(done, meanwhile=lambda: self.poller.turn(0.05))

    def ask(self, *names: str) -> list[Resolution]:
        """The answers to simultaneous look-ups."""
        answers: list[Resolution] = []
        for name in names:
            self.resolver.resolve(name, answers.append)
        assert answers == []  # never inside the call
        self.turn_until(lambda: len(answers) == len(names))
        return answers

    def close(self) -> None:
        self.resolver.close()
        self.poller.close()


@pytest.fixture
def server() -> Iterator[NameServer]:
    with NameServer() as made:
        yield made
        made.shutdown()


@pytest.fixture
def asking(server: NameServer) -> Iterator[Asking]:
    made = Asking(server)
    yield made
    made.close()


def test_a_name_resolves_and_is_cached(asking: Asking, server: NameServer) -> None:
    """Two simultaneous look-ups are one query. The answer is cached until it expires (30 s here)."""
    assert asking.ask("a.good.test", "a.good.test") == [("192.0.2.7",)] * 2
    assert server.queries.count("a.good.test") == 2  # A and AAAA
    asking.clock.now += 29.9
    assert asking.cached("a.good.test") == ("192.0.2.7",)
    asking.clock.now += 0.2
    assert asking.cached("a.good.test") is None


def test_the_number_of_addresses_is_limited(asking: Asking) -> None:
    """A connection may try each of them, and a hostile answer has thousands. Both families are kept."""
    (answer,) = asking.ask("many.good.test")
    assert isinstance(answer, tuple)
    assert sorted(":" in address for address in answer) == [False] * 8 + [True] * 8
    assert asking.cached("many.good.test") == answer


def test_a_name_that_does_not_exist(asking: Asking) -> None:
    """The error contains the name, and is cached for a second."""
    (answer,) = asking.ask("nowhere.test")
    assert isinstance(answer, Unresolved)
    assert "'nowhere.test' does not resolve" in answer.text
    assert asking.cached("nowhere.test") == answer
    asking.clock.now += 1.1
    assert asking.cached("nowhere.test") is None


def test_fifty_hung_names_delay_no_other(server: NameServer) -> None:
    """A look-up without an answer does not delay the others, and ends after the time of its name server."""
    asking, hung = Asking(server, timeout=0.5), list[Resolution]()
    for number in range(50):
        asking.resolver.resolve(f"hung{number}.test", hung.append)
    assert asking.ask("b.good.test") == [("192.0.2.7",)]
    asking.turn_until(lambda: len(hung) == 50)
    assert all(isinstance(answer, Unresolved) and answer.timed_out for answer in hung)
    asking.close()


@pytest.mark.parametrize("name", ["a" * 64 + ".test", "a..b", "-", "x" * 300])
def test_impossible_names_are_unresolved(asking: Asking, name: str) -> None:
    """A name that cannot be put into a query ends as unresolved and raises nothing."""
    assert isinstance(asking.ask(name)[0], Unresolved)


def test_close_with_look_ups_open(asking: Asking) -> None:
    """No callback runs after `close`."""
    answers: list[Resolution] = []
    asking.resolver.resolve("hung.test", answers.append)
    asking.resolver.close()
    for _ in range(3):
        asking.poller.turn(0.01)
    assert answers == []


def test_a_look_up_of_many_names_ends_in_time(server: NameServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name whose servers have not answered by then is unresolved, however long they may still take."""
    servers = [server.address]
    monkeypatch.setattr(dns, "Resolver", lambda poller, **_: Resolver(poller, timeout=60, servers=servers))
    found = dns.resolve_all(["hung1.test", "hung2.test"], 0.2)
    assert [isinstance(answer, Unresolved) and answer.timed_out for answer in found.values()] == [True, True]
