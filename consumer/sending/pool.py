"""Keeps idle connections for the next request over the same route."""

from typing import Protocol

from consumer.sending.connector import Route

_MAX_IDLE = 110.0  # seconds; most servers close a connection that is idle for longer
MAX_AGE = 600.0  # seconds; limits how long a receiver's changed DNS answer is ignored
_QUIET = 1.0  # seconds; a connection idle for longer may just have been closed, or sent a 408
SWEEP = 10.0  # seconds between two sweeps for expired connections
KEPT = 2000  # connections beyond the open requests; a TLS connection holds 46 KiB, so these hold 90 MiB
OTHER_DESCRIPTORS = 500  # descriptors for brokers, the database, ports and files


def connections(slots: int, descriptors: int) -> int:
    """The limit of connections, idle ones included: above `slots`, so that receivers used in turn keep their own.

    A process with few `descriptors` keeps fewer idle connections, but always allows `slots` of them in use.
    """
    return max(slots, min(slots + KEPT, descriptors - OTHER_DESCRIPTORS))


class Reusable(Protocol):
    """An open connection of any protocol. `born` and `used_at` are monotonic seconds."""

    route: Route
    born: float
    used_at: float

    def is_quiet(self) -> bool:
        """Whether it may carry another request; bytes that are not read yet can forbid that."""

    def cancel(self) -> None:
        """Close it."""


class Pool:
    """Keeps at most `most` idle connections; `take` prefers the most recently used one of a route.

    Beyond that, the least recently used connection of any route is closed. There is no limit per route, because many
    subscriptions may share one host, which then needs nearly all connections.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._idle: dict[Reusable, None] = {}  # least recently used first
        self._places: dict[Route, dict[Reusable, None]] = {}  # the same connections and order, by route

    def __len__(self) -> int:
        return len(self._idle)

    def take(self, route: Route, now: float) -> Reusable | None:
        """Take a usable connection of this route out of the pool; None if there is none."""
        kept = self._places.get(route)
        while kept:
            connection, _ = kept.popitem()
            del self._idle[connection]
            if not kept:
                del self._places[route]
            idle = now - connection.used_at
            if idle < _MAX_IDLE and now - connection.born < MAX_AGE and (idle < _QUIET or connection.is_quiet()):
                return connection
            connection.cancel()
        return None

    def put(self, connection: Reusable, now: float) -> None:
        """Keep a connection that was in use until `now`."""
        connection.used_at = now
        kept = self._places.get(connection.route)
        if kept is None:
            kept = self._places[connection.route] = {}
        kept[connection] = self._idle[connection] = None
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
            del kept[connection]
            if not kept:
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
