"""Thick mode, tokens, proxy users, editions and DRCP: what the driver gets from the settings.

No Oracle client can be installed for the tests: `init_oracle_client` and `connect` record their arguments.
"""

import os
import re
import subprocess
import sys
from typing import Any

import oracledb
import pytest

from tests.oracle.connection_kit import USER, make, refusal

LIB = "/opt/oracle/instantclient"
PLACE = "db.example.com:1521/?service_name=X"


class Driver:
    """The calls that the driver got: for the client's libraries, and for connections."""

    def __init__(self) -> None:
        self.clients: list[dict[str, Any]] = []
        self.connections: list[tuple[str | None, oracledb.ConnectParams]] = []

    def init_oracle_client(self, **arguments: Any) -> None:
        self.clients.append(arguments)

    def connect(self, dsn: str | None = None, *, params: oracledb.ConnectParams) -> oracledb.Connection:
        self.connections.append((dsn, params))
        raise oracledb.OperationalError("no such server")


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    """Records instead of loading and connecting."""
    made = Driver()
    monkeypatch.setattr(oracledb, "init_oracle_client", made.init_oracle_client)
    monkeypatch.setattr(oracledb, "connect", made.connect)
    return made


def asked(driver: Driver, url: str, **more: Any) -> tuple[str | None, oracledb.ConnectParams]:
    """The arguments of the connection that these settings make."""
    assert "no such server" in refusal(make(url, **more))
    ((dsn, params),) = driver.connections
    return dsn, params


def test_thin_mode_loads_no_client(driver: Driver) -> None:
    """The setting alone makes the difference."""
    dsn, params = asked(driver, USER + PLACE)
    assert (driver.clients, dsn, params.host) == ([], None, "db.example.com")


def test_thick_mode_loads_the_client_before_it_connects(driver: Driver) -> None:
    """Its libraries, and the directory of its own files; a host becomes a descriptor with our time limits."""
    engine = make(f"{USER}{PLACE}&config_dir=/etc/oracle", ORACLE_CLIENT_LIB=LIB)
    assert driver.clients == [{"lib_dir": LIB, "config_dir": "/etc/oracle"}]
    assert "no such server" in refusal(engine)
    ((dsn, params),) = driver.connections
    assert dsn is None
    assert params.get_connect_string().startswith("(DESCRIPTION=(EXPIRE_TIME=2)(TRANSPORT_CONNECT_TIMEOUT=5)(ADDRESS=")


@pytest.mark.parametrize("dsn", ["payments", "(DESCRIPTION=(ADDRESS=(PROTOCOL=TCP)(HOST=h)(PORT=1)))"])
def test_the_client_resolves_names_itself(driver: Driver, dsn: str) -> None:
    """An alias of tnsnames.ora or LDAP and a descriptor go to the client as they are."""
    place = dsn if dsn == "payments" else f"/?dsn={dsn}"
    assert asked(driver, USER + place, ORACLE_CLIENT_LIB=LIB)[0] == dsn


def test_a_wallet_and_kerberos_are_the_clients(driver: Driver) -> None:
    """Without user and password the client logs in by its own means; no ewallet.pem is looked for."""
    url = "oracle+oracledb://db.example.com/?service_name=X&wallet_location=/nowhere"
    _, params = asked(driver, url, ORACLE_CLIENT_LIB=LIB)
    assert not params.user
    assert params.wallet_location == "/nowhere"


def test_a_directory_without_a_client() -> None:
    """The program ends at the start, with a line that names the setting and the missing library."""
    done = subprocess.run(  # a process of its own: in this one thin mode may have connected
        [sys.executable, "-m", "consumer", "subscriptions", "list"],
        env={**os.environ, "DATABASE_URL": USER + PLACE, "ORACLE_CLIENT_LIB": "/nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert re.fullmatch(
        r"kafka-webhooks: ORACLE_CLIENT_LIB=/nowhere: DPI-1047: .*/nowhere/libclntsh\.so.*\n", done.stderr
    )


def test_a_proxy_user_an_edition_and_drcp(driver: Driver) -> None:
    """The URL has them: the user's brackets name the account whose rights and schema count."""
    more = "&edition=V2&server_type=pooled&cclass=HOOKS&purity=PURITY_SELF"
    _, params = asked(driver, f"oracle+oracledb://gateway[hooks]:secret@{PLACE}{more}")
    assert (params.user, params.proxy_user) == ("gateway", "hooks")
    assert (params.edition, params.server_type, params.cclass) == ("V2", "pooled", "HOOKS")
    assert params.purity == oracledb.PURITY_SELF


TOKENS = "tests.oracle.test_client_modes:token"


def token(refresh: bool) -> str:  # noqa: FBT001 (the driver's signature)
    """Gives a kept token, and fails where a new one is wanted."""
    if refresh:
        raise RuntimeError("a secret")
    return "a-token"


def test_an_access_token_replaces_the_password(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver gets a function that it can ask at each log-in; an error of the operator's does not show its text."""
    given: list[dict[str, Any]] = []
    made = oracledb.ConnectParams

    def make_params(**more: Any) -> object:
        given.append(more)
        return made(**more)

    monkeypatch.setattr(oracledb, "ConnectParams", make_params)
    _, params = asked(driver, f"oracle+oracledb://{PLACE}&protocol=tcps", DATABASE_TOKEN_CALLBACK=TOKENS)
    asks = given[-1]["access_token"]
    assert not params.user
    assert asks(False) == "a-token"
    with pytest.raises(oracledb.OperationalError, match=r"DATABASE_TOKEN_CALLBACK fails: RuntimeError$"):
        asks(True)
