"""Secrets on the command line: rotation, credentials, certificates, encryption; no other output shows a secret."""

import json
import re
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.fernet import Fernet
from sqlalchemy import Engine

from consumer.crypto.certificates import TlsIdentity, usable
from consumer.crypto.keys import Ed25519Key, parse_signing_key
from consumer.crypto.vault import Owner, Vault
from consumer.subscriptions import repository
from tests.databases import url_of
from tests.ledger.rows_kit import query, run
from tests.processes import Command

KEY, OLD_KEY, OTHER_KEY = (Fernet.generate_key().decode() for _ in range(3))
SEED = bytes(range(32))
PRIVATE = "whsk_" + b64encode(SEED).decode()
FIRST = Owner(1, "signing")


class Commands:
    """Runs `subscriptions …` on a database with a subscription and an encryption key; `output` has all of it."""

    def __init__(self, called: Command, engine: Engine) -> None:
        self._called = called
        self.engine = engine
        self.settings = {"DATABASE_URL": url_of(engine), "WEBHOOK_ENCRYPTION_KEY": KEY}
        self.output = ""

    def __call__(self, *words: str, status: int = 0, stdin: str = "", **variables: str) -> tuple[str, str]:
        """Stdout and stderr. An empty variable is not set."""
        values = {name: value for name, value in (self.settings | variables).items() if value}
        done = self._called("subscriptions", *words, stdin=stdin, **values)
        self.output += done.stdout + done.stderr
        assert done.returncode == status, done.stderr
        return done.stdout, done.stderr

    def stored(self) -> list[tuple[str, str]]:
        """Kind and stored text of each secret, newest first."""
        return [tuple(row) for row in query(self.engine, "SELECT kind, secret FROM webhook_secrets ORDER BY id DESC")]

    def texts(self) -> list[tuple[str, str]]:
        """The same, decrypted."""
        return [(kind, Vault(KEY).decrypt(text, Owner(1, kind))) for kind, text in self.stored()]

    def insert(self, *texts: str) -> None:
        """Adds secrets to the subscription by plain SQL."""
        for text in texts:
            run(self.engine, "INSERT INTO webhook_secrets (subscription_id, secret) VALUES (1, :text)", text=text)


@pytest.fixture
def commands(called: Command, engine: Engine) -> Iterator[Commands]:
    repository.add(engine, "https://example.com/hooks", "user.created")
    made = Commands(called, engine)
    yield made
    assert "Traceback" not in made.output


def test_a_rotation_for_scripts_and_for_people(commands: Commands, tmp_path: Path) -> None:
    """Stdout has only the new secret; stderr says what to do and by when. The stored text is encrypted."""
    before = datetime.now(UTC)
    (tmp_path / "secret").write_text("deployed older\n")
    shown, told = commands("rotate-secret", "1", "--overlap", "2h", WEBHOOK_SECRET_FILE=f"{tmp_path}/secret")
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=\n", shown)
    until = re.search(r"must accept it by (\S+Z); until then the previous secrets also sign", told)
    assert until
    assert abs(datetime.fromisoformat(until[1]) - before - timedelta(hours=2)) < timedelta(minutes=5)
    assert shown.strip() not in told
    assert [text for _, text in sorted(commands.texts())] == sorted([shown.strip(), "deployed", "older"])
    alone, told = commands("rotate-secret", "1", "--overlap", "0", "--json")
    document = json.loads(alone)
    key = document.pop("receiver_key")
    assert document == {"subscription_id": 1, "algorithm": "hmac", "previous_until": None}
    assert commands.texts()[0] == ("signing", key)
    assert "no previous secret signs" in told


def test_the_private_key_is_never_shown(commands: Commands) -> None:
    """For ed25519, stdout has the public key, which receivers need."""
    shown, told = commands("rotate-secret", "1", "--algorithm", "ed25519", "--overlap", "0")
    ((_, stored),) = commands.texts()
    key = parse_signing_key(stored)
    assert isinstance(key, Ed25519Key)
    assert (shown, "public key" in told) == (f"{key.public}\n", True)
    given, _ = commands("rotate-secret", "1", "--secret", "-", stdin=f"{PRIVATE}\n")
    assert given == f"{Ed25519Key(SEED).public}\n"
    for private in (stored, PRIVATE):
        assert private.removeprefix("whsk_")[:40] not in commands.output


@pytest.mark.parametrize(
    ("line", "settings", "said"),
    [
        ("rotate-secret 1", {}, "WEBHOOK_SECRET is not set, and signs for subscription 1"),
        ("rotate-secret 1", {"WEBHOOK_ENCRYPTION_KEY": ""}, '="$(openssl rand -base64 32 | tr +/ -_)". Or give --un'),
        ("rotate-secret 1 --overlap soon", {}, "is not a duration"),
        ("rotate-secret 1 --secret a --algorithm hmac", {}, "algorithm: a given secret determines it"),
        ("rotate-secret 1 --secret - --overlap 0", {}, "the secret is empty"),
        ("rotate-secret 1 --secret whsec_hidden* --overlap 0", {}, "is not base64"),
        ("set-credential 1 --oauth2 {}", {}, "oauth2 credentials need token_url"),
        ("set-credential 1", {}, "give exactly one of --basic, --bearer, --header, --oauth2, --plugin and --remove"),
        ("set-credential 1 --bearer hidden --remove", {}, "give exactly one of --basic"),
        ("set-credential 1 --header host:hidden", {}, "a subscription may not set host"),
        ("encrypt-secrets", {"WEBHOOK_ENCRYPTION_KEY": ""}, "WEBHOOK_ENCRYPTION_KEY is not set"),
        ("set-tls 1", {}, "give --cert and --key, --ca, or --remove"),
        ("set-tls 1 --ca ca --remove", {}, "give --cert and --key, --ca, or --remove"),
        ("set-tls 1 --cert cert", {}, "--cert and --key belong together"),
        ("set-tls 1 --cert cert --key ca", {}, "private_key: is not a private key in PEM"),
        ("set-tls 1 --cert cert --key key", {"WEBHOOK_ENCRYPTION_KEY": ""}, "WEBHOOK_ENCRYPTION_KEY is not set"),
        ("set-tls 1 --ca nowhere", {}, "No such file"),
        ("set-tls 1 --ca key", {}, "authorities: is not PEM"),
    ],
)
@pytest.mark.usefixtures("_files")
def test_refusals_are_2(commands: Commands, line: str, settings: dict[str, str], said: str) -> None:
    """The error says what to do, and nothing is stored or repeated."""
    shown, told = commands(*line.split(), stdin="\n", status=2, **settings)
    assert (shown, said in " ".join(told.split()), "hidden" in told) == ("", True, False), told
    assert (commands.stored(), repository.get(commands.engine, 1).tls) == ([], None)  # type: ignore[union-attr]


def test_in_the_clear_only_on_request(commands: Commands) -> None:
    """`--unencrypted` without an encryption key stores the text itself; with a key it has no effect."""
    words = ["rotate-secret", "1", "--overlap", "0", "--unencrypted", "--secret", "in the clear"]
    _, told = commands(*words, WEBHOOK_ENCRYPTION_KEY="")
    assert commands.stored() == [("signing", "in the clear")]
    assert "the secret has 12 bytes; Standard Webhooks wants 24 to 64; without --secret a strong one" in told
    commands(*words)
    assert commands.texts()[0] == ("signing", "in the clear")


def test_credentials(commands: Commands) -> None:
    """They are read from stdin or arguments, and --remove removes all."""
    commands("set-credential", "1", "--basic", "-", stdin="user:password\n")
    commands("set-credential", "1", "--header", "x-key=hidden")
    commands("set-credential", "1", "--bearer", "-", stdin="token")
    assert commands.texts() == [("bearer", "token"), ("header", "x-key: hidden")]
    oauth2 = '{"token_url": "https://id.example.com/token",\n "client_id": "me", "client_secret": "hidden"}'
    commands("set-credential", "1", "--oauth2", "-", stdin=oauth2)
    assert commands.texts() == [("oauth2", oauth2), ("header", "x-key: hidden")]
    assert commands("set-credential", "1", "--remove")[0] == "2 credentials of subscription 1 removed\n"
    assert commands.stored() == []
    assert "hidden" not in commands.output


def test_a_change_of_the_encryption_key(commands: Commands) -> None:
    """As documented: add the new key in front, encrypt anew, remove the old key. Lost secrets are named."""
    commands.insert("plain", Vault(OLD_KEY).encrypt("older", FIRST), Vault(OTHER_KEY).encrypt("lost", FIRST))
    keys = f"{KEY} {OLD_KEY}"
    shown, told = commands("encrypt-secrets", WEBHOOK_ENCRYPTION_KEY=keys, status=1)
    assert shown == "3 secrets checked, 2 encrypted, 1 failed\n"
    assert told.splitlines() == ["secret 3 of subscription 1: no key in WEBHOOK_ENCRYPTION_KEY decrypts its secret"]
    shown, _ = commands("encrypt-secrets", WEBHOOK_ENCRYPTION_KEY=f"{keys} {OTHER_KEY}")
    assert shown == "3 secrets checked, 1 encrypted, 0 failed\n"
    assert sorted(text for _, text in commands.texts()) == ["lost", "older", "plain"]


HIDDEN = {
    "basic": "user:hidden-1",
    "header": "x-key: hidden-3",
    "oauth2": '{"token_url": "https://a.test/", "client_id": "b", "client_secret": "hidden-5"}',
    "plugin": '{"name": "c", "args": ["hidden-6"]}',
    "bearer": "hidden-2",
}


def test_no_command_shows_a_secret(commands: Commands, called: Command) -> None:
    """With all kinds stored, no output, log or error of any command contains a secret or a key."""
    commands.insert("hidden-0-in-the-clear")
    everywhere: Any = {"LOG_LEVEL": "DEBUG", "WEBHOOK_SECRET": "hidden-4"}
    commands("rotate-secret", "1", "--secret", "-", "--json", stdin=PRIVATE, **everywhere)
    for kind, text in HIDDEN.items():
        commands("set-credential", "1", f"--{kind}", text, **everywhere)
    for line in ("list", "list --json", "show 1", "show 1 --json", "encrypt-secrets"):
        commands(*line.split(), **everywhere)
        commands(*line.split(), status=int(line == "encrypt-secrets"), WEBHOOK_ENCRYPTION_KEY=OTHER_KEY)
    commands("rotate-secret", "1", status=2, WEBHOOK_ENCRYPTION_KEY=OTHER_KEY)
    commands("disable", "1", **everywhere)
    for key in (KEY, OTHER_KEY, "hidden"):
        done = called("check", **commands.settings | everywhere | {"WEBHOOK_ENCRYPTION_KEY": key})
        commands.output += done.stdout + done.stderr
    for text in ("hidden", b64encode(SEED).decode()[:40], "fernet:", KEY, OTHER_KEY):
        assert text not in commands.output


@pytest.fixture
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Creates a client certificate, its key, and an authority in the working directory."""
    authority = trustme.CA()
    issued = authority.issue_cert("sender.test")
    texts = {"cert": issued.cert_chain_pems[0], "key": issued.private_key_pem, "ca": authority.cert_pem}
    for name, blob in texts.items():
        blob.write_to_path(str(tmp_path / name))
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("_files")
def test_certificates_are_set_shown_encrypted_and_removed(commands: Commands) -> None:
    """They are read from files, and no output contains the key."""
    given = TlsIdentity(*(Path(name).read_text() for name in ("cert", "key", "ca")))
    commands("set-tls", "1", "--cert", "cert", "--key", "key", "--unencrypted", WEBHOOK_ENCRYPTION_KEY="")
    assert commands("encrypt-secrets")[0] == "1 secret checked, 1 encrypted, 0 failed\n"
    told, _ = commands("set-tls", "1", "--ca", "ca")
    assert re.fullmatch(r"subscription 1 shows .*\nsubscription 1 trusts OU=Testing CA.*, and no other\n", told)
    shown = json.loads(commands("show", "1", "--json")[0])["tls"]
    assert (shown["certificate"]["subject"][:15], len(shown["authorities"])) == ("OU=Testing cert", 1)
    assert "client certificate" in commands("show", "1")[0]
    found = repository.get_endpoint(commands.engine, 1, (), Vault(KEY))
    assert found is not None
    assert found[1].tls == usable(given)
    for used in ("uses", "used"):
        assert commands("set-tls", "1", "--remove")[0] == f"subscription 1 {used} no certificates of its own\n"
    assert not any(line in commands.output for line in str(given.private_key).splitlines()[1:-1])
