"""The parent of several workers, in a process of its own; its workers are stand-ins."""

import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from consumer.config.settings import KafkaSettings
from consumer.worker.group import member
from tests.processes import ROOT, environment
from tests.waiting import eventually

# With `say` a worker proves that it is not the parent; `wait` is a worker's life until SIGTERM.
PARENT = """
import os, signal, sys, threading, time
from consumer.errors import SettingsError, WebhooksError
from consumer.telemetry.logs import configure_logging
from consumer.worker import supervisor
from consumer.worker.supervisor import Supervisor

stop = threading.Event()

def wait():
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    turned(time.monotonic())
    print("ready", number, os.getpid(), flush=True)
    while not stop.wait(0.05): turned(time.monotonic())

def work(n, _listener, tell):
    global number, turned
    number, turned = n, tell
    {work}

def describe(error):
    return str(error), 2 if isinstance(error, SettingsError) else 1

configure_logging("INFO")
supervisor.MARGIN, supervisor.WATCH_EVERY = 0.5, 0.2
try:
    Supervisor(2, work, None, 0.5, describe).run()
except WebhooksError as error:
    print(error)
    sys.exit(describe(error)[1])
"""


# Prints how far the heap grows by eight blocks of 1 MiB, after one was freed.
BLOCKS = """
import re, sys
from consumer.worker.group import give_back_memory

def heap():
    start, end = re.search("(.*)-(.*) rw-p.*heap", open("/proc/self/maps").read()).group(1, 2)
    return int(end.split()[0], 16) - int(start, 16)

exec(sys.argv[1])
bytearray(2**20)
before = heap()
blocks = [bytearray(2**20) for _ in range(8)]
print(heap() - before)
"""


class Parent:
    """A parent whose workers run this code."""

    def __init__(self, work: str, directory: Path) -> None:
        self.output = directory / "output"
        with self.output.open("wb") as output:
            self.process = psutil.Popen(
                [sys.executable, "-W", "error", "-c", PARENT.replace("{work}", work)],
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=environment({}),
            )

    @property
    def text(self) -> str:
        return self.output.read_text()

    def pids(self) -> dict[int, int]:
        """The latest process of each worker that has begun to wait for its end."""
        words = [line.split() for line in self.text.splitlines() if line.startswith("ready")]
        return {int(number): int(pid) for _, number, pid in words}

    def logged(self, event: str) -> list[dict[str, object]]:
        """The log's lines with this event."""
        lines = [json.loads(line) for line in self.text.splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == event]

    def ends(self, *numbers: int) -> int:
        """The exit status after these signals. Nothing that it has started is left."""
        for number in numbers:
            self.process.send_signal(number)
        status = self.process.wait(60)
        eventually(lambda: not any(map(runs, self.pids().values())), otherwise=lambda: self.text)
        return int(status)


def runs(pid: int) -> bool:
    """Whether there is such a process; one that has ended and that nobody has asked for is none."""
    with suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False


Start = Callable[[str], Parent]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a parent. What is left of it at the end is killed."""
    started: list[Parent] = []

    def begin(work: str) -> Parent:
        started.append(Parent(work, tmp_path))
        return started[-1]

    yield begin
    for parent in started:
        if parent.process.poll() is None:
            parent.process.kill()
            parent.process.wait()
        for pid in parent.pids().values():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def until(parent: Parent, condition: Callable[[], object]) -> None:
    """Wait, and say what the parent has said if it is in vain."""
    eventually(condition, otherwise=lambda: parent.text)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_all(start: Start, number: signal.Signals) -> None:
    """The status is 0; a second signal changes nothing."""
    parent = start("wait()")
    until(parent, lambda: len(parent.pids()) == 2)
    assert parent.ends(number, signal.SIGTERM, signal.SIGINT) == 0
    assert parent.logged("stopped")


def test_another_process_takes_the_place_of_one_that_dies(start: Start) -> None:
    """The log has the reason and the new process; the other worker goes on."""
    parent = start("wait()")
    until(parent, lambda: len(parent.pids()) == 2)
    before = parent.pids()
    os.kill(before[2], signal.SIGKILL)
    until(parent, lambda: parent.pids()[2] != before[2])
    assert parent.pids()[1] == before[1]
    (line,) = parent.logged("process ended; another one follows")
    assert (line["worker"], line["pid"], line["reason"]) == (2, before[2], "killed by SIGKILL")
    assert parent.ends(signal.SIGTERM) == 0


def test_a_worker_that_hangs_is_killed_and_replaced(start: Start) -> None:
    """The others go on, also one that has not begun to turn: it waits for its database, say."""
    parent = start("wait() if n == 2 else [print('ready', n, os.getpid(), flush=True), time.sleep(600)]")
    until(parent, lambda: len(parent.pids()) == 2)
    before = parent.pids()
    os.kill(before[2], signal.SIGSTOP)
    until(parent, lambda: parent.pids()[2] != before[2])
    assert parent.pids()[1] == before[1]
    (line,) = parent.logged("a worker's loop hangs; its process is killed")
    assert (line["worker"], line["level"]) == (2, "error")
    assert parent.logged("process ended; another one follows")[0]["reason"] == "killed by SIGKILL"


def test_no_worker_survives_its_parent(start: Start) -> None:
    """After SIGKILL each stops in order, as after SIGTERM."""
    parent = start("wait(); print('in order', flush=True)")
    until(parent, lambda: len(parent.pids()) == 2)
    assert parent.ends(signal.SIGKILL) == -signal.SIGKILL
    until(parent, lambda: parent.text.count("in order") == 2)


def test_settings_that_every_worker_refuses_end_it(start: Start) -> None:
    """The status is 2 and the message theirs, as with one worker."""
    parent = start("raise SettingsError('KAFKA_X: wrong')")
    assert parent.ends() == 2
    assert parent.text.splitlines()[-1] == "KAFKA_X: wrong"


def test_one_worker_that_refuses_its_settings_does_not_end_the_others(start: Start) -> None:
    """It is started again, each time later."""
    parent = start("wait() if n == 1 else (_ for _ in ()).throw(SettingsError('KAFKA_X: wrong'))")
    until(parent, lambda: len(parent.logged("process ended; another one follows")) == 3)
    lines = parent.logged("process ended; another one follows")
    assert [(line["reason"], line["seconds"]) for line in lines] == [
        ("exit status 2: KAFKA_X: wrong", seconds) for seconds in (0.5, 1.0, 2.0)
    ]
    assert parent.ends(signal.SIGTERM) == 0


def test_a_worker_that_does_not_stop_is_killed(start: Start) -> None:
    """After the drain and a margin. The log and the status say so; the other has stopped in order."""
    parent = start("wait(); n == 1 or time.sleep(600)")
    until(parent, lambda: len(parent.pids()) == 2)
    assert parent.ends(signal.SIGTERM) == 1
    (line,) = parent.logged("these workers do not stop in time and are killed")
    assert line["workers"] == [2]
    assert parent.text.splitlines()[-1] == "worker 2 did not stop in order: killed by SIGKILL"


def test_each_member_has_names_of_its_own() -> None:
    """Kafka tells them apart, and knows a successor by the name of the one before."""
    kafka = KafkaSettings.model_validate({"KAFKA_BOOTSTRAP_SERVERS": "kafka:9092"})
    assert dict(member(kafka, 2).properties) == {"client.id": "kafka-webhooks-2"}
    named = kafka.model_copy(update={"properties": {"group.instance.id": "pod-a", "client.id": "hooks"}})
    assert dict(member(named, 1).properties) == {"group.instance.id": "pod-a-1", "client.id": "hooks-1"}
    assert dict(named.properties) == {"group.instance.id": "pod-a", "client.id": "hooks"}


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="this C library has no mallopt")
def test_large_blocks_go_back_to_the_system() -> None:
    """By itself, glibc keeps all blocks of a size of which one was freed."""
    keeps, gives_back = (
        int(subprocess.run([sys.executable, "-c", BLOCKS, first], cwd=ROOT, capture_output=True, check=True).stdout)
        for first in ("pass", "give_back_memory()")
    )
    assert keeps > 4 * 2**20 > 2**20 > gives_back
