"""The cost of pages with 100,000 subscriptions and a million stored deliveries: a few seeks, no table scan.

pytest -s prints the time of each page.
"""

import time
from collections.abc import Callable, Iterator

import pytest
import requests
from sqlalchemy import Engine

from consumer.api.app import create_app
from consumer.api.backing import Backing
from consumer.api.tokens import Caller
from consumer.console.app import BASE
from consumer.console.assembly import with_console
from consumer.crypto.vault import Vault
from consumer.http.server import BackgroundServer, listen
from consumer.ops import overview
from consumer.ops.changes import Deployment
from tests.console.tokens import Tokens
from tests.large_estate import DELIVERIES, fill
from tests.ledger.rows_kit import GROUP, plans

STATEMENTS = 11  # of a page
SECONDS = 0.05  # of processor time, of a page
FACTOR = 4  # by which a loaded machine may need more of it
SEEN_BY = {
    name: Caller(name, frozenset({"read"}), tenant)
    for name, tenant in (("everything", None), ("rare", "rare"), ("tenant-1", "tenant-1"), ("nobody", "nobody"))
}
OF_ALL = (
    "/console/types",
    "/console/subscriptions/77769",
    f"/console/deliveries/{DELIVERIES // 2}",
    "/v1/search?q=99999",
    "/v1/event-types?limit=200",
    "/v1/subscriptions?tenant=nobody&state=disabled",
    "/v1/subscriptions?tenant=rare",
    "/v1/deliveries?tenant=*&limit=200",
    "/v1/deliveries?tenant=rare",
    f"/v1/deliveries/{DELIVERIES // 2}",
)
OF_A_TENANT = (
    "/console/",
    "/console/subscriptions",
    "/console/subscriptions?state=disabled",
    "/console/deliveries",
    "/v1/subscriptions?limit=200",
    "/v1/subscriptions?state=failing&limit=200",
    "/v1/subscriptions?url=nowhere",
    "/v1/deliveries?limit=200",
    "/v1/deliveries?state=held&state=exhausted",
    "/v1/deliveries?event_type=nothing",
    "/v1/deliveries?since=2023-11-20T00:00:00Z&until=2023-11-20T03:00:00Z",
    "/v1/statistics",
    "/v1/replays?limit=200",
    "/console/replays",
)

# Replays are few. Types and patterns are counted in an index, 0.1 µs for each subscription.
SCANNED = {
    "SCAN webhook_replays",
    "SCAN webhook_subscriptions USING COVERING INDEX ix_webhook_subs_match",
    "SCAN webhook_event_types USING COVERING INDEX ix_webhook_event_types_match",
}

# A part of a url or a name is looked for in all subscriptions, 0.3 µs each.
PART = "lower(webhook_subscriptions.name) LIKE"
# A few rows are sorted: those of a page, their types, an external id, cursors, and 20 subscriptions by numbers.
SORTED = (
    "webhook_secrets",
    "SELECT webhook_event_types.subscription_id",
    "external_id =",
    "count(*) DESC",
    "FROM webhook_cursors",
    "NULL AND webhook_subscriptions.tenant",
    "= ? AND webhook_subscriptions.tenant",
)
DISABLED = "webhook_subscriptions.enabled = ? ORDER BY webhook_subscriptions.id DESC"  # few are: read from the newest


@pytest.fixture(scope="module")
def full(new_sqlite_engine: Callable[[], Engine]) -> Iterator[Engine]:
    """The database with all these rows."""
    engine = new_sqlite_engine()
    fill(engine)
    yield engine
    engine.dispose()


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


@pytest.mark.timeout(600)  # inserting the rows takes a minute
@pytest.mark.parametrize(
    ("who", "path"),
    [
        *(("everything", path) for path in (*OF_ALL, *OF_A_TENANT)),
        *((who, path) for who in ("rare", "tenant-1", "nobody") for path in OF_A_TENANT),
    ],
)
def test_each_page_is_cheap_whoever_asks(full: Engine, port: int, who: str, path: str) -> None:
    """Its statements are few, and have indexes for their conditions and orders, also if it finds nothing."""
    with requests.Session() as visitor:
        visitor.headers["authorization"] = f"Bearer {who}"
        visitor.post(f"http://127.0.0.1:{port}{BASE}/sign-in", data={"token": who})

        def look() -> None:
            assert visitor.get(f"http://127.0.0.1:{port}{path}", timeout=60).status_code == 200

        took = seconds(look)
        told = plans(full, look)
    print(f"\n{who}: {path}: {took * 1000:.1f} ms, {len(told)} statements")  # noqa: T201 (for -s)
    assert 0 < len(told) <= STATEMENTS, told
    for sql, plan in told:
        for part in plan.split(" | "):
            scanned = part.startswith("SCAN webhook_") and part not in SCANNED
            assert not scanned or DISABLED in sql or PART in sql, (sql, plan)
        assert "FOR ORDER BY" not in plan or any(each in sql for each in SORTED), (sql, plan)
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
