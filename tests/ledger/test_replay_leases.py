"""A background replay's row says which process runs it: one at a time, and another once its lease has expired."""

from collections.abc import Callable
from threading import Barrier, Thread

import pytest
from sqlalchemy import Engine

from consumer.errors import ReplayEnded
from consumer.ledger import replays
from consumer.ledger.replays import Lease, Replay, Span
from consumer.subscriptions import repository
from tests.ledger.rows_kit import GROUP, URL, find, losing_the_answer, make_event, offsets, parked

NOW = 1_700_000_000.25
Begin = Callable[..., int]


@pytest.fixture
def begin(engine: Engine) -> Begin:
    """Creates a replay of 100 records for API processes and returns its id."""
    subscription = repository.add(engine, URL, "user.created")

    def make(group: str = GROUP, *, background: bool = True) -> int:
        return replays.create(
            engine, group, subscription, 0.0, 1.0, None, 1.0, [Span("t", 0, 0, 100)], background=background
        )

    return make


def load(engine: Engine, replay: int) -> Replay:
    found = replays.load(engine, replay)
    assert found is not None
    return found


def claim(engine: Engine, now: float = NOW, group: str = GROUP) -> int | None:
    found = replays.claim(engine, group, now, now + 30)
    return None if found is None else found.id


def advance(engine: Engine, replay: int, held: float, first: int, *, until: float) -> None:
    """Stores three records from an offset on, as the process whose lease ends at `held`."""
    rows = [parked(make_event(first + n), 1, attempt=0, replay=replay) for n in range(3)]
    replays.advance(engine, replay, GROUP, rows, {("t", 0): first + 3}, NOW, Lease(held, until))


def test_each_replay_is_given_to_one_process(engine: Engine, begin: Begin) -> None:
    """A claim skips ended replays and those of commands and other groups.

    A held one can be claimed once its lease expires.
    """
    first, second = begin(), begin()
    begin(background=False)
    begin("another")
    replays.finish(engine, begin(), NOW)
    replays.cancel(engine, begin(), NOW)
    assert [claim(engine), claim(engine, NOW + 1), claim(engine, NOW + 29)] == [first, second, None]
    assert [claim(engine, NOW + 30), claim(engine, NOW + 30)] == [first, None]
    assert load(engine, first).lease_until == NOW + 60


def test_concurrent_claims_get_different_replays(engine: Engine, begin: Begin) -> None:
    """Each replay goes to one process, however their statements interleave."""
    made = [begin() for _ in range(3)]
    barrier, got = Barrier(6), list[int | None]()

    def ask() -> None:
        barrier.wait()
        got.append(claim(engine))

    threads = [Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(each for each in got if each is not None) == made


def test_a_process_whose_lease_expired_stores_no_more(engine: Engine, begin: Begin) -> None:
    """Another process has gone on, and its rows may be sent and deleted by now.

    Neither rows nor the count are written again.
    """
    replay = begin()
    claim(engine)
    advance(engine, replay, NOW + 30, 0, until=NOW + 31)
    assert claim(engine, NOW + 31) == replay
    advance(engine, replay, NOW + 61, 3, until=NOW + 62)
    with pytest.raises(ReplayEnded, match=f"another process runs replay {replay}"):
        advance(engine, replay, NOW + 31, 3, until=NOW + 63)
    replays.release(engine, replay, NOW + 31, None, "reported without the lease")
    found = load(engine, replay)
    assert (found.matched, found.spans[0].begin, found.lease_until, found.last_error) == (6, 6, NOW + 62, None)
    assert offsets(find(engine)) == [0, 1, 2, 3, 4, 5]


def test_a_lost_answer_does_not_lose_the_lease(engine: Engine, begin: Begin) -> None:
    """The holder may repeat a transaction whose answer was lost."""
    replay = begin()
    claim(engine)
    losing_the_answer(engine, lambda: advance(engine, replay, NOW + 30, 0, until=NOW + 31))
    advance(engine, replay, NOW + 30, 0, until=NOW + 31)
    assert (load(engine, replay).matched, offsets(find(engine))) == (3, [0, 1, 2])


def test_a_released_replay_is_free_or_backed_off(engine: Engine, begin: Begin) -> None:
    """A released replay is free at once, or only at its retry time; one that waits delays no other."""
    failing, other = begin(), begin()
    claim(engine)
    replays.release(engine, failing, NOW + 30, NOW + 10, "why")
    assert (load(engine, failing).last_error, load(engine, failing).state(NOW)) == ("why", "waiting")
    assert claim(engine, NOW + 1) == other
    replays.release(engine, other, NOW + 31, None, None)
    assert [claim(engine, NOW + 11), claim(engine, NOW + 11)] == [other, failing]


def test_the_state_says_whether_a_process_runs_it(engine: Engine, begin: Begin) -> None:
    """It waits without a holder, with an expired lease, and with an error.

    For a replay of a command the state cannot tell.
    """
    replay = begin()
    assert load(engine, replay).state(NOW) == "waiting"
    claim(engine)
    assert [load(engine, replay).state(at) for at in (NOW, NOW + 30)] == ["running", "waiting"]
    replays.advance(engine, replay, GROUP, [], {}, NOW, Lease(NOW + 30, NOW + 31, "no broker"))
    assert (load(engine, replay).state(NOW), load(engine, replay).last_error) == ("waiting", "no broker")
    replays.advance(engine, replay, GROUP, [], {}, NOW, Lease(NOW + 31, NOW + 32))
    assert (load(engine, replay).state(NOW), load(engine, replay).last_error) == ("running", None)
    replays.finish(engine, replay, NOW)
    assert (load(engine, replay).state(NOW), load(engine, replay).lease_until) == ("finished", None)
    assert load(engine, begin(background=False)).state(NOW) == "unfinished"


def test_a_cancellation_stops_the_running_process(engine: Engine, begin: Begin) -> None:
    """Its next transaction fails with the reason, and later ones change nothing."""
    replay = begin()
    claim(engine)
    assert replays.cancel(engine, replay, NOW, "subscription 1 was removed")
    with pytest.raises(ReplayEnded, match="was cancelled"):
        advance(engine, replay, NOW + 30, 0, until=NOW + 31)
    replays.release(engine, replay, NOW + 30, NOW + 60, "another reason")
    found = load(engine, replay)
    assert (found.state(NOW), found.last_error, found.lease_until) == ("cancelled", "subscription 1 was removed", None)
    assert claim(engine, NOW + 99) is None
