"""The book judges repeats: by how many a kill may cause, and by what a worker has logged."""

from math import inf
from typing import Any

import pytest

from tests.chaos.book import Book, Disruption, Event, Rule, Subscription
from tests.chaos.tempers import Temper
from tests.end_to_end.webhook_receiver import Request

EVENTS, MOST = 5, 3  # events that a cursor sends, and repeats that a kill may cause
PATH = "/hook"


@pytest.mark.parametrize(
    ("times", "broken"), [((), EVENTS), ((20.0,), EVENTS - MOST), ((20.0, 21.0), 0)], ids=["no kill", "one", "two"]
)
def test_each_kill_explains_so_many_repeats_of_a_cursor(times: tuple[float, ...], broken: int) -> None:
    """Further ones need an earlier fault, or they violate the guarantee."""
    book = Book(attempts=3)
    book.subscriptions.append(Subscription(1, PATH, "order.created", Temper(1)))
    book.cursors[1] = 1, 0, 0, inf
    for at in times:
        book.disrupt(Disruption("kill", at, at - 2, at - 2, at + 1, most_of_cursors=MOST))
    for number in range(EVENTS):
        event = Event(number, 1.0, "order.created", 0, None, str(number).encode())
        book.publish(event)
        book.acknowledged(event, number)
    requests = [
        Request(PATH, f"msg_{number}", str(number).encode(), {"webhook-timestamp": f"{at:.0f}"}, 200, at)
        for at in (19.9, 30.0)
        for number in range(EVENTS)
    ]
    book.read(requests)
    assert book.broken[Rule.DUPLICATE] == broken


@pytest.mark.parametrize("hung_up", [True, False])
def test_a_worker_that_waited_too_long_repeats(hung_up: bool) -> None:  # noqa: FBT001 (a parameter of the test)
    """The receiver accepted a request and was too slow to say so. The repeat needs no fault; others do."""
    asked: list[Any] = []

    def answer(*request: Any) -> bool:
        asked.append(request)
        return hung_up

    book = Book(3, answer)
    book.subscriptions.append(Subscription(1, PATH, "order.created", Temper(1)))
    book.publish(Event(0, 1.0, "order.created", 0, None, b"0"))
    book.read([Request(PATH, "msg_0", b"0", {"webhook-timestamp": f"{at}"}, 200, at + 0.9) for at in (19, 30)])
    assert asked == [(1, "msg_0", 19)]
    assert [repeat.cause for repeat in book.repeats] == ["time-out" if hung_up else "nothing"]
    assert book.broken[Rule.DUPLICATE] == (not hung_up)
