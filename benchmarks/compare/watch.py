"""The processes of a program, and what they use while the receiver counts."""

import os
import time
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import psutil

from benchmarks import rig
from benchmarks.compare.programs import Command

EVERY = 0.05  # seconds between two looks at the receiver
EVERY_MEMORY = 0.5


class Crew:
    """A program's processes; they end by kill -9, also when the block is left."""

    def __init__(self, command: Command, processes: int, log: Path) -> None:
        self._command = command
        self._number = processes
        self._log = log
        self._processes: list[psutil.Popen] = []

    def start(self) -> None:
        """All of them, at once; what they print goes to the log."""
        environment = {**os.environ, **self._command.environment}
        with self._log.open("ab") as log:
            self._processes = [
                psutil.Popen(self._command.arguments, cwd=rig.ROOT, env=environment, stdout=log, stderr=log)
                for _ in range(self._number)
            ]

    def kill(self) -> None:
        """`kill -9` all of them."""
        for each in self._processes:
            if each.is_running():
                each.kill()
            each.wait()

    def cpu(self) -> float:
        """Seconds of user and system that they have used, with their children."""
        return sum(map(_cpu, self._processes))

    def memory(self) -> float:
        """MiB now; what they share is counted once."""
        return sum(map(_memory, self._processes)) / 2**20

    @property
    def running(self) -> bool:
        """None of them has ended."""
        return all(map(_alive, self._processes))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


class Mark(NamedTuple):
    """A moment: distinct deliveries until then, and seconds of clock, of the program and of all that is not ours."""

    deliveries: int
    clock: float
    cpu: float
    others: float


class Watch:
    """Looks at the receiver's count until a number is reached; the highest memory seen meanwhile."""

    def __init__(self, receiver: rig.Sink, crew: Crew) -> None:
        self._receiver = receiver
        self._crew = crew
        self._next_memory = 0.0
        self.memory = 0.0

    def until(self, number: int, seconds: float) -> Mark:
        """Return when so many distinct deliveries are in, or when the time is over, or the program ended."""
        limit = time.monotonic() + seconds
        while True:
            running = self._crew.running
            found = self._receiver.count()
            now = time.monotonic()
            if found >= number or now > limit or not running:
                return Mark(found, time.perf_counter(), self._crew.cpu(), _others())
            if now >= self._next_memory:
                self.memory = max(self.memory, self._crew.memory())
                self._next_memory = now + EVERY_MEMORY
            time.sleep(EVERY)

    def quiet(self, seconds: float) -> None:
        """Wait until nothing has arrived for so long."""
        last, since = -1, time.monotonic()
        while time.monotonic() - since < seconds:
            total = self._receiver.stats()["total"]
            if total != last:
                last, since = total, time.monotonic()
            time.sleep(EVERY)


def _alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def _memory(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except (psutil.NoSuchProcess, psutil.ZombieProcess):  # it has just ended
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
    """Seconds of CPU that processes used which we did not start, since some moment."""
    times = psutil.cpu_times()
    me = psutil.Process()
    ours = _own_cpu(me) + sum(map(_own_cpu, me.children(recursive=True)))
    return float(sum(times[:8]) - times.idle - times.iowait - ours)
