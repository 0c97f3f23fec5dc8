"""`subscriptions set-tls`, and its effect on `show`, `check` and `encrypt-secrets`."""

import json
from pathlib import Path

import pytest
import trustme
from cryptography.fernet import Fernet
from sqlalchemy import Engine

from consumer.crypto.certificates import TlsIdentity, usable
from consumer.crypto.vault import Vault
from consumer.subscriptions import repository
from tests.databases import url_of
from tests.processes import Command

KEY = Fernet.generate_key().decode()


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A client certificate, its key, and an authority."""
    authority = trustme.CA()
    issued = authority.issue_cert("sender.test")
    texts = {"cert": issued.cert_chain_pems[0], "key": issued.private_key_pem, "ca": authority.cert_pem}
    for name, blob in texts.items():
        blob.write_to_path(str(tmp_path / name))
    return {name: tmp_path / name for name in texts}


def test_certificates_are_set_shown_encrypted_and_removed(
    called: Command, engine: Engine, files: dict[str, Path]
) -> None:
    """They are read from files, and no output contains the key."""
    database = {"DATABASE_URL": url_of(engine)}
    key = files["key"].read_text()
    output = ""

    def run(*words: str, status: int = 0, **variables: str) -> str:
        nonlocal output
        done = called("subscriptions", *words, **{**database, "WEBHOOK_ENCRYPTION_KEY": KEY, **variables})
        assert done.returncode == status, done.stderr
        output += done.stdout + done.stderr
        return str(done.stdout if status == 0 else done.stderr)

    run("add", "https://example.com/hooks", "a")
    both = ("--cert", str(files["cert"]), "--key", str(files["key"]))
    assert "WEBHOOK_ENCRYPTION_KEY is not set" in run("set-tls", "1", *both, status=2, WEBHOOK_ENCRYPTION_KEY="")
    run("set-tls", "1", *both, "--unencrypted", WEBHOOK_ENCRYPTION_KEY="")
    assert run("encrypt-secrets") == "1 secret checked, 1 encrypted, 0 failed\n"
    told = run("set-tls", "1", "--ca", str(files["ca"]))
    assert "subscription 1 shows " in told
    assert "subscription 1 trusts OU=Testing CA" in told
    assert told.endswith(", and no other\n")
    shown = json.loads(run("show", "1", "--json"))
    assert shown["tls"]["certificate"]["subject"].startswith("OU=Testing cert")
    assert len(shown["tls"]["authorities"]) == 1
    assert "client certificate" in run("show", "1")
    found = repository.get_endpoint(engine, 1, (), Vault(KEY))
    assert found is not None
    assert found[1].tls == usable(TlsIdentity(files["cert"].read_text(), key, files["ca"].read_text()))
    assert run("set-tls", "1", "--remove") == "subscription 1 uses no certificates of its own\n"
    assert run("set-tls", "1", "--remove") == "subscription 1 used no certificates of its own\n"
    assert json.loads(run("show", "1", "--json"))["tls"] is None
    for line in key.splitlines()[1:-1]:
        assert line not in output


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        ((), 2, "give --cert and --key, --ca, or --remove"),
        (("--ca", "ca", "--remove"), 2, "give --cert and --key, --ca, or --remove"),
        (("--cert", "cert"), 2, "--cert and --key belong together"),
        (("--cert", "cert", "--key", "ca"), 2, "private_key: is not a private key in PEM"),
        (("--ca", "nowhere"), 2, "No such file"),
        (("--ca", "key"), 2, "authorities: is not PEM"),
    ],
)
def test_refusals(
    called: Command, engine: Engine, files: dict[str, Path], words: tuple[str, ...], status: int, text: str
) -> None:
    """A refusal comes before or after the database is read; nothing is stored."""
    repository.add(engine, "https://example.com/hooks", "a")
    database = {"DATABASE_URL": url_of(engine), "WEBHOOK_ENCRYPTION_KEY": KEY}
    named = [str(files.get(word, files["ca"].parent / word)) if word[0] != "-" else word for word in words]
    done = called("subscriptions", "set-tls", "1", *named, **database)
    assert (done.returncode, text in " ".join(done.stderr.split())) == (status, True), done.stderr
