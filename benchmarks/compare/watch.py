"""The processes of a program, and their resources while the receiver counts."""

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import psutil

from benchmarks import rig
from benchmarks.compare.programs import Command

EVERY = 0.05  # seconds between two queries of the receiver
EVERY_MEMORY = 0.5


class Running:
    """A program and its child processes, which end by kill -9, at the latest when the block ends."""

    def __init__(self, command: Command, processors: Sequence[int], log: Path) -> None:
        self._command = command
        self._processors = processors
        self._log = log
        self._process: psutil.Popen

    def start(self) -> None:
        """Starts it; its output goes to the log."""
        environment = {**os.environ, **self._command.environment}
        with self._log.open("ab") as log, rig.processors(self._processors):
            self._process = psutil.Popen(self._command.arguments, cwd=rig.ROOT, env=environment, stdout=log, stderr=log)

    def kill(self) -> None:
        """Kills all processes with `kill -9`, the parent first, so that it replaces none."""
        if not self._process.is_running():
            self._process.wait()
            return
        self._process.suspend()
        children = self._process.children(recursive=True)
        self._process.kill()
        for each in children:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        self._process.wait()
        psutil.wait_procs(children)

    def cpu(self) -> float:
        """The CPU seconds, user and system, of the process and its children."""
        return _cpu(self._process)

    def memory(self) -> float:
        """Present memory in MiB; shared pages count once."""
        try:
            processes = [self._process, *self._process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return 0.0
        return sum(map(_memory, processes)) / 2**20

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.is_running() and self._process.status() != psutil.STATUS_ZOMBIE

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


class Mark(NamedTuple):
    """A point in time: distinct deliveries so far, and seconds of clock, of the program's CPU and of others' CPU."""

    deliveries: int
    clock: float
    cpu: float
    others: float


class Watch:
    """Polls the receiver's count until a number is reached, and keeps the highest memory."""

    def __init__(self, receiver: rig.Sink, program: Running) -> None:
        self._receiver = receiver
        self._program = program
        self._next_memory = 0.0
        self.memory = 0.0

    def until(self, number: int, seconds: float) -> Mark:
        """Returns when so many distinct deliveries have arrived, the time is over, or the program has ended."""
        limit = time.monotonic() + seconds
        while True:
            running = self._program.alive
            found = self._receiver.count()
            now = time.monotonic()
            if found >= number or now > limit or not running:
                return Mark(found, time.perf_counter(), self._program.cpu(), _others())
            if now >= self._next_memory:
                self.memory = max(self.memory, self._program.memory())
                self._next_memory = now + EVERY_MEMORY
            time.sleep(EVERY)

    def quiet(self, seconds: float) -> None:
        """Waits until nothing has arrived for so long."""
        last, since = -1, time.monotonic()
        while time.monotonic() - since < seconds:
            total = self._receiver.stats()["total"]
            if total != last:
                last, since = total, time.monotonic()
            time.sleep(EVERY)


def _memory(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except (psutil.NoSuchProcess, psutil.ZombieProcess):  # the process has just ended
        return 0


def _cpu(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
        return float(
            times.user
            + times.system
            + times.children_user
            + times.children_system
            + sum(map(_own_cpu, process.children()))
        )
    except psutil.NoSuchProcess:
        return 0.0


def _own_cpu(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
        return float(times.user + times.system)
    except psutil.NoSuchProcess:
        return 0.0


def _others() -> float:
    """CPU seconds of processes that we did not start."""
    times = psutil.cpu_times()
    me = psutil.Process()
    ours = _own_cpu(me) + sum(map(_own_cpu, me.children(recursive=True)))
    return float(sum(times[:8]) - times.idle - times.iowait - ours)
