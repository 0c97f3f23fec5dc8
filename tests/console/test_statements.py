"""The number of statements of a page or a list, which does not depend on the number of rows."""

import time
from collections.abc import Iterator

import pytest
import requests
from sqlalchemy import Engine

from consumer.api.app import create_app
from consumer.api.backing import Backing
from consumer.api.tokens import Caller
from consumer.config.settings import KafkaSettings
from consumer.console.app import BASE
from consumer.console.assembly import with_console
from consumer.crypto.vault import Vault
from consumer.http.server import BackgroundServer, listen
from consumer.ops.attempts import AttemptHistory
from consumer.ops.changes import Deployment
from consumer.ops.overview import overview, shared
from tests.api.test_v1_observed import attempt
from tests.console.tokens import Tokens
from tests.large_estate import fill
from tests.ledger.rows_kit import GROUP, plans

MOST = 10
ROWS = 2_000  # of subscriptions and of deliveries
ITS = 19  # a subscription of a tenant, with a further type, a secret and an authority
CALLERS = {
    name: Caller(name, frozenset({"read", "write"}), tenant) for name, tenant in (("all", None), ("its", "tenant-19"))
}
PATHS = (
    "/v1/statistics",  # the overview, which the first page shares
    "/console/",
    "/console/subscriptions?url=1",
    f"/console/subscriptions/{ITS}",
    f"/console/subscriptions/{ITS}?tab=waiting",
    f"/console/subscriptions/{ITS}/edit",
    f"/console/subscriptions/{ITS}/remove",
    "/console/deliveries?since=2023-11-14T22:20&until=2023-11-14T22:40",
    f"/console/deliveries?subscription={ITS}",
    f"/console/deliveries/{ITS - 1}",
    "/console/events",
    f"/console/search?q={ITS}",
    "/console/types",
    "/console/replays",
    "/v1/subscriptions?limit=200",
    f"/v1/subscriptions/{ITS}",
    "/v1/deliveries?limit=200",
    "/v1/deliveries?since=2023-11-14T22:20:00Z&until=2023-11-14T22:40:00Z",
    f"/v1/deliveries/{ITS - 1}",
    f"/v1/attempts?subscription_id={ITS}",
    f"/v1/search?q={ITS}",
    "/v1/event-types",
    "/v1/replays",
)


@pytest.fixture
def port(sqlite_engine: Engine) -> Iterator[int]:
    """A server of the API and the console, with an attempt of the last hour."""
    fill(sqlite_engine, ROWS, ROWS)
    history = AttemptHistory(KafkaSettings(bootstrap_servers="127.0.0.1:1"), "attempts")
    now = time.time()
    history._recent.add(attempt(ITS, "tenant-19")._replace(at=now), 100, now)
    tokens, deployment = Tokens(CALLERS), Deployment(sqlite_engine, GROUP, Vault())
    look = shared(lambda: overview(sqlite_engine, None, ()), fresh=3_600.0)  # in production, for two seconds
    backing = Backing(deployment, history=history, look=look)
    app = with_console(create_app(backing, tokens), backing, tokens)
    server = BackgroundServer(app, listen("127.0.0.1", 0), "statements")
    yield server.port
    server.close()


@pytest.mark.parametrize("who", CALLERS)
def test_each_page_takes_few_statements(sqlite_engine: Engine, port: int, who: str) -> None:
    """At most ten, whoever asks, the check of the session included."""
    found = {}
    with requests.Session() as visitor:
        visitor.headers["authorization"] = f"Bearer {who}"
        visitor.post(f"http://127.0.0.1:{port}{BASE}/sign-in", data={"token": who}, allow_redirects=False)
        for path in PATHS:

            def look(path: str = path) -> None:
                status = visitor.get(f"http://127.0.0.1:{port}{path}", timeout=60).status_code
                assert status == 200 or (who == "its" and status in {403, 404}), path

            found[path] = len(plans(sqlite_engine, look))
    assert {path: number for path, number in found.items() if number > MOST} == {}
    assert max(found.values()) > MOST // 2  # they are counted
