"""Observes a run from outside: committed records must be settled, and work must go on.

It reads a commit first, then the requests that receivers accepted, the rows of the database, and the dead-letter
topic. A record that is in none of them was not settled when the offset passed it.
"""

import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from math import inf
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from consumer.intake.offsets import decode
from tests.chaos.book import Book, Event, Rule
from tests.chaos.commit_log import Commit, CommitLog
from tests.end_to_end.deployed_database import DatabaseAway
from tests.end_to_end.service_rig import Deployment, Worker
from tests.kafka_kit import QUIET, headers_of, unique

EVERY = 0.2  # seconds
LOOK = 2.0  # seconds that count as one look at most: one that waits for a database may see two outages, and no end
WITHOUT_PROGRESS = 30.0  # seconds
# A circuit breaker stays open for a minute at most, and up to a fifth longer at random.
LEFT_ALONE = 72.0  # seconds
ROWS_EVERY = 1.0  # seconds between two checks of all rows
WORKERS_EVERY = 2.0  # seconds between two checks of all workers
LAST_LOOKS = 20


class Watch:
    """A thread from `start` to `stop`.

    `workers` are those that should work now. `excused` says whether no progress is possible: a common dependency is
    down, or the group waits for the session of a dead member to end.
    """

    def __init__(
        self,
        deployment: Deployment,
        dead_letter_topic: str,
        book: Book,
        workers: Callable[[], Sequence[Worker]],
        excused: Callable[[], bool],
        without_progress: float = WITHOUT_PROGRESS,
    ) -> None:
        self._deployment = deployment
        self._book = book
        self._workers = workers
        self._excused = excused
        self.limit = without_progress
        self.commits = 0
        self._commit_log = CommitLog(deployment.servers, deployment.group, deployment.topic)
        self._letters = Letters(deployment.servers, dead_letter_topic)
        self._marks: dict[int, int] = {}
        self._unjudged: set[tuple[int, int]] = set()
        self._idle: dict[int, float] = {}  # seconds, by partition, in which it could have moved and did not
        self._judged_at = time.time()
        self._attempts: dict[int, int] = {}
        self._last_row = 0
        self._cursors: list[tuple[int, int, int, int, int, float]] | None = []
        self._passed_to: dict[int, int] = {}  # by cursor: the events of its subscription are judged up to there
        self._rows_at = self._workers_at = self._rows_excused_at = 0.0
        self._unready: dict[Worker, float] = {}  # seconds in which it could have become ready and did not
        self._enough = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Check once more and end. Raises the watch's own error, if any."""
        self._enough.set()
        self._thread.join()
        self._commit_log.close()
        self._letters.close()
        self.check()

    def check(self) -> None:
        """Raises the watch's own error, if any."""
        if self._failure is not None:
            raise self._failure

    def committed(self) -> bool:
        """Every record that Kafka has acknowledged lies below its partition's committed offset."""
        return all(offset < self._marks.get(partition, 0) for partition, offset in list(self._book.at))

    def _run(self) -> None:
        try:
            while not self._enough.wait(EVERY):
                self._look()
            for _ in range(LAST_LOOKS):
                self._look()
                if not self._unjudged:
                    break
            else:
                self._book.violated(Rule.EARLY, f"{len(self._unjudged)} that were committed are not known")
        except Exception as error:  # noqa: BLE001 (raised again by `stop`)
            self._failure = error

    def _look(self) -> None:
        for commit in self._commit_log.read(0.05):
            self._take(commit)
        self._note_cursors()
        self._note_rows()
        self._book.read(self._deployment.receiver.requests)
        if self._unjudged:
            self._judge()
        self._judge_cursors()
        now = time.time()
        self._judge_progress(now)
        if now - self._rows_at >= ROWS_EVERY:
            self._rows_at = now
            self._judge_rows(now)
        if now - self._workers_at >= WORKERS_EVERY:
            self._judge_workers(min(now - self._workers_at, 2 * WORKERS_EVERY))
            self._workers_at = now

    # Offsets.

    def _take(self, commit: Commit) -> None:
        self.commits += 1
        partition, offset, metadata = commit
        mark = self._marks.get(partition, 0)
        if offset is None or offset < mark:
            self._book.violated(Rule.BACKWARDS, f"partition {partition}: {mark} was committed, then {offset}")
            return
        self._marks[partition] = offset
        runs = [(mark, offset), *decode(offset, metadata)]
        committed_at = self._book.committed_at
        fresh = {(partition, each) for start, stop in runs for each in range(start, stop)} - committed_at.keys()
        if fresh:
            self._idle[partition] = 0.0
            committed_at.update(dict.fromkeys(fresh, time.time()))
        self._unjudged |= fresh

    def _judge(self) -> None:
        """Judge committed records; later, if they cannot be checked now or Kafka's acknowledgement is not here yet."""
        known = [(place, event) for place in self._unjudged if (event := self._book.at.get(place)) is not None]
        letters = self._letters.read() if any(not event.owed for _, event in known) else None
        open_ = {place: missing for place, event in known if (missing := self._not_accepted(event))}
        stored = self._stored(min(offset for _, offset in open_)) if open_ else set()
        for place, event in known:
            if not event.owed:
                if letters is None:
                    continue
                if place not in letters or letters[place] != event.letter:
                    self._passed(place, event, "it is not on the dead-letter topic, byte for byte")
            elif place in open_:
                if stored is None or self._cursors is None:
                    continue
                for subscription, path in open_[place].items():
                    if (*place, subscription) not in stored and not self._is_owed(place, subscription):
                        self._passed(place, event, f"neither accepted by {path} nor stored, nor owed by a cursor")
            self._unjudged.discard(place)

    def _is_owed(self, place: tuple[int, int], subscription: int) -> bool:
        """By a cursor, whose position is not behind it."""
        return any(
            cursor[1:3] == (subscription, place[0]) and cursor[4] <= place[1] < cursor[5]
            for cursor in self._cursors or ()
        )

    def _judge_cursors(self) -> None:
        """The position of a cursor, too, passes only what is settled."""
        passed_to: dict[int, int] = {}
        open_: list[tuple[tuple[int, int, int], Event]] = []
        for number, subscription, partition, first, position, _ in self._cursors or ():
            for offset in range(self._passed_to.get(number, first), position):
                event = self._book.at.get((partition, offset))
                if event is None:
                    break  # Kafka's acknowledgement is not here yet
                passed_to[number] = offset + 1
                if subscription in self._not_accepted(event):
                    open_.append(((partition, offset, subscription), event))
        stored = self._stored(min(place[1] for place, _ in open_)) if open_ else set()
        if stored is None:
            return
        for place, event in open_:
            if place not in stored:
                self._passed(place[:2], event, "passed by a cursor, and neither accepted nor stored")
        self._passed_to |= passed_to

    def _not_accepted(self, event: Event) -> dict[int, str]:
        return {
            each.id: each.path
            for each in self._book.owed_by(event)
            if not self._book.accepted(each.path, event.number)
            and not (each.optional and self._book.excused(each, event))
        }

    def _passed(self, place: tuple[int, int], event: Event, why: str) -> None:
        self._book.violated(Rule.EARLY, f"event {event.number}, offset {place[1]} of partition {place[0]}: {why}")

    def _stored(self, from_offset: int) -> set[tuple[int, int, int]] | None:
        """AssignedPartition, offset and subscription of rows; None while the database cannot be read."""
        rows = self._query(
            "SELECT partition_no, record_offset, subscription_id FROM webhook_deliveries"
            " WHERE group_id = ? AND topic = ? AND record_offset >= ? AND replay = 0",
            self._deployment.group,
            self._deployment.topic,
            from_offset,
        )
        return None if rows is None else set(rows)

    def _note_cursors(self) -> None:
        """Read the covering cursors; one that is gone had settled everything by then. None: the database is away."""
        rows = self._query(
            "SELECT id, subscription_id, partition_no, first_offset, next_offset, end_offset FROM webhook_cursors"
            " WHERE group_id = ? AND topic = ? AND replay = 0",
            self._deployment.group,
            self._deployment.topic,
        )
        self._cursors = None if rows is None else [(*row[:5], inf if row[5] is None else row[5]) for row in rows]
        for number, subscription, partition, first, _, end in self._cursors or ():
            self._book.cursors[number] = subscription, partition, first, end

    def _note_rows(self) -> None:
        """Record the rows stored since the last check. The start of a transaction does not show when it ended."""
        rows = self._query(
            "SELECT id, partition_no, record_offset, subscription_id, replay FROM webhook_deliveries WHERE id > ?",
            self._last_row,
        )
        now = time.time()
        for row, partition, offset, subscription, replay in rows or ():
            self._last_row = max(row, self._last_row)
            if not replay:
                self._book.stored_at[partition, offset, subscription] = now

    # Progress.

    def _judge_progress(self, now: float) -> None:
        passed, self._judged_at = min(now - self._judged_at, LOOK), now
        if self._excused():
            return
        waiting = {place[0] for place in list(self._book.at) if place not in self._book.committed_at}
        for partition in {place[0] for place in list(self._book.at)}:
            idle = self._idle.get(partition, 0.0) + passed if partition in waiting else 0.0
            if idle > self.limit:
                idle = 0.0
                self._book.violated(Rule.STUCK, f"partition {partition} has not moved for {self.limit} s")
            self._idle[partition] = idle

    def _judge_rows(self, now: float) -> None:
        rows = self._query(
            "SELECT id, subscription_id, attempt, status, next_attempt_at FROM webhook_deliveries"
            " WHERE status IN ('parked', 'exhausted')"
        )
        if rows is None or self._excused():
            self._rows_excused_at = now
            return
        paths = {each.id: each.path for each in self._book.subscriptions}
        for row, subscription, attempt, status, due in rows:
            if attempt < self._attempts.get(row, 0):
                self._book.violated(Rule.ATTEMPTS, f"row {row} went from {self._attempts[row]} attempts to {attempt}")
            self._attempts[row] = attempt
            allowed = self._book.attempts_of(paths[subscription])
            if attempt > allowed:
                self._book.violated(Rule.ATTEMPTS, f"row {row} has {attempt} attempts, allowed {allowed}")
            late = now - max(_seconds(due) or now, self._rows_excused_at)
            if status == "parked" and late > self.limit + LEFT_ALONE:
                self._book.violated(Rule.STUCK, f"row {row} has been due for {late:.0f} s")

    def _judge_workers(self, passed: float) -> None:
        """Each worker is ready from time to time, even without a partition, since it is a healthy member."""
        for worker in self._workers():
            if worker.ready() or self._excused():
                self._unready[worker] = 0.0
                continue
            self._unready[worker] = self._unready.get(worker, 0.0) + passed
            if self._unready[worker] > self.limit and worker in self._workers():
                self._unready[worker] = 0.0
                reasons = worker.unready_because() or worker.log[-2000:]
                self._book.violated(Rule.STUCK, f"a worker was not ready for {self.limit} s: {reasons}")

    def _query(self, statement: str, *values: object) -> list[Any] | None:
        try:
            return self._deployment.sql(statement, *values)
        except DatabaseAway:
            return None


def _seconds(stored: str | datetime | None) -> float | None:
    """A time from SQLite or Oracle, in UTC."""
    if stored is None:
        return None
    time = datetime.fromisoformat(stored) if isinstance(stored, str) else stored
    return time.replace(tzinfo=UTC).timestamp()


class Letters:
    """The records of the dead-letter topic."""

    def __init__(self, servers: str, topic: str) -> None:
        self._place = TopicPartition(topic, 0, 0)
        self._consumer = Consumer({"bootstrap.servers": servers, "group.id": unique("watch"), **QUIET})
        self._consumer.assign([self._place])
        self._read = 0
        self._found: dict[tuple[int, int], bytes | None] = {}

    def read(self) -> dict[tuple[int, int], bytes | None] | None:
        """All its records now, by their original partition and offset; None while that cannot be known."""
        try:
            _, end = self._consumer.get_watermark_offsets(self._place, 2)
        except KafkaException:
            return None
        give_up = time.monotonic() + 2
        while self._read < end:
            for message in self._consumer.consume(100, 0.1):
                if message.error() is None:
                    headers = headers_of(message)
                    place = int(headers["dead-letter-partition"]), int(headers["dead-letter-offset"])
                    self._found[place] = message.value()
                    self._read = (message.offset() or 0) + 1
            if time.monotonic() > give_up:
                return None
        return self._found

    def close(self) -> None:
        """Stop reading."""
        self._consumer.close()
