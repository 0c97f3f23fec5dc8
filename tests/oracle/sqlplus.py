"""Runs a printed script as SQL*Plus does."""

import re

import oracledb

STOP = "WHENEVER SQLERROR EXIT FAILURE ROLLBACK"


def statements(script: str) -> list[str]:
    """The statements that it sends: each ends with a line of a single slash. Comments and STOP are not sent."""
    bare = "\n".join(line for line in script.splitlines() if not line.startswith("--") and line != STOP)
    return [text.strip() for text in re.split(r"^/$", bare, flags=re.MULTILINE) if text.strip()]


def run(connection: oracledb.Connection, script: str) -> list[str]:
    """The codes of the errors.

    It continues after an error unless the script's first line is STOP, and commits at the end.
    """
    errors = []
    for statement in statements(script):
        try:
            connection.cursor().execute(statement)
        except oracledb.DatabaseError as error:
            errors.append(error.args[0].full_code)
            if script.startswith(STOP):
                connection.rollback()
                return errors
    connection.commit()
    return errors
