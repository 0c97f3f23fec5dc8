"""Our program in a process of its own, with an environment of its own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Another interpreter that has another build of the program: `make test-compiled`. That comes before this tree.
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
)  # how the names of all settings begin


def is_setting(name: str) -> bool:
    """An environment variable that the service reads; KAFKA_TEST_… are of the tests."""
    return name.startswith(SETTINGS) and not name.startswith("KAFKA_TEST_")


def environment(variables: dict[str, str]) -> dict[str, str]:
    """What a process needs to run here, and `variables`; no setting of whoever runs the tests."""
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG"}}
    paths = {} if OTHER else {"PYTHONPATH": str(ROOT)}
    return {**kept, **paths, "PYTHONIOENCODING": "utf-8", **variables}
