"""SIGTERM at any time: the worker exits in time with status 0, and the next one repeats nothing."""

import subprocess
import time
from pathlib import Path

from tests.end_to_end.service_rig import Deployment, eventually
from tests.end_to_end.webhook_receiver import Answer, always

SIGTERM_BIT = 1 << 14


def test_a_stop_does_not_wait_for_a_database_that_hangs(deployment: Deployment) -> None:
    """While another process holds the write lock, deliveries that cannot be stored are left to the next worker.

    None is lost.
    """
    deployment.subscribe("a", "/fails")
    deployment.receiver.rules["/fails"] = always(Answer(404))  # 500s would open the breaker
    settings = {"WEBHOOK_RETRY_SCHEDULE": "1s,1s,1s,1s", "WEBHOOK_RETRY_IN_MEMORY": "0", "WEBHOOK_DRAIN": "1s"}
    worker = deployment.start(**settings)
    eventually(worker.ready)
    with deployment.sqlite.locked():
        deployment.publish(["a"] * 50)
        eventually(lambda: len(deployment.receiver.requests) == 50)
        assert worker.stop() < 1 + 5 + 5 + 5
        assert deployment.lag() == 50
    del deployment.receiver.rules["/fails"]
    deployment.start(**settings)
    eventually(lambda: not deployment.missing())
    eventually(lambda: not deployment.lag())


def test_a_stop_while_starting(deployment: Deployment) -> None:
    """It can be stopped once it catches signals: during imports, database, group and first records."""
    deployment.subscribe("a", "/good")
    deployment.publish(["a"] * 10)
    for delay in (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.2):
        worker = deployment.start()
        eventually(lambda worker=worker: _catches_sigterm(worker.process), every=0.001)  # type: ignore[misc]
        time.sleep(delay)
        worker.stop(15)
    deployment.start()
    eventually(lambda: not deployment.missing())
    assert deployment.duplicates() == 0


def _catches_sigterm(process: "subprocess.Popen[bytes]") -> bool:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
    return bool(int(status["SigCgt"], 16) & SIGTERM_BIT)
