"""The rules that the state machines check can fail: each broken deployment violates its rule, a sound one none."""

from collections.abc import Callable

import pytest
from requests import PreparedRequest
from sqlalchemy import Engine, text

from consumer.expressions.expression import Expression
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


@pytest.mark.parametrize(("kind", "rule"), [("b", "owed are"), ("bad", "burial")])
def test_a_commit_of_an_unsettled_record_is_noticed(desk: Desk, kind: str, rule: str) -> None:
    """A subscription has neither taken nor stored it, or the dead-letter topic does not have it."""
    desk.world.dead_letters.door_open = False
    desk.write(kind)
    desk.world.source.partitions[HERE].tracker.settle(0)
    desk.violated(rule, desk.world.turn)


def test_a_commit_that_goes_back_is_noticed(desk: Desk) -> None:
    """The records between would be sent again."""
    desk.write("nobody", "nobody")
    assert desk.world.committed[HERE] == (2, "")
    desk.violated(r"\[1\] were settled", lambda: desk.world.on_commit(HERE, 1, ""))


@pytest.mark.parametrize(("outcome", "rule"), [("taken", "has been taken"), ("hopeless", "is sent again")])
def test_an_ended_delivery_that_is_sent_is_noticed(desk: Desk, outcome: str, rule: str) -> None:
    """Neither one that was taken, while the partition stays, nor one that was given up."""
    desk.write("b")
    request = desk.answer(outcome)
    desk.violated(rule, lambda: desk.world.transport.submit(request, lambda _: None))


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
    monkeypatch.setattr(Expression, "value", lambda *_: True)
    desk.violated("does not want 3", lambda: desk.write("b", "b", "b", "b"))


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ("attempt = 0", "is sent after 2 attempts"),
        ("attempt = attempt + 2", "not counted one by one"),
        ("status = 'blocked', order_key = 'k'", "blocked"),
        ("next_attempt_at = next_attempt_at", "not ended"),
    ],
)
def test_a_row_that_is_not_as_it_should_be_is_noticed(desk: Desk, change: str, rule: str) -> None:
    """Attempts count one by one, a key's first row is not blocked, and no row waits in the end."""
    desk.write("b")
    desk.fail_until_stored()
    desk.watch.check_rows()
    desk.sql(f"UPDATE webhook_deliveries SET {change}")  # noqa: S608 (constants)

    def look() -> None:
        desk.world.now += 31
        desk.world.settle_down()
        desk.watch.check_the_end()

    desk.violated(rule, look)


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


def test_a_replay_that_does_not_come_is_noticed(desk: Desk) -> None:
    """Its cursor alone does not show it. One that comes is no repetition."""
    desk.write("b")
    desk.answer()
    again = desk.deployment.replay(0, URL, 1, ordered=False)
    assert len(again) == 1
    desk.watch.replayed(again)
    desk.violated("was not replayed", desk.watch.check_the_end)
    desk.watch.broken = False
    desk.deployment.finish()
    desk.watch.check_the_end()
    assert (len(desk.deployment.duplicates()), desk.watch.twice()) == (1, [])
