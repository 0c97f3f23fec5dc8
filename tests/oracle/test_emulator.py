"""The emulator's controls for tests: users, faults, and the recorded calls."""

import shutil
import socket
import threading
from math import inf
from pathlib import Path

import oracledb
import pytest
from sqlalchemy import create_engine, text

from tests.oracle.conftest import Connect, Start
from tests.oracle.test_driver import TABLE
from tests.oracle_emulator import Call, OracleEmulator, OracleError, java
from tests.oracle_emulator.packets import Channel, Disconnect
from tests.oracle_emulator.worker import Worker
from tests.provided import NotProvided

DEADLOCK = OracleError(60, "deadlock detected while waiting for resource")


def count(connection: oracledb.Connection) -> int:
    """The number of rows in the table."""
    (number,) = connection.cursor().execute("SELECT COUNT(*) FROM t").fetchone() or (0,)
    return int(number)


def test_a_new_user_begins_with_the_tables_of_another(oracle: OracleEmulator, cursor: oracledb.Cursor) -> None:
    """Rows, keys and constraints are copied, and later changes of either user do not reach the other."""
    cursor.execute(TABLE)
    cursor.execute("INSERT INTO t (name) VALUES ('first')")
    cursor.connection.commit()
    tables = oracle.tables_of("webhooks")
    users = [oracle.new_user(tables) for _ in range(2)]
    for number, user in enumerate(users):
        engine = create_engine(oracle.url_of(user))
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO t (name) VALUES (:name)"), {"name": f"of {number}"})
            assert connection.execute(text("SELECT id, name FROM t ORDER BY id")).all() == [
                (1, "first"),
                (2, f"of {number}"),
            ]
        engine.dispose()
    assert count(cursor.connection) == 1


def test_a_dropped_user_leaves_nothing(oracle: OracleEmulator, cursor: oracledb.Cursor, connect: Connect) -> None:
    """Its sessions and tables go; other users keep theirs."""
    cursor.execute(TABLE)
    oracle.add_user("other", "secret")
    other = connect(user="other")
    other.cursor().execute(TABLE)
    oracle.drop_user("other")
    with pytest.raises(oracledb.Error, match=r"DPY-4011|DPY-1001"):
        other.ping()
    with pytest.raises(oracledb.DatabaseError, match="ORA-01017"):
        connect(user="other")
    assert count(cursor.connection) == 0
    oracle.add_user("other", "secret")
    connect(user="other").cursor().execute(TABLE)


def test_a_function_chooses_the_calls_that_fail(oracle: OracleEmulator, cursor: oracledb.Cursor) -> None:
    """It receives the statement, its user and its binds, and may raise an error of its own."""
    cursor.execute(TABLE)
    seen: list[Call] = []

    def odd(call: Call) -> bool:
        seen.append(call)
        if call.rows and call.rows[0][0] == "worst":
            raise OracleError(1653, "unable to extend table")
        return bool(call.rows) and call.rows[0][0] == "bad"

    oracle.inject(odd, DEADLOCK, times=inf)
    cursor.execute("INSERT INTO t (name) VALUES (:1)", ["good"])
    for name, code in (("bad", "ORA-00060"), ("worst", "ORA-01653"), ("bad", "ORA-00060")):
        with pytest.raises(oracledb.DatabaseError, match=code):
            cursor.execute("INSERT INTO t (name) VALUES (:1)", [name])
    assert {call.user for call in seen} == {"WEBHOOKS"}
    assert [call.rows for call in seen] == [[["good"]], [["bad"]], [["worst"]], [["bad"]]]
    oracle.forget()
    cursor.execute("INSERT INTO t (name) VALUES (:1)", ["bad"])
    assert count(cursor.connection) == 2


@pytest.mark.parametrize(("drop", "rows"), [("before", 0), ("after", 1)])
def test_a_commit_whose_answer_is_lost(
    oracle: OracleEmulator, connect: Connect, cursor: oracledb.Cursor, drop: str, rows: int
) -> None:
    """The client cannot know whether the commit succeeded."""
    cursor.execute(TABLE)
    cursor.execute("INSERT INTO t (name) VALUES ('x')")
    oracle.inject("^COMMIT$", drop=drop)  # type: ignore[arg-type]  # one of the two
    with pytest.raises(oracledb.Error, match="DPY-4011"):
        cursor.connection.commit()
    assert count(connect()) == rows


def test_without_maven_it_is_unavailable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The reason names the missing program; a jar in the cache suffices."""
    monkeypatch.setenv("ORACLE_TEST_CACHE", str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(NotProvided, match="no mvn on PATH to download some-name"):
        java.provision("group:some-name:1.0")
    (tmp_path / "some-name-1.0.jar").touch()
    assert java.provision("group:some-name:1.0") == tmp_path / "some-name-1.0.jar"


def test_sessions_leave_no_threads_in_java(start_oracle: Start) -> None:
    """The threads of a session are detached from Java when it ends."""
    threads = java.of_java("java.lang.management.ManagementFactory").getThreadMXBean()
    start_oracle()  # or skips
    before = threads.getThreadCount()
    with OracleEmulator() as oracle:
        for _ in range(20):
            with oracledb.connect(user="webhooks", password="secret", dsn=oracle.dsn) as connection:
                connection.cursor().execute("SELECT 1 FROM dual").fetchall()
    assert threads.getThreadCount() <= before + 5, "H2 has some threads of its own"


def test_a_session_that_is_killed_before_its_statement_runs_ends(oracle: OracleEmulator) -> None:
    """Its thread, which may be about to wait for the socket, closes it; this is not a failure of the emulator."""
    assert oracle.failures == []  # the fixture has started Java, which the worker needs
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    channel.kill()
    cancelled = threading.Event()
    worker = Worker(channel)
    with theirs:
        with pytest.raises(Disconnect):
            worker.run(lambda: cancelled.wait(60), cancelled.set)
        assert cancelled.is_set()
        worker.close()
        channel.close()
        assert theirs.recv(1) == b""
