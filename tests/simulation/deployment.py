"""A simulated world with subscriptions: what happens to it, and what it owes."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from functools import cache
from typing import Any, NamedTuple

import pytest
from requests import Response
from requests.exceptions import InvalidHeader
from sqlalchemy import Engine, text

from consumer.database.engine import reading
from consumer.errors import EgressRefused
from consumer.events.event import TopicPartition
from consumer.intake.decode import decode
from consumer.intake.offsets import OffsetTracker
from consumer.intake.offsets import decode as settled_above
from consumer.intake.record import Partition, Record
from consumer.ledger import admin, marks
from consumer.ledger.marks import Subject
from consumer.matching.budget import MOST_OF_ONE
from consumer.subscriptions import repository
from models import Wish
from models.mark import ALL_SUBSCRIPTIONS
from tests.simulation.database import LOCKED
from tests.simulation.transport import Result
from tests.simulation.world import BORN, TOPIC, World

KEYED = b'{"type": "keyed"}'
VALUES = {
    "a": b'{"type": "a"}',
    "b": b'{"type": "b"}',
    "c": b'{"type": "c"}',
    "x": KEYED,
    "y": KEYED,
    "keyless": KEYED,
    "nobody": b'{"type": "nobody"}',
    "bad": b"no JSON",
}
KEYS = {"a": b"x", "b": b"x", "x": b"x", "y": b"y"}  # of those subscribed to, "keyed" alone asks for order
ORDERED, ORDERED_BATCHES = "https://two.example/keyed", "https://three.example/keyed"
BATCHES = "https://one.example/c"
IN_ORDER = {ORDERED, ORDERED_BATCHES}
BATCHED = {BATCHES: 3, ORDERED_BATCHES: 2}  # events of a request
BATCH_WAIT = 200  # milliseconds: two turns
URLS = {
    "a": ("https://one.example/", "https://two.example/"),
    "b": ("https://one.example/b",),
    "c": (BATCHES,),
    "keyed": ("https://one.example/keyed", ORDERED, ORDERED_BATCHES),
}
ALL_URLS = tuple(url for urls in URLS.values() for url in urls)
SCHEDULE = (1.0, 30.0, 30.0)
QUIET = 4  # turns, after which nothing happens without time
STATUSES = {"taken": 200, "fails": 500, "disputed": 422, "gone": 410}
AWAY, BACK = "ALTER TABLE {0} RENAME TO away", "ALTER TABLE away RENAME TO {0}"
REFUSE = "CREATE TRIGGER refusal BEFORE {0} ON webhook_deliveries {1} BEGIN SELECT RAISE(ABORT, 'refused'); END"
ACCEPT = "DROP TRIGGER refusal"
FAULTS = {  # of the database: how each begins, how it ends
    "no deliveries": (AWAY.format("webhook_deliveries"), BACK.format("webhook_deliveries")),
    "no payloads": (AWAY.format("webhook_payloads"), BACK.format("webhook_payloads")),
    "no operations": (AWAY.format("webhook_operations"), BACK.format("webhook_operations")),
    "takes no rows": (REFUSE.format("INSERT", ""), ACCEPT),
    "takes half of the rows": (REFUSE.format("INSERT", "WHEN NEW.record_offset % 2"), ACCEPT),
    "takes no results": (REFUSE.format("UPDATE", ""), ACCEPT),
    "full": ("SELECT 1", "SELECT 1"),  # the driver says it
}
FILTER = "event.offset % 4 != 3"
OBSTACLES = {"locked": (LOCKED, ("INSERT", "UPDATE", "DELETE")), "refused": ("refused", ("INSERT", "UPDATE"))}

Offset = tuple[TopicPartition, int]  # of a record
Sent = tuple[str, str]  # webhook id and url: a delivery, as receivers see it


class Row(NamedTuple):
    """A stored delivery."""

    place: TopicPartition
    offset: int
    key: str | None
    status: str
    attempt: int


def result(outcome: str) -> Result:
    """What a request ends with."""
    if outcome == "refused":
        return EgressRefused("a private address")
    if outcome == "hopeless":
        return InvalidHeader("a line break")
    response = Response()
    response.status_code = STATUSES[outcome]
    return response


@cache
def webhook_id(place: TopicPartition, offset: int, value: bytes) -> str:
    """The id under which receivers see a record."""
    record = Record(Partition(*place, OffsetTracker(None)), offset, int(BORN * 1000) + offset, None, value, None)
    return decode(record).webhook_id


def settled_by(mark: int, metadata: str) -> Callable[[int], bool]:
    """Tells of an offset whether this commit calls it settled."""
    above = {offset for start, stop in settled_above(mark, metadata) for offset in range(start, stop)}
    return lambda offset: offset < mark or offset in above


class Deployment:
    """`records` are all that were written, with their kinds; `excused` what may be delivered, and is not owed.

    Those to `filtered` urls have FILTER. An event is owed to a subscription that wants it, and that counts (it was
    enabled, and that for as long as look-ups are kept) from when the event was written until it is settled. What is
    stored is owed in any case.
    """

    def __init__(
        self, engine: Engine, urls: Collection[str] = ALL_URLS, filtered: Collection[str] = (), **delivery: Any
    ) -> None:
        self.engine = engine
        self.filtered = filtered
        self.subscriptions = {
            repository.add(engine, url, event_type, ordering="key" if url in IN_ORDER else "none"): url
            for event_type, its in URLS.items()
            for url in its
            if url in urls
        }
        batched = "payload_format = 'cloudevents', batch_size = :size, batch_wait_ms = :wait WHERE url = :url"
        with engine.begin() as connection:
            for url, size in BATCHED.items():
                connection.execute(
                    text(f"UPDATE webhook_subscriptions SET {batched}"),  # noqa: S608 (a constant)
                    {"size": size, "wait": BATCH_WAIT, "url": url},
                )
            for url in filtered:
                connection.execute(
                    text("UPDATE webhook_subscriptions SET event_filter = :filter WHERE url = :url"),
                    {"filter": FILTER, "url": url},
                )
        self.world = World(engine, retry_schedule=SCHEDULE, **delivery)
        self.records: dict[Offset, str] = {}
        self.offsets: dict[str, Offset] = {}  # by webhook id
        self.excused: set[Sent] = set()
        self.fault: str | None = None
        self._obstacle: Sequence[str] = ()  # names of triggers
        self._enabled_at = dict.fromkeys(urls, float("-inf"))

    def deliveries_of(self, place: TopicPartition, offset: int) -> list[Sent]:
        """Whom a record goes to, if all are enabled: those who want it."""
        kind = self.records[place, offset]
        urls = URLS.get("keyed" if VALUES[kind] == KEYED else kind, ())
        return [(webhook_id(place, offset, VALUES[kind]), url) for url in urls if self.wants(url, offset)]

    def wants(self, url: str, offset: int) -> bool:
        """Whether this url's subscription wants what is of its type, there."""
        return url in self._enabled_at and (url not in self.filtered or offset % 4 != 3)  # as FILTER

    def write(self, number: int, kind: str) -> None:
        """A record of this kind."""
        place = TOPIC, number
        offset = self.world.write(number, VALUES[kind], KEYS.get(kind))
        self.records[place, offset] = kind
        if kind != "bad":
            self.offsets[webhook_id(place, offset, VALUES[kind])] = place, offset
        counts_after = self.world.now - self.world.delivery.subscription_cache
        self.excused |= {
            each for each in self.deliveries_of(place, offset) if self._enabled_at[each[1]] >= counts_after
        }
        self.look_at_subscriptions()

    def database_fails(self, how: str | None) -> None:
        """One of FAULTS, until it fails in another way, or is well again."""
        if how == self.fault:
            return
        with self.engine.begin() as connection:
            if self.fault is not None:
                connection.execute(text(FAULTS[self.fault][1]))
            if how is not None:
                connection.execute(text(FAULTS[how][0]))
        self.fault = how
        self.world.database.full = how == "full"

    def obstruct(self, how: str | None, which: str = "") -> None:
        """The database keeps no more than some rows from being written, those for which the SQL of `which` holds.

        `how` is one of OBSTACLES; None: it takes all of them again.
        """
        message, writes = ("", ()) if how is None else OBSTACLES[how]
        table = self._table()
        with self.engine.begin() as connection:
            for name in self._obstacle:
                connection.execute(text(f"DROP TRIGGER {name}"))
            for write in writes:
                row = "OLD" if write == "DELETE" else "NEW"
                connection.execute(
                    text(
                        f"CREATE TRIGGER no_{write} BEFORE {write} ON {table} WHEN {which.format(row)}"
                        f" BEGIN SELECT RAISE(ABORT, '{message}'); END"
                    )
                )
        self._obstacle = [f"no_{write}" for write in writes]

    @property
    def is_sound(self) -> bool:
        """The database takes everything."""
        return self.fault is None and not self._obstacle

    def over_its_budget(self, url: str) -> None:
        """The filter of this url's subscription has taken too much of the processor; it is asked in a minute."""
        (number,) = (number for number, its in self.subscriptions.items() if its == url)
        while not self.world.worker.parts.budget.is_over(number):
            self.world.worker.parts.budget.charge(number, MOST_OF_ONE)

    def disable(self, url: str) -> None:
        """By SQL."""
        with self.engine.begin() as connection:
            connection.execute(text("UPDATE webhook_subscriptions SET enabled = 0 WHERE url = :url"), {"url": url})
        self.look_at_subscriptions()

    def enable_all(self) -> None:
        """By SQL, those that are disabled."""
        for url in self.look_at_subscriptions():
            self._enabled_at[url] = self.world.now
            with self.engine.begin() as connection:
                connection.execute(text("UPDATE webhook_subscriptions SET enabled = 1 WHERE url = :url"), {"url": url})

    def look_at_subscriptions(self) -> set[str]:
        """What is not settled is not owed to those that are disabled now, which are given."""
        with reading(self.engine) as connection:
            ids = connection.execute(text("SELECT id FROM webhook_subscriptions WHERE enabled = 0")).scalars().all()
        disabled = {self.subscriptions[each] for each in ids}
        if disabled:
            settled = {place: settled_by(*commit) for place, commit in self.world.committed.items()}
            for place, offset in self.records:
                if place not in settled or not settled[place](offset):
                    self.excused |= {each for each in self.deliveries_of(place, offset) if each[1] in disabled}
        return disabled

    def redeliver(self, statuses: Sequence[str]) -> None:
        """What `deliveries redeliver` does."""
        for _ in admin.redeliver(self.engine, admin.DeliveryQuery(statuses=statuses), BORN + self.world.now):
            continue

    def settle(self, place: TopicPartition, offset: int, wish: Wish) -> None:
        """What `deliveries settle` does with a record: what cannot be stored of it is not owed."""
        marks.decide(self.engine, "g", Subject(*place, offset, ALL_SUBSCRIPTIONS), wish)
        self.excused |= set(self.deliveries_of(place, offset))

    def rows(self) -> dict[Sent, Row]:
        """All that is stored."""
        statement = (
            "SELECT subscription_id, partition_no, record_offset, order_key, status, attempt "  # noqa: S608 (constants)
            f"FROM {self._table()} ORDER BY record_offset"
        )
        found = {}
        with reading(self.engine) as connection:
            for subscription, number, offset, *rest in connection.execute(text(statement)):
                place = TOPIC, number
                identity = webhook_id(place, offset, VALUES[self.records[place, offset]])
                found[identity, self.subscriptions[subscription]] = Row(place, offset, *rest)
        return found

    def _table(self) -> str:
        return "away" if self.fault == "no deliveries" else "webhook_deliveries"

    def statuses(self) -> list[str]:
        """Of all that is stored, by offset."""
        return [row.status for row in self.rows().values()]

    def owed(self, place: TopicPartition, settled: Callable[[int], bool]) -> dict[int, list[str]]:
        """By offset, of those `settled`: who has neither taken it nor has it stored; or that it is not buried."""
        done = {*self.rows(), *self.world.taken, *self.excused}
        owed = {}
        for where, offset in self.records:
            if where == place and settled(offset):
                to = [url for identity, url in self.deliveries_of(place, offset) if (identity, url) not in done]
                if self.records[place, offset] == "bad" and (place, offset) not in self.world.buried:
                    to.append("burial")
                if to:
                    owed[offset] = to
        return owed

    def mend(self) -> None:
        """All is well again."""
        self.database_fails(None)
        self.obstruct(None)
        self.world.takes_commits = True
        self.world.speak()
        self.enable_all()
        self.world.dead_letters.door_open = True
        self.world.source.assign([0, 1])

    def finish(self) -> None:
        """All is well again, and time passes until nothing is left to do."""
        world = self.world
        world.dies_after, world.database.lost_answers = None, 0
        self.mend()
        quiet = 0  # turns in which no request was open
        for _ in range(400 + 10 * len(self.records)):  # lanes hold two, and what they do not hold waits to be due
            world.settle_down(1)
            quiet = 0 if world.transport.open else quiet + 1
            while world.transport.open:
                world.transport.answer(0, result("taken"))
            if quiet == QUIET:
                if self.at_rest():
                    return
                self.mend()
                world.now += 31.0
                quiet = 0
        pytest.fail(f"not at rest: {world.committed} {self.rows()} {world.worker.reasons()}")

    def at_rest(self) -> bool:
        """All is committed, and nothing is to be sent or told."""
        ends = {place: len(log) for place, log in self.world.log.items() if log}
        marks = {place: self.world.committed.get(place, (0, ""))[0] for place in ends}
        with reading(self.engine) as connection:
            untold = connection.execute(text("SELECT count(*) FROM webhook_operations")).scalar_one()
        waiting = {"parked", "blocked", "held"} & set(self.statuses())
        return marks == ends and not waiting and not untold and not self.world.transport.open

    def duplicates(self) -> list[Sent]:
        """What a receiver has taken more than once."""
        return [each for each, number in Counter(self.world.taken).items() if number > 1]
