"""The rules that the state machines check can fail: each broken deployment violates its rule, a sound one none."""

from collections.abc import Callable

import pytest
from requests import PreparedRequest
from sqlalchemy import Engine, text

from consumer.matching.selection import FilterResult, Selector
from tests.simulation.deployment import ORDERED, SCHEDULE, URLS, Deployment, result
from tests.simulation.watch import IN_MEMORY, Watch
from tests.simulation.world import TOPIC

HERE = TOPIC, 0
(URL,) = URLS["b"]


class Desk:
    """A deployment with a watch, and a worker that owns both partitions."""

    def __init__(self, engine: Engine) -> None:
        self.deployment = Deployment(engine, filtered=[URL])
        self.world = self.deployment.world
        self.watch = Watch(self.deployment)
        self.world.start(0, 1)

    def write(self, *kinds: str) -> None:
        """Write records of partition 0. What they need is sent; receivers do not answer yet."""
        for kind in kinds:
            self.deployment.write(0, kind)
        self.world.settle_down()

    def answer(self, outcome: str = "taken") -> PreparedRequest:
        """Answer the oldest request."""
        request = self.world.transport.open[0].request
        self.world.transport.answer(0, result(outcome))
        self.world.settle_down()
        return request

    def fail_until_stored(self) -> None:
        """The first delivery fails twice."""
        for _ in range(2):
            self.answer("fails")
            self.world.settle_down()

    def sql(self, statement: str) -> None:
        """Change the database behind the worker's back."""
        with self.deployment.engine.begin() as connection:
            assert connection.execute(text(statement)).rowcount

    def violated(self, rule: str, cause: Callable[[], object]) -> None:
        """The watch fails with this text, and takes the worker's later state for no evidence."""
        assert not self.watch.broken
        with pytest.raises(pytest.fail.Exception, match=rule):
            cause()
        assert self.watch.broken


@pytest.fixture
def desk(engine: Engine) -> Desk:
    """Everything is sound so far."""
    return Desk(engine)


def test_a_sound_deployment_violates_no_rule(desk: Desk) -> None:
    """Failures, exhaustion, a redelivery, a lost partition and a killed process are allowed. In the end all is done."""
    desk.write("b", "x", "x", "bad", "nobody", "c", "y")
    while desk.world.transport.open:
        desk.answer("fails")
    desk.watch.partition_left(0, cut_off=True)
    desk.world.source.lose(0)
    desk.world.source.assign([0])
    desk.watch.process_ended()
    desk.world.start(0, 1)
    for _ in range(4):
        desk.world.now += 31
        desk.world.settle_down()
        while desk.world.transport.open:
            desk.answer("fails")
    assert "exhausted" in desk.deployment.statuses()
    desk.watch.check_rows()
    desk.deployment.redeliver(["exhausted"])
    desk.watch.redelivered()
    desk.deployment.finish()
    desk.watch.check_the_end()
    assert not desk.watch.broken


def test_a_commit_without_a_delivery_is_noticed(desk: Desk) -> None:
    """Its record is settled, and a subscription has neither taken nor stored it."""
    desk.write("b")
    desk.world.source.partitions[HERE].tracker.settle(0)
    desk.violated("owed are", desk.world.turn)


def test_a_commit_without_a_dead_letter_is_noticed(desk: Desk) -> None:
    """An unreadable record must be on the dead-letter topic."""
    desk.world.dead_letters.door_open = False
    desk.write("bad")
    desk.world.source.partitions[HERE].tracker.settle(0)
    desk.violated("burial", desk.world.turn)


def test_a_commit_that_goes_back_is_noticed(desk: Desk) -> None:
    """The records between would be sent again."""
    desk.write("nobody", "nobody")
    assert desk.world.committed[HERE] == (2, "")
    desk.violated(r"\[1\] were settled", lambda: desk.world.on_commit(HERE, 1, ""))


def test_a_second_delivery_is_noticed(desk: Desk) -> None:
    """While the partition stays, a delivery that was taken is not sent again."""
    desk.write("b")
    request = desk.answer()
    desk.violated("has been taken", lambda: desk.world.transport.submit(request, lambda _: None))


def test_a_delivery_that_was_given_up_and_is_sent_is_noticed(desk: Desk) -> None:
    """Only an operator's redelivery sends it again."""
    desk.write("b")
    request = desk.answer("hopeless")
    desk.violated("is sent again", lambda: desk.world.transport.submit(request, lambda _: None))


def test_a_delivery_taken_twice_in_a_calm_run_is_noticed(desk: Desk) -> None:
    """A batch that stays open for others when a partition leaves may be the first of the two, and does not count."""
    desk.deployment.write(1, "c")
    desk.write("c")
    desk.watch.partition_left(0, cut_off=True)
    desk.world.source.lose(0)
    desk.watch.requests_stay_open(0)
    desk.world.source.assign([0])
    desk.world.settle_down()
    while desk.world.transport.open:
        desk.answer()
    duplicates = desk.deployment.duplicates()
    assert len(duplicates) == 1
    assert not desk.watch.twice()
    desk.world.taken += duplicates
    assert desk.watch.twice() == duplicates


def test_a_request_of_a_partition_that_left_is_noticed(desk: Desk) -> None:
    """Its new owner sends it."""
    desk.write("b")
    request = desk.answer("fails")
    desk.watch.partition_left(0, cut_off=True)
    desk.world.source.lose(0)
    desk.violated("is not assigned", lambda: desk.world.transport.submit(request, lambda _: None))


def test_an_unwanted_event_is_noticed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every fourth event is not for this subscription, by its filter."""
    monkeypatch.setattr(Selector, "ask", lambda *_: FilterResult.WANTED)
    desk.violated("does not want 3", lambda: desk.write("b", "b", "b", "b"))


def test_uncounted_attempts_are_noticed(desk: Desk) -> None:
    """The schedule would never end."""
    desk.write("b")
    desk.fail_until_stored()
    desk.sql("UPDATE webhook_deliveries SET attempt = 0")
    desk.world.now += 31
    desk.violated("is sent after 2 attempts", desk.world.settle_down)


@pytest.mark.parametrize(
    ("change", "rule"),
    [("attempt = attempt + 2", "not counted one by one"), ("status = 'blocked', order_key = 'k'", "blocked")],
)
def test_changes_of_rows_are_noticed(desk: Desk, change: str, rule: str) -> None:
    """An attempt counts once, and the first row of a key is not blocked."""
    desk.write("b")
    desk.fail_until_stored()
    desk.watch.check_rows()
    desk.sql(f"UPDATE webhook_deliveries SET {change}")  # noqa: S608 (constants)
    desk.violated(rule, desk.watch.check_rows)


def test_attempts_beyond_the_schedule_are_noticed(desk: Desk) -> None:
    """There is one attempt more than waits between attempts."""
    desk.write("b")
    desk.fail_until_stored()
    for _ in range(IN_MEMORY, 1 + len(SCHEDULE)):
        desk.sql("UPDATE webhook_deliveries SET attempt = attempt + 1")
        desk.watch.check_rows()
    desk.sql("UPDATE webhook_deliveries SET attempt = attempt + 1")
    desk.violated("too many attempts", desk.watch.check_rows)


def test_an_ended_row_that_goes_on_is_noticed(desk: Desk) -> None:
    """A delivered row stays so."""
    desk.write("b")
    desk.fail_until_stored()
    desk.world.now += 31
    desk.world.settle_down()
    desk.answer()
    assert desk.deployment.statuses() == ["delivered"]
    desk.sql("UPDATE webhook_deliveries SET status = 'parked', next_attempt_at = created_at")
    desk.violated("it had ended", desk.watch.check_rows)


@pytest.mark.parametrize("fails", [False, True])
def test_a_key_out_of_order_is_noticed(desk: Desk, *, fails: bool) -> None:
    """An event must not be sent while an earlier one of its key is open, or waits for its next attempt."""
    desk.sql(f"UPDATE webhook_subscriptions SET ordering = 'none' WHERE url = '{ORDERED}'")  # noqa: S608 (a constant)
    if not fails:
        desk.violated("0 is open", lambda: desk.write("x", "x"))
        return
    desk.write("x")
    for transfer in list(desk.world.transport.open):
        outcome = "fails" if transfer.request.url == ORDERED else "taken"
        desk.world.transport.answer(desk.world.transport.open.index(transfer), result(outcome))
    desk.violated("is sent before 0", lambda: desk.write("x"))


def test_a_first_attempt_after_a_later_events_is_noticed(desk: Desk) -> None:
    """This holds for each assignment, also if nothing is open any more."""
    desk.write("x", "x")
    requests = [desk.answer() for _ in range(2 * len(URLS["keyed"]))]
    desk.world.taken.clear()
    first = next(request for request in requests if request.url == ORDERED)
    desk.violated("0 is sent after 1", lambda: desk.world.transport.submit(first, lambda _: None))


def test_a_lost_event_is_noticed_in_the_end(desk: Desk) -> None:
    """A receiver has not got it, and no row has it, whatever was committed."""
    desk.write("b")
    desk.violated("are owed", desk.watch.check_the_end)


def test_a_row_that_waits_in_the_end_is_noticed(desk: Desk) -> None:
    """Its delivery is stored, but nobody sends it."""
    desk.write("b")
    desk.fail_until_stored()
    assert not desk.deployment.at_rest()
    desk.violated("not ended", desk.watch.check_the_end)


@pytest.mark.parametrize(("times", "rule"), [(0, "told was"), (2, "several ids")])
def test_an_exhaustion_that_is_not_announced_once_is_noticed(desk: Desk, times: int, rule: str) -> None:
    """It may come again, under the same id."""
    desk.write("b")
    desk.answer("hopeless")
    desk.world.settle_down()
    (told,) = desk.world.announced
    desk.world.announced += [told]
    desk.watch.check_the_end()
    desk.world.announced[:] = [told._replace(event_id=str(number)) for number in range(times)]
    desk.violated(rule, desk.watch.check_the_end)


def test_a_redelivery_that_does_not_come_is_noticed(desk: Desk) -> None:
    """The row alone does not show it."""
    desk.write("b")
    desk.answer("hopeless")
    desk.deployment.redeliver(["exhausted"])
    desk.watch.redelivered()
    desk.sql("UPDATE webhook_deliveries SET status = 'delivered', next_attempt_at = NULL")
    desk.violated("was not redelivered", desk.watch.check_the_end)
