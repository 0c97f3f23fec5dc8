"""The adapter's own contract: cancelling, callbacks and their errors, closing, and use by a session of requests."""

import sys
from functools import partial
from typing import cast

import pytest
import requests
from requests.auth import HTTPDigestAuth

from consumer.sending.egress import EgressPolicy
from consumer.sending.transfer import Result
from tests.sending.conftest import NO_CONTENT, Net, in_turn, statuses


def test_an_idle_connection_keeps_no_large_body(net: Net) -> None:
    """Otherwise, after a burst of large events, each idle connection would hold one body."""
    sender, receiver, silent = net.sender(), net.receive(), net.receive(b"", "hang")
    body = b"x" * 100_000
    prepared, hung = sender.prepare(receiver.url, body), sender.prepare(silent.url, body)
    before = sys.getrefcount(body)
    assert sender.adapter.send(prepared).status_code == 204
    assert sys.getrefcount(body) == before
    transfer = sender.submit(hung, [])
    sender.turn_until(lambda: silent.requests)
    sender.adapter.cancel(transfer)
    assert sys.getrefcount(body) == before
    assert sender.response(receiver.url).status_code == 204
    assert receiver.requests[-1].endswith(b"\r\n\r\n{}")


def test_cancel_at_any_time(net: Net) -> None:
    """The callback of a cancelled transfer never runs: just submitted, resolving, on the wire, or cancelled twice."""
    sender, receiver = net.sender(), net.receive(b"", "hang")
    results: list[Result] = []
    cancel = sender.adapter.cancel
    for url in (receiver.url, "http://nowhere.invalid/", "nonsense:"):
        cancel(sender.submit(url, results))
    waiting = sender.submit(receiver.url, results)
    sender.turn_until(lambda: receiver.requests)
    assert sender.adapter.in_flight == 1
    cancel(waiting)
    cancel(waiting)
    assert sender.adapter.in_flight == 0
    for _ in range(10):
        sender.poller.turn(0.02)
    assert results == []
    assert sender.response(net.receive().url).status_code == 204


def test_a_callback_may_cancel_and_submit(net: Net) -> None:
    """When two transfers end in one turn, the first one's callback may cancel the second and submit another."""
    sender, other = net.sender(), net.receive()
    ended: list[str] = []
    late: list[Result] = []

    def end(name: str, _result: Result) -> None:
        ended.append(name)
        for transfer in transfers:
            sender.adapter.cancel(transfer)
        sender.submit(other.url, late)

    refused = sender.prepare("http://10.0.0.1/")
    transfers = [sender.adapter.submit(refused, partial(end, name)) for name in "ab"]
    sender.turn_until(lambda: late)
    assert ended == ["a"]
    assert statuses(late) == {204: 1}


def test_an_exception_in_a_callback_is_raised_by_turn(net: Net) -> None:
    """A bug in a callback surfaces from `turn`. Afterwards the adapter goes on working."""
    sender, receiver = net.sender(), net.receive()

    def bug(_result: Result) -> None:
        raise ZeroDivisionError

    sender.adapter.submit(sender.prepare(receiver.url), bug)
    results = sender.start(receiver.url)
    with pytest.raises(ZeroDivisionError):
        sender.turn_until(lambda: False)
    sender.turn_until(lambda: results)
    assert sender.adapter.in_flight == 0
    assert sender.response(receiver.url).status_code == 204


def test_a_bug_in_the_policy_is_raised(net: Net) -> None:
    """Without a verdict of the policy, no connection is opened. The request has ended: its callback does not run."""
    sender = net.sender(egress=cast("EgressPolicy", type("Broken", (), {"refusal": lambda *_: 1 / 0})()))
    receiver = net.receive()
    with pytest.raises(ZeroDivisionError):
        sender.submit(receiver.url, [])
    assert (receiver.connections, sender.adapter.in_flight) == (0, 0)


def test_a_session_with_an_auth_plug_in(net: Net) -> None:
    """The usual ways of requests work: mounting a session, requests.auth, JSON in both directions, digest auth."""
    receiver = net.receive(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 8\r\n\r\n{"a": 1}')
    with requests.Session() as session:
        session.mount("http://", net.sender().adapter)
        response = session.post(receiver.url, json={"b": 2}, auth=("user", "password"))
        assert response.json() == {"a": 1}
        assert response.encoding == "utf-8"
        assert b"Authorization: Basic dXNlcjpwYXNzd29yZA==\r\n" in receiver.requests[0]
        assert receiver.requests[0].endswith(b'{"b": 2}')
        challenge = b'HTTP/1.1 401 No\r\nWWW-Authenticate: Digest realm="r", nonce="n"\r\nContent-Length: 0\r\n\r\n'
        challenging = net.receive(in_turn(challenge, NO_CONTENT))
        assert session.post(challenging.url, data=b"x", auth=HTTPDigestAuth("user", "pass")).status_code == 204
        assert b"Authorization: Digest" in challenging.requests[1]
        assert session.get(receiver.url).json() == {"a": 1}
