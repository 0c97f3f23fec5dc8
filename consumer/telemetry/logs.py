"""Logs of this program and of the libraries that it uses, one event per line."""

import fcntl
import io
import logging
import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Lock
from typing import ClassVar, TextIO

import structlog

PIECE = select.PIPE_BUF  # bytes: a pipe that can be written to takes so many without a wait
_TORN = b"t"  # in the file that is locked: the log ends within a line
_AGAIN = 0.0002  # seconds between two tries to lock; a line is written in a tenth of that
PATIENCE = 20  # milliseconds of each second: a burst of lines is larger than a pipe, and its reader needs a moment


class LogFile(io.TextIOBase):
    """A text file that never raises, and waits at most `PATIENCE`: it drops a line that `file` does not take.

    That is so if its disk or pipe is full, or its reader is gone. `dropped` counts the lines of this process.
    """

    dropped: ClassVar[int] = 0
    _turn: ClassVar[int | None] = None  # the file that a process locks while it writes, if others write too

    def __init__(self, file: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._file = file  # stays open while this object lives
        self._lock = Lock()
        self._torn = False  # whether the file ends within a line
        self._patience, self._again_at = 0.0, 0.0
        self._writable = select.poll()
        self._writable.register(file, select.POLLOUT)

    @classmethod
    def take_turns(cls) -> None:
        """Have processes that are forked from now on write one after the other; Linux alone can do that.

        Else they would all find place for one line, and the second one wait for a reader that may never come.
        """
        cls._turn = os.memfd_create("log")

    def write(self, text: str) -> int:
        """Write a line, which ends with its line feed."""
        line = text.encode(self._file.encoding, "backslashreplace")
        written = False
        with self._lock, suppress(OSError), self._alone():
            written = self._write(line)
        if not written:
            LogFile.dropped += 1
        return len(text)

    def _write(self, line: bytes) -> bool:
        if LogFile._turn is not None:
            self._torn = os.pread(LogFile._turn, 1, 0) == _TORN
        torn = self._torn
        rest = memoryview(b"\n" + line if torn else line)
        try:
            while rest and (self._writable.poll(0) or self._patiently(self._writable.poll)):
                rest = rest[os.write(self._file.fileno(), rest[:PIECE]) :]
                self._torn = bool(rest)
        finally:
            if LogFile._turn is not None and torn != self._torn:
                os.pwrite(LogFile._turn, _TORN if self._torn else b"-", 0)
        return not rest

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other process writes meanwhile. OSError: they do for too long."""
        if LogFile._turn is None:
            yield
            return
        if not _locked(LogFile._turn) and not self._patiently(partial(_locked, LogFile._turn)):
            raise BlockingIOError
        try:
            yield
        finally:
            fcntl.lockf(LogFile._turn, fcntl.LOCK_UN)

    def _patiently(self, succeeds: Callable[[float], object]) -> bool:
        """Whether it succeeds in the milliseconds that are left of the patience."""
        begin = self._clock()
        if begin >= self._again_at:
            self._patience, self._again_at = PATIENCE, begin + 1
        found = succeeds(max(0, self._patience))
        self._patience -= 1000 * (self._clock() - begin)
        return bool(found)


def _locked(file: int, milliseconds: float = 0) -> bool:
    """Lock the file. The lock of a process that dies is gone. False: another process has it all the time."""
    end = time.monotonic() + milliseconds / 1000
    while True:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(_AGAIN)
        else:
            return True


_worker = 0  # the number of this process among the workers of one command; 0 if there is no other


def name_worker(number: int) -> None:
    """Have all lines of this process, of any thread, name the worker."""
    global _worker  # noqa: PLW0603 (a process is one worker; what is bound to a context is lost in other threads)
    _worker = number


def _with_worker(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return {**event, "worker": _worker} if _worker else event


def configure_logging(level: str) -> None:
    """Log one event per line to stderr, readable on a terminal, as JSON elsewhere. Includes standard-library loggers.

    A terminal gets colours, unless NO_COLOR is set and not empty (https://no-color.org).
    """
    stderr = sys.__stderr__ or Path(os.devnull).open("w")  # noqa: SIM115 (as long as the process lives)
    terminal, file = stderr.isatty(), LogFile(stderr)
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        _with_worker,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=not os.environ.get("NO_COLOR"))
        if terminal
        else structlog.processors.JSONRenderer(sort_keys=False)
    )
    threshold = logging.getLevelNamesMapping()[level]
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(file),  # type: ignore[arg-type]  # which needs `write` and `flush`
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(file)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    handler.addFilter(_without_traces_of_lost_sessions)
    logging.basicConfig(level=max(threshold, logging.WARNING), handlers=[handler], force=True)


def _without_traces_of_lost_sessions(record: logging.LogRecord) -> bool:
    """Shorten SQLAlchemy's report of a session that broke while it was returned to the pool: that is not a bug."""
    if record.name.startswith("sqlalchemy.pool") and record.exc_info:
        reason = str(record.exc_info[1]).partition("\n")[0]
        record.msg, record.args, record.exc_info = f"{record.getMessage()}: {reason}", (), None
    return True
