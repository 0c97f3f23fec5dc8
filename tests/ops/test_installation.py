"""Whether others own our packages, too."""

import subprocess
import venv
from pathlib import Path

from consumer.ops.installation import sharing


def test_others_in_our_packages_are_named() -> None:
    """Each one once; a package of another name is no concern, and neither are we ourselves."""
    ours = {"consumer": ["kafka-webhooks"], "models": ["kafka-webhooks"], "django": ["Django"]}
    assert sharing(ours) is None
    shared = sharing({**ours, "models": ["kafka-webhooks", "tensorflow-models", "tensorflow-models"]})
    assert shared is not None
    assert shared.startswith("tensorflow-models has files")
    assert "an environment of its own" in shared


def test_an_installed_distribution_is_found(tmp_path: Path) -> None:
    """The names are those of the environment that the program runs in."""
    venv.create(tmp_path / "venv", with_pip=False)
    place = next((tmp_path / "venv").glob("lib/python*/site-packages")) / "other-1.dist-info"
    place.mkdir()
    (place / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1\n")
    (place / "RECORD").write_text("models/other.py,,\n")
    (place.parent / "models").mkdir()
    (place.parent / "models/other.py").touch()  # files that are absent are left out since Python 3.12
    code = "from consumer.ops.installation import sharing; print(sharing())"
    command = [str(tmp_path / "venv/bin/python"), "-c", code]
    ran = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert ran.stdout.startswith("other has files"), ran.stderr
