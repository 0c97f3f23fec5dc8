"""A call that is cut, a process that is killed and a session that is killed leave no lock."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from consumer.database.errors import line
from tests.databases import connect_to
from tests.first_hour.verdicts import LOOK, Finding, judged, unseen

LONGEST = 30.0  # seconds until a lock has to be free
_LOCK = "UPDATE webhook_subscriptions SET name = name WHERE id = :id"
_FREE = "SELECT id FROM webhook_subscriptions WHERE id = 1 FOR UPDATE NOWAIT"


def left(engine: Engine, seconds: float) -> Iterator[Finding]:
    """Verdicts of the time until a row is free again; a call is cut after so many seconds."""
    yield from _cut_call(engine, seconds)
    yield _killed_process(engine)
    yield from _killed_session(engine)


def _cut_call(engine: Engine, seconds: float) -> Iterator[Finding]:
    """A transaction has locked a row, and waits for another one until its call is cut."""
    with engine.connect() as other:
        _lock(other, 2)
        with engine.connect() as connection:
            _lock(connection, 1)  # the first execution of a text may take longer
            session: Any = connection.connection.dbapi_connection
            session.call_timeout = int(seconds * 1000)
            began = time.monotonic()
            try:
                _lock(connection, 2)
                yield Finding(LOOK, "a statement did not wait for a locked row")
            except DBAPIError as error:
                took = time.monotonic() - began
                text = f"a call that waits for a lock ends after {took:.1f} s: {line(error)}"
                yield judged(connection.invalidated and took < seconds + 10, text, text)
    yield _free(engine, "a call that was cut")


def _killed_process(engine: Engine) -> Finding:
    url = engine.url.render_as_string(hide_password=False)
    arguments = [sys.executable, "-m", "tests.first_hour.locks"]
    with subprocess.Popen(arguments, env=os.environ | {"ORACLE_URL": url}, stdout=subprocess.PIPE) as process:
        assert process.stdout
        if process.stdout.readline() != b"locked\n":
            return Finding(LOOK, "another process could not lock a row")
        process.kill()
    return _free(engine, "a killed process")


def _killed_session(engine: Engine) -> Iterator[Finding]:
    with engine.connect() as connection:
        _lock(connection, 1)
        session: Any = connection.connection.dbapi_connection
        try:
            with engine.connect() as other:
                place = f"{session.session_id},{session.serial_num}"
                other.exec_driver_sql(f"ALTER SYSTEM KILL SESSION '{place}' IMMEDIATE")
        except DBAPIError as error:
            yield unseen("a killed session's lock", error)
            return
        finally:
            connection.invalidate()
    yield _free(engine, "a killed session")


def _free(engine: Engine, after: str) -> Finding:
    """The verdict of the time until the row is free."""
    began, text = time.monotonic(), ""
    while time.monotonic() - began < LONGEST:
        try:
            with engine.connect() as connection:
                connection.exec_driver_sql(_FREE)
                connection.rollback()
        except DBAPIError as error:
            text = str(error.orig)
            time.sleep(0.05)
            continue
        return judged(True, f"{after} leaves its lock for {time.monotonic() - began:.1f} s", "")
    return Finding(LOOK, f"{after} leaves its lock for more than {LONGEST:g} s: {text}")


def _lock(connection: Connection, row: int) -> None:
    connection.exec_driver_sql(_LOCK, {"id": row})


if __name__ == "__main__":
    with connect_to(os.environ["ORACLE_URL"]).connect() as holder:
        _lock(holder, 1)
        print("locked", flush=True)  # noqa: T201 (the parent waits for it)
        time.sleep(2 * LONGEST)
