"""The cost of the console's pages and the API's lists with 100,000 subscriptions and a million stored deliveries.

    python -m benchmarks.pages [DATABASE]

Prints the table of docs/performance.md: for each path the most statements of ten requests, and the median of the CPU in
this process, of which the client takes a millisecond. DATABASE is a SQLite file, which is kept: it is filled if it does
not exist. It needs a Kafka (java 17 and maven), which the pages of events read.
"""

import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import requests
import sqlalchemy as sa
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic  # the admin package does not export it to type checkers

from benchmarks import rig
from consumer.api.app import create_app
from consumer.api.backing import Backing
from consumer.api.tokens import TokenFile
from consumer.config.environment import load
from consumer.config.settings import DatabaseSettings, KafkaSettings
from consumer.console.assembly import with_console
from consumer.crypto.vault import Vault
from consumer.database import migrations
from consumer.database.engine import create_engine
from consumer.events.attempt import Attempt, key_of, render
from consumer.http.server import BackgroundServer, listen
from consumer.ops.attempts import AttemptHistory
from consumer.ops.changes import Deployment
from consumer.ops.overview import FRESH, overview, shared
from consumer.ops.replay_request import Log
from tests.large_estate import fill

REPEATED = 10
WEEK = 7 * 86_400
ATTEMPTS = 20_000  # of subscription 1, over a week
EVENTS = 1_000
ORDERS, ATTEMPTED, OPERATIONS = "orders", "webhooks.attempts", "webhooks.operations"
OVERVIEWS = ("/console/", "/v1/statistics")
PATHS = (
    *OVERVIEWS,
    *OVERVIEWS,
    "/console/subscriptions",
    "/console/subscriptions?state=failing",
    "/console/subscriptions?url=99999",
    "/console/subscriptions?tenant=rare",
    "/console/subscriptions/1",
    "/console/subscriptions/77770",
    "/console/subscriptions/1/statistics",
    "/console/deliveries",
    "/console/deliveries?state=held",
    "/console/deliveries?subscription_id=1&state=exhausted",
    "/console/deliveries?event_type=type.7",
    "/console/deliveries?since=2023-11-20T00:00&until=2023-11-20T03:00",
    "/console/deliveries/500000",
    "/console/events",
    f"/console/events/{ORDERS}/0/7",
    "/console/search?q=type.7",
    "/console/search?q=99999",
    "/console/search/log?q=absent&hours=1",
    "/console/types",
    "/console/replays",
    "/console/dead-letters",
    "/console/audit",
    "/v1/subscriptions?limit=200",
    "/v1/subscriptions?url=99999",
    "/v1/subscriptions/77770",
    "/v1/subscriptions/1/statistics",
    "/v1/deliveries?limit=200",
    "/v1/deliveries?subscription_id=1&limit=200",
    "/v1/deliveries?tenant=rare",
    "/v1/deliveries?tenant=tenant-1&limit=200",
    "/v1/attempts?subscription_id=1",
    f"/v1/events/{ORDERS}/0/7",
    "/v1/search?q=99999",
    "/v1/event-types?limit=200",
    "/v1/replays?limit=200",
)


def main(file: str | None = None) -> None:
    """Fills the database and the topics, requests each path, and prints the table."""
    with tempfile.TemporaryDirectory(prefix="webhooks-pages-") as folder, rig.kafka() as bootstrap:
        engine = _database(Path(file or f"{folder}/webhooks.db"))
        kafka = KafkaSettings(bootstrap_servers=bootstrap, attempts_topic=ATTEMPTED, operations_topic=OPERATIONS)
        _write(kafka)
        statements = list[str]()
        sa.event.listen(engine, "before_cursor_execute", lambda _, __, sql, *___: statements.append(sql))
        with _server(engine, kafka) as base, requests.Session() as session:
            print("| path | statements | CPU, ms |\n| --- | ---: | ---: |")
            for place, path in enumerate(PATHS):
                anew = place < len(OVERVIEWS)  # else it is the one of the last seconds, which all visitors share
                took, most = list[float](), 0
                for _ in range(REPEATED + 1):
                    time.sleep((FRESH + 0.1) * anew)
                    statements.clear()
                    began = time.process_time()
                    session.get(base + path, timeout=60).raise_for_status()
                    took.append((time.process_time() - began) * 1000)
                    most = max(most, sum(not sql.startswith(("BEGIN", "PRAGMA")) for sql in statements))
                _, *usual = took
                print(f"| `{path}`{', anew' * anew} | {most} | {statistics.median(usual):.1f} |", flush=True)
        engine.dispose()


def _database(file: Path) -> sa.Engine:
    there = file.exists()
    engine = create_engine(load(DatabaseSettings, {"DATABASE_URL": f"sqlite:///{file}"}))
    if not there:
        file.touch()
        migrations.upgrade(engine)
        fill(engine)
    return engine


def _write(kafka: KafkaSettings) -> None:
    bootstrap: dict[str, str | int | float | bool] = {"bootstrap.servers": kafka.bootstrap_servers}
    admin, producer, now = AdminClient(bootstrap), Producer(bootstrap), time.time()
    topics = (ORDERS, ATTEMPTED, OPERATIONS, kafka.dead_letter_topic)
    for created in admin.create_topics(
        [NewTopic(topic, 1, config={"retention.ms": "-1"}) for topic in topics]
    ).values():
        created.result(60)
    for number in range(EVENTS):
        producer.produce(ORDERS, b'{"type": "type.%d", "id": "%d"}' % (number % 500, number))
    for number in range(ATTEMPTS):
        at = now - WEEK * (1 - number / ATTEMPTS)
        rest = ("type.7", None, ORDERS, 0, number % EVENTS, 1, "delivered", 200, None, 0.04, None)
        value = render(Attempt(at, 1, f"msg_{number}", *rest), kafka.event_source, str(number))
        producer.produce(ATTEMPTED, value, key_of(1), timestamp=int(at * 1000))
    producer.flush(60)


@contextmanager
def _server(engine: sa.Engine, kafka: KafkaSettings) -> Iterator[str]:
    history, tokens = AttemptHistory(kafka, ATTEMPTED), TokenFile(None)
    history.start()
    look = shared(partial(overview, engine, kafka, (ORDERS,)))
    deployment = Deployment(engine, kafka.group_id, Vault())
    backing = Backing(deployment, history=history, look=look, kafka=kafka, log=Log(kafka, [ORDERS]))
    listener = listen("127.0.0.1", 0)
    server = BackgroundServer(with_console(create_app(backing, tokens), backing, tokens), listener, "pages")
    gc.freeze()  # as the command does
    yield f"http://127.0.0.1:{server.port}"
    server.close()
    history.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
