"""`subscriptions add --verify` and `subscriptions verify`, with receivers that agree and others."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from subprocess import CompletedProcess

import pytest
from sqlalchemy import Engine

from consumer.http.server import BackgroundServer, listen
from consumer.ledger import outbox
from consumer.ops.receiver import Reply, create_app
from consumer.subscriptions import repository
from consumer.subscriptions.repository import AWAITS_VERIFICATION
from tests.databases import url_of
from tests.processes import Command
from tests.sending.conftest import Receiver, answer

Run = Callable[..., CompletedProcess[str]]
NO_OPTIONS = b"HTTP/1.1 405 X\r\nContent-Length: 0\r\n\r\n"
CONSENT = (
    b"HTTP/1.1 200 OK\r\nWebHook-Allowed-Origin: events.example.com\r\nWebHook-Allowed-Rate: 120\r\n"
    b"Content-Length: 0\r\n\r\n"
)


@pytest.fixture
def run(called: Command, engine: Engine) -> Run:
    """Runs a command of subscriptions; a setting that is None is not set."""
    given: dict[str, str | None] = {
        "DATABASE_URL": url_of(engine),
        "WEBHOOK_SECRET": "the-default-secret",
        "WEBHOOK_ALLOW_NETWORKS": "127.0.0.0/8",
        "WEBHOOK_ORIGIN": "events.example.com",
    }

    def run(*words: str, **settings: str | None) -> CompletedProcess[str]:
        values = {name: value for name, value in (given | settings).items() if value is not None}
        done = called("subscriptions", *words, **values)
        done.stderr = re.sub(r"^waiting for .*\n", "", done.stderr)  # said on a slow machine
        return done

    return run


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver that does not know OPTIONS until `agrees`."""
    made = Receiver(answer(NO_OPTIONS), None)
    yield made
    made.close()


def agrees(receiver: Receiver) -> None:
    """From now on it permits two requests a second."""
    receiver._behave = answer(CONSENT)


def test_a_subscription_whose_receiver_agrees_is_enabled(run: Run, receiver: Receiver, engine: Engine) -> None:
    """One command adds it, asks the receiver, enables it and keeps to the rate; the audit log has both steps."""
    agrees(receiver)
    done = run("add", receiver.url, "a", "--verify", "--generate-secret", "hmac", "--unencrypted")
    assert (done.returncode, done.stderr) == (0, "")
    first, key, last = done.stdout.splitlines()
    assert (first, key.startswith("its receiver verifies with (shown only once): whsec_")) == (
        "subscription 1 added",
        True,
    )
    assert last == (
        "subscription 1 is verified: its receiver permits 120 requests a minute; its rate limit is 2 a second"
    )
    (item,) = repository.walk(engine)
    assert (item.enabled, item.verified, item.options["rate_limit"]) == (True, True, 2.0)
    kinds = [event.type for _, event, _ in outbox.pending(engine, "webhooks", 10)]
    assert kinds == ["subscription.created", "subscription.verified"]
    assert re.search(r"^verified +True$", run("show", "1").stdout, re.MULTILINE)
    assert json.loads(run("list", "--json").stdout)[0]["verified"] is True


def test_a_subscription_stays_disabled_until_its_receiver_agrees(run: Run, receiver: Receiver, engine: Engine) -> None:
    """It is added, and the error says why it is not enabled, and how to continue."""
    refused = run("add", receiver.url, "a", "--verify")
    assert refused.returncode == 1
    assert refused.stdout == "subscription 1 added\n"
    assert refused.stderr == (
        "kafka-webhooks: subscription 1 is not verified, and is disabled: the receiver answered 405: it does not "
        "implement the validation request (OPTIONS) (docs/receiving.md shows how a receiver answers it). "
        "To go on: kafka-webhooks subscriptions verify 1\n"
    )
    (item,) = repository.walk(engine)
    assert (item.enabled, item.disabled_reason, item.verified) == (False, AWAITS_VERIFICATION, False)
    assert run("verify", "1").returncode == 1
    agrees(receiver)
    done = run("verify", "1", "--rate", "600")
    assert (done.returncode, done.stderr) == (0, "")
    (item,) = repository.walk(engine)
    assert (item.state, item.verified) == ("enabled", True)
    assert b"webhook-request-rate: 600\r\n" in receiver.requests[-1].lower()


def test_a_repeated_add_continues(run: Run, receiver: Receiver, engine: Engine) -> None:
    """A script that runs again after a crash between the steps finds the row, asks, and ends with status 0."""
    again = ("add", receiver.url, "a", "--verify", "--if-not-exists", "--json")
    first = run(*again)
    told = json.loads(first.stdout)
    assert (first.returncode, told["added"], told["enabled"]) == (1, True, False)
    assert told["verification"]["granted"] is False
    agrees(receiver)
    second = run(*again)
    told = json.loads(second.stdout)
    assert (second.returncode, told["added"], told["enabled"], told["verified"]) == (0, False, True, True)
    assert told["verification"] == {"granted": True, "allowed_rate": 120, "reason": None, "advice": None}
    asked = len(receiver.requests)
    third = run(*again)
    assert (third.returncode, "verification" in json.loads(third.stdout)) == (0, False)
    assert len(receiver.requests) == asked
    assert len(tuple(repository.walk(engine))) == 1


def test_as_json(run: Run, receiver: Receiver, engine: Engine) -> None:
    """One document has the receiver's answer and the subscription, whatever the answer."""
    one = str(repository.add(engine, receiver.url, "a"))
    refused = run("verify", one, "--json")
    told = json.loads(refused.stdout)
    assert (refused.returncode, refused.stderr, told["verified"], told["enabled"]) == (1, "", False, True)
    assert "answered 405" in told["verification"]["reason"]
    agrees(receiver)
    granted = run("verify", one, "--json")
    assert (granted.returncode, json.loads(granted.stdout)["verification"]["allowed_rate"]) == (0, 120)
    receiver._behave = answer(NO_OPTIONS)
    again = run("verify", one)
    assert (again.returncode, "was verified before, and stays so: the receiver answered 405" in again.stderr) == (
        1,
        True,
    )


@pytest.mark.parametrize("words", [("add", "https://example.com/", "a", "--verify"), ("verify", "1")])
def test_an_origin_is_needed(run: Run, engine: Engine, words: tuple[str, ...]) -> None:
    """The error names the setting, and nothing is added."""
    done = run(*words, WEBHOOK_ORIGIN=None)
    assert done.returncode == 2
    assert "WEBHOOK_ORIGIN is not set" in done.stderr
    assert "events.example.com" in done.stderr
    assert tuple(repository.walk(engine)) == ()


def test_listen_agrees(run: Run) -> None:
    """The receiver of `listen` permits any rate, so that users can try the steps."""
    app = create_app([b"key"], lambda *_: None, lambda _: Reply())
    with closing(BackgroundServer(app, listen("127.0.0.1", 0), "listen")) as server:
        done = run("add", f"http://127.0.0.1:{server.port}/hooks", "a", "--verify")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (
        0,
        "subscription 1 is verified: its receiver permits any rate",
    )
