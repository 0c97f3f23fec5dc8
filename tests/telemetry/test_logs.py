"""A log that cannot be written: on a full disk, with a full pipe, and after its reader has gone."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from consumer.telemetry.logs import PATIENCE, LogFile

LOGS = """
import logging, structlog
from consumer.telemetry.logs import LogFile, configure_logging
configure_logging("INFO")
structlog.get_logger("consumer.test").warning("ours")
logging.getLogger("elsewhere").warning("a library's")
print(LogFile.dropped)
"""


@pytest.fixture
def pipe() -> Iterator[tuple[int, TextIO]]:
    """The ends of a pipe: a descriptor to read from, and a file to write to."""
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as file:
        yield reader, file


def dropped_by(file: LogFile, *lines: str) -> int:
    before = LogFile.dropped
    for line in lines:
        file.write(line)
    return LogFile.dropped - before


def test_a_full_disk_drops_lines_and_counts_them() -> None:
    """Nothing is raised: neither the loop nor a thread may end because of its log."""
    with Path("/dev/full").open("w") as full:
        assert dropped_by(LogFile(full), "one\n", "two\n") == 2


@pytest.mark.parametrize(("stderr", "dropped"), [("2>/dev/full", 2), ("2>&-", 0)])
def test_a_program_goes_on_without_its_log(stderr: str, dropped: int) -> None:
    """Neither its own lines nor those of libraries end it; also if it was started without stderr."""
    done = subprocess.run(
        ["/bin/sh", "-c", f'"$0" -c "$1" {stderr}', sys.executable, LOGS], capture_output=True, check=False
    )
    assert (done.returncode, done.stdout.decode().strip()) == (0, str(dropped))


def test_a_reader_that_is_gone_drops_lines(pipe: tuple[int, TextIO]) -> None:
    """Nothing is raised, and the signal of a broken pipe ends nothing."""
    reader, writer = pipe
    os.close(reader)
    assert dropped_by(LogFile(writer), "one\n") == 1


def test_a_full_pipe_is_not_waited_for(pipe: tuple[int, TextIO], monkeypatch: pytest.MonkeyPatch) -> None:
    """What it does not take in 20 ms of a second is dropped. Once it is read, a line begins behind one cut short."""
    reader, writer = pipe
    now = 0.0
    file = LogFile(writer, lambda: now)
    real = file._writable

    class Waiting:
        """Waits by that clock."""

        def poll(self, milliseconds: float) -> list[tuple[int, int]]:
            nonlocal now
            now += milliseconds / 1000
            return real.poll(0)

    monkeypatch.setattr(file, "_writable", Waiting())
    assert dropped_by(file, "a" * 10_000 + "\n", "\N{SNOWMAN}\n") == 0
    read = os.read(reader, 20_000).decode()
    assert read == "a" * 10_000 + "\n\N{SNOWMAN}\n"
    assert now == 0
    assert dropped_by(file, "b" * 1_000_000 + "\n", *["c\n"] * 100) == 101
    assert now == PATIENCE / 1000
    now = 2.0
    assert dropped_by(file, *["c\n"] * 100) == 100
    assert now == 2 + PATIENCE / 1000
    assert set(os.read(reader, 1_000_000)) == set(b"b")
    assert dropped_by(file, "d\n", "e\n") == 0
    assert os.read(reader, 1_000_000) == b"\nd\ne\n"
    os.close(reader)


def test_a_line_cut_short_ends_before_that_of_another_process(
    pipe: tuple[int, TextIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever process writes next knows that the log ends within a line."""
    reader, writer = pipe
    monkeypatch.setattr(LogFile, "_turn", None)
    LogFile.take_turns()
    one, other = LogFile(writer), LogFile(writer)
    assert dropped_by(one, "a" * 1_000_000 + "\n") == 1
    assert set(os.read(reader, 1_000_000)) == set(b"a")
    assert dropped_by(other, "b\n") == dropped_by(one, "c\n") == 0
    assert os.read(reader, 100) == b"\nb\nc\n"
    os.close(reader)


SEVERAL = """
import os, sys, time
from consumer.telemetry.logs import LogFile, configure_logging, name_worker
LogFile.take_turns()
children = []
for letter in "abc":
    if pid := os.fork():
        children.append(pid)
        continue
    file = LogFile(sys.stderr)
    for size in [30_000, 10] * 20:
        file.write(letter * size + "\\n")
        time.sleep(0.001)
    os._exit(min(255, LogFile.dropped))
print(sum(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children))
"""


def test_lines_of_several_processes_do_not_mix() -> None:
    """However long they are; what one cannot finish ends before another one's line begins."""
    done = subprocess.run([sys.executable, "-c", SEVERAL], capture_output=True, text=True, check=True)
    lines = [line for line in done.stderr.splitlines() if line]
    assert all(len(set(line)) == 1 for line in lines)
    whole = [line for line in lines if len(line) in {30_000, 10}]
    assert len(whole) + int(done.stdout) == 3 * 40


def test_several_processes_wait_for_no_reader() -> None:
    """None of them, not even if each found place for a line."""
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb") as stderr:
        done = subprocess.run(
            [sys.executable, "-c", SEVERAL], stderr=stderr, stdout=subprocess.PIPE, text=True, check=True, timeout=60
        )
    assert int(done.stdout) > 3 * 40 - 10
    os.close(reader)


def test_each_line_names_its_worker() -> None:
    """Our lines and those of libraries, in any thread."""
    name = "import threading, consumer.telemetry.logs as logs; logs.name_worker(2)\n"
    threaded = LOGS.replace("structlog.get", "threading.Thread(target=lambda: structlog.get").replace(
        'ours")', 'ours")).start()'
    )
    done = subprocess.run([sys.executable, "-c", name + threaded], capture_output=True, text=True, check=True)
    assert [json.loads(line)["worker"] for line in done.stderr.splitlines()] == [2, 2]
