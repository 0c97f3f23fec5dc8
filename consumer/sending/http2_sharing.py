"""Lets requests share HTTP/2 connections: chooses the connection of a request, or lets it wait for the next one."""

from collections.abc import Callable
from functools import partial
from typing import Any

from requests import RequestException
from requests import exceptions as errors

from consumer.loop.part import guarded
from consumer.loop.poller import Poller
from consumer.sending.connection import Connection
from consumer.sending.connector import Route
from consumer.sending.http2_connection import Http2Connection
from consumer.sending.pool import MAX_AGE, Pool
from consumer.sending.transfer import ConnectionOwner, Transfer, unexpected

_REFUSALS = 3  # of one request, after which it fails
_REST = 0.5  # seconds until the next connection to a receiver that has ended one before it took any request


class _Group:
    """One route: its connections in use, the transfer that opens one, and the transfers that wait for one."""

    __slots__ = ("connections", "leader", "rests", "route", "waiting")

    def __init__(self, route: Route) -> None:
        self.route = route
        self.connections: list[Http2Connection] = []
        self.leader: Transfer | None = None
        self.rests = False  # opens no connection for a moment
        self.waiting: dict[Transfer, None] = {}

    def wants_another(self) -> bool:
        """Whether no connection is being opened, and the receiver's limit of requests is known for each open one."""
        is_free = self.leader is None and not self.rests
        return is_free and all(each.session.settled for each in self.connections if each.is_open)


class _Waiting:
    """The stage of a transfer that waits for a connection."""

    def __init__(self, group: _Group, transfer: Transfer) -> None:
        self._group = group
        self._transfer = transfer

    def late(self) -> str:
        """The text of the connect time-out."""
        host = self._group.route.host
        return f"{host} ended a connection before any request" if self._group.rests else f"no free connection to {host}"

    def cancel(self) -> None:
        """Wait no longer."""
        self._group.waiting.pop(self._transfer, None)


class Sharing:
    """The HTTP/2 connections of an adapter, by route.

    One request at a time opens a connection to a route, and the others wait for it, since one may carry them all.
    Requests that find no room on it open the next, again one at a time. If the receiver chooses HTTP/1.1, each request
    opens its own.
    """

    def __init__(self, owner: ConnectionOwner, poller: Poller, pool: Pool, clock: Callable[[], float]) -> None:
        self._owner = owner
        self._poller = poller
        self._pool = pool
        self._clock = clock
        self._groups: dict[Route, _Group] = {}
        self._leaders: dict[Transfer, _Group] = {}
        self._rested = poller.timer(guarded(unexpected, self._on_rested))

    def carry(self, transfer: Transfer, route: Route) -> None:
        """Send the request on a connection that has room, or on the next one."""
        group = self._groups.get(route)
        if group is None:
            group = self._groups[route] = _Group(route)
        now = self._clock()
        for connection in group.connections:
            if connection.room and now - connection.born < MAX_AGE:
                connection.carry(transfer)
                return
        while True:
            kept = self._pool.take(route, now, self._poller.served_at)
            group = self._groups.setdefault(route, group)  # reading a connection may have removed the group
            if kept is None:
                break
            if isinstance(kept, Connection):
                transfer.stage = kept
                kept.carry(transfer)
                self._tidy(group)
                return
            if isinstance(kept, Http2Connection) and kept.room:
                group.connections.append(kept)
                kept.carry(transfer)
                return
            kept.cancel()
        if group.wants_another():
            self._lead(group, transfer)
        else:
            transfer.stage = _Waiting(group, transfer)
            group.waiting[transfer] = None
            self._owner.await_connection(transfer)

    def connected(self, transfer: Transfer, route: Route, stream: Any) -> bool:
        """A connection is open. False if the receiver has chosen HTTP/1.1: it can carry this transfer only."""
        group = self._groups.get(route)
        if group is None:
            group = self._groups[route] = _Group(route)
        self._leaders.pop(transfer, None)
        if group.leader is transfer:
            group.leader = None
        if stream.selected_alpn_protocol() == "h2":
            connection = Http2Connection(
                self._owner,
                self._poller,
                stream,
                route,
                self._clock(),
                unprocessed=self._unprocessed,
                freed=self._freed,
            )
            group.connections.append(connection)
            connection.carry(transfer)
            self._serve(group)
            return True
        waiting, group.waiting = group.waiting, {}
        for each in waiting:
            self._owner.unused(each)
        self._tidy(group)
        return False

    def cancelled(self, transfer: Transfer) -> None:
        """If the transfer was opening a connection, let another transfer open one."""
        group = self._leaders.pop(transfer, None)
        if group is not None:
            group.leader = None
            self._poller.post(guarded(lambda bug: unexpected(bug, group.route.host), partial(self._serve, group)))

    def has_failed(self, transfer: Transfer, error: RequestException) -> None:
        """If the transfer was opening a connection, the transfers that wait for it fail too.

        After a time-out, whose limit may have been the transfer's own, another transfer tries instead.
        """
        group = self._leaders.get(transfer)
        if group is None:
            return
        if not isinstance(error, errors.ConnectTimeout):
            waiting, group.waiting = group.waiting, {}
            for each in waiting:
                self._owner.failed(each, type(error)(*error.args))
        self.cancelled(transfer)

    def close(self) -> None:
        """Open no more connections."""
        self._poller.remove_timer(self._rested)

    # Called by connections.

    def _unprocessed(self, connection: Http2Connection, transfer: Transfer) -> None:
        """Send the request again, unless receivers have refused it too often.

        A receiver that takes no request on a new connection is being replaced, or starts: the request waits, until its
        own time-out, for a connection that is opened a moment later.
        """
        transfer.stage = None
        if connection.session.took_none:
            group = self._groups.setdefault(connection.route, _Group(connection.route))
            group.rests = True
            transfer.stage = _Waiting(group, transfer)
            group.waiting[transfer] = None
            if self._rested.deadline is None:
                self._rested.deadline = self._clock() + _REST
            return
        transfer.refusals += 1
        if transfer.refusals < _REFUSALS:
            self.carry(transfer, connection.route)
        else:
            text = f"it was sent {_REFUSALS} times, and refused or left each time before it was processed"
            self._owner.failed(transfer, errors.ConnectionError(text))

    def _freed(self, connection: Http2Connection) -> None:
        """Serve the waiting transfers. Keep a connection that has become idle, or close it if it takes no more."""
        group = self._groups.get(connection.route)
        if group is not None and group.waiting:
            self._serve(group)
        if connection.session.exchanges and connection.is_open:
            return
        is_here = group is not None and connection in group.connections
        if group is not None and is_here:
            group.connections.remove(connection)
        if connection.room and self._clock() - connection.born < MAX_AGE:
            if is_here:
                self._owner.keep(connection)
        else:
            self._pool.drop(connection)
            connection.cancel()
        if group is not None:
            self._serve(group)  # requests that waited for this connection may open another

    def _on_rested(self) -> None:
        for group in tuple(self._groups.values()):
            if group.rests:
                group.rests = False
                self._serve(group)

    def _lead(self, group: _Group, transfer: Transfer) -> None:
        group.leader = transfer
        self._leaders[transfer] = group
        self._owner.unused(transfer)

    def _serve(self, group: _Group) -> None:
        """Send waiting transfers on connections with room; the first that finds none opens a connection."""
        now = self._clock()
        waiting = group.waiting
        for connection in tuple(group.connections):
            while waiting and connection.room and now - connection.born < MAX_AGE:
                transfer = next(iter(waiting))
                del waiting[transfer]
                connection.carry(transfer)
        if waiting and group.wants_another():
            transfer = next(iter(waiting))
            del waiting[transfer]
            self._lead(group, transfer)
        self._tidy(group)

    def _tidy(self, group: _Group) -> None:
        is_here = self._groups.get(group.route) is group  # else a later request has begun another group
        if is_here and not (group.connections or group.leader or group.waiting):
            del self._groups[group.route]
