"""Secrets on the command line: rotation, credentials, encryption; no other output shows a secret."""

import json
import re
import sqlite3
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from consumer.crypto.keys import Ed25519Key, parse_signing_key
from consumer.crypto.vault import Owner, Vault
from tests.processes import Command

KEY, OLD_KEY, OTHER_KEY = (Fernet.generate_key().decode() for _ in range(3))
SEED = bytes(range(32))
PRIVATE = "whsk_" + b64encode(SEED).decode()


class Deployment:
    """A migrated database, and commands that run on it with an encryption key."""

    def __init__(self, command: Command, directory: Path) -> None:
        self._command = command
        self._file = directory / "webhooks.db"
        self.settings = {"DATABASE_URL": f"sqlite:///{self._file}", "WEBHOOK_ENCRYPTION_KEY": KEY}
        self.output = ""  # output of all commands
        assert command("migrate", **self.settings).returncode == 0

    def __call__(self, *words: str, status: int = 0, stdin: str = "", **variables: str) -> tuple[str, str]:
        """Runs `subscriptions …` to its end and returns stdout and stderr."""
        values = {name: value for name, value in (self.settings | variables).items() if value}
        done = self._command("subscriptions", *words, stdin=stdin, **values)
        self.output += done.stdout + done.stderr
        assert done.returncode == status, done.stderr
        return done.stdout, done.stderr

    def rows(self) -> list[tuple[str, str, str | None]]:
        """Kind, stored text and end of each secret, newest first."""
        with sqlite3.connect(self._file) as database:
            query = "SELECT kind, secret, expires_at FROM webhook_secrets ORDER BY created_at DESC, id DESC"
            found: list[tuple[str, str, str | None]] = database.execute(query).fetchall()
        database.close()
        return found

    def insert(self, *texts: str) -> None:
        """Adds secrets to subscription 1 by plain SQL."""
        with sqlite3.connect(self._file) as database:
            database.executemany("INSERT INTO webhook_secrets (subscription_id, secret) VALUES (1, ?)", zip(texts))
        database.close()


FIRST = Owner(1, "signing")


@pytest.fixture
def deployment(called: Command, tmp_path: Path) -> Iterator[Deployment]:
    deployed = Deployment(called, tmp_path)
    deployed("add", "https://example.com/hooks", "user.created")
    yield deployed
    assert "Traceback" not in deployed.output


def test_a_rotation_for_scripts_and_for_people(deployment: Deployment, tmp_path: Path) -> None:
    """Stdout has only the new secret; stderr says what to do and by when. The stored text is encrypted."""
    before = datetime.now(UTC)
    (tmp_path / "secret").write_text("deployed older\n")
    shown, told = deployment("rotate-secret", "1", "--overlap", "2h", WEBHOOK_SECRET_FILE=f"{tmp_path}/secret")
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=\n", shown)
    until = re.search(r"must accept it by (\S+Z); until then the previous secrets also sign", told)
    assert until
    assert timedelta(hours=2) <= datetime.fromisoformat(until[1]) - before + timedelta(seconds=1) < timedelta(hours=2.1)
    assert shown.strip() not in told
    texts = [Vault(KEY).decrypt(text, FIRST) for _, text, _ in deployment.rows()]
    assert texts == [shown.strip(), "deployed", "older"]
    again, _ = deployment("rotate-secret", "1", "--json")
    document = json.loads(again)
    assert document.keys() == {"subscription_id", "algorithm", "receiver_key", "previous_until"}
    assert (document["subscription_id"], document["algorithm"]) == (1, "hmac")
    assert Vault(KEY).decrypt(deployment.rows()[0][1], FIRST) == document["receiver_key"]
    alone, told = deployment("rotate-secret", "1", "--overlap", "0", "--json")
    assert json.loads(alone)["previous_until"] is None
    assert "no previous secret signs" in told


def test_the_private_key_is_never_shown(deployment: Deployment) -> None:
    """For ed25519, stdout has the public key, which receivers need."""
    shown, told = deployment("rotate-secret", "1", "--algorithm", "ed25519", "--overlap", "0")
    stored = Vault(KEY).decrypt(deployment.rows()[0][1], FIRST)
    key = parse_signing_key(stored)
    assert isinstance(key, Ed25519Key)
    assert shown == f"{key.public}\n"
    assert "public key" in told
    given, _ = deployment("rotate-secret", "1", "--secret", "-", stdin=f"{PRIVATE}\n")
    assert given == f"{Ed25519Key(SEED).public}\n"
    for private in (stored, PRIVATE):
        assert private.removeprefix("whsk_")[:40] not in deployment.output


def test_refusals_of_a_rotation(deployment: Deployment) -> None:
    """Wrong usage and settings are 2, an absent subscription 1, each with a line that says what to do."""
    _, told = deployment("rotate-secret", "1", status=2)
    assert "WEBHOOK_SECRET is not set, and signs for subscription 1" in told
    _, told = deployment("rotate-secret", "1", status=2, WEBHOOK_ENCRYPTION_KEY="")
    assert 'WEBHOOK_ENCRYPTION_KEY="$(openssl rand -base64 32 | tr +/ -_)"' in told
    assert "--unencrypted" in told
    for words in (["--overlap", "soon"], ["--overlap", "400d"], ["--secret", "a", "--algorithm", "hmac"]):
        deployment("rotate-secret", "1", *words, status=2)
    _, told = deployment("rotate-secret", "1", "--secret", "-", "--overlap", "0", stdin="\n", status=2)
    assert "the secret is empty" in told
    _, told = deployment("rotate-secret", "1", "--secret", "whsec_hidden*", "--overlap", "0", status=2)
    assert "hidden" not in told
    assert deployment.rows() == []


def test_in_the_clear_only_on_request(deployment: Deployment) -> None:
    """`--unencrypted` without an encryption key stores the text itself; with a key it has no effect."""
    words = ["rotate-secret", "1", "--overlap", "0", "--unencrypted", "--secret", "in the clear"]
    _, told = deployment(*words, WEBHOOK_ENCRYPTION_KEY="")
    assert deployment.rows()[0][1] == "in the clear"
    assert (
        "the secret has 12 bytes; Standard Webhooks wants 24 to 64; without --secret a strong one is generated\n"
        in told
    )
    deployment(*words)
    assert deployment.rows()[0][1].startswith("fernet:")


def test_credentials(deployment: Deployment) -> None:
    """They are read from stdin or arguments. One replaces the previous one, and --remove removes all."""
    deployment("set-credential", "1", "--basic", "-", stdin="user:password\n")
    deployment("set-credential", "1", "--header", "x-key: hidden-before")
    deployment("set-credential", "1", "--header", "x-key=hidden")
    deployment("set-credential", "1", "--bearer", "-", stdin="token")
    found = [(kind, Vault(KEY).decrypt(text, Owner(1, kind))) for kind, text, _ in deployment.rows()]
    assert found == [("bearer", "token"), ("header", "x-key: hidden")]
    oauth2 = '{"token_url": "https://id.example.com/token",\n "client_id": "me", "client_secret": "hidden"}'
    deployment("set-credential", "1", "--oauth2", "-", stdin=oauth2)
    assert [(kind, Vault(KEY).decrypt(text, Owner(1, kind))) for kind, text, _ in deployment.rows()] == [
        ("oauth2", oauth2),
        ("header", "x-key: hidden"),
    ]
    _, told = deployment("set-credential", "1", "--oauth2", oauth2.replace("client_id", "client"), status=2)
    assert "oauth2 credentials have only client_id, client_secret, " in told
    for words in ([], ["--bearer", "a", "--remove"], ["--bearer", "a", "--basic", "a:b"]):
        _, told = deployment("set-credential", "1", *words, status=2)
        assert "give exactly one of --basic, --bearer, --header, --oauth2, --plugin and --remove" in told
    _, told = deployment("set-credential", "1", "--header", "host: hidden", status=2)
    assert "a subscription may not set host" in told
    shown, _ = deployment("set-credential", "1", "--remove")
    assert shown == "2 credentials of subscription 1 removed\n"
    assert deployment.rows() == []
    assert "hidden" not in deployment.output


def test_a_change_of_the_encryption_key(deployment: Deployment) -> None:
    """As documented: add the new key in front, encrypt anew, remove the old key.

    Lost secrets are named, with status 1.
    """
    deployment.insert("plain", Vault(OLD_KEY).encrypt("older", FIRST), Vault(OTHER_KEY).encrypt("lost", FIRST))
    keys = f"{KEY} {OLD_KEY}"
    shown, told = deployment("encrypt-secrets", WEBHOOK_ENCRYPTION_KEY=keys, status=1)
    assert shown == "3 secrets checked, 2 encrypted, 1 failed\n"
    assert told.splitlines() == ["secret 3 of subscription 1: no key in WEBHOOK_ENCRYPTION_KEY decrypts its secret"]
    shown, _ = deployment("encrypt-secrets", WEBHOOK_ENCRYPTION_KEY=f"{keys} {OTHER_KEY}")
    assert shown == "3 secrets checked, 1 encrypted, 0 failed\n"
    assert sorted(Vault(KEY).decrypt(text, FIRST) for _, text, _ in deployment.rows()) == ["lost", "older", "plain"]
    _, told = deployment("encrypt-secrets", WEBHOOK_ENCRYPTION_KEY="", status=2)
    assert "WEBHOOK_ENCRYPTION_KEY is not set" in told
    assert "--unencrypted" not in told


HIDDEN = {
    "signing": "hidden-0-in-the-clear",
    "rotated": PRIVATE,
    "basic": "user:hidden-1",
    "bearer": "hidden-2",
    "header": "x-key: hidden-3",
    "oauth2": '{"token_url": "https://a.test/", "client_id": "b", "client_secret": "hidden-5"}',
    "plugin": '{"name": "c", "args": ["hidden-6"]}',
    "deployed": "hidden-4",
}


def test_no_command_shows_a_secret(deployment: Deployment, command: Command) -> None:
    """With all kinds stored, no output, log or error of any command contains a secret or a key."""
    deployment.insert(HIDDEN["signing"])
    everywhere: Any = {"LOG_LEVEL": "DEBUG", "WEBHOOK_SECRET": HIDDEN["deployed"]}
    deployment("rotate-secret", "1", "--secret", "-", "--json", stdin=HIDDEN["rotated"], **everywhere)
    for kind in ("basic", "header", "oauth2", "plugin", "bearer"):
        deployment("set-credential", "1", f"--{kind}", HIDDEN[kind], **everywhere)
    commands = [["list"], ["list", "--json"], ["show", "1"], ["show", "1", "--json"], ["encrypt-secrets"]]
    for words in commands:
        deployment(*words, **everywhere)
        deployment(*words, status=1 if words == ["encrypt-secrets"] else 0, WEBHOOK_ENCRYPTION_KEY=OTHER_KEY)
    deployment("rotate-secret", "1", status=2, WEBHOOK_ENCRYPTION_KEY=OTHER_KEY)
    deployment("disable", "1", **everywhere)
    values = deployment.settings | everywhere
    for variables in (
        values,
        values | {"WEBHOOK_ENCRYPTION_KEY": OTHER_KEY},
        values | {"WEBHOOK_ENCRYPTION_KEY": "hidden"},
    ):
        done = command("check", **variables)
        deployment.output += done.stdout + done.stderr
    assert "hidden" not in deployment.output
    assert b64encode(SEED).decode()[:40] not in deployment.output
    assert "password" not in deployment.output
    for key in (KEY, OTHER_KEY):
        assert key not in deployment.output
    assert "fernet:" not in deployment.output
