"""The cost of an overview of 100,000 subscriptions and a million stored deliveries: a few seeks, and no table scan.

pytest -s prints the time of each function.
"""

import time
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine

from consumer.ledger import admin, counts, replays, search
from consumer.ledger.search import MOST, Query
from consumer.ops import overview
from consumer.subscriptions import event_types, health
from models import Status
from tests.large_estate import BORN, DELIVERIES, fill
from tests.ledger.rows_kit import plans


@pytest.fixture(scope="module")
def full(new_sqlite_engine: Callable[[], Engine]) -> Iterator[Engine]:
    """The database with all these rows."""
    engine = new_sqlite_engine()
    fill(engine)
    yield engine
    engine.dispose()


OF_ALL = 10 * overview.LISTED  # about the number of statements of a part


@pytest.mark.timeout(600)  # inserting the rows takes a minute
@pytest.mark.parametrize(
    ("name", "work", "statements"),
    [
        ("newest", lambda e: search.search(e, Query(), MOST), 2),
        ("a state", lambda e: search.search(e, Query([Status.HELD]), MOST), 2),
        ("a subscription", lambda e: search.search(e, Query(subscription=1), MOST), 6),
        ("a subscription's state", lambda e: search.search(e, Query([Status.PARKED], 1), MOST), 2),
        ("a time", lambda e: search.search(e, Query(since=BORN + 5e5, until=BORN + 5.1e5), MOST), 4 + 2 * 21),
        ("a type", lambda e: search.search(e, Query(event_type="type.7"), MOST), 2),
        ("a tenant that has nothing", lambda e: search.search(e, Query(tenant="acme"), MOST), 2),
        ("recent types", search.recent_types, 2),
        ("detail", lambda e: admin.detail(e, DELIVERIES // 2), 2),
        ("states", lambda e: counts.by_state(e, overview.MOST_COUNTED), 5),
        ("most loaded", lambda e: counts.most_loaded(e, 20, overview.MOST_COUNTED), 6 + 20),
        ("overview: loaded", overview._loaded, OF_ALL),
        ("overview: failing", overview._failing, OF_ALL),
        ("failing", lambda e: health.failing(e, 20), 1),
        ("disabled", lambda e: health.disabled(e, 20), 1),
        ("problems", lambda e: health.problematic(e, overview.LOOKED_AT), 10),
        ("named types", lambda e: event_types.named_types(e, 50, 10_000), 100),
        ("replays", lambda e: replays.find(e, limit=MOST), 1),
    ],
)
def test_no_table_is_scanned(full: Engine, name: str, work: Callable[[Engine], object], statements: int) -> None:
    """Each statement has an index for its condition and order, and their number is bounded."""
    began = time.perf_counter()
    work(full)
    took = time.perf_counter() - began
    told = plans(full, lambda: work(full))
    print(f"\n{name}: {took * 1000:.1f} ms, {len(told)} statements")  # noqa: T201 (for -s)
    assert 0 < len(told) <= statements
    for sql, plan in told:
        for part in plan.split(" | "):
            if name != "disabled":  # few subscriptions are disabled; see there
                assert not part.startswith("SCAN webhook_") or part == "SCAN webhook_replays", (sql, plan)
        assert "FOR ORDER BY" not in plan or "webhook_secrets" in sql, (sql, plan)
    assert took < 2.0  # twenty times the usual time: the machine may be loaded
