"""An emulated Oracle server for tests: the unmodified driver connects to it, and its SQL runs on H2.

    with OracleEmulator(PROFILE_23AI) as oracle:
        engine = sqlalchemy.create_engine(oracle.url)
        oracle.inject("INSERT INTO t", OracleError(60, "deadlock detected"))  # ORA-00060, once
        oracle.inject("^COMMIT$", drop="after")  # commit, and lose the answer
        oracle.kill_sessions()  # all server processes die
        assert not oracle.failures  # the emulator lacked nothing

It is not Oracle. A green test shows that the driver, SQLAlchemy's dialect and our SQL work together on the wire; only
a real server can show more. README.md lists the missing parts.
"""

from tests.oracle_emulator.emulator import OracleEmulator, Tables
from tests.oracle_emulator.errors import OracleError
from tests.oracle_emulator.instance import (
    PROFILE_18C,
    PROFILE_19C,
    PROFILE_23AI,
    PROFILES,
    Bind,
    Call,
    Client,
    Profile,
)

__all__ = [
    "PROFILES",
    "PROFILE_18C",
    "PROFILE_19C",
    "PROFILE_23AI",
    "Bind",
    "Call",
    "Client",
    "OracleEmulator",
    "OracleError",
    "Profile",
    "Tables",
]
