"""Decides when a process of a group of workers is replaced: a place outlives the processes in it."""

import signal
from typing import NamedTuple

from consumer.loop.backoff import seconds_after

BACK_OFF = (0.5, 30.0)  # seconds from an end to the next begin: the first, the longest
STEADY = 60.0  # seconds; a process that has run for so long has not failed at its start
REFUSED = 2  # exit status: wrong settings


class Ending(NamedTuple):
    """How a process ended: its exit status, or the negative number of a signal, and what it said at last."""

    status: int
    said: str = ""

    def __str__(self) -> str:
        how = f"exit status {self.status}" if self.status >= 0 else f"killed by {_name(-self.status)}"
        return f"{how}: {self.said}" if self.said else how


def _name(number: int) -> str:
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


class Place(NamedTuple):
    """One member of the group, by any of its processes in turn."""

    pid: int = 0  # 0: none runs now
    at: float = 0.0  # when the process began, or when the next one is to begin
    failures: int = 0  # processes that ended soon, in a row
    endings: int = 0
    last: Ending | None = None
    refused: bool = False  # the first process ended because of wrong settings

    def begun(self, pid: int, now: float) -> "Place":
        """A process runs in it."""
        return self._replace(pid=pid, at=now)

    def ended(self, ending: Ending, now: float) -> "Place":
        """Its process has ended; the next one waits longer if this one has not run for long."""
        failures = 1 if now - self.at >= STEADY else self.failures + 1
        refused = self.refused or (self.endings == 0 and ending.status == REFUSED)
        return Place(0, now + seconds_after(failures, *BACK_OFF), failures, self.endings + 1, ending, refused)

    @property
    def reason(self) -> str:
        """Why no process runs, or why another one did not go on; empty if neither is so."""
        return f"its process ended ({self.last})" if self.last is not None else "" if self.pid else "starting"
