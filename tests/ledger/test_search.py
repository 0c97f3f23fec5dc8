"""Searching stored deliveries page by page, and counting them up to a bound, whatever the table's size."""

from collections.abc import Callable

import pytest
from sqlalchemy import Engine, bindparam, update

from consumer.errors import InvalidPosition
from consumer.ledger import admin, search
from consumer.ledger.admin import DeliveryQuery
from consumer.ledger.rows import AttemptFailure, time_of
from consumer.subscriptions import repository
from models import ParkedDelivery, Status
from tests.ledger.rows_kit import URL, make_event, park, parked, plans, query, run

HOUR = 3600.0
T = 1_700_000_000.0


def found(engine: Engine, asked: DeliveryQuery, limit: int = 200, position: str | None = None) -> list[int]:
    """The offsets on all pages, which never overlap."""
    offsets: list[int] = []
    while True:
        page = search.search(engine, asked, limit, position)
        assert len(page.deliveries) <= limit
        offsets += [each.record.offset for each in page.deliveries]
        position = page.position
        if position is None:
            return offsets


@pytest.fixture
def two(engine: Engine) -> tuple[int, int]:
    """Forty deliveries for each of two subscriptions, one every ten minutes; odd offsets belong to the second.

    The second was of all tenants until now: of its events, every seventh is of another tenant.
    """
    repository.add(engine, URL, "user.created", tenant="acme")  # it has no deliveries
    subs = (
        repository.add(engine, URL, "user.created"),
        repository.add(engine, URL, "user.*", tenant="acme"),
    )
    events = [
        make_event(
            offset,
            topic="tu"[offset >= 40],
            type="user.deleted" if offset % 5 == 0 else "x",
            tenant="acme" if offset % 7 else "other",
        )
        for offset in range(80)
    ]
    park(engine, *(parked(event, subs[event.record.offset % 2]) for event in events), now=T)
    stored_at = update(ParkedDelivery).where(ParkedDelivery.record_offset == bindparam("b_offset"))
    with engine.begin() as connection:
        connection.execute(
            stored_at.values(created_at=bindparam("b_at", type_=ParkedDelivery.created_at.type)),
            [{"b_offset": offset, "b_at": time_of(T + offset * 600)} for offset in range(80)],
        )
    run(engine, "UPDATE webhook_deliveries SET status = 'exhausted' WHERE record_offset >= 60")
    return subs


@pytest.mark.parametrize("limit", [1, 7, 200])
def test_pages_have_each_delivery_once_newest_first(engine: Engine, two: tuple[int, int], limit: int) -> None:
    """The pages have each delivery once, newest first, whatever their length and whatever is stored meanwhile."""
    first = search.search(engine, DeliveryQuery(), limit)
    park(engine, parked(make_event(99), two[0]), now=T)
    rest = found(engine, DeliveryQuery(), limit, first.position) if first.position else []
    assert [*(each.record.offset for each in first.deliveries), *rest] == list(range(79, -1, -1))


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (DeliveryQuery(statuses=[Status.EXHAUSTED]), lambda offset: offset >= 60),
        (DeliveryQuery(statuses=[Status.EXHAUSTED, Status.PARKED]), lambda _: True),
        (DeliveryQuery(statuses=[Status.HELD]), lambda _: False),
        (DeliveryQuery(subscription=2), lambda offset: offset % 2),
        (DeliveryQuery(subscription=2, statuses=[Status.PARKED]), lambda offset: offset % 2 and offset < 60),
        (DeliveryQuery(tenant="acme"), lambda offset: offset % 2 and offset % 7),
        (DeliveryQuery(tenant="*"), lambda offset: not offset % 2),
        (DeliveryQuery(tenant="acme", subscription=1), lambda _: False),
        (DeliveryQuery(event_type="user.deleted"), lambda offset: offset % 5 == 0),
        (DeliveryQuery(topic="u"), lambda offset: offset >= 40),
        (DeliveryQuery(since=T + 4 * HOUR), lambda offset: offset >= 24),
        (DeliveryQuery(until=T + 4 * HOUR), lambda offset: offset < 24),
        (
            DeliveryQuery([Status.PARKED], 2, "acme", "user.deleted", "t", T + HOUR, T + 9 * HOUR),
            lambda offset: offset % 10 == 5 and offset % 7 and 6 <= offset < 40,
        ),
    ],
)
@pytest.mark.parametrize(("examined", "receivers", "arms"), [(3, 1000, 1), (1000, 1000, 32), (3, 0, 32)])
def test_a_search_finds_all_matching_deliveries(
    engine: Engine,
    two: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
    asked: DeliveryQuery,
    expected: Callable[[int], bool],
    examined: int,
    receivers: int,
    arms: int,
) -> None:
    """It also does if a page ends early: it has examined enough rows, or more subscriptions of the tenant have some."""
    monkeypatch.setattr(search, "EXAMINED", examined)
    monkeypatch.setattr(search, "RECEIVERS", receivers)
    monkeypatch.setattr(search, "ARMS", arms)
    real = None if asked.subscription is None else two[asked.subscription - 1]  # Oracle's ids may begin anywhere
    wanted = [offset for offset in range(79, -1, -1) if expected(offset)]
    for limit in (2, 200):
        assert found(engine, asked._replace(subscription=real), limit) == wanted


def test_a_limit_outside_the_bounds_is_refused(engine: Engine) -> None:
    """A page has 1 to 200 deliveries."""
    for limit in (0, 201):
        with pytest.raises(ValueError, match="1 to 200"):
            search.search(engine, DeliveryQuery(), limit)


@pytest.mark.parametrize("position", ["", "7", "7.", "a.b", "7.7.7", f"{2**63}.0", "9" * 5000 + ".1"])
def test_an_invalid_position_is_refused(engine: Engine, position: str) -> None:
    """Clients send positions back, so any text may arrive."""
    with pytest.raises(InvalidPosition, match="begin without one"):
        search.search(engine, DeliveryQuery(), 10, position)


def test_an_empty_table_has_an_empty_page(engine: Engine) -> None:
    """The page is empty with any condition."""
    assert search.search(engine, DeliveryQuery()) == ((), None)
    assert search.search(engine, DeliveryQuery(since=T, until=T + 1)) == ((), None)


def test_ids_out_of_the_order_of_time_are_found(engine: Engine, two: tuple[int, int]) -> None:
    """Rows are found though workers' clocks and cached sequences order ids and times differently by some minutes."""
    park(engine, parked(make_event(80), two[0]), now=T + 79 * 600 - 300)
    assert found(engine, DeliveryQuery(since=T + 79 * 600)) == [79]
    assert found(engine, DeliveryQuery(until=T + 79 * 600))[:2] == [80, 78]
    assert found(engine, DeliveryQuery(since=T + 79 * 600 - 300)) == [80, 79]


def test_redelivery_by_tenant_and_topic(engine: Engine, two: tuple[int, int]) -> None:
    """Only the tenant's own deliveries of the topic are marked."""
    chosen = DeliveryQuery(statuses=[Status.EXHAUSTED], tenant="acme", topic="u")
    marked = {each for step in admin.redeliver(engine, chosen, T) for each in step.ids}
    ids = {row.id for row in query(engine, f"SELECT id FROM webhook_deliveries WHERE subscription_id = {two[1]}")}  # noqa: S608 (a number)
    assert len(marked) == 8  # two of its events are of another tenant
    assert marked < ids
    assert admin.count(engine, chosen, 100) == 0
    assert admin.count(engine, DeliveryQuery(tenant="acme", topic="t"), 100) == 17


@pytest.mark.parametrize(
    ("asked", "index"),
    [
        (DeliveryQuery(), "INTEGER PRIMARY KEY (rowid>? AND rowid<?)"),
        (
            DeliveryQuery(statuses=[Status.HELD]),
            "COVERING INDEX ix_webhook_deliveries_state (status=? AND id>? AND id<?)",
        ),
        (
            DeliveryQuery(subscription=1, since=T),
            "COVERING INDEX ix_webhook_deliveries_receiver (subscription_id=? AND status=? AND id>? AND id<?)",
        ),
        (
            DeliveryQuery([Status.PARKED], 1, "acme", "x", "t", T, T),
            "COVERING INDEX ix_webhook_deliveries_receiver (subscription_id=? AND status=? AND id>? AND id<?)",
        ),
        (
            DeliveryQuery(tenant="*"),
            "COVERING INDEX ix_webhook_deliveries_receiver (subscription_id=? AND status=? AND id>? AND id<?) | CORREL",
        ),
    ],
)
def test_an_index_has_the_ids_in_order(sqlite_engine: Engine, asked: DeliveryQuery, index: str) -> None:
    """An index gives the ids in order, and rows are read by id, whatever the conditions."""
    sub = repository.add(sqlite_engine, URL, "user.created")
    park(sqlite_engine, *(parked(make_event(offset), sub) for offset in range(10)), now=T)
    told = plans(sqlite_engine, lambda: search.search(sqlite_engine, asked))
    assert all("SCAN webhook_" not in plan for _, plan in told), told
    assert any(index in plan and "ORDER BY" not in plan for _, plan in told), told


def test_states_are_counted_up_to_a_bound(engine: Engine, sub: int) -> None:
    """A count of one above the bound means more; a state without rows counts zero."""
    park(engine, *(parked(make_event(offset), sub) for offset in range(8)))
    run(engine, "UPDATE webhook_deliveries SET status = 'held' WHERE record_offset < 3")
    assert search.by_state(engine, 3) == {"parked": 4, "blocked": 0, "held": 3, "exhausted": 0, "delivered": 0}


def test_the_most_loaded_subscriptions_come_first(engine: Engine) -> None:
    """The ones with most open rows come first, up to the limit requested; each count stops at its bound."""
    few, many, ended, some = (repository.add(engine, URL, "user.created") for _ in range(4))
    for sub, number in ((ended, 9), (few, 1), (many, 7), (some, 3)):
        park(engine, *(parked(make_event(offset), sub) for offset in range(number)))
    run(engine, "UPDATE webhook_deliveries SET status = 'exhausted' WHERE subscription_id = :s", s=ended)
    run(engine, "UPDATE webhook_deliveries SET status = 'held' WHERE subscription_id = :s", s=some)
    assert search.most_loaded(engine, 10) == [many, some, few]
    assert search.most_loaded(engine, 2) == [many, some]
    assert search.loads(engine, [ended, few, many, some, 999], 5) == {ended: 0, few: 1, many: 5, some: 3, 999: 0}
    assert search.loads(engine, [], 5) == {}


def test_the_latest_failure_is_found(engine: Engine) -> None:
    """It is one of the rows stored first or last: an outage stores many without an attempt behind those that failed."""
    sub, other = (repository.add(engine, URL, "user.created") for _ in range(2))
    assert search.last_failures(engine, [sub]) == search.last_failures(engine, []) == {}
    late = AttemptFailure("status 500", 500, None, 99.0)
    rows = [
        parked(make_event(1), sub),
        parked(make_event(2), sub, last=late),
        parked(make_event(3), sub, attempt=0),
        parked(make_event(4), other, last=(others := late._replace(error="another's", at=500.0))),
    ]
    park(engine, *rows, *(parked(make_event(offset), sub, attempt=0) for offset in range(5, 25)))
    assert search.last_failures(engine, [sub, 999, other]) == {sub: late, other: others}
    run(engine, "UPDATE webhook_deliveries SET status = 'exhausted' WHERE record_offset = 2")
    assert search.last_failures(engine, [sub]) == {sub: late}
