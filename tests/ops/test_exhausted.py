"""Sending deliveries of the exhausted topic again: what an interruption leaves."""

from sqlalchemy import Engine

from consumer.config.settings import KafkaSettings
from consumer.crypto.vault import Vault
from consumer.ledger import marks
from consumer.ops import exhausted
from consumer.ops.changes import Changes, Deployment
from consumer.subscriptions import repository
from tests.ledger.rows_kit import GROUP, URL, counts, make_event, parked


def test_what_is_due_is_marked_though_the_command_is_interrupted(engine: Engine) -> None:
    """With all records of a delivery. Once it is delivered and its row is gone, the next run leaves them out."""
    sub = repository.add(engine, URL, "user.created")
    row = parked(make_event(1), sub, status="exhausted", next_attempt_at=None)
    batch = {(0, 5): row, (1, 6): row, (0, 7): row._replace(subscription_id=999)}
    kafka = KafkaSettings.model_construct(exhausted_topic="given-up")
    changes = Changes(Deployment(engine, GROUP, Vault(), default=("x",), clock=lambda: 900.0), "me")
    steps = exhausted.redeliver(changes, kafka, iter([batch]))
    assert next(steps).ids == (1,)
    steps.close()  # type: ignore[attr-defined]  # a generator
    assert counts(engine) == {"parked": 1}
    assert marks.published(engine, GROUP, "given-up", 0).keys() == {(0, 5), (1, 6)}
