"""The proof of deliveries, on a real Kafka: what each step of a delivery leaves on record; a gap is named."""

import time
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from sqlalchemy import Engine, text

from consumer.errors import Conflict, NotFound
from consumer.intake.log_reader import LogReader
from consumer.ledger import cursors
from consumer.ledger.cursors import NewCursor
from consumer.ledger.replays import Span
from consumer.ops import delivery_audit as module
from consumer.ops.changes import CHANGED, Changes
from consumer.ops.delivery_audit import audit
from models import CursorReason
from tests.kafka_kit import Kafka
from tests.ledger.rows_kit import GROUP
from tests.ops.audit_scene import EVENTS, Scene

pytestmark = pytest.mark.kafka  # the mock cluster finds no offsets by time


@pytest.fixture
def scene(real_kafka: Kafka, engine: Engine) -> Scene:
    """A deployment."""
    return Scene(real_kafka, engine)


def test_each_delivery_is_found_where_it_is(scene: Scene) -> None:
    """Delivered, waiting in a row, given up, owed by a cursor, not committed yet; a gap is named by its place."""
    scene.commit(8)
    scene.tried(0, 1, 2)
    scene.tried(3, 6, outcome="parked")
    scene.tried(1, 2, 7, outcome="exhausted")  # one was purged, the others were redelivered
    scene.store(3)
    scene.store(4, status="exhausted")
    place = scene.topic, 0, scene.subscription
    cursors.begin(scene.where.engine, GROUP, [NewCursor(place, 5, CursorReason.PAUSED, end=6)], time.time())
    found = scene.audit()
    ((key, counts),) = found.counts.items()
    assert key[0] == scene.topic
    assert counts == {
        "records": 11,
        "events": 10,
        "matched": 10,
        "delivered": 3,
        "waiting": 3,
        "given_up": 2,
        "covered": 1,
        "missing": 1,
    }
    assert [(each.topic, each.partition, each.offset, each.subscription_id) for each in found.missing] == [
        (scene.topic, 0, 6, scene.subscription)
    ]
    assert (found.left, found.faults) == (0, [])


def test_hours_without_records_cost_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """An audit since the year 2000 begins at the first record, and ends behind the last one."""
    asked: list[object] = []
    spans = LogReader.spans

    def counted(reader: LogReader, *given: Any) -> list[Span]:
        asked.append(given)
        return spans(reader, *given)

    monkeypatch.setattr(LogReader, "spans", counted)
    (*_, found) = audit(scene.log, scene.where, scene.attempts, 946_684_800.0, time.time() + 365 * 86_400)
    assert (found.total["records"], found.left) == (EVENTS + 1, 0)
    assert len(asked) < 9


def test_a_whole_proof_has_no_difference_until_one_delivery_is_removed(scene: Scene) -> None:
    """The audit names the one whose row was deleted by hand."""
    scene.tried(*range(EVENTS - 1))
    scene.store(EVENTS - 1)
    assert scene.audit().total["missing"] == 0
    with scene.where.engine.begin() as connection:
        connection.execute(text("DELETE FROM webhook_deliveries"))
    assert [each.offset for each in scene.audit().missing] == [EVENTS - 1]


def test_the_present_subscriptions_count_and_each_from_its_registration(scene: Scene) -> None:
    """Filters and disabled ones are not owed; a later subscription is not owed what came before it."""
    scene.tried(*range(EVENTS))
    scene.subscribe(event_filter="data.number >= 100")
    scene.subscribe(since=datetime.now(UTC))
    disabled = scene.subscribe()
    Changes(scene.where, "cli:me").set_enabled(disabled, enabled=False)
    chosen = scene.subscribe("*", event_filter="data.number in [2, 3]", tenant="acme")
    assert scene.audit().total["matched"] == EVENTS
    other = scene.subscribe(event_filter="data.number in [2, 3]")
    assert [(each.offset, each.subscription_id) for each in scene.audit().missing] == [(2, other), (3, other)]
    assert scene.audit(subscription_id=scene.subscription).total["matched"] == EVENTS
    assert scene.audit(tenant="acme").total["matched"] == 0
    with pytest.raises(NotFound):
        scene.audit(subscription_id=chosen, tenant="another")


def test_a_subscription_that_was_changed_later_may_not_have_matched(scene: Scene) -> None:
    """Its deliveries are counted apart: an operational event says when it was changed."""
    event = {
        "source": scene.settings.event_source,
        "type": CHANGED,
        "time": datetime.now(UTC),
        "data": {"subscription_id": scene.subscription},
    }
    scene.kafka.write(scene.settings.operations_topic, [orjson.dumps(event)])
    total = scene.audit().total
    assert (total["changed"], total["missing"]) == (EVENTS, 0)


def test_parts_and_limits(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long log is audited in parts; a few deliveries are named, and all counted; too many at once are refused."""
    monkeypatch.setattr(module, "AT_ONCE", 3)
    monkeypatch.setattr(module, "LISTED", 4)
    scene.tried(0, 9)
    found = scene.audit()
    assert (found.total["records"], found.total["delivered"], found.total["missing"]) == (11, 2, 8)
    assert [each.offset for each in found.missing] == [1, 2, 3, 4]
    assert found.as_json()["not_listed"] == 4
    monkeypatch.setattr(module, "MOST", 2)
    with pytest.raises(Conflict, match="audit one tenant or subscription"):
        scene.audit()


def test_without_attempts_nothing_can_be_proved(scene: Scene) -> None:
    """The error names the setting."""
    for topic, words in ((None, "set KAFKA_ATTEMPTS_TOPIC"), ("missing", "correct KAFKA_ATTEMPTS_TOPIC")):
        with pytest.raises(Conflict, match=words):
            list(audit(scene.log, scene.where, topic, 0.0, time.time()))
