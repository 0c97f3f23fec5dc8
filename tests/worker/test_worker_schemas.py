"""A worker whose records have schemas: with a registry that answers, that fails, or that lacks a schema."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from consumer.config.environment import load
from consumer.config.settings import SchemaSettings
from consumer.ops.check import _schema_registry
from consumer.schemas.registry import Registry
from tests.records import in_front
from tests.schemas.orders import as_json, serializers
from tests.schemas.registry_server import SchemaRegistry
from tests.secure_broker import Certificates
from tests.token_server import token_server
from tests.waiting import eventually
from tests.worker.test_worker import Rig
from tests.worker.test_worker import rig as rig  # noqa: PLC0414 (a fixture)

UNKNOWN = in_front(999, b"unknown")


@pytest.fixture
def schemas(rig: Rig, registry: SchemaRegistry, monkeypatch: pytest.MonkeyPatch) -> Iterator[SchemaRegistry]:
    """The registry that the rig's worker uses."""
    monkeypatch.setattr("consumer.schemas.registry.TIMEOUT", 0.5)
    with closing(Registry(registry.settings())) as client:
        rig.load_schema = client.decoder
        yield registry


def orders(registry: SchemaRegistry, *numbers: int) -> list[bytes]:
    """Orders in Avro."""
    with serializers(registry.url) as serialize:
        return [serialize["avro"]("orders", number, None) for number in numbers]


def reason_of(rig: Rig) -> str:
    """The reason in /readyz about the registry, once there is one."""
    eventually(lambda: any("schema registry" in each for each in rig.worker.reasons()))
    return next(each for each in rig.worker.reasons() if "schema registry" in each)


def test_records_arrive_as_json_and_bad_ones_are_dead_lettered_unchanged(
    rig: Rig, schemas: SchemaRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain JSON records go on beside them. A dead letter has the original bytes, even if only its JSON is invalid."""
    rig.subscribe("/one", "order.paid")
    rig.subscribe("/one", "a")
    (good,) = orders(schemas, 1)
    no_object = in_front(schemas.add("text", '"string"'), b"\x02x")
    rig.write(good, UNKNOWN, b'{"type": "a"}', good[:-3], no_object, good)
    rig.start(monkeypatch)
    eventually(lambda: len(rig.receiver.requests) == 3)
    assert sorted(rig.dead_letters(3)) == sorted([UNKNOWN, good[:-3], no_object])
    eventually(lambda: rig.worker.readings().commits)
    rig.stop()
    assert rig.committed() == 6
    bodies = [request.body for request in rig.receiver.requests]
    assert sorted(json.loads(body)["type"] for body in bodies) == ["a", "order.paid", "order.paid"]
    assert json.loads(next(body for body in bodies if b"order" in body)) == as_json(1)
    assert {request.headers["content-type"] for request in rig.receiver.requests} == {"application/json"}


def test_partitions_that_leave_while_waiting_are_left_unchanged(
    rig: Rig, schemas: SchemaRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A revoke and a stop do not wait for the registry. The next worker sends each event once."""
    rig.subscribe("/one", "order.paid")
    values = orders(schemas, 1, 2, 3)
    schemas.status = 401
    rig.write(*values)
    rig.start(monkeypatch)
    assert "check SCHEMA_REGISTRY_USER, SCHEMA_REGISTRY_PASSWORD" in reason_of(rig)
    translation = rig.worker.parts.translation
    assert translation is not None
    given_out = rig.worker.parts.recall._given_out((rig.topic, 0))
    assert not given_out(0)  # ordered stored deliveries wait for the records waiting here
    rig.on_loop(rig.revoke)
    assert rig.worker.parts.memory.held == 0
    assert translation.fault is None
    rig.stop()
    assert rig.committed() < 0
    rig.start(monkeypatch)
    assert reason_of(rig)
    rig.stop()
    assert rig.committed() < 0
    schemas.status = 0
    rig.start(monkeypatch)
    eventually(lambda: len(rig.receiver.requests) == 3)
    rig.stop()
    assert [json.loads(request.body)["id"] for request in rig.receiver.requests] == [1, 2, 3]
    assert rig.committed() == 3


def test_records_wait_for_a_token_server_that_is_down(
    rig: Rig, registry: SchemaRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No record is dead-lettered: /readyz gives the reason, and all arrive once the server gives tokens."""
    pki = Certificates(tmp_path)
    rig.subscribe("/one", "order.paid")
    rig.write(*orders(registry, 1, 2))
    with token_server({"webhooks": "s"}, pki.server_tls()) as tokens:
        tokens.down = True
        url, files = f"https://127.0.0.1:{tokens.port}/token", {"ca_file": str(pki.authority)}
        settings = registry.settings(token_url=url, client_id="webhooks", client_secret="s", **files)
        with closing(Registry(settings)) as client:
            rig.load_schema = client.decoder
            rig.start(monkeypatch)
            assert "no access token from 127.0.0.1" in reason_of(rig)
            tokens.down = False
            eventually(lambda: len(rig.receiver.requests) == 2)
            rig.stop()
    assert rig.committed() == 2


def test_check_uses_the_registry(registry: SchemaRegistry) -> None:
    """It does so as a worker would. Failures of the registry and wrong settings are findings."""
    values = {"SCHEMA_REGISTRY_URL": registry.url}
    (finding,) = _schema_registry(values)
    assert (finding.ok, finding.text) == (True, f"schema registry at {registry.url[7:]} answers")
    registry.status = 403
    (finding,) = _schema_registry(values)
    assert not finding.ok
    assert "answers 403: check SCHEMA_REGISTRY_USER" in finding.text
    (finding,) = _schema_registry({**values, "SCHEMA_REGISTRY_CA_FILE": "/missing.pem"})
    assert "SCHEMA_REGISTRY_CA_FILE: /missing.pem cannot be used" in finding.text
    (finding,) = _schema_registry({**values, "SCHEMA_REGISTRY_USER": "u"})
    assert finding.text.startswith("not checked: SCHEMA_REGISTRY_USER is set without SCHEMA_REGISTRY_PASSWORD")
    assert list(_schema_registry({})) == []
    assert load(SchemaSettings, {}).url is None
