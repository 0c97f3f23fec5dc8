"""The worker: `kafka-webhooks run` in a process of its own. It ends no later than the demo, however the demo ends."""

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
_GRACE = 10.0  # seconds until the worker must have stopped, drain included
_LINES = 8  # last lines of its log, with the reason why it ended


class WorkerProcess:
    """A running worker. `folder` holds its log and is its working directory, so that it reads no .env of the user."""

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
        """Raise WebhooksError, with the end of its log, if the worker has ended."""
        if self._process.poll() is not None:
            raise WebhooksError(f"the worker has ended with status {self._process.returncode}:\n{self.log_tail()}")

    def log_tail(self) -> str:
        """The last lines of its log, without attempts, which fail by the thousand in the demo."""
        lines = [
            line for line in self._log.read_text(errors="replace").splitlines() if '"event": "attempt"' not in line
        ]
        return "\n".join(lines[-_LINES:]) or "(it has logged nothing)"

    def stop(self) -> int:
        """Send SIGTERM and return the exit status. Kills the worker if it does not end in time."""
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
    """Run the command, and a thread that ends this process when the demo is gone, even if the demo was killed."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.argv = ["kafka-webhooks", "run"]
    runpy.run_module("consumer", run_name="__main__")


def _end_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)  # the demo writes nothing: this returns when the demo's end of the pipe closes
    os._exit(1)  # without a drain: Kafka is gone with the demo
