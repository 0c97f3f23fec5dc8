"""A row that the database never accepts holds its offset until an operator decides about its delivery."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from consumer.ledger import marks
from consumer.ledger.marks import Subject
from consumer.subscriptions import repository
from models import Wish
from tests.simulation.deployment import result
from tests.simulation.world import TOPIC, Crash, World

BAD, LAST = 3, 6
NEVER = """
CREATE TRIGGER never BEFORE INSERT ON webhook_deliveries WHEN NEW.record_offset = 3 AND NEW.partition_no = 0
BEGIN SELECT RAISE(ABORT, 'a rule of ours'); END
"""


class Site:
    """One subscription whose receiver fails, so that each delivery must be stored. One row is never accepted."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.subject = Subject(TOPIC, 0, BAD, repository.add(engine, "https://one.example/a", "a"))
        with engine.begin() as connection:
            connection.execute(text(NEVER))
        self.world = World(engine, retry_in_memory=0.0, retry_schedule=(10.0**6,))
        for offset in range(LAST + 1):
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

    def decide(self, wish: Wish) -> None:
        """Decide as `deliveries settle` does."""
        marks.decide(self.engine, "g", self.subject, wish)

    @property
    def committed(self) -> list[int]:
        """The committed offsets of both partitions."""
        return [self.world.committed.get((TOPIC, number), (0, ""))[0] for number in (0, 1)]

    @property
    def outcomes(self) -> tuple[int, int, int]:
        """The numbers of deliveries given up and dead-lettered by decision, and of rows set aside."""
        counted = self.world.metrics.deliveries
        return counted["exhausted"], counted["dead_lettered"], self.world.worker.parts.parking.set_aside


@pytest.fixture
def site(sqlite_engine: Engine) -> Site:
    """A worker that has met the refused row."""
    made = Site(sqlite_engine)
    made.turns()
    assert made.committed == [BAD, LAST + 1]
    assert made.outcomes == (0, 0, 1)
    return made


def rows(engine: Engine) -> list[tuple[object, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text("SELECT wish, done_at IS NOT NULL FROM webhook_marks"))]


def test_it_is_given_up(site: Site) -> None:
    """It ends within seconds of the decision, which is deleted once the offset has passed. Others are not affected."""
    sent = len(site.world.sent)
    site.decide(Wish.GIVE_UP)
    site.turns(8)
    assert site.outcomes == (1, 0, 0)
    assert (site.committed, len(site.world.sent), site.world.buried) == ([LAST + 1, LAST + 1], sent, set())
    assert site.world.worker.reasons() == []
    site.turns(130)
    assert rows(site.engine) == []


def test_it_goes_to_the_dead_letter_topic(site: Site) -> None:
    """It is settled when the dead letter is acknowledged, not before."""
    site.world.dead_letters.door_open = False
    site.decide(Wish.DEAD_LETTER)
    site.turns(8)
    assert (site.outcomes, site.committed) == ((0, 0, 1), [BAD, LAST + 1])
    site.world.dead_letters.door_open = True
    site.turns(8)
    assert (site.outcomes, site.committed) == ((0, 1, 0), [LAST + 1, LAST + 1])
    assert site.world.buried == {((TOPIC, 0), BAD)}


def test_the_last_decision_counts_and_may_be_repeated(site: Site) -> None:
    """It may also come before any worker has the partition."""
    site.world.stop()
    for wish in (Wish.DEAD_LETTER, Wish.GIVE_UP, Wish.GIVE_UP):
        site.decide(wish)
    site.world.start(0, 1)
    site.turns()
    assert (site.outcomes, site.committed, site.world.buried) == ((1, 0, 0), [LAST + 1, LAST + 1], set())


def test_a_decision_about_another_delivery_changes_nothing(site: Site) -> None:
    """Neither for a stored delivery nor for another record."""
    for offset in (BAD - 1, BAD + 1, 99):
        marks.decide(site.engine, "g", site.subject._replace(offset=offset), Wish.GIVE_UP)
    site.turns(150)
    assert (site.outcomes, site.committed) == ((0, 0, 1), [BAD, LAST + 1])


def test_no_revoke_waits_for_a_decision(site: Site) -> None:
    """The whole group would wait in each rebalance. The next owner meets the row again."""
    began = site.world.now
    site.world.source.revoke(0)
    assert site.world.now - began < 0.1
    site.world.source.assign([0])
    site.turns()
    assert (site.committed, site.outcomes) == ([BAD, LAST + 1], (0, 0, 1))


@pytest.mark.parametrize("wish", [Wish.GIVE_UP, Wish.DEAD_LETTER])
def test_a_crash_between_a_decision_and_the_commit(site: Site, monkeypatch: pytest.MonkeyPatch, wish: Wish) -> None:
    """The row is met again and the decision is carried out again."""
    monkeypatch.setattr(site.world.source, "commit", lambda: None)
    site.decide(wish)
    site.turns(8)
    assert (sum(site.outcomes), rows(site.engine)) == (1, [(wish.value, 1)])
    site.world.start(0, 1)
    site.turns()
    assert (sum(site.outcomes), site.committed) == (1, [LAST + 1, LAST + 1])


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wish=st.sampled_from((Wish.GIVE_UP, Wish.DEAD_LETTER)), dies_after=st.integers(0, 12), moves=st.booleans())
def test_a_decision_is_carried_out_despite_crashes_and_rebalances(
    sqlite_engine: Engine, wish: Wish, dies_after: int, *, moves: bool
) -> None:
    """Until the offset is committed, each owner finds the decision, carried out or not. Then it is deleted."""
    with sqlite_engine.begin() as connection:
        for table in ("webhook_deliveries", "webhook_payloads", "webhook_marks", "webhook_subscriptions"):
            connection.execute(text(f"DELETE FROM {table}"))  # noqa: S608 (names)
        connection.execute(text("DROP TRIGGER IF EXISTS never"))
    site = Site(sqlite_engine)
    site.turns()
    site.decide(wish)
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
    assert site.committed == [LAST + 1, LAST + 1]
    assert site.world.buried == ({((TOPIC, 0), BAD)} if wish == Wish.DEAD_LETTER else set())
    assert (site.world.worker.parts.parking.set_aside, rows(sqlite_engine)) == (0, [])
