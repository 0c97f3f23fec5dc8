"""Runs a page of the documentation unchanged: its blocks in order, in one shell."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from tests.docs.documentation import BLOCKS, TEXTS
from tests.processes import PROGRAM, environment

# Text that differs in each run: ids, times, ports, the newest revision.
CHANGES = r"msg_[0-9a-f]{32}|\d{4}-\d\d-\d\dT[\d:]+Z|(?<=127\.0\.0\.1:)\d+|(?<=nothing to )\d{4}"


def run_page(page: str, folder: Path, other: Mapping[str, str], variables: Mapping[str, str], *, after: str) -> None:
    """Run the blocks behind the first occurrence of `after`, and check each line that the page shows.

    `folder` gets the files that the blocks write. `other` replaces text of the page, such as ports; `variables` are the
    shell's. An example named `receiver.py` of the page `tutorial` is marked `tutorial_receiver.py`, and is written when
    a block makes the first folder.
    """
    bash = shutil.which("bash")
    if bash is None or not all(map(shutil.which, ("curl", "openssl"))):
        pytest.skip("no bash, no curl or no openssl")
    text = TEXTS[page]
    text = text[text.index(after) :]

    def here(words: str) -> str:
        return re.sub("|".join(map(re.escape, other)), lambda found: other[found[0]], words)

    blocks = [block for block in BLOCKS if block.page == page and block.text in text]
    script = here("set -e\n" + "".join(block.text for block in blocks if block.info == "sh"))
    made = re.search(r"^mkdir -p (\S+)$", script, re.MULTILINE)
    assert made, "no block makes a folder"
    (folder / made[1]).mkdir()
    name = Path(page).stem
    for file, example in re.findall(rf"<!-- example: {name}_(\S+) -->\n```python\n([^`]*)```", text):
        (folder / made[1] / file).write_text(here(example))
    _programs(folder / "bin")
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    with subprocess.Popen(
        [bash, "-c", script],
        cwd=folder,
        env=environment({"PATH": path, **variables}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as shell:
        try:
            output, _ = shell.communicate(timeout=900)
        finally:
            with suppress(ProcessLookupError):  # all have ended
                os.killpg(shell.pid, signal.SIGKILL)
    assert shell.returncode == 0, output
    printed = _fixed(output)
    for shown in _fixed(here("".join(block.text for block in blocks if block.info == "text"))):
        start = shown.partition("…")[0].rstrip()
        assert any(line.startswith(start) for line in printed), f"{shown!r} is not in:\n{output}"


def _programs(folder: Path) -> None:
    """Programs under the names that the pages use."""
    folder.mkdir()
    for name, words in (("kafka-webhooks", PROGRAM), ("python", [sys.executable])):
        (folder / name).write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        (folder / name).chmod(0o700)


def _fixed(text: str) -> list[str]:
    """The lines of an output, without variable text and repeated spaces."""
    return re.sub(" +", " ", re.sub(CHANGES, "*", text)).splitlines()
