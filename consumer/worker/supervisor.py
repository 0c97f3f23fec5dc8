"""The parent of several workers: it forks them, puts another process in the place of one that ends, and stops all.

It has one thread, and no client of Kafka or the database: what a fork copies of those is broken, in the child or later
in the parent. So it can fork at any time, and signals are the only events that it waits for.
"""

import gc
import mmap
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from io import FileIO
from typing import NoReturn, Protocol

import orjson
import structlog

from consumer.errors import SettingsError, WebhooksError
from consumer.telemetry.logs import LogFile, name_worker
from consumer.worker import front
from consumer.worker.places import Ending, Place
from consumer.worker.service import STALLED, STOPPING

log = structlog.get_logger(__name__)

WATCHED = STOPPING | {signal.SIGCHLD}
MARGIN = 33.0  # seconds after the drain: a worker's other steps take 31, and orchestrators wait for 35
LOOK_EVERY = 1.0  # seconds between two tries to tell the front what it could not take
SAID = 2000  # characters of an error that ended a process; a pipe takes more without a wait
WATCH_EVERY = 5.0  # seconds between two looks at the workers' loops
# Looks at a loop that does not turn, after which its process is killed: 45 s. `/healthz` fails after 30 s, and with the
# third failure, 20 s later at the earliest, an orchestrator would restart all workers.
STUCK_LOOKS = round(1.5 * STALLED / WATCH_EVERY)
FRONT_ENDS_IN = 4.0  # seconds; it waits two for open requests
_FRONT = 0  # its place; those of workers begin with 1


class _Closable(Protocol):
    def close(self) -> None: ...


class Supervisor:
    """`number` processes that each call `work`, with their number from 1 on and a socket to answer probes at.

    The third argument of `work` takes the time of each turn of its loop. One that has turned and stops to is replaced.
    `port` is where the front answers for all; None: nobody does. `describe` gives an error's text and exit status.
    """

    def __init__(
        self,
        number: int,
        work: Callable[[int, socket.socket | None, Callable[[float], None]], None],
        port: socket.socket | None,
        drain: float,
        describe: Callable[[Exception], tuple[str, int]],
    ) -> None:
        self._work, self._describe = work, describe
        self._port, self._drain = port, drain
        self._private = [front.private_listener() for _ in range(number if port is not None else 0)]
        self._places = [Place() for _ in range(number + 1)]
        self._turned = memoryview(mmap.mmap(-1, 8 * (number + 1))).cast("d")  # shared with the workers; 0: not yet
        self._watched: list[tuple[float, int]] = [(0.0, 0)] * (number + 1)  # the last turn seen, and at how many looks
        self._watch_at = 0.0
        self._said: dict[int, FileIO] = {}  # by process: what it says at last
        # All children hold the first end. The second is the parent's alone: it closes however the parent ends.
        self._alive, self._own_end = _pipe()
        self._tells: FileIO | None = None  # the front
        self._told = self._untold = b""
        self._stopping = False

    def run(self) -> None:
        """Run until one of STOPPING. All of them have ended at the return.

        SettingsError: the first process of every worker has refused the settings. WebhooksError: a worker did not stop
        as it should.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)  # for good: a second SIGTERM changes nothing
        LogFile.take_turns()
        gc.freeze()  # a collection in a child would write to, and so copy, all that the parent has loaded
        while True:
            self._begin_due()
            self._watch()
            self._tell()
            caught = signal.sigtimedwait(WATCHED, self._until_due())
            self._reap()
            refused = all(place.refused for place in self._workers)
            if refused or (caught is not None and caught.si_signo in STOPPING):
                break
        failed, first = self._stop(), self._workers[0].last
        if refused and first is not None:
            raise SettingsError(first.said)
        if failed:
            raise WebhooksError("; ".join(failed))

    # Beginning.

    def _begin_due(self) -> None:
        now = time.monotonic()
        for number, place in enumerate(self._places):
            if place.pid or place.at > now:
                continue
            try:
                if number != _FRONT:
                    pid = self._begin(number)
                elif self._port is not None:
                    pid = self._begin_front(self._port)
                else:
                    continue
            except OSError as error:
                self._ended(number, Ending(1, f"no process can be made: {error.strerror}"))
                continue
            self._places[number] = place.begun(pid, now)
            if number != _FRONT:
                log.info("worker process started", worker=number, pid=pid)

    def _begin(self, number: int) -> int:
        mine = self._private[number - 1] if self._private else None

        def body() -> None:
            name_worker(number)
            threading.Thread(target=self._stop_without_parent, name="parent", daemon=True).start()
            self._work(number, mine, lambda now: self._turned.__setitem__(number, now))

        self._turned[number] = 0.0
        return self._fork(body, [mine])

    def _begin_front(self, port: socket.socket) -> int:
        if self._tells is not None:
            self._tells.close()
        lines, self._tells = _pipe()
        os.set_blocking(self._tells.fileno(), False)
        self._told = self._untold = b""
        names = [each.getsockname() for each in self._private]

        def body() -> None:
            for number in STOPPING:  # a terminal sends them to all processes; the front answers while others stop
                signal.signal(number, signal.SIG_IGN)
            front.serve(port, names, lines)

        try:
            return self._fork(body, [port, lines])
        finally:
            lines.close()

    def _fork(self, body: Callable[[], None], keep: Sequence[_Closable | None]) -> int:
        said, says = _pipe()
        with says:
            try:
                pid = os.fork()
            except OSError:
                said.close()
                raise
            if pid == 0:
                others: list[_Closable | None] = [*self._private, *self._said.values(), self._port, self._tells]
                for each in (said, self._own_end, *others):
                    if each is not None and each not in keep:
                        each.close()
                self._live(body, says)
        os.set_blocking(said.fileno(), False)
        self._said[pid] = said
        return pid

    def _live(self, body: Callable[[], None], says: FileIO) -> NoReturn:
        """The child's life. It never returns to the parent's code."""
        status = 1
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED)
            body()
            status = 0
        except Exception as error:  # noqa: BLE001 (every error is reported, by the parent)
            text, status = self._describe(error)
            says.write(text[:SAID].encode())
        finally:
            os._exit(status)

    def _stop_without_parent(self) -> None:
        """Stop as by SIGTERM once the parent has gone, be it by SIGKILL."""
        self._alive.read(1)
        os.kill(os.getpid(), signal.SIGTERM)

    # Ending.

    def _watch(self) -> None:
        """Kill workers whose loops hang. Counts looks: time in which this process stood still too is none of theirs."""
        if (now := time.monotonic()) < self._watch_at:
            return
        self._watch_at = now + WATCH_EVERY
        for number, place in enumerate(self._workers, 1):
            (before, looks), turned = self._watched[number], self._turned[number]
            looks = looks + 1 if turned == before and turned and place.pid else 0
            self._watched[number] = turned, looks
            if looks == STUCK_LOOKS:
                log.error("a worker's loop hangs; its process is killed", worker=number, seconds=round(now - turned))
                os.kill(place.pid, signal.SIGKILL)

    def _reap(self) -> None:
        with suppress(ChildProcessError):  # none is left
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                number = next((number for number, place in enumerate(self._places) if place.pid == pid), None)
                if number is not None:  # else an orphan that init has left to us
                    with self._said.pop(pid) as said:
                        text = (said.read() or b"").decode(errors="replace")
                    self._ended(number, Ending(os.waitstatus_to_exitcode(status), text))

    def _ended(self, number: int, ending: Ending) -> None:
        now, before = time.monotonic(), self._places[number]
        self._places[number] = after = before.ended(ending, now)
        values = {"pid": before.pid, "reason": str(ending)} | ({"worker": number} if number != _FRONT else {})
        if self._stopping:
            log.info("process ended", **values)
        else:
            log.warning("process ended; another one follows", **values, seconds=round(after.at - now, 1))

    def _stop(self) -> list[str]:
        """Stop all workers, then the front. Returns what went wrong."""
        log.info("stopping", workers=len(self._workers))
        self._stopping = True
        asked, kill_at, killed = self._running(), time.monotonic() + self._drain + MARGIN, False
        self._signal(signal.SIGTERM)
        while running := self._running():
            self._tell()
            if time.monotonic() >= kill_at and not killed:
                log.error("these workers do not stop in time and are killed", workers=running)
                self._signal(signal.SIGKILL)
                killed = True
            signal.sigtimedwait(WATCHED, LOOK_EVERY)
            self._reap()
        if self._tells is not None:
            self._tells.close()  # the front ends
        kill_at = time.monotonic() + FRONT_ENDS_IN
        while pid := self._places[_FRONT].pid:
            if time.monotonic() >= kill_at:
                os.kill(pid, signal.SIGKILL)
            signal.sigtimedwait(WATCHED, LOOK_EVERY)
            self._reap()
        log.info("stopped")
        ends = {number: self._places[number].last for number in asked}
        return [f"worker {number} did not stop in order: {end}" for number, end in ends.items() if end and end.status]

    def _running(self) -> list[int]:
        return [number for number, place in enumerate(self._workers, 1) if place.pid]

    def _signal(self, number: int) -> None:
        for each in self._running():
            os.kill(self._places[each].pid, number)

    @property
    def _workers(self) -> list[Place]:
        return self._places[_FRONT + 1 :]

    # Telling the front.

    def _tell(self) -> None:
        """Tell the front all places. Without a front, or if it takes no more now, the next call does."""
        if self._tells is None:
            return
        line = orjson.dumps([(place.pid, place.reason, place.endings) for place in self._workers]) + b"\n"
        if not self._untold and line != self._told:
            self._untold = self._told = line
        with suppress(OSError):  # the front has just ended
            self._untold = self._untold[self._tells.write(self._untold) or 0 :]

    def _until_due(self) -> float:
        """Seconds until there is something to do besides signals."""
        now = time.monotonic()
        places = self._places if self._port is not None else self._workers
        waits = [max(0.0, place.at - now) for place in places if not place.pid]
        return min([*waits, LOOK_EVERY if self._untold else WATCH_EVERY])


def _pipe() -> tuple[FileIO, FileIO]:
    reads, writes = os.pipe()
    return FileIO(reads, "rb"), FileIO(writes, "wb")
