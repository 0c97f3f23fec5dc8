"""Changes by commands are in the audit log, and the API accepts the tokens of `api-token`."""

import json
from pathlib import Path

import requests
from sqlalchemy import Engine

from consumer.api.tokens import Caller, TokenFile
from consumer.ledger import outbox
from tests.databases import url_of
from tests.processes import Command, Start


def test_a_change_by_a_command_is_reported(called: Command, engine: Engine) -> None:
    """It writes an event for the group of KAFKA_GROUP_ID, with the user as actor and without secrets."""
    settings = {"DATABASE_URL": url_of(engine), "KAFKA_GROUP_ID": "g", "WEBHOOK_SECRET": "whsec_" + "A" * 32}
    for words in (("add", "https://example.com/hooks", "a", "--bearer", "s3cret", "--unencrypted"), ("remove", "1")):
        done = called("subscriptions", *words, **settings)
        assert done.returncode == 0, done.stderr
    events = [event for _, event, _ in outbox.pending(engine, "g", 100)]
    assert [event.type for event in events] == ["subscription.created", "subscription.removed"]
    assert all(str(event.data["actor"]).startswith("cli:") for event in events)
    assert "s3cret" not in str(events)


def test_a_new_token_is_accepted(called: Command, tmp_path: Path) -> None:
    """Stdout has only the token, and stderr only its line for the file, without the token."""
    done = called("api-token", "acme", "--scope", "read", "--scope", "write", "--tenant", "acme")
    assert done.returncode == 0
    token = done.stdout.strip()
    assert token not in done.stderr
    file = tmp_path / "tokens.toml"
    file.write_text(done.stderr)
    assert TokenFile(str(file)).find(token.encode()) == Caller("acme", frozenset({"read", "write"}), "acme")


def test_the_api_serves_v1_with_the_file(start: Start, engine: Engine, called: Command, tmp_path: Path) -> None:
    """The process accepts the file's token, writes events with its name, and pings with WEBHOOK_SECRET."""
    made = called("api-token", "robot", "--scope", "read", "--scope", "write")
    (tmp_path / "tokens.toml").write_text(made.stderr)
    process = start(
        "api",
        DATABASE_URL=url_of(engine),
        API_TOKENS_FILE=str(tmp_path / "tokens.toml"),
        API_HOST="127.0.0.1",
        API_PORT="0",
        KAFKA_GROUP_ID="g",
        WEBHOOK_SECRET="whsec_" + "A" * 32,
        WEBHOOK_ALLOW_NETWORKS="127.0.0.0/8",
    )
    assert process.stderr is not None
    url = f"{json.loads(process.stderr.readline())['url']}/v1/subscriptions"
    headers = {"authorization": f"Bearer {made.stdout.strip()}"}
    assert requests.get(url, timeout=60).status_code == 401
    body = {"url": "http://127.0.0.1:1/hooks", "event_type": "a"}
    created = requests.post(url, json=body, headers=headers, timeout=60)
    assert created.status_code == 201
    pinged = requests.post(f"{url}/{created.json()['id']}/ping", json={}, headers=headers, timeout=60)
    assert (pinged.status_code, pinged.json()["ok"]) == (200, False)
    assert "refused" in pinged.json()["verdict"].lower()
    events = [event for _, event, _ in outbox.pending(engine, "g", 10)]
    assert [event.type for event in events] == ["subscription.created", "subscription.pinged"]
    assert {event.data["actor"] for event in events} == {"api:robot"}
