"""HTTP/2 to receivers that offer it, on the library h2 and on node."""

import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterator
from errno import EPIPE
from random import Random
from typing import Any

import pytest
import requests
import trustme
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hyperframe.frame import DataFrame, PingFrame
from requests import exceptions as errors

from consumer.sending import http2_sharing
from consumer.sending.adapter import LoopAdapter
from consumer.sending.answer import Answer
from consumer.sending.http2_connection import Http2Connection
from consumer.sending.http2_session import Http2Session
from consumer.sending.http2_sharing import Sharing
from consumer.sending.tls import PIECE
from consumer.sending.transfer import Http2Exchange, Result, Transfer
from tests.sending.conftest import (
    LOOPBACK,
    NO_CONTENT,
    Clock,
    MakeSender,
    Receive,
    Sender,
    black_hole,
    descriptors,
    server_tls,
)
from tests.sending.http2_kit import (
    Got,
    Http2Sender,
    Receive2,
    answering,
    cut,
    goaway,
    raw,
    request,
)
from tests.sending.test_proxy import Proxy

LARGE = b"0123456789" * 300_000
ENDS = ("close", "reset", "hang")


@pytest.fixture
def make_sender2(receive: Receive, receive2: Receive2) -> Iterator[MakeSender]:
    del receive, receive2  # their receivers close after the senders, since they wait for the senders' connections
    made: list[Sender] = []

    def make(**options: Any) -> Sender:
        made.append(Http2Sender(**options))
        return made[-1]

    yield make
    for sender in made:
        sender.close()


@pytest.fixture
def sender2(make_sender2: MakeSender) -> Sender:
    return make_sender2()


def statuses(results: list[Result]) -> Counter[object]:
    return Counter(result.status_code if isinstance(result, requests.Response) else str(result) for result in results)


def idle(sender: Sender) -> list[Any]:
    return list(sender.adapter._pool._idle)


def sharing_of(sender: Sender) -> Sharing:
    assert sender.adapter._sharing is not None
    return sender.adapter._sharing


def connection_of(transfer: Transfer) -> Any:
    stage: Any = transfer.stage
    return stage._abandon.__self__


class Held:
    """Holds requests until `answer_all`."""

    def __init__(self) -> None:
        self.got: list[Got] = []

    def __call__(self, got: Got) -> None:
        self.got.append(got)

    def answer_all(self) -> None:
        while self.got:
            self.got.pop().answer(200)


def test_one_connection_carries_all_requests(sender2: Sender, receive2: Receive2) -> None:
    """It carries them at once, up to our limit, and one after another. It is kept in between."""
    held = Held()
    receiver = receive2(held)
    results: list[Result] = []
    for number in range(100):
        sender2.submit(receiver.url, results, x=str(number))
    sender2.turn_until(lambda: len(held.got) == 100)
    assert results == []
    held.answer_all()
    sender2.turn_until(lambda: len(results) == 100)
    for _ in range(3):
        sender2.submit(receiver.url, results)
        sender2.turn_until(lambda: held.got)
        held.answer_all()
        sender2.turn_until(lambda: not sender2.adapter.in_flight)
    assert statuses(results) == {200: 103}
    assert [peer.protocol for peer in receiver.peers] == ["h2"]
    assert sender2.adapter.connections_opened == 1
    assert {got.headers["x"] for got in receiver.got[:100]} == {str(number) for number in range(100)}
    assert [type(connection) for connection in idle(sender2)] == [Http2Connection]


def test_a_post_arrives_as_it_was_prepared(sender2: Sender, receive2: Receive2) -> None:
    """As with HTTP/1.1: the body byte for byte, the given headers, and the length."""
    receiver = receive2(answering(200, b"hello", x_one="1", retry_after="7"))
    response = sender2.response(receiver.url + "?a=b", **{"Webhook-Id": "msg_1", "x-empty": ""})
    (got,) = receiver.got
    assert got.body == b"{}"
    assert got.headers.pop("user-agent").startswith("kafka-webhooks/")
    assert list(got.headers.items()) == [
        *(
            (":method", "POST"),
            (":scheme", "https"),
            (":path", "/hook?a=b"),
            (":authority", f"127.0.0.1:{receiver.port}"),
        ),
        *(("webhook-id", "msg_1"), ("x-empty", ""), ("content-length", "2")),
    ]
    assert (response.status_code, response.content, response.reason) == (200, b"hello", "")
    assert (response.headers["X-One"], response.headers["retry-after"]) == ("1", "7")
    assert response.url == receiver.url + "?a=b"


@pytest.mark.parametrize("acknowledges", [True, False])
def test_large_bodies_go_both_ways(sender2: Sender, receive2: Receive2, acknowledges: bool) -> None:  # noqa: FBT001
    """Bodies go as far as the receiver's windows are open, also to a receiver that never opens them again."""
    receiver = receive2(answering(200, b"y" * 65_000), acknowledges=acknowledges)
    results: list[Result] = []
    body = LARGE if acknowledges else LARGE[:60_000]
    sender2.adapter.submit(request(receiver.url, body), results.append)
    sender2.turn_until(lambda: results)
    assert statuses(results) == {200: 1}
    assert isinstance(results[0], requests.Response)
    assert results[0].content == b"y" * 65_000
    assert receiver.got[0].body == body


def test_a_receiver_may_choose_http_1_1(sender2: Sender, receive: Receive, trusted: trustme.CA) -> None:
    """Each request then has a connection of its own, and all of these are kept."""
    chosen = []

    def behave(connection: Any, _request: bytes) -> bool:
        chosen.append(connection.selected_alpn_protocol())
        connection.sendall(NO_CONTENT)
        return True

    tls = server_tls(trusted.issue_cert("127.0.0.1"))
    tls.set_alpn_protocols(["http/1.1"])
    for context in (tls, server_tls(trusted.issue_cert("127.0.0.1"))):  # the second one does not support ALPN
        receiver = receive(behave, tls=context)
        results: list[Result] = []
        for _ in range(5):
            sender2.submit(receiver.url, results)
        sender2.turn_until(lambda: not sender2.adapter.in_flight)
        sender2.response(receiver.url)
        assert statuses(results) == {204: 5}
        assert receiver.connections == 5
    assert set(chosen) == {"http/1.1", None}
    assert sharing_of(sender2)._groups == {}


def test_other_subscriptions_get_http_1_1(make_sender: MakeSender, receive: Receive, trusted: trustme.CA) -> None:
    """Whatever the receiver offers, also between requests of subscriptions with HTTP/2."""
    chosen = []

    def behave(connection: Any, _request: bytes) -> bool:
        chosen.append(connection.selected_alpn_protocol())
        connection.sendall(NO_CONTENT)
        return False

    tls = server_tls(trusted.issue_cert("127.0.0.1"))
    tls.set_alpn_protocols(["h2", "http/1.1"])
    receiver, sender = receive(behave, tls=tls), make_sender()
    results: list[Result] = []
    for http2 in (False, True, False):
        sender.adapter.submit(request(receiver.url, http2=http2), results.append)
        sender.turn_until(lambda: not sender.adapter.in_flight)
    assert chosen[0] == chosen[-1] == "http/1.1"
    assert [isinstance(result, requests.Response) for result in results] == [True, False, True]
    plain = receive(NO_CONTENT)
    sender.adapter.submit(request(plain.url), results.append)  # HTTP/2 is for https
    sender.turn_until(lambda: not sender.adapter.in_flight)
    assert plain.requests[0].startswith(b"POST /hook HTTP/1.1\r\n")


def test_a_low_limit_of_streams_opens_more_connections(sender2: Sender, receive2: Receive2) -> None:
    """The receiver's limit holds for each connection. Waiting requests go out as soon as there is room."""
    held = Held()
    receiver = receive2(held, settings={SettingCodes.MAX_CONCURRENT_STREAMS: 2})
    results: list[Result] = []
    for _ in range(6):
        sender2.submit(receiver.url, results)
    sender2.turn_until(lambda: len(held.got) == 6)
    assert len(receiver.peers) == sender2.adapter.connections_opened == 3
    held.answer_all()
    sender2.turn_until(lambda: len(results) == 6)
    assert statuses(results) == {200: 6}
    assert len(idle(sender2)) == 3


def test_a_request_that_times_out_ends_alone(make_sender2: MakeSender, receive2: Receive2) -> None:
    """The receiver gets a RST_STREAM, and the other requests on the connection are answered."""
    held = Held()
    receiver, sender = receive2(held, acknowledges=False), make_sender2()
    late: list[Result] = []
    other: list[Result] = []
    sender.submit(receiver.url, other)
    sender.turn_until(lambda: len(held.got) == 1)
    sender.adapter.submit(request(receiver.url, LARGE), late.append, timeout=0.3)
    sender.turn_until(lambda: late)
    assert isinstance(late[0], errors.ReadTimeout)
    assert str(late[0]) == "no answer within 0.3 s"
    held.answer_all()
    sender.turn_until(lambda: other)
    assert statuses(other) == {200: 1}
    (peer,) = receiver.peers
    sender.turn_until(lambda: peer.resets)
    assert peer.resets == [(3, ErrorCodes.CANCEL)]


def test_a_status_counts_though_the_body_is_late(make_sender2: MakeSender, receive2: Receive2) -> None:
    """As with HTTP/1.1. A body without an end is cut at 64 KiB."""

    def behave(got: Got) -> None:
        with got.peer.speaking() as h2:
            h2.send_headers(got.stream, [(":status", "410"), ("retry-after", "7")])
            if got.headers["x"] == "short":
                h2.send_data(got.stream, b"xxx")
        if got.headers["x"] == "long":
            pieces = [
                DataFrame(got.stream, b"x" * size).serialize() for size in (16_000, 16_000, 16_000, 16_000, 1_537)
            ]
            got.peer.say(b"".join(pieces))

    clock, results = Clock(), list[Any]()
    sender, receiver = make_sender2(timeout=0.4, clock=clock), receive2(behave)
    transfer = sender.submit(receiver.url, results, x="short")
    sender.awaits(transfer, "no answer")
    sender.turn_until(lambda: isinstance(cut := transfer.stage.late(), Answer) and cut.body)
    short = sender.timed_out(results, clock)
    assert isinstance(short, requests.Response)
    assert (short.status_code, short.content, short.headers["retry-after"]) == (410, b"xxx", "7")
    long = sender.response(receiver.url, x="long")
    assert (long.status_code, len(long.content)) == (410, 65_536)


def test_after_a_time_out_on_a_silent_connection_another_one_is_used(
    make_sender2: MakeSender, receive2: Receive2
) -> None:
    """The other end may have disappeared silently. With HTTP/1.1, too, a time-out ends its connection."""
    held = Held()
    clock = Clock()
    sender, receiver = make_sender2(timeout=0.3, clock=clock), receive2(held)
    is_silent = False
    while not is_silent:  # its settings and acknowledgements may come after the first requests
        results: list[Result] = []
        number = len(held.got) + 1
        transfer = sender.submit(receiver.url, results)
        sender.turn_until(lambda number=number: len(held.got) == number)  # type: ignore[misc]
        session = connection_of(transfer).session
        assert isinstance(sender.timed_out(results, clock), errors.ReadTimeout)
        assert len(receiver.peers) == 1
        is_silent = session.leaving
        assert number < 5
    results.clear()
    sender.submit(receiver.url, results)
    sender.turn_until(lambda: len(held.got) == number + 1)
    assert len(receiver.peers) == 2


def test_the_request_that_opens_the_connection_may_be_cancelled(sender2: Sender, receive2: Receive2) -> None:
    """One of the waiting requests opens another connection."""
    receiver = receive2()
    results: list[Result] = []
    first, *_ = (sender2.submit(receiver.url, results) for _ in range(4))
    sender2.adapter.cancel(first)
    sender2.turn_until(lambda: len(results) == 3)
    assert statuses(results) == {204: 3}
    assert len(receiver.peers) == 1


def test_a_request_that_waits_opens_a_connection_when_the_others_has_closed(
    sender2: Sender, receive: Receive, trusted: trustme.CA
) -> None:
    """The connection closes with its only request, as its receiver has not sent its settings yet."""
    tls = server_tls(trusted.issue_cert("127.0.0.1"))
    tls.set_alpn_protocols(["h2"])
    silent = receive(b"", "hang", tls=tls)
    first, second = (sender2.submit(silent.url, []) for _ in range(2))
    sender2.awaits(first, "no answer")
    sender2.awaits(second, "no free connection")
    sender2.adapter.cancel(first)
    sender2.awaits(second, "no answer")
    assert sender2.adapter.connections_opened == 2


def test_waiting_requests_fail_with_their_connection(sender2: Sender, receive2: Receive2) -> None:
    """Each gets an error of its own. One that times out does not fail the others."""
    receiver = receive2()
    results: list[Result] = []
    for _ in range(3):
        sender2.submit(f"https://localhost:{receiver.port}/", results)  # the certificate is for 127.0.0.1
    sender2.turn_until(lambda: len(results) == 3)
    assert {type(result) for result in results} == {errors.SSLError}
    assert len(set(map(id, results))) == 3
    assert all(isinstance(result, requests.RequestException) and result.request is not None for result in results)
    assert sharing_of(sender2)._groups == {}
    with black_hole() as port:
        results = []
        for limit in (0.1, 0.3, 0.3):
            sender2.adapter.submit(request(f"https://127.0.0.1:{port}/"), results.append, timeout=limit)
        sender2.turn_until(lambda: len(results) == 3)
    assert {type(result) for result in results} == {errors.ConnectTimeout}
    assert sharing_of(sender2)._groups == {}


def test_a_refused_request_is_sent_again(sender2: Sender, receive2: Receive2) -> None:
    """REFUSED_STREAM says that it was not processed. The third refusal is final."""
    count = Counter[str]()

    def behave(got: Got) -> None:
        name = got.headers["x"]
        count[name] += 1
        if name == "always" or count[name] == 1:
            got.reset(ErrorCodes.REFUSED_STREAM)
        else:
            got.answer()

    receiver = receive2(behave)
    assert sender2.response(receiver.url, x="once").status_code == 204
    error = sender2.result(receiver.url, x="always")
    assert isinstance(error, errors.ConnectionError)
    assert str(error) == "it was sent 3 times, and refused or left each time before it was processed"
    assert count == {"once": 2, "always": 3}


def test_goaway_moves_requests_to_another_connection(sender2: Sender, receive2: Receive2) -> None:
    """Requests above the last processed one are sent again. The others are answered on the old connection."""
    held = Held()
    receiver = receive2(held)
    results: list[Result] = []
    for _ in range(3):
        sender2.submit(receiver.url, results)
    sender2.turn_until(lambda: len(held.got) == 3)
    first = held.got[0]
    held.got.clear()
    first.peer.say(goaway(1))
    sender2.turn_until(lambda: len(held.got) == 2)
    assert [got.peer for got in held.got] == [receiver.peers[1]] * 2
    first.answer(200)
    held.answer_all()
    sender2.turn_until(lambda: len(results) == 3)
    assert statuses(results) == {200: 3}
    assert len(idle(sender2)) == 1


@pytest.mark.parametrize("code", [ErrorCodes.NO_ERROR, ErrorCodes.ENHANCE_YOUR_CALM])
def test_goaway_before_any_request_is_no_failure(
    sender2: Sender, receive2: Receive2, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """A server that is being replaced ends new connections: requests wait, and go to the next one that takes them."""
    monkeypatch.setattr(http2_sharing, "_REST", 0.01)
    results: list[Result] = []

    def behave(got: Got) -> None:
        if len(receiver.peers) <= 2 * http2_sharing._REFUSALS:
            got.peer.say(goaway(0, code))
        else:
            got.answer()

    receiver = receive2(behave)
    for _ in range(3):
        sender2.submit(receiver.url, results)
    sender2.turn_until(lambda: len(results) == 3)
    assert statuses(results) == {204: 3}
    assert len(receiver.peers) == 2 * http2_sharing._REFUSALS + 1


def test_goaway_before_any_request_opens_connections_one_by_one(
    make_sender2: MakeSender, receive2: Receive2, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many requests wait, the next connection comes after a rest. At their time-out the requests fail."""
    clock = Clock()
    sender = make_sender2(timeout=0.5, clock=clock)
    receiver = receive2(lambda got: got.peer.say(goaway(0)))
    results: list[Result] = []
    monkeypatch.setattr(http2_sharing, "_REST", 60)
    for transfer in [sender.submit(receiver.url, results) for _ in range(20)]:
        sender.awaits(transfer, "127.0.0.1 ended a connection before any request")
    sender.timed_out(results, clock)
    sender.turn_until(lambda: len(results) == 20)
    assert {type(result) for result in results} == {errors.ConnectTimeout}
    assert "127.0.0.1 ended a connection before any request within" in str(results[0])
    assert len(receiver.peers) == 1


@pytest.mark.parametrize("how", ["closed", "goaway"])
def test_an_idle_connection_that_its_receiver_ends(sender2: Sender, receive2: Receive2, how: str) -> None:
    """The next request uses another one, whether it is submitted before or after the end is noticed."""
    receiver = receive2()
    for count in (1, 2, 3):
        assert sender2.response(receiver.url).status_code == 204
        assert len(receiver.peers) == count
        peer = receiver.peers[-1]
        if how == "closed":
            cut(peer)
        else:
            peer.say(goaway(receiver.got[-1].stream))
        if count == 1:
            sender2.turn_until(lambda: not idle(sender2))


def test_an_endpoint_that_breaks_the_protocol_fails_alone(sender2: Sender, receive2: Receive2) -> None:
    """The other requests of the connection are answered on the next one."""
    held = Held()

    def behave(got: Got) -> None:
        if len(receiver.peers) > 1:
            got.answer()
            return
        held(got)
        if len(held.got) == 5:
            (bad,) = (each for each in held.got if each.headers.get("x") == "bad")
            bad.peer.say(raw(5, 4, bad.stream, (2).to_bytes(4)))

    receiver = receive2(behave)
    results: list[Result] = []
    for name in ("1", "2", "bad", "4", "5"):
        sender2.submit(receiver.url, results, x=name)
    sender2.turn_until(lambda: len(results) == 5)
    assert statuses(results) == {204: 4, "it broke the protocol: Received pushed stream": 1}


@pytest.mark.parametrize("by_proxy", [False, True])
def test_a_turn_reads_a_bounded_part_of_a_flood(
    make_sender2: MakeSender,
    receive: Receive,
    receive2: Receive2,
    trusted: trustme.CA,
    monkeypatch: pytest.MonkeyPatch,
    *,
    by_proxy: bool,
) -> None:
    """The rest is read in later turns, also from TLS in TLS, which holds bytes that no poller reports."""
    reads = [0]  # of each turn
    receive_bytes = Http2Session.receive

    def counted(session: Http2Session, data: bytes) -> list[Http2Exchange]:
        reads[-1] += 1
        return receive_bytes(session, data)

    def is_answered() -> list[Result]:
        reads.append(0)
        return results

    monkeypatch.setattr(Http2Session, "receive", counted)
    held = Held()
    receiver = receive2(held)
    proxy = receive(Proxy(receiver), tls=server_tls(trusted.issue_cert("127.0.0.1")))  # type: ignore[arg-type]
    sender = make_sender2(proxy=f"https://127.0.0.1:{proxy.port}" if by_proxy else "")
    results: list[Result] = []
    sender.submit(receiver.url, results)
    sender.turn_until(lambda: held.got)
    for _ in range(600):
        held.got[0].peer.say(PingFrame(0, bytes(8)).serialize())
    held.answer_all()
    sender.turn_until(is_answered)
    assert sum(reads) > 600
    assert max(reads) <= 2 * PIECE // 39, "a PING has 17 bytes, and a record adds 22"


class Flooded:
    """The stream of a connection that also receives 64 large frames at once."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.reads = [0]  # of each turn
        self.left = 64

    def recv(self, most: int) -> bytes:
        if not self.left:
            return self.stream.recv(most)  # type: ignore[no-any-return]
        self.left -= 1
        self.reads[-1] += 1
        return raw(0x42, 0, 0, bytes(16_000))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class Broken:
    """The stream of a connection whose receiver has sent `sent` and can be written to no more."""

    def __init__(self, stream: Any, sent: list[bytes]) -> None:
        self.stream = stream
        self.sent = sent

    def send(self, _data: bytes) -> int:
        raise BrokenPipeError(EPIPE, "Broken pipe")

    def recv(self, most: int) -> bytes:
        if not self.sent:
            raise ssl.SSLWantReadError
        assert len(self.sent[0]) <= most
        return self.sent.pop(0)

    def held(self) -> int:
        return 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def test_answers_that_came_before_a_write_failed_count(sender2: Sender, receive2: Receive2) -> None:
    """However many frames come with them, in several records; the other requests fail."""
    held = Held()
    receiver = receive2(held)
    results: list[Result] = []
    transfers = [sender2.submit(receiver.url, results, x=str(number)) for number in range(3)]
    sender2.turn_until(lambda: len(held.got) == 3 and connection_of(transfers[0]).session.settled)
    connection = connection_of(transfers[0])
    numbers = [transfer.stage.number for transfer in transfers]
    pings = PingFrame(0, bytes(8)).serialize() * 250
    answers = [raw(1, 5, number, b"\x88") for number in numbers[:2]]
    connection.stream = Broken(connection.stream, [pings + answers[0], pings + answers[1]])
    sender2.submit(receiver.url, results)
    sender2.turn_until(lambda: len(results) == 4)
    assert statuses(results) == {200: 2, "the connection was closed before an answer came: Broken pipe": 2}
    assert len(receiver.peers) == 1


def test_a_turn_reads_few_large_records(sender2: Sender, receive2: Receive2) -> None:
    """A head of 16 KiB takes more than 2 ms to decode."""
    held = Held()
    receiver = receive2(held)
    results: list[Result] = []
    transfer = sender2.submit(receiver.url, results)
    sender2.turn_until(lambda: held.got and connection_of(transfer).session.settled)
    connection = connection_of(transfer)
    connection.stream = flooded = Flooded(connection.stream)
    held.answer_all()
    sender2.turn_until(lambda: flooded.reads.append(0) or results)  # type: ignore[func-returns-value]
    assert sum(flooded.reads) == 64
    assert max(flooded.reads) <= 2, "a turn looks at most twice"


def test_a_connection_that_was_idle_for_long_is_checked_and_reused(
    make_sender2: MakeSender, receive2: Receive2
) -> None:
    """Frames that have come meanwhile are read first. Afterwards it is kept as before."""
    ahead = 0.0
    sender, receiver = make_sender2(clock=lambda: time.monotonic() + ahead), receive2()
    for _ in range(3):
        sender.response(receiver.url)
        assert len(idle(sender)) == 1
        receiver.peers[0].say(PingFrame(0, b"x" * 8).serialize())
        ahead += 5.0
    assert len(receiver.peers) == sender.adapter.connections_opened == 1
    assert sharing_of(sender)._groups == {}


def test_a_connection_is_used_for_ten_minutes(make_sender2: MakeSender, receive2: Receive2) -> None:
    """Even if it is never idle, since the name may have moved. Its open requests are still answered on it."""
    held = Held()
    ahead = 0.0
    sender, receiver = make_sender2(timeout=1_000, clock=lambda: time.monotonic() + ahead), receive2(held)
    results: list[Result] = []
    sender.submit(receiver.url, results)
    sender.turn_until(lambda: held.got)
    held.answer_all()
    sender.turn_until(lambda: results)
    sender.submit(receiver.url, results)
    sender.turn_until(lambda: held.got)
    assert len(receiver.peers) == 1
    ahead = 601.0
    sender.submit(receiver.url, results)
    sender.turn_until(lambda: len(held.got) == 2)
    assert len(receiver.peers) == 2
    held.answer_all()
    sender.turn_until(lambda: len(results) == 3)
    assert len(idle(sender)) == 1


@pytest.mark.parametrize("by_tls", [False, True], ids=["http", "https"])
def test_through_a_proxy(
    make_sender2: MakeSender, receive: Receive, receive2: Receive2, trusted: trustme.CA, *, by_tls: bool
) -> None:
    """In a tunnel, and with TLS in TLS: many requests, one tunnel, and large bodies in both directions."""
    receiver = receive2(answering(200, b"y" * 65_000))
    tls = server_tls(trusted.issue_cert("127.0.0.1")) if by_tls else None
    proxy = receive(Proxy(receiver), tls=tls)  # type: ignore[arg-type]
    sender = make_sender2(proxy=f"{'https' if by_tls else 'http'}://127.0.0.1:{proxy.port}")
    results: list[Result] = []
    for number in range(20):
        sender.adapter.submit(request(receiver.url, LARGE[: 50_000 * (number % 3)]), results.append)
    sender.turn_until(lambda: len(results) == 20)
    assert statuses(results) == {200: 20}
    assert {len(result.content) for result in results if isinstance(result, requests.Response)} == {65_000}
    assert proxy.connections == len(receiver.peers) == 1


def test_ping_shows_the_receivers_choice(sender2: Sender, receive2: Receive2) -> None:
    """The steps of the exchange are shown as with HTTP/1.1."""
    receiver = receive2()
    adapter = LoopAdapter(sender2.poller, egress=LOOPBACK, timeout=5, connect_timeout=5, max_connections=1)
    result, seen = adapter.exchange(request(receiver.url), None)
    adapter.close()
    assert isinstance(result, requests.Response)
    assert str(seen.tls).endswith(" / HTTP/2")
    assert list(seen.seconds) == ["connect", "tls", "answer", "total"]
    assert seen.addresses == ("127.0.0.1",)


def moody(seed: int) -> Callable[[Got], None]:
    """Answers, refuses, resets, hangs, sends GOAWAY, breaks the protocol or closes the connection, at random."""
    chance = Random(seed)

    def behave(got: Got) -> None:
        mood = chance.random()
        if mood < 0.6:
            got.answer(200, b"x" * chance.choice([0, 10, 20_000]))
        elif mood < 0.8:
            got.reset(chance.choice([ErrorCodes.REFUSED_STREAM, ErrorCodes.CANCEL]))
        elif mood < 0.9:
            last = chance.choice([got.stream, got.stream - 2, 2**31 - 1])
            got.peer.say(goaway(max(0, last)))
        elif mood < 0.95:
            got.peer.say(raw(5, 0, 1, b""))
        elif mood < 0.98:
            cut(got.peer)

    return behave


def test_a_connection_that_breaks_fails_requests_that_may_have_been_processed(
    sender2: Sender, receive2: Receive2
) -> None:
    """Their processing is unknown, so the retry policy decides."""

    def behave(got: Got) -> None:
        if len(receiver.got) == 3:
            got.peer.say(raw(4, 0, 0, b""))
            cut(got.peer)

    receiver = receive2(behave)
    results: list[Result] = []
    for _ in range(3):
        sender2.submit(receiver.url, results)
    sender2.turn_until(lambda: len(results) == 3)
    assert all("the connection was closed before an answer came" in name for name in map(str, statuses(results)))
    assert len(receiver.got) == 3


@pytest.mark.parametrize("seed", range(2))
def test_any_order_of_submitting_and_cancelling(
    make_sender2: MakeSender, receive: Receive, receive2: Receive2, trusted: trustme.CA, seed: int
) -> None:
    """Each request ends once or is cancelled. In the end no connection is open and no request in flight."""
    chance = Random(seed)
    tls = server_tls(trusted.issue_cert("127.0.0.1"))
    with black_hole() as hole:
        few = {SettingCodes.MAX_CONCURRENT_STREAMS: 2}
        urls = [
            *(receive2(moody(number), settings=few if number % 2 else {}).url for number in range(4)),
            *(receive(NO_CONTENT, tls=tls).url, receive(NO_CONTENT).url, f"https://127.0.0.1:{hole}/", "nonsense:"),
            *(receive(b"HTTP/1.1 200 OK\r\n\r\nx", then, tls=context).url for then in ENDS for context in (None, tls)),
            *(f"http://both.test:{hole}/", "http://10.0.0.1/", f"https://x{'x' * 64}.test/"),
        ]
        before = descriptors()
        sender = make_sender2(timeout=0.5, connect_timeout=0.3)
        sender.know("both.test", "::1", "127.0.0.1", "10.0.0.1")
        ended: Counter[int] = Counter()
        cancelled: set[int] = set()
        transfers: dict[int, Transfer] = {}
        for number in range(1_200):
            if chance.random() < 0.4 or not transfers:
                url, body = chance.choice(urls), chance.choice((b"{}", LARGE[:300_000]))
                sent = request("https://example.com/", body, http2=url in urls[:4] or chance.random() < 0.5)
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
        sharing = sharing_of(sender)
        sender.turn_until(lambda: not sharing._groups)
        assert len(sender.poller._handlers) == 1 + len(idle(sender))
        sender.adapter.close()
        assert len(sender.poller._handlers) == 1
        sender.poller.close()
        end = time.monotonic() + 60
        while descriptors() > before:
            assert time.monotonic() < end
            time.sleep(0.01)
