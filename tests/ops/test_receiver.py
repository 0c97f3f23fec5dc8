"""The receiver of `listen` and of the demo."""

import asyncio
import contextlib
import gzip
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from consumer.crypto.keys import Ed25519Key, parse_verifying_key
from consumer.http.server import BackgroundServer, listen
from consumer.ops.receiver import BODY_BYTES, HexHeader, Received, Reply, create_app, verify
from tests.signatures import hexed, standard

NOW = 1_700_000_000
OLD, NEW, OTHER = b"old secret", b"new secret", b"another's secret"


def signed(body: bytes, secrets: tuple[bytes, ...], timestamp: int = NOW) -> dict[str, str]:
    return {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(timestamp),
        "webhook-signature": standard(secrets, (), "msg_1", timestamp, body),
        "x-webhook-signature": hexed(secrets[0], body),
        "x-webhook-event": "user.created",
    }


@given(st.binary(max_size=300), st.sampled_from([(NEW,), (NEW, OLD), (OLD,)]))
def test_the_senders_signatures_are_verified(body: bytes, secrets: tuple[bytes, ...]) -> None:
    """During a rotation either side may have the older secret, the newer one or both; they cover the body."""
    assert verify(signed(body, secrets), body, (NEW, OLD), NOW) is None
    assert verify(signed(body, secrets), body + b"x", (NEW, OLD), NOW) is not None


@given(st.dictionaries(st.sampled_from(sorted(signed(b"", (NEW,)))), st.text(st.characters(max_codepoint=255))))
def test_no_headers_break_it(changes: dict[str, str]) -> None:
    """With any headers, the result is a verdict."""
    headers = {**signed(b"body", (OTHER,)), **changes}
    assert isinstance(verify(headers, b"body", (NEW, OLD), NOW), str)


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_a_public_key_verifies(body: bytes, other: bytes) -> None:
    """It verifies its private key's signatures, beside an HMAC or alone, and no others."""
    private, another = Ed25519Key(bytes(32)), Ed25519Key(bytes(31) + b"1")
    public, unknown = parse_verifying_key(private.public), parse_verifying_key(another.public)
    for secrets in ((), (NEW,)):
        words = standard(secrets, [another, private], "msg_1", NOW, body)
        headers = {"webhook-id": "msg_1", "webhook-timestamp": str(NOW), "webhook-signature": words}
        assert verify(headers, body, [public], NOW) is None
        assert verify(headers, body, [OLD, public], NOW) is None
        assert verify(headers, body, [unknown], NOW) is None
        assert (verify(headers, other, [public, unknown], NOW) is None) == (body == other)
        alone = {**headers, "webhook-signature": words.split(" ")[-1]}
        assert verify(alone, body, [unknown], NOW) is not None


@pytest.mark.parametrize("word", ["v1a,", "v1a,AAAA", "v1a,é", "v1a,*", "v1a", f"v1,{'A' * 88}"])
def test_an_invalid_signature_is_skipped(word: str) -> None:
    """It counts as one of an unknown key, and a valid signature behind it still counts."""
    private = Ed25519Key(bytes(32))
    right = standard((), [private], "msg_1", NOW, b"body")
    for words, trusted in ((word, False), (f"{word} {right}", True)):
        headers = {"webhook-id": "msg_1", "webhook-timestamp": str(NOW), "webhook-signature": words}
        assert (verify(headers, b"body", [parse_verifying_key(private.public)], NOW) is None) == trusted


@given(st.binary(max_size=300), st.sampled_from(["sha256=", "", "t=1,v0="]))
def test_a_hex_signature_in_another_header(body: bytes, prefix: str) -> None:
    """It may be in any header with any prefix; then only that header is checked."""
    where = HexHeader("X-Hub-Signature-256", prefix)
    headers = signed(body, (NEW, OLD))
    headers["x-hub-signature-256"] = prefix + headers.pop("x-webhook-signature")
    assert verify(headers, body, (OLD, NEW), NOW, hex_header=where) is None
    headers["x-webhook-signature"] = "not looked at"
    assert verify(headers, body, (NEW,), NOW, hex_header=where) is None
    headers["x-hub-signature-256"] = "sha1=" + headers["x-hub-signature-256"]
    assert verify(headers, body, (NEW,), NOW, hex_header=where) == "X-Hub-Signature-256 matches no known secret"


def test_a_hex_signature_without_a_secret() -> None:
    """With only a public key, the `v1a` signature decides, whatever the hex header contains."""
    private = Ed25519Key(bytes(32))
    headers = signed(b"body", (NEW,))
    headers["webhook-signature"] += " " + standard((), [private], "msg_1", NOW, b"body")
    assert verify(headers, b"body", [parse_verifying_key(private.public)], NOW) is None


def test_another_library_signs_the_same() -> None:
    """Signatures of the Standard Webhooks library are verified."""
    hook = Webhook("whsec_bmV3IHNlY3JldA==")
    signature = hook.sign("msg_1", datetime.fromtimestamp(NOW, UTC), "body")
    headers = {"webhook-id": "msg_1", "webhook-timestamp": str(NOW), "webhook-signature": signature}
    assert verify(headers, b"body", (NEW,), NOW) is None


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"webhook-id": ""}, "missing"),
        ({"webhook-signature": ""}, "missing"),
        ({"webhook-id": "msg_2"}, "no v1 or v1a signature"),
        ({"webhook-timestamp": "now"}, "not a number"),
        ({"webhook-timestamp": str(NOW - 300)}, "no v1 or v1a signature"),
        ({"webhook-timestamp": str(NOW + 300)}, "no v1 or v1a signature"),
        ({"webhook-timestamp": str(NOW - 301)}, "clock"),
        ({"webhook-timestamp": str(NOW + 301)}, "clock"),
        ({"webhook-signature": "v1a,AAAA v2,BBBB"}, "no v1 or v1a signature"),
        ({"x-webhook-signature": hexed(OTHER, b"body")}, "x-webhook-signature"),
    ],
)
def test_each_fault_is_named(change: dict[str, str], problem: str) -> None:
    """The operator of a receiver sees what is wrong."""
    assert problem in (verify({**signed(b"body", (NEW,)), **change}, b"body", (NEW,), NOW) or "")


@pytest.fixture
def received() -> list[tuple[Received, Reply]]:
    return []


@pytest.fixture
def serve(received: list[tuple[Received, Reply]]) -> Iterator[Callable[..., str]]:
    servers: list[BackgroundServer] = []

    def start(answer: Reply, **more: Any) -> str:
        app = create_app((NEW, OLD), lambda *pair: received.append(pair), lambda _: answer, lambda: NOW, **more)
        servers.append(BackgroundServer(app, listen("127.0.0.1", 0), "receiver"))
        return f"http://127.0.0.1:{servers[-1].port}"

    yield start
    for server in servers:
        server.close()


def test_over_http(serve: Callable[[Reply], str], received: list[tuple[Received, Reply]]) -> None:
    """A verified request gets the configured answer, any other a 401, and both are reported."""
    url = serve(Reply(503, headers={"retry-after": "7"}))
    answer = requests.post(f"{url}/hooks", b"body", headers=signed(b"body", (OLD,)), timeout=60)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "7")
    assert requests.post(url, b"other", headers=signed(b"body", (OLD,)), timeout=60).status_code == 401
    assert [(request.path, request.problem is None, given.status) for request, given in received] == [
        ("/hooks", True, 503),
        ("/", False, 401),
    ]
    assert received[0][0].event_type == "user.created"


def test_bodies_are_bounded(serve: Callable[[Reply], str], received: list[tuple[Received, Reply]]) -> None:
    """A body over 2 MiB is refused with 413 and not kept, also without a length."""
    url = serve(Reply())
    too_large = [b"x" * 65536] * (BODY_BYTES // 65536 + 1)
    with contextlib.suppress(requests.ConnectionError):  # closed while the rest was being sent: fine too
        assert requests.post(url, iter(too_large), timeout=60).status_code == 413
    assert received == []


def test_compressed_bodies(serve: Callable[[Reply], str], received: list[tuple[Received, Reply]]) -> None:
    """They are verified and shown as they were signed; one that exceeds the limit decompressed is refused."""
    url = serve(Reply())
    headers = signed(b"body", (OLD,)) | {"content-encoding": "gzip"}
    for body, status in (
        (gzip.compress(b"body"), 200),
        (gzip.compress(b"other"), 401),
        (b"no gzip", 401),
        (gzip.compress(bytes(BODY_BYTES + 1)), 413),
    ):
        assert requests.post(url, body, headers=headers, timeout=60).status_code == status
    assert [request.body for request, _ in received] == [b"body", b"other", b"no gzip"]


def test_a_delay_delays_only_its_own_answer(serve: Callable[..., str]) -> None:
    """A slow receiver answers eight requests at the same time."""
    delays: list[float] = []
    all_wait = asyncio.Event()

    async def sleep(seconds: float) -> None:
        delays.append(seconds)
        if len(delays) == 8:
            all_wait.set()
        await all_wait.wait()

    url = serve(Reply(delay=0.3), sleep=sleep)
    with ThreadPoolExecutor(8) as threads:
        post = partial(requests.post, url, b"", headers=signed(b"", (NEW,)), timeout=60)
        answers = [threads.submit(post) for _ in range(8)]
    assert [answer.result().ok for answer in answers] == [True] * 8
    assert delays == [0.3] * 8


def test_other_methods(serve: Callable[[Reply], str]) -> None:
    """A GET is a health check; other methods are refused."""
    url = serve(Reply(503))
    assert [requests.get(url, timeout=60).status_code, requests.put(url, b"", timeout=60).status_code] == [200, 405]
