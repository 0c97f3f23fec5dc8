"""A printed script as SQL*Plus runs it."""

import re

import oracledb

STOP = "WHENEVER SQLERROR EXIT FAILURE ROLLBACK"


def statements(script: str) -> list[str]:
    """What it sends: each statement ends with a line that holds only a slash. Comments and STOP are not sent."""
    bare = "\n".join(line for line in script.splitlines() if not line.startswith("--") and line != STOP)
    return [text.strip() for text in re.split(r"^/$", bare, flags=re.MULTILINE) if text.strip()]


def run(connection: oracledb.Connection, script: str) -> list[str]:
    """The errors' codes. It goes on after an error, unless STOP is the script's first line; in the end it commits."""
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
