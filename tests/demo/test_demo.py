"""The demo: its claims, and a clean end in any case."""

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import psutil
import pytest
import requests
from sqlalchemy import Engine

from consumer.config.settings import known_names
from consumer.demo.figures import UNDECODABLE, Figures, claims, figures
from consumer.demo.receivers import DemoReceiver, Seen, make_receivers, serving
from consumer.demo.story import REAL_THING
from consumer.events.event import Event, RecordId
from consumer.ledger import store
from consumer.ledger.rows import AttemptFailure, NewDelivery
from consumer.subscriptions import repository
from tests.oracle.oracle_databases import start_emulator
from tests.processes import PROGRAM
from tests.signatures import standard
from tests.waiting import eventually

DEMO = (*PROGRAM, "demo")
ORACLE_DEMO = (sys.executable, "-m", "tests.oracle.oracle_demo")


def row(name: str, latency: float | None = None, *, enabled: bool = True, **rows: int) -> Figures:
    """A receiver's figures after nine events; with a latency it got them all."""
    seen = [] if latency is None else [Seen(f"msg_{number}", 200, latency) for number in range(9)]
    return Figures(DemoReceiver(name, "t", "", None, published=9, seen=seen), Counter(rows), enabled=enabled)


ROWS = [
    *(row("search", 0.02), row("stock", 0.3), row("billing", 7.0, delivered=9)),
    *(row("legacy", parked=9), row("retired", enabled=False, exhausted=1)),
]


def told(
    rows: Sequence[Figures] = ROWS, committed: int = 10, status: int = 0, letters: Sequence[bytes] = (UNDECODABLE,)
) -> list[tuple[str, bool | None]]:
    """The claims of the demo about these receivers and records, and whether each holds."""
    return list(claims(rows, committed, 10, status, letters))


def test_claims_hold_for_good_figures() -> None:
    """Figures of a run without faults support every claim."""
    assert [holds for _, holds in told()] == [True] * 7


def test_bad_figures_are_not_claimed() -> None:
    """A lost delivery, a bad signature, an uncommitted offset or a stray dead letter fails exactly its own claim."""
    lost, unverified = row("search", 0.02), row("search", 0.02)
    lost.delivered, lost.owed, unverified.unverified = 8, 1, 1
    for found, sentence in (
        (told([lost, *ROWS[1:]]), "Time was up for 1; 0 of them are stored"),
        (told([unverified, *ROWS[1:]]), "1 failed"),
        (told(committed=9), "9 of 10 records are committed"),
        (told(status=1), "exit status 1"),
        (told(letters=[b"{}"]), "is NOT alone on the dead-letter"),
        (told(letters=[UNDECODABLE, b"{}"]), "One record is not an event"),
    ):
        assert [sentence in text for text, holds in found if holds is False] == [True]


def test_what_a_run_cannot_tell_is_not_claimed() -> None:
    """If healthy receivers became slow, or deliveries are still in memory, a claim is neither true nor false."""
    late = [row("search", 0.5), *ROWS[1:]]
    for found in (told(late), told([*ROWS[:3], row("legacy", parked=8), ROWS[4]])):
        assert [holds for _, holds in found].count(None) == 1
    assert not any("slow only themselves" in text for text, _ in told(late))


def test_real_thing_names_commands_and_settings_that_exist() -> None:
    """Each line to copy sets an existing setting or runs an existing command."""
    for line in REAL_THING.splitlines():
        if line.startswith("export "):
            assert line.split()[1].partition("=")[0] in known_names()
        else:
            words = [word for word in line.split()[1:] if word.isalpha()]
            command = [sys.executable, "-m", "consumer", *words, "--help"]
            assert subprocess.run(command, check=False, capture_output=True).returncode == 0, line


def test_figures_come_from_the_database_and_the_receiver(engine: Engine) -> None:
    """Rows are counted by state, and requests by answer; a request that is repeated is a retry."""
    subscribed = repository.add(engine, "http://127.0.0.1:1/", "t")
    event = Event(RecordId("events", 0, 0, 1), "t", "msg_1", b"{}", "application/json", None, None)

    def stored(offset: int, status: Literal["parked", "exhausted"], attempt: int) -> NewDelivery:
        moved = event._replace(record=event.record._replace(offset=offset))
        due = 2.0 if status == "parked" else None
        failure = AttemptFailure("refused", None, None, 1.0)
        return NewDelivery(moved, subscribed, "http://127.0.0.1:1/", attempt, status, due, failure, failure)

    store.park(engine, "g", [stored(0, "parked", 2), stored(1, "exhausted", 4), stored(2, "parked", 0)], 1.0)
    seen = [Seen("msg_1", 503, None), Seen("msg_1", 200, 1.0), Seen("msg_2", 200, 1.0)]
    receiver = DemoReceiver("r", "t", "", None, subscription_id=subscribed, published=5, seen=seen)

    [found] = figures(engine, [receiver])
    assert (found.delivered, found.retried, found.parked, found.owed, found.dead) == (2, 1, 2, 2, 1)
    assert found.enabled


@pytest.fixture
def street() -> Iterator[dict[str, DemoReceiver]]:
    """The demo's receivers, listening, by name."""
    receivers = make_receivers()
    with serving(receivers, b"secret", {}):
        yield {receiver.name: receiver for receiver in receivers}


def test_an_unsigned_request_is_not_a_delivery(street: dict[str, DemoReceiver]) -> None:
    """It is refused, and counted only as unverified."""
    assert requests.post(street["crm"].url, b"{}", timeout=60).status_code == 401
    assert (street["crm"].unverified, street["crm"].seen) == (1, [])


def test_receivers_behave_as_the_table_says(street: dict[str, DemoReceiver]) -> None:
    """They are fast, down for six seconds, silent, 410, or refuse connections on a port that stays reserved."""

    def status(name: str, timeout: float = 60) -> int:
        headers = {"webhook-id": "msg_1", "webhook-timestamp": f"{time.time():.0f}"}
        headers["webhook-signature"] = standard(
            [b"secret"], (), "msg_1", int(headers["webhook-timestamp"]), b'{"id": 1}'
        )
        return requests.post(street[name].url, b'{"id": 1}', headers=headers, timeout=timeout).status_code

    assert (status("search"), status("billing"), status("retired")) == (200, 503, 410)
    street["billing"].first_at -= 6.1
    assert status("billing") == 200
    assert [each.status for each in street["billing"].seen] == [503, 200]
    with pytest.raises(requests.ReadTimeout):
        status("partner", timeout=0.5)
    with pytest.raises(requests.ConnectionError):
        status("legacy")


@pytest.fixture
def demo_folder(tmp_path: Path) -> Iterator[Path]:
    """The demo's folder for files; at the end no process uses it and no file is left."""
    yield tmp_path
    assert _workers(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def _start(demo_folder: Path, command: Sequence[str] = DEMO) -> "subprocess.Popen[str]":
    """Starts a demo, which must ignore a .env and settings of the user that would stop a worker."""
    return subprocess.Popen(
        command,
        env={**os.environ, "TMPDIR": str(demo_folder), "KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "WEBHOOK_TIMEOUT": "x"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


def _workers(demo_folder: Path) -> list[psutil.Process]:
    """Processes of the demo with its files in `demo_folder`."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("TMPDIR") == str(demo_folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _await_line(process: "subprocess.Popen[str]", pattern: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if re.match(pattern, line):
            return
    pytest.fail(f"the demo ended without a line like {pattern}")


def test_whole_demo_in_a_pipe(demo_folder: Path) -> None:
    """`make demo` ends with status 0.

    A pipe gets plain lines of at most 80 columns, and all claims hold.
    """
    process = _start(demo_folder, ["make", "--silent", "demo"])
    output, errors = process.communicate(timeout=250)

    assert (process.returncode, errors) == (0, "")
    assert "\x1b" not in output
    assert max(map(len, output.splitlines())) <= 80
    assert '{"id": 123, "name": "Jane Doe"}' in output
    assert "✗" not in output
    for line in REAL_THING.splitlines():
        assert line in output


@pytest.mark.parametrize(("number", "line"), [(signal.SIGINT, "✓ Kafka"), (signal.SIGHUP, "╭")])
def test_stopped_in_the_middle(demo_folder: Path, number: int, line: str) -> None:
    """A signal at any time ends it with status 0 in a few seconds, and it says that nothing is left."""
    with _start(demo_folder) as process:
        _await_line(process, line)
        process.send_signal(number)
        output, _ = process.communicate(timeout=120)

    assert process.returncode == 0
    assert "Stopped; no process and no file is left." in output


@pytest.mark.oracle
def test_on_an_emulated_oracle(demo_folder: Path) -> None:
    """`make demo DATABASE=oracle` works alike, and its server ends with it."""
    with start_emulator():
        pass  # skips the test if it cannot run here
    with _start(demo_folder, ORACLE_DEMO) as process:
        _await_line(process, "✓ an emulated Oracle 23ai server, its tables made by the Alembic migrations")
        _await_line(process, r" *\d+ s  .* published")  # rows are stored and read
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")
    assert "Stopped; no process and no file is left." in output


def test_worker_that_dies(demo_folder: Path) -> None:
    """If the worker dies, the demo says so with its status, and exits with 1."""
    with _start(demo_folder) as process:
        _await_line(process, "✓ a worker")
        [worker] = [each for each in _workers(demo_folder) if each.pid != process.pid]
        worker.kill()
        _, errors = process.communicate(timeout=120)

    assert process.returncode == 1
    assert "the worker has ended with status -9" in errors


def test_worker_ends_with_a_demo_that_is_killed(demo_folder: Path) -> None:
    """After SIGKILL the demo cannot clean up, but the worker ends all the same."""
    with _start(demo_folder) as process:
        _await_line(process, "╭")
        process.kill()
        process.communicate(timeout=120)
    eventually(lambda: not _workers(demo_folder))
    for left in sorted(demo_folder.rglob("*"), reverse=True):  # the files that it could not remove
        left.rmdir() if left.is_dir() else left.unlink()


def test_on_a_terminal_without_colours(demo_folder: Path) -> None:
    """A terminal gets a live table, no colours with NO_COLOR, and its cursor back."""
    ours, theirs = pty.openpty()
    terminal = {"NO_COLOR": "1", "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    environment = os.environ | terminal | {"TMPDIR": str(demo_folder)}
    process = subprocess.Popen(
        [sys.executable, "-m", "consumer", "demo"], env=environment, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    output = b""
    signalled = False
    with contextlib.suppress(OSError):  # EIO: the other end is closed
        while chunk := os.read(ours, 65536):
            output += chunk
            if not signalled and output.count(b"behaviour") > 2:
                process.terminate()
                signalled = True
    os.close(ours)

    assert process.wait(120) == 0
    text = output.decode()
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", text)
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    assert "Stopped; no process and no file is left." in text
