"""`python -m consumer` is the command `kafka-webhooks`."""

import os
import signal
import sys
from types import FrameType


def main() -> None:
    """Run the command line and exit: 0 done or told to stop, 1 failed, 2 wrong usage or settings."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    from consumer.cli.app import main as command  # noqa: PLC0415 (imports take longer than a signal may: the handlers stand first)

    sys.exit(command(sys.argv[1:]))


def _stop(_number: int, _frame: FrameType | None) -> None:
    """End at once, wherever the program is; a command that has something to finish sets a handler of its own.

    An exception would not do: raised inside of an import's or a C library's callback it is printed and forgotten.
    """
    os._exit(0)


if __name__ == "__main__":
    main()
