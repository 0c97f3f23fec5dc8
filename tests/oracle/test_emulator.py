"""The emulator's Java machine, and the end of its sessions."""

import shutil
import socket
import threading
from pathlib import Path

import oracledb
import pytest

from tests.oracle.conftest import Start
from tests.oracle_emulator import OracleEmulator, java
from tests.oracle_emulator.packets import Channel, Disconnect
from tests.oracle_emulator.worker import Worker
from tests.provided import NotProvided


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
