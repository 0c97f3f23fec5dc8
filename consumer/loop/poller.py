"""The loop's one wait: sockets, timers, and callbacks posted from other threads."""

import resource
import select
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

READ, WRITE, ERROR, HANGUP = 1, 4, 8, 16  # the values of EPOLLIN, EPOLLOUT, EPOLLERR and EPOLLHUP
GAP = 0.25  # seconds by which a turn must be late to call the `on_gap` callbacks
BUDGET = 0.005  # seconds of a turn for handlers, and as much for posted callbacks; the call that exceeds it ends first
_MAX_EVENTS = 1024  # descriptors that one wait reports

Callback = Callable[[], None]


def raise_descriptor_limit() -> int:
    """Raise this process's soft limit of open files to its hard limit; return the limit in force."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


class Timer:
    """Runs `callback` once in the first turn at or after `deadline` (of the poller's clock); None is off."""

    __slots__ = ("callback", "deadline")

    def __init__(self, callback: Callback) -> None:
        self.callback = callback
        self.deadline: float | None = None


class _EpollSubstitute:
    """The part of `select.epoll` that Poller needs, for systems without it."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    @staticmethod
    def _mask(events: int) -> int:
        return (selectors.EVENT_READ if events & READ else 0) | (selectors.EVENT_WRITE if events & WRITE else 0)

    def register(self, fd: int, events: int) -> None:
        self._selector.register(fd, self._mask(events))

    def modify(self, fd: int, events: int) -> None:
        try:
            self._selector.modify(fd, self._mask(events))
        except KeyError as error:
            raise FileNotFoundError(str(error)) from error

    def unregister(self, fd: int) -> None:
        try:
            self._selector.unregister(fd)
        except KeyError as error:
            raise FileNotFoundError(str(error)) from error

    def poll(self, timeout: float, limit: int) -> list[tuple[int, int]]:
        del limit  # a selector has none
        return [
            (key.fd, (READ if mask & selectors.EVENT_READ else 0) | (WRITE if mask & selectors.EVENT_WRITE else 0))
            for key, mask in self._selector.select(timeout)
        ]

    def close(self) -> None:
        self._selector.close()


class Wait(Protocol):
    """The loop's wait, as `Poller` has it. `woke_at`: the end of the last one, in monotonic seconds."""

    woke_at: float

    def turn(self, timeout: float) -> None:
        """Wait for `timeout` seconds at most, then call back."""

    def close(self) -> None:
        """Free the descriptors."""


class Poller:
    """Waits for everything the loop waits for. All methods but `post` belong to the thread that calls `turn`.

    If a handler, timer or callback raises, the others of the turn still run. Then `turn` raises the exception, or an
    ExceptionGroup of several.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, *, use_epoll: bool = hasattr(select, "epoll")
    ) -> None:
        self._clock = clock
        self._epoll = select.epoll() if use_epoll else _EpollSubstitute()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._ready: dict[int, int] = {}  # descriptor → events; those that wait for the longest come first
        self._timers: list[Timer] = []
        self._posted: deque[Callback] = deque()
        self.soon = self._posted.append  # as `post`, from the thread that calls `turn`
        self._gap_callbacks: list[Callback] = []
        self._turned_at: float | None = None
        self.woke_at = clock()  # the end of the last wait
        self.served_at = self.woke_at  # the end of the last wait of which all ready descriptors have been handled
        self._owner: int | None = None  # the thread that calls `turn`
        self._wake_lock = threading.Lock()
        self._closed = False
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        self.register(self._wake_reader.fileno(), READ, self._woken)

    def register(self, fd: int, events: int, handler: Callable[[int], None]) -> None:
        """Call `handler(events)` in each later turn that finds `fd` ready.

        FileExistsError if it is registered.
        """
        self._epoll.register(fd, events)
        self._handlers[fd] = handler
        self._ready.pop(fd, None)  # readiness of an older descriptor of the same number

    def modify(self, fd: int, events: int) -> None:
        """Wait for other events. FileNotFoundError if `fd` is not registered, or was closed since."""
        self._epoll.modify(fd, events)

    def unregister(self, fd: int) -> None:
        """Forget `fd`, which may be closed already."""
        self._ready.pop(fd, None)
        if self._handlers.pop(fd, None) is not None:
            try:
                self._epoll.unregister(fd)
            except (OSError, ValueError):
                return  # closing it took it out of the epoll set

    def timer(self, callback: Callback) -> Timer:
        """A timer of this poller, off. Set its `deadline` at any time; a fired timer is off again."""
        timer = Timer(callback)
        self._timers.append(timer)
        return timer

    def remove_timer(self, timer: Timer) -> None:
        """The timer never fires again."""
        self._timers.remove(timer)

    def on_gap(self, callback: Callback) -> None:
        """Call `callback` first in each late turn, after the process stood still or did something else for long.

        Data that arrived meanwhile has waited: a part that measures time-outs should read it before it judges them.
        """
        self._gap_callbacks.append(callback)

    def post(self, callback: Callback) -> None:
        """Run `callback` on the loop's thread, in this turn or the next. From any thread; lost once closed.

        Before that, the poller looks at all descriptors once more, if the turn has time left: a handler may have posted
        it. `served_at` says whether it has.
        """
        self._posted.append(callback)
        if threading.get_ident() != self._owner:
            with self._wake_lock:
                if not self._closed:
                    try:
                        self._wake_writer.send(b"\0")
                    except BlockingIOError:
                        return  # full of wake-ups that are not read yet

    def turn(self, timeout: float) -> None:
        """Wait at most `timeout` seconds for anything, then run the handlers, the timers and the posted callbacks.

        Handlers and posted callbacks that exceed their BUDGET are left for the next turn, which starts with them.
        """
        self._owner = threading.get_ident()
        errors: list[Exception] = []
        patience = self._patience(timeout)
        self._ready.update(self._epoll.poll(patience, _MAX_EVENTS))
        self.woke_at = self._clock()
        if self._turned_at is not None and self.woke_at - self._turned_at - patience > GAP:
            self._run(self._gap_callbacks, errors)
        until = self.woke_at + BUDGET
        self._handle(self.woke_at, until, errors)
        self._run_timers(errors)
        if self._posted:
            if not self._ready and (now := self._clock()) <= until:
                self._ready.update(self._epoll.poll(0, _MAX_EVENTS))
                self._handle(now, until, errors)
            self._run_posted(errors)
        self._turned_at = self._clock()
        if errors:
            raise errors[0] if len(errors) == 1 else ExceptionGroup("several callbacks of one turn failed", errors)

    def close(self) -> None:
        """Free the descriptors. Callbacks still posted do not run."""
        with self._wake_lock:
            self._closed = True
            self._epoll.close()
            self._wake_reader.close()
            self._wake_writer.close()
        self._handlers.clear()
        self._timers.clear()
        self._posted.clear()

    def _patience(self, timeout: float) -> float:
        if self._posted or self._ready:
            return 0.0
        now: float | None = None
        for timer in self._timers:
            if timer.deadline is not None:
                now = self._clock() if now is None else now
                timeout = min(timeout, timer.deadline - now)
        return max(timeout, 0.0)

    def _handle(self, now: float, until: float, errors: list[Exception]) -> None:
        """Call the handlers of ready descriptors, of which the poller was asked at `now`."""
        ready, handlers, clock = self._ready, self._handlers, self._clock
        for fd in tuple(ready):
            events = ready.pop(fd, None)  # None: another handler of this turn has unregistered it
            handler = handlers.get(fd)
            if events is not None and handler is not None:
                try:
                    handler(events)
                except Exception as error:  # noqa: BLE001 (raised when all have run)
                    errors.append(error)
                if clock() > until:
                    break
        if not ready:
            self.served_at = now

    def _run_posted(self, errors: list[Exception]) -> None:
        posted, clock = self._posted, self._clock
        until = clock() + BUDGET
        for _ in range(len(posted)):
            try:
                posted.popleft()()
            except Exception as error:  # noqa: BLE001 (turn raises it, when all have run)
                errors.append(error)
            if clock() > until:
                return

    def _run(self, callbacks: Iterable[Callback], errors: list[Exception]) -> None:
        for callback in callbacks:
            try:
                callback()
            except Exception as error:  # noqa: BLE001 (turn raises it, when all have run)
                errors.append(error)

    def _run_timers(self, errors: list[Exception]) -> None:
        now: float | None = None
        for timer in tuple(self._timers):
            if timer.deadline is not None:
                now = self._clock() if now is None else now
                if now >= timer.deadline:
                    timer.deadline = None
                    try:
                        timer.callback()
                    except Exception as error:  # noqa: BLE001 (turn raises it)
                        errors.append(error)

    def _woken(self, _events: int) -> None:
        try:
            self._wake_reader.recv(4096)
        except BlockingIOError:
            return  # a stale event
