"""The workflows of .github, which run on GitHub alone: what can be seen of them here."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.deploy.go_tools import actionlint
from tests.processes import ROOT
from tests.provided import or_skip

FILES = sorted((ROOT / ".github/workflows").glob("*.yml"))
MAKEFILE = (ROOT / "Makefile").read_text()


@pytest.mark.timeout(1_000)  # the first run builds actionlint
def test_actionlint_finds_nothing() -> None:
    """Syntax, expressions, names of jobs and outputs, and shell of all workflows."""
    program = or_skip(actionlint, "ACTIONLINT")
    ran = subprocess.run([program, *FILES], cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert ran.returncode == 0, ran.stdout


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_actions_are_pinned_by_commit(path: Path) -> None:
    """A tag can be moved to other code; the comment beside the commit says which version it is."""
    for line in path.read_text().splitlines():
        if "uses:" in line and "./" not in line:
            assert re.search(r"uses: [\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line), line


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_jobs_have_few_rights_and_an_end(path: Path) -> None:
    """A workflow gives nothing or reading by itself, and each job that runs steps ends by itself."""
    loaded = yaml.safe_load(path.read_text())
    assert loaded["permissions"] in ({}, {"contents": "read"})
    for name, job in loaded["jobs"].items():
        assert "timeout-minutes" in job or "uses" in job, name
        writes = [right for right, level in job.get("permissions", {}).items() if level == "write"]
        assert not writes or path.stem in {"nightly", "release"}, (name, writes)


def test_a_release_waits_for_one_approval() -> None:
    """One job waits for the reviewer, and whatever publishes waits for that job."""
    jobs = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())["jobs"]

    def before(name: str) -> set[str]:
        needed = set(jobs[name].get("needs", ()))
        return needed.union(*map(before, needed))

    assert [name for name, job in jobs.items() if job.get("environment") == "release"] == ["approval"]
    publishing = {name for name, job in jobs.items() if "write" in job.get("permissions", {}).values()}
    assert publishing == {"pypi", "image", "chart", "site", "notes"} == {n for n in jobs if "approval" in before(n)}


def test_no_workflow_has_a_secret() -> None:
    """A release proves its identity by OIDC; the only token is that of its run."""
    for path in FILES:
        assert "secrets." not in path.read_text(), path


def test_each_supported_kafka_is_tried_nightly() -> None:
    """The job's matrix, the Makefile and the support table name the same versions."""
    (versions,) = re.findall(r"^KAFKA_VERSIONS \?= (.+)$", MAKEFILE, re.MULTILINE)
    nightly = yaml.safe_load((ROOT / ".github/workflows/nightly.yml").read_text())
    assert nightly["jobs"]["kafka"]["strategy"]["matrix"]["version"] == versions.split()
    table = (ROOT / "docs/kafka-versions.md").read_text()
    assert re.findall(r"^\| (\d+\.\d+\.\d+) \|", table, re.MULTILINE) == versions.split()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_targets_of_make_exist(path: Path) -> None:
    """Workflows run what the Makefile has."""
    for target in re.findall(r"run: make ([a-z-]+)", path.read_text()):
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target
