"""The receivers in the documentation, run unchanged, with requests that are really signed and sent."""

import gzip
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from requests import PreparedRequest

from consumer.config.settings import DeliverySettings
from consumer.crypto.keys import Ed25519Key, parse_secret
from consumer.crypto.vault import Owner, Vault
from consumer.events.event import Event, RecordId
from consumer.loop.poller import Poller
from consumer.ops.ping import sending_by
from consumer.ops.verification import ask
from consumer.sending.adapter import LoopAdapter
from consumer.sending.egress import EgressPolicy
from consumer.sending.request import build
from consumer.sending.signing import prepare
from consumer.sending.validation_request import Declined, Granted
from consumer.subscriptions.endpoint import Endpoint
from tests.processes import ROOT, environment
from tests.sending.conftest import Receiver

NEW, OLD, OTHER = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "an-old-secret-in-plain-text", "somebody-else's"
BODY = '{"id": 123, "name": "Jané Doe"}'.encode()
EVENT = Event(RecordId("users", 0, 7, 1), "user.created", "msg_0123456789abcdef", BODY, "application/json", None, None)
LOOPBACK = EgressPolicy((ip_network("127.0.0.0/8"),))
LANGUAGES = ["python", "node"]

Start = Callable[[str, str], tuple[str, "subprocess.Popen[str]"]]
Verdict = Callable[[dict[str, str], bytes, str], bool]


def example(name: str) -> str:
    """The block that a page marks with this name."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    pattern = rf"<!-- example: {re.escape(name)} -->\n```\w+\n(.*?)^```$"
    (found,) = [text for page in pages for text in re.findall(pattern, page.read_text(), re.MULTILINE | re.DOTALL)]
    return str(found)


def run_by(language: str) -> str:
    """The program for a language; without node the test is skipped visibly, or fails if CI requires everything."""
    if language == "python":
        return sys.executable
    found = shutil.which("node")
    if found is None:
        if os.environ.get("KAFKA_TEST_REQUIRED"):
            pytest.fail("node is required and not installed", pytrace=False)
        pytest.skip("NODE NOT AVAILABLE: its examples were not run")
    return found


def signed(
    *secrets: str,
    url: str = "http://127.0.0.1:1/hooks",
    event: Event = EVENT,
    age: int = 0,
    private_keys: tuple[Ed25519Key, ...] = (),
) -> PreparedRequest:
    """A request as the worker makes it, `age` seconds ago."""
    endpoint = Endpoint(1, url, tuple(map(parse_secret, secrets)), private_keys=private_keys)
    return build(prepare(endpoint), endpoint, event, int(time.time()) - age)


@pytest.fixture
def status() -> Iterator[Callable[[PreparedRequest], int]]:
    """Sends a request as the worker does, and returns the receiver's status."""
    poller = Poller()
    adapter = LoopAdapter(poller, egress=LOOPBACK, timeout=10, connect_timeout=5, max_connections=4)
    yield lambda request: adapter.send(request).status_code
    adapter.close()
    poller.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a documented receiver with its secrets; returns its URL and its process."""
    running: list[subprocess.Popen[str]] = []

    def begin(language: str, secrets: str) -> tuple[str, "subprocess.Popen[str]"]:
        name = {"python": "receiver.py", "node": "receiver.mjs"}[language]
        program = run_by(language)
        (tmp_path / name).write_text(example(name))
        process = subprocess.Popen(
            [program, name],
            stdout=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env=environment({"WEBHOOK_SECRET": secrets, "PORT": "0"}),
        )
        running.append(process)
        assert process.stdout is not None
        word, port = process.stdout.readline().split()
        assert word == "listening"
        return f"http://127.0.0.1:{port}/hooks", process

    yield begin
    for process in running:
        process.kill()
        process.communicate()


def called_with(language: str, name: str, directory: Path) -> Callable[[dict[str, str], bytes, bytes | str], bool]:
    """The documented `verify`, called with headers by lower-case name, a body and a key."""
    program = run_by(language)
    if language == "python":
        names: dict[str, Any] = {}
        exec(example(f"{name}.py"), names)  # noqa: S102 (the documentation's function)
        return lambda headers, body, key: bool(names["verify"](headers, body, key))
    (directory / "verify.mjs").write_text(example(f"{name}.mjs"))
    script = (
        'import { verify } from "./verify.mjs"; import { readFileSync } from "node:fs";'
        "const [headers, body, key, text] = JSON.parse(readFileSync(0));"
        "console.log(verify(headers, Buffer.from(body, 'hex'), text ?? Buffer.from(key, 'hex')));"
    )
    (directory / "call.mjs").write_text(script)

    def call(headers: dict[str, str], body: bytes, key: bytes | str) -> bool:
        keys = [None, key] if isinstance(key, str) else [key.hex(), None]
        given = json.dumps([headers, body.hex(), *keys])
        command = [program, "call.mjs"]
        answer = subprocess.run(command, cwd=directory, input=given, capture_output=True, text=True, check=True)
        return {"true": True, "false": False}[answer.stdout.strip()]

    return call


@pytest.fixture(params=LANGUAGES)
def verdict(request: pytest.FixtureRequest, tmp_path: Path) -> Verdict:
    """The documented `verify`, called with headers by lower-case name, a body and a secret's text."""
    call = called_with(request.param, "verify", tmp_path)
    return lambda headers, body, secret: call(headers, body, parse_secret(secret))


@pytest.fixture(params=LANGUAGES)
def public_verdict(request: pytest.FixtureRequest, tmp_path: Path) -> Verdict:
    """The documented `verify` for public keys, called with headers by lower-case name, a body and a key."""
    return called_with(request.param, "verify_v1a", tmp_path)


def test_verify_in_the_readme(verdict: Verdict) -> None:
    """It trusts a worker's signatures by any of its secrets, and no others."""
    request = signed(NEW, OLD)
    headers = {name.lower(): value for name, value in request.headers.items()}
    assert verdict(headers, BODY, NEW)
    assert verdict(headers, BODY, OLD)
    assert not verdict(headers, BODY, OTHER)
    assert not verdict(headers, BODY + b" ", NEW)
    assert not verdict({**headers, "webhook-id": "msg_1"}, BODY, NEW)
    assert not verdict({**headers, "webhook-timestamp": str(int(headers["webhook-timestamp"]) + 1)}, BODY, NEW)
    assert not verdict({}, BODY, NEW)
    for age in (-400, 400):
        assert not verdict({name.lower(): value for name, value in signed(NEW, age=age).headers.items()}, BODY, NEW)


@pytest.mark.parametrize("language", LANGUAGES)
def test_compressed_bodies(language: str, tmp_path: Path) -> None:
    """`unpack` returns a compressed body as it was signed, and nothing for one too large or not gzip."""
    event = EVENT._replace(body=BODY * 100)
    endpoint = Endpoint(1, "http://127.0.0.1:1/hooks", (parse_secret(NEW),), gzip_above=0)
    request = build(prepare(endpoint), endpoint, event, int(time.time()))
    headers = {name.lower(): value for name, value in request.headers.items()}
    assert isinstance(request.body, bytes)
    bomb = gzip.compress(bytes(3 * 2**20))
    given = [(headers, request.body), ({}, BODY), (headers, bomb), (headers, b"no gzip")]
    assert unpacked_by(language, given, tmp_path) == [event.body, BODY, None, None]


def unpacked_by(language: str, given: list[tuple[dict[str, str], bytes]], directory: Path) -> list[bytes | None]:
    """The results of the documented `unpack` for headers and bodies."""
    program = run_by(language)
    if language == "python":
        names: dict[str, Any] = {}
        exec(example("unpack.py"), names)  # noqa: S102 (the documentation's function)
        return [names["unpack"](headers, body) for headers, body in given]
    (directory / "unpack.mjs").write_text(example("unpack.mjs"))
    script = (
        'import { unpack } from "./unpack.mjs"; import { readFileSync } from "node:fs";'
        "const given = JSON.parse(readFileSync(0)).map(([headers, body]) => unpack(headers, Buffer.from(body, 'hex')));"
        "console.log(JSON.stringify(given.map((body) => body && body.toString('hex'))));"
    )
    (directory / "call.mjs").write_text(script)
    sent = json.dumps([(headers, body.hex()) for headers, body in given])
    command = [program, "call.mjs"]
    answer = subprocess.run(command, cwd=directory, input=sent, capture_output=True, text=True, check=True)
    return [None if body is None else bytes.fromhex(body) for body in json.loads(answer.stdout)]


def test_verify_with_a_public_key(public_verdict: Verdict) -> None:
    """It trusts a worker's signatures by any of its private keys, beside an HMAC or alone, and no others."""
    new, old, other = (Ed25519Key(bytes(31) + bytes([number])) for number in range(3))
    for secrets in ((), (NEW,)):
        request = signed(*secrets, private_keys=(new, old))
        headers = {name.lower(): value for name, value in request.headers.items()}
        assert public_verdict(headers, BODY, new.public)
        assert public_verdict(headers, BODY, old.public)
        assert not public_verdict(headers, BODY, other.public)
        assert not public_verdict(headers, BODY + b" ", new.public)
        assert not public_verdict({**headers, "webhook-id": "msg_1"}, BODY, new.public)
    assert not public_verdict({**headers, "webhook-signature": "v1a, v1a,AAAA v1a,é v1"}, BODY, new.public)
    assert not public_verdict({}, BODY, new.public)
    for age in (-400, 400):
        old_headers = {name.lower(): value for name, value in signed(private_keys=(new,), age=age).headers.items()}
        assert not public_verdict(old_headers, BODY, new.public)


@pytest.mark.parametrize("language", LANGUAGES)
def test_receiver_trusts_signed_requests(start: Start, status: Callable[[PreparedRequest], int], language: str) -> None:
    """It answers 2xx to a worker's request and handles its event once, however often it arrives."""
    url, process = start(language, f"{OLD} {NEW}")
    other = EVENT._replace(webhook_id="msg_other")
    answers = [status(signed(NEW, OLD, url=url)) for _ in range(2)] + [status(signed(OLD, url=url, event=other))]
    assert answers == [204, 204, 204]
    process.terminate()
    lines = [line.split(" ", 3) for line in process.communicate(timeout=120)[0].splitlines()]
    assert [line[:3] for line in lines] == [
        ["handled", "msg_0123456789abcdef", "user.created"],
        ["handled", "msg_other", "user.created"],
    ]
    assert json.loads(lines[0][3]) == json.loads(BODY)


@pytest.mark.parametrize("language", LANGUAGES)
def test_receiver_refuses_the_rest(start: Start, status: Callable[[PreparedRequest], int], language: str) -> None:
    """It answers 401 and handles nothing if body, id, time, secret or signature is wrong."""
    url, process = start(language, NEW)
    changed = {
        "webhook-id": "msg_1",
        "webhook-timestamp": "1",
        "webhook-signature": "v1,AAAA v2",
    }
    requests = [signed(OTHER, url=url), signed(NEW, url=url, age=400), signed(NEW, url=url, age=-400)]
    for name, value in changed.items():
        for text in (value, None):
            request = signed(NEW, url=url)
            request.headers.pop(name)
            if text is not None:
                request.headers[name] = text
            requests.append(request)
    tampered = signed(NEW, url=url)
    tampered.body = BODY.replace(b"123", b"124")
    assert {status(request) for request in [*requests, tampered]} == {401}
    good = signed(NEW, url=url)
    good.headers["x-webhook-signature"] = (
        "of another secret: a rotation makes it so at once, and a subscription may lack it"
    )
    assert status(good) == 204
    process.terminate()
    assert len(process.communicate(timeout=120)[0].splitlines()) == 1


@pytest.mark.parametrize("language", LANGUAGES)
def test_permission(language: str, tmp_path: Path) -> None:
    """Its answer permits its own origin at its rate, no other, and no request without an origin."""
    if language == "python":
        names: dict[str, Any] = {}
        exec(example("permission.py"), names)  # noqa: S102 (the documentation's function)
        permission = names["permission"]
    else:
        (tmp_path / "permission.mjs").write_text(example("permission.mjs"))
        script = (
            'import { permission } from "./permission.mjs"; import { readFileSync } from "node:fs";'
            "console.log(JSON.stringify(permission(JSON.parse(readFileSync(0)))));"
        )
        (tmp_path / "call.mjs").write_text(script)

        def permission(headers: dict[str, str]) -> tuple[int, dict[str, str]]:
            command = [run_by(language), "call.mjs"]
            given = json.dumps(headers)
            answer = subprocess.run(command, cwd=tmp_path, input=given, capture_output=True, text=True, check=True)
            status, answered = json.loads(answer.stdout)
            return status, answered

    def behave(connection: socket.socket, request: bytes) -> bool:
        lines = (line.decode().partition(": ") for line in request.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:])
        status, headers = permission({name.lower(): value for name, _, value in lines})
        text = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        connection.sendall(f"HTTP/1.1 {status} x\r\n{text}content-length: 0\r\n\r\n".encode())
        return True

    settings = {"WEBHOOK_SECRET": "secret", "WEBHOOK_ALLOW_NETWORKS": "127.0.0.0/8"}
    send = sending_by(DeliverySettings.model_validate(settings))
    with closing(Receiver(behave, None)) as receiver:
        endpoint = Endpoint(1, receiver.url, (), rate_limit=20.0)
        assert ask(endpoint, origin="events.example.com", send=send) == Granted(600)
        refused = ask(endpoint, origin="other.example", send=send)
        assert isinstance(refused, Declined)
        assert refused.why == "the receiver answered 403"
    assert permission({})[0] == 403


def test_library_of_standard_webhooks() -> None:
    """The library accepts a worker's request, refuses another's, and accepts a plain secret as the page encodes it."""
    names: dict[str, Any] = {}
    exec(example("library.py"), names)  # noqa: S102 (the documentation's function)
    receive = names["receive"]
    headers = {name.lower(): value for name, value in signed(NEW).headers.items()}
    assert receive(headers, BODY, NEW) == json.loads(BODY)
    assert receive(headers, BODY + b" ", NEW) is None
    (encode,) = re.findall(r'`("whsec_" \+ base64\.[^`]+)`', (ROOT / "docs/receiving.md").read_text())
    encoded = eval(encode, {"base64": __import__("base64"), "secret": OLD})  # noqa: S307 (the documentation's expression)
    headers = {name.lower(): value for name, value in signed(OLD).headers.items()}
    assert receive(headers, BODY, encoded) == json.loads(BODY)


def test_encrypted_secret(tmp_path: Path) -> None:
    """A worker with the same key can use the secret that the documented program prints."""
    key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
    shown = subprocess.run(
        [sys.executable, "-c", example("encrypt.py")],
        cwd=tmp_path,
        env=environment({"WEBHOOK_ENCRYPTION_KEY": key}),
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    )
    assert shown.stdout.startswith("fernet:")
    assert Vault(key).decrypt(shown.stdout.strip(), Owner(7, "signing")) == NEW


def test_request_in_the_readme() -> None:
    """It is the worker's request for that event at that time, line by line."""
    pattern = r"^<!-- the request, signed with (\S+) -->\n```http\n(.*?)^```$"
    ((secret, text),) = re.findall(pattern, (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    head, _, body = text.strip().partition("\n\n")
    first, *lines = head.splitlines()
    headers = dict(line.split(": ", 1) for line in lines)
    event = EVENT._replace(webhook_id=headers["webhook-id"], body=body.encode())
    endpoint = Endpoint(1, "https://example.com/hooks", (parse_secret(secret),))
    request = build(prepare(endpoint), endpoint, event, int(headers["webhook-timestamp"]))
    assert first == f"{request.method} {request.path_url} HTTP/1.1"
    sent = {name: str(value) for name, value in request.headers.items() if name != "content-length"}
    assert sent == headers
