"""Saves the positions of cursors once a second, and forgets the cursors that have finished."""

from collections.abc import Callable, Collection, Iterable, Mapping
from math import inf

from consumer.delivery.backlog import Backlog
from consumer.delivery.cursors import Cursor
from consumer.events.event import TopicPartition
from consumer.ledger.rows import DueKey

SAVE_EVERY = 1.0  # seconds between two saves of positions
AT_ONCE = 256  # rows of cursors that do not move, of one save: others wait behind them


class Saver:
    """Knows the cursors whose positions or ends may not be stored."""

    def __init__(
        self,
        backlog: Backlog,
        settled_to: Callable[[TopicPartition], int | None],
        retentions: Mapping[str, float],
        finish_replays: Callable[[Collection[int]], None],
        finished: Callable[[DueKey], None],
        dropped: Callable[[Cursor], None],
    ) -> None:
        """`settled_to`: the first offset of a partition that the live stream has not settled.

        `retentions` as for the backlog. `finish_replays` notes that these replays have perhaps ended. `finished` hears
        of the due keys of cursors that owe nothing more, and `dropped` of cursors that were forgotten.
        """
        self._backlog = backlog
        self._settled_to = settled_to
        self._retentions, self._noted = retentions, dict[str, float]()
        self._finish_replays = finish_replays
        self._finished, self._dropped = finished, dropped
        self._moved: dict[Cursor, None] = {}
        self._over: dict[Cursor, None] = {}  # finished ones, whose offsets a restart might still read
        self._unnoted: list[Cursor] = []  # cursors whose rows do not say yet when their next record expires
        self._saved = -inf

    def moved(self, cursors: Iterable[Cursor]) -> None:
        """Positions of these may have changed: the next save looks at them."""
        self._moved |= dict.fromkeys(cursors)

    def finished(self, cursors: Iterable[Cursor]) -> None:
        """These owe nothing more, as the database knows."""
        self._over |= dict.fromkeys(cursors)

    def give_up(self, partitions: Collection[TopicPartition], dirty: Iterable[Cursor]) -> bool:
        """Store the positions of partitions that are given up, and of the `dirty` ones there. False: all are stored."""
        ours = [each for each in {**dict.fromkeys(dirty), **self._moved} if each.due_key[:2] in partitions]
        for cursor in ours:
            self._backlog.save(cursor)
        return any(cursor.moved and cursor.id is not None and not cursor.astray for cursor in ours)

    def forget(self, partitions: Collection[TopicPartition]) -> None:
        """Forget partitions that have left."""
        self._unnoted = [each for each in self._unnoted if each.due_key[:2] not in partitions]
        for several in (self._moved, self._over):
            for cursor in [each for each in several if each.due_key[:2] in partitions]:
                del several[cursor]

    def save(self, reading: Iterable[Cursor], now: float) -> bool:
        """Save all positions, and those of cursors that are `reading`, if it is time: whether it was."""
        if now - self._saved < SAVE_EVERY:
            return False
        self._saved = now
        moved, self._moved = {**self._moved, **dict.fromkeys(reading)}, {}
        for cursor in moved:
            self._backlog.save(cursor)
            if cursor.astray or cursor.gone:  # its row is read again as another object
                continue
            if cursor.moved or cursor.open:
                self._moved[cursor] = None
            elif cursor.finished:
                self._over[cursor] = None
                self._finished(cursor.due_key)
        self._drop_finished()
        self._note_retentions()
        return True

    def _drop_finished(self) -> None:
        if over := {cursor.replay for cursor in self._over if cursor.replay}:
            self._finish_replays(over)
        for cursor in list(self._over):
            settled = self._settled_to(cursor.due_key[:2])
            if cursor.replay or (settled is not None and cursor.end is not None and cursor.end <= settled):
                del self._over[cursor]
                self._backlog.drop(cursor)
                self._dropped(cursor)

    def _note_retentions(self) -> None:
        """Each cursor's row says when its next record expires."""
        if self._noted != self._retentions:
            self._noted = dict(self._retentions)
            self._unnoted = list(self._backlog)
        for cursor in self._unnoted[:AT_ONCE]:
            self._backlog.save(cursor)
        del self._unnoted[:AT_ONCE]
