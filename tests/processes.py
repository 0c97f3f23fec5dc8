"""Our program in a process of its own, with its own environment."""

import os
import random
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Another interpreter with another build of the program: `make test-compiled`. That build precedes this tree.
OTHER = os.environ.get("TEST_PROGRAM_PYTHON", "")
PROGRAM = [OTHER, "-P", "-m", "consumer"] if OTHER else [sys.executable, "-m", "consumer"]
Command = Callable[..., "subprocess.CompletedProcess[str]"]
Start = Callable[..., "subprocess.Popen[str]"]


SETTINGS = (
    "KAFKA_",
    "WEBHOOK_",
    "DATABASE_",
    "API_",
    "OPS_",
    "OTEL_",
    "SCHEMA_REGISTRY_",
    "LOG_LEVEL",
    "ORACLE_CLIENT_LIB",
)  # the beginnings of all settings' names


def is_setting(name: str) -> bool:
    """Whether the service reads this environment variable. KAFKA_TEST_… belong to the tests."""
    return name.startswith(SETTINGS) and not name.startswith("KAFKA_TEST_")


def environment(variables: dict[str, str]) -> dict[str, str]:
    """The environment that a process needs to run here, and `variables`, without settings of the user's shell."""
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG"}}
    paths = {} if OTHER else {"PYTHONPATH": str(ROOT)}
    return {**kept, **paths, "PYTHONIOENCODING": "utf-8", **variables}


def free_ports(number: int) -> list[int]:
    """Ports below the ephemeral range, so that no outgoing connection takes them meanwhile."""
    with ExitStack() as stack:
        ports: list[int] = []
        while len(ports) < number:
            candidate = stack.enter_context(socket.socket())
            with suppress(OSError):
                candidate.bind(("127.0.0.1", random.randint(20000, 31999)))
                ports.append(candidate.getsockname()[1])
        return ports


def free_port() -> int:
    """One of them."""
    return free_ports(1)[0]
