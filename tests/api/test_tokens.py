"""The token file."""

from base64 import urlsafe_b64encode
from contextlib import nullcontext
from hashlib import sha256
from pathlib import Path

import pytest
import requests
from cryptography.fernet import Fernet, InvalidToken
from sqlalchemy import Engine
from structlog.testing import capture_logs

from consumer.api import tokens
from consumer.api.tokens import SCOPES, Caller, TokenFile, generate, line_of, parse
from consumer.errors import SettingsError
from tests.api.v1_kit import NEW, make_api, token_file


def test_a_printed_line_is_a_token_of_the_file() -> None:
    """The line that the command prints is a valid entry with any tenant's name."""
    for tenant in (None, "acme", 'a"b\\c', "naïve ☃ \N{GRINNING FACE}"):
        token = generate()
        found = tokens.find(parse(line_of("t-1", token, ("read", "write"), tenant)), token.encode())
        assert found == Caller("t-1", frozenset({"read", "write"}), tenant)


def test_the_holder_of_all_tokens_of_a_tenant_cannot_open_what_is_sealed(tmp_path: Path) -> None:
    """It knows their hashes. Other processes open it, if something in the file or API_TOKEN is not the tenant's."""
    path, seal = tmp_path / "tokens.toml", urlsafe_b64encode(sha256(b"seal" + sha256(b"a").digest()).digest())
    acme, other, of_all = (line_of(name, name, ["read"], of) for name, of in (("a", "acme"), ("b", "b"), ("c", None)))
    for lines, single, shared in (
        ([acme], None, False),
        ([acme], "weak", False),
        ([acme], "0123456789abcdef0123456789abcdef", True),
        ([acme, other], None, True),
        ([acme, of_all], None, True),
        ([of_all], None, True),
    ):
        path.write_text("\n".join(lines))
        with capture_logs():
            one, two = (TokenFile(str(path), single) for _ in range(2))
        sealed = one.sealed("5")
        assert one.opened(sealed) == "5"
        with pytest.raises(InvalidToken):
            Fernet(seal).decrypt(sealed)
        with nullcontext() if shared else pytest.raises(ValueError, match="not sealed"):
            two.opened(sealed)


def test_a_token_is_not_in_the_file() -> None:
    """The file has a hash. Tokens have 256 random bits, so no two are equal."""
    token = generate()
    assert token not in line_of("t", token, ("read",), None)
    assert len(token) > 43
    assert generate() != token


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\na = {}}", "line 2"),
        ('a = { sha256 = "x", scopes = ["read"] }', "a.sha256"),
        ('a = { sha256 = "HASH", scopes = [] }', "a.scopes"),
        ('a = { sha256 = "HASH", scopes = ["read"], tenant = "*" }', "a.tenant"),
        ('a = { sha256 = "HASH", scopes = ["read"], tenants = "x" }', "a.tenants"),
        ('"a b" = { sha256 = "HASH", scopes = ["read"] }', "letters"),
        ('API_TOKEN = { sha256 = "HASH", scopes = ["read"] }', "API_TOKEN"),
        ('a = { sha256 = "HASH", scopes = ["read"] }\nb = { sha256 = "HASH", scopes = ["read"] }', "two names"),
    ],
)
def test_a_wrong_file_is_refused_at_the_start(tmp_path: Path, text: str, said: str) -> None:
    """The error names the setting, the file and the place, and contains no hash."""
    digest = sha256(b"t").hexdigest()
    file = tmp_path / "tokens.toml"
    file.write_text(text.replace("HASH", digest))
    with pytest.raises(SettingsError, match="API_TOKENS_FILE") as caught:
        TokenFile(str(file))
    assert said in str(caught.value)
    assert str(file) in str(caught.value)
    assert digest not in str(caught.value)
    with pytest.raises(SettingsError, match="No such file"):
        TokenFile(str(tmp_path / "none"))


def test_the_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    """New tokens work and removed ones do not, without a restart. An invalid file leaves the last valid tokens."""
    file = tmp_path / "tokens.toml"
    file.write_text(line_of("old", "first", ("read",), None))
    known = TokenFile(str(file), "single")
    assert known.find(b"first") == Caller("old", frozenset({"read"}))
    replaced(file, line_of("new", "second", ("read",), None))
    with capture_logs() as logs:
        assert known.find(b"first") is None
        assert known.find(b"second") == Caller("new", frozenset({"read"}))
        replaced(file, "new = [")
        assert known.find(b"second") is not None
        file.unlink()
        assert known.find(b"second") is not None
        assert known.find(b"single") == Caller("API_TOKEN", frozenset(SCOPES))
    assert [each["log_level"] for each in logs] == ["info", "error", "error"]


@pytest.mark.parametrize(
    ("token", "weak"),
    [("secret-token", True), ("0123456789abcdef" * 2, False), ("ab" * 40, True)],
)
def test_a_weak_token_of_the_environment_is_named(token: str, weak: bool) -> None:  # noqa: FBT001 (a test's parameter)
    """The warning says how to make another, and does not quote it. Tokens of the file are always random."""
    with capture_logs() as logs:
        TokenFile(None, token)
    assert [each["event"] for each in logs] == ["API_TOKEN can be guessed"] * weak
    assert token not in str(logs)


def replaced(file: Path, text: str) -> None:
    """Replaces a file as Kubernetes does: another file is renamed to it."""
    other = file.with_suffix(".new")
    other.write_text(text)
    other.replace(file)


def test_every_token_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search compares every known token, also after a match, in constant time."""
    compared: list[tuple[bytes, bytes]] = []

    def compare(first: bytes, second: bytes) -> bool:
        compared.append((first, second))
        return first == second

    monkeypatch.setattr("consumer.api.tokens.hmac.compare_digest", compare)
    known = {sha256(name).digest(): Caller(name.decode(), frozenset()) for name in (b"a", b"b", b"c")}
    found = tokens.find(known, b"a")
    assert found is not None
    assert found.name == "a"
    assert len(compared) == 3


def test_the_old_paths_need_a_token_of_all_tenants(engine: Engine, tmp_path: Path) -> None:
    """With a token file they keep their error format, and refuse a tenant's token."""
    api = make_api(engine, TokenFile(token_file(tmp_path / "t"), "single"))
    body = {"url": NEW["url"], "eventType": "a"}
    statuses = {}
    for token in ("single", "all", "writer", "reader", "acme", "wrong"):
        answer = requests.post(f"{api.url}/register-webhook", json=body, headers=bearer(token), timeout=60)
        statuses[token] = answer.status_code
        assert set(answer.json()) == ({"message"} if answer.status_code == 201 else {"error"})
    assert statuses == {"single": 201, "all": 201, "writer": 201, "reader": 403, "acme": 403, "wrong": 401}


def bearer(token: str) -> dict[str, str]:
    """The header with a token."""
    return {"authorization": f"Bearer {token}"}


def test_without_any_token_only_localhost_is_served(engine: Engine) -> None:
    """As for the old paths, a page of another site cannot reach /v1 by a name that resolves here."""
    api = make_api(engine, TokenFile(None))
    assert api.call("GET", "/subscriptions", token=None).status_code == 200
    for path in ("/subscriptions", "/nothing"):
        refused = api.call("GET", path, token=None, headers={"host": "evil.example"})
        assert refused.status_code == 403
        assert refused.headers["content-type"] == "application/problem+json"
    foreign = api.call("POST", "/subscriptions", NEW, token=None, headers={"origin": "http://evil.example"})
    assert foreign.status_code == 403
    assert api.call("POST", "/subscriptions", NEW, token=None, headers={"origin": "http://["}).status_code == 403
