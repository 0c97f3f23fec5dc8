"""Attempts reported to the attempt history: one for each delivery and attempt, and no others."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from consumer.errors import EgressRefused
from consumer.subscriptions.endpoint import Batch
from tests.delivery.desk_kit import SHORT, TOOK, Desk, response
from tests.delivery.store_kit import NOW
from tests.simulation.transport import Hopeless


@pytest.fixture
def desk(engine: Engine) -> Iterator[Desk]:
    """A Settling whose subscription has batches without a wait."""
    result = Desk(engine, Batch(100, 0.0))
    yield result
    assert result.store.thread.close(20)


def test_each_attempt_of_a_delivery_is_reported_once(desk: Desk) -> None:
    """Here a failure, then a success, each with the delivery's outcome, attempt number, end and duration."""
    delivery = desk.start()
    desk.end(delivery, response(503))
    assert [each[:5] for each in desk.reported] == [(0, 1, 503, "retried", NOW)]
    desk.store.monotonic.now += SHORT
    desk.end(desk.go_on(delivery), response(204))
    assert [each[:5] for each in desk.reported[1:]] == [(0, 2, 204, "delivered", NOW)]
    assert [each[5] for each in desk.reported] == [pytest.approx(TOOK)] * 2


def test_the_request_of_a_batch_is_an_attempt_of_each_delivery(desk: Desk) -> None:
    """Records and stored rows each have their own attempt number and outcome."""
    members = [desk.delivery(offset=0), desk.delivery(offset=1, attempts=1), desk.row(2, offset=2)]
    desk.end(desk.open(*members), response(503))
    assert [each[:4] for each in desk.reported] == [
        (0, 1, 503, "retried"),
        (1, 2, 503, "parked"),
        (2, 3, 503, "exhausted"),
    ]
    desk.reported.clear()
    desk.end(desk.open(*[desk.delivery(offset=offset) for offset in range(3, 6)]), response(200))
    assert [each[:4] for each in desk.reported] == [(offset, 1, 200, "delivered") for offset in range(3, 6)]


def test_a_request_that_was_not_sent_is_no_attempt(desk: Desk) -> None:
    """The egress rule refused it or it could not be built, so no receiver has seen it."""
    desk.end(desk.start(offset=0), Hopeless("a line break"))
    desk.settling.on_undeliverable(desk.delivery(offset=1), "the template fails")
    desk.end(desk.start(offset=2), EgressRefused("10.0.0.1 is a private address"))
    assert desk.reported == []


def test_a_cancelled_request_is_an_attempt(desk: Desk) -> None:
    """Its receiver may have seen it, and the delivery counts it."""
    delivery = desk.start()
    desk.settling.on_cancelled([delivery], 1.5)
    assert desk.reported == [(0, 1, None, "retried", NOW, 1.5)]
