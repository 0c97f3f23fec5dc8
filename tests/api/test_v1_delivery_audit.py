"""/v1/audit/deliveries, on a real Kafka."""

from pathlib import Path

import pytest
from sqlalchemy import Engine

from consumer.api import delivery_audit
from consumer.api.tokens import TokenFile
from tests.api.v1_kit import Api, make_api, token_file
from tests.kafka_kit import Kafka
from tests.ops.audit_scene import EVENTS, Scene

pytestmark = pytest.mark.kafka  # the mock cluster finds no offsets by time

SINCE = {"since": "2026-01-01T00:00:00Z"}


@pytest.fixture
def scene(real_kafka: Kafka, engine: Engine) -> Scene:
    """A deployment, of whose events all but the last are delivered."""
    made = Scene(real_kafka, engine)
    made.tried(*range(EVENTS - 1))
    return made


@pytest.fixture
def api(engine: Engine, scene: Scene, tmp_path: Path) -> Api:
    """Its API."""
    return make_api(engine, TokenFile(token_file(tmp_path / "tokens.toml")), log=scene.log)


def test_missing_deliveries_are_named(api: Api, scene: Scene) -> None:
    """With the counts of each topic and hour; perhaps of one subscription."""
    answer = api.call("GET", "/audit/deliveries", params=SINCE)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert [(each["topic"], each["matched"], each["delivered"]) for each in found["hours"]] == [(scene.topic, 10, 9)]
    assert [(each["offset"], each["subscription_id"]) for each in found["missing"]] == [(9, scene.subscription)]
    assert (found["not_listed"], found["faults"]) == (0, [])
    scene.tried(EVENTS - 1)
    one = SINCE | {"subscription_id": str(scene.subscription)}
    assert api.call("GET", "/audit/deliveries", params=one).json()["missing"] == []
    assert api.call("GET", "/audit/deliveries", params=SINCE | {"subscription_id": "99"}).status_code == 404


def test_an_audit_that_takes_long_is_for_the_command(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer says how many records there are, and what has no limit."""
    monkeypatch.setattr(delivery_audit, "RECORDS", EVENTS)
    answer = api.call("GET", "/audit/deliveries", params=SINCE)
    (error,) = answer.json()["errors"]
    assert (answer.status_code, error["parameter"]) == (422, "since")
    assert "11 records" in error["detail"]
    assert "kafka-webhooks audit deliveries" in error["detail"]


def test_a_tenant_audits_nothing(api: Api) -> None:
    """The counts are of all tenants."""
    assert api.call("GET", "/audit/deliveries", params=SINCE, token="acme").status_code == 403
