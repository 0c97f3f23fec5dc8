"""`python -m consumer` is the command `kafka-webhooks`."""

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
    """End wherever the program is; a command that has something to finish sets a handler of its own."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    sys.exit(0)


if __name__ == "__main__":
    main()
