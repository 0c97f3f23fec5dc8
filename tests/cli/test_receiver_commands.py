"""Commands that meet a receiver: `subscriptions ping`, `verify` and `add --verify`, and `listen`, which is one."""

import json
import re
import time
from collections.abc import Callable
from contextlib import closing
from subprocess import CompletedProcess

import pytest
import requests
from sqlalchemy import Engine

from consumer.http.server import BackgroundServer
from consumer.http.server import listen as open_port
from consumer.ops.receiver import Reply, create_app
from consumer.subscriptions import repository
from consumer.subscriptions.repository import AWAITS_VERIFICATION
from tests.databases import url_of
from tests.processes import Command, Start
from tests.sending.conftest import Receive, answer
from tests.signatures import hexed, standard

Run = Callable[..., CompletedProcess[str]]
NO_OPTIONS = b"HTTP/1.1 405 X\r\nContent-Length: 0\r\n\r\n"
CONSENT = (
    b"HTTP/1.1 200 OK\r\nWebHook-Allowed-Origin: events.example.com\r\nWebHook-Allowed-Rate: 120\r\n"
    b"Content-Length: 0\r\n\r\n"
)


@pytest.fixture
def run(called: Command, engine: Engine) -> Run:
    """Runs a command of subscriptions."""
    given = {
        "DATABASE_URL": url_of(engine),
        "WEBHOOK_SECRET": "the-default-secret",
        "WEBHOOK_ALLOW_NETWORKS": "127.0.0.0/8",
        "WEBHOOK_ORIGIN": "events.example.com",
    }

    def run(*words: str, **settings: str) -> CompletedProcess[str]:
        done = called("subscriptions", *words, **{name: value for name, value in (given | settings).items() if value})
        done.stderr = re.sub(r"^waiting for .*\n", "", done.stderr)  # said on a slow machine
        return done

    return run


def test_ping_shows_the_exchange(run: Run, engine: Engine, receive: Receive) -> None:
    """It is printed in blocks or as JSON; the status is 1 unless the receiver took the event. No text is a command."""
    good = receive(b"HTTP/1.1 201 Created\r\nContent-Length: 8\r\n\r\nok\x1b[31m!")
    bad = receive(b"HTTP/1.1 302 Found\r\nLocation: https://x/\r\nContent-Length: 0\r\n\r\n")
    one, other = repository.add(engine, good.url, "a"), repository.add(engine, bad.url, "a")
    repository.set_enabled(engine, one, enabled=False, reason="until Monday")
    done = run("ping", str(one), "--event-type", "order.paid", "--data", '{"amount": 5}')
    assert (done.returncode, done.stderr) == (0, "")
    shown = dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if line and not line.startswith(" "))
    assert shown["state"] == "disabled: until Monday"
    assert (shown["address"], shown["x-webhook-event"]) == (f"127.0.0.1:{good.port}", "order.paid")
    assert (shown["status"], shown["response"]) == ("201", "ok\\x1b[31m!")
    assert shown["verdict"] == "delivered: the receiver took it with status 201"
    assert '  {"amount": 5}\n' in done.stdout
    refused = run("ping", str(other))
    assert refused.returncode == 1
    assert re.search(
        "^look at +redirects are never followed: the url should be https://x/$", refused.stdout, re.MULTILINE
    )
    told = json.loads(run("ping", str(other), "--json").stdout)
    assert (told["subscription_id"], told["state"], told["status"], told["ok"]) == (other, "enabled", 302, False)
    assert [len(each.requests) for each in (good, bad)] == [1, 2]


@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_a_subscription_is_disabled_until_its_receiver_agrees(
    run: Run, receive: Receive, engine: Engine, as_json: tuple[str, ...]
) -> None:
    """It is added, the error says how to continue, and the same command finds the row and asks again, but not twice."""
    receiver = receive(NO_OPTIONS)
    add = ("add", receiver.url, "a", "--verify", "--if-not-exists", *as_json)
    refused = run(*add)
    (item,) = repository.walk(engine)
    assert (item.enabled, item.disabled_reason, item.verified) == (False, AWAITS_VERIFICATION, False)
    receiver._behave = answer(CONSENT)
    agreed = run(*add)
    (item,) = repository.walk(engine)
    assert (item.state, item.verified, item.options["rate_limit"]) == ("enabled", True, 2.0)
    receiver._behave = answer(NO_OPTIONS)
    third, again = run(*add), run("verify", "1", "--rate", "600", *as_json)
    assert [each.returncode for each in (refused, agreed, third, again)] == [1, 0, 0, 1]
    assert len(receiver.requests) == 3
    assert b"webhook-request-rate: 600\r\n" in receiver.requests[-1].lower()
    if as_json:
        told = [json.loads(each.stdout) for each in (refused, agreed, third, again)]
        assert [each.get("added") for each in told] == [True, False, False, None]
        assert [each["verified"] for each in told] == [False, True, True, True]
        granted = {"granted": True, "allowed_rate": 120, "reason": None, "advice": None}
        assert (told[1]["verification"], told[0]["verification"]["granted"]) == (granted, False)
        assert ("verification" in told[2], refused.stderr) == (False, "")
        return
    assert refused.stdout == "subscription 1 added\n"
    assert refused.stderr == (
        "kafka-webhooks: subscription 1 is not verified, and is disabled: the receiver answered 405: it does not "
        "implement the validation request (OPTIONS) (docs/receiving.md shows how a receiver answers it). "
        "To go on: kafka-webhooks subscriptions verify 1\n"
    )
    permits = "its receiver permits 120 requests a minute; its rate limit is 2 a second"
    assert agreed.stdout.splitlines()[-1] == f"subscription 1 is verified: {permits}"
    assert "was verified before, and stays so: the receiver answered 405" in again.stderr


@pytest.mark.parametrize("words", [("add", "https://example.com/", "a", "--verify"), ("verify", "1")])
def test_an_origin_is_needed(run: Run, engine: Engine, words: tuple[str, ...]) -> None:
    """The error names the setting, and nothing is added."""
    done = run(*words, WEBHOOK_ORIGIN="")
    assert (done.returncode, "WEBHOOK_ORIGIN is not set" in done.stderr) == (2, True)
    assert tuple(repository.walk(engine)) == ()


def test_the_receiver_of_listen_agrees(run: Run) -> None:
    """It permits any rate, so that users can try the steps."""
    app = create_app([b"key"], lambda *_: None, lambda _: Reply())
    with closing(BackgroundServer(app, open_port("127.0.0.1", 0), "listen")) as server:
        done = run("add", f"http://127.0.0.1:{server.port}/hooks", "a", "--verify")
    assert done.stdout.splitlines()[-1] == "subscription 1 is verified: its receiver permits any rate"


def test_listen_verifies_and_prints(start: Start) -> None:
    """`listen` prints whether a request's signature is verified, and no content can control the terminal."""
    hexes = ("--hex-header", "X-Hub-Signature-256", "--hex-prefix", "sha256=")
    process = start("listen", "--port", "0", "--secret", "other", "--secret", "secret", *hexes, "--status", "202")
    assert process.stderr is not None
    assert process.stdout is not None
    address = re.search(r"http://\S+", process.stderr.readline())
    assert address
    now, body = int(time.time()), b'{"id": 1}\x1b[31m'
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(now),
        "webhook-signature": standard([b"secret"], (), "msg_1", now, body),
        "x-hub-signature-256": f"sha256={hexed(b'secret', body)}",
        "x-webhook-event": "user.created",
    }
    assert requests.post(address[0], body, headers=headers, timeout=60).status_code == 202
    assert "✓ user.created msg_1 /: signatures verified" in process.stdout.readline()
    assert process.stdout.readline() == '  {"id": 1}\\x1b[31m\n'
    assert requests.post(address[0], b"forged", headers=headers, timeout=60).status_code == 401
    assert "✗ user.created msg_1" in process.stdout.readline()
