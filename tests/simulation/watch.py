"""Checks the promises of a simulated deployment at each commit, each request, and each change of a row."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import pytest
from sqlalchemy import text

from consumer.database.engine import reading
from consumer.events.event import TopicPartition
from consumer.intake.record import AssignedPartition
from consumer.sending.transfer import Transfer
from tests.simulation.deployment import (
    BATCHED,
    IN_ORDER,
    KEYS,
    SCHEDULE,
    VALUES,
    Deployment,
    Row,
    Sent,
    settled_by,
    webhook_id,
)
from tests.simulation.transport import carried
from tests.simulation.world import TOPIC

ENDED = {"delivered", "exhausted"}
IN_MEMORY = 2  # of deliveries that are not stored: the first one at once, and one a second later
_JOURNAL = (
    """CREATE TABLE journal (number INTEGER PRIMARY KEY, subscription_id, partition_no, record_offset, was, status,
       before, attempt, schedule_start)""",
    """CREATE TRIGGER stored AFTER INSERT ON webhook_deliveries WHEN NEW.replay = 0
       BEGIN INSERT INTO journal VALUES (NULL, NEW.subscription_id, NEW.partition_no, NEW.record_offset,
       NULL, NEW.status, NULL, NEW.attempt, NEW.schedule_start); END""",
    """CREATE TRIGGER changed AFTER UPDATE ON webhook_deliveries WHEN NEW.replay = 0
       BEGIN INSERT INTO journal VALUES (NULL, NEW.subscription_id, NEW.partition_no, NEW.record_offset,
       OLD.status, NEW.status, OLD.attempt, NEW.attempt, NEW.schedule_start); END""",
)


class Change(NamedTuple):
    """A committed change of a row. `was` and `before` are None if it was inserted."""

    delivery: Sent
    was: str | None
    status: str
    before: int | None
    attempt: int
    schedule_start: int


class Watch:
    """`broken`: a rule was violated, and the worker was stopped at that point, so its later state is no evidence."""

    def __init__(self, deployment: Deployment) -> None:
        self.broken = False
        self._deployment = deployment
        self._world = deployment.world
        self._world.on_commit = self._committed
        self._world.on_send = self._sending
        self._uncounted = Counter[Sent]()  # attempts that no row will count, since they were forgotten
        self._exhausted: set[tuple[Sent, int]] = set()  # with the number of attempts
        self._redelivered: dict[Sent, int] = {}  # with the number of requests before the redelivery
        self._replayed: defaultdict[Sent, list[int]] = defaultdict(list)  # requests before each replay
        self._read = 0  # position in the journal
        self._haunted: set[Sent] = set()  # changed by a process that was wrongly taken for dead
        self._begun: dict[Sent, tuple[AssignedPartition, int]] = {}  # the assignment, and how often it was taken before
        # Requests that a batch keeps open for others after a delivery's partition has left: not judged for this one.
        self._astray: defaultdict[Sent, list[Transfer]] = defaultdict(list)
        self._last: dict[tuple[AssignedPartition, str, str], int] = {}  # last offset sent, by key and URL
        with deployment.engine.begin() as connection:
            for statement in _JOURNAL:
                connection.execute(text(statement))

    def demand(self, rule: object, otherwise: str) -> None:
        """Fail unless the rule holds."""
        if not rule:
            self.broken = True
            pytest.fail(otherwise)

    # Changes made to the deployment, and their effect on its promises.

    def process_ended(self) -> None:
        """Attempts that the process had not written down are no longer counted."""
        rows = self._deployment.rows()
        for delivery, sent in Counter(self._world.sent).items():
            self._uncounted[delivery] = sent - (rows[delivery].attempt if delivery in rows else 0)

    def requests_stay_open(self, number: int) -> None:
        """A partition has left, and batches with its deliveries may stay open for others."""
        for transfer in self._world.transport.transfers:
            for delivery in carried(transfer.request):
                if self._deployment.offsets[delivery[0]][0] == (TOPIC, number):
                    self._astray[delivery].append(transfer)

    def partition_left(self, number: int, *, cut_off: bool) -> None:
        """A partition has left: its unstored attempts no longer count, nor cancelled requests of its stored rows."""
        rows = self._deployment.rows()
        for delivery, sent in Counter(self._world.sent).items():
            if self._deployment.offsets[delivery[0]][0] == (TOPIC, number):
                if delivery not in rows:
                    self._uncounted[delivery] = sent
                elif cut_off:
                    self._uncounted[delivery] += self._world.transport.under_way.count(delivery)

    def redelivered(self) -> None:
        """Exhausted deliveries will be attempted again, and the order of their keys does not apply to them."""
        for change in self._changes():
            if change.was == "exhausted":
                self._redelivered[change.delivery] = self._world.sent.count(change.delivery)

    def replayed(self, deliveries: Collection[Sent]) -> None:
        """These deliveries come again, whatever has become of them. Their requests cannot be told from a replay's."""
        for delivery in deliveries:
            self._replayed[delivery].append(self._world.sent.count(delivery))

    def written_late(self) -> None:
        """A process that was wrongly taken for dead has changed rows, unknown to the present worker."""
        self._haunted.update(change.delivery for change in self.check_rows())

    # Promises.

    def _committed(self, place: TopicPartition, mark: int, metadata: str) -> None:
        """Records settled by a commit are delivered, stored, dead-lettered or unwanted, and they stay settled."""
        self._deployment.look_at_subscriptions()
        settled = settled_by(mark, metadata)
        owed = self._deployment.owed(place, settled)
        self.demand(not owed, f"{place} committed at {mark} {metadata}: owed are {owed}")
        before = settled_by(*self._world.committed.get(place, (0, "")))
        again = [offset for offset in range(len(self._world.log[place])) if before(offset) and not settled(offset)]
        self.demand(not again, f"{place} committed at {mark} {metadata}: {again} were settled")

    def _sending(self, identity: str, url: str) -> None:
        """Each attempt is made by the owner, after all earlier ones were counted, so that the schedule bounds them.

        An ended delivery is not sent again, nor is a taken one while its partition stays.
        """
        delivery = identity, url
        place, offset = self._deployment.offsets[identity]
        self.demand(self._deployment.wants(url, offset), f"{delivery} is sent, and {url} does not want {offset}")
        partition = self._world.source.partitions.get(place)
        rows = self._deployment.rows()
        row = rows.get(delivery)
        if delivery not in self._haunted and delivery not in self._replayed:
            made = self._world.sent.count(delivery) - self._uncounted[delivery]
            counted = IN_MEMORY - 1 if row is None else row.attempt
            self.demand(made <= counted, f"{delivery} is sent after {made} attempts: {row}")
            self.demand(row is None or row.status not in ENDED, f"{delivery} is sent again: {row}")
        if partition is None:
            self.demand(rule=False, otherwise=f"{delivery} is sent, and {place} is not assigned")
            return
        taken = self._taken(delivery)
        if self._begun.get(delivery, (None, 0))[0] is not partition:
            self._begun[delivery] = partition, taken
        elif not any(delivery in each for each in (self._haunted, self._redelivered, self._replayed)):
            self.demand(taken == self._begun[delivery][1], f"{delivery} is sent again, and has been taken: {row}")
        ordered = url in IN_ORDER and self._deployment.records[place, offset] in KEYS
        if ordered and delivery not in self._replayed:
            self._check_order(partition, offset, delivery, rows)

    def _taken(self, delivery: Sent) -> int:
        """How often it was taken, without requests whose result the worker could not know."""
        return self._world.taken.count(delivery) - sum(
            transfer in self._world.answered for transfer in self._astray[delivery]
        )

    def twice(self) -> list[Sent]:
        """Deliveries taken twice, although no partition left with its request open."""
        replays = {each: len(times) for each, times in self._replayed.items()}
        return [each for each in self._deployment.duplicates() if self._taken(each) > 1 + replays.get(each, 0)]

    def _check_order(self, partition: AssignedPartition, offset: int, delivery: Sent, rows: dict[Sent, Row]) -> None:
        """A key has one open request, and a first attempt follows the end of all earlier events of the key.

        Each of these was taken or given up, or was never owed and then does not come later.
        """
        place, url = (partition.topic, partition.number), delivery[1]
        kind = self._deployment.records[place, offset]
        busy, taken = self._world.transport.under_way, set(self._world.taken)
        first = delivery not in self._redelivered and delivery not in taken
        for number in range(len(self._world.log[place])):
            if self._deployment.records[place, number] != kind or not self._deployment.wants(url, number):
                continue
            other = webhook_id(place, number, VALUES[kind]), url
            self.demand(
                other not in busy or other in self._replayed, f"{place} {offset} is sent while {number} is open"
            )
            if number < offset and first:
                row = rows.get(other)
                given_up = other in self._redelivered or (row is not None and row.status == "exhausted")
                given_up = given_up or other in self._deployment.refused()
                never_owed = other in self._deployment.excused and (row is None or other in self._haunted)
                over = other in taken or given_up or never_owed
                self.demand(over, f"{place} {offset} is sent before {number}, which is {row}")
        if first and delivery not in self._haunted:
            last = self._last.get((partition, kind, url), -1)
            self.demand(offset >= last, f"{place} {offset} is sent after {last}")
            self._last[partition, kind, url] = offset

    def check_rows(self) -> list[Change]:
        """Check the rules of stored rows. Returns the changes since the last call.

        Attempts are counted one by one and bounded by the schedule, and ended rows stay so. Of a key's open rows
        the first is not blocked, and no other is parked.
        """
        changes = list(self._changes())
        for change in changes:
            self.demand(change.was not in ENDED, f"it had ended: {change}")
        open_rows = defaultdict[tuple[str, TopicPartition, str], list[str]](list)
        for (_, url), row in self._deployment.rows().items():
            if row.key is not None and row.status not in ENDED:
                open_rows[url, row.place, row.key].append(row.status)
        for ordering_key, (first, *others) in open_rows.items():
            self.demand(first != "blocked" and "parked" not in others, f"{ordering_key}: {first}, {others}")
        return changes

    def check_the_end(self) -> None:
        """Each delivery is taken, or given up with a row. Its exhaustion was announced under one id."""
        for place, log in self._world.log.items():
            owed = self._deployment.owed(place, lambda _: True)
            self.demand(not owed, f"of {len(log)} records in {place} are owed: {owed}")
        self.check_rows()
        self.demand(set(self._deployment.statuses()) <= ENDED, f"not ended: {self._deployment.rows()}")
        for delivery, before in self._redelivered.items():
            self.demand(self._world.sent.count(delivery) > before, f"{delivery} was not redelivered")
        for delivery, times in self._replayed.items():
            self.demand(self._world.sent.count(delivery) >= max(times) + 1, f"{delivery} was not replayed")
        ids = defaultdict[tuple[Sent, int], set[str]](set)
        for told in self._world.announced:
            if told.type == "delivery.exhausted":
                data: dict[str, Any] = dict(told.data)
                if (delivery := (data["webhook_id"], data["url"])) not in self._replayed:
                    ids[delivery, data["attempts"]].add(told.event_id)
        exhausted = {each for each in self._exhausted if each[0] not in self._replayed}
        self.demand(ids.keys() == exhausted, f"exhausted are {exhausted}; told was {ids}")
        self.demand(all(len(each) == 1 for each in ids.values()), f"told under several ids: {ids}")

    def _changes(self) -> Iterator[Change]:
        with reading(self._deployment.engine) as connection:
            statement = text("SELECT * FROM journal WHERE number > :read ORDER BY number")
            rows = connection.execute(statement, {"read": self._read}).all()
        for self._read, subscription, number, offset, *rest in rows:
            kind = self._deployment.records[(TOPIC, number), offset]
            identity = webhook_id((TOPIC, number), offset, VALUES[kind])
            change = Change((identity, self._deployment.subscriptions[subscription]), *rest)
            counted = change.before is None or change.attempt - change.before in (0, 1)
            self.demand(counted, f"attempts are not counted one by one: {change}")
            # A delivery that may have failed because of another in its batch is tried once more, alone.
            most = 1 + len(SCHEDULE) + (change.delivery[1] in BATCHED)
            few = change.attempt - change.schedule_start <= most
            probed = change.delivery[1] in self._deployment.probed  # no probe exhausts a delivery
            self.demand(few or probed, f"too many attempts: {change}")
            if change.status == "exhausted" and change.was != "exhausted":
                self._exhausted.add((change.delivery, change.attempt))
            yield change
