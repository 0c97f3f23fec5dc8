"""A simulated world with subscriptions, the changes that tests make, and the deliveries that it owes."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from functools import cache
from typing import Any, NamedTuple

import pytest
from requests import Response
from sqlalchemy import Engine, text, update

from consumer.database.engine import reading
from consumer.errors import EgressRefused
from consumer.events.event import TopicPartition
from consumer.intake.decode import decode
from consumer.intake.offsets import OffsetTracker
from consumer.intake.offsets import decode as settled_above
from consumer.intake.record import AssignedPartition, Record
from consumer.ledger import admin, replays
from consumer.ledger.replays import Span
from consumer.ledger.rows import time_of
from consumer.matching.selection import OWN
from consumer.sending.transfer import Result
from consumer.subscriptions import repository
from models import Subscription
from tests.simulation.database import LOCKED
from tests.simulation.transport import Hopeless
from tests.simulation.world import BORN, GROUP, TOPIC, World

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
KEYS = {"a": b"x", "b": b"x", "x": b"x", "y": b"y"}  # of their subscriptions, only "keyed" is ordered
ORDERED, ORDERED_BATCHES = "https://two.example/keyed", "https://three.example/keyed"
BATCHES = "https://one.example/c"
IN_ORDER = {ORDERED, ORDERED_BATCHES}
BATCHED = {BATCHES: 3, ORDERED_BATCHES: 2}  # events per request
BATCH_WAIT = 200  # milliseconds: two turns
URLS = {
    "a": ("https://one.example/", "https://two.example/"),
    "b": ("https://one.example/b",),
    "c": (BATCHES,),
    "keyed": ("https://one.example/keyed", ORDERED, ORDERED_BATCHES),
}
ALL_URLS = tuple(url for urls in URLS.values() for url in urls)
SCHEDULE = (1.0, 30.0, 30.0)
REPLAY_RATE = 20.0  # deliveries a second: one a turn
QUIET = 4  # turns without requests, after which only time brings further work
STATUSES = {"taken": 200, "fails": 500, "disputed": 422, "gone": 410}
AWAY, BACK = "ALTER TABLE {0} RENAME TO away", "ALTER TABLE away RENAME TO {0}"
REFUSE = "CREATE TRIGGER refusal BEFORE {0} ON webhook_deliveries {1} BEGIN SELECT RAISE(ABORT, 'refused'); END"
ACCEPT = "DROP TRIGGER refusal"
FAULTS = {  # of the database: how each begins and ends
    "no deliveries": (AWAY.format("webhook_deliveries"), BACK.format("webhook_deliveries")),
    "no payloads": (AWAY.format("webhook_payloads"), BACK.format("webhook_payloads")),
    "no operations": (AWAY.format("webhook_operations"), BACK.format("webhook_operations")),
    "takes no rows": (REFUSE.format("INSERT", ""), ACCEPT),
    "takes half of the rows": (REFUSE.format("INSERT", "WHEN NEW.record_offset % 2"), ACCEPT),
    "takes no results": (REFUSE.format("UPDATE", ""), ACCEPT),
    "full": ("SELECT 1", "SELECT 1"),  # made by the driver
}
FILTER = "event.offset % 4 != 3"
OBSTACLES = {"locked": (LOCKED, ("INSERT", "UPDATE", "DELETE")), "refused": ("refused", ("INSERT", "UPDATE"))}

Offset = tuple[TopicPartition, int]  # of a record
Sent = tuple[str, str]  # webhook id and url: a delivery, as receivers see it


class Cursor(NamedTuple):
    """A position of the subscription with this URL, perhaps of a replay."""

    place: TopicPartition
    url: str
    replay: int
    first: int
    next: int
    end: int | None
    settled: Callable[[int], bool]

    def owes(self, offset: int) -> bool:
        """The cursor will deliver the event at this offset."""
        return self.first <= offset and (self.end is None or offset < self.end) and not self.settled(offset)


class Row(NamedTuple):
    """A stored delivery."""

    place: TopicPartition
    offset: int
    key: str | None
    status: str
    attempt: int


def result(outcome: str) -> Result:
    """The result of a request."""
    if outcome == "refused":
        return EgressRefused("a private address")
    if outcome == "hopeless":
        return Hopeless("a line break")
    response = Response()
    response.status_code = STATUSES[outcome]
    return response


@cache
def webhook_id(place: TopicPartition, offset: int, value: bytes) -> str:
    """The webhook id of a record."""
    record = Record(
        AssignedPartition(*place, OffsetTracker(None)), offset, int(BORN * 1000) + offset, None, value, None
    )
    return decode(record).webhook_id


def settled_by(mark: int, metadata: str) -> Callable[[int], bool]:
    """A function that says whether this commit marks an offset as settled."""
    above = {offset for start, stop in settled_above(mark, metadata) for offset in range(start, stop)}
    return lambda offset: offset < mark or offset in above


class Deployment:
    """`records` are all records written, with their kinds. `excused` are deliveries that are allowed but not owed.

    Subscriptions of `filtered` URLs have FILTER. An event is owed to a subscription that wants it and is in effect from
    the event's writing until it is settled. In effect means enabled for at least as long as look-ups are cached.
    Stored deliveries are always owed.
    """

    def __init__(
        self, engine: Engine, urls: Collection[str] = ALL_URLS, filtered: Collection[str] = (), **delivery: Any
    ) -> None:
        self.engine = engine
        self.filtered = filtered
        self.subscriptions: dict[int, str] = {}
        for event_type, its in URLS.items():
            for url in filter(urls.__contains__, its):
                options: dict[str, Any] = {"ordering": "key" if url in IN_ORDER else "none"}
                if url in BATCHED:
                    batch = {"batch_size": BATCHED[url], "batch_wait_ms": BATCH_WAIT}
                    options |= {"payload_format": "cloudevents", **batch}
                if url in filtered:
                    options["event_filter"] = FILTER
                self.subscriptions[repository.add(engine, url, event_type, **options)] = url
        self.world = World(engine, retry_schedule=SCHEDULE, **delivery)
        self.records: dict[Offset, str] = {}
        self.offsets: dict[str, Offset] = {}  # by webhook id
        self.excused: set[Sent] = set()
        self.probed: set[str] = set()  # URLs that failures have paused
        self.fault: str | None = None
        self._obstacle: Sequence[str] = ()  # names of triggers
        self._enabled_at = dict.fromkeys(urls, float("-inf"))

    def deliveries_of(self, place: TopicPartition, offset: int) -> list[Sent]:
        """The deliveries of a record if all subscriptions are enabled."""
        kind = self.records[place, offset]
        urls = URLS.get("keyed" if VALUES[kind] == KEYED else kind, ())
        return [(webhook_id(place, offset, VALUES[kind]), url) for url in urls if self.wants(url, offset)]

    def wants(self, url: str, offset: int) -> bool:
        """Whether this URL's subscription wants the event of its type at this offset."""
        return url in self._enabled_at and (url not in self.filtered or offset % 4 != 3)  # as by FILTER

    def write(self, number: int, kind: str) -> None:
        """Write a record of this kind."""
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

    def answer(self, *outcomes: str, turns: int = 12) -> None:
        """The first open request gets these results, one after the other, with turns behind each."""
        for outcome in outcomes:
            self.world.transport.answer(0, result(outcome))
            self.world.settle_down(turns)

    def database_fails(self, how: str | None) -> None:
        """Begin one of FAULTS, in place of the present one; None ends it."""
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
        """The database refuses to write the rows for which the SQL condition `which` holds, and no others.

        `how` is one of OBSTACLES. None ends it.
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
        """The database accepts all writes."""
        return self.fault is None and not self._obstacle

    def over_its_budget(self, url: str) -> None:
        """Exceed the CPU budget of this URL's filter, so that it does not run for a minute."""
        (number,) = (number for number, its in self.subscriptions.items() if its == url)
        while not self.world.worker.parts.budget.is_over(number):
            self.world.worker.parts.budget.charge(number, OWN)

    def disable(self, url: str) -> None:
        """Disable by SQL."""
        with self.engine.begin() as connection:
            connection.execute(text("UPDATE webhook_subscriptions SET enabled = 0 WHERE url = :url"), {"url": url})
        self.look_at_subscriptions()

    def enable_all(self) -> None:
        """Enable all disabled subscriptions by SQL."""
        for url in self.look_at_subscriptions():
            self._enabled_at[url] = self.world.now
            with self.engine.begin() as connection:
                connection.execute(text("UPDATE webhook_subscriptions SET enabled = 1 WHERE url = :url"), {"url": url})

    def pause(self, url: str, *, by_failure: bool = False) -> None:
        """Pause by SQL, or as failures do."""
        self.probed |= {url} if by_failure else set()
        now = time_of(BORN + self.world.now)
        paused = {"paused_at": now} | ({"probed_at": now} if by_failure else {})
        with self.engine.begin() as connection:
            connection.execute(update(Subscription).where(Subscription.url == url).values(paused))

    def resume_all(self) -> None:
        """Resume all paused subscriptions by SQL."""
        with self.engine.begin() as connection:
            connection.execute(text("UPDATE webhook_subscriptions SET paused_at = NULL"))

    def fall_behind(self, url: str, events: int) -> None:
        """Pause while events of kind "b" come to the first partition, and resume. The first ones are being sent."""
        self.pause(url)
        self.world.settle_down()
        for _ in range(events):
            self.write(0, "b")
        self.world.settle_down()
        assert [(each.first, each.next, each.end) for each in self.cursors()] == [(0, 0, None)]
        assert self.world.committed[TOPIC, 0] == (events, "")
        self.resume_all()
        self.world.now += 6.0
        for _ in range(20):
            if not self.world.transport.open:
                self.world.settle_down(1)
        assert self.world.transport.open

    def cursors(self) -> list[Cursor]:
        """All cursors."""
        statement = (
            "SELECT partition_no, subscription_id, replay, first_offset, next_offset, end_offset, settled_runs"
            " FROM webhook_cursors ORDER BY id"
        )
        with reading(self.engine) as connection:
            return [
                Cursor(
                    (TOPIC, number), self.subscriptions[of], replay, first, after, end, settled_by(after, runs or "")
                )
                for number, of, replay, first, after, end, runs in connection.execute(text(statement))
            ]

    def covered(self) -> set[Sent]:
        """Deliveries that a cursor owes, apart from replays."""
        return {
            delivery
            for cursor in self.cursors()
            if not cursor.replay
            for place, offset in self.records
            if place == cursor.place and cursor.owes(offset)
            for delivery in self.deliveries_of(place, offset)
            if delivery[1] == cursor.url
        }

    def replay(self, number: int, url: str, back: int, *, ordered: bool) -> list[Sent]:
        """Replay so many of the last records that are committed. Returns the deliveries that will come again."""
        place = TOPIC, number
        end = self.world.committed.get(place, (0, ""))[0]
        begin = max(0, end - back)
        (subscription,) = (each for each, its in self.subscriptions.items() if its == url)
        spans = [Span(*place, begin, end)] if begin < end else []
        asked = (0.0, BORN + 10**6, None, REPLAY_RATE, spans, BORN + self.world.now)
        replays.create(self.engine, GROUP, subscription, *asked, ordered=ordered)
        to = (self.deliveries_of(place, offset) for offset in range(begin, end))
        return [delivery for deliveries in to for delivery in deliveries if delivery[1] == url]

    def hold_replays(self) -> None:
        """Cancel all replays that have not ended."""
        for each in replays.find(self.engine, limit=1000):
            replays.cancel(self.engine, each.id, BORN + self.world.now)

    def go_on_with_replays(self) -> None:
        """Resume all cancelled replays."""
        for each in replays.find(self.engine, limit=1000):
            replays.resume(self.engine, each.id)

    def look_at_subscriptions(self) -> set[str]:
        """Excuse unsettled events of the disabled subscriptions. Returns their URLs."""
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
        """Redeliver as `deliveries redeliver` does."""
        for _ in admin.redeliver(self.engine, admin.DeliveryQuery(statuses=statuses), BORN + self.world.now):
            continue

    def refused(self) -> set[Sent]:
        """Deliveries whose records went to the dead-letter topic, because the database would not store them."""
        return {
            (webhook_id(place, offset, VALUES[self.records[place, offset]]), self.subscriptions[subscription])
            for place, offset, subscription in self.world.refused
        }

    def rows(self) -> dict[Sent, Row]:
        """All stored deliveries, apart from replays."""
        statement = (
            "SELECT subscription_id, partition_no, record_offset, order_key, status, attempt "  # noqa: S608 (constants)
            f"FROM {self._table()} WHERE replay = 0 ORDER BY record_offset"
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
        """The statuses of all stored deliveries, by offset."""
        return [row.status for row in self.rows().values()]

    def owed(self, place: TopicPartition, settled: Callable[[int], bool]) -> dict[int, list[str]]:
        """By offset, for `settled` records: URLs of deliveries neither taken, stored nor refused, and "burial"."""
        done = {*self.rows(), *self.world.taken, *self.excused, *self.refused(), *self.covered()}
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
        """End all faults."""
        self.database_fails(None)
        self.obstruct(None)
        self.world.takes_commits = True
        self.world.speak()
        self.enable_all()
        self.resume_all()
        self.go_on_with_replays()
        self.world.dead_letters.door_open = True
        self.world.source.assign(number for _, number in self.world.log)

    def finish(self) -> None:
        """End all faults, and let time pass until no work is left."""
        world = self.world
        world.dies_after, world.database.lost_answers = None, 0
        self.mend()
        quiet = 0  # turns without an open request
        for _ in range(400 + 10 * len(self.records)):  # lanes hold two deliveries, and the others wait to be due
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
        pytest.fail(f"not at rest: {world.committed} {self.rows()} {self.cursors()} {world.worker.reasons()}")

    def at_rest(self) -> bool:
        """All offsets are committed, and no delivery or event is pending."""
        ends = {place: len(log) for place, log in self.world.log.items() if log}
        marks = {place: self.world.committed.get(place, (0, ""))[0] for place in ends}
        with reading(self.engine) as connection:
            untold = connection.execute(text("SELECT count(*) FROM webhook_operations")).scalar_one()
            statuses = connection.execute(text("SELECT DISTINCT status FROM webhook_deliveries")).scalars().all()
        waiting = {"parked", "blocked", "held"} & set(statuses)
        waiting |= {"cursor" for cursor in self.cursors() if cursor.end is None or cursor.next < cursor.end}
        waiting |= {"replay" for each in replays.find(self.engine, limit=1000) if not each.ended}
        return marks == ends and not waiting and not untold and not self.world.transport.open

    def duplicates(self) -> list[Sent]:
        """Deliveries that a receiver has taken more than once."""
        return [each for each, number in Counter(self.world.taken).items() if number > 1]
