"""`audit deliveries`, on a real Kafka."""

import csv
import json

import pytest
from sqlalchemy import Engine

from tests.kafka_kit import Kafka
from tests.ops.audit_scene import EVENTS, Scene
from tests.processes import Command


@pytest.mark.kafka  # the mock cluster finds no offsets by time
def test_audit_of_deliveries(called: Command, real_kafka: Kafka, engine: Engine) -> None:
    """A table, JSON and CSV; the exit status says whether a delivery is missing."""
    scene = Scene(real_kafka, engine)
    scene.tried(*range(EVENTS - 1))
    settings = {
        "KAFKA_BOOTSTRAP_SERVERS": scene.settings.bootstrap_servers,
        "KAFKA_GROUP_ID": scene.settings.group_id,
        "KAFKA_TOPICS": scene.topic,
        "KAFKA_OPERATIONS_TOPIC": scene.settings.operations_topic,
        "KAFKA_ATTEMPTS_TOPIC": scene.attempts,
        "DATABASE_URL": engine.url.render_as_string(hide_password=False),
    }
    shown = called("audit", "deliveries", "--since", "1h", **settings)
    assert (shown.returncode, "10 matched, 9 delivered, 1 missing" in shown.stdout) == (1, True), shown
    told = json.loads(called("audit", "deliveries", "--json", **settings).stdout)
    assert [each["offset"] for each in told["missing"]] == [EVENTS - 1]
    for sheet, column, value in (("hours", "delivered", "9"), ("missing", "offset", "9")):
        (row,) = csv.DictReader(called("audit", "deliveries", "--csv", sheet, **settings).stdout.splitlines())
        assert row[column] == value
    scene.tried(EVENTS - 1)
    assert called("audit", "deliveries", "--subscription", str(scene.subscription), **settings).returncode == 0
    wrong = called("audit", "deliveries", "--since", "1h", "--until", "2h", **settings)
    assert (wrong.returncode, "is not before --until" in wrong.stderr) == (2, True)
