"""Messages while a command waits: after a second, once, and not for programs."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from unittest.mock import Mock

import pytest
from sqlalchemy import Engine

from consumer.cli import progress
from consumer.cli.progress import Waiting, running
from tests.databases import url_of
from tests.processes import Command

ADD = ["subscriptions", "add", "https://example.com/hooks", "a"]


@pytest.fixture
def pass_by(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Ends the seconds that have begun and were not cancelled; there is no real time."""
    timers: list[Mock] = []

    def timer(_seconds: float, say: Callable[[], None]) -> Mock:
        timers.append(Mock(say=say))
        return timers[-1]

    def pass_by() -> None:
        while timers:
            if not (over := timers.pop()).cancel.called:
                over.say()

    monkeypatch.setattr(progress, "Timer", timer)
    return pass_by


@contextmanager
def locked(engine: Engine, wait: Callable[[], object]) -> Iterator[None]:
    """Keeps another process's transaction open until `wait` returns."""
    assert engine.url.database is not None
    with closing(sqlite3.connect(engine.url.database, check_same_thread=False, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        end = threading.Thread(target=lambda: (wait(), connection.execute("ROLLBACK")))
        end.start()
        yield
        end.join()


def test_a_long_wait_is_reported_once(capsys: pytest.CaptureFixture[str], pass_by: Callable[[], None]) -> None:
    """It is reported once however often it occurs, and short waits are not."""
    slow = Waiting("the tide")
    for is_short in (True, False, False):
        with slow:
            if not is_short:
                pass_by()
    assert capsys.readouterr() == ("", "waiting for the tide\n")


def test_nothing_is_reported_with_json_or_after_an_error(
    capsys: pytest.CaptureFixture[str], pass_by: Callable[[], None]
) -> None:
    """Only commands with JSON output are quiet; the next command reports again."""
    with pytest.raises(ValueError, match="at once"), Waiting("the tide"):
        raise ValueError("at once")
    for quiet, said in ((True, ""), (False, "waiting for the tide\n")):
        with running(quiet=quiet), Waiting("the tide"):
            pass_by()
        assert capsys.readouterr().err == said


def test_a_locked_database_is_reported(called: Command, sqlite_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command does so, because all statements are watched: only SQLite has one lock for all. Not with --json."""
    monkeypatch.setattr(progress, "PATIENCE", 0.05)
    url, say, said = url_of(sqlite_engine), Waiting._say, threading.Event()

    def saying(self: Waiting) -> None:
        say(self)
        said.set()

    monkeypatch.setattr(Waiting, "_say", saying)
    with locked(sqlite_engine, partial(said.wait, 60)):
        ended = called(*ADD, DATABASE_URL=url)
    assert (ended.returncode, ended.stdout) == (0, "subscription 1 added\n")
    assert ended.stderr.startswith(f"waiting for the database at {url}\n")
    with locked(sqlite_engine, partial(time.sleep, 1.0)):
        ended = called(*ADD, "--json", DATABASE_URL=url)
    assert ended.returncode == 0
    assert "waiting" not in ended.stderr
