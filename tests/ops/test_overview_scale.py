"""The cost of lists and pages with 100,000 subscriptions and a million stored deliveries: a few seeks, no table scan.

pytest -s prints the time of each function and page.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
import requests
from sqlalchemy import Engine, event

from consumer.api.app import create_app
from consumer.api.backing import Backing
from consumer.api.tokens import Caller
from consumer.console.app import BASE
from consumer.console.assembly import with_console
from consumer.crypto.vault import Vault
from consumer.http.server import BackgroundServer, listen
from consumer.ledger import admin, replays, search
from consumer.ledger.admin import DeliveryQuery
from consumer.ledger.search import MOST
from consumer.ops import overview
from consumer.ops.changes import Deployment
from consumer.subscriptions import health
from models import Status
from tests.console.tokens import Tokens
from tests.large_estate import BORN, DELIVERIES, fill
from tests.ledger.rows_kit import GROUP, plans

STATEMENTS = 10  # of a page
SECONDS = 0.05  # of processor time, of a page
FACTOR = 4  # by which a loaded machine may need more of it
SEEN_BY = {
    name: Caller(name, frozenset({"read"}), tenant)
    for name, tenant in (("everything", None), ("rare", "rare"), ("tenant-1", "tenant-1"), ("nobody", "nobody"))
}
OF_ALL = (
    "/console/",
    "/console/types",
    "/console/replays",
    "/v1/statistics",
    "/v1/event-types?limit=1000",
    "/v1/replays?limit=200",
    "/v1/subscriptions?tenant=nobody&state=disabled",
    "/v1/subscriptions?tenant=rare",
    "/v1/deliveries?tenant=*&limit=200",
    "/v1/deliveries?tenant=rare",
)
OF_A_TENANT = (
    "/console/subscriptions",
    "/console/subscriptions?state=disabled",
    "/console/deliveries",
    "/v1/subscriptions?limit=200",
    "/v1/subscriptions?state=failing&limit=200",
    "/v1/subscriptions?url=nowhere",
    "/v1/deliveries?limit=200",
    "/v1/deliveries?status=held&status=exhausted",
    "/v1/deliveries?event_type=nothing",
    "/v1/deliveries?since=2023-11-20T00:00:00Z&until=2023-11-20T03:00:00Z",
)

# Replays are few. Types and patterns are counted in an index, 0.1 µs for each subscription.
SCANNED = {"SCAN webhook_replays", "SCAN webhook_subscriptions USING COVERING INDEX ix_webhook_subs_match"}


@pytest.fixture(scope="module")
def full(new_sqlite_engine: Callable[[], Engine]) -> Iterator[Engine]:
    """The database with all these rows."""
    engine = new_sqlite_engine()
    fill(engine)
    yield engine
    engine.dispose()


@pytest.mark.timeout(600)  # inserting the rows takes a minute
@pytest.mark.parametrize(
    ("name", "work", "statements"),
    [
        ("newest", lambda e: search.search(e, DeliveryQuery(), MOST), 2),
        ("a state", lambda e: search.search(e, DeliveryQuery([Status.HELD]), MOST), 2),
        ("a subscription", lambda e: search.search(e, DeliveryQuery(subscription=1), MOST), 2),
        ("a subscription's state", lambda e: search.search(e, DeliveryQuery([Status.PARKED], 1), MOST), 2),
        ("a time", lambda e: search.search(e, DeliveryQuery(since=BORN + 5e5, until=BORN + 5.1e5), MOST), 9),
        ("a type", lambda e: search.search(e, DeliveryQuery(event_type="type.7"), MOST), 2),
        ("a tenant that has nothing", lambda e: search.search(e, DeliveryQuery(tenant="acme"), MOST), 1),
        ("a tenant that has much", lambda e: search.search(e, DeliveryQuery(tenant="tenant-1"), MOST), 3),
        (
            "a tenant's time",
            lambda e: search.search(e, DeliveryQuery(tenant="tenant-1", since=BORN, until=BORN + 5e5)),
            10,
        ),
        ("detail", lambda e: admin.detail(e, DELIVERIES // 2), 2),
        ("states", lambda e: search.by_state(e, overview.MOST_COUNTED), 1),
        ("overview: receivers", overview._receivers, 5),
        ("failing", lambda e: health.failing(e, 20), 1),
        ("disabled", lambda e: health.disabled(e, 20), 1),
        ("problems", lambda e: health.problematic(e, overview.LOOKED_AT), 2),
        ("named types", lambda e: health.named_types(e, 1_000), 1),
        ("replays", lambda e: replays.find(e, limit=MOST), 1),
    ],
)
def test_no_table_is_scanned(full: Engine, name: str, work: Callable[[Engine], object], statements: int) -> None:
    """Each statement has an index for its condition and order, and their number is bounded."""
    took = seconds(lambda: work(full))
    told = plans(full, lambda: work(full))
    print(f"\n{name}: {took * 1000:.1f} ms, {len(told)} statements")  # noqa: T201 (for -s)
    assert 0 < len(told) <= statements
    for sql, plan in told:
        for part in plan.split(" | "):
            if name != "disabled":  # few subscriptions are disabled; see there
                assert not part.startswith("SCAN webhook_") or part in SCANNED, (sql, plan)
        assert "FOR ORDER BY" not in plan or "webhook_secrets" in sql, (sql, plan)
    assert took < FACTOR * SECONDS


@pytest.fixture(scope="module")
def port(full: Engine) -> Iterator[int]:
    """A server of the API and the console on these rows."""
    tokens = Tokens(SEEN_BY)
    backing = Backing(Deployment(full, GROUP, Vault()), look=lambda: overview.overview(full, None, ()))
    server = BackgroundServer(
        with_console(create_app(backing, tokens), backing, tokens), listen("127.0.0.1", 0), "pages"
    )
    yield server.port
    server.close()


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("who", "path"),
    [
        *(("everything", path) for path in (*OF_ALL, *OF_A_TENANT)),
        *((who, path) for who in ("rare", "tenant-1", "nobody") for path in OF_A_TENANT),
    ],
)
def test_each_page_is_cheap_whoever_asks(full: Engine, port: int, who: str, path: str) -> None:
    """It takes few statements and little processor time, also if it finds nothing."""
    with requests.Session() as visitor:
        visitor.headers["authorization"] = f"Bearer {who}"
        visitor.post(f"http://127.0.0.1:{port}{BASE}/sign-in", data={"token": who})

        def look() -> None:
            assert visitor.get(f"http://127.0.0.1:{port}{path}", timeout=60).status_code == 200

        took = seconds(look)
        with statements(full) as issued:
            look()
    print(f"\n{who}: {path}: {took * 1000:.1f} ms, {len(issued)} statements")  # noqa: T201 (for -s)
    assert len(issued) <= STATEMENTS, issued
    assert took < FACTOR * SECONDS


@pytest.mark.parametrize(("who", "query"), [("rare", ""), ("everything", "?tenant=rare")])
def test_one_request_finds_a_small_tenants_deliveries(port: int, who: str, query: str) -> None:
    """It finds both of them, wherever they are among the others'."""
    headers = {"authorization": f"Bearer {who}"}
    found = requests.get(f"http://127.0.0.1:{port}/v1/deliveries{query}", headers=headers, timeout=60).json()
    assert ([each["offset"] for each in found["items"]], found["next"]) == ([99_990, 77_776], None)


def seconds(work: Callable[[], object]) -> float:
    """The processor time that `work` takes in all threads, once statements are compiled and pages are cached."""
    took = []
    for _ in range(4):
        began = time.process_time()
        work()
        took.append(time.process_time() - began)
    return min(took)


@contextmanager
def statements(engine: Engine) -> Iterator[list[str]]:
    """The statements issued meanwhile, but not the beginnings of transactions."""
    issued: list[str] = []

    def note(_: object, __: object, statement: str, *___: object) -> None:
        if not statement.startswith("BEGIN"):
            issued.append(statement)

    with ExitStack() as stack:
        event.listen(engine, "before_cursor_execute", note)
        stack.callback(event.remove, engine, "before_cursor_execute", note)
        yield issued
