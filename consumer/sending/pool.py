"""Connections that carry nothing now and are kept for the next request to the same place."""

from consumer.sending.connection import Connection
from consumer.sending.connector import Route

_MAX_IDLE = 110.0  # seconds; a connection idle for longer was closed by most servers
_MAX_AGE = 600.0  # seconds; after that a receiver's new DNS answer is followed
_QUIET = 1.0  # seconds of idling; one idle for longer may have been closed, or told 408, in this moment
SWEEP = 10.0  # seconds between two looks for those that are too old
KEPT = 2000  # connections beyond the open requests; of TLS, one holds 46 KiB, so these hold 90 MiB
OTHER_DESCRIPTORS = 500  # of brokers, the database, the ports, files


def connections(slots: int, descriptors: int) -> int:
    """How many to have, open and kept: more than `slots`, so that receivers in turn each keep theirs.

    Where the process may have few `descriptors`, fewer are kept; requests come first.
    """
    return max(slots, min(slots + KEPT, descriptors - OTHER_DESCRIPTORS))


class Pool:
    """Keeps at most `most` connections; of a route the one that was used last is taken first.

    What is too much closes the connections that were not used for the longest time, whatever their route: many
    subscriptions may lead to one host, which then needs nearly all.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._idle: dict[Connection, None] = {}  # the one used last is the last
        self._places: dict[Route, dict[Connection, None]] = {}  # the same

    def __len__(self) -> int:
        return len(self._idle)

    def take(self, route: Route, now: float) -> Connection | None:
        """One that may carry a request, if there is one."""
        kept = self._places.get(route)
        while kept:
            connection, _ = kept.popitem()
            del self._idle[connection]
            if not kept:
                del self._places[route]
            idle = now - connection.used_at
            if idle < _MAX_IDLE and now - connection.born < _MAX_AGE and (idle < _QUIET or connection.is_quiet()):
                return connection
            connection.cancel()
        return None

    def put(self, connection: Connection, now: float) -> None:
        """Keep it, used until `now`."""
        connection.used_at = now
        kept = self._places.get(connection.route)
        if kept is None:
            kept = self._places[connection.route] = {}
        kept[connection] = self._idle[connection] = None
        if len(self._idle) > self._most:
            self.make_room()

    def make_room(self) -> None:
        """Close the one that was not used for the longest time, if there is one: another is to be opened."""
        if self._idle:
            self._close(next(iter(self._idle)))

    def drop(self, connection: Connection) -> None:
        """It was closed; nothing if it is not kept."""
        if connection in self._idle:
            del self._idle[connection]
            kept = self._places[connection.route]
            del kept[connection]
            if not kept:
                del self._places[connection.route]

    def expire(self, now: float) -> None:
        """Close those that are idle for too long, and those that are too old."""
        for connection in [
            each for each in self._idle if now - each.used_at >= _MAX_IDLE or now - each.born >= _MAX_AGE
        ]:
            self._close(connection)

    def close(self) -> None:
        """Close all."""
        for connection in tuple(self._idle):
            self._close(connection)

    def _close(self, connection: Connection) -> None:
        self.drop(connection)
        connection.cancel()
