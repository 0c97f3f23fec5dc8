"""Settings of an Oracle connection: accepted and refused ones, and errors that need no server."""

import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr

from consumer.config.settings import DatabaseSettings
from consumer.database import oracle as oracle_module
from consumer.database.engine import create_engine
from consumer.errors import SettingsError
from consumer.ops import check
from tests.oracle.connection_kit import OPEN, PASSWORDLESS, SERVICE, USER, make, refusal, tnsnames

ANY = USER + "h/?service_name=X"
TOKENS = "tests.oracle.test_client_modes:token"
DOCUMENT = Path(__file__).parents[2] / "docs/database.md"


def test_the_documented_urls_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block of settings in docs/database.md works as copied, with known parameters only."""
    monkeypatch.setattr("oracledb.init_oracle_client", lambda **_: None)  # there is no client to load
    monkeypatch.setitem(sys.modules, "iam_tokens", SimpleNamespace(token=str))
    text = DOCUMENT.read_text().partition("## Connecting")[2].partition("## Tables")[0]
    blocks = [dict(re.findall(r"export (\w+)='?([^'\n]+)'?", block)) for block in text.split("```sh")[1:]]
    assert len(blocks) == 9
    for settings in blocks:
        make(settings.pop("DATABASE_URL"), **settings)
    documented = set(re.findall(r"[`?&](\w+)(?=[=`])", text))
    assert documented >= oracle_module._PARAMETERS


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("nowhere.invalid/?service_name=X", "cannot connect to nowhere.invalid: "),
        ("/?dsn=nowhere.invalid/X", "cannot connect to nowhere.invalid: "),
        ("webhooks", "DPY-4027: no configuration directory specified (an alias needs config_dir"),
        ("webhooks?config_dir={empty}", "DPY-4026: file '{empty}/tnsnames.ora' is missing or unreadable"),
        ("other?config_dir={directory}", 'DPY-4000: unable to find "other" in {directory}/tnsnames.ora (correct'),
        ("half?config_dir={directory}", "DPY-4017: invalid connect descriptor"),
    ],
)
def test_an_unreachable_place(tmp_path: Path, place: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each error is one line that names the place, and the setting to correct."""
    monkeypatch.setattr("oracledb.defaults.config_dir", None)
    empty = tmp_path / "empty"
    empty.mkdir()
    tnsnames(tmp_path, f"webhooks = (DESCRIPTION={OPEN}{SERVICE})\nhalf = (DESCRIPTION=nothing)\n".format(port=1))
    given = {"empty": empty, "directory": tmp_path}
    assert refusal(make(USER + place.format(**given))).startswith(text.format(**given))


@pytest.mark.parametrize(
    ("content", "text"),
    [(None, "cannot be read: No such file"), (b"\n", "is empty"), (b"\xff\n", "cannot be read: it is not UTF-8")],
)
def test_a_password_file_without_a_password(tmp_path: Path, content: bytes | None, text: str) -> None:
    """The password may still come: the line names the setting and the file, never its content."""
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    engine = make(PASSWORDLESS.format(port=1), DATABASE_PASSWORD_FILE=str(file))
    assert refusal(engine).startswith(f"DATABASE_PASSWORD_FILE={file} {text}")


def test_no_password_at_all() -> None:
    """The line says where to set one."""
    assert "DATABASE_PASSWORD_FILE" in refusal(make(PASSWORDLESS.format(port=1)))


@pytest.mark.parametrize(
    ("url", "more", "text"),
    [
        (ANY, {"DATABASE_PASSWORD_FILE": "/p"}, "DATABASE_URL holds a password, and"),
        (ANY, {"DATABASE_TOKEN_CALLBACK": TOKENS}, "take user and password out of DATABASE_URL"),
        (ANY, {"DATABASE_TOKEN_CALLBACK": "none"}, "DATABASE_TOKEN_CALLBACK: is not written module:function"),
        (ANY, {"ORACLE_CLIENT_LIB": "/l", "DATABASE_WALLET_PASSWORD": "p"}, "cwallet.sso: unset it"),
        ("sqlite:///x.db", {"ORACLE_CLIENT_LIB": "/l"}, "ORACLE_CLIENT_LIB: SQLite has no client"),
        ("sqlite:///x.db", {"DATABASE_TOKEN_CALLBACK": TOKENS}, "DATABASE_TOKEN_CALLBACK: SQLite has no tokens"),
        ("sqlite:///x.db", {"DATABASE_SCHEMA": "HOOKS"}, "DATABASE_SCHEMA: SQLite has no schemas"),
        ("sqlite:///x.db", {"DATABASE_PASSWORD_FILE": "/p"}, "DATABASE_PASSWORD_FILE: SQLite has no passwords"),
        ("sqlite:///x.db", {"DATABASE_WALLET_PASSWORD": "p"}, "DATABASE_WALLET_PASSWORD: SQLite has no wallets"),
        (ANY + "&wallet_password=p4ss", {}, "wallet_password does not belong .*DATABASE_WALLET_PASS"),
        (ANY + "&password=p4ss", {}, "password does not belong .* before the @"),
        (ANY + "&walletlocation=/w", {}, "walletlocation is not a connection parameter.*wallet_location"),
        (ANY + "&service_name=Y", {}, "service_name is given more than once"),
        (ANY + "&ssl_server_dn_match=1", {}, "ssl_server_dn_match=1: write true or false"),
        (ANY + "&expire_time=2m", {}, "expire_time=2m: "),
        (ANY + "&purity=old", {}, "purity=old: write PURITY_NEW or PURITY_SELF"),
        (ANY + "&server_type=mine", {}, "server_type=mine: DPY-4028"),
        (ANY + "&protocol=tls", {}, "protocol=tls: DPY-4021"),
        (ANY + "&ssl_version=3", {}, "ssl_version=3: DPY-4032"),
        (USER + "h:1521/sid?service_name=X", {}, "sid is a SID"),
        (USER + "h:1521", {}, "port and no service"),
        (USER + "alias?protocol=tcps", {}, "protocol needs a host and service_name"),
        (USER + "/?dsn=h/x&protocol=tcps", {}, "protocol needs a host and service_name"),
        (USER + "h/?dsn=x", {}, "dsn already names the database"),
        (USER + "/?dsn=u/p4ss@h/x", {}, "dsn holds a user or a password"),
        (USER + "/?service_name=x", {}, "names no host"),
    ],
)
def test_a_url_that_can_never_work(url: str, more: dict[str, str], text: str) -> None:
    """It is refused at the start, in one line without secrets, before anything connects. No parameter is ignored."""
    with pytest.raises(SettingsError, match=text) as caught:
        make(url, **more)
    assert "\n" not in str(caught.value)
    assert "p4ss" not in str(caught.value)


def test_the_settings_do_not_show_passwords() -> None:
    """The repr of settings and engine shows none."""
    settings = DatabaseSettings(
        url=SecretStr(USER + "h/?service_name=X"),
        db_schema=None,
        password_file=None,
        wallet_password=SecretStr("p4ss"),
        encryption_key=None,
    )
    engine = create_engine(settings)
    assert not re.search("p4ss|secret@|:secret", f"{settings!r} {engine!r} {engine.url}")


def test_check_shows_the_cause(tmp_path: Path) -> None:
    """`kafka-webhooks check` shows settings that conflict with each other, and a failed connection."""

    def found(**values: str) -> Any:
        return next(iter(check._database(values)))

    both = {"DATABASE_URL": USER + "h/?service_name=X", "DATABASE_PASSWORD_FILE": "/p"}
    assert found(**both).text.startswith("DATABASE_URL holds a password")
    alias = found(DATABASE_URL=f"{USER}other?config_dir={tmp_path}")
    assert (alias.ok, alias.text[:9]) == (False, "DPY-4026:")
    assert "names the directory of tnsnames.ora" in alias.text
