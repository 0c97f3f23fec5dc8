"""Connecting to Oracle by the settings, the pool, and the errors of failed connections."""

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
from sqlalchemy import Engine, event, literal_column, select
from sqlalchemy.exc import DBAPIError

from consumer.database import oracle as oracle_module
from consumer.database.engine import DatabaseThread, ping, unavailable
from consumer.ops import check
from tests.oracle.conftest import Start
from tests.oracle.connection_kit import (
    OPEN,
    PASSWORDLESS,
    SERVICE,
    USER,
    await_log_ins,
    connects,
    make,
    refusal,
    session_of,
    tnsnames,
)
from tests.oracle_emulator import PROFILE_18C, Call, OracleEmulator, OracleError
from tests.processes import free_port
from tests.waiting import eventually

NAP = "begin dbms_session.sleep(0.7); end;"
AT_ONCE = "begin null; end;"  # the emulator sees no break before it has answered
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
    """All documented forms connect. One reachable address of several is enough."""
    emulator = start_oracle()
    tnsnames(tmp_path, f"webhooks = (DESCRIPTION={OPEN}{SERVICE})".format(port=emulator.port))
    place = FORMS[form].format(port=emulator.port, closed=free_port(), directory=tmp_path)
    connects(USER + place)


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # the driver leaves closing a socket to the garbage collector
def test_an_address_without_the_service_is_skipped(start_oracle: Start) -> None:
    """A standby is such an address: a service of the primary does not run there."""
    standby, primary = start_oracle(service="OTHER"), start_oracle()
    addresses = OPEN.format(port=standby.port) + OPEN.format(port=primary.port)
    engine = make(f"{USER}/?dsn=(DESCRIPTION=(ADDRESS_LIST={addresses}){SERVICE})")
    ping(engine)
    assert (len(standby.clients), len(primary.clients)) == (0, 1)
    engine.dispose()


def test_v_session_shows_the_programs_name(oracle: OracleEmulator) -> None:
    """By default it would show the path of a Python."""
    engine = make(oracle.url)
    ping(engine)
    (client,) = oracle.clients
    assert (client.user, client.program, client.module) == ("WEBHOOKS", "kafka-webhooks", "kafka-webhooks")
    engine.dispose()


def test_the_sessions_of_each_thread_have_its_name(oracle: OracleEmulator) -> None:
    """The database's own history tells look-ups from storing by the action, also if they share a session in turn."""
    engine = make(oracle.url)
    answers: list[object] = []
    for name in ("lookups", "storing"):
        thread = DatabaseThread(name, lambda done: done())
        thread.submit(lambda: answers.append(session_of(engine)), lambda _: None)
        thread.close()
        (client,) = oracle.clients
        assert (client.action, client.module) == (name, "kafka-webhooks")
    assert len(set(answers)) == 1
    engine.dispose()


def test_a_server_that_is_too_old_is_refused(start_oracle: Start) -> None:
    """Oracle supports no release before 19c: each connection is refused, and `check` reports it."""
    oracle = start_oracle(PROFILE_18C)
    engine = make(oracle.url)
    assert refusal(engine) == "this is Oracle 18.3.0.0.0; Oracle 19c or newer is needed"
    found = {each.part: each for each in check.check_all({"DATABASE_URL": oracle.url})}
    assert not found["database"].ok
    assert "Oracle 19c or newer is needed" in found["database"].text
    eventually(lambda: not oracle.clients)


def test_a_session_is_checked_before_use(oracle: OracleEmulator) -> None:
    """It costs one round trip, with a statement that is parsed once. No statement gets a session that was ended."""
    engine = make(oracle.url)
    assert engine.pool._recycle == 1800
    for _ in range(2):
        session_of(engine)
    oracle.forget()
    session_of(engine)
    assert [(call.sql, call.parsed) for call in oracle.calls] == [
        ("SELECT 1 FROM DUAL", False),
        ("SELECT 1 FROM dual", False),
    ]
    before = session_of(engine)
    oracle.kill_sessions()
    assert session_of(engine) != before
    engine.dispose()


@pytest.mark.parametrize(("more", "parsed"), [("", 0), ("&stmtcachesize=5", 40)])
def test_a_statement_is_parsed_once(oracle: OracleEmulator, more: str, parsed: int) -> None:
    """A session keeps forty statements open and executes them by cursor; the URL may set another number."""
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
    """The error is transient, and the pool discards the session, whose answer could still arrive.

    The first execution of a text, which Oracle parses, may take four times as long.
    """
    monkeypatch.setattr("consumer.database.engine.CALL_TIMEOUT", 0.5)
    engine = make(oracle.url)
    session = session_of(engine)
    with engine.connect() as connection:
        connection.exec_driver_sql(NAP)
        assert connection.connection.dbapi_connection.call_timeout == 500  # type: ignore[union-attr]  # it is open
    with pytest.raises(DBAPIError) as caught, engine.connect() as connection:
        connection.exec_driver_sql(NAP)
    assert str(unavailable(caught.value)).startswith("DPY-4024: call timeout of 500 ms exceeded")
    assert session_of(engine) != session
    engine.dispose()


def is_late(call: Call) -> bool:
    """For `inject`: the answer comes after 1.4 seconds."""
    if call.sql == AT_ONCE:
        time.sleep(1.4)
    return call.sql == AT_ONCE


def test_a_call_that_is_answered_when_its_time_is_up_leaves_no_lock(oracle: OracleEmulator) -> None:
    """The driver's break comes behind the answer. The session ends nevertheless, and not only with the process."""
    engine = make(oracle.url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE t (id NUMBER(19) PRIMARY KEY)")
        connection.exec_driver_sql("INSERT INTO t (id) VALUES (1)")
        connection.exec_driver_sql(AT_ONCE)  # the first execution of a text may take longer
    oracle.inject(is_late)
    with engine.connect() as connection:
        connection.exec_driver_sql("DELETE FROM t")
        connection.connection.dbapi_connection.call_timeout = 1000  # type: ignore[union-attr]  # it is open
        with pytest.raises(DBAPIError, match=r"DPY-4024|previous socket timeout"):
            connection.exec_driver_sql(AT_ONCE)
    with engine.begin() as connection:
        assert connection.exec_driver_sql("SELECT id FROM t FOR UPDATE WAIT 5").scalar() == 1
    engine.dispose()
    eventually(lambda: not oracle.clients)


@pytest.mark.parametrize("when", ["in a statement", "while it is idle"])
@pytest.mark.parametrize(
    ("error", "log_ins"),
    [
        (OracleError(28, "your session has been killed"), 4),
        (OracleError(2396, "exceeded maximum idle time, please connect again"), 4),
        (OracleError(3113, "end-of-file on communication channel"), 6),
    ],
)
def test_only_a_server_that_is_gone_costs_all_sessions(
    oracle: OracleEmulator, error: OracleError, log_ins: int, when: str
) -> None:
    """A session that a DBA or a profile has ended is replaced alone; after a lost server each log-in is made anew."""
    engine, made = make(oracle.url), list[object]()
    event.listen(engine, "connect", lambda session, _: made.append(session))
    use_three(engine)
    oracle.inject("SELECT 1 FROM DUAL" if when == "while it is idle" else "SELECT 2", error)
    if when == "in a statement":
        with pytest.raises(DBAPIError), engine.connect() as connection:
            connection.exec_driver_sql("SELECT 2 FROM dual")
    use_three(engine)
    assert len(made) == log_ins
    engine.dispose()


def use_three(engine: Engine) -> None:
    """Uses three sessions at once."""
    with engine.connect() as one, engine.connect() as two, engine.connect() as three:
        for each in (one, two, three):
            each.exec_driver_sql("SELECT 1 FROM dual")


def test_a_listener_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """It accepts the connection and does no more; the driver would wait for ever."""
    monkeypatch.setattr(oracle_module, "CONNECT_LIMIT", 0.3)
    monkeypatch.setattr(oracle_module, "MAX_HANGING", 2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        engine = make(f"{USER}127.0.0.1:{listener.getsockname()[1]}/?service_name=FREEPDB1")
        for _ in range(2):
            assert refusal(engine).startswith("no answer from 127.0.0.1 within 0.3 s")
        assert refusal(engine).startswith("2 log-ins hang"), "threads and sockets must not add up"
        for _ in range(2):
            client, _ = listener.accept()
            with client:
                received = b""
                while b"FREEPDB1" not in received:  # read all: otherwise closing would reset the connection
                    received += client.recv(4096)
    await_log_ins()
    assert "Connection refused" in refusal(engine)


def test_a_log_in_that_comes_too_late_is_closed(oracle: OracleEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise an instance that hung for an hour would have a session for each try when it recovers."""
    monkeypatch.setattr(oracle_module, "CONNECT_LIMIT", 0.3)
    go_on, logged_in = threading.Event(), threading.Event()
    connect, kept = oracledb.connect, []
    engine = make(oracle.url)

    def keep(*arguments: Any, **more: Any) -> oracledb.Connection:
        kept.append(connect(*arguments, **more))  # otherwise garbage collection could close it
        return kept[-1]

    def hold(call: Call) -> bool:
        if call.sql == "CONNECT":
            go_on.wait(60)
            logged_in.set()
        return False

    monkeypatch.setattr(oracledb, "connect", keep)
    oracle.inject(hold)
    assert "no answer from 127.0.0.1" in refusal(engine)
    oracle.forget()
    monkeypatch.setattr(oracle_module, "CONNECT_LIMIT", 10)
    go_on.set()
    assert logged_in.wait(60)
    ping(engine)
    eventually(lambda: len(oracle.clients) == 1)
    (client,) = oracle.clients
    assert client.session == session_of(engine)
    engine.dispose()


def test_the_environment_names_the_directory_of_aliases(start_oracle: Start, tmp_path: Path) -> None:
    """With TNS_ADMIN, as for Oracle's own tools, the command connects, finds no tables and says so in one line."""
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


def test_a_missing_schema(oracle: OracleEmulator) -> None:
    """DATABASE_SCHEMA is wrong, or the owner's account does not exist yet."""
    assert "ORA-01435: user does not exist (is DATABASE_SCHEMA" in refusal(make(oracle.url, DATABASE_SCHEMA="NOBODY"))


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (OracleError(12660, "Encryption or crypto-checksumming parameters incompatible"), "native network encryption"),
        (OracleError(12514, "TNS:listener does not currently know of service"), "service_name in DATABASE_URL"),
    ],
)
def test_a_listeners_refusal_comes_with_advice(oracle: OracleEmulator, error: OracleError, advice: str) -> None:
    """Otherwise a server that requires native encryption looks like one that does not know the service."""
    oracle.inject("^CONNECT$", error)
    assert advice in refusal(make(oracle.url))


def test_the_password_file_is_read_at_each_connect(oracle: OracleEmulator, tmp_path: Path) -> None:
    """A rotation needs no restart: open sessions continue, and the next one uses the new password."""
    file = tmp_path / "password"
    file.write_text("secret\n")
    engine = make(PASSWORDLESS.format(port=oracle.port), DATABASE_PASSWORD_FILE=str(file))
    with engine.connect() as held:
        held.exec_driver_sql("SELECT 1 FROM dual")
        oracle.set_password("webhooks", "rotated")
        assert "ORA-01017" in refusal(engine)
        file.write_bytes(b"\xef\xbb\xbfrotated\r\n")  # as an editor on Windows writes it
        ping(engine)
        held.exec_driver_sql("SELECT 1 FROM dual")
    engine.dispose()
