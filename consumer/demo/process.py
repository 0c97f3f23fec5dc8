"""The worker: `kafka-webhooks run` in a process of its own, which ends no later than the demo, however that ends."""

import os
import runpy
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import consumer
from consumer.errors import WebhooksError

_SETTINGS = ("KAFKA_", "WEBHOOK_", "DATABASE_", "OPS_", "API_", "LOG_LEVEL")
_GRACE = 10.0  # seconds to stop in, its drain of the demo's settings included
_LINES = 8  # of its log that tell why it ended


class WorkerProcess:
    """A running worker. Its log is in `folder`, and so is its working directory: no .env of the user's is read."""

    def __init__(self, settings: Mapping[str, str], folder: Path) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_SETTINGS)}
        path = [str(Path(consumer.__file__).parents[1]), *filter(None, [inherited.get("PYTHONPATH")])]
        self._log = folder / "worker.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 (this interpreter, on our own code)
                [sys.executable, "-c", f"from {__name__} import run; run()"],
                cwd=folder,
                env={**inherited, **settings, "PYTHONPATH": os.pathsep.join(path)},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                process_group=0,  # Ctrl-C is the demo's to handle
            )
        self.pid = self._process.pid

    def check(self) -> None:
        """WebhooksError, with the end of its log, once it has ended."""
        if self._process.poll() is not None:
            raise WebhooksError(f"the worker has ended with status {self._process.returncode}:\n{self.log_tail()}")

    def log_tail(self) -> str:
        """The last lines of its log, without those on attempts: here they fail by the thousand."""
        lines = [
            line for line in self._log.read_text(errors="replace").splitlines() if '"event": "attempt"' not in line
        ]
        return "\n".join(lines[-_LINES:]) or "(it has logged nothing)"

    def stop(self) -> int:
        """SIGTERM, and its exit status; it is killed if it does not end in time."""
        self._process.terminate()
        try:
            return self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
        finally:
            if self._process.stdin is not None:
                self._process.stdin.close()


def run() -> None:
    """What the process runs: the command, beside a thread that ends it when the demo is gone, even if it was killed."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.argv = ["kafka-webhooks", "run"]
    runpy.run_module("consumer", run_name="__main__")


def _end_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)  # nothing is ever written: it ends when the other end closes
    os._exit(1)  # its Kafka is gone too: there is nothing to drain to
