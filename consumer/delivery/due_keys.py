"""Of which partitions and subscriptions rows are known to wait in the database, and when the first of them is due."""

from collections.abc import Collection, Iterable

from consumer.events.event import TopicPartition
from consumer.ledger.rows import DueKey


class DueKeys(dict[DueKey, float]):
    """By key, when its first row is due: unix seconds, or earlier than it is."""

    @property
    def next_at(self) -> float | None:
        """When the first of all rows is due; None if none waits. Safe to call from another thread."""
        return min(list(self.values()), default=None)

    def note(self, due_key: DueKey, due_at: float) -> None:
        """A row of this key is due then."""
        self[due_key] = min(due_at, self.get(due_key, due_at))

    def postpone(self, due_keys: Iterable[DueKey], until: float) -> None:
        """Look at these no earlier, whatever was noted of them."""
        self.update(dict.fromkeys(due_keys, until))

    def forget(self, partitions: Collection[TopicPartition]) -> None:
        """Partitions have left."""
        for due_key in [each for each in self if each[:2] in partitions]:
            del self[due_key]
