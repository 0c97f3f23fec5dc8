"""Lets requests share HTTP/2 connections: chooses the connection of a request, or lets it wait for the next one.

`http2_session` says how many requests a connection may carry.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from requests import RequestException
from requests import exceptions as errors

from consumer.loop.part import guarded
from consumer.loop.poller import Poller
from consumer.sending.answer import Answer
from consumer.sending.connection import Connection
from consumer.sending.http2_connection import Http2Connection
from consumer.sending.pool import MAX_AGE, Pool
from consumer.sending.route import Route
from consumer.sending.transfer import ConnectionOwner, Stage, Transfer, unexpected

_REFUSALS = 3  # of one request, after which it fails
_REST = 0.5  # seconds until the next connection to a receiver that has ended one before it took any request


class _Group:
    """One route: its connections in use, the one being opened, and the transfers that wait for one.

    `dial` is open for the `leader`, which is one of those that wait.
    """

    def __init__(self, route: Route) -> None:
        self.route = route
        self.connections: list[Http2Connection] = []
        self.dial: Stage | None = None
        self.leader: Transfer | None = None
        self.rests = False  # opens no connection for a moment
        self.waiting: dict[Transfer, None] = {}

    def wants_another(self) -> bool:
        """Whether no connection is being opened, and the receiver's limit of requests is known for each open one."""
        is_free = self.leader is None and not self.rests
        return is_free and all(each.session.settled for each in self.connections if each.is_open)


class _Waiting:
    """The stage of a transfer that waits for a connection."""

    exchanging = False

    def __init__(self, group: _Group, leave: Callable[[], None]) -> None:
        self._group = group
        self._leave = leave

    def late(self) -> Answer | str:
        """The text of the connect time-out."""
        host = self._group.route.host
        if self._group.dial is not None:
            return self._group.dial.late()
        return f"{host} ended a connection before any request" if self._group.rests else f"no free connection to {host}"

    def cancel(self) -> None:
        """Wait no longer."""
        self._leave()


class Sharing:
    """The HTTP/2 connections of an adapter, by route.

    One connection at a time is opened to a route, and all requests wait for it, since one may carry them all. Requests
    that find no room on it open the next, again one at a time. If the receiver chooses HTTP/1.1, each request opens its
    own.
    """

    def __init__(self, owner: ConnectionOwner, poller: Poller, pool: Pool, clock: Callable[[], float]) -> None:
        self._owner = owner
        self._poller = poller
        self._pool = pool
        self._clock = clock
        self._groups: dict[Route, _Group] = {}
        self._rested = poller.timer(guarded(unexpected, self._on_rested))

    def carry(self, transfer: Transfer, route: Route) -> None:
        """Send the request on a connection that has room, or on the next one."""
        now = self._clock()
        for connection in self._group(route).connections:
            if connection.room and now - connection.born < MAX_AGE:
                connection.carry(transfer)
                return
        while (kept := self._pool.take(route, now, self._poller.served_at)) is not None:
            group = self._group(route)  # reading a connection may have removed it
            if isinstance(kept, Http2Connection) and kept.room:
                group.connections.append(kept)
            if isinstance(kept, Connection) or kept in group.connections:
                kept.carry(transfer)
                self._tidy(group)
                return
            kept.cancel()
        self._wait(self._group(route), transfer)
        self._serve(self._group(route))

    def connected(self, transfer: Transfer, route: Route, stream: Any) -> None:
        """Send the transfer's request on a connection that has been opened."""
        if stream.selected_alpn_protocol() != "h2":
            Connection(self._owner, self._poller, stream, route, self._clock()).carry(transfer)
            return
        group = self._group(route)
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

    def close(self) -> None:
        """Open no more connections."""
        self._poller.remove_timer(self._rested)

    # Called by connections.

    def _unprocessed(self, connection: Http2Connection, transfer: Transfer) -> None:
        """Send the request again, unless receivers have refused it too often.

        A receiver that takes no request on a new connection is being replaced, or starts: the request waits, until its
        own time-out, for a connection that is opened a moment later.
        """
        if connection.session.took_none:
            group = self._group(connection.route)
            group.rests = True
            self._wait(group, transfer)
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

    def _group(self, route: Route) -> _Group:
        group = self._groups.get(route)
        if group is None:
            group = self._groups[route] = _Group(route)
        return group

    def _wait(self, group: _Group, transfer: Transfer) -> None:
        transfer.stage = _Waiting(group, partial(self._leave, group, transfer))
        group.waiting[transfer] = None
        self._owner.await_connection(transfer)

    def _leave(self, group: _Group, transfer: Transfer) -> None:
        """Let the transfer wait no longer. If the connection was opened for it, another one opens the next."""
        group.waiting.pop(transfer, None)
        if group.leader is transfer:
            if group.dial is not None:
                group.dial.cancel()
            group.leader = group.dial = None
            self._poller.post(guarded(lambda bug: unexpected(bug, group.route.host), partial(self._serve, group)))

    def _lead(self, group: _Group, transfer: Transfer) -> None:
        group.leader = transfer
        dial = group.dial = self._owner.dial(transfer, partial(self._on_dialled, group, transfer))
        dial.start()

    def _on_dialled(self, group: _Group, leader: Transfer, result: Any) -> None:
        group.leader = group.dial = None
        del group.waiting[leader]
        if isinstance(result, RequestException) or result.selected_alpn_protocol() != "h2":
            waiting, group.waiting = group.waiting, {}
            for each in waiting:
                if isinstance(result, RequestException):
                    self._owner.failed(each, type(result)(*result.args))
                else:
                    self._owner.unused(each)
            self._tidy(group)
        if isinstance(result, RequestException):
            self._owner.failed(leader, result)
        else:
            self.connected(leader, group.route, result)

    def _serve(self, group: _Group) -> None:
        """Send waiting transfers on connections with room; the first that finds none opens a connection."""
        now = self._clock()
        waiting = group.waiting
        for connection in tuple(group.connections):
            while len(waiting) > (group.leader is not None) and connection.room and now - connection.born < MAX_AGE:
                transfer = next(each for each in waiting if each is not group.leader)
                del waiting[transfer]
                connection.carry(transfer)
        if waiting and group.wants_another():
            self._lead(group, next(iter(waiting)))
        self._tidy(group)

    def _tidy(self, group: _Group) -> None:
        is_here = self._groups.get(group.route) is group  # else a later request has begun another group
        if is_here and not (group.connections or group.waiting):
            del self._groups[group.route]
