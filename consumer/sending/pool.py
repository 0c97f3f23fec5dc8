"""Keeps idle connections for the next request over the same route, as far as the process may open files."""

import errno
import socket
from collections import deque
from typing import NamedTuple, Protocol

from consumer.sending.route import Route

# Seconds. A request that meets a server's end of an idle connection has to be sent again; nginx ends one after 75 s,
# AWS's load balancers after 60 s.
_MAX_IDLE = 55.0
MAX_AGE = 600.0  # seconds; limits how long a receiver's changed DNS answer is ignored
_QUIET = 0.05  # seconds since the poller has last looked; a connection may have been closed meanwhile, or sent a 408
# A second answer to one request must not be taken for that to the next. It follows at once, or, if Nagle's algorithm
# holds it back, after our delayed acknowledgement of the first, which Linux sends within 40 ms.
REST = 0.05  # seconds
_RESTING = 16  # connections of a route that rest; above 320 deliveries a second each of them rests for less than REST
SWEEP = 10.0  # seconds between two sweeps for expired connections
KEPT = 2000  # connections beyond the open requests; a TLS connection holds 53 KiB, so these hold 104 MiB
OTHER_DESCRIPTORS = 500  # descriptors for brokers, the database, ports and files
NO_DESCRIPTOR = "this process may open no more files: raise its limit (ulimit -n), or lower WEBHOOK_MAX_IN_FLIGHT"


def connections(slots: int, descriptors: int) -> int:
    """The limit of connections, idle ones included: above `slots`, so that receivers used in turn keep their own.

    A process with few `descriptors` keeps fewer idle connections, but always allows `slots` of them in use.
    """
    return max(slots, min(slots + KEPT, descriptors - OTHER_DESCRIPTORS))


def fitting(slots: int, limit: int) -> int:
    """How many of `slots` a process that may open `limit` files can use: the rest of the program needs some too."""
    return max(1, min(slots, limit - min(OTHER_DESCRIPTORS, 3 * limit // 4)))


def none_left() -> bool:
    """Whether this process, or the system, can open no more files now."""
    try:
        socket.socket().close()
    except OSError as error:
        return error.errno in {errno.EMFILE, errno.ENFILE}
    return False


class Reusable(Protocol):
    """An open connection of any protocol. `born` and `used_at` are monotonic seconds.

    `rest`: seconds after an answer until it carries the next request, while others can.
    """

    rest: float
    route: Route
    born: float
    used_at: float

    def is_quiet(self) -> bool:
        """Whether it may carry another request; bytes that are not read yet can forbid that."""

    def cancel(self) -> None:
        """Close it."""


class _Kept(NamedTuple):
    """The connections of a route, least recently used first."""

    rested: dict[Reusable, None]
    resting: deque[Reusable]


class Pool:
    """Keeps at most `most` idle connections; `take` prefers the most recently used one of a route that has rested.

    Beyond that, the least recently used connection of any route is closed. There is no limit per route, because many
    subscriptions may share one host, which then needs nearly all connections.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._idle: dict[Reusable, None] = {}  # least recently used first
        self._places: dict[Route, _Kept] = {}  # the same connections and order, by route

    def __len__(self) -> int:
        return len(self._idle)

    def take(self, route: Route, now: float, served_at: float, room: int = 1 << 30) -> Reusable | None:
        """Take a usable connection of this route out of the pool; None if there is none.

        Bytes behind the last answer would be taken for the next one. The poller has reported those that had come by
        `served_at`; a read has to find them where that was before the connection was put here, or long ago. If the pool
        has not `room` for one more, another connection would replace a kept one, so resting ones are taken too.
        """
        while (kept := self._places.get(route)) is not None:
            rested, resting = kept
            while resting and resting[0].used_at + resting[0].rest <= now:
                rested[resting.popleft()] = None
            if rested:
                connection, _ = rested.popitem()
            elif len(resting) >= _RESTING or len(self._idle) >= room:
                connection = resting.popleft()
            else:
                return None
            del self._idle[connection]
            if not (rested or resting):
                del self._places[route]
            is_heard = served_at > connection.used_at and now - served_at < _QUIET
            is_young = now - connection.used_at < _MAX_IDLE and now - connection.born < MAX_AGE
            if is_young and (is_heard or connection.is_quiet()):
                return connection
            connection.cancel()
        return None

    def put(self, connection: Reusable, now: float) -> None:
        """Keep a connection that was in use until `now`."""
        connection.used_at = now
        kept = self._places.get(connection.route)
        if kept is None:
            kept = self._places[connection.route] = _Kept({}, deque())
        kept.resting.append(connection)
        self._idle[connection] = None
        if len(self._idle) > self._most:
            self.make_room()

    def make_room(self) -> None:
        """Close the least recently used connection, if any, to make room for another."""
        if self._idle:
            self._close(next(iter(self._idle)))

    def drop(self, connection: Reusable) -> None:
        """Forget a closed connection; does nothing if the pool does not hold it."""
        if connection in self._idle:
            del self._idle[connection]
            kept = self._places[connection.route]
            if connection in kept.rested:
                del kept.rested[connection]
            else:
                kept.resting.remove(connection)
            if not (kept.rested or kept.resting):
                del self._places[connection.route]

    def expire(self, now: float) -> None:
        """Close connections that have been idle for too long or are too old."""
        for connection in [
            each for each in self._idle if now - each.used_at >= _MAX_IDLE or now - each.born >= MAX_AGE
        ]:
            self._close(connection)

    def close(self) -> None:
        """Close all idle connections."""
        for connection in tuple(self._idle):
            self._close(connection)

    def _close(self, connection: Reusable) -> None:
        self.drop(connection)
        connection.cancel()
