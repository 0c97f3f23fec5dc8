"""An emulated Oracle until Ctrl-C: `python -m tests.oracle_emulator --profile 23ai`."""

import argparse
import contextlib
import signal
import sys

from tests.oracle_emulator import PROFILES, OracleEmulator
from tests.provided import NotProvided


def main() -> None:
    """Prints the address and waits."""
    parser = argparse.ArgumentParser(description="An emulated Oracle server on loopback, for tests.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=15211)
    parser.add_argument("--user", default="webhooks")
    parser.add_argument("--password", default="secret")
    parser.add_argument("--service", default="FREEPDB1")
    parser.add_argument("--profile", choices=PROFILES, default="19c")
    chosen = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):  # also if a shell started this in the background
        signal.signal(number, signal.default_int_handler)
    users = {chosen.user: chosen.password}
    try:
        emulator = OracleEmulator(
            PROFILES[chosen.profile], users=users, service=chosen.service, host=chosen.host, port=chosen.port
        )
    except NotProvided as error:
        sys.exit(f"no emulated Oracle here: {error}")
    with emulator as oracle:
        print(f"{oracle.dsn}  {oracle.url}  (Ctrl-C to stop)", flush=True)  # noqa: T201 (a program)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main()
