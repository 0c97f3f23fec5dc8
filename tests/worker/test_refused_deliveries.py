"""A delivery that the database will not store goes to the dead-letter topic after a time, and its offset moves."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from consumer.subscriptions import repository
from tests.simulation.deployment import result
from tests.simulation.world import TOPIC, Crash, World

BAD, LAST = 3, 6
REFUSED_AFTER = 300.0  # seconds
NEVER = """
CREATE TRIGGER never BEFORE INSERT ON webhook_deliveries WHEN {}
BEGIN SELECT RAISE(ABORT, 'a rule of ours'); END
"""


class Site:
    """One subscription whose receiver fails, so that each delivery must be stored. One row is never accepted."""

    def __init__(
        self, engine: Engine, never: str = f"NEW.record_offset = {BAD} AND NEW.partition_no = 0", last: int = LAST
    ) -> None:
        self.engine = engine
        self.subscription = repository.add(engine, "https://one.example/a", "a")
        with engine.begin() as connection:
            connection.execute(text(NEVER.format(never)))
        self.world = World(engine, retry_in_memory=0.0, retry_schedule=(10.0**6,), refused_after=REFUSED_AFTER)
        for offset in range(last + 1):
            for number in (0, 1):
                self.world.write(number, b'{"type": "a", "n": %d}' % offset)
        self.world.start(0, 1)

    def turns(self, number: int = 40, seconds: float = 1.0) -> None:
        """This many turns, in which receivers fail and the database answers."""
        for _ in range(number):
            while self.world.transport.open:
                self.world.transport.answer(0, result("fails"))
            self.world.settle_down(1)
            self.world.now += seconds

    @property
    def committed(self) -> list[int]:
        """The committed offsets of both partitions."""
        return [self.world.committed.get((TOPIC, number), (0, ""))[0] for number in (0, 1)]

    @property
    def outcomes(self) -> tuple[int, int]:
        """The numbers of deliveries dead-lettered and of rows set aside."""
        return self.world.metrics.deliveries["dead_lettered"], self.world.worker.parts.parking.set_aside

    def waits(self) -> bool:
        """The offset is held, and the others have moved."""
        return (self.outcomes, self.committed, self.world.buried) == ((0, 1), [BAD, LAST + 1], set())

    def is_over(self) -> bool:
        """All offsets have moved, and the record is on the dead-letter topic for the one subscription."""
        return (self.world.worker.parts.parking.set_aside, self.committed, self.world.refused) == (
            0,
            [LAST + 1, LAST + 1],
            {((TOPIC, 0), BAD, self.subscription)},
        )

    def marks(self) -> list[tuple[object, ...]]:
        """The marks in the database."""
        with self.engine.connect() as connection:
            return [
                tuple(row)
                for row in connection.execute(
                    text("SELECT kind, record_offset FROM webhook_marks WHERE kind != 'owned'")
                )
            ]


@pytest.fixture
def site(sqlite_engine: Engine) -> Site:
    """A worker that has met the refused row."""
    made = Site(sqlite_engine)
    made.turns()
    assert made.waits()
    return made


def test_it_goes_to_the_dead_letter_topic_after_its_time(site: Site) -> None:
    """Not before, and it is not sent again. A metric and an event say so; the mark is deleted with the offset."""
    sent = len(site.world.sent)
    site.turns(int(REFUSED_AFTER) - 120)
    assert site.waits()
    assert site.marks() == [("refused", BAD)]
    site.turns(120)
    assert site.is_over()
    assert (site.outcomes, len(site.world.sent), site.world.worker.reasons()) == ((1, 0), sent, [])
    ((kind, data),) = [(told.type, told.data) for told in site.world.announced]
    assert (kind, data["subscription_id"], data["offset"]) == ("delivery.dead_lettered", site.subscription, BAD)
    assert "a rule of ours" in str(data["error"])
    site.turns(130)
    assert site.marks() == []


def test_it_is_settled_when_the_dead_letter_is_acknowledged(site: Site) -> None:
    """While that topic takes none, its offset is held; nothing is written twice meanwhile."""
    site.world.dead_letters.door_open = False
    site.turns(int(REFUSED_AFTER) + 60)
    assert site.waits()
    site.world.dead_letters.door_open = True
    site.turns(8)
    assert site.is_over()
    assert site.outcomes == (1, 0)


def test_a_database_that_refuses_every_delivery_ends_none(sqlite_engine: Engine) -> None:
    """Deliveries of several subscriptions are refused and none is stored: the offsets are held until that is over."""
    repository.add(sqlite_engine, "https://one.example/b", "a")
    site = Site(sqlite_engine, "1", last=0)
    site.turns(int(REFUSED_AFTER) + 200)
    assert (site.outcomes, site.committed) == ((0, 4), [0, 0])
    with sqlite_engine.begin() as connection:
        connection.execute(text("DROP TRIGGER never"))
    site.turns(120)
    assert (site.outcomes, site.committed, site.world.buried) == ((0, 0), [1, 1], set())


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(dies_after=st.integers(0, 12), moves=st.booleans())
def test_it_ends_despite_crashes_and_rebalances(sqlite_engine: Engine, dies_after: int, *, moves: bool) -> None:
    """Each owner finds since when it is refused, until the offset is committed. Then the mark is deleted."""
    with sqlite_engine.begin() as connection:
        for table in ("webhook_deliveries", "webhook_payloads", "webhook_marks", "webhook_subscriptions"):
            connection.execute(text(f"DELETE FROM {table}"))  # noqa: S608 (names)
        connection.execute(text("DROP TRIGGER IF EXISTS never"))
    site = Site(sqlite_engine)
    site.turns()
    site.world.now += REFUSED_AFTER
    if moves:
        site.turns(1)
        site.world.source.revoke(0)
        site.turns(2)
        site.world.source.assign([0])
    site.world.dies_after = dies_after
    try:
        site.turns()
    except Crash:
        site.world.start(0, 1)
    site.world.dies_after = None
    site.turns(200)
    assert site.is_over()
    assert site.marks() == []
