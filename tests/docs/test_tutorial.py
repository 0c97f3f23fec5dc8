"""The tutorial, run as it stands: its blocks in their order, in one shell, with a Kafka in memory."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from consumer.http.server import listen
from tests.docs.documentation import BLOCKS, TEXTS
from tests.processes import PROGRAM, environment

PAGE = "docs/tutorial.md"
# What is another on each run: ids, times, ports, the newest revision.
CHANGES = r"msg_[0-9a-f]{32}|\d{4}-\d\d-\d\dT[\d:]+Z|(?<=127\.0\.0\.1:)\d+|(?<=nothing to )\d{4}"


def free_port() -> str:
    """A port that nothing listens on."""
    with listen("127.0.0.1", 0) as listener:
        return str(listener.getsockname()[1])


def commands(folder: Path) -> None:
    """Programs by the names that the tutorial calls them by."""
    folder.mkdir()
    for name, words in (("kafka-webhooks", PROGRAM), ("python", [sys.executable])):
        (folder / name).write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        (folder / name).chmod(0o700)


def fixed(text: str) -> list[str]:
    """The lines of an output, without what changes, and with one space for several."""
    return re.sub(" +", " ", re.sub(CHANGES, "*", text)).splitlines()


def test_it_runs_as_written(tmp_path: Path) -> None:
    """Each command works, and each line that the tutorial shows is printed."""
    bash = shutil.which("bash")
    if bash is None or shutil.which("curl") is None:
        pytest.skip("no bash, or no curl")
    ports = {"8000": free_port(), "8080": free_port()}

    def here(text: str) -> str:
        return re.sub("|".join(ports), lambda port: ports[port[0]], text)

    commands(tmp_path / "bin")
    (tmp_path / "tutorial").mkdir()
    for name, text in re.findall(r"<!-- example: tutorial_(\S+) -->\n```python\n([^`]*)```", TEXTS[PAGE]):
        (tmp_path / "tutorial" / name).write_text(here(text))
    install, *blocks = [block.text for block in BLOCKS if block.page == PAGE and block.info == "sh"]
    assert "pip install" in install
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    with subprocess.Popen(
        [bash, "-c", here("set -e\n" + "".join(blocks))],
        cwd=tmp_path,
        env=environment({"PATH": path, "API_PORT": ports["8080"], "OPS_PORT": "0"}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as shell:
        try:
            output, _ = shell.communicate(timeout=110)
        finally:
            with suppress(ProcessLookupError):  # all have ended
                os.killpg(shell.pid, signal.SIGKILL)
    assert shell.returncode == 0, output
    printed = fixed(output)
    for shown in fixed("".join(block.text for block in BLOCKS if block.page == PAGE and block.info == "text")):
        start = shown.partition("…")[0].rstrip()
        assert any(line.startswith(start) for line in printed), f"{shown!r} is not in:\n{output}"
