"""docs/performance.md: its tables between markers, and its pictures, all from the results."""

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree as ET

import confluent_kafka
import httptools
import psutil
import requests

import consumer
from benchmarks import rig
from benchmarks.compare import aims, tables
from benchmarks.compare.pictures import pictures
from benchmarks.compare.programs import FORK_COMMIT, FORK_REPOSITORY, FORK_VERSION, HERE
from benchmarks.compare.results import Report
from benchmarks.compare.run import Places
from tests.kafka_broker import KAFKA_VERSION

PAGE = rig.ROOT / "docs" / "performance.md"
FOLDER = rig.ROOT / "docs" / "performance"
STORED = FOLDER / "results.json"


def filled(page: str, parts: dict[str, str]) -> str:
    """The page with the text between `<!-- name -->` and `<!-- end of name -->` replaced.

    Raises KeyError for a missing marker.
    """
    for name, text in parts.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        before, found, rest = page.partition(begin)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            raise KeyError(name)
        page = f"{before}{begin}{text}\n{end}{after}"
    return page


def publish(report: Report) -> None:
    """Writes tables and pictures."""
    drawn = pictures(report)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in drawn.items():
        (FOLDER / f"{name}.svg").write_text(text)
    parts = {"machine": tables.about(report), "results": tables.tables(report), "aims": aims.table(report)}
    PAGE.write_text(filled(PAGE.read_text(), parts))


def about(places: Places) -> dict[str, str]:
    """The present machine and versions."""
    memory = psutil.virtual_memory().total / 2**30
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    kernel = ".".join(platform.release().split(".")[:2])
    java = _match(r'"([^"]+)"', _said("java", "-version"))
    go = _match(r"go([0-9.]+)", _said("go", "version"))
    return {
        "measured": datetime.now(UTC).strftime("%d %B %Y"),
        "machine": f"{os.cpu_count()} cores, {model[1] if model else platform.machine()}, {memory:.0f} GiB",
        "system": f"{platform.system()} {kernel}, loopback; {_of_processors(places)}",
        "this service": f"{consumer.__version__}; Python {platform.python_version()}, "
        f"librdkafka {confluent_kafka.libversion()[0]}, httptools {httptools.__version__}",
        "the tutorial's loop": f"requests {requests.__version__}, the same Python and librdkafka",
        "Parallel Consumer": f"{_parallel_consumer()}, Java {java}, 1 GiB of heap at most",
        "its fork": f"{FORK_VERSION} of {FORK_REPOSITORY}, commit {FORK_COMMIT}",
        "Benthos": f"{_benthos()}, Go {go}",
        "Kafka": f"{KAFKA_VERSION}, one node, 4 partitions",
        "receiver": f"benchmarks/sink.go, Go {go}",
    }


def _of_processors(places: Places) -> str:
    if not places.program:
        return "program, Kafka, receiver and publisher on the same cores"
    numbers = (len(each) for each in places)
    return "cores of their own: {} for the program, {} for Kafka and publisher, {} for the receiver".format(*numbers)


def _said(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except OSError:
        return ""
    return done.stdout + done.stderr


def _match(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    return found[1] if found else "?"


def _parallel_consumer() -> str:
    """The version in the pom, and those of its dependencies."""
    pom = ET.parse(HERE / "parallel_consumer" / "pom.xml")  # noqa: S314 (our own file)
    jars = " ".join(path.name for path in (rig.CACHE / "parallel_consumer" / "lib").glob("*.jar"))
    vertx, clients = (_match(rf"{name}-([0-9.]+)\.jar", jars) for name in ("vertx-core", "kafka-clients"))
    return f"{pom.findtext('.//{*}dependency/{*}version')}, Vert.x {vertx}, kafka-clients {clients}"


def _benthos() -> str:
    module = (HERE / "benthos" / "go.mod").read_text()
    return f"{_match(r'benthos/v4 v([0-9.]+)', module)}, franz-go {_match(r'franz-go v([0-9.]+)', module)}"
