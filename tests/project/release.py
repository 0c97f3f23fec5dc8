"""Checks a release before its tag and builds its files: `python -m tests.project.release v1.2.3`.

build/release gets the pure wheel, the source distribution, the chart and notes.md. They are built twice, in different
folders, from what is committed, and each must have the same bytes both times.
"""

import gzip
import hashlib
import io
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import yaml

from tests.deploy.go_tools import helm_program
from tests.deploy.helm_kit import Helm
from tests.processes import ROOT
from tests.provided import extract

FILES = ROOT / "build/release"
CHART = "deploy/helm/kafka-webhooks"
HEADING = re.compile(r"^## \[(?P<version>[^\]]+)\](?: - (?P<date>\d{4}-\d\d-\d\d))?$", re.MULTILINE)


class ReleaseError(Exception):
    """A reason not to release, as a sentence for whoever releases."""


def versions(root: Path) -> dict[str, str]:
    """Each place that names the version, and its value."""
    chart = yaml.safe_load((root / CHART / "Chart.yaml").read_text())
    program = (root / "consumer/__init__.py").read_text()
    found = {
        "consumer/__init__.py": re.findall(r'^__version__ = "(.+)"$', program, re.MULTILINE),
        "Dockerfile": re.findall(r'image\.version="(.+)"', (root / "Dockerfile").read_text()),
        "Chart.yaml, version": [chart["version"]],
        "Chart.yaml, appVersion": [chart["appVersion"]],
    }
    return {place: ", ".join(values) for place, values in found.items()}


def notes(changelog: str, version: str) -> str:
    """The text of a version in the changelog. Raises ReleaseError if it has no dated heading, or no text."""
    headings = list(HEADING.finditer(changelog))
    for heading, following in zip(headings, [*headings[1:], None], strict=True):
        if heading["version"] == version and heading["date"]:
            text = changelog[heading.end() : following.start() if following else None].strip()
            if text:
                return text + "\n"
    raise ReleaseError(f"CHANGELOG.md has no text below `## [{version}] - <date>`: write it, or correct the tag")


def check_versions(tag: str, found: dict[str, str]) -> str:
    """The version of a tag. Raises ReleaseError if a place names another one, or the tag is not v1.2.3."""
    if not re.fullmatch(r"v\d+\.\d+\.\d+((a|b|rc)\d+)?", tag):
        raise ReleaseError(f"{tag!r} is not a tag of a release such as v1.2.3 or v1.2.3rc1")
    other = [f"{place} says {version}" for place, version in found.items() if version != tag[1:]]
    if other:
        raise ReleaseError(f"the tag is {tag}, but {'; '.join(other)}")
    return tag[1:]


def same_bytes(archive: bytes, seconds: int) -> bytes:
    """A .tgz with the same content, in the order of names, with one time and without owners."""
    packed = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as old,
        gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=seconds) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.USTAR_FORMAT) as new,
    ):
        for member in sorted(old.getmembers(), key=lambda each: each.name):
            plain = tarfile.TarInfo(member.name)
            plain.size, plain.mode, plain.mtime = member.size, 0o644, seconds
            new.addfile(plain, old.extractfile(member))
    return packed.getvalue()


def _git(*words: str) -> bytes:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, check=True).stdout  # noqa: S607 (the user's)


def build(folder: Path, helm: Helm) -> dict[str, bytes]:
    """The files of the committed state, built in a new folder."""
    source, made = folder / "source", folder / "made"
    with tarfile.open(fileobj=io.BytesIO(_git("archive", "--format=tar", "HEAD"))) as committed:
        extract(committed, source)
    seconds = int(_git("log", "-1", "--format=%ct"))
    hatchling = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--target", "sdist"]
    command = [*hatchling, "--directory", str(made)]
    subprocess.run(command, cwd=source, env={"SOURCE_DATE_EPOCH": str(seconds)}, capture_output=True, check=True)
    helm("package", str(source / CHART), "--destination", str(made))
    files = {path.name: path.read_bytes() for path in made.iterdir()}
    return {name: same_bytes(data, seconds) if name.endswith(".tgz") else data for name, data in files.items()}


def main(tag: str) -> None:
    """Raises ReleaseError."""
    version = check_versions(tag, versions(ROOT))
    text = notes((ROOT / "CHANGELOG.md").read_text(), version)
    if _git("status", "--porcelain"):
        raise ReleaseError(
            "there are changes that are not committed, and a release has none of them: commit them first"
        )
    helm = Helm(helm_program())
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        files, again = build(Path(first), helm), build(Path(second) / "elsewhere", helm)
    FILES.mkdir(parents=True, exist_ok=True)
    for old in FILES.iterdir():
        old.unlink()
    (FILES / "notes.md").write_text(text)
    for name, data in sorted(files.items()):
        if again.get(name) != data:
            raise ReleaseError(f"{name} has other bytes when it is built again: find what depends on time or place")
        (FILES / name).write_bytes(data)
        sys.stdout.write(f"{hashlib.sha256(data).hexdigest()}  {name}, twice\n")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:2] or [""])
    except ReleaseError as error:
        sys.exit(f"not released: {error}")
