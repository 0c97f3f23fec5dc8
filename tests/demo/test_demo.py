"""The demo: its claims, and a clean end in any case."""

import contextlib
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine

from consumer.config.settings import known_names
from consumer.demo.figures import Figures, RowCounts, beside, figures, percentile, stored
from consumer.demo.kafka import DeadLetter, EmbeddedKafka
from consumer.demo.receivers import Delivered, Receiver, ReceiverServer, Request, make_receivers, parse
from consumer.demo.story import RATE, plan
from consumer.demo.summary import REAL_THING, Evidence, claims
from consumer.events.event import Event, RecordId
from consumer.ledger import store
from consumer.ledger.rows import AttemptFailure, NewDelivery
from consumer.ops.receiver import Reply
from consumer.subscriptions import repository
from tests.oracle.oracle_databases import start_emulator
from tests.processes import PROGRAM

DEMO = (*PROGRAM, "demo")
ORACLE_DEMO = (sys.executable, "-m", "tests.oracle.oracle_demo")
UNDECODABLE = b'{"id": '
ROW = Figures("search", "order.placed", "fast", 9, 9, 0, 0, 0, 0, 0, 0, 0, 0, True, "", 0.01, 0.02)
DEAD = ROW._replace(name="legacy", delivered=0, dead=9, error="refused", p50=None, p95=None)
GOOD = Evidence(
    rows=[
        ROW,
        ROW._replace(name="stock", p95=0.3),
        ROW._replace(name="billing", p95=7.0),
        DEAD,
        DEAD._replace(name="retired", enabled=False, dead=1),
    ],
    events=9,
    committed=10,
    end=10,
    dead_letters=[DeadLetter("not_json", UNDECODABLE)],
    undecodable=UNDECODABLE,
    calm=0.01,
    beside=0.01,
    attempts=4,
    exit_status=0,
)


def _with_first(**changes: object) -> Evidence:
    return GOOD._replace(rows=[ROW._replace(**changes), *GOOD.rows[1:]])  # type: ignore[arg-type]  # by field name


def test_claims_hold_for_good_figures() -> None:
    """Figures of a run without faults support every claim."""
    assert [claim.text for claim in claims(GOOD) if not claim.holds] == []
    left_alone = GOOD._replace(
        rows=[*GOOD.rows[:3], DEAD._replace(dead=0, owed=30, waiting=30, retried=2), GOOD.rows[4]]
    )
    assert [claim.text for claim in claims(left_alone) if not claim.holds] == []


@pytest.mark.parametrize(
    ("evidence", "sentence"),
    [
        (_with_first(delivered=8), "Time was up for 1; 0 of them are stored"),
        (_with_first(unverified=1), "does not verify"),
        (GOOD._replace(committed=9), "9 of 10 records are committed"),
        (GOOD._replace(exit_status=1), "exit status: 1"),
        (GOOD._replace(dead_letters=[]), "is NOT on the dead-letter topic"),
        (GOOD._replace(dead_letters=[*GOOD.dead_letters, DeadLetter("not_json", b"{}")]), "One record was no event"),
    ],
)
def test_bad_figures_are_not_claimed(evidence: Evidence, sentence: str) -> None:
    """A lost delivery, a bad signature, an uncommitted offset or a stray dead letter fails exactly its own claim."""
    failed = [claim.text for claim in claims(evidence) if claim.holds is False]

    assert len(failed) == 1
    assert sentence in failed[0]


def test_an_undecidable_claim_is_no_failure() -> None:
    """If healthy receivers became slow, or retries did not finish, a claim is unknown: neither true nor false."""
    late = _with_first(p95=0.5)
    disturbed = GOOD._replace(beside=0.136)
    early = GOOD._replace(rows=[*GOOD.rows[:3], DEAD._replace(dead=5, owed=4, waiting=3), GOOD.rows[4]])
    tried = GOOD._replace(rows=[*GOOD.rows[:3], DEAD._replace(owed=30, waiting=30, retried=20), GOOD.rows[4]])

    assert [claim.holds for claim in claims(late)].count(None) == 1
    assert [claim.holds for claim in claims(disturbed)].count(None) == 1
    assert not any("slow only themselves" in claim.text for claim in [*claims(late), *claims(disturbed)])
    assert [claim.holds for claim in claims(early)].count(None) == 1
    assert [claim.holds for claim in claims(tried)].count(None) == 1


def test_real_thing_names_commands_and_settings_that_exist() -> None:
    """Each line to copy sets an existing setting or runs an existing command."""
    for line in REAL_THING.splitlines():
        if line.startswith("export "):
            assert line.split()[1].partition("=")[0] in known_names()
        else:
            words = [word for word in line.split()[1:] if word.isalpha()]
            command = [sys.executable, "-m", "consumer", *words, "--help"]
            assert subprocess.run(command, check=False, capture_output=True).returncode == 0, line


@given(
    st.lists(st.tuples(st.sampled_from(["a", "x-b"]), st.text("abc 1", max_size=9)), max_size=4),
    st.binary(max_size=50),
    st.binary(max_size=20),
    st.data(),
)
def test_a_request_is_read_from_any_pieces(
    headers: list[tuple[str, str]], body: bytes, rest: bytes, data: st.DataObject
) -> None:
    """A request is complete once all its bytes have arrived; later bytes are kept."""
    lines = ["POST / HTTP/1.1", *(f"{name}: {value}" for name, value in headers), f"Content-Length: {len(body)}"]
    whole = "\r\n".join(lines).encode() + b"\r\n\r\n" + body
    cut = data.draw(st.integers(0, len(whole) - 1))

    assert parse(whole[:cut]) == (None, whole[:cut])
    request, left = parse(whole + rest)
    assert request is not None
    assert (request.line, request.body, left) == ("POST / HTTP/1.1", body, rest)


@given(st.lists(st.floats(0, 10), min_size=1), st.sampled_from([0.5, 0.95]))
def test_a_percentile_is_not_below_its_part_of_the_values(values: list[float], part: float) -> None:
    """At least that share of the values is at or below the percentile."""
    found = percentile(sorted(values), part)

    assert found in values
    assert sum(value <= found for value in values) >= part * len(values)


def test_plan_keeps_its_rate_and_numbers() -> None:
    """Events are due at even intervals, numbered consecutively, with types in turn."""
    events = list(plan(RATE, ["a", "b"], 1000))

    assert [event.number for event in events] == list(range(1000, 1000 + RATE))
    assert events[-1].at == pytest.approx(1.0, abs=2 / RATE)
    assert [event.type for event in events[:3]] == ["a", "b", "a"]


def test_latency_is_split_by_when_an_event_was_published() -> None:
    """An event published before the given time counts as before, even if it arrived after."""
    receiver = Receiver("r", "t", "", lambda _: Reply())
    receiver.deliveries = [Delivered(at=10.0, latency=2.0), Delivered(at=12.0, latency=1.0)]

    assert beside([receiver], 9.0) == (2.0, 1.0)


def test_figures_come_from_the_database_and_the_receiver(engine: Engine) -> None:
    """Rows are counted by subscription and state; a final first answer counts as no retry."""
    subscribed = repository.add(engine, "http://127.0.0.1:1/", "t")
    event = Event(RecordId("events", 0, 0, 1), "t", "msg_1", b"{}", "application/json", None, None)

    def row(offset: int, status: Literal["parked", "exhausted"], attempt: int) -> NewDelivery:
        moved = event._replace(record=event.record._replace(offset=offset))
        due = 2.0 if status == "parked" else None
        failure = AttemptFailure("refused", None, None, 1.0)
        return NewDelivery(moved, subscribed, "http://127.0.0.1:1/", attempt, status, due, failure, failure)

    rows = [row(0, "parked", 2), row(1, "exhausted", 4), row(2, "exhausted", 1), row(3, "parked", 0)]
    store.park(engine, "g", rows, 1.0)
    receiver = Receiver("r", "t", "refuses", None, subscription_id=subscribed, published=5)

    held = stored(engine)[subscribed]
    assert held == RowCounts(parked_ever=3, owed=2, held=0, exhausted=2, retries=4, enabled=True, error="refused")
    [found] = figures([receiver], {subscribed: held})
    assert (found.delivered, found.retried, found.parked, found.owed, found.dead) == (0, 4, 3, 3, 2)


@pytest.fixture
def street() -> Iterator[list[Receiver]]:
    """The demo's receivers, listening."""
    receivers = make_receivers()
    street = ReceiverServer(receivers, b"secret", {})
    yield receivers
    street.close()


def _ask(receiver: Receiver, timeout: float = 2.0) -> bytes:
    port = int(receiver.url.split(":")[2].partition("/")[0])
    with socket.create_connection(("127.0.0.1", port), timeout) as connection:
        connection.settimeout(timeout)
        connection.sendall(b"POST /webhooks HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}")
        return connection.recv(1000)


def test_an_unsigned_request_is_not_a_delivery(street: list[Receiver]) -> None:
    """It is refused, and counted only as unverified."""
    assert _ask(street[0]).startswith(b"HTTP/1.1 401 ")
    assert (street[0].unverified, len(street[0].answered)) == (1, 0)
    assert street[0].problem


def test_a_receiver_may_refuse_connections(street: list[Receiver]) -> None:
    """The absent receiver refuses at once, on a port that stays reserved."""
    gone = next(receiver for receiver in street if receiver.behaviour is None)

    with pytest.raises(ConnectionRefusedError):
        _ask(gone)


def test_behaviours_match_the_table() -> None:
    """They are fast, slow, down for six seconds, silent, and 410."""
    request = Request("POST / HTTP/1.1", {"webhook-id": "msg_1"}, b"{}")

    def answers(name: str, *moments: float) -> list[int | None]:
        receiver = next(receiver for receiver in make_receivers() if receiver.name == name)
        given_ = [receiver.received(request, None, 100.0 + moment) for moment in moments]
        return [answer and int(answer.status) for answer in given_]

    assert answers("search", 0) == [200]
    assert answers("billing", 0, 5.9, 6.1) == [503, 503, 200]
    assert answers("partner", 0) == [None]
    assert answers("retired", 0) == [410]


def test_embedded_kafka_keeps_records_and_offsets() -> None:
    """Published records are uncommitted until a group commits them, and dead letters are read back."""
    with contextlib.closing(EmbeddedKafka()) as kafka:
        kafka.create("events")
        kafka.create("dead")
        kafka.create("empty")
        for number in range(3):
            kafka.publish("events", b"{}", key=b"%d" % number, event_type="t")
        kafka.publish("dead", b"{", key=b"1")
        kafka.flush()

        assert kafka.progress("g", "events") == (0, 3)
        assert kafka.dead_letters("dead") == [DeadLetter("", b"{")]
        assert kafka.dead_letters("empty") == []


@pytest.fixture
def demo_folder(tmp_path: Path) -> Iterator[Path]:
    """The demo's folder for files; at the end no process uses it and no file is left."""
    yield tmp_path
    assert _workers(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def _start(demo_folder: Path, command: Sequence[str] = DEMO, **changes: str) -> "subprocess.Popen[str]":
    """Starts a demo, which must ignore a .env and settings of the user that would stop a worker."""
    return subprocess.Popen(
        command,
        env={**os.environ, "TMPDIR": str(demo_folder), "KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "WEBHOOK_TIMEOUT": "x"}
        | changes,
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


def _await_line(process: "subprocess.Popen[str]", start: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(start):
            return
    pytest.fail(f"the demo ended without a line that starts with {start}")


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


@pytest.mark.parametrize(
    ("number", "line"), [(signal.SIGTERM, "✓ 800 events"), (signal.SIGINT, "✓ Kafka"), (signal.SIGHUP, "╭")]
)
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
        _await_line(process, "✓ 800 events")
        time.sleep(3)  # rows are stored and read
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
    deadline = time.monotonic() + 60
    while _workers(demo_folder) and time.monotonic() < deadline:
        time.sleep(0.05)

    assert _workers(demo_folder) == []
    for left in sorted(demo_folder.rglob("*"), reverse=True):  # the files that it could not remove
        left.rmdir() if left.is_dir() else left.unlink()


def test_reader_that_leaves(demo_folder: Path) -> None:
    """`demo | head -1` ends the demo without a traceback."""
    process = _start(demo_folder)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()

    assert process.wait(120) == 1
    assert process.stderr.read() == ""
    process.stderr.close()


def test_on_a_terminal_without_colours(demo_folder: Path) -> None:
    """A terminal gets a live table, no colours with NO_COLOR, and its cursor back."""
    ours, theirs = pty.openpty()
    environment = {
        **os.environ,
        "TMPDIR": str(demo_folder),
        "NO_COLOR": "1",
        "TERM": "xterm",
        "COLUMNS": "80",
        "LINES": "24",
    }
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
