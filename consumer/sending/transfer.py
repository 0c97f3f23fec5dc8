"""One request under way."""

from collections.abc import Callable
from typing import Protocol

from requests import PreparedRequest, RequestException, Response

Result = Response | RequestException


class Stage(Protocol):
    """What a transfer is at: its name is looked up, its connection is being opened, or carries it."""

    def cancel(self) -> None:
        """Drop it, and close what it has open."""

    def late(self) -> str:
        """What has not come, as a text for people."""


class Transfer:
    """One submitted request, good for `cancel`. `connected`, once it has ended: it began a TLS connection.

    `head` and `body` are what is written. Times are monotonic seconds: it `began`, its connection is due by
    `connect_by`, all of it by `deadline`. `again`: its time was given to it once more, after the loop had stood still.
    """

    __slots__ = (
        "again",
        "began",
        "body",
        "callback",
        "connect_by",
        "connected",
        "deadline",
        "head",
        "limit",
        "request",
        "stage",
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
        self.again = False
