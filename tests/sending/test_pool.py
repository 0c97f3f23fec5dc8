"""The pool of kept connections: which are kept, for how long, and which are closed first."""

from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.sending.pool import _RESTING, KEPT, REST, Pool, connections, fitting
from consumer.sending.route import Route


class Kept:
    """Stands in for a connection."""

    rest = 0.0

    def __init__(self, route: Route, born: float = 0.0, *, quiet: bool = True) -> None:
        self.route, self.born, self.used_at = route, born, born
        self.closed = False
        self.looked_at = 0
        self._quiet = quiet

    def cancel(self) -> None:
        self.closed = True

    def is_quiet(self) -> bool:
        self.looked_at += 1
        self.closed = not self._quiet
        return self._quiet


def route(number: int = 0) -> Route:
    return Route(f"r{number}.test", 443, tls=True)


def put(pool: Pool, kept: Kept, now: float) -> Kept:
    pool.put(kept, now)
    return kept


def take(pool: Pool, way: Route, now: float, served_at: float = 0.0, room: int = 1_000) -> Kept | None:
    return cast("Kept | None", pool.take(way, now, served_at, room))


@pytest.mark.parametrize(("idle", "kept"), [(54.9, True), (55.0, False), (500.0, False)])
def test_a_connection_that_was_idle_for_long_is_not_used(idle: float, *, kept: bool) -> None:
    """Servers close it from then on (nginx after 75 s, AWS's load balancers after 60 s): the two would cross."""
    pool = Pool(10)
    one = put(pool, Kept(route(), born=50.0), 60.0)
    assert (take(pool, route(), 60.0 + idle) is one) is kept
    assert one.closed is not kept
    assert len(pool) == 0


@pytest.mark.parametrize(("age", "kept"), [(599.9, True), (600.0, False)])
def test_an_old_connection_is_not_used(age: float, *, kept: bool) -> None:
    """However busy it is, since the name's address may have changed. A younger one behind it is used."""
    pool = Pool(10)
    young, old = put(pool, Kept(route(), born=500.0), 599.0), put(pool, Kept(route(), born=0.0), 599.5)
    assert take(pool, route(), age) is (old if kept else young)
    assert old.closed is not kept
    assert not young.closed


def test_expire_closes_old_connections() -> None:
    """It closes no others."""
    pool = Pool(10)
    old, idle, good = Kept(route(), born=0.0), Kept(route(1), born=400.0), Kept(route(1), born=400.0)
    put(pool, old, 550.0)
    put(pool, idle, 545.0)
    put(pool, good, 545.1)
    pool.expire(599.99)
    assert (old.closed, idle.closed, good.closed) == (False, False, False)
    pool.expire(600.0)
    assert (old.closed, idle.closed, good.closed) == (True, True, False)
    assert take(pool, route(), 600.0) is None
    assert take(pool, route(1), 600.0) is good


@pytest.mark.parametrize(
    ("served_at", "now", "looked_at"), [(1.0, 1.01, 1), (1.001, 1.01, 0), (1.001, 1.04, 0), (1.001, 1.06, 1)]
)
def test_a_connection_is_read_only_where_the_poller_has_not_looked(
    served_at: float, now: float, looked_at: int
) -> None:
    """A read is a system call. The poller has looked if its wait ended after the answer, and not long ago."""
    pool = Pool(10)
    one = put(pool, Kept(route()), 1.0)
    assert take(pool, route(), now, served_at) is one
    assert one.looked_at == looked_at


def test_a_connection_with_unrequested_bytes_is_closed() -> None:
    """The next request would take them for its answer. Another connection carries it."""
    pool = Pool(10)
    good, bad = put(pool, Kept(route()), 1.0), put(pool, Kept(route(), quiet=False), 1.0)
    assert take(pool, route(), 2.0) is good
    assert (bad.closed, good.closed, len(pool)) == (True, False, 0)


def test_a_connection_rests_before_it_is_used_again() -> None:
    """A receiver that answers twice does so at once: the second answer must not count for the next request.

    Resting connections are taken only if there are many, or if another one would replace a kept one.
    """
    pool = Pool(200)
    kept = [put(pool, Kept(route()), 1.0) for _ in range(_RESTING)]
    for each in kept:
        each.rest = REST
    assert take(pool, route(), 1.0) is kept[0]
    assert take(pool, route(), 1.0) is None
    assert take(pool, route(), 1.0, room=_RESTING - 1) is kept[1]
    assert take(pool, route(), 1.0 + REST) is kept[-1]


@pytest.mark.parametrize(
    ("slots", "descriptors", "most"),
    [(1000, 2**20, 1000 + KEPT), (1000, 2000, 1500), (1000, 1024, 1000), (10_000, 20_000, 10_000 + KEPT)],
)
def test_more_connections_are_kept_than_requests_are_open(slots: int, descriptors: int, most: int) -> None:
    """The number is bounded by the descriptors, and requests do not run out of them."""
    assert connections(slots, descriptors) == most


@pytest.mark.parametrize(
    ("limit", "slots"), [(1_000_000, 1000), (2000, 1000), (1500, 1000), (1024, 524), (200, 50), (75, 19), (3, 1)]
)
def test_few_descriptors_leave_fewer_slots(limit: int, slots: int) -> None:
    """Brokers, the database, ports and files need some: 500, or three quarters of few."""
    assert fitting(1000, limit) == slots


STEPS = st.tuples(
    st.sampled_from(("put", "take", "drop", "expire")), st.integers(0, 3), st.floats(0, 60), st.booleans()
)


@given(st.integers(1, 6), st.lists(STEPS, max_size=60))
def test_the_bound_holds_in_any_order_of_calls(most: int, steps: list[tuple[str, int, float, bool]]) -> None:
    """No connection is lost, or given out closed or twice. The least recently used one is closed first."""
    pool = Pool(most)
    now = 0.0
    idle: list[Kept] = []  # the most recently used one is the last
    for what, number, seconds, quiet in steps:
        now += seconds
        before = [one for one in idle if one.route == route(number)]
        if what == "put":
            idle.append(put(pool, Kept(route(number), born=now, quiet=quiet), now))
        elif what == "take":
            taken = take(pool, route(number), now)
            assert taken is None or not taken.closed
            assert taken is None or taken is [one for one in before if not one.closed][-1]
            idle = [one for one in idle if one is not taken]
        elif what == "drop" and before:
            pool.drop(before[0])
            idle.remove(before[0])
        elif what == "expire":
            pool.expire(now)
            assert all(now - one.used_at < 55 and now - one.born < 600 for one in idle if not one.closed)
        if what == "put":
            closed = [one for one in idle if one.closed]
            assert closed == idle[: len(closed)]
        idle = [one for one in idle if not one.closed]
        assert len(pool) == len(idle) <= most
    pool.close()
    assert all(one.closed for one in idle)
    assert not pool._places
