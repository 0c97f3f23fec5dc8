"""`python -m consumer` is the command `kafka-webhooks`."""

import os
import signal
import sys
from types import FrameType


def main() -> None:
    """Run the command line and exit: 0 done or told to stop, 1 failed, 2 wrong usage or settings."""
    _leave_out_working_directory()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    from consumer.cli.app import main as command  # noqa: PLC0415 (imports take longer than a signal may: the handlers stand first)

    sys.exit(command(sys.argv[1:]))


def _leave_out_working_directory() -> None:
    """Have no file there taken for a module: `python -m` looks there first, and many a program has a `models.py`."""
    root = os.path.dirname(os.path.dirname(__file__))  # noqa: PTH120 (pathlib takes as long to import as all else here)
    if sys.path[0] != root and sys.path[0] == os.getcwd():  # noqa: PTH109 (the same)
        del sys.path[0]


def _stop(_number: int, _frame: FrameType | None) -> None:
    """End at once, wherever the program is; a command that has something to finish sets a handler of its own.

    An exception would not do: raised inside of an import's or a C library's callback it is printed and forgotten.
    """
    os._exit(0)


if __name__ == "__main__":
    main()
