"""The checks of a release, without building it."""

import gzip
import io
import tarfile

import pytest

from tests.processes import ROOT
from tests.project.release import ReleaseError, check_versions, notes, same_bytes, versions

CHANGELOG = """# Changelog

## [Unreleased]

## [1.1.0] - 2027-01-02

### Added

- More.

## [1.0.0] - 2026-12-24

All of it.
"""


def test_every_place_names_one_version() -> None:
    """Package, image and chart have the same version."""
    found = versions(ROOT)
    assert len(set(found.values())) == 1, found
    assert check_versions(f"v{found['Dockerfile']}", found) == found["Dockerfile"]


@pytest.mark.parametrize(
    ("tag", "reason"),
    [("v1.0.1", "but Dockerfile says 1.0.0"), ("1.0.0", "not a tag"), ("v1.0", "not a tag"), ("", "not a tag")],
)
def test_a_wrong_tag_is_refused(tag: str, reason: str) -> None:
    """The error names the tag, or each place that has another version."""
    with pytest.raises(ReleaseError, match=reason):
        check_versions(tag, {"Dockerfile": "1.0.0"})


def test_notes_are_the_versions_part_of_the_changelog() -> None:
    """They end where the next version begins."""
    assert notes(CHANGELOG, "1.1.0") == "### Added\n\n- More.\n"
    assert notes(CHANGELOG, "1.0.0") == "All of it.\n"


@pytest.mark.parametrize("version", ["Unreleased", "1.2.0"])
def test_a_version_without_notes_is_refused(version: str) -> None:
    """A heading without a date is not a release either."""
    with pytest.raises(ReleaseError, match="write it"):
        notes(CHANGELOG, version)


def test_an_archive_depends_on_its_content_alone() -> None:
    """Times, owners and the order of members do not change the bytes; content does."""

    def archive(names: str, body: bytes, time: int) -> bytes:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as tar:
            for name in names:
                member = tarfile.TarInfo(name)
                member.size, member.mtime, member.uid = len(body), time, time
                tar.addfile(member, io.BytesIO(body))
        return packed.getvalue()

    one = same_bytes(archive("ab", b"x", 1), 99)
    assert same_bytes(archive("ba", b"x", 2), 99) == one
    assert same_bytes(archive("ab", b"y", 1), 99) != one
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(one))) as tar:
        assert [(member.name, member.mtime) for member in tar] == [("a", 99), ("b", 99)]
