"""Where cursors meet the live stream: below that offset they owe, from it on the live stream does."""

from collections.abc import Callable, Collection, Iterable

from consumer.delivery.backlog import Backlog
from consumer.delivery.cursors import Cursor
from consumer.events.event import TopicPartition
from consumer.ledger.rows import DueKey
from consumer.worker.saver import Saver


class Meeting:
    """Ends cursors on the loop, between two polls of the group's consumer, so that the live stream does not move."""

    def __init__(
        self,
        backlog: Backlog,
        saver: Saver,
        live_at: Callable[[TopicPartition], int | None],
        waits_since: Callable[[], float | None],
        subscription_cache: float,
    ) -> None:
        """`live_at`: the first offset of a partition that the live stream has not yet fanned out.

        `waits_since`: when the first event arrived that waits for its subscriptions; None if none does.
        `subscription_cache`: seconds until the live stream knows a new subscription.
        """
        self._backlog = backlog
        self._saver = saver
        self._waits_since = waits_since
        self._subscription_cache = subscription_cache
        self._from: dict[Cursor, float] = {}  # cursors of new subscriptions, and when the live stream knows these
        self.live_at = live_at

    def forget(self, partitions: Collection[TopicPartition]) -> None:
        """Forget partitions that have left."""
        self._from = {each: at for each, at in self._from.items() if each.due_key[:2] not in partitions}

    def dropped(self, cursor: Cursor) -> None:
        """A finished cursor was forgotten."""
        self._from.pop(cursor, None)

    def meet(self, cursors: Iterable[Cursor], live: int, now: float) -> None:
        """End the cursors that have read all that the live stream has fanned out, the offsets below `live`.

        Kafka must have shown that the log reaches so far.
        """
        for cursor in cursors:
            has_all = cursor.read_to >= max(live, cursor.may_end_at) and not cursor.held
            if cursor.end is None and has_all and self._may_meet(cursor, now):
                self._end(cursor, cursor.read_to)

    def end_at_live(self, due_key: DueKey) -> None:
        """A disabled subscription wants no events: it is owed those from before, as its stored deliveries are."""
        live = self.live_at(due_key[:2])
        for cursor in self._backlog.here(due_key):
            if cursor.end is None and cursor.id is not None and live is not None:
                self._end(cursor, max(cursor.may_end_at, live))

    def _may_meet(self, cursor: Cursor, now: float) -> bool:
        """The live stream knows the cursor's subscription, even one that has just begun.

        An event that waits is matched by what was looked up before it arrived.
        """
        if not cursor.is_start:
            return True
        since = self._waits_since()
        return (now if since is None else since) >= self._from.setdefault(cursor, now + self._subscription_cache)

    def _end(self, cursor: Cursor, offset: int) -> None:
        cursor.meet(offset)
        self._saver.moved([cursor])
        self._backlog.save(cursor)
