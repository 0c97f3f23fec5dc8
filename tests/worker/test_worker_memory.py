"""A worker's memory: its sum is bounded, and deliveries go on whatever fills it."""

from collections import Counter

import pytest
from sqlalchemy import Engine
from structlog.testing import capture_logs

from consumer.delivery.lanes import STILL
from consumer.delivery.limits import MEMORY
from consumer.events.event import Event, RecordId
from consumer.intake.decode import MAX_VALUE_BYTES
from consumer.ledger import store
from consumer.ledger.assigned import PAGE
from consumer.ledger.rows import NewDelivery
from consumer.subscriptions import repository
from tests.simulation.deployment import result
from tests.simulation.world import BORN, TOPIC, World

URL = "https://one.example/"


def large(event_type: str = "a") -> bytes:
    """The largest valid record."""
    head = b'{"type": "%b", "pad": "' % event_type.encode()
    return head + b"x" * (MAX_VALUE_BYTES - len(head) - 2) + b'"}'


class Site:
    """A worker, and its read but unsettled records of two partitions."""

    def __init__(self, engine: Engine, **options: str) -> None:
        for name in ("a", "b"):
            repository.add(engine, f"{URL}{name}", name)
        with engine.begin() as connection:
            for column, value in options.items():
                connection.exec_driver_sql(f"UPDATE webhook_subscriptions SET {column} = '{value}'")  # noqa: S608 (constants)
        self.stored: list[NewDelivery] = []
        self.world = World(engine)
        self.world.start(0, 1)

    def turns(self, number: int) -> None:
        """This many turns. Look-ups are answered, but nothing is stored."""
        for _ in range(number):
            self.world.turn()
            while self.world.run_job("lookups") or self.world.run_job("taking-up"):
                continue
            self.world.now += STILL

    @property
    def unsettled(self) -> int:
        """Bytes in the bodies of read but unsettled records."""
        trackers = [partition.tracker for partition in self.world.source.partitions.values()]
        return sum(len(tracker._open) for tracker in trackers) * MAX_VALUE_BYTES

    def rendered(self, body: bytes) -> int:
        """Bytes rendered for open requests, apart from the records' own bodies."""
        made = {id(each.request.body): each.request.body or b"" for each in self.world.transport.open}
        return sum(len(each) for each in made.values() if each is not body)


@pytest.mark.parametrize("options", [{}, {"payload_format": "standard"}, {"batch_size": "2"}])
def test_many_large_events_do_not_fill_the_memory(sqlite_engine: Engine, options: dict[str, str]) -> None:
    """Receivers hang and the database stores nothing. Partitions are paused, and resumed as requests end."""
    site = Site(sqlite_engine, **options)
    world, body = site.world, large()
    for number in range(400):
        world.write(number % 2, body)
    site.turns(20)
    assert 0 < site.unsettled + site.rendered(body) <= MEMORY
    assert world.source.paused
    for _ in range(1000):
        while world.transport.open:
            world.transport.answer(0, result("taken"))
        world.settle_down(1)
        assert site.unsettled + site.rendered(body) <= MEMORY
        if not world.transport.open and sum(mark for mark, _ in world.committed.values()) == 400:
            break
    world.settle_down()
    assert [world.committed[TOPIC, number][0] for number in (0, 1)] == [200, 200]
    assert world.worker.parts.memory.held == 0


def test_a_receiver_that_hangs_on_large_events_does_not_stop_others(sqlite_engine: Engine) -> None:
    """Its share of memory is limited like its share of slots. Deliveries without room are stored."""
    site = Site(sqlite_engine)
    world = site.world
    for number in range(200):
        world.write(number % 2, large("ab"[number // 2 % 2]))
    for _ in range(200):
        for number in reversed(range(len(world.transport.open))):
            if world.transport.open[number].request.url == f"{URL}b":
                world.transport.answer(number, result("taken"))
        world.settle_down(1)
        world.now += STILL
    assert len(world.taken) == 100
    assert {url for _, url in world.taken} == {f"{URL}b"}


def test_the_key_of_an_undecodable_record_counts(sqlite_engine: Engine) -> None:
    """It is in memory until the dead letter is acknowledged, and so are the headers."""
    site = Site(sqlite_engine)
    site.world.dead_letters.door_open = False
    site.world.write(0, b"no JSON", b"k" * 10_000)
    site.turns(3)
    assert site.world.worker.parts.memory.held == 10_007


def test_a_flood_of_undecodable_records_writes_few_lines(sqlite_engine: Engine) -> None:
    """Ten lines in a minute for each topic and reason, then one with the number of the others."""
    site = Site(sqlite_engine)
    world = site.world
    for _ in range(300):
        world.write(0, b"no JSON")
    for value in (b"\xff", b"[]"):
        world.write(1, value)
    with capture_logs() as logs:
        site.turns(20)
        assert Counter(entry["reason"] for entry in logs) == {"not_json": 10, "not_utf8": 1, "not_object": 1}
        world.now += 60.0
        site.turns(1)
    left_out = {"text": "undecodable", "topic": TOPIC, "kind": "not_json", "number": 290}
    assert left_out.items() <= logs[-1].items()
    assert (len(logs), world.metrics.events["dead_lettered"]) == (13, 302)


def test_however_many_deliveries_are_stored_memory_holds_a_page_of_their_offsets(sqlite_engine: Engine) -> None:
    """Without a committed offset the log is read anew, and stored deliveries in any state are not made again."""
    site = Site(sqlite_engine)
    world, number = site.world, 2 * PAGE + 500
    for offset in range(number):
        world.write(0, large("a")[:30] + b'"}')
        if offset % 7:
            place = RecordId(TOPIC, 0, offset, int(BORN * 1000) + offset)
            event = Event(place, "a", f"msg_{offset}", b"{}", "application/json", None, None)
            row = NewDelivery(event, 1, URL, 1, "parked", BORN + 10**6)
            site.stored.append(row._replace(status="exhausted") if offset % 2 else row)
    store.park(sqlite_engine, "g", site.stored, BORN)
    most = 0
    for _ in range(300):
        while world.transport.open:
            world.transport.answer(0, result("taken"))
        world.settle_down(1)
        most = max([most, *(len(stored.keys) for stored in world.worker.parts.inbox._stored.values())])
        aside = world.worker.parts.inbox.stands_aside((TOPIC, 0))
        assert aside == (world.source.partitions[TOPIC, 0] in world.source._resting)  # no record is read only to wait
    assert world.committed[TOPIC, 0] == (number, "")
    assert len(world.sent) == len(world.taken) == number - len(site.stored)
    assert 0 < most <= 2 * PAGE  # the page of waiting events, and the next one


def test_a_process_that_may_open_few_files_has_few_slots(
    sqlite_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A warning at the start says so."""
    monkeypatch.setattr("consumer.worker.wiring.raise_descriptor_limit", lambda: 40)
    world = World(sqlite_engine)
    with capture_logs() as logs:
        world.start(0)
    assert world.worker.parts.lanes.slots.total == 10
    assert [(each["requests"], each["open_files"]) for each in logs if each["log_level"] == "warning"] == [(10, 40)]
