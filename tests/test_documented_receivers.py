"""The receivers in the documentation, run as they stand, against requests that are really signed and really sent."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from requests import PreparedRequest

from consumer.endpoint import Endpoint
from consumer.event import Event, RecordId
from consumer.secret import parse_secret
from consumer.sending.egress import EgressPolicy
from consumer.sending.poller import Poller
from consumer.sending.request import build, prepare
from consumer.sending.transport import CurlAdapter
from consumer.vault import Vault
from tests.processes import ROOT, environment

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
    """The program that runs a language; without node a visible skip, or an error where CI requires everything."""
    if language == "python":
        return sys.executable
    found = shutil.which("node")
    if found is None:
        if os.environ.get("KAFKA_TEST_REQUIRED"):
            pytest.fail("node is required and not installed", pytrace=False)
        pytest.skip("NODE NOT AVAILABLE: its examples were not run")
    return found


def signed(*secrets: str, url: str = "http://127.0.0.1:1/hooks", event: Event = EVENT, age: int = 0) -> PreparedRequest:
    """A request as the worker makes it, `age` seconds ago."""
    endpoint = Endpoint(1, url, tuple(map(parse_secret, secrets)))
    return build(prepare(endpoint), endpoint, event, int(time.time()) - age)


@pytest.fixture
def status() -> Iterator[Callable[[PreparedRequest], int]]:
    """Sends a request as the worker does; the receiver's answer."""
    poller = Poller()
    adapter = CurlAdapter(poller, egress=LOOPBACK, timeout=10, connect_timeout=5, max_connections=4)
    yield lambda request: adapter.send(request).status_code
    adapter.close()
    poller.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a documented receiver with its secrets; its URL and its process."""
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
def verdict(request: pytest.FixtureRequest, tmp_path: Path) -> Verdict:
    """The README's `verify`, called with headers by lower-case name, a body and a secret's text."""
    program = run_by(request.param)
    if request.param == "python":
        names: dict[str, Any] = {}
        exec(example("verify.py"), names)  # noqa: S102 (the documentation's function)
        return lambda headers, body, secret: bool(names["verify"](headers, body, parse_secret(secret)))
    (tmp_path / "verify.mjs").write_text(example("verify.mjs"))
    script = (
        'import { verify } from "./verify.mjs"; import { readFileSync } from "node:fs";'
        "const [headers, body, key] = JSON.parse(readFileSync(0));"
        "console.log(verify(headers, Buffer.from(body, 'hex'), Buffer.from(key, 'hex')));"
    )
    (tmp_path / "call.mjs").write_text(script)

    def call(headers: dict[str, str], body: bytes, secret: str) -> bool:
        given = json.dumps([headers, body.hex(), parse_secret(secret).hex()])
        command = [program, "call.mjs"]
        answer = subprocess.run(command, cwd=tmp_path, input=given, capture_output=True, text=True, check=True)
        return {"true": True, "false": False}[answer.stdout.strip()]

    return call


def test_verify_in_the_readme(verdict: Verdict) -> None:
    """It trusts what a worker signs, with any of its secrets, and nothing else."""
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
def test_receiver_trusts_what_is_signed(start: Start, status: Callable[[PreparedRequest], int], language: str) -> None:
    """It answers 2xx to a worker's request and handles its event once, however often it comes."""
    url, process = start(language, f"{OLD} {NEW}")
    other = EVENT._replace(webhook_id="msg_other")
    answers = [status(signed(NEW, OLD, url=url)) for _ in range(2)] + [status(signed(OLD, url=url, event=other))]
    assert answers == [204, 204, 204]
    process.terminate()
    lines = [line.split(" ", 3) for line in process.communicate(timeout=10)[0].splitlines()]
    assert [line[:3] for line in lines] == [
        ["handled", "msg_0123456789abcdef", "user.created"],
        ["handled", "msg_other", "user.created"],
    ]
    assert json.loads(lines[0][3]) == json.loads(BODY)


@pytest.mark.parametrize("language", LANGUAGES)
def test_receiver_refuses_the_rest(start: Start, status: Callable[[PreparedRequest], int], language: str) -> None:
    """It answers 401, and handles nothing, if any of body, id, time, secret or either signature is not right."""
    url, process = start(language, NEW)
    changed = {
        "webhook-id": "msg_1",
        "webhook-timestamp": "1",
        "webhook-signature": "v1,AAAA v2",
        "x-webhook-signature": "00",
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
    assert status(signed(NEW, url=url)) == 204
    process.terminate()
    assert len(process.communicate(timeout=10)[0].splitlines()) == 1


def test_library_of_standard_webhooks() -> None:
    """The library takes a worker's request, refuses another's, and takes a plain secret as the page encodes it."""
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
    """What the documented program prints is a secret that a worker with the same key can use."""
    key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
    shown = subprocess.run(
        [sys.executable, "-c", example("encrypt.py")],
        cwd=tmp_path,
        env=environment({"WEBHOOK_ENCRYPTION_KEY": key}),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert shown.stdout.startswith("fernet:")
    assert Vault(key).decrypt(shown.stdout.strip()) == parse_secret(NEW)
