"""Messages while a command waits: after a second, once, and not for programs."""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from sqlalchemy import Engine

from consumer.cli import waiting
from consumer.cli.waiting import Waiting, quietly
from tests.databases import url_of
from tests.processes import Command

ADD = ["subscriptions", "add", "https://example.com/hooks", "a"]


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shortens the second."""
    monkeypatch.setattr(waiting, "PATIENCE", 0.05)


@contextmanager
def locked(engine: Engine, seconds: float) -> Iterator[None]:
    """Keeps another process's transaction open for a time."""
    assert engine.url.database is not None
    with closing(sqlite3.connect(engine.url.database, check_same_thread=False, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        end = threading.Timer(seconds, connection.execute, ["ROLLBACK"])
        end.start()
        yield
        end.join()


@pytest.mark.usefixtures("brief")
def test_a_long_wait_is_reported_once(capsys: pytest.CaptureFixture[str]) -> None:
    """It is reported once however often it occurs, and short waits are not."""
    slow = Waiting("the tide")
    for seconds in (0.0, 0.3, 0.3):
        with slow:
            time.sleep(seconds)
    assert capsys.readouterr() == ("", "waiting for the tide\n")


@pytest.mark.usefixtures("brief")
def test_an_error_ends_the_waiting(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is reported afterwards."""
    with pytest.raises(ValueError, match="at once"), Waiting("the tide"):
        raise ValueError("at once")
    time.sleep(0.2)
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("brief")
def test_nothing_is_reported_with_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Only commands with JSON output are quiet; the next command reports again."""
    with quietly(quiet=True), Waiting("the tide"):
        time.sleep(0.2)
    assert capsys.readouterr().err == ""
    with quietly(quiet=False), Waiting("the tide"):
        time.sleep(0.2)
    assert capsys.readouterr().err == "waiting for the tide\n"


def test_a_locked_database_is_reported(called: Command, sqlite_engine: Engine) -> None:
    """Every command does so, because all statements are watched: only SQLite has one lock for all. Not with --json."""
    url = url_of(sqlite_engine)
    with locked(sqlite_engine, 2.0):
        ended = called(*ADD, DATABASE_URL=url)
    assert (ended.returncode, ended.stdout) == (0, "subscription 1 added\n")
    assert ended.stderr.startswith(f"waiting for the database at {url}\n")
    with locked(sqlite_engine, 2.0):
        ended = called(*ADD, "--json", DATABASE_URL=url)
    assert ended.returncode == 0
    assert "waiting" not in ended.stderr
