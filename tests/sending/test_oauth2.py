"""Access tokens: fetched once for all waiting requests, kept, renewed ahead of their end and after a 401; failures."""

import json
import socket
import time
from base64 import b64decode
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st
from requests import ConnectionError as RequestsConnectionError

from consumer.crypto.certificates import TlsIdentity
from consumer.crypto.credentials import OAuth2
from consumer.errors import NotAuthorized
from consumer.sending.answer import Answer
from consumer.sending.exchange import LazyResponse
from consumer.sending.oauth2 import Key, Tokens, token_of, token_request
from consumer.sending.transfer import Result, Stage, Transfer
from tests.sending.conftest import NO_CONTENT, Behaviour, Net, Receiver, Sender, in_turn, server_tls, statuses
from tests.sending.signed_kit import grant, headers_of, respond, signed

CREDENTIALS = OAuth2("https://id.test/token", "client", "s3cret")
KEY = Key(CREDENTIALS, None)
UNAUTHORIZED = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"


def credentials(server: Receiver, **fields: Any) -> OAuth2:
    return OAuth2(server.url, "client", "s3cret", **fields)


def send(sender: Sender, to: Receiver, of: OAuth2, times: int = 1, **fields: Any) -> list[Result]:
    return sender.results(*(signed(to.url, auth=of, **fields) for _ in range(times)))


def bearers(receiver: Receiver) -> list[str | None]:
    return [headers_of(request).get("authorization") for request in receiver.requests]


@pytest.fixture
def receiver(net: Net) -> Receiver:
    return net.receive()


# Requests with real token servers.


def test_one_fetch_serves_all_waiting_requests(net: Net, receiver: Receiver) -> None:
    """A thousand deliveries need a token at once and later ones reuse it. Each delivery is sent once."""
    sender, server = net.sender(), net.receive(grant("t0ken"))
    of = credentials(server, scope="events.write", parameters=(("audience", "hooks"),))
    assert statuses(send(sender, receiver, of, 1000)) == {204: 1000}
    assert statuses(send(sender, receiver, of)) == {204: 1}
    assert bearers(receiver) == ["Bearer t0ken"] * 1001
    (request,) = server.requests
    assert parse_qs(request.partition(b"\r\n\r\n")[2].decode()) == {
        "grant_type": ["client_credentials"],
        "scope": ["events.write"],
        "audience": ["hooks"],
    }
    assert b64decode(headers_of(request)["authorization"].removeprefix("Basic ")) == b"client:s3cret"


def test_other_credentials_have_another_token(net: Net, receiver: Receiver) -> None:
    """No credentials get another one's token. Equal credentials of two subscriptions share one."""
    sender, server = net.sender(), net.receive(tokens())
    one, two = credentials(server), credentials(server, scope="other")
    for of in (one, two, one, two):
        send(sender, receiver, of)
    assert bearers(receiver) == ["Bearer t0", "Bearer t1", "Bearer t0", "Bearer t1"]


def tokens() -> Behaviour:
    """A server that grants the tokens t0, t1, and so on."""
    return in_turn(*(grant(f"t{number}") for number in range(9)))


def refuses(withdrawn: set[str]) -> Behaviour:
    """A receiver that answers 401 to these tokens."""

    def behave(connection: socket.socket, request: bytes) -> bool:
        bearer = headers_of(request)["authorization"].removeprefix("Bearer ")
        connection.sendall(UNAUTHORIZED if bearer in withdrawn else NO_CONTENT)
        return True

    return behave


def test_a_401_fetches_one_new_token(net: Net) -> None:
    """A withdrawn token is replaced within the same attempt. If the new one is refused too, the attempt fails."""
    clock, withdrawn = [time.monotonic()], set[str]()
    sender, server = net.sender(clock=lambda: clock[0]), net.receive(tokens())
    receiver, of = net.receive(refuses(withdrawn)), credentials(server)
    assert statuses(send(sender, receiver, of)) == {204: 1}
    withdrawn.add("t0")
    clock[0] += 11
    assert statuses(send(sender, receiver, of, 20)) == {204: 20}
    assert len(server.requests) == 2
    withdrawn.add("t1")
    assert statuses(send(sender, receiver, of, 3)) == {401: 3}  # the token is new: a third one would not help
    assert len(server.requests) == 2


def test_each_error_names_its_own_request(net: Net, receiver: Receiver) -> None:
    """The secrets of the failed request are masked."""
    results = send(net.sender(), receiver, credentials(net.receive(respond(503, b""))), 2)
    assert isinstance(results[0], NotAuthorized)
    assert results[0].request is not results[1].request


def test_a_hung_token_server_counts_towards_the_requests_time_limit(net: Net, receiver: Receiver) -> None:
    """The delivery's time limit covers the fetch, and other requests are not held up."""
    sender, hangs = net.sender(timeout=0.5, clock=net.clock), net.receive(b"", then="hang")
    late = sender.timed_out(sender.start(signed(receiver.url, auth=credentials(hangs))))
    assert str(late) == f"no access token from 127.0.0.1:{hangs.port} within 0.5 s"
    assert sender.response(receiver.url).status_code == 204


def test_a_cancelled_request_leaves_the_fetch_to_the_others(net: Net, receiver: Receiver) -> None:
    """The cancelled request's callback does not run."""
    of, results, sender = credentials(net.receive(grant("t"))), list[Result](), net.sender()
    first, _ = (sender.submit(signed(receiver.url, auth=of), results) for _ in range(2))
    sender.adapter.cancel(first)
    sender.turn_until(lambda: results)
    assert statuses(results) == {204: 1}
    assert len(receiver.requests) == 1


def test_the_token_server_obeys_the_rules_for_receivers(net: Net, receiver: Receiver) -> None:
    """The egress rule applies to it, and the subscription's TLS identity verifies its certificate."""
    far, private = OAuth2("https://169.254.169.254/token", "client", "s3cret"), trustme.CA()
    (refused,) = send(net.sender(), receiver, far)
    assert "169.254.169.254" in str(refused)
    assert isinstance(refused, NotAuthorized)
    server = net.receive(grant("t"), tls=server_tls(private.issue_cert("127.0.0.1")))
    own = TlsIdentity(authorities=private.cert_pem.bytes().decode())
    assert statuses(send(net.sender(), receiver, credentials(server), tls=own)) == {204: 1}
    (unknown,) = send(net.sender(), receiver, credentials(server))
    assert "the certificate is refused" in str(unknown)


def test_the_token_is_set_even_if_headers_were_read_before(net: Net, receiver: Receiver) -> None:
    """Code that inspects a request before it is sent does not lose the token. It is then there to be masked."""
    request = signed(receiver.url, auth=credentials(net.receive(grant("t"))))
    assert "authorization" not in request.headers
    net.sender().response(request)
    assert bearers(receiver) == ["Bearer t"]
    assert request.headers["authorization"] == "Bearer t"


def test_the_token_replaces_the_subscriptions_own_authorization(net: Net, receiver: Receiver) -> None:
    """As other credentials do. A request with two such lines is invalid."""
    of = credentials(net.receive(grant("t")))
    send(net.sender(), receiver, of, headers=(("AUTHORIZATION", "Basic eA=="), ("x-a", "b")))
    lines = receiver.requests[0].lower().split(b"\r\n")
    mine = [line for line in lines if line.startswith((b"authorization:", b"x-a:"))]
    assert mine == [b"x-a: b", b"authorization: bearer t"]


# The decisions, without a network.


class Loop:
    """Runs posted functions on demand, and answers fetches."""

    def __init__(self) -> None:
        self.now = 100.0
        self.fetches: list[Callable[[Result], None]] = []
        self.posted: list[Callable[[], None]] = []
        self.told: list[str] = []
        self.tokens = Tokens(
            lambda _r, _i, done: self.fetches.append(done),
            lambda _transfer, found: self.told.append(str(found)),
            self.posted.append,
            lambda: self.now,
        )

    def submit(self, of: OAuth2 = CREDENTIALS) -> Stage:
        """A transfer that needs a token: its grant."""
        transfer = Transfer(token_request(CREDENTIALS), print, self.now, 60)
        self.tokens.authorize(transfer, of)
        assert transfer.grant is not None
        return transfer.grant

    def obtain(self, of: OAuth2 = CREDENTIALS) -> str | None:
        """The token or the error, if one is known now."""
        self.told.clear()
        self.submit(of)
        return self.told.pop() if self.told else None

    def answer(self, body: object, status: int = 200) -> None:
        self.fetches.pop(0)(answer(body, status))
        while self.posted:
            self.posted.pop(0)()


def answer(body: object, status: int = 200) -> Result:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return LazyResponse(token_request(CREDENTIALS), Answer(status, b"", content, keep=True))


@pytest.fixture
def loop() -> Loop:
    return Loop()


def test_a_token_is_renewed_while_it_is_valid(loop: Loop) -> None:
    """From 80 % of its lifetime one fetch is open. Requests meanwhile use the present token."""
    assert loop.obtain() is None
    loop.answer({"access_token": "a", "expires_in": 100})
    assert loop.told == ["a"]
    loop.now += 79.9
    assert (loop.obtain(), loop.fetches) == ("a", [])
    loop.now += 0.2
    assert (loop.obtain(), loop.obtain(), len(loop.fetches)) == ("a", "a", 1)
    loop.answer({"access_token": "b", "expires_in": 100})
    assert loop.obtain() == "b"


def test_a_failed_renewal_keeps_the_present_token(loop: Loop) -> None:
    """It is used until ten seconds before its end. Then requests fail with the reason."""
    loop.obtain()
    loop.answer({"access_token": "a", "expires_in": 1000})
    loop.now += 900
    assert loop.obtain() == "a"
    loop.answer({"error": "temporarily_unavailable"}, 503)
    assert (loop.obtain(), loop.fetches) == ("a", [])
    loop.now += 89.5
    assert loop.obtain() == "a"
    loop.answer({}, 500)
    loop.now += 0.6
    assert loop.obtain() == "no access token from id.test: status 500"


def test_a_failing_token_server_is_asked_less_and_less_often(loop: Loop) -> None:
    """During a pause, requests fail at once with its error."""
    told = "no access token from id.test: status 401 (invalid_client)"
    for pause in (1, 2, 4, 8, 16, 30, 30):
        assert (loop.obtain(), len(loop.fetches)) == (None, 1)
        loop.answer({"error": "invalid_client"}, 401)
        loop.now += pause - 0.1
        assert (loop.obtain(), loop.fetches) == (told, [])
        loop.now += 0.2


def test_a_token_url_without_a_request_fails_the_requests_alone(loop: Loop) -> None:
    """They get an error that does not quote the URL. As after a failed fetch, none is open, and a pause begins."""
    of = OAuth2("https://*.test/s3cret", "client", "s3cret")
    for _ in range(2):
        assert loop.obtain(of) == "no access token from *.test: the token_url is malformed"
    state = loop.tokens._states[Key(of, None)]
    assert (state.is_fetching, state.pause_until, state.failures) == (False, loop.now + 1, 1)
    assert (loop.fetches, loop.posted) == ([], [])


def test_a_refused_token_is_dropped_unless_it_is_new_or_already_replaced(loop: Loop) -> None:
    """Of a thousand 401s, the first one drops the token. None renews its token twice."""
    loop.obtain()
    loop.answer({"access_token": "a"})
    first, second, third = (loop.submit() for _ in range(3))
    loop.now += 9.9
    assert not loop.tokens.renew(first)
    loop.now += 0.2
    assert loop.tokens.renew(first)
    assert loop.tokens.renew(second)
    loop.told.clear()
    loop.answer({"access_token": "b"})
    assert loop.told == ["b", "b"]
    assert loop.tokens.renew(third)
    assert (loop.told, loop.fetches) == (["b"] * 3, [])
    assert not loop.tokens.renew(third)


@pytest.mark.parametrize(
    ("status", "body", "text"),
    [
        (0, RequestsConnectionError("no route"), "no route"),
        (200, {}, "its answer has no access_token"),
        (200, b"<html>", "its answer has no access_token"),
        (200, ["access_token"], "its answer has no access_token"),
        (200, {"access_token": "a\nb"}, "its answer has no access_token"),
        (200, {"access_token": "a b"}, "its answer has no access_token"),
        (200, {"access_token": "a" * 8193}, "its access_token has 8193 characters; at most 8192 are sent"),
        (200, {"access_token": "a", "token_type": "mac"}, "its token is not of the type Bearer"),
        (400, {"error": "invalid_scope", "error_description": "h1dden"}, "status 400 (invalid_scope)"),
        (302, b"", "status 302"),
        (401, {"error": ["x"]}, "status 401"),
        (401, {"error": "a\nb"}, "status 401"),
        (401, {"error": "s3cret"}, "status 401"),
        (401, {"error": "a_secret"}, "status 401"),
    ],
)
def test_an_answer_without_a_token_has_its_reason(status: int, body: object, text: str) -> None:
    """Only an error code that is defined is quoted: the server may echo the secret."""
    with pytest.raises(NotAuthorized) as refused:
        token_of(KEY, body if isinstance(body, RequestsConnectionError) else answer(body, status), 0.0)
    assert str(refused.value) == f"no access token from id.test: {text}"


@pytest.mark.parametrize(
    ("given_life", "renew", "end"),
    [
        *((3600, 2880, 3590), ("3600", 2880, 3590), (10, 8, 9), (0.001, 0.8, 0.9)),
        *((1e300, 2073600, 2591990), ("inf", 2073600, 2591990)),
        *((None, 240, 290), (0, 240, 290), (-1, 240, 290), ("soon", 240, 290), ("nan", 240, 290), (["x"], 240, 290)),
    ],
)
def test_the_lifetime_of_a_token(given_life: object, renew: float, end: float) -> None:
    """`expires_in` counts from the request for the token. Without a usable value the lifetime is five minutes."""
    body = {"access_token": "a", "expires_in": given_life}
    token = token_of(KEY, answer(body), 0.0)
    assert token[:2] == ("a", 0.0)
    assert token[2:] == pytest.approx((renew, end))


@given(st.text(min_size=1), st.text(min_size=1))
def test_client_authentication(client: str, secret: str) -> None:
    """RFC 6749, section 2.3.1: in the header, both parts are form-encoded first; with `post` they are in the form."""
    of = OAuth2("https://id.test/token", client, secret)
    basic = token_request(of).headers["authorization"].removeprefix("Basic ")
    user, _, password = b64decode(basic).decode().partition(":")
    assert parse_qs(f"u={user}&p={password}") == {"u": [client], "p": [secret]}
    posted = token_request(OAuth2("https://id.test/token", client, secret, method="client_secret_post"))
    assert "authorization" not in posted.headers
    form = parse_qs(str(posted.body))
    assert (form["client_id"], form["client_secret"]) == ([client], [secret])
