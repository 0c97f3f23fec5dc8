"""Connecting to Oracle as the settings say, what the pool does, and what is said when it does not work."""

import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import oracledb
import pytest
from sqlalchemy import literal_column, select
from sqlalchemy.exc import DBAPIError

from consumer.database import oracle as oracle_module
from consumer.database.engine import ping, unavailable
from consumer.ops import check
from tests.oracle.conftest import Start
from tests.oracle.connection_kit import (
    OPEN,
    PASSWORDLESS,
    SERVICE,
    USER,
    await_log_ins,
    make,
    refusal,
    session_of,
    tnsnames,
    unused_port,
)
from tests.oracle_emulator import PROFILE_18C, Call, OracleEmulator, OracleError

SLEEP = "begin dbms_session.sleep(20); end;"
CLOSED = "(ADDRESS=(PROTOCOL=TCP)(HOST=127.0.0.1)(PORT={closed}))"
BOTH = CLOSED + OPEN
FORMS = {
    "host": "127.0.0.1:{port}/?service_name=FREEPDB1",
    "easy connect": "/?dsn=127.0.0.1:{port}/FREEPDB1?expire_time=3%26retry_count=1",
    "descriptor": f"/?dsn=(DESCRIPTION={OPEN}{SERVICE})",
    "alias": "webhooks?config_dir={directory}",
    "several addresses": f"/?dsn=(DESCRIPTION=(CONNECT_TIMEOUT=5)(LOAD_BALANCE=ON)(ADDRESS_LIST={BOTH}){SERVICE})",
    "two sites": f"/?dsn=(DESCRIPTION_LIST=(DESCRIPTION={CLOSED}{SERVICE})(DESCRIPTION={OPEN}{SERVICE}))",
    "several hosts": "/?dsn=127.0.0.1:{closed},127.0.0.1:{port}/FREEPDB1",
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_of_url_connects(start_oracle: Start, tmp_path: Path, form: str) -> None:
    """What the documentation shows. Of several addresses, one that answers is enough."""
    emulator = start_oracle()
    tnsnames(tmp_path, f"webhooks = (DESCRIPTION={OPEN}{SERVICE})".format(port=emulator.port))
    place = FORMS[form].format(port=emulator.port, closed=unused_port(), directory=tmp_path)
    engine = make(USER + place)
    ping(engine)
    engine.dispose()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the driver leaves a socket to Python
def test_an_address_without_the_service_is_passed_over(start_oracle: Start) -> None:
    """As of a standby, where a service that belongs to the primary does not run."""
    standby, primary = start_oracle(service="OTHER"), start_oracle()
    addresses = OPEN.format(port=standby.port) + OPEN.format(port=primary.port)
    engine = make(f"{USER}/?dsn=(DESCRIPTION=(ADDRESS_LIST={addresses}){SERVICE})")
    ping(engine)
    assert (len(standby.clients), len(primary.clients)) == (0, 1)
    engine.dispose()


def test_a_dba_sees_who_it_is(oracle: OracleEmulator) -> None:
    """V$SESSION holds these names; by default they would be the path of a Python."""
    engine = make(oracle.url)
    ping(engine)
    (client,) = oracle.clients
    assert (client.user, client.program, client.module) == ("WEBHOOKS", "kafka-webhooks", "kafka-webhooks")
    engine.dispose()


def test_a_session_does_not_depend_on_the_servers_settings(oracle: OracleEmulator) -> None:
    """Times are in UTC, and texts are sorted and compared by their bytes, as Python does. One round trip says so.

    The emulator sorts so in any case: a server whose language is German, say, would put letters before digits.
    """
    engine = make(oracle.url)
    ping(engine)
    sent = [call.sql for call in oracle.calls if call.sql.startswith("ALTER SESSION")]
    assert sent == ["ALTER SESSION SET TIME_ZONE = '+00:00' NLS_SORT = BINARY NLS_COMP = BINARY"]
    engine.dispose()


def test_a_server_that_is_too_old_is_refused(start_oracle: Start) -> None:
    """Before 19c FETCH FIRST reads all that it could return: each connection says so, and `check` too."""
    oracle = start_oracle(PROFILE_18C)
    engine = make(oracle.url)
    assert refusal(engine) == "this is Oracle 18.3.0.0.0; Oracle 19c or newer is needed"
    found = {each.part: each for each in check.check_all({"DATABASE_URL": oracle.url})}
    assert not found["database"].ok
    assert "Oracle 19c or newer is needed" in found["database"].text
    end = time.monotonic() + 10
    while oracle.clients and time.monotonic() < end:
        time.sleep(0.01)
    assert oracle.clients == []


def test_silence_is_probed(oracle: OracleEmulator) -> None:
    """A firewall forgets a connection that is idle; the kernel's probes keep it, and notice a server that is gone."""
    engine = make(oracle.url)
    ping(engine)
    (timer, left) = _timer_to(oracle.port)
    assert timer == "02", "a keep-alive timer (proc(5))"
    assert 60 < left <= 120
    engine.dispose()


def _timer_to(port: int) -> tuple[str, float]:
    """The kind of timer on the client's connection to a port, and its seconds."""
    try:
        lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    except OSError:
        pytest.skip("needs Linux's /proc/net/tcp")
    remote = f":{port:04X}"
    (found,) = (fields for fields in map(str.split, lines) if fields[2].endswith(remote) and fields[3] == "01")
    kind, _, ticks = found[5].partition(":")
    return kind, int(ticks, 16) / 100


def test_a_killed_session_is_replaced_before_use(oracle: OracleEmulator) -> None:
    """A statement never meets a session that the server has ended while it was idle."""
    engine = make(oracle.url)
    before = session_of(engine)
    oracle.kill_sessions()
    assert session_of(engine) != before
    engine.dispose()


def test_a_session_is_asked_before_use(oracle: OracleEmulator) -> None:
    """That is one round trip each time, of a statement that is parsed once."""
    engine = make(oracle.url)
    for _ in range(2):
        session_of(engine)
    oracle.forget()
    session_of(engine)
    assert [(call.sql, call.parsed) for call in oracle.calls] == [
        ("SELECT 1 FROM DUAL", False),
        ("SELECT 1 FROM dual", False),
    ]
    engine.dispose()


def test_sessions_are_renewed_after_half_an_hour(oracle: OracleEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that they move to a node that came back. Before that they stay."""
    engine = make(oracle.url)
    first = session_of(engine)
    now = time.time()
    monkeypatch.setattr("sqlalchemy.pool.base.time.time", lambda: now + 1700)
    assert session_of(engine) == first
    monkeypatch.setattr("sqlalchemy.pool.base.time.time", lambda: now + 1900)
    assert session_of(engine) != first
    engine.dispose()


@pytest.mark.parametrize(("more", "parsed"), [("", 0), ("&stmtcachesize=5", 40)])
def test_a_statement_is_parsed_once(oracle: OracleEmulator, more: str, parsed: int) -> None:
    """Forty different ones stay open in a session, which executes them by their cursors. The URL may say otherwise."""
    engine = make(oracle.url + more)
    with engine.connect() as connection:
        for _ in range(2):
            oracle.forget()
            for number in range(40):
                connection.execute(select(literal_column(str(number)))).close()
    assert len(oracle.calls) == 40
    assert sum(call.parsed for call in oracle.calls) == parsed
    engine.dispose()


def test_a_call_that_hangs_is_ended(oracle: OracleEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """It passes, and the pool hands that session out no more: its answer could still come."""
    monkeypatch.setattr("consumer.database.engine.CALL_TIMEOUT", 0.3)
    engine = make(oracle.url)
    session = session_of(engine)
    began = time.monotonic()
    with pytest.raises(DBAPIError) as caught, engine.connect() as connection:
        connection.exec_driver_sql(SLEEP)
    assert time.monotonic() - began < 5
    assert str(unavailable(caught.value)).startswith("DPY-4024: call timeout of 300 ms exceeded")
    assert session_of(engine) != session
    engine.dispose()


def test_a_listener_that_was_down(start_oracle: Start) -> None:
    """Until it is up the line says so; then the same engine connects."""
    port = unused_port()
    engine = make(f"{USER}127.0.0.1:{port}/?service_name=FREEPDB1")
    assert "Connection refused" in refusal(engine)
    start_oracle(port=port)
    ping(engine)
    engine.dispose()


def test_a_listener_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the connection and no more. The driver would wait for ever."""
    monkeypatch.setattr(oracle_module, "CONNECT_LIMIT", 0.3)
    monkeypatch.setattr(oracle_module, "MAX_HANGING", 2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        engine = make(f"{USER}127.0.0.1:{listener.getsockname()[1]}/?service_name=FREEPDB1")
        began = time.monotonic()
        for _ in range(2):
            assert refusal(engine).startswith("no answer from 127.0.0.1 within 0.3 s")
        assert refusal(engine).startswith("2 log-ins hang"), "threads and sockets must not add up"
        assert time.monotonic() - began < 5
        for _ in range(2):
            client, _ = listener.accept()
            with client:
                received = b""
                while b"FREEPDB1" not in received:  # all of it: else closing would be a reset
                    received += client.recv(4096)
    await_log_ins()
    assert "Connection refused" in refusal(engine)


def test_a_log_in_that_comes_too_late_is_closed(oracle: OracleEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else an instance that hangs for an hour would have a session for each try when it comes back."""
    monkeypatch.setattr(oracle_module, "CONNECT_LIMIT", 0.3)
    go_on, logged_in = threading.Event(), threading.Event()
    connect, kept = oracledb.connect, []
    engine = make(oracle.url)

    def keep(**arguments: Any) -> oracledb.Connection:
        kept.append(connect(**arguments))  # else Python could end it by forgetting it
        return kept[-1]

    def hold(call: Call) -> bool:
        if call.sql == "CONNECT":
            go_on.wait(10)
            logged_in.set()
        return False

    monkeypatch.setattr(oracledb, "connect", keep)
    oracle.inject(hold)
    assert "no answer from 127.0.0.1" in refusal(engine)
    oracle.forget()
    monkeypatch.setattr(oracle_module, "CONNECT_LIMIT", 10)
    go_on.set()
    assert logged_in.wait(10)
    ping(engine)
    end = time.monotonic() + 10
    while len(oracle.clients) != 1 and time.monotonic() < end:
        time.sleep(0.01)
    (client,) = oracle.clients
    assert client.session == session_of(engine)
    engine.dispose()


def test_the_environment_names_the_directory_of_aliases(start_oracle: Start, tmp_path: Path) -> None:
    """TNS_ADMIN, as with Oracle's own tools: the command connects, finds no tables, and says so in one line."""
    emulator = start_oracle()
    tnsnames(tmp_path, f"webhooks = (DESCRIPTION={OPEN}{SERVICE})".format(port=emulator.port))
    done = subprocess.run(
        [sys.executable, "-m", "consumer", "subscriptions", "list"],
        env={**os.environ, "TNS_ADMIN": str(tmp_path), "DATABASE_URL": f"{USER}webhooks"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert re.fullmatch(r"kafka-webhooks: ORA-00942: .* run kafka-webhooks migrate\)\n", done.stderr)


def test_an_alias_that_is_corrected_needs_no_restart(start_oracle: Start, tmp_path: Path) -> None:
    """tnsnames.ora is read at each connect."""
    emulator = start_oracle()
    engine = make(f"{USER}webhooks?config_dir={tnsnames(tmp_path, 'other = x')}")
    assert "DPY-4000" in refusal(engine)
    time.sleep(1.1)  # the driver looks at the file's whole seconds
    tnsnames(tmp_path, f"webhooks = (DESCRIPTION={OPEN}{SERVICE})".format(port=emulator.port))
    ping(engine)
    engine.dispose()


def test_one_name_that_does_not_resolve_stops_all_addresses(start_oracle: Start) -> None:
    """The driver looks all names up first: the documentation warns of it. If this changes, so should that."""
    emulator = start_oracle()
    dsn = f"(DESCRIPTION=(ADDRESS=(PROTOCOL=TCP)(HOST=nowhere.invalid)(PORT=1)){OPEN}{SERVICE})"
    text = refusal(make(f"{USER}/?dsn={dsn.format(port=emulator.port)}"))
    assert text.startswith("cannot connect to nowhere.invalid, 127.0.0.1: ")


def test_a_schema_that_nobody_owns(oracle: OracleEmulator) -> None:
    """A slip in DATABASE_SCHEMA, or the owner's account is still to be made."""
    assert "ORA-01435: user does not exist (is DATABASE_SCHEMA" in refusal(make(oracle.url, DATABASE_SCHEMA="NOBODY"))


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (OracleError(12660, "Encryption or crypto-checksumming parameters incompatible"), "native network encryption"),
        (OracleError(12514, "TNS:listener does not currently know of service"), "service_name in DATABASE_URL"),
    ],
)
def test_what_a_listener_refuses_comes_with_advice(oracle: OracleEmulator, error: OracleError, advice: str) -> None:
    """A server that wants native encryption, and one that does not know the service, look alike otherwise."""
    oracle.inject("^CONNECT$", error)
    assert advice in refusal(make(oracle.url))


def test_a_sid_where_a_service_belongs(oracle: OracleEmulator) -> None:
    """The commonest slip: in a URL the part after the port is a SID."""
    text = refusal(make(oracle.url.replace("/?service_name=", "/")))
    assert "DPY-6003" in text or "DPY-6001" in text


def test_the_password_file_is_read_at_each_connect(oracle: OracleEmulator, tmp_path: Path) -> None:
    """A rotation needs no restart: sessions go on, and the next one is made with the new password."""
    file = tmp_path / "password"
    file.write_text("secret\n")
    engine = make(PASSWORDLESS.format(port=oracle.port), DATABASE_PASSWORD_FILE=str(file))
    with engine.connect() as held:
        held.exec_driver_sql("SELECT 1 FROM dual")
        oracle.set_password("webhooks", "rotated")
        assert "ORA-01017" in refusal(engine)
        file.write_text("rotated\r\n")
        ping(engine)
        held.exec_driver_sql("SELECT 1 FROM dual")
    engine.dispose()
