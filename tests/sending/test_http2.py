"""HTTP/2 to receivers that offer it, on the library h2."""

import ssl
import time
from collections import Counter
from collections.abc import Callable
from errno import EPIPE
from functools import partial
from random import Random
from typing import Any

import pytest
import requests
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hyperframe.frame import PingFrame
from requests import exceptions as errors

from consumer.sending import http2_sharing
from consumer.sending.answer import Answer
from consumer.sending.http2_connection import Http2Connection
from consumer.sending.http2_session import Http2Session
from consumer.sending.http2_sharing import Sharing
from consumer.sending.transfer import Result, Transfer
from tests.sending.conftest import NO_CONTENT, Net, Sender, black_hole, descriptors, statuses
from tests.sending.http2_kit import Got, Http2Receiver, cut, goaway, raw, receive2
from tests.sending.signed_kit import signed
from tests.waiting import eventually

LARGE = b"0123456789" * 300_000
CLOSED = "the connection was closed before an answer came"


def answering(body: bytes) -> Callable[[Got], None]:
    """Answers 200 and this body."""
    return lambda got: got.answer(200, body)


def answer_all(held: list[Got]) -> None:
    """Answer the requests that a receiver has held."""
    while held:
        held.pop().answer(200)


def pair(net: Net, behave: Callable[[Got], None] = Got.answer, **options: Any) -> tuple[Sender, Http2Receiver]:
    """A sender whose requests ask for HTTP/2, and a receiver with these options."""
    return net.sender(http2=True), receive2(net, behave, **options)


def sharing_of(sender: Sender) -> Sharing:
    assert sender.adapter._sharing is not None
    return sender.adapter._sharing


def connection_of(transfer: Transfer) -> Any:
    stage: Any = transfer.stage
    return stage._abandon.__self__


def test_one_connection_carries_all_requests(net: Net) -> None:
    """It carries them at once, up to our limit, and one after another. It is kept in between."""
    held = list[Got]()
    sender, receiver = pair(net, held.append)
    results = sender.start(*[receiver.url] * 100)
    sender.turn_until(lambda: len(held) == 100)
    assert results == []
    receiver._behave = Got.answer
    answer_all(held)
    sender.turn_until(lambda: len(results) == 100)
    for _ in range(3):
        sender.response(receiver.url)
    assert statuses(results) == {200: 100}
    assert len(receiver.peers) == sender.adapter.connections_opened == 1
    assert [type(connection) for connection in sender.idle] == [Http2Connection]


@pytest.mark.parametrize("way", ["direct", "windows stay closed", "http", "https"])
def test_large_bodies_go_both_ways(net: Net, way: str) -> None:
    """As far as the receiver's windows are open, also in a tunnel and with TLS in TLS, on one connection."""
    receiver = receive2(net, answering(b"y" * 65_000), acknowledges=way != "windows stay closed")
    by_proxy = net.proxy(way, receiver).base if way.startswith("http") else ""
    sender = net.sender(http2=True, proxy=by_proxy)
    bodies = [LARGE[:60_000]] if way == "windows stay closed" else [LARGE, *(LARGE[: 50_000 * n] for n in range(10))]
    results = sender.results(*(signed(receiver.url, body, http2=True) for body in bodies))
    assert [isinstance(each, requests.Response) and each.content for each in results] == [b"y" * 65_000] * len(bodies)
    assert sorted(got.body for got in receiver.got) == sorted(bodies)
    assert len(receiver.peers) == 1


def test_a_receiver_may_choose_http_1_1(net: Net) -> None:
    """Each request then has a connection of its own, and all of these are kept."""
    sender = net.sender(http2=True)
    for protocols in (["http/1.1"], []):  # the second one does not support ALPN
        tls = net.tls()
        if protocols:
            tls.set_alpn_protocols(protocols)
        receiver = net.receive(tls=tls)
        assert statuses(sender.results(*[receiver.url] * 5)) == {204: 5}
        sender.response(receiver.url)
        assert receiver.connections == 5
        assert set(receiver.protocols) == {*protocols} or {None}
    assert sharing_of(sender)._groups == {}


def test_other_subscriptions_get_http_1_1(net: Net) -> None:
    """Whatever the receiver offers, also between requests of subscriptions with HTTP/2. Plain http has no HTTP/2."""
    tls = net.tls()
    tls.set_alpn_protocols(["h2", "http/1.1"])
    receiver, sender = net.receive(NO_CONTENT, "close", tls=tls), net.sender()
    results = [sender.result(signed(receiver.url, http2=http2)) for http2 in (False, True, False)]
    assert receiver.protocols[0] == receiver.protocols[-1] == "http/1.1"
    assert [isinstance(result, requests.Response) for result in results] == [True, False, True]
    plain = net.receive()
    sender.response(signed(plain.url, http2=True))
    assert plain.requests[0].startswith(b"POST /hook HTTP/1.1\r\n")


def test_a_low_limit_of_streams_opens_more_connections(net: Net) -> None:
    """The receiver's limit holds for each connection. Waiting requests go out as soon as there is room."""
    held = list[Got]()
    sender, receiver = pair(net, held.append, settings={SettingCodes.MAX_CONCURRENT_STREAMS: 2})
    results = sender.start(*[receiver.url] * 6)
    sender.turn_until(lambda: len(held) == 6)
    assert len(receiver.peers) == sender.adapter.connections_opened == 3
    answer_all(held)
    sender.turn_until(lambda: len(results) == 6)
    assert statuses(results) == {200: 6}
    assert len(sender.idle) == 3


def test_a_request_that_times_out_ends_alone(net: Net) -> None:
    """The receiver gets a RST_STREAM, and the other requests on the connection are answered."""
    held, late = list[Got](), list[Result]()
    sender, receiver = pair(net, held.append, acknowledges=False)
    other = sender.start(receiver.url)
    sender.turn_until(lambda: len(held) == 1)
    sender.adapter.submit(signed(receiver.url, LARGE, http2=True), late.append, timeout=0.3)
    sender.turn_until(lambda: late)
    assert isinstance(late[0], errors.ReadTimeout)
    assert str(late[0]) == "no answer within 0.3 s"
    answer_all(held)
    sender.turn_until(lambda: other)
    assert statuses(other) == {200: 1}
    (peer,) = receiver.peers
    sender.turn_until(lambda: peer.resets)
    assert peer.resets == [(3, ErrorCodes.CANCEL)]


def test_a_status_counts_though_the_body_is_late(net: Net) -> None:
    """As with HTTP/1.1."""

    def behave(got: Got) -> None:
        with got.peer.speaking() as h2:
            h2.send_headers(got.stream, [(":status", "410"), ("retry-after", "7")])
            h2.send_data(got.stream, b"xxx")

    sender, receiver = net.sender(http2=True, timeout=0.4, clock=net.clock), receive2(net, behave)
    results = list[Result]()
    transfer = sender.submit(receiver.url, results)
    sender.awaits(transfer, "no answer")
    sender.turn_until(lambda: isinstance(cut := transfer.stage.late(), Answer) and cut.body)
    short = sender.timed_out(results)
    assert isinstance(short, requests.Response)
    assert (short.status_code, short.content, short.headers["retry-after"]) == (410, b"xxx", "7")


def test_after_a_time_out_on_a_silent_connection_another_one_is_used(net: Net) -> None:
    """The other end may have disappeared silently. With HTTP/1.1, too, a time-out ends its connection."""
    held = list[Got]()
    sender = net.sender(http2=True, timeout=0.3, clock=net.clock)
    receiver = receive2(net, held.append, acknowledges=False)
    first = sender.start(receiver.url)
    sender.turn_until(lambda: held)
    answer_all(held)
    sender.turn_until(lambda: first)
    second = sender.start(receiver.url)
    sender.turn_until(lambda: held)
    assert isinstance(sender.timed_out(second), errors.ReadTimeout)
    sender.start(receiver.url)
    sender.turn_until(lambda: len(held) == 2)
    assert len(receiver.peers) == 2


def test_the_request_that_opens_the_connection_may_be_cancelled(net: Net) -> None:
    """One of the waiting requests opens another connection."""
    sender, receiver = pair(net)
    results: list[Result] = []
    first, *_ = (sender.submit(receiver.url, results) for _ in range(4))
    sender.adapter.cancel(first)
    sender.turn_until(lambda: len(results) == 3)
    assert statuses(results) == {204: 3}
    assert len(receiver.peers) == 1


def test_a_request_that_waits_opens_a_connection_when_the_others_has_closed(net: Net) -> None:
    """The connection closes with its only request, as its receiver has not sent its settings yet."""
    tls = net.tls()
    tls.set_alpn_protocols(["h2"])
    silent, sender = net.receive(b"", "hang", tls=tls), net.sender(http2=True)
    first, second = (sender.submit(silent.url, []) for _ in range(2))
    sender.awaits(first, "no answer")
    sender.awaits(second, "no free connection")
    sender.adapter.cancel(first)
    sender.awaits(second, "no answer")
    assert sender.adapter.connections_opened == 2


def test_waiting_requests_fail_with_their_connection(net: Net) -> None:
    """Each gets an error of its own. One that times out does not fail the others."""
    sender, receiver = pair(net)
    results = sender.results(*[receiver.at("localhost")] * 3)  # the certificate is for 127.0.0.1
    assert {type(result) for result in results} == {errors.SSLError}
    assert len(set(map(id, results))) == 3
    assert all(isinstance(result, requests.RequestException) and result.request is not None for result in results)
    with black_hole() as port:
        late: list[Result] = []
        for limit in (0.1, 0.3, 0.3):
            sender.adapter.submit(sender.prepare(f"https://127.0.0.1:{port}/"), late.append, timeout=limit)
        sender.turn_until(lambda: len(late) == 3)
    assert {type(result) for result in late} == {errors.ConnectTimeout}
    assert sharing_of(sender)._groups == {}


def test_an_unprocessed_request_is_sent_again(net: Net) -> None:
    """The receiver says that it has not processed it. The third refusal is final."""
    count = Counter[str]()

    def behave(got: Got) -> None:
        name = got.headers["x"]
        count[name] += 1
        if name == "once" and count[name] == 2:
            got.answer()
        else:
            got.reset(ErrorCodes.REFUSED_STREAM)

    sender, receiver = pair(net, behave)
    assert sender.response(receiver.url, x="once").status_code == 204
    error = sender.result(receiver.url, x="always")
    assert isinstance(error, errors.ConnectionError)
    assert str(error) == "it was sent 3 times, and refused or left each time before it was processed"
    assert count == {"once": 2, "always": 3}


def test_goaway_moves_requests_to_another_connection(net: Net) -> None:
    """Requests above the last processed one are sent again. The others are answered on the old connection."""
    held = list[Got]()
    sender, receiver = pair(net, held.append)
    results = sender.start(*[receiver.url] * 3)
    sender.turn_until(lambda: len(held) == 3)
    first = held[0]
    held.clear()
    first.peer.say(goaway(1))
    sender.turn_until(lambda: len(held) == 2)
    assert [got.peer for got in held] == [receiver.peers[1]] * 2
    first.answer(200)
    answer_all(held)
    sender.turn_until(lambda: len(results) == 3)
    assert statuses(results) == {200: 3}
    assert len(sender.idle) == 1


@pytest.mark.parametrize("how", ["closed", "goaway"])
def test_an_idle_connection_that_its_receiver_ends(net: Net, how: str) -> None:
    """The next request uses another one, whether it is submitted before or after the end is noticed."""
    sender, receiver = pair(net)
    for count in (1, 2, 3):
        assert sender.response(receiver.url).status_code == 204
        assert len(receiver.peers) == count
        peer = receiver.peers[-1]
        if how == "closed":
            cut(peer)
        else:
            peer.say(goaway(receiver.got[-1].stream))
        if count == 1:
            sender.turn_until(lambda: not sender.idle)


def test_an_endpoint_that_breaks_the_protocol_fails_alone(net: Net) -> None:
    """The other requests of the connection are answered on the next one."""

    def behave(got: Got) -> None:
        if len(receiver.peers) > 1:
            got.answer()
        elif len(receiver.got) == 5:
            bad = receiver.got[2]
            bad.peer.say(raw(5, 4, bad.stream, (2).to_bytes(4)))

    sender, receiver = pair(net, behave)
    results = sender.results(*[receiver.url] * 5)
    assert statuses(results) == {204: 4, "it broke the protocol: Received pushed stream": 1}


@pytest.mark.parametrize("scheme", ["", "https"])
def test_a_turn_reads_a_bounded_part_of_a_flood(net: Net, monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    """Others are served before the rest, also with TLS in TLS, which holds bytes that no poller reports."""
    frames = [0]  # of each turn
    on_frame, held = Http2Session._on_frame, list[Got]()

    def counted(session: Http2Session, *frame: Any) -> None:
        frames[-1] += 1
        on_frame(session, *frame)

    monkeypatch.setattr(Http2Session, "_on_frame", counted)
    receiver = receive2(net, held.append)
    sender = net.sender(http2=True, proxy=net.proxy(scheme, receiver).base if scheme else "")
    results = sender.start(receiver.url)
    sender.turn_until(lambda: held)
    for _ in range(600):
        held[0].peer.say(PingFrame(0, bytes(8)).serialize())
    answer_all(held)
    sender.turn_until(lambda: frames.append(0) or results)  # type: ignore[func-returns-value]
    assert sum(frames) > 600
    assert max(frames) < 600


def test_a_turn_reads_few_large_records(net: Net) -> None:
    """A head of 16 KiB takes more than 2 ms to decode."""
    held, results, reads = list[Got](), list[Result](), [0]  # of each turn
    sender, receiver = pair(net, held.append)
    transfer = sender.submit(receiver.url, results)
    sender.turn_until(lambda: held and connection_of(transfer).session.settled)
    stream = connection_of(transfer).stream
    own = stream.recv

    def receive(most: int) -> bytes:
        if sum(reads) == 64:
            return own(most)  # type: ignore[no-any-return]
        reads[-1] += 1
        return raw(0x42, 0, 0, bytes(16_000))

    stream.recv = receive
    answer_all(held)
    sender.turn_until(lambda: reads.append(0) or results)  # type: ignore[func-returns-value]
    assert sum(reads) == 64
    assert max(reads) <= 2, "a turn looks at most twice"


@pytest.mark.parametrize("code", [ErrorCodes.NO_ERROR, ErrorCodes.ENHANCE_YOUR_CALM])
def test_goaway_before_any_request_costs_no_attempt(net: Net, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """A server that is being replaced ends new connections: requests wait, and go to the next one that takes them."""
    monkeypatch.setattr(http2_sharing, "_REST", 0.01)

    def behave(got: Got) -> None:
        if len(receiver.peers) <= 2 * http2_sharing._REFUSALS:
            got.peer.say(goaway(0, code))
        else:
            got.answer()

    sender, receiver = pair(net, behave)
    assert statuses(sender.results(*[receiver.url] * 3)) == {204: 3}
    assert len(receiver.peers) == 2 * http2_sharing._REFUSALS + 1


def test_goaway_before_any_request_opens_connections_one_by_one(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many requests wait, the next connection comes after a rest. At their time-out the requests fail."""
    sender = net.sender(http2=True, timeout=0.5, clock=net.clock)
    receiver = receive2(net, lambda got: got.peer.say(goaway(0)))
    results: list[Result] = []
    monkeypatch.setattr(http2_sharing, "_REST", 60)
    for transfer in [sender.submit(receiver.url, results) for _ in range(20)]:
        sender.awaits(transfer, "127.0.0.1 ended a connection before any request")
    sender.timed_out(results)
    sender.turn_until(lambda: len(results) == 20)
    assert {type(result) for result in results} == {errors.ConnectTimeout}
    assert "127.0.0.1 ended a connection before any request within" in str(results[0])
    assert len(receiver.peers) == 1


def test_answers_that_came_before_a_write_failed_count(net: Net) -> None:
    """However many frames come with them, in several records; the other requests fail."""
    held, results = list[Got](), list[Result]()
    sender, receiver = pair(net, held.append)
    transfers = [sender.submit(receiver.url, results) for _ in range(3)]
    sender.turn_until(lambda: len(held) == 3 and connection_of(transfers[0]).session.settled)
    stream = connection_of(transfers[0]).stream
    pings = PingFrame(0, bytes(8)).serialize() * 250
    answers = [pings + raw(1, 5, transfer.stage.number, b"\x88") for transfer in transfers[:2]]
    came: list[bytes] = []

    def receive(_size: int) -> bytes:
        if not came:
            raise ssl.SSLWantReadError
        return came.pop()

    def send(_data: bytes) -> int:
        came.extend(answers)
        raise BrokenPipeError(EPIPE, "Broken pipe")

    stream.recv, stream.send = receive, send
    sender.submit(receiver.url, results)
    sender.turn_until(lambda: len(results) == 4)
    assert statuses(results) == {200: 2, f"{CLOSED}: Broken pipe": 2}
    assert len(receiver.peers) == 1


def test_a_connection_that_was_idle_for_long_is_checked_and_reused(net: Net) -> None:
    """Frames that have come meanwhile are read first. Afterwards it is kept as before."""
    ahead = 0.0
    sender, receiver = net.sender(http2=True, clock=lambda: time.monotonic() + ahead), receive2(net)
    for _ in range(3):
        sender.response(receiver.url)
        assert len(sender.idle) == 1
        receiver.peers[0].say(PingFrame(0, b"x" * 8).serialize())
        ahead += 5.0
    assert len(receiver.peers) == sender.adapter.connections_opened == 1
    assert sharing_of(sender)._groups == {}


def test_a_connection_is_used_for_ten_minutes(net: Net) -> None:
    """Even if it is never idle, since the name may have moved. Its open requests are still answered on it."""
    held, ahead = list[Got](), 0.0
    sender = net.sender(http2=True, timeout=1_000, clock=lambda: time.monotonic() + ahead)
    receiver = receive2(net, held.append)
    results: list[Result] = []
    for number, connections in ((1, 1), (2, 1), (3, 2)):
        ahead = 601.0 if connections == 2 else 0.0
        sender.submit(receiver.url, results)
        sender.turn_until(lambda number=number: len(held) == number)  # type: ignore[misc]
        assert len(receiver.peers) == connections
    answer_all(held)
    sender.turn_until(lambda: len(results) == 3)
    assert len(sender.idle) == 1


def test_ping_shows_the_receivers_choice(net: Net) -> None:
    """The steps of the exchange are shown as with HTTP/1.1."""
    sender, receiver = pair(net)
    result, seen = sender.adapter.exchange(sender.prepare(receiver.url), None)
    assert isinstance(result, requests.Response)
    assert str(seen.tls).endswith(" / HTTP/2")
    assert list(seen.seconds) == ["connect", "tls", "answer", "total"]
    assert seen.addresses == ("127.0.0.1",)


def moody(seed: int) -> Callable[[Got], None]:
    """Answers, refuses, resets, hangs, sends GOAWAY, breaks the protocol or closes the connection, at random."""
    chance = Random(seed)

    def behave(got: Got) -> None:
        moods: list[tuple[float, Callable[[], object]]] = [
            (0.6, lambda: got.answer(200, b"x" * chance.choice([0, 10, 20_000]))),
            (0.2, lambda: got.reset(chance.choice([ErrorCodes.REFUSED_STREAM, ErrorCodes.CANCEL]))),
            (0.1, lambda: got.peer.say(goaway(max(0, chance.choice([got.stream, got.stream - 2, 2**31 - 1]))))),
            (0.05, lambda: got.peer.say(raw(5, 0, 1, b""))),
            (0.03, partial(cut, got.peer)),
            (0.02, lambda: None),
        ]
        (mood,) = chance.choices([each for _, each in moods], [weight for weight, _ in moods])
        mood()

    return behave


@pytest.mark.parametrize("seed", range(2))
def test_any_order_of_submitting_and_cancelling(net: Net, seed: int) -> None:
    """Each request ends once or is cancelled. In the end no connection is open and no request in flight."""
    chance, tls = Random(seed), net.tls()
    with black_hole() as hole:
        few = {SettingCodes.MAX_CONCURRENT_STREAMS: 2}
        ends = [(then, context) for then in ("close", "reset", "hang") for context in (None, tls)]
        urls = [
            *(receive2(net, moody(number), settings=few if number % 2 else {}).url for number in range(4)),
            *(net.receive(tls=tls).url, net.receive().url, f"https://127.0.0.1:{hole}/", "nonsense:"),
            *(net.receive(b"HTTP/1.1 200 OK\r\n\r\nx", then, tls=context).url for then, context in ends),
            *(f"http://both.test:{hole}/", "http://10.0.0.1/", f"https://x{'x' * 64}.test/"),
        ]
        before = descriptors()
        sender = net.sender(timeout=0.5, connect_timeout=0.3)
        sender.know("both.test", "::1", "127.0.0.1", "10.0.0.1")
        ended: Counter[int] = Counter()
        cancelled: set[int] = set()
        transfers: dict[int, Transfer] = {}
        for number in range(1_200):
            if chance.random() < 0.4 or not transfers:
                url, body = chance.choice(urls), chance.choice((b"{}", LARGE[:300_000]))
                sent = signed("https://example.com/", body, http2=url in urls[:4] or chance.random() < 0.5)
                sent.url = url
                transfers[number] = sender.adapter.submit(sent, lambda _, number=number: ended.update([number]))  # type: ignore[misc]
            elif chance.random() < 0.2:
                chosen = chance.choice([*transfers])
                if not ended[chosen]:
                    cancelled.add(chosen)
                sender.adapter.cancel(transfers.pop(chosen))
            else:
                sender.poller.turn(chance.choice((0, 0, 0.001)))
        sender.turn_until(lambda: not sender.adapter.in_flight)
        assert set(ended.values()) == {1}
        assert not cancelled & ended.keys()
        assert transfers.keys() <= ended.keys()
        sender.turn_until(lambda: not sharing_of(sender)._groups)
        assert sender.open_sockets() == 0
        sender.close()
        eventually(lambda: descriptors() <= before)
