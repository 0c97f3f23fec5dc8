from __future__ import annotations

import select
import socket
import sys
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, cast

import pytest
import requests
from requests import exceptions as errors

from consumer.loop.poller import BUDGET
from consumer.sending.dns import _CachedAddresses
from consumer.sending.transfer import Result

if TYPE_CHECKING:
    from consumer.sending.egress import EgressPolicy
    from tests.sending.conftest import MakeSender, Receive, Sender

NO_CONTENT = b"HTTP/1.1 204 No Content\r\nX-One: 1\r\nx-one: 2\r\n\r\n"


def test_an_expired_connection_answer_is_not_reused(sender: Sender, receive: Receive) -> None:
    """A new connection goes to the name's current address."""
    receiver = receive(b"HTTP/1.1 204 X\r\nConnection: close\r\n\r\n", "close")
    cache = sender.adapter._connector.resolver._cache
    for address, result in (("127.0.0.1", True), ("127.0.0.2", False), ("127.0.0.1", True), ("127.0.0.1", True)):
        cache["moving.test"] = _CachedAddresses((address,), time.monotonic() + 60)
        answered = sender.result(f"http://moving.test:{receiver.port}/")
        assert isinstance(answered, requests.Response) is result, answered


def test_an_idle_connection_keeps_no_large_body(sender: Sender, receive: Receive) -> None:
    """Otherwise, after a burst of large events, each idle connection would hold one body."""
    receiver, silent = receive(NO_CONTENT), receive(b"", "hang")
    body = b"x" * 100_000
    prepared = sender.prepare(receiver.url, body)
    hung = sender.prepare(silent.url, body)
    before = sys.getrefcount(body)
    assert sender.adapter.send(prepared).status_code == 204
    assert sys.getrefcount(body) == before
    transfer = sender.adapter.submit(hung, print)
    sender.turn_until(lambda: silent.requests)
    sender.adapter.cancel(transfer)
    assert sys.getrefcount(body) == before
    assert sender.response(receiver.url).status_code == 204
    assert receiver.requests[-1].endswith(b"\r\n\r\n{}")


def test_a_failure_is_not_the_answer_before_it(make_sender: MakeSender, receive: Receive) -> None:
    """A failure after a 204 is a failure."""
    sender = make_sender(connect_timeout=2)  # to answer TLS, plain HTTP waits for the end of a head
    good = receive(NO_CONTENT)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    for url in (nobody, "http://10.0.0.1/", good.url.replace("http:", "https:"), receive(b"", "close").url):
        assert sender.response(good.url).status_code == 204
        assert isinstance(sender.result(url), errors.ConnectionError)


def test_cancel_at_any_time(sender: Sender, receive: Receive) -> None:
    """The callback of a cancelled transfer never runs: just submitted, resolving, on the wire, or cancelled twice."""
    receiver = receive(b"", "hang")
    results: list[Result] = []
    cancel = sender.adapter.cancel
    cancel(sender.submit(receiver.url, results))
    cancel(sender.submit("http://nowhere.invalid/", results))
    cancel(sender.submit("nonsense:", results))
    waiting = sender.submit(receiver.url, results)
    sender.turn_until(lambda: receiver.requests)
    assert sender.adapter.in_flight == 1
    cancel(waiting)
    cancel(waiting)
    assert sender.adapter.in_flight == 0
    for _ in range(10):
        sender.poller.turn(0.02)
    assert results == []
    assert sender.response(receive(NO_CONTENT).url).status_code == 204


def test_a_callback_may_cancel_and_submit(sender: Sender, receive: Receive) -> None:
    """When two transfers end in one turn, the first one's callback may cancel the second and submit another."""
    go_on = threading.Event()

    def behave(connection: socket.socket, _request: bytes) -> bool:
        go_on.wait(60)
        connection.sendall(NO_CONTENT)
        return True

    receiver = receive(behave)
    other = receive(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother")
    ended: list[str] = []
    late: list[Result] = []

    def end(name: str, _result: Result) -> None:
        ended.append(name)
        for transfer in transfers:
            sender.adapter.cancel(transfer)
        sender.submit(other.url, late)

    prepared = sender.prepare(receiver.url)
    transfers = [sender.adapter.submit(prepared, partial(end, name)) for name in "ab"]
    while len(receiver.requests) < 2:
        sender.poller.turn(0)
    go_on.set()
    for transfer in transfers:  # both answers are in the kernel now
        assert select.select([transfer.stage.stream], [], [], 60)[0]  # type: ignore[union-attr]
    sender.turn_until(lambda: late)
    assert len(ended) == 1
    assert isinstance(late[0], requests.Response)
    assert late[0].content == b"other"


def test_an_exception_in_a_callback_is_raised_by_turn(sender: Sender, receive: Receive) -> None:
    """A bug in a callback surfaces from `turn`. Afterwards the adapter goes on working."""
    receiver = receive(NO_CONTENT)

    def bug(_result: Result) -> None:
        raise ZeroDivisionError

    results: list[Result] = []
    sender.adapter.submit(sender.prepare(receiver.url), bug)
    sender.submit(receiver.url, results)
    with pytest.raises(ZeroDivisionError):
        sender.turn_until(lambda: False)
    sender.turn_until(lambda: results)
    assert sender.adapter.in_flight == 0
    assert sender.response(receiver.url).status_code == 204


def test_results_are_handed_over_in_parts(make_sender: MakeSender) -> None:
    """Failed batches take long to judge. The loop goes on in between, and no result is lost."""
    now, ended = [100.0], list[Result]()
    sender = make_sender(clock=lambda: now[0])

    def judge(result: Result) -> None:
        ended.append(result)
        now[0] += BUDGET * 0.6

    for _ in range(5):
        sender.adapter.submit(sender.prepare("http://10.0.0.1/"), judge)
    counts = []
    while len(ended) < 5:
        sender.poller.turn(0)
        counts.append(len(ended))
    assert counts == [2, 4, 5]
    assert sender.adapter.in_flight == 0


def test_a_bug_in_the_policy_is_raised(make_sender: MakeSender, receive: Receive) -> None:
    """Without a verdict of the policy, no connection is opened. The request has ended: its callback does not run."""
    sender = make_sender(egress=cast("EgressPolicy", type("Broken", (), {"refusal": lambda *_: 1 / 0})()))
    receiver = receive(NO_CONTENT)
    with pytest.raises(ZeroDivisionError):
        sender.submit(receiver.url, [])
    assert (receiver.connections, sender.adapter.in_flight) == (0, 0)


def test_close_cancels_open_transfers(make_sender: MakeSender, receive: Receive) -> None:
    """After `close` nothing is in flight and no callback runs. A second `close` is no error."""
    sender = make_sender()
    receiver = receive(b"", "hang")
    results: list[Result] = []
    for url in (receiver.url, "http://nowhere.invalid/"):
        sender.submit(url, results)
    sender.poller.turn(0)
    sender.adapter.close()
    sender.adapter.close()
    assert sender.adapter.in_flight == 0
    sender.poller.turn(0)
    assert results == []


def test_send_blocks_and_raises(sender: Sender, receive: Receive) -> None:
    """`send` returns the response, or raises the exception that `submit` would have passed to the callback."""
    receiver = receive(NO_CONTENT)
    assert sender.adapter.send(sender.prepare(receiver.url), timeout=(50, 60)).status_code == 204
    with pytest.raises(errors.ReadTimeout):
        sender.adapter.send(sender.prepare(receive(b"", "hang").url), timeout=0.2)
    sender.poller.post(partial(divmod, 1, 0))
    with pytest.raises(ZeroDivisionError):
        sender.adapter.send(sender.prepare(receiver.url))
    assert sender.adapter.in_flight == 0


def test_a_session_with_an_auth_plug_in(sender: Sender, receive: Receive) -> None:
    """The usual ways of requests work: mounting a session, requests.auth, JSON in both directions, digest auth."""
    receiver = receive(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 8\r\n\r\n{"a": 1}')
    with requests.Session() as session:
        session.mount("http://", sender.adapter)
        response = session.post(receiver.url, json={"b": 2}, auth=("user", "password"))
        assert response.json() == {"a": 1}
        assert response.encoding == "utf-8"
        assert b"Authorization: Basic dXNlcjpwYXNzd29yZA==\r\n" in receiver.requests[0]
        assert receiver.requests[0].endswith(b'{"b": 2}')

        challenge = (
            b'HTTP/1.1 401 No\r\nWWW-Authenticate: Digest realm="r", nonce="n", qop="auth"\r\nContent-Length: 0\r\n\r\n'
        )

        def behave(connection: socket.socket, request: bytes) -> bool:
            connection.sendall(NO_CONTENT if b"Authorization: Digest" in request else challenge)
            return True

        digest = requests.auth.HTTPDigestAuth("user", "password")
        assert session.post(receive(behave).url, data=b"x", auth=digest).status_code == 204
        assert session.get(receiver.url).json() == {"a": 1}
