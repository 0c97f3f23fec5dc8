"""When offsets are committed: often enough that a crash repeats few deliveries, seldom enough to cost little."""

from collections.abc import Callable

from consumer.intake.source import Source
from consumer.loop.part import Part

COMMIT_EVERY = 0.25  # seconds
COMMIT_RECORDS, COMMIT_REST = 256, 0.01  # settled records that cause an earlier commit; seconds between two at least


def is_commit_due(since: float, moved: Callable[[], int]) -> bool:
    """Whether to commit, `since` seconds after the last commit. `moved` counts the records settled since then."""
    return since >= COMMIT_EVERY or (since >= COMMIT_REST and moved() >= COMMIT_RECORDS)


class Committer(Part):
    """Commits settled offsets.

    Offsets settled before `until` (monotonic seconds) are known to be committed; None means all settled offsets.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._at = -COMMIT_EVERY
        self.until: float | None = None

    def poll(self, now: float) -> None:
        """Commit if a commit is due."""
        if is_commit_due(now - self._at, lambda: self._source.moved):
            self._at = now
            self.until = self._source.commit()
