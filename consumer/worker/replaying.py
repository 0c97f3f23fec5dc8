"""The replays whose cursors this worker runs: the events that they ask for, and their pace."""

from collections.abc import Mapping

from consumer.delivery.cursors import Cursor
from consumer.delivery.limits import TokenBucket
from consumer.events.event import Event
from consumer.ledger.replays import Request
from consumer.subscriptions.patterns import matches

PACE = 0.5  # seconds' worth of deliveries that a replay may send at once: it then rests, and another pass begins
REST = 0.25  # seconds for which it rests at least


class Replays:
    """Each replay has the pace of this worker's share: its cursors here, of all that have not ended."""

    def __init__(self) -> None:
        self._requests: dict[int, Request | None] = {}  # None: cancelled, finished or deleted
        self._paces: dict[int, TokenBucket] = {}

    def learn(self, mine: Mapping[int, int], found: Mapping[int, Request], now: float) -> None:
        """Replays were looked up; the `found` ones have not ended. `mine`: this worker's unfinished cursors of each."""
        for replay, cursors in mine.items():
            request = self._requests[replay] = found.get(replay)
            if request is None or not cursors:
                self._paces.pop(replay, None)
                continue
            rate = request.rate * cursors / max(cursors, request.cursors)
            if replay in self._paces:
                self._paces[replay].set_rate(rate, now)
            else:
                self._paces[replay] = TokenBucket(rate, now, PACE)

    def forget(self, replay: int) -> None:
        """No cursor of it is left here."""
        self._requests.pop(replay, None)
        self._paces.pop(replay, None)

    def runs(self, cursor: Cursor) -> bool:
        """The cursor is none of a replay, or of one that goes on."""
        return not cursor.replay or self._requests.get(cursor.replay) is not None

    def has_ended(self, replay: int) -> bool:
        """The replay was looked up, and is cancelled or finished."""
        return self._requests.get(replay, self) is None

    def wants(self, replay: int, event: Event) -> bool:
        """The replay asks for events of this type and time, as far as is known."""
        request = self._requests.get(replay)
        return request is None or (
            event.record.timestamp >= request.since * 1000
            and (request.event_type is None or matches(request.event_type, event.type))
        )

    def is_ordered(self, replay: int) -> bool:
        """The replay keeps the order of each record key."""
        request = self._requests.get(replay)
        return request is not None and request.ordered

    def rests_until(self, replay: int, now: float) -> float:
        """When the replay may send its next delivery: `now`, or later. One that has ended rests until it is resumed."""
        pace = self._paces.get(replay)
        ready = now if pace is None else pace.ready_at(now)
        return now if pace is not None and ready <= now else max(ready, now + REST)

    def took(self, replay: int, now: float) -> None:
        """The replay sends a delivery."""
        if (pace := self._paces.get(replay)) is not None:
            pace.take(now)
