"""For tests of connecting: engines made from settings, and the errors of failed connections."""

import threading
from pathlib import Path

import oracledb
import pytest
from sqlalchemy import Engine, inspect
from sqlalchemy.exc import DBAPIError

from consumer.config.environment import load
from consumer.config.settings import DatabaseSettings
from consumer.database.engine import create_engine, ping, unavailable

USER = "oracle+oracledb://webhooks:secret@"
PASSWORDLESS = "oracle+oracledb://webhooks@127.0.0.1:{port}/?service_name=FREEPDB1"
SERVICE = "(CONNECT_DATA=(SERVICE_NAME=FREEPDB1))"
OPEN = "(ADDRESS=(PROTOCOL=TCP)(HOST=127.0.0.1)(PORT={port}))"


def make(url: str, **more: str) -> Engine:
    """An engine, made as the program makes it from these settings."""
    return create_engine(load(DatabaseSettings, {"DATABASE_URL": url, **more}))


def connects(url: str, **more: str) -> None:
    """Connects once by these settings, and disconnects."""
    engine = make(url, **more)
    ping(engine)
    engine.dispose()


def tables(url: str) -> list[str]:
    """The tables of a user."""
    engine = make(url)
    try:
        return inspect(engine).get_table_names()
    finally:
        engine.dispose()


def tnsnames(directory: Path, text: str) -> Path:
    """The directory, after writing this tnsnames.ora into it."""
    (directory / "tnsnames.ora").write_text(text)
    return directory


def refusal(engine: Engine) -> str:
    """The one-line error of a failed connection."""
    with pytest.raises(DBAPIError) as caught:
        engine.connect()
    known = unavailable(caught.value)
    assert known is not None, "it would be classified as a mistake of ours"
    text = str(known)
    assert "\n" not in text
    assert "secret" not in text
    return text


def session_of(engine: Engine) -> int:
    """The number of the session that the pool hands out now, once it has run a statement."""
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT 1 FROM dual").scalar() == 1
        session = connection.connection.driver_connection
        assert isinstance(session, oracledb.Connection)
        return int(session.session_id)


def await_log_ins() -> None:
    """Waits until no log-in is under way: an abandoned one goes on until the server ends it."""
    for thread in threading.enumerate():
        if thread.name == "oracle-connect":
            thread.join(60)
            assert not thread.is_alive()
