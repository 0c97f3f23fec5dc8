"""Which part of a subscription's limits is this worker's. Pure."""

from collections.abc import Callable

from consumer.subscriptions.endpoint import Endpoint

Share = Callable[[frozenset[str] | None], float]  # by the topics that events come from; None: any


class Shares:
    """Remembers what `share` says: many subscriptions name the same topics, and most none."""

    def __init__(self, share: Share = lambda _topics: 1.0) -> None:
        self._share = share
        self._said: dict[frozenset[str] | None, float] = {}

    def of(self, endpoint: Endpoint) -> float:
        """The part of the limits of this subscription."""
        topics = None if endpoint.selection is None else endpoint.selection.topics
        share = self._said.get(topics)
        if share is None:
            share = self._said[topics] = self._share(topics)
        return share
