"""Settings of the server, and the documented accounts."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from secrets import token_hex
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from consumer.database import charset, migrations
from consumer.database.engine import lossy_commits
from consumer.database.errors import line
from tests.databases import connect_to
from tests.first_hour.verdicts import LOOK, NOT_SEEN, OK, PROGRESS, Finding, judged, unseen, view
from tests.oracle.accounts import ACCOUNTS, granted, statements

_SETTINGS = (
    "SELECT name, value FROM v$parameter WHERE name IN"
    " ('commit_wait', 'commit_logging', 'max_string_size', 'open_cursors', 'processes')"
)
_LEAST = {"open_cursors": 100, "processes": 100}  # a session holds twenty cursors; a process has eight sessions


def settings(engine: Engine) -> Iterator[Finding]:
    """The character set, and the parameters that change what is promised."""
    lacks = charset.shortcoming(engine)
    yield judged(lacks is None, "the character set holds all values", lacks or "")
    found = view(engine, "parameters", _SETTINGS)
    if isinstance(found, Finding):
        yield found
        return
    if not found:
        yield Finding(NOT_SEEN, "parameters: the view is empty")
    for name, value in found:
        text = f"{name} = {value or 'unset'}"
        match name:
            case "commit_wait" | "commit_logging":
                yield judged("NOWAIT" not in (value or "").upper(), text, f"{text}: {lossy_commits(engine)}")
            case "max_string_size":
                yield Finding(PROGRESS if value == "EXTENDED" else OK, f"{text}: docs/database.md, For DBAs")
            case _:
                yield judged(int(value) >= _LEAST[name], text, f"{text}; at least {_LEAST[name]} would do")


def accounts(engine: Engine) -> Iterator[Finding]:
    """The documented accounts, with the documented grants and DATABASE_SCHEMA, parse all of their statements."""
    owner = str(engine.url.username).upper()
    for name in ACCOUNTS:
        password = f"Aa1_{token_hex(8)}"
        with ExitStack() as after, engine.connect() as connection:
            try:
                connection.exec_driver_sql(f'CREATE USER {name} IDENTIFIED BY "{password}"')
                after.callback(_drop, engine, name)
                connection.exec_driver_sql(f"GRANT CREATE SESSION TO {name}")
                for action, table in sorted(granted(name)):
                    connection.exec_driver_sql(f"GRANT {action} ON {table} TO {name}")
            except DBAPIError as error:
                yield unseen(f"the account {name}, with its documented grants", error)
                continue
            yield from _parsed(engine.url.set(username=name, password=password), owner, name)


def _parsed(url: Any, owner: str, name: str) -> Iterator[Finding]:
    """The verdict of parsing the account's statements: Oracle looks at rights when it parses."""
    engine = connect_to(url.render_as_string(hide_password=False), owner)
    number = 0
    try:
        behind = migrations.state(engine).behind if name == "webhooks_service" else False
        yield judged(not behind, f"{name} uses the tables of {owner}", f"{name} finds no revision in {owner}")
        with engine.connect() as connection:
            session: Any = connection.connection.driver_connection
            for said, sql in statements():
                if not re.match(ACCOUNTS[name], said):
                    continue
                number += 1
                try:
                    with session.cursor() as cursor:
                        cursor.parse(sql)
                except Exception as error:  # noqa: BLE001 (the driver's own; each is told)
                    yield Finding(LOOK, f"{name} may not {said}: {error}")
        yield Finding(OK, f"{name}: {number} statements parsed with the documented grants")
    except DBAPIError as error:
        yield Finding(LOOK, f"{name}: {line(error)}")
    finally:
        engine.dispose()


def _drop(engine: Engine, name: str) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DROP USER {name} CASCADE")
