"""The thread that runs a session's SQL, so that the session can receive its client's break meanwhile."""

import select
import socket
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

import jpype

from tests.oracle_emulator.packets import Break, Channel, Disconnect

T = TypeVar("T")


class Worker:
    """Runs one job at a time; the thread starts with the first."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._done, self._tell = socket.socketpair()
        self._thread: Thread | None = None

    def run(self, job: Callable[[], T], cancel: Callable[[], None]) -> T:
        """The job's result or exception.

        If the client interrupts or goes, cancels it and raises Break or Disconnect.
        """
        if self._thread is None:
            self._thread = Thread(target=self._work, daemon=True, name="oracle-emulator-sql")
            self._thread.start()
        outcome: Future[T] = Future()
        self._jobs.put(partial(_run, job, outcome))
        ready, _, _ = select.select([self._channel.connection, self._done], [], [])
        interruption: Exception | None = None
        if self._done not in ready:
            interruption = Break() if self._channel.interrupted() else Disconnect()
            cancel()
        self._done.recv(1)
        if interruption:
            raise interruption
        return outcome.result()

    def close(self) -> None:
        """Ends the idle thread."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
        self._done.close()
        self._tell.close()

    def _work(self) -> None:
        while (run := self._jobs.get()) is not None:
            run()
            self._tell.send(b"x")
        leave_java()


def leave_java() -> None:
    """Detaches the calling thread from Java, which would otherwise keep its state."""
    thread: Any = jpype.java.lang.Thread
    if thread.isAttached():
        thread.detach()


def _run(job: Callable[[], T], outcome: Future[T]) -> None:
    try:
        outcome.set_result(job())
    except Exception as error:  # noqa: BLE001 (raised again by `outcome.result()`)
        outcome.set_exception(error)
