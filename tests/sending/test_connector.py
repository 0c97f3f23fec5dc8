"""Opening connections: the order of addresses, addresses never used, time limits, and no descriptor left open."""

import contextlib
import os
import resource
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_network
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requests import exceptions as errors

from consumer.errors import EgressRefused, NoDescriptor
from consumer.sending.answer import Answer
from consumer.sending.connector import Dial
from consumer.sending.dns import alternated
from consumer.sending.egress import EgressPolicy
from consumer.sending.pool import none_left
from consumer.sending.route import placed
from consumer.sending.transfer import Result
from tests.sending.conftest import Clock, Net, Sender, black_hole, closed_port, own_connections
from tests.sending.test_egress import PRIVATE

OTHERS = EgressPolicy((ip_network("127.0.0.1/32"), ip_network("::1/128")))


def spellings(address: IPv4Address) -> list[str]:
    """The spellings of an address in a URL."""
    number = int(address)
    a, b, c, d = address.packed
    high, low = number >> 16, number & 0xFFFF
    inverted = number ^ 0xFFFFFFFF
    return [
        *(f"{address}", f"{address}.", f"{number}", f"{number}.", f"{number:#x}", f"0X{number:X}", f"0{number:o}"),
        *(f"{a}.{number & 0xFFFFFF}", f"{a}.{b}.{low}", f"{a:#x}.{b:#x}.{c:#x}.{d:#x}", f"0{a:o}.0{b:o}.0{c:o}.0{d:o}"),
        *(f"{a:#x}.{b}.0{low:o}", f"00{a:o}.{b:#x}.{c}.{d}", f"{a:#x}.{number & 0xFFFFFF:#x}."),
        *(f"[::ffff:{address}]", f"[::FFFF:{high:x}:{low:x}]", f"[0:0:0:0:0:ffff:{address}]", f"[::{address}]"),
        *(f"[64:ff9b::{address}]", f"[64:ff9b::{high:x}:{low:x}]", f"[2002:{high:x}:{low:x}::1]"),
        f"[2001:0:101:101:0:0:{inverted >> 16:x}:{inverted & 0xFFFF:x}]",  # Teredo
    ]


def private_hosts() -> Iterator[str]:
    """Addresses that are not public, in every spelling."""
    for text in PRIVATE:
        if ":" not in text:
            yield from spellings(IPv4Address(text))
        elif "%" not in text:
            yield from (f"[{text}]", f"[{text.upper()}]", f"[{IPv6Address(text).exploded}]", f"[{text}%25lo]")


@pytest.fixture
def connected_to(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """All addresses to which our sockets connect, in that order."""
    seen: list[str] = []
    connect_ex = socket.socket.connect_ex

    def connecting(self: socket.socket, address: tuple[Any, ...]) -> int:
        seen.append(address[0])
        return connect_ex(self, address)

    monkeypatch.setattr(socket.socket, "connect_ex", connecting)
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("our code never connects this way"))
    return seen


# The order of addresses.


@given(st.lists(st.sampled_from(["1.0.0.1", "1.0.0.2", "1.0.0.3", "2::1", "2::2", "2::3"]), unique=True))
def test_families_take_turns(addresses: list[str]) -> None:
    """The first address stays first, and each family keeps its order (RFC 8305, section 4)."""
    found = alternated(addresses)
    assert sorted(found) == sorted(addresses)
    assert found[:1] == addresses[:1]
    sixes, fours = ([one for one in found if (":" in one) is six] for six in (True, False))
    assert sixes == [one for one in addresses if ":" in one]
    assert fours == [one for one in addresses if ":" not in one]
    turns = [":" in one for one in found[: 2 * min(len(sixes), len(fours))]]
    assert all(one is not other for one, other in pairwise(turns))


def test_an_address_that_refuses_costs_no_time(
    net: Net, monkeypatch: pytest.MonkeyPatch, connected_to: list[str]
) -> None:
    """The next address is tried at once, as for a name of both families whose receiver listens on IPv4 only."""
    monkeypatch.setattr("consumer.sending.connector._ATTEMPT_DELAY", 60.0)
    sender = net.sender()
    sender.know("both.test", "::1", "127.0.0.3", "127.0.0.1")
    assert sender.response(net.receive().at("both.test")).status_code == 204
    assert connected_to == ["::1", "127.0.0.3", "127.0.0.1"]
    assert sender.adapter.connections_opened == 1


def test_an_address_that_does_not_answer_costs_a_quarter_of_a_second(net: Net, connected_to: list[str]) -> None:
    """Then the next one is tried beside it (RFC 8305, section 5). The connection that comes second is closed."""
    receiver, sender = net.receive(), net.sender(clock=net.clock)
    sender.know("half.test", "127.0.0.2", "127.0.0.3", "127.0.0.1")
    with black_hole("127.0.0.2", receiver.port):
        connected_to.clear()
        before = own_connections()
        results = sender.start(receiver.at("half.test"))
        sender.turn_until(lambda: connected_to)
        net.clock.now += 0.24
        for _ in range(3):
            sender.poller.turn(0)
        assert connected_to == ["127.0.0.2"]
        net.clock.now += 0.02
        sender.turn_until(lambda: results)
        assert connected_to == ["127.0.0.2", "127.0.0.3", "127.0.0.1"]
        sender.adapter._pool.close()
        sender.turn_until(lambda: own_connections() <= before)
        assert sender.open_sockets() == 0


def test_the_address_that_answers_last_is_waited_for(sender: Sender, connected_to: list[str]) -> None:
    """No address is given up because another one was tried."""
    with black_hole("127.0.0.2") as port, socket.create_server(("127.0.0.3", port)) as refusing:
        refusing.close()
        sender.know("slow.test", "127.0.0.2", "127.0.0.3")
        transfer = sender.submit(f"http://slow.test:{port}/", [])
        sender.turn_until(lambda: "127.0.0.3" in connected_to)
        sender.poller.turn(0.01)
        assert transfer.stage.late() == "no connection to 127.0.0.2"


def test_few_addresses_of_a_name_are_tried_at_once(net: Net, connected_to: list[str]) -> None:
    """Each takes a descriptor. The next one replaces the first, which has been silent for a second by then."""
    sender = net.sender(clock=net.clock)
    sender.know("many.test", *["127.0.0.1"] * 16)
    with black_hole() as port:
        before = own_connections()
        connected_to.clear()
        transfer = sender.submit(f"http://many.test:{port}/", [])
        for _ in range(15):
            net.clock.now += 0.251
            sender.poller.turn(0)
        assert len(connected_to) == 16
        assert own_connections() - before == 4
        assert transfer.stage.late().count("127.0.0.1") == 4
        sender.adapter.cancel(transfer)
        assert own_connections() == before


def test_when_all_addresses_refuse_the_error_names_one(sender: Sender, connected_to: list[str]) -> None:
    """It also has the system's message."""
    port = closed_port()
    sender.know("down.test", "127.0.0.2", "::1", "127.0.0.1")
    result = sender.result(f"http://down.test:{port}/")
    assert type(result) is errors.ConnectionError
    assert str(result) == f"no connection to 127.0.0.1:{port}: Connection refused"
    assert connected_to == ["127.0.0.2", "::1", "127.0.0.1"]
    sender.know("down6.test", "::1")
    assert f"[::1]:{port}: Connection refused" in str(sender.result(f"http://down6.test:{port}/"))


def test_a_dial_that_waits_again_does_not_delay_others(net: Net, connected_to: list[str]) -> None:
    """Its next address is due later than that of a dial that began after it."""
    sender = net.sender(clock=net.clock)
    sender.know("a.test", *["127.0.0.1"] * 4)
    sender.know("b.test", "127.0.0.1", "127.0.0.9")
    with black_hole() as port:
        connected_to.clear()
        first = sender.submit(f"http://a.test:{port}/", [])
        net.clock.now += 0.1
        sender.submit(f"http://b.test:{port}/", [])
        net.clock.now += 0.1
        first.stage.try_next()  # as after its address has refused
        for seconds in (0.051, 0.1):
            net.clock.now += seconds
            sender.poller.turn(0)
        assert connected_to[3:] == ["127.0.0.9"]


# Addresses that are never connected to.


def test_no_spelling_of_a_private_address_is_connected_to(net: Net, connected_to: list[str]) -> None:
    """With either scheme, in the URL or from a name server. The fixture records every connect call."""
    sender = net.sender(egress=EgressPolicy(allow_http=True), nameservers=["127.0.0.1:1"])
    hosts = list(private_hosts())
    assert len(hosts) > 500
    for number, host in enumerate(hosts):
        if host.startswith("["):
            sender.know(f"n{number}.test", host.strip("[]").replace("%25", "%"))
    named = [f"n{number}.test" for number, host in enumerate(hosts) if host.startswith("[")]
    results: list[Result] = []
    for url in [f"{scheme}://{host}:1/" for scheme in ("http", "https") for host in (*hosts, *named)]:
        prepared = sender.prepare("http://x/")
        prepared.url = url
        sender.submit(prepared, results)
    sender.turn_until(lambda: not sender.adapter.in_flight)
    assert [result for result in results if not isinstance(result, EgressRefused)] == []
    assert len(results) > 1_200
    assert connected_to == []
    assert sender.adapter.connections_opened == 0


def test_a_forbidden_address_among_others_is_not_connected_to(net: Net, connected_to: list[str]) -> None:
    """It is used neither before an allowed one nor when that one is down. If all are forbidden, it is refused."""
    sender, receiver = net.sender(egress=OTHERS), net.receive()
    sender.know("mixed.test", "10.0.0.1", "fe80::1", "127.0.0.1", "127.0.0.2")
    assert sender.response(receiver.at("mixed.test")).status_code == 204
    result = sender.result(f"http://mixed.test:{closed_port()}/")
    assert type(result) is errors.ConnectionError
    assert connected_to == ["127.0.0.1", "127.0.0.1"]
    sender.know("private.test", "10.0.0.1", "127.0.0.2")
    assert isinstance(sender.result(receiver.at("private.test")), EgressRefused)
    assert connected_to == ["127.0.0.1", "127.0.0.1"]


# Time limits and cancellation.

Stuck = tuple[dict[str, Any], str, str]


@contextlib.contextmanager
def stuck(stage: str, net: Net) -> Iterator[Stuck]:
    """The sender's options, the URL, and the error's text for a request that stops at this stage."""
    deaf = net.receive(b"HTTP/1.1 200 OK\r\n\r\n")
    half = net.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", "hang")
    with black_hole() as port, socket.create_server(("127.0.0.1", 0)) as listener:
        hole, silent = f"127.0.0.1:{port}", f"127.0.0.1:{listener.getsockname()[1]}"
        there = "https://x.test/"
        cases: dict[str, Stuck] = {
            "name": ({}, "http://hung.test/", "no address for hung.test"),
            "proxy name": ({"proxy": "http://hung.test:1"}, there, "no address for hung.test"),
            "connect": ({}, f"http://{hole}/", "no connection to 127.0.0.1"),
            "connect to proxy": ({"proxy": f"http://{hole}"}, there, "no connection to the proxy 127.0.0.1"),
            "TLS": ({}, f"https://{silent}/", "no TLS handshake with 127.0.0.1"),
            "TLS with proxy": ({"proxy": f"https://{silent}"}, there, "no TLS handshake with the proxy 127.0.0.1"),
            "CONNECT": ({"proxy": f"http://{silent}"}, there, "no answer to CONNECT from the proxy 127.0.0.1"),
            "TLS in tunnel": ({"proxy": deaf.base}, there, "no TLS handshake with x.test through the proxy"),
            "answer": ({}, f"http://{silent}/", "no answer"),
            "body": ({}, half.url, "no answer"),
        }
        yield cases[stage]


STAGES = ("name", "proxy name", "connect", "connect to proxy", "TLS", "TLS with proxy", "CONNECT", "TLS in tunnel")


def never_resolving(sender: Sender, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    """Names with "hung" never resolve. Connecting starts late after the submission, as on a busy machine."""
    resolver, place_of = sender.adapter._connector.resolver, sender.adapter._place
    known = resolver.resolve

    def placed_late(*ask: Any) -> Any:
        clock.now += 0.002
        return place_of(*ask)

    monkeypatch.setattr(sender.adapter, "_place", placed_late)
    monkeypatch.setattr(resolver, "resolve", lambda *ask: None if "hung" in ask[0] else known(*ask))


@pytest.mark.parametrize("stage", [*STAGES, "answer"])
def test_each_time_limit_names_the_missing_step(net: Net, monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    """Operators read it in `last_error`. No descriptor or handler stays open."""
    with stuck(stage, net) as (options, url, text):
        limit, results = 0.35 if stage == "answer" else 0.2, list[Result]()
        sender = net.sender(clock=net.clock, timeout=0.35, connect_timeout=limit, **options)
        never_resolving(sender, monkeypatch, net.clock)
        before = own_connections()
        sender.awaits(sender.submit(url, results), text)
        result = sender.timed_out(results)
        assert type(result) is (errors.ReadTimeout if stage == "answer" else errors.ConnectTimeout)
        assert str(result) == f"{text} within {limit} s"
        assert sender.open_sockets() == 0
        sender.turn_until(lambda: own_connections() <= before)


@pytest.mark.parametrize("how", ["cancel", "close"])
@pytest.mark.parametrize("stage", [*STAGES, "answer", "body"])
def test_a_cancelled_request_leaves_no_descriptor_open(
    net: Net, monkeypatch: pytest.MonkeyPatch, stage: str, how: str
) -> None:
    """At every stage, by cancelling the transfer or closing the adapter."""
    with stuck(stage, net) as (options, url, text):
        sender, results = net.sender(**options), list[Result]()
        never_resolving(sender, monkeypatch, net.clock)
        before = own_connections()
        transfer = sender.submit(url, results)
        sender.awaits(transfer, text)
        if stage == "body":
            sender.turn_until(lambda: isinstance(transfer.stage.late(), Answer))
        for _ in range(3):
            sender.poller.turn(0.01)
        assert "name" in stage or sender.open_sockets() == 1
        for _ in range(2):  # the second time does nothing
            (sender.adapter.cancel if how == "cancel" else lambda _: sender.adapter.close())(transfer)
        assert sender.open_sockets() == 0
        assert sender.adapter.in_flight == 0
        assert transfer.stage is None
        sender.turn_until(lambda: own_connections() <= before)
        assert results == []


@contextlib.contextmanager
def no_more_files() -> Iterator[None]:
    """Let this process open no more files."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("host", ["127.0.0.1", "name.test"])
def test_without_a_descriptor_there_is_no_attempt(net: Net, host: str) -> None:
    """The error says so, whether the connection or the look-up of the name has none. Kept connections are closed."""
    sender, receiver = net.sender(), net.receive()
    sender.response(receiver.url)
    assert len(sender.idle) == 1
    assert not none_left()
    with no_more_files():
        result = sender.result(f"http://{host}:1/")
    assert isinstance(result, NoDescriptor)
    assert "this process may open no more files" in str(result)
    assert sender.idle == []
    sender.response(receiver.url)


def test_a_failed_dial_may_be_cancelled(sender: Sender) -> None:
    """The requests that wait for it may be cancelled at the moment it ends."""
    ended: list[object] = []
    dial = Dial(sender.adapter._connector, placed(f"http://127.0.0.1:{closed_port()}/", None, None), ended.append)
    dial.start()
    sender.turn_until(lambda: ended)
    for _ in range(2):
        dial.cancel()
    assert [type(one) for one in ended] == [errors.ConnectionError]
