"""A submitted request and its stages."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import structlog
from requests import PreparedRequest, RequestException, Response
from requests import exceptions as errors

from consumer.crypto.certificates import TlsIdentity
from consumer.crypto.credentials import OAuth2
from consumer.sending.answer import Answer
from consumer.sending.tls import Tls

log = structlog.get_logger(__name__)

Result = Response | RequestException


class Stage(Protocol):
    """A stage of a transfer: resolving the name, opening a connection, or exchanging over one."""

    def cancel(self) -> None:
        """End the stage and close its sockets."""

    def late(self) -> str:
        """The missing result, as the start of a time-out's text."""


class Pending:
    """The stage of a transfer that waits for something that others may share, so that it cannot be cancelled.

    The callback that continues the transfer checks that this is still its stage.
    """

    def __init__(self, missing: str) -> None:
        self._missing = missing

    def late(self) -> str:
        """The text of the time-out."""
        return self._missing

    def cancel(self) -> None:
        """Do nothing."""


class Key(NamedTuple):
    """Requests with equal credentials and TLS share a token."""

    credentials: OAuth2
    identity: TlsIdentity | None


class Grant:
    """An access token of a transfer. `renewed`: it is the second one, since the receiver has refused the first."""

    __slots__ = ("key", "renewed", "token")

    def __init__(self, key: Key) -> None:
        self.key = key
        self.token = ""
        self.renewed = False


class Exchanging:
    """The stage of a transfer whose request is being exchanged for an answer."""

    __slots__ = ()

    def late(self) -> str:
        """The missing result, as the start of a time-out's text."""
        raise NotImplementedError

    def cut(self) -> Answer | None:
        """The answer received so far, if its status is known."""
        raise NotImplementedError

    def cancel(self) -> None:
        """End the exchange."""
        raise NotImplementedError


class Transfer:
    """A submitted request, to pass to `cancel`. `connected`: it has opened a TLS connection of its own, with `tls`.

    `head` and `body` are the bytes to write. Times are monotonic seconds: the transfer `began`, its connection is due
    by `connect_by`, its answer by `deadline`. `again`: its time limit was restarted after the loop had stood still.
    `identity`: of its TLS connection. `grant`: the access token it goes out with, if it needs one. `refusals`: how
    often a receiver has closed or refused it unprocessed.
    """

    __slots__ = (
        "again",
        "began",
        "body",
        "callback",
        "connect_by",
        "connected",
        "deadline",
        "grant",
        "head",
        "identity",
        "limit",
        "refusals",
        "request",
        "stage",
        "tls",
    )

    def __init__(
        self, request: PreparedRequest, callback: Callable[[Result], None], began: float, limit: float
    ) -> None:
        self.request = request
        self.callback: Callable[[Result], None] | None = callback  # None: done or cancelled
        self.began = began
        self.limit = limit
        self.deadline = self.connect_by = began + limit
        self.head = self.body = b""
        self.stage: Stage | None = None  # None: waits for the resolver, or done
        self.connected = False
        self.tls: Tls | None = None
        self.again = False
        self.identity: TlsIdentity | None = None
        self.grant: Grant | None = None
        self.refusals = 0


def unexpected(error: Exception, host: str | None = None) -> RequestException:
    """The result of a transfer that met a bug of this program. It is logged; one receiver must not end the worker."""
    log.error("a request failed by an unexpected error", host=host, exc_info=error)
    return errors.ConnectionError(f"unexpected error of the worker ({type(error).__name__}); its log says more")
