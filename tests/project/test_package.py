"""The installed package, built as by `pip install .`, and its content."""

import re
import subprocess
import sys
import tomllib
from email import message_from_bytes
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from zipfile import ZipFile

import consumer
from tests.kafka_broker import KAFKA_VERSION
from tests.processes import ROOT, environment


def test_the_broker_of_the_readme_needs_no_package_of_tests() -> None:
    """After `make demo` there is none."""
    program = "import sys; sys.modules |= dict.fromkeys(('pytest', 'hypothesis')); import tests.kafka_broker"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=60)


def test_the_wheel(tmp_path: Path) -> None:
    """It has types, migrations, the licence, and metadata with author and licence."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, env=environment({}), capture_output=True, timeout=200, check=True)
    (path,) = tmp_path.glob("*.whl")
    with ZipFile(path) as wheel:
        names = set(wheel.namelist())
        (metadata,) = [message_from_bytes(wheel.read(name)) for name in names if name.endswith("/METADATA")]
        (licence,) = [wheel.read(name) for name in names if name.endswith("/licenses/LICENSE")]
    assert {"consumer/py.typed", "models/py.typed", "consumer/console/static/console.css"} <= names
    assert {f"consumer/console/templates/{name}.html" for name in ("base", "reference")} <= names
    migrations = {path.name for path in (ROOT / "alembic/versions").glob("[0-9]*.py")}
    assert {f"consumer/database/alembic/versions/{name}" for name in migrations} <= names
    assert (metadata["License-Expression"], metadata["License-File"]) == ("Apache-2.0", "LICENSE")
    assert metadata["Author"]
    assert licence == (ROOT / "LICENSE").read_bytes()
    assert b"Apache License" in licence


def test_compose_starts_the_kafka_that_is_tested() -> None:
    """It has the tested version in each service that uses its image."""
    images = re.findall(r"image: apache/kafka:(\S+)", (ROOT / "docker-compose.yml").read_text())
    assert set(images) == {KAFKA_VERSION}


def test_bases_and_heirs_of_compiled_classes_are_compiled() -> None:
    """If one of our bases stayed interpreted, most of mypyc's gain would be lost; and such an heir stops the start."""
    hooks = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]
    compiled = {path.removeprefix("/").removesuffix(".py").replace("/", ".") for path in hooks["mypyc"]["include"]}
    names = [each.name for each in walk_packages(consumer.__path__, "consumer.") if each.name != "consumer.__main__"]
    pairs = {
        (each.__module__, base.__module__)
        for module in map(import_module, names)
        for each in vars(module).values()
        if isinstance(each, type) and each.__module__ == module.__name__
        for base in each.__mro__
        if base.__module__.startswith("consumer.") and not issubclass(base, tuple | Exception)
    }
    bases = {base for heir, base in pairs if heir in compiled}
    assert "consumer.loop.part" in bases
    assert bases <= compiled
    assert {heir for heir, base in pairs if base in compiled} <= compiled
