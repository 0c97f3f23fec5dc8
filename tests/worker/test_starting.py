"""Subscriptions that begin in the past, in a worker: what is left to their cursors, which meet the live stream."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from sqlalchemy import Engine

from consumer.delivery.delivery import OpenRecord
from consumer.intake.log_reader import Place
from consumer.ledger import cursors
from consumer.ops import start
from consumer.subscriptions.endpoint import Endpoint
from tests.ledger.rows_kit import GROUP, make_event
from tests.worker.catch_up_kit import HERE, Rig


@pytest.fixture
def rig(engine: Engine) -> Iterator[Rig]:
    rig = Rig(engine, records=900)
    yield rig
    assert rig.thread.close(20)


@pytest.fixture
def endpoint(rig: Rig) -> Endpoint:
    """The subscription, which begins at offset 100."""
    with rig.engine.begin() as connection:
        start.begin(connection, GROUP, rig.subscription, {HERE: Place(100)}, 1.0)
    return replace(rig.endpoint, starts=True)


def places(rig: Rig) -> list[tuple[int, int | None]]:
    return [(each.first, each.end) for each in rig.backlog.here((*HERE, rig.subscription))]


def leaves(rig: Rig, endpoint: Endpoint, offset: int) -> bool:
    """Whether the live stream leaves an event to a cursor."""
    return rig.backlog.leaves(make_event(offset), endpoint, OpenRecord(rig.settled.append, offset, 1))


def test_new_events_wait_behind_the_start(rig: Rig, endpoint: Endpoint) -> None:
    """The live stream has an event before it knows the cursor from the past: neither sends what the other does."""
    assert leaves(rig, endpoint, 500)
    assert rig.settled == []
    rig.turn(0.01, 5)
    assert places(rig) == [(100, 500), (500, None)]
    assert rig.settled == [500]
    assert [leaves(rig, endpoint, offset) for offset in (99, 100, 499, 501)] == [False, True, True, True]
    sent = rig.all_of(800)
    assert [each.event.record.offset for each in sent] == list(range(100, 900))


def test_a_start_behind_new_events_ends_theirs(rig: Rig, endpoint: Endpoint) -> None:
    """The live stream is behind the start: its events up to there are sent too, once."""
    assert leaves(rig, endpoint, 50)
    rig.turn(0.01, 5)
    assert places(rig) == [(50, 100), (100, None)]


def test_a_restart_parts_cursors_that_overlap(rig: Rig, endpoint: Endpoint) -> None:
    """A worker died before it had stored where the first one ends."""
    assert leaves(rig, endpoint, 500)
    rig.parking.poll(0.0)
    rig.answer()
    kept = cursors.of_partition(rig.engine, GROUP, HERE)
    assert [(each.first, each.end) for each in kept] == [(100, None), (500, None)]
    rig.backlog.load(HERE, kept)
    assert places(rig) == [(100, 500), (500, None)]


def test_a_start_at_the_end_of_the_log_is_as_old_as_its_first_event(rig: Rig, endpoint: Endpoint) -> None:
    """It tells for how long its events are kept, before it reads one: the live stream has left the first one to it."""
    rig.look()
    assert rig.backlog.waiting() == {}
    assert leaves(rig, endpoint, 500)
    assert leaves(rig, endpoint, 501)
    assert rig.backlog.waiting() == {(*HERE, rig.subscription): 1_700_000_000.5}


def test_a_known_start_begins_no_other_cursor(rig: Rig, endpoint: Endpoint) -> None:
    """Once it has met the live stream, that makes the deliveries, although the subscription still says so."""
    rig.look()
    assert leaves(rig, endpoint, 200)
    (cursor,) = rig.backlog.here((*HERE, rig.subscription))
    cursor.meet(300)
    assert not leaves(rig, endpoint, 300)
    assert places(rig) == [(100, 300)]


def test_a_start_meets_the_live_stream_once_that_knows_the_subscription(rig: Rig, endpoint: Endpoint) -> None:
    """Until then the live stream, which caches subscriptions, might leave out events behind the meeting."""
    rig.look()
    began = rig.monotonic.now
    sent = rig.all_of(800)
    assert len(sent) == 800
    assert rig.monotonic.now < began + 4
    assert places(rig) == [(100, None)]
    rig.sent_in(6)
    assert places(rig) == [(100, 900)]
    assert endpoint.starts
