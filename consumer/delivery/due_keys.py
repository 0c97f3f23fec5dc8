"""The partitions and subscriptions with rows that wait in the database, and when the first row of each is due."""

from collections.abc import Collection, Iterable

from consumer.events.event import TopicPartition
from consumer.ledger.rows import DueKey


class DueKeys(dict[DueKey, float]):
    """By key, when its first row is due (unix seconds). The noted time may be too early."""

    @property
    def next_at(self) -> float | None:
        """When the first of all rows is due; None if none waits. Safe to call from another thread."""
        return min(list(self.values()), default=None)

    def note(self, due_key: DueKey, due_at: float) -> None:
        """Note that a row of this key is due at `due_at`."""
        self[due_key] = min(due_at, self.get(due_key, due_at))

    def postpone(self, due_keys: Iterable[DueKey], until: float) -> None:
        """Replace the noted times of these keys by `until`."""
        self.update(dict.fromkeys(due_keys, until))

    def forget(self, partitions: Collection[TopicPartition]) -> None:
        """Forget the keys of partitions that have left."""
        for due_key in [each for each in self if each[:2] in partitions]:
            del self[due_key]
