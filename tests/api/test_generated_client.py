"""A client that openapi-python-client has made of /openapi.json does a day's work."""

import importlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import closing
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
import requests
from sqlalchemy import Engine

from consumer.api.tokens import TokenFile
from consumer.ledger import store
from consumer.ops.replay_request import Log
from tests.api.test_v1_observed import History, attempt
from tests.api.v1_kit import GROUP, make_api, token_file
from tests.kafka_kit import Kafka
from tests.ledger.rows_kit import make_event, parked
from tests.processes import ROOT
from tests.provided import kept, or_skip, run

PINNED = ROOT / "requirements-client.txt"
NAME = "hooks_client"


def _generator() -> Path:
    """The folder of the generator's packages, installed the first time: it needs other versions than this project."""
    pinned = PINNED.read_text()
    newest = next(line.split()[0] for line in pinned.splitlines() if line.startswith("openapi-python-client=="))
    words = ("install", "--quiet", "--disable-pip-version-check", "--require-hashes", "--requirement", str(PINNED))
    return kept(
        ROOT / ".cache/client" / newest,
        lambda work: run([sys.executable, "-m", "pip", *words, "--target", str(work / newest)], timeout=300),
    )


class Client:
    """The generated package: its routes by module and name, and its models."""

    def __init__(self, url: str, token: str) -> None:
        self.models: Any = importlib.import_module(f"{NAME}.models")
        made: Any = importlib.import_module(NAME)
        self._client = made.AuthenticatedClient(base_url=url, token=token, raise_on_unexpected_status=True)

    def __call__(self, place: str, *path: Any, **more: Any) -> Any:
        """The parsed answer of a route; of a problem too."""
        route = importlib.import_module(f"{NAME}.api.{place}")
        return route.sync_detailed(*path, client=self._client, **more).parsed

    def close(self) -> None:
        """Close its connections."""
        self._client.get_httpx_client().close()

    def walk(self, place: str, limit: int, **more: Any) -> list[Any]:
        """The items of all pages."""
        found, page = [], self(place, limit=limit, **more)
        found += page.items
        while page.next_ is not None:
            page = self(place, limit=limit, cursor=page.next_, **more)
            found += page.items
        return found


def _subscribes(client: Client) -> int:
    """Creates, lists, changes, pauses and resumes; returns the id of a subscription."""
    models = client.models
    algorithm = models.SecretAlgorithm.HMAC
    new = models.NewSubscription(url="https://example.com/hooks", event_type="order.*", generate_secret=algorithm)
    created = [client("subscriptions.create_subscription", body=new) for _ in range(3)]
    assert all(each.receiver_key.startswith("whsec_") for each in created)
    assert [each.id for each in client.walk("subscriptions.list_subscriptions", 2)] == [each.id for each in created]
    one = created[0].id
    patch = models.SubscriptionPatch(rate_limit=50.0, ordering=models.Ordering.KEY)
    changed = client("subscriptions.patch_subscription", one, body=patch)
    assert (changed.rate_limit, changed.ordering, changed.state) == (50.0, "key", models.SubscriptionState.ENABLED)
    pause = models.SubscriptionPatch(state=models.SubscriptionState.PAUSED, reason="moves")
    paused = client("subscriptions.patch_subscription", one, body=pause)
    assert (paused.paused_at.utcoffset().total_seconds(), paused.paused_reason) == (0, "moves")
    resume = models.SubscriptionPatch(state=models.SubscriptionState.ENABLED)
    assert client("subscriptions.patch_subscription", one, body=resume).paused_at is None
    refused = client("subscriptions.ping_subscription", one, body=models.TestEvent())
    assert (refused.code, refused.status) == (models.ProblemCode.CONFLICT, HTTPStatus.CONFLICT)
    assert "WEBHOOK_SECRET" in refused.detail
    unknown = client("subscriptions.show_subscription", 99)
    assert (unknown.code, len(unknown.request_id)) == (models.ProblemCode.NOT_FOUND, 16)
    return int(one)


def _redelivers(client: Client, one: int) -> None:
    """Finds the five deliveries that were given up, and sends them again."""
    models = client.models
    state = models.DeliveryState.EXHAUSTED
    given_up = client.walk("deliveries.list_deliveries", 2, state=[state], subscription_id=one)
    assert [(each.offset, each.state) for each in given_up] == [(offset, state) for offset in (4, 3, 2, 1, 0)]
    again = models.RedeliveryRequest([each.id for each in given_up])
    assert len(client("deliveries.redeliver_deliveries", body=again).delivery_ids) == 5
    shown = client("deliveries.show_delivery", given_up[0].id)
    assert (shown.state, shown.event.content_type) == (models.DeliveryState.PARKED, "application/json")


def _looks_back(client: Client, one: int) -> None:
    """Previews a replay of three records, and walks through five attempts."""
    models = client.models
    wanted = models.NewReplay(one, "1970-01-01T00:00:00Z", dry_run=True)
    preview = client("replays.create_replay", body=wanted)
    assert (preview.rate, [part.records for part in preview.partitions]) == (5.0, [3])
    attempts = client.walk("attempts.list_attempts", 2, subscription_id=one)
    assert [each.outcome for each in attempts] == [models.Outcome.PARKED] * 5
    assert attempts == sorted(attempts, key=lambda each: each.at, reverse=True)


def _removes(client: Client, one: int) -> None:
    models = client.models
    owed = client("subscriptions.remove_subscription", one)
    assert (owed.code, owed.owed) == (models.ProblemCode.CONFLICT, 5)
    give_up = models.RemoveSubscriptionIfOwed.EXHAUST
    assert client("subscriptions.remove_subscription", one, if_owed=give_up) is None
    assert client("subscriptions.show_subscription", one).code == models.ProblemCode.NOT_FOUND


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of sys.path that the client is generated into."""
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == NAME]:
        del sys.modules[name]


def test_a_day_of_a_generated_client(engine: Engine, package: Path, mock_kafka: str) -> None:
    """It creates, lists, changes, pauses, pings, redelivers, previews a replay and removes, with classes and enums."""
    api = make_api(engine, TokenFile(token_file(package / "tokens.toml")))
    described = package / "openapi.json"
    described.write_text(json.dumps(requests.get(f"{api.url}/openapi.json", timeout=60).json()))
    generator = or_skip(_generator, "CLIENT")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # of ruff, which formats it
    words = ("generate", "--path", str(described), "--meta", "none", "--output-path", str(package / NAME))
    command = [sys.executable, "-m", "openapi_python_client", *words, "--fail-on-warning"]
    run(command, timeout=120, PYTHONPATH=str(generator), PATH=path)
    with closing(Client(api.url, "all")) as client:
        one = _subscribes(client)
        store.park(engine, GROUP, [parked(make_event(each), one, status="exhausted") for each in range(5)], 1.0)
        _redelivers(client, one)
        kafka = Kafka(mock_kafka, real=False)
        topic = kafka.topic()
        kafka.write(topic, [b"{}"] * 3)
        history = History([attempt(one)._replace(at=1_800_000_000.0 - second) for second in range(5)])
        log = Log(kafka.settings(group=GROUP), [topic])
        api.app.state.backing = api.app.state.backing._replace(log=log, history=history)
        _looks_back(client, one)
        _removes(client, one)
