"""This worker's share of a subscription's limits. Pure."""

from collections.abc import Callable

from consumer.subscriptions.endpoint import Endpoint

Share = Callable[[frozenset[str] | None], float]  # by the topics that events come from; None: any


class Shares:
    """Caches `share` by topics: many subscriptions name the same topics, and most name none."""

    def __init__(self, share: Share = lambda _topics: 1.0) -> None:
        self._share = share
        self._said: dict[frozenset[str] | None, float] = {}

    def of(self, endpoint: Endpoint) -> float:
        """The share of this subscription's limits, above 0 and at most 1."""
        topics = None if endpoint.selection is None else endpoint.selection.topics
        share = self._said.get(topics)
        if share is None:
            share = self._said[topics] = self._share(topics)
        return share
