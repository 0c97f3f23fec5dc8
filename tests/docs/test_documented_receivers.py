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

# Calls FUNCTION with arguments in JSON, where bytes are `{"bytes": HEX}`, and prints its result in the same way.
CALL = """
import { FUNCTION } from "./it.mjs"; import { readFileSync } from "node:fs";
const given = JSON.parse(readFileSync(0), (_, value) => value?.bytes ? Buffer.from(value.bytes, "hex") : value);
const result = FUNCTION(...given);
console.log(JSON.stringify(Buffer.isBuffer(result) ? { bytes: result.toString("hex") } : result));
"""

Start = Callable[[str, str], tuple[str, "subprocess.Popen[str]"]]
Call = Callable[..., Any]  # the example's name, the function's, and its arguments


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


@pytest.fixture(params=LANGUAGES)
def call(request: pytest.FixtureRequest, tmp_path: Path) -> Call:
    """Calls a function of a documented example."""
    program = run_by(request.param)

    def run(name: str, function: str, *arguments: Any) -> Any:
        if request.param == "python":
            names: dict[str, Any] = {}
            exec(example(f"{name}.py"), names)  # noqa: S102 (the documentation's function)
            return names[function](*arguments)
        (tmp_path / "it.mjs").write_text(example(f"{name}.mjs"))
        (tmp_path / "call.mjs").write_text(CALL.replace("FUNCTION", function))
        given = json.dumps(arguments, default=lambda data: {"bytes": data.hex()})
        command = [program, "call.mjs"]
        done = subprocess.run(command, cwd=tmp_path, input=given, capture_output=True, text=True, check=True)
        return json.loads(
            done.stdout, object_hook=lambda each: bytes.fromhex(each["bytes"]) if "bytes" in each else each
        )

    return run


def headers_of(request: PreparedRequest) -> dict[str, str]:
    """By lower-case name."""
    return {name.lower(): value for name, value in request.headers.items()}


KEYS = [Ed25519Key(bytes(31) + bytes([number])) for number in range(3)]


@pytest.mark.parametrize(
    ("name", "request_of", "keys"),
    [
        ("verify", lambda age: signed(NEW, OLD, age=age), [parse_secret(each) for each in (NEW, OLD, OTHER)]),
        ("verify_v1a", lambda age: signed(private_keys=tuple(KEYS[:2]), age=age), [each.public for each in KEYS]),
        ("verify_v1a", lambda age: signed(NEW, private_keys=tuple(KEYS[:2]), age=age), [each.public for each in KEYS]),
    ],
    ids=["secrets", "public keys", "public keys beside a secret"],
)
def test_verify(call: Call, name: str, request_of: Callable[[int], PreparedRequest], keys: list[bytes | str]) -> None:
    """It trusts a worker's signatures by any of its secrets or keys, and no others."""
    headers = headers_of(request_of(0))

    def trusts(key: bytes | str, given: dict[str, str], body: bytes = BODY) -> bool:
        return bool(call(name, "verify", given, body, key))

    new, old, other = keys
    assert trusts(new, headers)
    assert trusts(old, headers)
    assert not trusts(other, headers)
    assert not trusts(new, headers, BODY + b" ")
    for changed in (
        {**headers, "webhook-id": "msg_1"},
        {**headers, "webhook-timestamp": str(int(headers["webhook-timestamp"]) + 1)},
        {**headers, "webhook-signature": "v1a, v1a,AAAA v1a,é v1"},
        {},
        headers_of(request_of(-400)),
        headers_of(request_of(400)),
    ):
        assert not trusts(new, changed)


def test_compressed_bodies(call: Call) -> None:
    """`unpack` returns a compressed body as it was signed, and nothing for one too large or not gzip."""
    event = EVENT._replace(body=BODY * 100)
    endpoint = Endpoint(1, "http://127.0.0.1:1/hooks", (parse_secret(NEW),), gzip_above=0)
    request = build(prepare(endpoint), endpoint, event, int(time.time()))
    headers, bomb = headers_of(request), gzip.compress(bytes(3 * 2**20))
    given = [(headers, request.body), ({}, BODY), (headers, bomb), (headers, b"no gzip")]
    assert [call("unpack", "unpack", *each) for each in given] == [event.body, BODY, None, None]


@pytest.mark.parametrize("language", LANGUAGES)
def test_receiver(start: Start, status: Callable[[PreparedRequest], int], language: str) -> None:
    """It handles the event of a worker's request once, however often it arrives, and answers 401 to any other."""
    url, process = start(language, f"{OLD} {NEW}")
    other = EVENT._replace(webhook_id="msg_other")
    trusted = [signed(NEW, OLD, url=url), signed(NEW, OLD, url=url), signed(OLD, url=url, event=other)]
    refused = [signed(OTHER, url=url), signed(NEW, url=url, age=400), *(signed(NEW, url=url) for _ in range(4))]
    for request, name in zip(refused[2:5], ("id", "timestamp", "signature"), strict=True):
        del request.headers[f"webhook-{name}"]
    refused[5].body = BODY.replace(b"123", b"124")
    assert [status(request) for request in (*trusted, *refused)] == [204] * 3 + [401] * 6
    process.terminate()
    lines = [line.split(" ", 3) for line in process.communicate(timeout=120)[0].splitlines()]
    assert [line[:3] for line in lines] == [
        ["handled", "msg_0123456789abcdef", "user.created"],
        ["handled", "msg_other", "user.created"],
    ]
    assert json.loads(lines[0][3]) == json.loads(BODY)


def test_permission(call: Call) -> None:
    """Its answer permits its own origin at its rate, no other, and no request without an origin."""

    def behave(connection: socket.socket, request: bytes) -> bool:
        lines = (line.decode().partition(": ") for line in request.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:])
        status, headers = call("permission", "permission", {name.lower(): value for name, _, value in lines})
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
    assert call("permission", "permission", {})[0] == 403


def test_library_of_standard_webhooks() -> None:
    """The library accepts a worker's request, refuses another's, and accepts a plain secret as the page encodes it."""
    names: dict[str, Any] = {}
    exec(example("library.py"), names)  # noqa: S102 (the documentation's function)
    receive = names["receive"]
    headers = headers_of(signed(NEW))
    assert receive(headers, BODY, NEW) == json.loads(BODY)
    assert receive(headers, BODY + b" ", NEW) is None
    (encode,) = re.findall(r'`("whsec_" \+ base64\.[^`]+)`', (ROOT / "docs/receiving.md").read_text())
    encoded = eval(encode, {"base64": __import__("base64"), "secret": OLD})  # noqa: S307 (the documentation's expression)
    headers = headers_of(signed(OLD))
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
