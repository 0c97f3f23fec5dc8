"""`make demo DATABASE=oracle`: the demo on an emulated Oracle server, which runs in a process of its own."""

import subprocess
import sys

from consumer.demo.story import main
from consumer.errors import WebhooksError
from tests.kafka_broker import die_with_parent

COMMAND = [sys.executable, "-m", "tests.oracle_emulator", "--profile", "23ai", "--port", "0"]


def run() -> None:
    """Runs the demo; a failure is one line, as on the command line."""
    with subprocess.Popen(
        COMMAND,
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,  # the demo handles Ctrl-C
        preexec_fn=die_with_parent,  # noqa: PLW1509 (no thread is started before)
    ) as server:
        assert server.stdout is not None
        found = server.stdout.readline().split()
        try:
            if not found:
                sys.exit("make demo DATABASE=oracle needs an emulated Oracle: see the line above")
            main(found[1], "an emulated Oracle 23ai server")
        except WebhooksError as error:
            sys.exit(f"kafka-webhooks: {error}")
        finally:
            server.terminate()


if __name__ == "__main__":
    run()
