"""Faults of a database, as far as both kinds support them."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf

from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import IntegrityError

from tests.oracle_emulator import OracleEmulator, OracleError


@contextmanager
def refusing(
    engine: Engine, emulator: OracleEmulator | None, beginning: str, *, error: int = 1, times: float = inf
) -> Iterator[list[str]]:
    """A constraint refuses statements that begin like this, `times` times: ORA-00001 or another number. Yields them."""
    refused: list[str] = []

    def refuses(statement: str) -> bool:
        if not statement.startswith(beginning) or len(refused) >= times:
            return False
        refused.append(statement)
        return True

    if emulator is not None:
        fault = emulator.inject(
            lambda call: refuses(call.sql), OracleError(error, "a constraint is violated"), times=inf
        )
        try:
            yield refused
        finally:
            fault.times = 0
        return

    def refuse(_: Connection, __: object, statement: str, *___: object) -> None:
        if refuses(statement):
            raise IntegrityError(statement, {}, sqlite3.IntegrityError("constraint failed"))

    event.listen(engine, "before_cursor_execute", refuse)
    try:
        yield refused
    finally:
        event.remove(engine, "before_cursor_execute", refuse)
